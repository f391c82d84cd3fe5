/**
 * A device's ratchet sessions on libsignal: who has which devices, encrypting for all of them,
 * decrypting.
 *
 * Works on rows in memory; nothing of what it returns may leave the device before those rows are
 * committed (I1 in docs/architecture.md). A step that throws has changed nothing. Knows no network.
 * Trust is on first use; a changed identity is accepted and told, never passed over.
 */

import { create } from "@bufbuild/protobuf";
import {
  CiphertextMessageType,
  KEMPublicKey,
  PreKeyBundle,
  PreKeySignalMessage,
  PrivateKey,
  ProtocolAddress,
  PublicKey,
  processPreKeyBundle,
  SessionRecord,
  SignalMessage,
  signalDecrypt,
  signalDecryptPreKey,
  signalEncrypt,
} from "@signalapp/libsignal-client";
import { BadPreKeys, ServerError } from "../errors.js";
import type { AccountBundles, DeviceBundle } from "../generated/letterlock/relay/v1/keys_pb.js";
import {
  type DeviceEnvelope,
  DeviceEnvelopeSchema,
  type Envelope,
} from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { hex, owned } from "../wire.js";
import { type Account, ID, ratchetName } from "./account.js";
import type { OwnKeys } from "./keys.js";
import { asRatchetFault, RatchetFault } from "./ratchetFault.js";
import type { Rows } from "./rows.js";
import { SafetyNumber } from "./safetyNumber.js";
import {
  Identities,
  KyberPreKeys,
  PreKeys,
  Sessions as SessionRows,
  SignedPreKeys,
  sessionKey,
} from "./sessionStores.js";

/** A decrypted message; `identityChanged`: its sender's key is not the one seen before. */
export interface Opened {
  readonly plaintext: Uint8Array;
  readonly identityChanged: boolean;
}

/** All sessions of one device. */
export class Sessions {
  readonly #accountId: string;
  readonly #own: ProtocolAddress;
  readonly #identity: PrivateKey;
  readonly #registrationId: number;
  readonly #keys: OwnKeys;
  readonly #rows: Rows;
  readonly #records: SessionRows;

  /** Throws DeviceError through what reads the account. */
  constructor(account: Account, keys: OwnKeys, rows: Rows) {
    this.#accountId = account.accountId;
    this.#own = ProtocolAddress.new(ratchetName(account.accountId), account.deviceId);
    this.#identity = PrivateKey.deserialize(account.identityPrivate);
    this.#registrationId = account.registrationId;
    this.#keys = keys;
    this.#rows = rows;
    this.#records = new SessionRows(rows);
  }

  /** The devices of an account that can be encrypted for now. */
  devices(accountId: string, now: Date): number[] {
    return this.#recordsOf(accountId)
      .filter(([, record]) => record.hasCurrentState(now))
      .map(([deviceId]) => deviceId);
  }

  /** The identity key (33 bytes) last seen of an account. */
  identity(accountId: string): Uint8Array<ArrayBuffer> | undefined {
    return this.#rows.get("peer", accountId);
  }

  /** The safety number with an account; undefined while its identity key is not known. */
  safetyNumber(accountId: string): SafetyNumber | undefined {
    const identityKey = this.identity(accountId);
    if (identityKey === undefined) return undefined;
    const own = this.#identity.getPublicKey().serialize();
    return new SafetyNumber(
      { accountId: this.#accountId, identityKey: own },
      { accountId, identityKey },
    );
  }

  /**
   * Start a session with each device of the bundles; true when the identity is a new one.
   *
   * Throws BadPreKeys when any of them does not verify: then none is started.
   */
  async start(bundles: AccountBundles, now: Date): Promise<boolean> {
    const accountId = hex(bundles.accountId);
    if (!ID.test(accountId)) throw new ServerError("bundles of no account");
    const known = this.identity(accountId);
    const identity = owned(bundles.identityKey);
    await this.#rows.step(async () => {
      this.#acceptIdentity(accountId, identity);
      for (const device of bundles.devices) await this.#startOne(accountId, identity, device, now);
    });
    return known !== undefined && hex(known) !== hex(identity);
  }

  /** Drop the sessions with devices that do not exist any more. */
  forget(accountId: string, devices: readonly number[]): void {
    for (const device of devices) this.#rows.delete("session", sessionKey(accountId, device));
  }

  /** Send nothing more on the sessions with these devices; late messages still open. */
  archive(accountId: string, devices: readonly number[]): void {
    for (const [deviceId, record] of this.#recordsOf(accountId)) {
      if (!devices.includes(deviceId)) continue;
      record.archiveCurrentState();
      this.#rows.put("session", sessionKey(accountId, deviceId), record.serialize());
    }
  }

  /** archive(), where the session with a device sends under this ratchet key of ours. */
  async archiveSending(
    accountId: string,
    deviceId: number,
    ratchetKey: Uint8Array<ArrayBuffer>,
  ): Promise<boolean> {
    const record = await this.#records.getSession(this.#peer(accountId, deviceId));
    if (!record?.currentRatchetKeyMatches(PublicKey.deserialize(ratchetKey))) return false;
    this.archive(accountId, [deviceId]);
    return true;
  }

  /** Encrypt for one device that has a session. */
  async encrypt(
    accountId: string,
    deviceId: number,
    plaintext: Uint8Array<ArrayBuffer>,
    now: Date,
  ): Promise<DeviceEnvelope> {
    const peer = this.#peer(accountId, deviceId);
    const identities = this.#identities(this.identity(accountId));
    const message = await this.#rows.step(() =>
      signalEncrypt(plaintext, peer, this.#own, this.#records, identities, now),
    );
    const record = await this.#records.getSession(peer);
    return create(DeviceEnvelopeSchema, {
      deviceId,
      registrationId: record?.remoteRegistrationId() ?? 0,
      type: message.type(),
      body: message.serialize(),
    });
  }

  /** Decrypt what a device sent. Throws RatchetFault; DUPLICATED_MESSAGE: it came before. */
  async decrypt(envelope: Envelope): Promise<Opened> {
    const accountId = hex(envelope.senderAccountId);
    if (!ID.test(accountId)) throw new RatchetFault("INVALID_ADDRESS");
    try {
      return await this.#rows.step(() => this.#decrypt(accountId, envelope));
    } catch (error) {
      throw asRatchetFault(error);
    }
  }

  async #decrypt(accountId: string, envelope: Envelope): Promise<Opened> {
    const peer = this.#peer(accountId, envelope.senderDeviceId);
    const known = this.identity(accountId);
    const isFirst = envelope.type === CiphertextMessageType.PreKey;
    // Only a first message can bring a new identity; an ordinary one proves nothing new.
    const identities = this.#identities(isFirst ? undefined : known);
    const kyber = new KyberPreKeys(this.#keys);
    const plaintext = isFirst
      ? await this.#openFirst(envelope, peer, identities, kyber)
      : await this.#openLater(envelope, peer, identities);
    const { seen } = identities;
    if (seen === undefined) throw new RatchetFault("SESSION_NOT_FOUND");
    const identityChanged = known !== undefined && hex(known) !== hex(seen);
    // Of a session that exists already, the identity in the outer message is not authenticated: the
    // relay could write anything. And a late message may come under a former identity.
    if (identityChanged && !kyber.used) throw new RatchetFault("UNTRUSTED_IDENTITY");
    if (kyber.used) this.#keys.uses += 1;
    this.#acceptIdentity(accountId, seen, envelope.senderDeviceId);
    return { plaintext, identityChanged };
  }

  #openFirst(
    { body }: Envelope,
    peer: ProtocolAddress,
    identities: Identities,
    kyber: KyberPreKeys,
  ): Promise<Uint8Array> {
    return signalDecryptPreKey(
      PreKeySignalMessage.deserialize(owned(body)),
      peer,
      this.#own,
      this.#records,
      identities,
      new PreKeys(this.#keys),
      new SignedPreKeys(this.#keys),
      kyber,
    );
  }

  #openLater(
    { body, type }: Envelope,
    peer: ProtocolAddress,
    identities: Identities,
  ): Promise<Uint8Array> {
    if (type !== CiphertextMessageType.Whisper) throw new RatchetFault("INVALID_MESSAGE");
    const message = SignalMessage.deserialize(owned(body));
    return signalDecrypt(message, peer, this.#own, this.#records, identities);
  }

  async #startOne(
    accountId: string,
    identity: Uint8Array<ArrayBuffer>,
    device: DeviceBundle,
    now: Date,
  ): Promise<void> {
    try {
      const bundle = toBundle(identity, device);
      const peer = this.#peer(accountId, device.deviceId);
      const identities = this.#identities(undefined);
      await processPreKeyBundle(bundle, peer, this.#own, this.#records, identities, now);
    } catch (error) {
      throw new BadPreKeys(`pre-keys do not verify: ${asRatchetFault(error).reason}`);
    }
  }

  // `fresh`: the device whose session was made under the new identity.
  #acceptIdentity(accountId: string, identity: Uint8Array<ArrayBuffer>, fresh?: number): void {
    const known = this.identity(accountId);
    if (known !== undefined && hex(known) === hex(identity)) return;
    const devices = this.#recordsOf(accountId).map(([deviceId]) => deviceId);
    if (known !== undefined) {
      this.archive(
        accountId,
        devices.filter((device) => device !== fresh),
      );
    }
    this.#rows.put("peer", accountId, identity);
  }

  #recordsOf(accountId: string): [number, SessionRecord][] {
    return this.#rows
      .all("session")
      .filter(([key]) => key.startsWith(`${accountId}.`))
      .map(([key, row]) => [Number(key.slice(33)), SessionRecord.deserialize(row)]);
  }

  #peer(accountId: string, deviceId: number): ProtocolAddress {
    return ProtocolAddress.new(ratchetName(accountId), deviceId);
  }

  #identities(trusted: Uint8Array | undefined): Identities {
    return new Identities(this.#identity, this.#registrationId, trusted);
  }
}

function toBundle(identity: Uint8Array<ArrayBuffer>, device: DeviceBundle): PreKeyBundle {
  const { signedPreKey, kyberPreKey, oneTimePreKey } = device;
  if (!signedPreKey || !kyberPreKey) throw new RatchetFault("INVALID_BUNDLE");
  return PreKeyBundle.new(
    device.registrationId,
    device.deviceId,
    oneTimePreKey ? oneTimePreKey.keyId : null,
    oneTimePreKey ? PublicKey.deserialize(owned(oneTimePreKey.publicKey)) : null,
    signedPreKey.keyId,
    PublicKey.deserialize(owned(signedPreKey.publicKey)),
    owned(signedPreKey.signature),
    PublicKey.deserialize(identity),
    kyberPreKey.keyId,
    KEMPublicKey.deserialize(owned(kyberPreKey.publicKey)),
    owned(kyberPreKey.signature),
  );
}
