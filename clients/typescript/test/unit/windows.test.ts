import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { newIdempotencyKey, toWire } from "../../src/business/outgoing.js";
import { AckWindow } from "../../src/business/receiving.js";
import { MAX_BATCH_BYTES, SendWindow } from "../../src/business/sending.js";
import { InvalidRequest, KeyReused, TooLarge } from "../../src/errors.js";
import { ErrorReason } from "../../src/generated/letterlock/v1/errors_pb.js";
import { SendResultSchema } from "../../src/generated/letterlock/v1/messaging_pb.js";

const message = (key: string, text = key) => toWire({ to: "+15550100101", text }, key);
const keys = (batch: { idempotencyKey: string }[]) => batch.map((one) => one.idempotencyKey);
const accepted = (idempotencyKey: string) =>
  create(SendResultSchema, { idempotencyKey, outcome: { case: "accepted", value: {} } });
const refused = (idempotencyKey: string, reason: ErrorReason) =>
  create(SendResultSchema, { idempotencyKey, outcome: { case: "refused", value: { reason } } });

/** The kind of the next frame, and the ids in it. */
function taken(window: AckWindow): string[] {
  const frame = window.take()?.frame;
  if (frame?.case === undefined || frame.case === "open") return [];
  return [frame.case, ...frame.value.eventIds];
}

test("unanswered messages are written again, in their order, after a lost stream", () => {
  const window = new SendWindow(10);
  for (const key of ["a", "b", "c", "d"]) window.admit(message(key));
  assert.deepEqual(keys(window.take(3)), ["a", "b", "c"]);
  assert.equal(window.answer(accepted("b")), true);
  window.lost();
  assert.deepEqual(keys(window.take(10)), ["a", "c", "d"]);
  assert.deepEqual(window.take(10), []);
});

test("a refusal because of draining keeps the message; every other answer ends it", () => {
  const window = new SendWindow(10);
  window.admit(message("a"));
  window.take(1);
  assert.equal(window.answer(refused("a", ErrorReason.DRAINING)), false);
  assert.equal(window.size, 1);
  assert.equal(window.answer(refused("a", ErrorReason.EXPIRED)), true);
  assert.equal(window.answer(accepted("a")), false);
  assert.equal(window.size, 0);
});

test("a key that waits for an answer is refused", () => {
  const window = new SendWindow(10);
  window.admit(message("a"));
  assert.throws(() => window.admit(message("a")), InvalidRequest);
});

test("batches keep to the contract's bytes", () => {
  const window = new SendWindow(1_000);
  for (let n = 0; n < 100; n += 1) window.admit(message(String(n), "x".repeat(200_000)));
  const first = window.take(256);
  assert.ok(first.length > 1 && first.length * 200_000 <= MAX_BATCH_BYTES);
});

test("events are handed out once, and acked again where the ack may be lost", () => {
  const window = new AckWindow(2, 60);
  const offered = ["a", "a", "b"].map((eventId) => window.offer(eventId, "u", 0));
  assert.deepEqual(offered, [true, false, true]);
  window.ack("a");
  window.ack("a");
  window.ack("unknown");
  assert.deepEqual(taken(window), ["acks", "a"]);
  assert.equal(window.offer("a", "u", 0), false); // given again: its ack was lost with the stream
  assert.deepEqual(taken(window), ["acks", "a"]);
  assert.equal(window.isIdle, false);
  window.ack("b");
  taken(window);
  assert.equal(window.isIdle, true);
});

test("after a lost stream acks still stand, and nothing is said of its leases", () => {
  const window = new AckWindow(2, 60);
  for (const eventId of ["a", "b"]) window.offer(eventId, "u", 0);
  window.ack("a");
  assert.equal(window.nack("b", "u", 1), true);
  assert.equal(window.nack("b", "u", 1), false);
  window.extend("b", 10, 0); // it is not in hand
  window.lost();
  assert.deepEqual(taken(window), ["acks", "a"]);
  assert.equal(window.take(), undefined);
  assert.equal(window.offer("b", "u", 0), true); // a nacked one is handed out again
});

test("what a nack took back is passed over until it is answered", () => {
  const window = new AckWindow(9, 60);
  const offered = (...ids: string[]) => ids.map((eventId) => window.offer(eventId, "u", 0));
  offered("a", "b");
  window.nack("a", "u", 0);
  window.nack("b", "u", 0);
  assert.deepEqual(offered("late"), [false]);
  assert.equal(window.offer("other", "v", 0), true);
  window.answered(["a", "unknown"]);
  assert.deepEqual(offered("a"), [false]);
  window.answered(["b"]);
  assert.deepEqual(offered("a", "b", "late"), [true, true, true]);
});

test("leases of ten thousand events at a time are begun anew, up to the hold", () => {
  const window = new AckWindow(10_001, 60);
  for (let n = 0; n < 10_001; n += 1) window.offer(String(n), "u", 0);
  window.renew(59, 30);
  assert.deepEqual([taken(window).length, taken(window).length, taken(window)], [10_001, 2, []]);
  window.renew(60, 30);
  assert.equal(window.take(), undefined);
});

test("what would break the stream is refused before it leaves", () => {
  const to = "+15550100101";
  for (const [wrong, key, expected] of [
    [{ to }, "k", InvalidRequest],
    [{ to, text: "x", content: {} }, "k", InvalidRequest],
    [{ to, text: "x" }, "", InvalidRequest],
    [{ to, text: "x" }, "k".repeat(65), InvalidRequest],
    [{ to, text: "x", timeToLive: Number.NaN }, "k", InvalidRequest],
    [{ to, text: "x".repeat(300_000) }, "k", TooLarge],
    [{ to, text: "x", callerTag: 7 as unknown as Uint8Array }, "k", InvalidRequest],
  ] as const) {
    assert.throws(
      () => toWire(wrong, key),
      (error: unknown) => error instanceof expected && error.field !== "" && error.limit !== "",
    );
  }
  assert.ok(new KeyReused("x") instanceof InvalidRequest);
  assert.match(newIdempotencyKey(), /^[0-9a-f]{32}$/);
});

test("recipients and times to live go where the contract has them", () => {
  const wire = toWire({ to: "0".repeat(32), text: "x", timeToLive: 1.5 }, "k");
  assert.equal(wire.recipient.case, "userId");
  assert.deepEqual([wire.timeToLive?.seconds, wire.timeToLive?.nanos], [1n, 500_000_000]);
});
