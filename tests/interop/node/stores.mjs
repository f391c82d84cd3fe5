// One party's stores for the official client: records are kept as bytes, so that every operation
// reads and writes a serialised record as an application does.

import { own, signal } from './client.mjs';

const key = (address) => `${address.name()}.${address.deviceId()}`;

function found(records, id, verdict) {
  const record = records.get(id);
  if (!record) throw Object.assign(new Error('no such pre-key'), { name: verdict });
  return record;
}

class Sessions extends signal.SessionStore {
  #records = new Map();

  async saveSession(address, record) {
    this.#records.set(key(address), record.serialize());
  }

  async getSession(address) {
    const stored = this.#records.get(key(address));
    return stored ? signal.SessionRecord.deserialize(stored) : null;
  }

  async getExistingSessions(addresses) {
    return Promise.all(addresses.map((address) => this.getSession(address)));
  }

  bytesOf(address) {
    return this.#records.get(key(address));
  }

  drop(address) {
    this.#records.delete(key(address));
  }
}

// Trust on first use; a changed identity is refused until the party is made anew.
class Identities extends signal.IdentityKeyStore {
  #known = new Map();

  constructor(identity, registrationId) {
    super();
    this.identity = identity;
    this.registrationId = registrationId;
  }

  async getIdentityKey() {
    return this.identity;
  }

  async getLocalRegistrationId() {
    return this.registrationId;
  }

  async saveIdentity(address, identityKey) {
    const known = this.#known.get(key(address));
    this.#known.set(key(address), identityKey);
    return known && !known.equals(identityKey)
      ? signal.IdentityChange.ReplacedExisting
      : signal.IdentityChange.NewOrUnchanged;
  }

  async isTrustedIdentity(address, identityKey) {
    const known = this.#known.get(key(address));
    return !known || known.equals(identityKey);
  }

  async getIdentity(address) {
    return this.#known.get(key(address)) ?? null;
  }
}

class PreKeys extends signal.PreKeyStore {
  constructor(records) {
    super();
    this.records = records;
  }

  async savePreKey(id, record) {
    this.records.set(id, record.serialize());
  }

  async getPreKey(id) {
    return signal.PreKeyRecord.deserialize(found(this.records, id, 'InvalidPreKeyId'));
  }

  async removePreKey(id) {
    this.records.delete(id);
  }
}

class SignedPreKeys extends signal.SignedPreKeyStore {
  constructor(records) {
    super();
    this.records = records;
  }

  async saveSignedPreKey(id, record) {
    this.records.set(id, record.serialize());
  }

  async getSignedPreKey(id) {
    return signal.SignedPreKeyRecord.deserialize(found(this.records, id, 'InvalidSignedPreKeyId'));
  }
}

// Every Kyber pre-key is treated as last-resort: kept, and refused for a triple seen before.
class KyberPreKeys extends signal.KyberPreKeyStore {
  #seen = new Set();

  constructor(records) {
    super();
    this.records = records;
  }

  async saveKyberPreKey(id, record) {
    this.records.set(id, record.serialize());
  }

  async getKyberPreKey(id) {
    return signal.KyberPreKeyRecord.deserialize(found(this.records, id, 'InvalidKyberPreKeyId'));
  }

  async markKyberPreKeyUsed(kyberId, signedId, baseKey) {
    const triple = `${kyberId} ${signedId} ${Buffer.from(baseKey.serialize()).toString('hex')}`;
    if (this.#seen.has(triple)) {
      throw Object.assign(new Error('seen before'), { name: 'InvalidMessage' });
    }
    this.#seen.add(triple);
  }
}

export class MemoryStores {
  preKeys = new Map();
  signedPreKeys = new Map();
  kyberPreKeys = new Map();

  constructor(identity, registrationId, address) {
    this.identity = identity;
    this.own = own(address);
    this.sessions = new Sessions();
    this.identities = new Identities(identity, registrationId);
    this.preKeyStores = [
      new PreKeys(this.preKeys),
      new SignedPreKeys(this.signedPreKeys),
      new KyberPreKeys(this.kyberPreKeys),
    ];
  }

  processBundle(bundle, address, now) {
    return signal.processPreKeyBundle(
      bundle,
      address,
      ...this.own,
      this.sessions,
      this.identities,
      now,
    );
  }

  encrypt(plaintext, address, now) {
    return signal.signalEncrypt(
      plaintext,
      address,
      ...this.own,
      this.sessions,
      this.identities,
      now,
    );
  }

  decrypt(type, body, address) {
    if (type === signal.CiphertextMessageType.PreKey) {
      return signal.signalDecryptPreKey(
        signal.PreKeySignalMessage.deserialize(body),
        address,
        ...this.own,
        this.sessions,
        this.identities,
        ...this.preKeyStores,
      );
    }
    return signal.signalDecrypt(
      signal.SignalMessage.deserialize(body),
      address,
      ...this.own,
      this.sessions,
      this.identities,
    );
  }
}
