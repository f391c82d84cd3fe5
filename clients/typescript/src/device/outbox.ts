/**
 * What a device has encrypted and the relay has not answered yet.
 *
 *     add ──▶ waiting ──settle──▶ gone
 *               │  ▲
 *               └──┘ replace: encrypted again because the recipient's devices changed
 *
 * Each entry is a row until it is settled, so that after a crash the very same ciphertext goes out
 * again. Knows no ratchet and no network.
 */

import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { LetterlockError } from "../errors.js";
import { type Submission, SubmissionSchema } from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { Signal } from "../waiting.js";
import { hex } from "../wire.js";
import type { Rows } from "./rows.js";

/** Messages that may wait for the relay; then sending waits, too. */
const MAX_WAITING = 256;

/** Reports and resends that may wait beside them; then no more are made. */
const MAX_HEALING = 256;

/** Hears what became of a submission; without an error, the relay has it. */
export type Answered = (error?: LetterlockError) => void;

/** One submission without an answer. `plaintext` is kept to encrypt it for further devices. */
export interface Waiting {
  submission: Submission;
  readonly plaintext: Uint8Array<ArrayBuffer>;
  readonly answered: Answered | undefined;
  /** Set once the commit is through: a stream that opens before must not take it along. */
  isDurable: boolean;
  repairs: number;
}

/**
 * Whether an entry is a decryption-error message, or a message sent again because of one: nobody waits
 * for it, and it takes nobody's room.
 */
export function isHealing({ submission, plaintext }: Waiting): boolean {
  return submission.resend !== undefined || plaintext.length === 0;
}

/** The unanswered submissions by message id, oldest first. */
export class Outbox {
  readonly #rows: Rows;
  readonly #waiting = new Map<string, Waiting>();
  readonly #room = new Signal();
  #reserved = 0;
  #failure: LetterlockError | undefined;

  constructor(rows: Rows) {
    this.#rows = rows;
    for (const [messageId, row] of rows.all("out").sort(([a], [b]) => (a < b ? -1 : 1))) {
      const end = 4 + Buffer.from(row).readUInt32BE();
      const submission = fromBinary(SubmissionSchema, row.slice(4, end));
      const plaintext = row.slice(end);
      const entry = { submission, plaintext, answered: undefined, isDurable: true, repairs: 0 };
      this.#waiting.set(messageId, entry);
    }
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Whether a report or a resend more may be added. */
  get mayHeal(): boolean {
    return this.#healing < MAX_HEALING;
  }

  /** Everything unanswered that may leave this device, oldest first. */
  submissions(): Submission[] {
    return [...this.#waiting.values()]
      .filter((entry) => entry.isDurable)
      .map((entry) => entry.submission);
  }

  /** An entry, while it waits. */
  get(messageId: Uint8Array): Waiting | undefined {
    return this.#waiting.get(hex(messageId));
  }

  /** Wait for room for one entry, and keep it; give it back by calling what this returns. */
  async reserve(): Promise<() => void> {
    while (
      this.#failure === undefined &&
      this.size - this.#healing + this.#reserved >= MAX_WAITING
    ) {
      await this.#room.changed();
    }
    if (this.#failure !== undefined) throw this.#failure;
    this.#reserved += 1;
    return () => {
      this.#reserved -= 1;
      this.#room.notify();
    };
  }

  /** Keep an entry; an ephemeral one in memory only, it is worthless later. */
  add(entry: Waiting): void {
    this.#waiting.set(hex(entry.submission.messageId), entry);
    this.#note(entry);
  }

  /** The entry was encrypted again; durable once the caller has committed it. */
  replace(entry: Waiting, submission: Submission): void {
    entry.isDurable = false;
    entry.submission = submission;
    this.#note(entry);
  }

  /**
   * The relay has answered: forget the entry and tell who waits. False when an error has nobody who
   * waits for it.
   */
  settle(messageId: Uint8Array, error?: LetterlockError): boolean {
    const id = hex(messageId);
    const entry = this.#waiting.get(id);
    if (entry === undefined) return true;
    this.#waiting.delete(id);
    this.#rows.delete("out", id);
    this.#room.notify();
    entry.answered?.(error);
    return error === undefined || entry.answered !== undefined || isHealing(entry);
  }

  /** The connection is gone for good: whoever waits hears it; the entries stay. */
  fail(error: LetterlockError): void {
    this.#failure = error;
    for (const entry of this.#waiting.values()) entry.answered?.(error);
    this.#room.notify();
  }

  get #healing(): number {
    return [...this.#waiting.values()].filter(isHealing).length;
  }

  #note({ submission, plaintext }: Waiting): void {
    if (submission.ephemeral) return;
    const bytes = toBinary(SubmissionSchema, submission);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    this.#rows.put("out", hex(submission.messageId), Buffer.concat([length, bytes, plaintext]));
  }
}
