// Timings of the official client, taken inside this process: one JSON command a line, one answer.
//   {"workload": "encrypt", "count": 500} -> {"micros": 118.2}    microseconds for one operation
// Every operation reads a serialised record from memory and writes one, as an application does.

import { createInterface } from 'node:readline';
import * as signal from '@signalapp/libsignal-client';
import { MemoryStores } from './stores.mjs';

const TEXT = new Uint8Array(256).fill(120);
const A = signal.ProtocolAddress.new('9d0652a3-dcc3-4d11-975f-74d61598733f', 1);
const B = signal.ProtocolAddress.new('6838237d-02f6-4098-b110-698253d15961', 1);
const SIGNED = 1;
const KYBER = 1;

function makeStores() {
  const stores = new MemoryStores(signal.PrivateKey.generate(), 1);
  const signed = signal.PrivateKey.generate();
  const signature = stores.identity.sign(signed.getPublicKey().serialize());
  stores.signed = signal.SignedPreKeyRecord.new(SIGNED, 0, signed.getPublicKey(), signed, signature);
  stores.signedPreKeys.set(SIGNED, stores.signed.serialize());
  const pair = signal.KEMKeyPair.generate();
  const kyberSignature = stores.identity.sign(pair.getPublicKey().serialize());
  stores.kyber = signal.KyberPreKeyRecord.new(KYBER, 0, pair, kyberSignature);
  stores.kyberPreKeys.set(KYBER, stores.kyber.serialize());
  return stores;
}

function makeBundle(stores, id) {
  const oneTime = signal.PrivateKey.generate();
  const record = signal.PreKeyRecord.new(id, oneTime.getPublicKey(), oneTime);
  stores.preKeys.set(id, record.serialize());
  return signal.PreKeyBundle.new(
    1,
    1,
    id,
    oneTime.getPublicKey(),
    SIGNED,
    stores.signed.publicKey(),
    stores.signed.signature(),
    stores.identity.getPublicKey(),
    KYBER,
    stores.kyber.publicKey(),
    stores.kyber.signature(),
  );
}

const start = (from, bundle) =>
  signal.processPreKeyBundle(bundle, B, from.sessions, from.identities);

const encrypt = async (from, to) => {
  const message = await signal.signalEncrypt(TEXT, to, from.sessions, from.identities);
  return { type: message.type(), body: message.serialize() };
};

const decrypt = (to, from, message) => to.decrypt(message.type, message.body, from);

async function conversation() {
  const [a, b] = [makeStores(), makeStores()];
  await start(a, makeBundle(b, 1));
  for (let turn = 0; turn < 6; turn += 1) {
    await decrypt(b, A, await encrypt(a, B));
    await decrypt(a, B, await encrypt(b, A));
  }
  return [a, b];
}

async function timed(count, operation) {
  const began = performance.now();
  for (let number = 0; number < count; number += 1) await operation(number);
  return ((performance.now() - began) * 1000) / count;
}

const workloads = {
  async encrypt(count) {
    const [a] = await conversation();
    return timed(count, () => encrypt(a, B));
  },

  async decrypt(count) {
    const [a, b] = await conversation();
    const messages = [];
    for (let number = 0; number < count; number += 1) messages.push(await encrypt(a, B));
    return timed(count, (number) => decrypt(b, A, messages[number]));
  },

  async 'ping-pong'(count) {
    const [a, b] = await conversation();
    return timed(count, async (number) => {
      if (number % 2 === 0) await decrypt(b, A, await encrypt(a, B));
      else await decrypt(a, B, await encrypt(b, A));
    });
  },

  async 'set-up, first ciphertext'(count) {
    const [b, froms, bundles] = [makeStores(), [], []];
    for (let number = 0; number < count; number += 1) {
      froms.push(new MemoryStores(signal.PrivateKey.generate(), 1));
      bundles.push(makeBundle(b, number));
    }
    return timed(count, async (number) => {
      await start(froms[number], bundles[number]);
      await encrypt(froms[number], B);
    });
  },

  async 'set-up, first decrypt'(count) {
    const [b, messages] = [makeStores(), []];
    for (let number = 0; number < count; number += 1) {
      const from = new MemoryStores(signal.PrivateKey.generate(), 1);
      await start(from, makeBundle(b, number));
      messages.push(await encrypt(from, B));
    }
    return timed(count, (number) =>
      decrypt(b, signal.ProtocolAddress.new(`sender ${number}`, 1), messages[number]),
    );
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { workload, count } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify({ micros: await workloads[workload](count) })}\n`);
}
