/**
 * The rows of a device's state: their names, their bytes, and the changes not yet committed.
 *
 *     self/                             who this device is, JSON; carries the version of all this
 *     next/key id                       the first key id never given to a key, decimal
 *     ec/ id                            private one-time pre-key: record of libsignal
 *     signed/ id                        private signed pre-key: record of libsignal
 *     kyber/ id                         private one-time Kyber pre-key: record of libsignal
 *     last resort/ id                   private last-resort Kyber pre-key: record of libsignal
 *     session/ account.device           session record of libsignal
 *     peer/ account                     the identity key last seen, 33 bytes
 *     number/ E.164                     account, 16 bytes
 *     out/ submission id                u32 length, Submission, Payload: until the relay has answered
 *     sent/ message id                  see sent.ts: until a device has taken it
 *     in/ sequence                      sender (16), device (1), Payload: until the app has acked
 *     seen/ sender.message id           inbound messages that came before
 *     used/ hash                        uses of last-resort keys
 *
 * Ids in names are lower-case hex or decimal. Knows no file and no network.
 */

import type { Changes } from "./store.js";

/** The kinds of rows. */
export type Kind =
  | "self"
  | "next"
  | "ec"
  | "signed"
  | "kyber"
  | "last resort"
  | "session"
  | "peer"
  | "number"
  | "out"
  | "sent"
  | "in"
  | "seen"
  | "used";

type Bytes = Uint8Array<ArrayBuffer>;

/** All rows in memory, and which of them the next commit writes. */
export class Rows {
  readonly #kinds = new Map<string, Map<string, Bytes>>();
  #changes = new Map<string, Bytes | null>();
  #undo: (() => void)[] | undefined;

  /** `stored`: what the store loaded. */
  constructor(stored: ReadonlyMap<string, Bytes>) {
    for (const [name, value] of stored) {
      const slash = name.indexOf("/");
      this.#rowsOf(name.slice(0, slash)).set(name.slice(slash + 1), value);
    }
  }

  /** Whether a commit has something to write. */
  get changed(): boolean {
    return this.#changes.size > 0;
  }

  /** One row. */
  get(kind: Kind, key: string): Bytes | undefined {
    return this.#kinds.get(kind)?.get(key);
  }

  /** The rows of a kind, oldest first. Changes while one walks along are allowed. */
  all(kind: Kind): [string, Bytes][] {
    return [...(this.#kinds.get(kind) ?? [])];
  }

  /** The key of the row of a kind that was written first. */
  oldest(kind: Kind): string | undefined {
    return this.#kinds.get(kind)?.keys().next().value;
  }

  /** How many rows a kind has. */
  count(kind: Kind): number {
    return this.#kinds.get(kind)?.size ?? 0;
  }

  /** Write a row. */
  put(kind: Kind, key: string, value: Uint8Array): void {
    const own = new Uint8Array(value);
    this.#change(kind, key, own);
  }

  /** Delete a row, if it is there. */
  delete(kind: Kind, key: string): void {
    if (this.get(kind, key) !== undefined) this.#change(kind, key, null);
  }

  /**
   * Run a step of which all happens or nothing: an error takes its changes back. Steps do not nest,
   * and run one at a time.
   */
  async step<T>(work: () => Promise<T>): Promise<T> {
    this.#undo = [];
    try {
      return await work();
    } catch (error) {
      for (const undo of this.#undo.reverse()) undo();
      throw error;
    } finally {
      this.#undo = undefined;
    }
  }

  /** All changes so far; they are the caller's to commit now. */
  take(): Changes {
    const changes = this.#changes;
    this.#changes = new Map();
    return changes;
  }

  #change(kind: Kind, key: string, value: Bytes | null): void {
    const rows = this.#rowsOf(kind);
    const name = `${kind}/${key}`;
    const [before, pending] = [rows.get(key), this.#changes.get(name)];
    this.#undo?.push(() => {
      set(rows, key, before ?? null);
      if (pending === undefined) this.#changes.delete(name);
      else this.#changes.set(name, pending);
    });
    set(rows, key, value);
    this.#changes.set(name, value);
  }

  #rowsOf(kind: string): Map<string, Bytes> {
    const rows = this.#kinds.get(kind) ?? new Map<string, Bytes>();
    this.#kinds.set(kind, rows);
    return rows;
  }
}

function set(rows: Map<string, Bytes>, key: string, value: Bytes | null): void {
  if (value === null) rows.delete(key);
  else rows.set(key, value);
}
