/**
 * What a device does beside sending and receiving: mends submissions for changed device lists, sends
 * again what could not be decrypted, and keeps its pre-keys in the directory topped up.
 *
 * Runs beside the mailbox stream. Everything it lets out was committed first.
 */

import { PrivateKey } from "@signalapp/libsignal-client";
import {
  BadPreKeys,
  Busy,
  DeviceError,
  DevicesChanged,
  LetterlockError,
  NotDecrypted,
  Unavailable,
} from "../errors.js";
import type { AccountBundles } from "../generated/letterlock/relay/v1/keys_pb.js";
import type { SubmissionResult } from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { Signal } from "../waiting.js";
import { hex, unhex } from "../wire.js";
import type { Report } from "./decryptionError.js";
import { type DeviceEvent, IdentityChanged, SendRefused } from "./events.js";
import { makeKeys, toUpload } from "./keys.js";
import type { Mailbox } from "./mailbox.js";
import { isHealing, type Waiting } from "./outbox.js";
import type { Relay } from "./relay.js";
import type { DeviceState } from "./state.js";

/**
 * How often one message is encrypted again for changed devices; a relay that finds fault with every
 * list would otherwise drain pre-keys for ever.
 */
const MAX_REPAIRS = 3;

/** What the chores of a device work with. */
export interface ChoresOptions {
  readonly state: DeviceState;
  readonly relay: Relay;
  readonly mailbox: Mailbox;
  readonly oneTimePreKeys: number;
  /** Ends a submission. */
  readonly settle: (messageId: Uint8Array, error?: LetterlockError) => void;
  /** Hands an event to the application. */
  readonly tell: (event: DeviceEvent) => void;
  readonly nowMs: () => number;
}

/** The chores of one connected device. */
export class Chores {
  readonly #options: ChoresOptions;
  readonly #repairs: SubmissionResult[] = []; // at most the outbox
  readonly #reports: [Report, bigint][] = []; // at most the relay's window
  readonly #wake = new Signal();
  #checkedAtUses: number | undefined;
  #woken = false;
  #stopped = false;

  constructor(options: ChoresOptions) {
    this.#options = options;
  }

  /** The relay says DEVICES_CHANGED to a submission. */
  repair(result: SubmissionResult): void {
    this.#repairs.push(result);
    this.#wakeUp();
  }

  /** A device could not decrypt a message; the item stays at the relay until that is done. */
  reported(report: Report, itemId: bigint): void {
    this.#reports.push([report, itemId]);
    this.#wakeUp();
  }

  /** First messages came: look whether the directory runs low. */
  keysUsed(): void {
    this.#wakeUp();
  }

  /** Start nothing more; run() settles when what is under way has ended. */
  stop(): void {
    this.#stopped = true;
    this.#wakeUp();
  }

  /** Do chores as they come, until stopped. */
  async run(): Promise<void> {
    while (!this.#stopped) {
      this.#woken = false;
      for (let broken = this.#repairs.shift(); broken; broken = this.#repairs.shift()) {
        await this.#mend(broken);
      }
      for (let report = this.#reports.shift(); report; report = this.#reports.shift()) {
        await this.#heal(...report);
      }
      if (this.#isTopUpDue) await this.#topUp();
      while (!this.#woken) await this.#wake.changed();
    }
  }

  #wakeUp(): void {
    this.#woken = true;
    this.#wake.notify();
  }

  get #isTopUpDue(): boolean {
    const { oneTimePreKeys, state } = this.#options;
    if (oneTimePreKeys === 0) return false;
    if (this.#checkedAtUses === undefined) return true;
    return state.keys.uses - this.#checkedAtUses >= Math.max(1, Math.floor(oneTimePreKeys / 4));
  }

  async #mend(result: SubmissionResult): Promise<void> {
    const { state, mailbox, settle, tell } = this.#options;
    const entry = state.outbox.get(result.messageId);
    if (entry === undefined) return;
    if (isHealing(entry) && result.extraDeviceIds.length > 0) {
      settle(result.messageId); // the device is gone: nobody is to be told
      return;
    }
    try {
      const identityChanged = await this.#encryptAgain(entry, result);
      if (identityChanged) tell(new IdentityChanged(hex(entry.submission.recipientAccountId)));
      mailbox.submit(entry.submission);
    } catch (error) {
      if (!(error instanceof LetterlockError)) throw error;
      settle(result.messageId, error);
    }
  }

  async #encryptAgain(entry: Waiting, result: SubmissionResult): Promise<boolean> {
    const { state, relay, nowMs } = this.#options;
    entry.repairs += 1;
    if (entry.repairs > MAX_REPAIRS) {
      throw new DevicesChanged("the recipient's devices keep changing");
    }
    const deviceIds = [...result.missingDeviceIds, ...result.staleDeviceIds];
    const account = { case: "accountId", value: entry.submission.recipientAccountId } as const;
    const bundles =
      deviceIds.length > 0 ? await relay.fetchBundles({ account, deviceIds }) : undefined;
    if (bundles !== undefined && isHealing(entry)) this.#checkIdentity(bundles);
    const changed = await state.turn(async () => {
      const { submission, plaintext } = entry;
      const now = new Date(nowMs());
      const repaired = await state.repaired(submission, plaintext, result, bundles, now);
      if (repaired.submission.envelopes.length === 0) {
        throw new DevicesChanged("the recipient has no device left");
      }
      state.outbox.replace(entry, repaired.submission);
      return repaired.identityChanged;
    });
    entry.isDurable = true;
    return changed;
  }

  // Act on a report. What cannot be done now stays at the relay, for the next stream.
  async #heal(report: Report, itemId: bigint): Promise<void> {
    const { mailbox } = this.#options;
    try {
      const entry = await this.#resend(report);
      if (entry !== undefined) {
        entry.isDurable = true;
        mailbox.submit(entry.submission);
      }
    } catch (error) {
      if (!(error instanceof LetterlockError)) throw error;
      const passes = [Busy, Unavailable, DeviceError].some((kind) => error instanceof kind);
      if (passes) return;
    }
    mailbox.acknowledge([itemId]);
  }

  async #resend(report: Report): Promise<Waiting | undefined> {
    const { state, tell, nowMs } = this.#options;
    const next = await state.turn(() => state.healing.renew(report, nowMs()));
    if (next === "nothing") return undefined;
    if (next === "give up") {
      await state.turn(async () => state.sent.forget(report.messageId));
      const lost = new NotDecrypted("the recipient could not decrypt it");
      tell(new SendRefused(report.messageId, lost));
      return undefined;
    }
    if (!state.outbox.mayHeal) {
      throw new Busy("too many messages are to be sent again", { reason: "QUEUE_FULL" });
    }
    if (!state.sessions.devices(report.accountId, new Date(nowMs())).includes(report.deviceId)) {
      await this.#introduce(report);
    }
    return await state.turn(() => state.healing.resend(report, nowMs()));
  }

  async #introduce({ accountId, deviceId }: Report): Promise<void> {
    const { state, relay, nowMs } = this.#options;
    const account = { case: "accountId", value: unhex(accountId) } as const;
    const bundles = await relay.fetchBundles({ account, deviceIds: [deviceId] });
    this.#checkIdentity(bundles);
    await state.turn(() => state.sessions.start(bundles, new Date(nowMs())));
  }

  // A report that the relay forged must not get it a message for a key of its own.
  #checkIdentity({ accountId, identityKey }: AccountBundles): void {
    const known = this.#options.state.sessions.identity(hex(accountId));
    if (known === undefined || hex(known) !== hex(identityKey)) {
      throw new BadPreKeys("another identity key than the known one");
    }
  }

  async #topUp(): Promise<void> {
    const { state } = this.#options;
    this.#checkedAtUses = state.keys.uses;
    try {
      await this.#uploadMissing();
    } catch (error) {
      // First messages fall back to the last-resort key meanwhile; the next use tries again.
      if (!(error instanceof LetterlockError)) throw error;
      this.#checkedAtUses = undefined;
    }
  }

  async #uploadMissing(): Promise<void> {
    const { state, relay, nowMs } = this.#options;
    const count = await relay.preKeyCount();
    const wanted = {
      signed: state.keys.signedIsOld(nowMs()),
      ec: this.#missing(count.oneTimePreKeys),
      kyber: this.#missing(count.oneTimeKyberPreKeys),
    };
    if (!(wanted.signed || wanted.ec || wanted.kyber)) return;
    const identity = PrivateKey.deserialize(state.account.identityPrivate);
    const keys = await state.turn(async () => {
      const made = makeKeys(identity, state.keys.nextId, nowMs(), wanted);
      state.keys.keep(made, nowMs());
      return made;
    });
    await relay.uploadPreKeys(toUpload(keys));
  }

  #missing(left: number): number {
    const wanted = this.#options.oneTimePreKeys;
    return left <= Math.floor(wanted / 2) ? wanted - left : 0;
  }
}
