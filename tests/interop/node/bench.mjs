// node bench.mjs [package]
//
// Timings of the official client, taken inside this process: one JSON command a line, one answer.
// Times are microseconds for one operation: `micros` by the clock, `cpu` of this process's threads. Every operation reads a serialised record from memory
// and writes one, as an application does.
//
//   open {}                        a fresh party; answers its bundle
//   receive {type, ct}             decrypts one message: {micros, cpu}
//   send {}                        encrypts one: {micros, cpu, type, ct}
//   encrypt {count}                encrypts as many in a row: {micros, cpu}
//   decrypt {messages}             decrypts all of them in a row: {micros, cpu}
//   set-up, first ciphertext {count} and set-up, first decrypt {count}: {micros, cpu}

import { createInterface } from 'node:readline';
import { signal } from './client.mjs';
import { MemoryStores } from './stores.mjs';

const TEXT = new Uint8Array(256).fill(120);
const A = signal.ProtocolAddress.new('9d0652a3-dcc3-4d11-975f-74d61598733f', 1);
const B = signal.ProtocolAddress.new('6838237d-02f6-4098-b110-698253d15961', 1);
const hex = (data) => Buffer.from(data).toString('hex');
const bytes = (text) => Uint8Array.from(Buffer.from(text, 'hex'));
const SIGNED = 1;
const KYBER = 1;

function makeStores() {
  const stores = new MemoryStores(signal.PrivateKey.generate(), 1, B);
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

const start = (from, bundle) => from.processBundle(bundle, B);

const encrypt = async (from, to) => {
  const message = await from.encrypt(TEXT, to);
  return { type: message.type(), body: message.serialize() };
};

const decrypt = (to, from, message) => to.decrypt(message.type, message.body, from);

async function timed(count, operation) {
  const [began, used] = [performance.now(), process.cpuUsage()];
  for (let number = 0; number < count; number += 1) await operation(number);
  const { user, system } = process.cpuUsage(used);
  return { micros: ((performance.now() - began) * 1000) / count, cpu: (user + system) / count };
}

let us;

const commands = {
  async open() {
    us = makeStores();
    return {
      identity: hex(us.identity.getPublicKey().serialize()),
      signed: hex(us.signed.publicKey().serialize()),
      signedSignature: hex(us.signed.signature()),
      kyber: hex(us.kyber.publicKey().serialize()),
      kyberSignature: hex(us.kyber.signature()),
    };
  },

  async receive({ type, ct }) {
    return timed(1, () => decrypt(us, A, { type, body: bytes(ct) }));
  },

  async send() {
    let message;
    const time = await timed(1, async () => {
      message = await encrypt(us, A);
    });
    return { ...time, type: message.type, ct: hex(message.body) };
  },

  async encrypt({ count }) {
    return timed(count, () => encrypt(us, A));
  },

  async decrypt({ messages }) {
    const parsed = messages.map(({ type, ct }) => ({ type, body: bytes(ct) }));
    return timed(parsed.length, (number) => decrypt(us, A, parsed[number]));
  },

  async 'set-up, first ciphertext'({ count }) {
    const [b, froms, bundles] = [makeStores(), [], []];
    for (let number = 0; number < count; number += 1) {
      froms.push(new MemoryStores(signal.PrivateKey.generate(), 1, A));
      bundles.push(makeBundle(b, number));
    }
    return timed(count, async (number) => {
      await start(froms[number], bundles[number]);
      await encrypt(froms[number], B);
    });
  },

  async 'set-up, first decrypt'({ count }) {
    const [b, messages] = [makeStores(), []];
    for (let number = 0; number < count; number += 1) {
      const own = signal.ProtocolAddress.new(`sender ${number}`, 1);
      const from = new MemoryStores(signal.PrivateKey.generate(), 1, own);
      await start(from, makeBundle(b, number));
      messages.push(await encrypt(from, B));
    }
    return timed(count, (number) =>
      decrypt(b, signal.ProtocolAddress.new(`sender ${number}`, 1), messages[number]),
    );
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const fields = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await commands[fields.op](fields))}\n`);
}
