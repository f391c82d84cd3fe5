/**
 * How a device sends: finds the account, makes sure of sessions, encrypts, commits.
 *
 * Everything ends in the outbox; what becomes of it there is not this module's business.
 */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { checkContent } from "../content/checks.js";
import { DevicesChanged, InvalidRequest } from "../errors.js";
import {
  type Content,
  type Payload,
  PayloadSchema,
} from "../generated/letterlock/content/v1/content_pb.js";
import type { AccountBundles } from "../generated/letterlock/relay/v1/keys_pb.js";
import { type Submission, SubmissionSchema } from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { hex, unhex } from "../wire.js";
import { ID, newMessageId } from "./account.js";
import { type DeviceEvent, IdentityChanged } from "./events.js";
import type { Answered, Waiting } from "./outbox.js";
import type { Relay } from "./relay.js";
import type { DeviceState } from "./state.js";

/** An hour below the relay's 30 days, for clocks that differ. Seconds. */
export const DEFAULT_TIME_TO_LIVE = 30 * 24 * 3600 - 3600;

/** How a message travels. */
export interface Travel {
  /** Seconds. */
  readonly timeToLive: number;
  readonly ephemeral: boolean;
  readonly answered: Answered | undefined;
}

/** The sending half of one device. */
export class Sender {
  readonly #state: DeviceState;
  readonly #relay: Relay;
  readonly #tell: (event: DeviceEvent) => void;
  readonly #nowMs: () => number;

  /** `tell` hands an event to the application. */
  constructor(
    state: DeviceState,
    relay: Relay,
    tell: (event: DeviceEvent) => void,
    nowMs: () => number,
  ) {
    this.#state = state;
    this.#relay = relay;
    this.#tell = tell;
    this.#nowMs = nowMs;
  }

  /**
   * The account of a recipient; with a new number sessions are started along with it. Throws
   * InvalidRequest, UnknownRecipient, BadPreKeys.
   */
  async accountOf(to: string): Promise<string> {
    if (ID.test(to)) return to;
    if (!to.startsWith("+")) {
      const limit = "E.164, or 32 characters of lower-case hex";
      throw new InvalidRequest("no account", { field: "to", limit });
    }
    const known = this.#state.accountOf(to);
    if (known !== undefined) return known;
    const bundles = await this.#relay.fetchBundles({ account: { case: "phoneNumber", value: to } });
    await this.#state.turn(async () => {
      await this.#startSessions(bundles);
      this.#state.rememberNumber(to, hex(bundles.accountId));
    });
    return hex(bundles.accountId);
  }

  /** A message with a fresh id and the time. Throws InvalidRequest, TooLarge. */
  newPayload(content: Content): Payload {
    checkContent(content);
    const nowMs = this.#nowMs();
    return create(PayloadSchema, {
      messageId: newMessageId(nowMs),
      sentTime: timestampFromMs(nowMs),
      content,
    });
  }

  /**
   * Encrypt a payload for every device of an account, and put it into the outbox; gives the entry
   * once it is durable. Throws LetterlockError; then nothing was sent.
   */
  async seal(accountId: string, payload: Payload, travel: Travel): Promise<Waiting> {
    const { timeToLive, ephemeral, answered } = travel;
    if (!(timeToLive >= 1 && timeToLive <= DEFAULT_TIME_TO_LIVE)) {
      const limit = `1 to ${DEFAULT_TIME_TO_LIVE} seconds`;
      throw new InvalidRequest("time to live", { field: "time_to_live", limit });
    }
    const submission = create(SubmissionSchema, {
      messageId: payload.messageId,
      recipientAccountId: unhex(accountId),
      receiptWanted: !ephemeral,
      ephemeral,
      expireTime: timestampFromMs(this.#nowMs() + Math.floor(timeToLive * 1000)),
    });
    let entry = await this.#sealOnce(submission, payload, answered);
    if (entry === undefined) {
      // No session yet, or only ones that were never answered in 30 days: their pre-keys are gone.
      await this.#introduce(accountId);
      entry = await this.#sealOnce(submission, payload, answered);
    }
    if (entry === undefined) throw new DevicesChanged("the recipient has no usable device");
    return entry;
  }

  async #sealOnce(
    bare: Submission,
    payload: Payload,
    answered: Answered | undefined,
  ): Promise<Waiting | undefined> {
    const accountId = hex(bare.recipientAccountId);
    const now = new Date(this.#nowMs());
    const entry = await this.#state.turn(async () => {
      const devices = this.#state.sessions.devices(accountId, now);
      if (devices.length === 0) return undefined;
      const { plaintext, envelopes } = await this.#state.encrypt(accountId, devices, payload, now);
      const submission = create(SubmissionSchema, { ...bare, envelopes });
      const sealed: Waiting = { submission, plaintext, answered, isDurable: false, repairs: 0 };
      this.#state.outbox.add(sealed);
      return sealed;
    });
    if (entry !== undefined) entry.isDurable = true;
    return entry;
  }

  async #introduce(accountId: string): Promise<void> {
    const account = { case: "accountId", value: unhex(accountId) } as const;
    const bundles = await this.#relay.fetchBundles({ account });
    await this.#state.turn(() => this.#startSessions(bundles));
  }

  async #startSessions(bundles: AccountBundles): Promise<void> {
    const now = new Date(this.#nowMs());
    if (await this.#state.sessions.start(bundles, now)) {
      this.#tell(new IdentityChanged(hex(bundles.accountId)));
    }
  }
}
