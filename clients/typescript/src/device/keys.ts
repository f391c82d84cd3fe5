/**
 * A device's own pre-keys: made, published, looked up, used, rotated out.
 *
 * Knows no session and no network; time is an argument. Every key is in a row before its public half
 * leaves the device.
 */

import { createHash } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  KEMKeyPair,
  KyberPreKeyRecord,
  PreKeyRecord,
  PrivateKey,
  SignedPreKeyRecord,
} from "@signalapp/libsignal-client";
import { type PreKeyUpload, PreKeyUploadSchema } from "../generated/letterlock/relay/v1/keys_pb.js";
import { RatchetFault } from "./ratchetFault.js";
import type { Kind, Rows } from "./rows.js";

/** One-time keys of a kind in one upload: the contract's limit. */
export const MAX_UPLOAD = 100;

/**
 * One-time keys of a kind kept: twice what the directory holds. Fewer, and a first message on its way
 * might find its key gone; more only gathers keys that were handed out and never used.
 */
const MAX_KEPT = 400;

/**
 * Uses of last-resort keys remembered. Forgetting one lets the relay replay that first message into a
 * second session; its message id is still known then.
 */
const MAX_REMEMBERED_USES = 4_096;

/** Age at which the signed and the last-resort key are replaced: what one stolen key opens. */
const ROTATE_MS = 7 * 24 * 3600 * 1000;

/** Age at which a replaced key goes: bundles and waiting first messages live 30 days at most. */
const KEEP_MS = ROTATE_MS + 30 * 24 * 3600 * 1000;

const NEXT = "key id";

/** Keys that were made and are not in use yet; the signed ones may be missing. */
export interface NewKeys {
  readonly signed?: SignedPreKeyRecord;
  readonly lastResort?: KyberPreKeyRecord;
  readonly oneTime: readonly PreKeyRecord[];
  readonly oneTimeKyber: readonly KyberPreKeyRecord[];
}

/** How many keys to make. */
export interface Wanted {
  /** Whether a signed and a last-resort key are among them. */
  readonly signed: boolean;
  /** One-time EC keys. */
  readonly ec: number;
  /** One-time Kyber keys. */
  readonly kyber: number;
}

/** Fresh keys with ids from `firstId` on. Takes some 0.1 ms a key. */
export function makeKeys(
  identity: PrivateKey,
  firstId: number,
  nowMs: number,
  { signed, ec, kyber }: Wanted,
): NewKeys {
  const ids = (count: number) => Array.from({ length: count }, (_, index) => firstId + 1 + index);
  const signing = signed && {
    signed: makeSigned(identity, firstId, nowMs),
    lastResort: makeKyber(identity, firstId, nowMs),
  };
  return {
    ...signing,
    oneTime: ids(ec).map((id) => makeOneTime(id)),
    oneTimeKyber: ids(kyber).map((id) => makeKyber(identity, id, nowMs)),
  };
}

/** The public halves. */
export function toUpload({ signed, lastResort, oneTime, oneTimeKyber }: NewKeys): PreKeyUpload {
  const upload: MessageInitShape<typeof PreKeyUploadSchema> = {
    oneTimePreKeys: oneTime.map((key) => ({
      keyId: key.id(),
      publicKey: key.publicKey().serialize(),
    })),
    oneTimeKyberPreKeys: oneTimeKyber.map(published),
  };
  if (signed) upload.signedPreKey = published(signed);
  if (lastResort) upload.lastResortKyberPreKey = published(lastResort);
  return create(PreKeyUploadSchema, upload);
}

/** The private pre-keys by kind and id. */
export class OwnKeys {
  readonly #rows: Rows;
  /** How many sessions were made from these keys since they were loaded. */
  uses = 0;

  constructor(rows: Rows) {
    this.#rows = rows;
  }

  /** The first id that no key has had. */
  get nextId(): number {
    return Number(Buffer.from(this.#rows.get("next", NEXT) ?? Buffer.from("1")).toString());
  }

  /** Whether the signed and last-resort keys are to be replaced. */
  signedIsOld(nowMs: number): boolean {
    const created = this.#rows
      .all("signed")
      .map(([, row]) => SignedPreKeyRecord.deserialize(row).timestamp());
    return Math.max(0, ...created) + ROTATE_MS <= nowMs;
  }

  /** Put new keys into rows, and drop those that have had their time. */
  keep({ signed, lastResort, oneTime, oneTimeKyber }: NewKeys, nowMs: number): void {
    if (signed) this.#put("signed", signed);
    if (lastResort) this.#put("last resort", lastResort);
    for (const key of oneTime) this.#put("ec", key);
    for (const key of oneTimeKyber) this.#put("kyber", key);
    const next = this.nextId + Math.max(oneTime.length, oneTimeKyber.length) + 1;
    this.#rows.put("next", NEXT, Buffer.from(String(next)));
    this.#dropOld(nowMs);
  }

  /** Throws RatchetFault. */
  signedPreKey(id: number): SignedPreKeyRecord {
    const row = this.#rows.get("signed", String(id));
    if (row === undefined) throw new RatchetFault("INVALID_SIGNED_PRE_KEY_ID");
    return SignedPreKeyRecord.deserialize(row);
  }

  /** Throws RatchetFault. */
  kyberPreKey(id: number): KyberPreKeyRecord {
    const row = this.#rows.get("kyber", String(id)) ?? this.#rows.get("last resort", String(id));
    if (row === undefined) throw new RatchetFault("INVALID_KYBER_PRE_KEY_ID");
    return KyberPreKeyRecord.deserialize(row);
  }

  /** Throws RatchetFault. */
  preKey(id: number): PreKeyRecord {
    const row = this.#rows.get("ec", String(id));
    if (row === undefined) throw new RatchetFault("INVALID_PRE_KEY_ID");
    return PreKeyRecord.deserialize(row);
  }

  /** A session was made from this one-time key: it goes. */
  usedPreKey(id: number): void {
    this.#rows.delete("ec", String(id));
  }

  /**
   * A session was made from this Kyber key: a one-time key goes, a last-resort use is remembered.
   * Throws RatchetFault for a repeated use of a last-resort key.
   */
  usedKyber(kyberId: number, signedId: number, baseKey: Uint8Array): void {
    if (this.#rows.get("last resort", String(kyberId)) === undefined) {
      this.#rows.delete("kyber", String(kyberId));
      return;
    }
    const ids = Buffer.from(`${kyberId} ${signedId} `);
    const use = createHash("sha256").update(ids).update(baseKey).digest("hex").slice(0, 32);
    if (this.#rows.get("used", use)) throw new RatchetFault("INVALID_MESSAGE");
    const oldest = this.#rows.oldest("used");
    if (oldest !== undefined && this.#rows.count("used") >= MAX_REMEMBERED_USES) {
      this.#rows.delete("used", oldest);
    }
    this.#rows.put("used", use, Buffer.of(1));
  }

  #put(kind: Kind, key: { id(): number; serialize(): Uint8Array }): void {
    this.#rows.put(kind, String(key.id()), key.serialize());
  }

  #dropOld(nowMs: number): void {
    this.#dropReplaced("signed", nowMs, (row) => SignedPreKeyRecord.deserialize(row).timestamp());
    this.#dropReplaced("last resort", nowMs, (row) =>
      KyberPreKeyRecord.deserialize(row).timestamp(),
    );
    for (const kind of ["ec", "kyber"] as const) {
      const ids = this.#rows.all(kind).map(([id]) => Number(id));
      const kept = ids.sort((a, b) => b - a).slice(MAX_KEPT);
      for (const id of kept) this.#rows.delete(kind, String(id));
    }
  }

  #dropReplaced(
    kind: Kind,
    nowMs: number,
    created: (row: Uint8Array<ArrayBuffer>) => number,
  ): void {
    const rows = this.#rows.all(kind);
    const newest = Math.max(...rows.map(([id]) => Number(id)));
    for (const [id, row] of rows) {
      if (Number(id) !== newest && created(row) + KEEP_MS <= nowMs) this.#rows.delete(kind, id);
    }
  }
}

function makeOneTime(id: number): PreKeyRecord {
  const key = PrivateKey.generate();
  return PreKeyRecord.new(id, key.getPublicKey(), key);
}

function makeSigned(identity: PrivateKey, id: number, nowMs: number): SignedPreKeyRecord {
  const key = PrivateKey.generate();
  const signature = identity.sign(key.getPublicKey().serialize());
  return SignedPreKeyRecord.new(id, nowMs, key.getPublicKey(), key, signature);
}

function makeKyber(identity: PrivateKey, id: number, nowMs: number): KyberPreKeyRecord {
  const pair = KEMKeyPair.generate();
  return KyberPreKeyRecord.new(id, nowMs, pair, identity.sign(pair.getPublicKey().serialize()));
}

function published(key: SignedPreKeyRecord | KyberPreKeyRecord) {
  return {
    keyId: key.id(),
    publicKey: key.publicKey().serialize(),
    signature: key.signature(),
  };
}
