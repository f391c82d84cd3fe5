/**
 * The client of a business backend: sends and receives the messages of one business number.
 *
 * Joins the channel, the token and the streams; the streams' logic is in sending.ts, receiving.ts and
 * their drivers. Knows nothing of encryption: that is the gateway's work.
 */

import { randomUUID } from "node:crypto";
import { create, type Message as ProtoMessage } from "@bufbuild/protobuf";
import type { Metadata } from "@grpc/grpc-js";
import { bearer, Channel, type ChannelOptions, type Method } from "../channel.js";
import { InvalidRequest, ServerError } from "../errors.js";
import {
  ConfirmIdentityRequestSchema,
  type ConfirmIdentityResponse,
  GetSafetyNumberRequestSchema,
  Identities,
  type SafetyNumber,
} from "../generated/letterlock/v1/identities_pb.js";
import {
  type Accepted,
  GetMessageRequestSchema,
  type Message,
  Messaging,
  ReceiveOpenSchema,
  ReceiveStart,
  SendMessageRequestSchema,
} from "../generated/letterlock/v1/messaging_pb.js";
import { repeat } from "../reconnect.js";
import { Backoff, type RetryPolicy } from "../retry.js";
import { monotonic, type Sleep, sleep } from "../waiting.js";
import { checkWhole, durationOf, owned } from "../wire.js";
import { BusinessInbox } from "./inbox.js";
import { newIdempotencyKey, type OutgoingMessage, toWire } from "./outgoing.js";
import { ReceiveStream } from "./receiveStream.js";
import { type Messages, SendStream } from "./sendStream.js";

const DEFAULT_WINDOW = 1_000;
const MAX_WINDOW = 10_000;

/** An hour, then the gateway may give the event to others: its holder has probably lost it. */
const DEFAULT_HOLD = 3_600;

/** How often a single call is tried before its caller hears of it. */
const CALL_ATTEMPTS = 5;

/** Where a Receive stream starts. */
export const Start = {
  /** With the oldest event that is not acknowledged. */
  OLDEST: ReceiveStart.OLDEST,
  /** With events from now on. What comes while the stream is away waits for OLDEST. */
  NEW: ReceiveStart.NEW,
} as const;
export type Start = (typeof Start)[keyof typeof Start];

/** How a BusinessClient works. */
export interface BusinessClientOptions extends ChannelOptions {
  /** The business's bearer token. */
  readonly token: string;
  /** The business number, E.164. */
  readonly number: string;
  /** Seconds given to each single call, of which there are at most five. Not set: 10. */
  readonly deadline?: number;
  readonly retry?: RetryPolicy;
  /** Gives a number from 0 to 1, for waits that spread. */
  readonly jitter?: () => number;
  readonly sleep?: Sleep;
}

/** How a Receive stream works. */
export interface ReceiveOptions {
  /** How many events may be unacknowledged at a time: 1 to 10,000. Not set: 1,000. */
  readonly window?: number;
  /** How many bytes of them. Not set or 0: no bound. */
  readonly windowBytes?: number;
  /** Not set: OLDEST. */
  readonly start?: Start;
  /** How long an event stays here without a sign of life: 1 to 600 seconds. Not set: the gateway's. */
  readonly lease?: number;
  /** For how many seconds that is renewed while the event is in hand. Not set: 3,600. */
  readonly hold?: number;
  /**
   * A newer stream of the same name ends this one with Replaced. Not set: a fresh name, so that only
   * this stream's own reconnects take its place.
   */
  readonly consumer?: string;
}

/** A business number at its gateway. Close it in the end. */
export class BusinessClient {
  readonly #channel: Channel;
  readonly #metadata: Metadata;
  readonly #number: string;
  readonly #deadline: number;
  readonly #retry: RetryPolicy;
  readonly #jitter: () => number;
  readonly #sleep: Sleep;
  readonly #streams = new Set<WeakRef<SendStream | ReceiveStream>>();

  /** `target` is the gateway's `host:port`. Throws InvalidRequest. */
  constructor(target: string, options: BusinessClientOptions) {
    this.#metadata = bearer(options.token);
    this.#channel = new Channel(target, options);
    this.#number = options.number;
    this.#deadline = options.deadline ?? 10;
    this.#retry = options.retry ?? {};
    this.#jitter = options.jitter ?? Math.random;
    this.#sleep = options.sleep ?? sleep;
  }

  /** End every stream, then the connection. */
  async close(): Promise<void> {
    for (const stream of this.#streams) await stream.deref()?.close();
    this.#streams.clear();
    this.#channel.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Send one message; returns once the gateway has it durably. Tried again under the same key where
   * the outcome is unknown. Throws what the gateway refused it for.
   */
  async send(message: OutgoingMessage): Promise<Accepted> {
    const wire = toWire(message, message.idempotencyKey ?? newIdempotencyKey());
    const request = create(SendMessageRequestSchema, {
      businessNumber: this.#number,
      message: wire,
    });
    const { accepted } = await this.#call(Messaging.method.sendMessage, request);
    if (accepted === undefined) throw new ServerError("an answer without an acceptance");
    return accepted;
  }

  /**
   * Send messages as they come from an iterable, sync or async; gives a SendResult for each.
   *
   * At most `window` messages are in hand. Lost streams are opened again without end, and what was
   * not answered is sent again under the same keys. Throws InvalidRequest.
   */
  sendMany(messages: Messages, { window = DEFAULT_WINDOW } = {}): SendStream {
    checkWhole(window, "window", 1, MAX_WINDOW);
    return this.#opened(
      new SendStream(messages, {
        open: () => this.#channel.stream(Messaging.method.send, this.#metadata),
        number: this.#number,
        window,
        backoff: this.#backoff(),
        sleep: this.#sleep,
      }),
    );
  }

  /**
   * Events of the number, shared with all others that receive for it; each is in the window until its
   * `ack()` or `nack()`. Throws InvalidRequest.
   */
  receive(options: ReceiveOptions = {}): ReceiveStream {
    const { window = DEFAULT_WINDOW, windowBytes = 0, start = Start.OLDEST, lease } = options;
    const { hold = DEFAULT_HOLD, consumer = randomUUID() } = options;
    checkWhole(window, "window", 1, MAX_WINDOW);
    checkWhole(windowBytes, "window_bytes", 0, Number.MAX_SAFE_INTEGER);
    if (!(hold >= 0)) throw new InvalidRequest("hold", { field: "hold", limit: "0 or more" });
    const opening = create(ReceiveOpenSchema, {
      businessNumber: this.#number,
      window,
      windowBytes: BigInt(windowBytes),
      start,
      consumer,
    });
    if (lease !== undefined) opening.lease = durationOf(lease, "lease");
    return this.#opened(
      new ReceiveStream({
        open: () => this.#channel.stream(Messaging.method.receive, this.#metadata),
        opening,
        hold,
        clock: monotonic,
        backoff: this.#backoff(),
        sleep: this.#sleep,
      }),
    );
  }

  /** Dead letters, replay, and how events are kept. */
  get inbox(): BusinessInbox {
    return new BusinessInbox(this.#number, (method, request) => this.#call(method, request));
  }

  /** How far a sent message has come, by one of its two names. Throws NotFound. */
  async message(name: { messageId: string } | { idempotencyKey: string }): Promise<Message> {
    const request = create(GetMessageRequestSchema, {
      businessNumber: this.#number,
      key:
        "messageId" in name
          ? { case: "messageId", value: name.messageId }
          : { case: "idempotencyKey", value: name.idempotencyKey },
    });
    return await this.#call(Messaging.method.getMessage, request);
  }

  /**
   * The safety number with a user, by user id, or by phone number (+...) while there is a message with
   * that number. Throws NotFound.
   */
  async safetyNumber(user: string): Promise<SafetyNumber> {
    const request = create(GetSafetyNumberRequestSchema, {
      businessNumber: this.#number,
      user: userOf(user),
    });
    const { getSafetyNumber } = Identities.method;
    return await this.#call(getSafetyNumber, request);
  }

  /**
   * Let messages to a user go on whose identity key changed, after the safety number was checked with
   * them: its 60 digits, or what was scanned from their device. Throws SafetyNumberMismatch when the
   * key is not the one that was checked, and NotFound.
   */
  async confirmIdentity(
    user: string,
    checked: { digits: string } | { scanned: Uint8Array },
  ): Promise<ConfirmIdentityResponse> {
    const request = create(ConfirmIdentityRequestSchema, {
      businessNumber: this.#number,
      user: userOf(user),
      checked:
        "digits" in checked
          ? { case: "digits", value: checked.digits.replace(/\s/g, "") }
          : { case: "scanned", value: owned(checked.scanned) },
    });
    const { confirmIdentity } = Identities.method;
    return await this.#call(confirmIdentity, request);
  }

  #opened<S extends SendStream | ReceiveStream>(stream: S): S {
    for (const known of this.#streams) if (!known.deref()) this.#streams.delete(known);
    this.#streams.add(new WeakRef(stream));
    return stream;
  }

  #backoff(attempts?: number): Backoff {
    const limited = attempts === undefined ? {} : { attempts };
    return new Backoff({ ...limited, ...this.#retry }, this.#jitter);
  }

  #call<Request extends ProtoMessage, Response extends ProtoMessage>(
    method: Method<Request, Response>,
    request: Request,
  ): Promise<Response> {
    const attempt = () => this.#channel.unary(method, request, this.#metadata, this.#deadline);
    return repeat(attempt, this.#backoff(CALL_ATTEMPTS), this.#sleep);
  }
}

function userOf(user: string) {
  return user.startsWith("+")
    ? ({ case: "phoneNumber", value: user } as const)
    : ({ case: "userId", value: user } as const);
}
