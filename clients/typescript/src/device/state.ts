/**
 * Everything a registered device knows, loaded from its rows and committed to them.
 *
 * Puts the rooms together: keys, sessions, outbox, inbox over one set of rows. Knows the store, no
 * network. After a commit that failed it is no longer usable: memory is ahead of the disk, and
 * sending from it would use a key twice after a restart (I1 and I2 in docs/architecture.md).
 */

import { create } from "@bufbuild/protobuf";
import { pad } from "../content/padding.js";
import { DeviceError, LetterlockError } from "../errors.js";
import type { Payload } from "../generated/letterlock/content/v1/content_pb.js";
import type { AccountBundles } from "../generated/letterlock/relay/v1/keys_pb.js";
import {
  type DeviceEnvelope,
  type Submission,
  type SubmissionResult,
  SubmissionSchema,
} from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { Turns } from "../waiting.js";
import { hex, unhex } from "../wire.js";
import { type Account, accountFromRow } from "./account.js";
import type { IncomingMessage } from "./events.js";
import { Healing } from "./healing.js";
import { Inbox } from "./inbox.js";
import { OwnKeys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Rows } from "./rows.js";
import { Sent } from "./sent.js";
import { Sessions } from "./sessions.js";
import type { DeviceStore } from "./store.js";

/** The key of the row that names the device. */
export const SELF = "self/";

/** The state of one device. Change it only inside `turn()`. */
export class DeviceState {
  readonly account: Account;
  readonly keys: OwnKeys;
  readonly sessions: Sessions;
  readonly outbox: Outbox;
  readonly sent: Sent;
  readonly healing: Healing;
  readonly inbox: Inbox;
  readonly #rows: Rows;
  readonly #store: DeviceStore;
  readonly #turns = new Turns();
  #broken = false;

  /** `stored`: what the store loaded. Throws DeviceError. */
  constructor(
    store: DeviceStore,
    stored: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
    onAck: (message: IncomingMessage) => void,
  ) {
    this.#store = store;
    this.#rows = new Rows(stored);
    try {
      this.account = accountFromRow(stored.get(SELF) ?? new Uint8Array());
      this.keys = new OwnKeys(this.#rows);
      this.sessions = new Sessions(this.account, this.keys, this.#rows);
      this.outbox = new Outbox(this.#rows);
      this.sent = new Sent(this.#rows);
      this.healing = new Healing(this.sessions, this.outbox, this.sent);
      this.inbox = new Inbox(this.sessions, this.sent, this.healing, this.#rows, onAck);
    } catch (error) {
      if (error instanceof LetterlockError) throw error;
      throw new DeviceError("unreadable", { field: "store", limit: "a device's state" });
    }
  }

  /** Whether a commit failed. */
  get isBroken(): boolean {
    return this.#broken;
  }

  /**
   * The right to change the state; when this settles, what `work` changed is durable. Only then may
   * anything of it leave. An error in `work` leaves what was done before it to the next commit.
   * Throws DeviceError.
   */
  turn<T>(work: () => Promise<T>): Promise<T> {
    return this.#turns.run(async () => {
      if (this.#broken) throw new DeviceError("an earlier commit failed: open the device again");
      const result = await work();
      if (this.#rows.changed) await this.#commit();
      return result;
    });
  }

  /**
   * Change the state between turns, for the next commit to write: a step of a turn that fails takes
   * back everything that was changed during it.
   */
  async note(work: () => void): Promise<void> {
    await this.#turns.run(async () => work());
  }

  async #commit(): Promise<void> {
    try {
      await this.#store.commit(this.#rows.take());
    } catch (error) {
      this.#broken = true;
      throw error;
    }
  }

  /** The account last found under a number. */
  accountOf(phoneNumber: string): string | undefined {
    const row = this.#rows.get("number", phoneNumber);
    return row && hex(row);
  }

  /** A number belongs to this account. */
  rememberNumber(phoneNumber: string, accountId: string): void {
    this.#rows.put("number", phoneNumber, unhex(accountId));
  }

  /** A payload, padded, and its ciphertext for each of these devices. */
  async encrypt(
    accountId: string,
    devices: readonly number[],
    payload: Payload,
    now: Date,
  ): Promise<{ plaintext: Uint8Array<ArrayBuffer>; envelopes: DeviceEnvelope[] }> {
    const plaintext = pad(payload);
    return { plaintext, envelopes: await this.#encryptAll(accountId, devices, plaintext, now) };
  }

  /**
   * The submission for the devices that the relay named, and whether the identity changed.
   *
   * Ciphertexts for devices that stay are used as they are: they have not been delivered.
   */
  async repaired(
    submission: Submission,
    plaintext: Uint8Array<ArrayBuffer>,
    { extraDeviceIds, staleDeviceIds }: SubmissionResult,
    bundles: AccountBundles | undefined,
    now: Date,
  ): Promise<{ submission: Submission; identityChanged: boolean }> {
    const accountId = hex(submission.recipientAccountId);
    this.sessions.forget(accountId, extraDeviceIds);
    this.sessions.archive(accountId, staleDeviceIds);
    const identityChanged = bundles !== undefined && (await this.sessions.start(bundles, now));
    const fresh = bundles?.devices.map((device) => device.deviceId) ?? [];
    const gone = new Set([...extraDeviceIds, ...staleDeviceIds, ...fresh]);
    const kept = submission.envelopes.filter((envelope) => !gone.has(envelope.deviceId));
    const envelopes = [...kept, ...(await this.#encryptAll(accountId, fresh, plaintext, now))];
    return { submission: create(SubmissionSchema, { ...submission, envelopes }), identityChanged };
  }

  async #encryptAll(
    accountId: string,
    devices: readonly number[],
    plaintext: Uint8Array<ArrayBuffer>,
    now: Date,
  ): Promise<DeviceEnvelope[]> {
    const envelopes: DeviceEnvelope[] = [];
    for (const device of devices) {
      envelopes.push(await this.sessions.encrypt(accountId, device, plaintext, now));
    }
    return envelopes;
  }
}
