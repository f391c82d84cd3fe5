/**
 * What a business does about its events beside the stream: dead letters, replay, policy.
 *
 * Every call is safe to repeat and is repeated by `call`, the client's. Knows no stream.
 */

import { create, type Message } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Method } from "../channel.js";
import { InvalidRequest } from "../errors.js";
import {
  type DeadLetter,
  DropDeadLettersRequestSchema,
  GetDeadLetterRequestSchema,
  GetReceivePolicyRequestSchema,
  ListDeadLettersRequestSchema,
  type ReceivePolicy,
  Receiving,
  ReplayDeadLettersRequestSchema,
  ReplayEventsRequestSchema,
  SetReceivePolicyRequestSchema,
} from "../generated/letterlock/v1/receiving_pb.js";
import { checkWhole, durationOf } from "../wire.js";

const PAGE_SIZE = 100;

/** The contract's bound of ReceivePolicy.max_attempts. */
const MAX_ATTEMPTS = 1_000;

/** Makes a single call until it is answered. */
export type Call = <Request extends Message, Response extends Message>(
  method: Method<Request, Response>,
  request: Request,
) => Promise<Response>;

/** Of one business number. Every method throws LetterlockError. */
export class BusinessInbox {
  readonly #businessNumber: string;
  readonly #call: Call;

  constructor(businessNumber: string, call: Call) {
    this.#businessNumber = businessNumber;
    this.#call = call;
  }

  /** All dead letters, oldest first, without content; pages are fetched as needed. */
  async *deadLetters(): AsyncGenerator<DeadLetter, void, undefined> {
    const businessNumber = this.#businessNumber;
    let pageToken = "";
    do {
      const page = { businessNumber, pageSize: PAGE_SIZE, pageToken };
      const { deadLetters, nextPageToken } = await this.#call(
        Receiving.method.listDeadLetters,
        create(ListDeadLettersRequestSchema, page),
      );
      yield* deadLetters;
      pageToken = nextPageToken;
    } while (pageToken);
  }

  /** One dead letter with its event and content. Throws NotFound. */
  async deadLetter(eventId: string): Promise<DeadLetter> {
    const which = { businessNumber: this.#businessNumber, eventId };
    const request = create(GetDeadLetterRequestSchema, which);
    return await this.#call(Receiving.method.getDeadLetter, request);
  }

  /**
   * Have up to 1,000 dead letters given again, under their ids; returns how many there were. After a
   * lost answer the repeat counts only what was left.
   */
  async replayDeadLetters(eventIds: readonly string[]): Promise<number> {
    const which = { businessNumber: this.#businessNumber, eventIds: [...eventIds] };
    const request = create(ReplayDeadLettersRequestSchema, which);
    return (await this.#call(Receiving.method.replayDeadLetters, request)).replayed;
  }

  /** Delete up to 1,000 dead letters for good; counts as `replayDeadLetters`. */
  async dropDeadLetters(eventIds: readonly string[]): Promise<number> {
    const which = { businessNumber: this.#businessNumber, eventIds: [...eventIds] };
    const request = create(DropDeadLettersRequestSchema, which);
    return (await this.#call(Receiving.method.dropDeadLetters, request)).dropped;
  }

  /**
   * Have acknowledged events given again, from a time or an event on, as far as the policy has kept
   * them; returns how many.
   */
  async replay(from: { since: Date } | { eventId: string }): Promise<number> {
    const request = create(ReplayEventsRequestSchema, {
      businessNumber: this.#businessNumber,
      from:
        "since" in from
          ? { case: "fromTime", value: timeOf(from.since) }
          : { case: "fromEventId", value: from.eventId },
    });
    let replayed = 0;
    do {
      const part = await this.#call(Receiving.method.replayEvents, request);
      replayed += part.replayed;
      request.cursor = part.nextCursor;
    } while (request.cursor);
    return replayed;
  }

  /** How the number's events are treated. */
  async policy(): Promise<ReceivePolicy> {
    const request = create(GetReceivePolicyRequestSchema, { businessNumber: this.#businessNumber });
    return await this.#call(Receiving.method.getReceivePolicy, request);
  }

  /**
   * Set that as a whole: attempts before an event becomes a dead letter (0: the gateway's default),
   * and seconds that acknowledged events are kept for `replay` (0: not at all).
   */
  async setPolicy({ maxAttempts = 0, keepAcknowledged = 0 } = {}): Promise<ReceivePolicy> {
    checkWhole(maxAttempts, "max_attempts", 0, MAX_ATTEMPTS);
    const policy = {
      maxAttempts,
      keepAcknowledged: durationOf(keepAcknowledged, "keep_acknowledged"),
    };
    const request = create(SetReceivePolicyRequestSchema, {
      businessNumber: this.#businessNumber,
      policy,
    });
    return await this.#call(Receiving.method.setReceivePolicy, request);
  }
}

function timeOf(since: Date) {
  if (!Number.isNaN(since.getTime())) return timestampFromDate(since);
  throw new InvalidRequest("from where?", { field: "since", limit: "a valid Date" });
}
