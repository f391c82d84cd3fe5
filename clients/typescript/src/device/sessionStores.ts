/**
 * The rows of a device as the stores that libsignal asks for; made anew for each step.
 *
 * Notes what a step did, and leaves it to sessions.ts what that means: libsignal tells the identity
 * that it saw, and which pre-keys a new session used.
 */

import {
  type Direction,
  IdentityChange,
  IdentityKeyStore,
  type KyberPreKeyRecord,
  KyberPreKeyStore,
  type PreKeyRecord,
  PreKeyStore,
  type PrivateKey,
  type ProtocolAddress,
  type PublicKey,
  SessionRecord,
  SessionStore,
  type SignedPreKeyRecord,
  SignedPreKeyStore,
} from "@signalapp/libsignal-client";
import { hex } from "../wire.js";
import type { OwnKeys } from "./keys.js";
import type { Rows } from "./rows.js";

/** The row of a session. */
export function sessionKey(accountId: string, deviceId: number): string {
  return `${accountId}.${deviceId}`;
}

function keyOf(address: ProtocolAddress): string {
  return sessionKey(address.name().replaceAll("-", ""), address.deviceId());
}

/** Session records in rows. */
export class Sessions extends SessionStore {
  constructor(private readonly rows: Rows) {
    super();
  }

  override async saveSession(address: ProtocolAddress, record: SessionRecord): Promise<void> {
    this.rows.put("session", keyOf(address), record.serialize());
  }

  override async getSession(address: ProtocolAddress): Promise<SessionRecord | null> {
    const row = this.rows.get("session", keyOf(address));
    return row ? SessionRecord.deserialize(row) : null;
  }

  override async getExistingSessions(addresses: ProtocolAddress[]): Promise<SessionRecord[]> {
    const records = await Promise.all(addresses.map((address) => this.getSession(address)));
    return records.filter((record) => record !== null);
  }
}

/** Our identity, and what is thought of one peer's during one step. */
export class Identities extends IdentityKeyStore {
  /** The identity that the step ended with. */
  seen: Uint8Array<ArrayBuffer> | undefined;

  /** `trusted`: the only identity that may be used; undefined: any, the caller judges it. */
  constructor(
    private readonly identity: PrivateKey,
    private readonly registrationId: number,
    private readonly trusted: Uint8Array | undefined,
  ) {
    super();
  }

  override async getIdentityKey(): Promise<PrivateKey> {
    return this.identity;
  }

  override async getLocalRegistrationId(): Promise<number> {
    return this.registrationId;
  }

  override async saveIdentity(_address: ProtocolAddress, key: PublicKey): Promise<IdentityChange> {
    this.seen = key.serialize();
    return IdentityChange.NewOrUnchanged;
  }

  override async isTrustedIdentity(
    _address: ProtocolAddress,
    key: PublicKey,
    _direction: Direction,
  ): Promise<boolean> {
    return this.trusted === undefined || hex(this.trusted) === hex(key.serialize());
  }

  override async getIdentity(_address: ProtocolAddress): Promise<PublicKey | null> {
    return null;
  }
}

/** What libsignal would write that this device writes itself. */
class NotWritten extends Error {
  constructor() {
    super("libsignal makes no pre-keys");
  }
}

/** One-time EC pre-keys. */
export class PreKeys extends PreKeyStore {
  constructor(private readonly keys: OwnKeys) {
    super();
  }

  override async savePreKey(): Promise<void> {
    throw new NotWritten();
  }

  override async getPreKey(id: number): Promise<PreKeyRecord> {
    return this.keys.preKey(id);
  }

  override async removePreKey(id: number): Promise<void> {
    this.keys.usedPreKey(id);
  }
}

/** Signed pre-keys. */
export class SignedPreKeys extends SignedPreKeyStore {
  constructor(private readonly keys: OwnKeys) {
    super();
  }

  override async saveSignedPreKey(): Promise<void> {
    throw new NotWritten();
  }

  override async getSignedPreKey(id: number): Promise<SignedPreKeyRecord> {
    return this.keys.signedPreKey(id);
  }
}

/** One-time and last-resort Kyber pre-keys. */
export class KyberPreKeys extends KyberPreKeyStore {
  /** Whether the step made a session: every one uses a Kyber key. */
  used = false;

  constructor(private readonly keys: OwnKeys) {
    super();
  }

  override async saveKyberPreKey(): Promise<void> {
    throw new NotWritten();
  }

  override async getKyberPreKey(id: number): Promise<KyberPreKeyRecord> {
    return this.keys.kyberPreKey(id);
  }

  override async markKyberPreKeyUsed(
    kyberPreKeyId: number,
    signedPreKeyId: number,
    baseKey: PublicKey,
  ): Promise<void> {
    this.keys.usedKyber(kyberPreKeyId, signedPreKeyId, baseKey.serialize());
    this.used = true;
  }
}
