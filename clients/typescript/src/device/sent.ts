/**
 * Messages that the relay has and no device has taken yet: kept to be encrypted again for a device that
 * could not decrypt them.
 *
 *     keep ──▶ kept ──receipt, time over, too many──▶ gone
 *                └── resent: one attempt more for a device
 *
 * Knows no ratchet and no network.
 */

import { hex, unhex } from "../wire.js";
import type { Rows } from "./rows.js";

/** Messages kept; of more, the oldest can no longer be asked for. */
const MAX_SENT = 1_000;

const ACCOUNT_BYTES = 16;
const HEAD_BYTES = ACCOUNT_BYTES + 8 + 1;

/** One message: to whom it went, when it dies, how often it was sent again to which device. */
export interface SentMessage {
  readonly accountId: string;
  /** Milliseconds since 1970. */
  readonly expireMs: number;
  readonly plaintext: Uint8Array<ArrayBuffer>;
  readonly attempts: ReadonlyMap<number, number>;
}

/** The kept messages of one device. */
export class Sent {
  readonly #rows: Rows;

  constructor(rows: Rows) {
    this.#rows = rows;
  }

  /** The relay has it. Whatever is too old or too much goes. */
  keep(messageId: string, message: SentMessage, nowMs: number): void {
    this.#rows.put("sent", messageId, toRow(message));
    for (let oldest = this.#rows.oldest("sent"); oldest; oldest = this.#rows.oldest("sent")) {
      const row = this.#rows.get("sent", oldest);
      const dead = row !== undefined && fromRow(row).expireMs <= nowMs;
      if (!dead && this.#rows.count("sent") <= MAX_SENT) break;
      this.#rows.delete("sent", oldest);
    }
  }

  /** A message that went to this account. One that went to another is nobody's business. */
  get(messageId: string, accountId: string, nowMs: number): SentMessage | undefined {
    const row = this.#rows.get("sent", messageId);
    const message = row && fromRow(row);
    if (message?.accountId !== accountId || message.expireMs <= nowMs) return undefined;
    return message;
  }

  /** Count one attempt more for a device; gives its number. */
  resent(messageId: string, message: SentMessage, deviceId: number): number {
    const attempt = (message.attempts.get(deviceId) ?? 0) + 1;
    const attempts = new Map(message.attempts).set(deviceId, attempt);
    this.#rows.put("sent", messageId, toRow({ ...message, attempts }));
    return attempt;
  }

  /** A device has it, or none ever will. */
  forget(messageId: string): void {
    this.#rows.delete("sent", messageId);
  }
}

function toRow({ accountId, expireMs, plaintext, attempts }: SentMessage): Uint8Array {
  const head = Buffer.alloc(HEAD_BYTES);
  head.set(unhex(accountId));
  head.writeBigUInt64BE(BigInt(expireMs), ACCOUNT_BYTES);
  head.writeUInt8(attempts.size, HEAD_BYTES - 1);
  return Buffer.concat([head, Buffer.from([...attempts].flat()), plaintext]);
}

function fromRow(row: Uint8Array<ArrayBuffer>): SentMessage {
  const bytes = Buffer.from(row);
  const end = HEAD_BYTES + 2 * bytes.readUInt8(HEAD_BYTES - 1);
  const attempts = new Map<number, number>();
  for (let at = HEAD_BYTES; at < end; at += 2)
    attempts.set(bytes.readUInt8(at), bytes.readUInt8(at + 1));
  return {
    accountId: hex(row.subarray(0, ACCOUNT_BYTES)),
    expireMs: Number(bytes.readBigUInt64BE(ACCOUNT_BYTES)),
    plaintext: row.slice(end),
    attempts,
  };
}
