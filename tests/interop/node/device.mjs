// A user's device on the official libsignal client, speaking to a relay over gRPC.
//
// A test driver talks to it by lines of JSON. In, on standard input, one operation a line with an `op`:
//   {"op": "requestVerification", "phone"}                      -> {"ok": true, "verificationId"}
//   {"op": "register", "verificationId", "code", "phone"}       -> {"ok": true, "accountId", "deviceId"}
//   {"op": "connect"}                                           -> {"ok": true}
//   {"op": "send", "phone", "text"}                             -> {"ok": true, "messageId"} once the relay has it
//   {"op": "read", "accountId", "messageIds"}                   -> {"ok": true, "messageId"}
//   {"op": "close"}
// Out, on standard output, an answer for each operation, in order, and in between, unasked:
//   {"event": "message", "accountId", "messageId", "text"}      decrypted; acknowledged after this line
//   {"event": "receipt", "messageId", "kind"}
//   {"event": "undecryptable", "error"}
// A failed operation answers {"ok": false, "error"}. State is kept in memory: this is a test peer.
//
// usage: node device.mjs CLIENT_PACKAGE PROTO_FOLDER RELAY_ADDRESS CA_FILE
import * as grpc from '@grpc/grpc-js';
import * as protoLoader from '@grpc/proto-loader';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { own, signal } from './client.mjs';
import { MemoryStores } from './stores.mjs';

const [protoFolder, address, caFile] = process.argv.slice(3);
const SIGNED_ID = 1;
const LAST_RESORT_ID = 1;
const ONE_TIME_KEYS = 20;
const RETENTION_MS = 24 * 3600 * 1000;

const load = (...files) =>
  protoLoader.loadSync(files, {
    includeDirs: [protoFolder], keepCase: false, longs: String, enums: String, defaults: true, oneofs: true,
  });
const definition = load(
  ...['accounts', 'keys', 'mailbox'].map((name) => path.join('letterlock', 'relay', 'v1', `${name}.proto`)),
);
const api = grpc.loadPackageDefinition(definition).letterlock;
const credentials = grpc.credentials.createSsl(readFileSync(caFile));
const client = (Service) => new Service(address, credentials);
const accounts = client(api.relay.v1.Accounts);
const keys = client(api.relay.v1.Keys);
const mailbox = client(api.relay.v1.Mailbox);

// proto-loader offers (de)serialisers only for the messages of a service, so the payload, which only
// the two ends ever see, goes through the same protobuf.js that it is built on.
const protobuf = (await import('protobufjs')).default;
const root = new protobuf.Root();
root.resolvePath = (_origin, target) =>
  target.startsWith('google/protobuf/') ? null : path.isAbsolute(target) ? target : path.join(protoFolder, target);
await root.load(path.join(protoFolder, 'letterlock', 'content', 'v1', 'content.proto'));
const Payload = root.lookupType('letterlock.content.v1.Payload');

const hex = (bytes) => Buffer.from(bytes).toString('hex');
const uuid = (bytes) => hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
const peer = (accountId, deviceId) => signal.ProtocolAddress.new(uuid(accountId), deviceId);

const identity = signal.PrivateKey.generate();
const registrationId = 1 + (randomBytes(2).readUInt16BE() % 16383);
const stores = new MemoryStores(identity, registrationId, peer(Buffer.alloc(16), 1));
const directory = new Map(); // phone number or account id (hex) -> { accountId, devices }
const waiting = new Map(); // message id (hex) -> answer of the relay
const auth = new grpc.Metadata();
let stream = null;
let answering = Promise.resolve();

// Stores are read and written at several awaits of one operation: two at a time would lose a step.
let ratchet = Promise.resolve();
const alone = (operation) => {
  const done = ratchet.then(operation);
  ratchet = done.catch(() => {});
  return done;
};
const found = (value, what) => {
  if (!value) throw new Error(`no such ${what}`);
  return value;
};
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const timestamp = (ms) => ({ seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1_000_000 });
const unary = (service, method, request) =>
  new Promise((resolve, reject) =>
    service[method](request, auth, { deadline: Date.now() + 15_000 }, (error, answer) =>
      error ? reject(error) : resolve(answer)));

function newMessageId() {
  const id = randomBytes(16);
  id.writeUIntBE(Date.now(), 0, 6);
  id[6] = 0x70 | (id[6] & 0x0f);
  id[8] = 0x80 | (id[8] & 0x3f);
  return id;
}

function firstPreKeys() {
  const sign = (key) => identity.sign(key.serialize());
  const signed = signal.PrivateKey.generate();
  const signedRecord = signal.SignedPreKeyRecord.new(
    SIGNED_ID, Date.now(), signed.getPublicKey(), signed, sign(signed.getPublicKey()));
  stores.signedPreKeys.set(SIGNED_ID, signedRecord.serialize());
  const kyber = signal.KEMKeyPair.generate();
  const kyberRecord = signal.KyberPreKeyRecord.new(LAST_RESORT_ID, Date.now(), kyber, sign(kyber.getPublicKey()));
  stores.kyberPreKeys.set(LAST_RESORT_ID, kyberRecord.serialize());
  const oneTime = [];
  for (let id = 1; id <= ONE_TIME_KEYS; id += 1) {
    const key = signal.PrivateKey.generate();
    stores.preKeys.set(id, signal.PreKeyRecord.new(id, key.getPublicKey(), key).serialize());
    oneTime.push({ keyId: id, publicKey: key.getPublicKey().serialize() });
  }
  const published = (record) => ({
    keyId: record.id(), publicKey: record.publicKey().serialize(), signature: record.signature(),
  });
  return {
    signedPreKey: published(signedRecord),
    lastResortKyberPreKey: published(kyberRecord),
    oneTimePreKeys: oneTime,
  };
}

async function openSessions(phone) {
  const { results: [result] } = await unary(keys, 'fetchBundles', { targets: [{ phoneNumber: phone }] });
  if (result.outcome !== 'bundles') throw new Error(result.refused.reason);
  const { accountId, identityKey, devices } = result.bundles;
  const theirs = signal.PublicKey.deserialize(identityKey);
  for (const device of devices) {
    const oneTime = device.oneTimePreKey;
    const bundle = signal.PreKeyBundle.new(
      device.registrationId, device.deviceId,
      oneTime ? oneTime.keyId : null, oneTime ? signal.PublicKey.deserialize(oneTime.publicKey) : null,
      device.signedPreKey.keyId, signal.PublicKey.deserialize(device.signedPreKey.publicKey),
      device.signedPreKey.signature, theirs,
      device.kyberPreKey.keyId, signal.KEMPublicKey.deserialize(device.kyberPreKey.publicKey),
      device.kyberPreKey.signature);
    await alone(() => stores.processBundle(bundle, peer(accountId, device.deviceId), new Date()));
  }
  const entry = { accountId, devices: devices.map((device) => device.deviceId) };
  directory.set(phone, entry);
  directory.set(hex(accountId), entry);
  return entry;
}

const SIZE_STEP = 160;
const LARGE_STEP = 1600;
function padded(fields) {
  const size = Payload.encode(Payload.create(fields)).finish().length;
  const step = size + 2 <= LARGE_STEP ? SIZE_STEP : LARGE_STEP;
  for (let target = Math.ceil((size + 2) / step) * step; ; target += step) {
    for (let header = 2; header <= 4; header += 1) {
      const bytes = Payload.encode(Payload.create({ ...fields, padding: Buffer.alloc(target - size - header) })).finish();
      if (bytes.length === target) return bytes;
    }
  }
}

async function submit(recipient, content) {
  const messageId = newMessageId();
  const plaintext = padded({ messageId, sentTime: timestamp(Date.now()), content });
  const envelopes = [];
  for (const deviceId of recipient.devices) {
    const name = peer(recipient.accountId, deviceId);
    const message = await alone(() => stores.encrypt(plaintext, name, new Date()));
    const registrationId = (await stores.sessions.getSession(name)).remoteRegistrationId();
    envelopes.push({ deviceId, registrationId, type: message.type(), body: message.serialize() });
  }
  const answer = new Promise((resolve) => waiting.set(hex(messageId), resolve));
  stream.write({ submissions: { submissions: [{
    messageId, recipientAccountId: recipient.accountId, envelopes,
    expireTime: timestamp(Date.now() + RETENTION_MS), receiptWanted: true,
  }] } });
  const { refused } = await answer;
  if (refused) throw new Error(refused.reason);
  return { messageId: hex(messageId) };
}

async function take({ itemId, kind, envelope, receipts }) {
  if (kind === 'receipts') {
    for (const receipt of receipts.receipts) print({ event: 'receipt', messageId: hex(receipt.messageId), kind: receipt.kind });
  } else if (kind === 'envelope') {
    try {
      await open(envelope);
    } catch (error) {
      print({ event: 'undecryptable', error: String(error) });
    }
  }
  stream.write({ acks: { itemIds: [itemId] } });
}

async function open({ senderAccountId, senderDeviceId, type, body }) {
  const from = peer(senderAccountId, senderDeviceId);
  const plaintext = await alone(() => stores.decrypt(type, body, from));
  const payload = Payload.decode(plaintext);
  directory.set(hex(senderAccountId), { accountId: senderAccountId, devices: [senderDeviceId] });
  print({
    event: 'message', accountId: hex(senderAccountId), messageId: hex(payload.messageId),
    text: payload.content?.text?.body ?? null,
    readMessageIds: (payload.content?.readReceipt?.messageIds ?? []).map(hex),
  });
}

function connect() {
  return new Promise((resolve, reject) => {
    stream = mailbox.connect(auth);
    stream.on('error', reject);
    stream.on('data', (answer) => {
      if (answer.frame === 'opened') resolve({});
      for (const result of answer.results?.results ?? []) {
        waiting.get(hex(result.messageId))?.(result);
        waiting.delete(hex(result.messageId));
      }
      for (const item of answer.deliveries?.items ?? []) answering = answering.then(() => take(item));
    });
    stream.write({ open: { window: 64 } });
  });
}

const operations = {
  requestVerification: ({ phone }) => unary(accounts, 'requestVerification', { phoneNumber: phone }),
  async register({ verificationId, code, phone }) {
    const answer = await unary(accounts, 'register', {
      verificationId, code, phoneNumber: phone,
      identityKey: identity.getPublicKey().serialize(),
      registrationId, preKeys: firstPreKeys(),
    });
    auth.set('authorization', `Bearer ${answer.credential}`);
    stores.own = own(peer(answer.accountId, answer.deviceId));
    return { accountId: hex(answer.accountId), deviceId: answer.deviceId };
  },
  connect,
  async send({ phone, accountId, text }) {
    const recipient = directory.get(phone ?? accountId) ?? await openSessions(phone);
    return submit(recipient, { text: { body: text } });
  },
  read: ({ accountId, messageIds }) => submit(
    found(directory.get(accountId), 'conversation'),
    { readReceipt: { messageIds: messageIds.map((id) => Buffer.from(id, 'hex')) } }),
  async close() { stream?.end(); setImmediate(() => process.exit(0)); return {}; },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    print({ ok: true, ...await operations[request.op](request) });
  } catch (error) {
    print({ ok: false, error: String(error) });
  }
}
process.exit(0);
