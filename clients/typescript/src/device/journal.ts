/**
 * The bytes of a device's file: a header, then one record a transaction, each sealed or checksummed.
 *
 *     file    "letterlock device 1" 0a | mode (1: clear, 2: sealed) | record ...
 *     record  length (4) | body
 *     body    clear: SHA-256 of the changes (32) | changes
 *             sealed: nonce (12) | AES-256-GCM of the changes | tag (16)
 *     changes name length (2) | name | value length (4; ffffffff deletes) | value ...
 *
 * A record is bound to its place, the count of bytes before it, so that none can be left out or moved.
 * A last record that is cut off was never acknowledged, and is left out. Pure; knows no file.
 */

import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import { DeviceError } from "../errors.js";
import { applyChanges, type Changes } from "./store.js";

const MAGIC = Buffer.from("letterlock device 1\n");
const HEADER_BYTES = MAGIC.length + 1;
const CLEAR = 1;
const SEALED = 2;
const CHECKSUM_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const DELETED = 0xffffffff;

/** Length of the key that seals a file, in bytes. */
export const KEY_BYTES = 32;

/** Writes and reads the bytes of one file. */
export class Journal {
  readonly #key: Buffer | undefined;

  /** `key`: 32 bytes, or undefined for a file in clear. Throws DeviceError. */
  constructor(key?: Uint8Array) {
    if (key !== undefined && key.length !== KEY_BYTES) {
      throw new DeviceError("wrong key", { field: "key", limit: `${KEY_BYTES} bytes` });
    }
    this.#key =
      key && Buffer.from(hkdfSync("sha256", key, "", "letterlock device file", KEY_BYTES));
  }

  /** The beginning of a file. */
  header(): Buffer {
    return Buffer.concat([MAGIC, Buffer.of(this.#key ? SEALED : CLEAR)]);
  }

  /** One transaction, to be written at `place`. */
  record(changes: Changes, place: number): Buffer {
    const body = this.#close(encode(changes), place);
    return Buffer.concat([u32(body.length), body]);
  }

  /** All rows of a file. Throws DeviceError for what this journal has not written. */
  read(file: Buffer): Map<string, Uint8Array<ArrayBuffer>> {
    const rows = new Map<string, Uint8Array<ArrayBuffer>>();
    if (!file.subarray(0, HEADER_BYTES).equals(this.header())) throw this.#unreadable();
    let place = HEADER_BYTES;
    while (place + 4 <= file.length) {
      const end = place + 4 + file.readUInt32BE(place);
      if (end > file.length) break;
      const changes = this.#open(file.subarray(place + 4, end), place);
      if (changes === undefined && end < file.length) throw this.#unreadable();
      if (changes === undefined) break;
      applyChanges(rows, decode(changes));
      place = end;
    }
    // The first record was whole before the file had its name: another key, or another program's.
    if (place === HEADER_BYTES) throw this.#unreadable();
    return rows;
  }

  #unreadable(): DeviceError {
    return this.#key
      ? new DeviceError("file does not open", {
          field: "key",
          limit: "the key it was written with",
        })
      : new DeviceError("file does not open", { field: "store", limit: "a device file in clear" });
  }

  #close(changes: Buffer, place: number): Buffer {
    if (this.#key === undefined) return Buffer.concat([checksum(changes, place), changes]);
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce).setAAD(u32(place));
    const sealed = Buffer.concat([cipher.update(changes), cipher.final()]);
    return Buffer.concat([nonce, sealed, cipher.getAuthTag()]);
  }

  #open(body: Buffer, place: number): Buffer | undefined {
    if (this.#key === undefined) {
      const changes = body.subarray(CHECKSUM_BYTES);
      return body.subarray(0, CHECKSUM_BYTES).equals(checksum(changes, place))
        ? changes
        : undefined;
    }
    if (body.length < NONCE_BYTES + TAG_BYTES) return undefined;
    const nonce = body.subarray(0, NONCE_BYTES);
    const cipher = createDecipheriv("aes-256-gcm", this.#key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(u32(place)).setAuthTag(body.subarray(-TAG_BYTES));
    const changes = cipher.update(body.subarray(NONCE_BYTES, -TAG_BYTES));
    try {
      return Buffer.concat([changes, cipher.final()]);
    } catch {
      return undefined;
    }
  }
}

function checksum(changes: Buffer, place: number): Buffer {
  return createHash("sha256").update(u32(place)).update(changes).digest();
}

function encode(changes: Changes): Buffer {
  const parts: Uint8Array[] = [];
  for (const [name, value] of changes) {
    const bytes = Buffer.from(name);
    const length = Buffer.alloc(2);
    length.writeUInt16BE(bytes.length);
    parts.push(length, bytes, u32(value === null ? DELETED : value.length), value ?? Buffer.of());
  }
  return Buffer.concat(parts);
}

function decode(changes: Buffer): Changes {
  const decoded = new Map<string, Uint8Array<ArrayBuffer> | null>();
  let at = 0;
  const take = (count: number) => {
    at += count;
    return changes.subarray(at - count, at);
  };
  while (at < changes.length) {
    const name = take(take(2).readUInt16BE()).toString();
    const length = take(4).readUInt32BE();
    decoded.set(name, length === DELETED ? null : new Uint8Array(take(length)));
  }
  return decoded;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
