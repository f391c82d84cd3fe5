import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { PrivateKey } from "@signalapp/libsignal-client";
import { accountFromRow, accountToRow } from "../../src/device/account.js";
import { makeKeys } from "../../src/device/keys.js";
import { RatchetFault } from "../../src/device/ratchetFault.js";
import { BadPreKeys, DeviceError } from "../../src/errors.js";
import {
  AccountBundlesSchema,
  DeviceBundleSchema,
} from "../../src/generated/letterlock/relay/v1/keys_pb.js";
import { EnvelopeSchema } from "../../src/generated/letterlock/relay/v1/mailbox_pb.js";
import { ana, ben, bytes, NOW, Party, say } from "./party.js";

const DAY_MS = 24 * 3600 * 1000;

async function reasonOf(opening: Promise<unknown>): Promise<string> {
  const fault = await opening.then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(fault instanceof RatchetFault);
  return fault.reason;
}

test("two devices talk, and a repeat is told as one", async () => {
  const [a, b] = [ana(), ben()];
  assert.equal(await a.sessions.start(b.bundles(), NOW), false);
  const first = await say(a, b, "one");
  assert.equal(Buffer.from((await b.sessions.decrypt(first)).plaintext).toString(), "one");
  assert.equal(await reasonOf(b.sessions.decrypt(first)), "DUPLICATED_MESSAGE");
  const answer = await a.sessions.decrypt(await say(b, a, "two"));
  assert.deepEqual(
    [Buffer.from(answer.plaintext).toString(), answer.identityChanged],
    ["two", false],
  );
  assert.deepEqual(a.sessions.devices(b.accountId, NOW), [1]);
});

test("a one-time key goes with its first use; a last-resort use is remembered", async () => {
  const [a, b] = [ana(), ben()];
  await a.sessions.start(b.bundles(), NOW);
  await b.sessions.decrypt(await say(a, b, "one"));
  assert.equal(b.rows.count("ec") + b.rows.count("kyber"), 0);
  const [c, d] = [ana(), ben(0)];
  await c.sessions.start(d.bundles({ lastResort: true }), NOW);
  const first = await say(c, d, "one");
  await d.sessions.decrypt(first);
  assert.deepEqual([d.rows.count("used"), d.keys.uses], [1, 1]);
  d.sessions.forget(c.accountId, [1]); // replayed into a second session
  assert.equal(await reasonOf(d.sessions.decrypt(first)), "INVALID_MESSAGE");
  assert.equal(d.rows.count("session"), 0);
});

test("what does not open changes nothing", async () => {
  const [a, b] = [ana(), ben()];
  await a.sessions.start(b.bundles(), NOW);
  const good = await say(a, b, "one");
  b.rows.take();
  const damaged = create(EnvelopeSchema, {
    ...good,
    body: good.body.map((x, i) => (i > 200 ? 0 : x)),
  });
  for (const [bad, reason] of [
    [damaged, /INVALID_MESSAGE/],
    [create(EnvelopeSchema, { ...good, type: 2 }), /.+/],
    [create(EnvelopeSchema, { ...good, type: 9 }), /INVALID_MESSAGE/],
    [create(EnvelopeSchema, { ...good, body: new Uint8Array() }), /.+/],
    [create(EnvelopeSchema, { ...good, senderDeviceId: 0 }), /.+/],
    [create(EnvelopeSchema, { ...good, senderAccountId: new Uint8Array(3) }), /INVALID_ADDRESS/],
  ] as const) {
    assert.match(await reasonOf(b.sessions.decrypt(bad)), reason);
    assert.equal(b.rows.changed, false);
  }
  await b.sessions.decrypt(good);
});

test("a new identity is accepted by a first message or a bundle, and told", async () => {
  const [a, b] = [ana(), ben()];
  await a.sessions.start(b.bundles(), NOW);
  await b.sessions.decrypt(await say(a, b, "one"));
  const late = await say(a, b, "late");
  const anew = ana();
  const next = ben();
  await anew.sessions.start(next.bundles(), NOW); // a session of the same account with its new keys
  assert.equal(await a.sessions.start(next.bundles(), NOW), true);
  await b.sessions.decrypt(late); // the session of the former identity is still the known one here

  const c = new Party("c".repeat(32), PrivateKey.generate(), 2);
  await a.sessions.start(c.bundles(), NOW);
  await c.sessions.decrypt(await say(a, c, "one"));
  const former = await say(a, c, "two");
  c.keys.keep(makeKeys(c.identity, 1, NOW.getTime(), { signed: true, ec: 1, kyber: 1 }), 0);
  await anew.sessions.start(c.bundles(), NOW);
  const opened = await c.sessions.decrypt(await say(anew, c, "three"));
  assert.equal(opened.identityChanged, true);
  assert.equal(await reasonOf(c.sessions.decrypt(former)), "UNTRUSTED_IDENTITY");
});

test("bundles that do not verify start nothing", async () => {
  const [a, b] = [ana(), ben()];
  const forged = b.bundles();
  const [device] = forged.devices;
  assert.ok(device?.kyberPreKey);
  device.kyberPreKey.signature = new Uint8Array(64);
  await assert.rejects(a.sessions.start(forged, NOW), BadPreKeys);
  const empty = create(AccountBundlesSchema, {
    ...b.bundles(),
    devices: [create(DeviceBundleSchema, { deviceId: 1 })],
  });
  await assert.rejects(a.sessions.start(empty, NOW), BadPreKeys);
  assert.deepEqual([a.rows.changed, a.rows.count("peer")], [true, 0]); // its own keys only
});

test("an archived session sends no more, and still opens what is late", async () => {
  const [a, b] = [ana(), ben()];
  await a.sessions.start(b.bundles(), NOW);
  await b.sessions.decrypt(await say(a, b, "one"));
  const late = await say(b, a, "late");
  a.sessions.archive(b.accountId, [1]);
  assert.deepEqual(a.sessions.devices(b.accountId, NOW), []);
  assert.equal(Buffer.from((await a.sessions.decrypt(late)).plaintext).toString(), "late");
});

test("a session nobody answered for 30 days is no longer sent on", async () => {
  const [a, b] = [ana(), ben()];
  await a.sessions.start(b.bundles(), NOW);
  const later = (days: number) => new Date(NOW.getTime() + days * DAY_MS);
  assert.deepEqual(a.sessions.devices(b.accountId, later(29)), [1]);
  assert.deepEqual(a.sessions.devices(b.accountId, later(31)), []);
});

test("signed keys turn over after a week and are gone 30 days later", () => {
  const b = ben();
  const at = (days: number) => NOW.getTime() + days * DAY_MS;
  assert.deepEqual([b.keys.signedIsOld(at(6)), b.keys.signedIsOld(at(8))], [false, true]);
  const wanted = { signed: true, ec: 0, kyber: 0 };
  b.keys.keep(makeKeys(b.identity, b.keys.nextId, at(8), wanted), at(8));
  assert.deepEqual([b.rows.count("signed"), b.rows.count("last resort")], [2, 2]);
  b.keys.keep(makeKeys(b.identity, b.keys.nextId, at(38), wanted), at(38));
  assert.deepEqual([b.rows.count("signed"), b.rows.count("last resort")], [2, 2]);
  assert.throws(() => b.keys.signedPreKey(1), RatchetFault);
});

test("the row that names a device is read back, and anything else is refused", () => {
  const account = {
    accountId: "a".repeat(32),
    deviceId: 1,
    registrationId: 2,
    phoneNumber: "+15550100101",
    credential: "c",
    identityPrivate: new Uint8Array([1, 2]),
  };
  assert.deepEqual(accountFromRow(accountToRow(account)), account);
  for (const row of ["", "{}", '{"version":2}', '{"version":1,"accountId":7}']) {
    assert.throws(() => accountFromRow(bytes(row)), DeviceError);
  }
});
