import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { DecryptionErrorMessage, PlaintextContent } from "@signalapp/libsignal-client";
import { PLAINTEXT, readReport } from "../../src/device/decryptionError.js";
import { Healing } from "../../src/device/healing.js";
import { Outbox } from "../../src/device/outbox.js";
import { Rows } from "../../src/device/rows.js";
import { Sent } from "../../src/device/sent.js";
import {
  type Envelope,
  EnvelopeSchema,
  ResendSchema,
} from "../../src/generated/letterlock/relay/v1/mailbox_pb.js";
import { hex, unhex } from "../../src/wire.js";
import { ana, ben, NOW, type Party, say } from "./party.js";

const MESSAGE = "c".repeat(32);
const NOW_MS = NOW.getTime();

function halves(party: Party) {
  const outbox = new Outbox(party.rows);
  const sent = new Sent(party.rows);
  return { outbox, sent, healing: new Healing(party.sessions, outbox, sent) };
}

function asEnvelope(from: Party, body: Uint8Array): Envelope {
  return create(EnvelopeSchema, {
    senderAccountId: unhex(from.accountId),
    senderDeviceId: 1,
    type: PLAINTEXT,
    body,
  });
}

/** Ana has written to Ben, and Ben cannot read it: what he says to that, and how Ana takes it. */
async function complaint(attempt = 0) {
  const [a, b] = [ana(), ben()];
  await a.sessions.start(b.bundles(), NOW);
  const lost = await say(a, b, "important");
  lost.messageId = unhex(MESSAGE);
  if (attempt > 0) lost.resend = resendOf(attempt);
  const entry = halves(b).healing.complain(lost, NOW_MS);
  const [envelope] = entry?.submission.envelopes ?? [];
  const report = envelope && readReport(asEnvelope(b, envelope.body));
  return { a, b, entry, envelope, report, ours: halves(a) };
}

const resendOf = (attempt: number) => create(ResendSchema, { messageId: unhex(MESSAGE), attempt });

const sentTo = (party: Party, attempts = new Map<number, number>()) => ({
  accountId: party.accountId,
  expireMs: NOW_MS + 60_000,
  plaintext: new Uint8Array([1]),
  attempts,
});

test("a complaint is what libsignal reads as one, and names the message", async () => {
  const { envelope, report, b } = await complaint();
  assert.ok(envelope && report);
  const content = PlaintextContent.deserialize(new Uint8Array(envelope.body));
  const error = DecryptionErrorMessage.extractFromSerializedBody(content.body());
  assert.equal(error.deviceId(), 1);
  assert.deepEqual(report.ratchetKey, error.ratchetKey()?.serialize());
  assert.deepEqual([report.messageId, report.attempt], [MESSAGE, 0]);
  assert.equal(report.accountId, b.accountId);
});

test("a damaged message is reported without its ratchet key, one given up not at all", async () => {
  const b = ben();
  const envelope = create(EnvelopeSchema, {
    messageId: unhex(MESSAGE),
    senderAccountId: unhex("a".repeat(32)),
    senderDeviceId: 1,
    type: 2,
    body: new Uint8Array([1]),
  });
  const { healing, outbox } = halves(b);
  const [made] = healing.complain(envelope, NOW_MS)?.submission.envelopes ?? [];
  assert.ok(made);
  const report = readReport(asEnvelope(b, made.body));
  assert.deepEqual([report?.messageId, report?.ratchetKey], [MESSAGE, undefined]);
  assert.equal(outbox.size, 1);
  envelope.resend = resendOf(4);
  assert.equal(healing.complain(envelope, NOW_MS), undefined);
});

test("what breaks the contract is no report", async () => {
  const { envelope, b } = await complaint();
  assert.ok(envelope);
  for (const body of [
    new Uint8Array(),
    envelope.body.slice(1),
    envelope.body.slice(0, -1),
    Uint8Array.of(0xc0, 0x80),
    Uint8Array.of(0xc0, 0xff, 0x80),
  ]) {
    assert.equal(readReport(asEnvelope(b, body)), undefined);
  }
});

test("a reported session is archived, and the message goes out once more on a new one", async () => {
  const { a, b, report, ours } = await complaint();
  assert.ok(report);
  ours.sent.keep(MESSAGE, sentTo(b), NOW_MS);
  assert.equal(await ours.healing.renew(report, NOW_MS), "send again");
  assert.deepEqual(a.sessions.devices(b.accountId, NOW), []);
  assert.equal(await ours.healing.resend(report, NOW_MS), undefined); // no session, nothing sent
  await a.sessions.start(b.bundles(), NOW);
  const again = await ours.healing.resend(report, NOW_MS);
  assert.deepEqual([again?.submission.resend?.attempt, again?.submission.envelopes.length], [1, 1]);
  assert.equal(hex(again?.submission.resend?.messageId ?? new Uint8Array()), MESSAGE);
  assert.equal(await ours.healing.renew(report, NOW_MS), "nothing"); // the same report again
});

test("it ends after three times, and concerns nobody but the recipient", async () => {
  const { a, b, report, ours } = await complaint();
  assert.ok(report);
  ours.sent.keep(MESSAGE, sentTo(b, new Map([[1, 3]])), NOW_MS);
  assert.equal(await ours.healing.renew({ ...report, attempt: 3 }, NOW_MS), "give up");
  const stranger = { ...report, accountId: a.accountId };
  assert.equal(await ours.healing.renew(stranger, NOW_MS), "nothing");
  ours.sent.keep("d".repeat(32), { ...sentTo(b), expireMs: NOW_MS }, NOW_MS);
  assert.equal(
    await ours.healing.renew({ ...report, messageId: "d".repeat(32) }, NOW_MS),
    "nothing",
  );
});

test("forged reports cost a bounded number of sessions", async () => {
  const { a, b, ours } = await complaint();
  let renewed = 0;
  for (let n = 0; n < 10; n += 1) {
    await a.sessions.start(b.bundles(), NOW);
    const [envelope] = halves(b).healing.complain(await named(a, b), NOW_MS)?.submission
      .envelopes ?? [undefined];
    const report = envelope && readReport(asEnvelope(b, envelope.body));
    assert.ok(report);
    await ours.healing.renew(report, NOW_MS);
    renewed += a.sessions.devices(b.accountId, NOW).length === 0 ? 1 : 0;
  }
  assert.equal(renewed, 6);
});

test("kept messages die with their time and their number, and are read back", () => {
  const rows = new Rows(new Map());
  const sent = new Sent(rows);
  const message = sentTo(ben(), new Map([[1, 2]]));
  sent.keep(MESSAGE, message, NOW_MS);
  assert.deepEqual(new Sent(rows).get(MESSAGE, message.accountId, NOW_MS), message);
  sent.keep("e".repeat(32), { ...message, expireMs: NOW_MS + 120_000 }, NOW_MS + 60_000);
  assert.equal(rows.count("sent"), 1);
  for (let n = 0; n < 1_010; n += 1) {
    sent.keep(n.toString(16).padStart(32, "0"), { ...message, expireMs: NOW_MS + 120_000 }, NOW_MS);
  }
  assert.equal(rows.count("sent"), 1_000);
});

async function named(a: Party, b: Party): Promise<Envelope> {
  const envelope = await say(a, b, "x");
  envelope.messageId = unhex(MESSAGE);
  return envelope;
}
