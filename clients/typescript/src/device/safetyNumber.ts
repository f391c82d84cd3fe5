/**
 * Safety numbers: what two parties compare to know that nobody sits between them.
 *
 * Version 2 with 5,200 rounds, as in Signal's apps. A party's stable identifier is its account id, 16
 * bytes (docs/protocol.md, section 2.2).
 */

import { Fingerprint, PublicKey, ScannableFingerprint } from "@signalapp/libsignal-client";
import { InvalidRequest } from "../errors.js";
import { owned, unhex } from "../wire.js";

const VERSION = 2;
const ROUNDS = 5200;

/** A party as a safety number knows it: account id (hex) and serialised identity key (33 bytes). */
export interface Party {
  readonly accountId: string;
  readonly identityKey: Uint8Array;
}

/** The safety number of two parties. */
export class SafetyNumber {
  readonly #fingerprint: Fingerprint;

  constructor(own: Party, other: Party) {
    this.#fingerprint = Fingerprint.new(
      ROUNDS,
      VERSION,
      unhex(own.accountId),
      PublicKey.deserialize(owned(own.identityKey)),
      unhex(other.accountId),
      PublicKey.deserialize(owned(other.identityKey)),
    );
  }

  /** 60 digits, the same at both ends. */
  get digits(): string {
    return this.#fingerprint.displayableFingerprint().toString();
  }

  /** What a code holds that the other side scans. */
  get scannable(): Uint8Array {
    return this.#fingerprint.scannableFingerprint().toBuffer();
  }

  /** Whether what was scanned on the other side is the same. Throws InvalidRequest for other bytes. */
  compare(scanned: Uint8Array): boolean {
    const theirs = ScannableFingerprint._fromBuffer(owned(scanned));
    try {
      return this.#fingerprint.scannableFingerprint().compare(theirs);
    } catch {
      throw new InvalidRequest("cannot be compared", {
        field: "scanned",
        limit: "a safety number, version 2",
      });
    }
  }
}
