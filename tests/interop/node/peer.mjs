// The official client behind the interop line protocol: one JSON object a line in, one out.
//
//     node peer.mjs [package]
//
// Kyber pre-keys cannot be taken in from a seed here: the client stores them expanded only.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { name as packageName, signal } from './client.mjs';
import { MemoryStores } from './stores.mjs';

const SAFETY_NUMBER_VERSION = 2;
const SAFETY_NUMBER_ITERATIONS = 5200;
const parties = new Map();

const hex = (bytes) => Buffer.from(bytes).toString('hex');
const bytes = (text) => Uint8Array.from(Buffer.from(text, 'hex'));
const address = ({ addr, dev }) => signal.ProtocolAddress.new(addr, dev);
const time = ({ nowMs }) => (nowMs === undefined ? new Date() : new Date(nowMs));

function partyOf({ name }) {
  const party = parties.get(name);
  if (!party) throw badRequest('no such party');
  return party;
}

function badRequest(text) {
  return Object.assign(new Error(text), { name: 'BadRequest' });
}

function privateKey(given) {
  return given ? signal.PrivateKey.deserialize(bytes(given)) : signal.PrivateKey.generate();
}

function addPreKey(party, { id, priv }) {
  const key = privateKey(priv);
  party.preKeys.set(id, signal.PreKeyRecord.new(id, key.getPublicKey(), key).serialize());
  return { id, priv: hex(key.serialize()), pub: hex(key.getPublicKey().serialize()) };
}

function addSignedPreKey(party, { id, priv }) {
  const key = privateKey(priv);
  const pub = key.getPublicKey();
  const sig = party.identity.sign(pub.serialize());
  const record = signal.SignedPreKeyRecord.new(id, 0, pub, key, sig);
  party.signedPreKeys.set(id, record.serialize());
  return { id, priv: hex(key.serialize()), pub: hex(pub.serialize()), sig: hex(sig) };
}

function addKyberPreKey(party, { id, seed }) {
  if (seed) throw badRequest('seed not supported');
  const pair = signal.KEMKeyPair.generate();
  const pub = pair.getPublicKey().serialize();
  const sig = party.identity.sign(pub);
  party.kyberPreKeys.set(id, signal.KyberPreKeyRecord.new(id, 0, pair, sig).serialize());
  return { id, pub: hex(pub), sig: hex(sig) };
}

function bundle(b) {
  return signal.PreKeyBundle.new(
    b.reg,
    b.dev,
    b.opk ? b.opk.id : null,
    b.opk ? signal.PublicKey.deserialize(bytes(b.opk.pub)) : null,
    b.spk.id,
    signal.PublicKey.deserialize(bytes(b.spk.pub)),
    bytes(b.spk.sig),
    signal.PublicKey.deserialize(bytes(b.id)),
    b.kpk.id,
    signal.KEMPublicKey.deserialize(bytes(b.kpk.pub)),
    bytes(b.kpk.sig),
  );
}

function fingerprint({ id, peerId, peerPub, ...fields }) {
  return signal.Fingerprint.new(
    SAFETY_NUMBER_ITERATIONS,
    SAFETY_NUMBER_VERSION,
    bytes(id),
    partyOf(fields).identity.getPublicKey(),
    bytes(peerId),
    signal.PublicKey.deserialize(bytes(peerPub)),
  );
}

const operations = {
  version() {
    const manifest = new URL(`node_modules/${packageName}/package.json`, import.meta.url);
    return { version: JSON.parse(readFileSync(manifest, 'utf8')).version };
  },

  party(fields) {
    const identity = privateKey(fields.priv);
    parties.set(fields.name, new MemoryStores(identity, fields.reg, address(fields)));
    return { priv: hex(identity.serialize()), pub: hex(identity.getPublicKey().serialize()) };
  },

  preKeys(fields) {
    const party = partyOf(fields);
    const kinds = { opk: addPreKey, spk: addSignedPreKey, kpk: addKyberPreKey };
    const made = {};
    for (const [kind, add] of Object.entries(kinds)) {
      if (fields[kind]) made[kind] = add(party, fields[kind]);
    }
    return made;
  },

  async processBundle(fields) {
    await partyOf(fields).processBundle(bundle(fields.b), address(fields.to), time(fields));
    return {};
  },

  async encrypt(fields) {
    const message = await partyOf(fields).encrypt(
      bytes(fields.pt),
      address(fields.to),
      time(fields),
    );
    return { type: message.type(), ct: hex(message.serialize()) };
  },

  async encryptMany(fields) {
    const out = [];
    for (const pt of fields.pts) out.push(await operations.encrypt({ ...fields, pt }));
    return { out };
  },

  async decrypt(fields) {
    const party = partyOf(fields);
    const plaintext = await party.decrypt(fields.type, bytes(fields.ct), address(fields.from));
    return { pt: hex(plaintext) };
  },

  async decryptMany(fields) {
    const out = [];
    for (const each of fields.cts) out.push(await run({ ...fields, ...each, op: 'decrypt' }));
    return { out };
  },

  async archive(fields) {
    const { sessions } = partyOf(fields);
    const record = await sessions.getSession(address(fields.to));
    if (record) {
      record.archiveCurrentState();
      await sessions.saveSession(address(fields.to), record);
    }
    return {};
  },

  complain(fields) {
    const error = signal.DecryptionErrorMessage.forOriginal(
      bytes(fields.ct),
      fields.type,
      time(fields).getTime(),
      fields.from.dev,
    );
    return { ct: hex(signal.PlaintextContent.from(error).serialize()) };
  },

  async heal(fields) {
    const { sessions } = partyOf(fields);
    const content = signal.PlaintextContent.deserialize(bytes(fields.ct));
    const error = signal.DecryptionErrorMessage.extractFromSerializedBody(content.body());
    const record = await sessions.getSession(address(fields.from));
    const key = error.ratchetKey();
    const archived = Boolean(key && record?.currentRatchetKeyMatches(key));
    if (archived) {
      record.archiveCurrentState();
      await sessions.saveSession(address(fields.from), record);
    }
    return { archived };
  },

  session(fields) {
    const stored = partyOf(fields).sessions.bytesOf(address(fields.to));
    return { session: stored ? hex(stored) : null };
  },

  setSession(fields) {
    const record = signal.SessionRecord.deserialize(bytes(fields.session));
    partyOf(fields).sessions.saveSession(address(fields.to), record);
    return {};
  },

  dropSession(fields) {
    partyOf(fields).sessions.drop(address(fields.to));
    return {};
  },

  safetyNumber(fields) {
    const number = fingerprint(fields);
    return {
      displayable: number.displayableFingerprint().toString(),
      scannable: hex(number.scannableFingerprint().toBuffer()),
    };
  },

  compareSafetyNumber(fields) {
    const scanned = signal.ScannableFingerprint._fromBuffer(bytes(fields.scanned));
    return { same: fingerprint(fields).scannableFingerprint().compare(scanned) };
  },
};

// The client names few of its verdicts; the others are told by their text. Anything else is Generic.
const VERDICTS = [
  [/(Invalid\w*PreKeyId)/, (match) => match[1]],
  [/seen before|^invalid (Whisper|PreKey) message|decryption failed/, () => 'InvalidMessage'],
  [/^session .*not found/, () => 'SessionNotFound'],
  [/^invalid signature/, () => 'SignatureValidationFailed'],
  [/^protobuf encoding was invalid/, () => 'InvalidProtobufEncoding'],
  [/^ciphertext serialized bytes were too short/, () => 'CiphertextMessageTooShort'],
];

function verdict(error) {
  if (error.name !== 'LibSignalError') return error.name;
  for (const [text, name] of VERDICTS) {
    const match = text.exec(error.message);
    if (match) return name(match);
  }
  return 'Generic';
}

async function run(fields) {
  try {
    const operation = operations[fields.op];
    if (!operation) throw badRequest('no such operation');
    return await operation(fields);
  } catch (error) {
    return { err: `${verdict(error)}: ${error.message}` };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await run(JSON.parse(line)))}\n`);
}
