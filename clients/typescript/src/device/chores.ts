/**
 * What a device does beside sending and receiving: mends submissions for changed device lists, and
 * keeps its pre-keys in the directory topped up.
 *
 * Runs beside the mailbox stream. Everything it lets out was committed first.
 */

import { PrivateKey } from "@signalapp/libsignal-client";
import { DevicesChanged, LetterlockError } from "../errors.js";
import type { SubmissionResult } from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { Signal } from "../waiting.js";
import { hex } from "../wire.js";
import { type DeviceEvent, IdentityChanged } from "./events.js";
import { makeKeys, toUpload } from "./keys.js";
import type { Mailbox } from "./mailbox.js";
import type { Waiting } from "./outbox.js";
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
  readonly settle: (messageId: Uint8Array, error: LetterlockError) => void;
  /** Hands an event to the application. */
  readonly tell: (event: DeviceEvent) => void;
  readonly nowMs: () => number;
}

/** The chores of one connected device. */
export class Chores {
  readonly #options: ChoresOptions;
  readonly #repairs: SubmissionResult[] = []; // at most the outbox
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
