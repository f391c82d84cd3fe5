import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Event } from "../../src/business/events.js";
import { ReceiveStream } from "../../src/business/receiveStream.js";
import { type Messages, SendStream } from "../../src/business/sendStream.js";
import { InvalidRequest, Replaced, Unauthenticated, Unavailable } from "../../src/errors.js";
import {
  ReceiveOpenSchema,
  type ReceiveRequest,
  type ReceiveResponse,
  ReceiveResponseSchema,
  type SendRequest,
  type SendResponse,
  SendResponseSchema,
} from "../../src/generated/letterlock/v1/messaging_pb.js";
import { Backoff } from "../../src/retry.js";
import { type FakeStream, FakeStreams, noSleep } from "./fakes.js";

const to = "+15550100101";
const backoff = () => new Backoff({}, () => 0);

function sending(messages: Messages, window = 10) {
  const streams = new FakeStreams<SendRequest, SendResponse>();
  const options = { open: streams.open, number: to, window, backoff: backoff(), sleep: noSleep };
  return { streams, sent: new SendStream(messages, options) };
}

function receiving(clock = () => 0) {
  const streams = new FakeStreams<ReceiveRequest, ReceiveResponse>();
  const opening = create(ReceiveOpenSchema, { businessNumber: to, window: 10, consumer: "me" });
  const waits = { hold: 60, clock, backoff: backoff(), sleep: noSleep };
  return { streams, events: new ReceiveStream({ open: streams.open, opening, ...waits }) };
}

const send = (frame: MessageInitShape<typeof SendResponseSchema>["frame"]) =>
  create(SendResponseSchema, { frame: frame ?? { case: undefined } });
const receive = (frame: MessageInitShape<typeof ReceiveResponseSchema>["frame"]) =>
  create(ReceiveResponseSchema, { frame: frame ?? { case: undefined } });
const sendOpened = (maxUnanswered = 0) => send({ case: "opened", value: { maxUnanswered } });
const receiveOpened = receive({ case: "opened", value: {} });
const leased = receive({ case: "opened", value: { lease: { seconds: 30n } } });
const accepted = (...keys: string[]) => {
  const outcome = { case: "accepted", value: {} } as const;
  const results = keys.map((idempotencyKey) => ({ idempotencyKey, outcome }));
  return send({ case: "results", value: { results } });
};
const events = (...ids: string[]) =>
  receive({ case: "events", value: { events: ids.map((eventId) => ({ eventId })) } });
const told = (...ids: string[]) => {
  const about = (eventId: string) =>
    ({ case: "status", value: { userId: eventId.slice(0, 1) } }) as const;
  const list = ids.map((eventId) => ({ eventId, attempt: 1, kind: about(eventId) }));
  return receive({ case: "events", value: { events: list } });
};

function keysOf(frames: readonly SendRequest[]): string[] {
  return frames.flatMap(({ frame }) =>
    frame.case === "batch" ? frame.value.messages.map((one) => one.idempotencyKey) : [],
  );
}

function named(frames: readonly ReceiveRequest[], kind: "nacks" | "extensions"): string[] {
  return frames.flatMap(({ frame }) => (frame.case === kind ? frame.value.eventIds : []));
}

function acksOf(frames: readonly ReceiveRequest[]): string[] {
  return frames.flatMap(({ frame }) => (frame.case === "acks" ? frame.value.eventIds : []));
}

function* numbered(count: number) {
  for (let n = 0; n < count; n += 1) yield { to, text: "x", idempotencyKey: String(n) };
}

test("what a lost stream left unanswered is sent again on the next one", async () => {
  const { streams, sent } = sending(numbered(3));
  const all = collect(sent);
  const first = await streams.nth(0);
  first.give(sendOpened());
  await first.until(() => keysOf(first.written).length === 3);
  first.give(accepted("1"));
  first.fail(new Unavailable("cut"));
  const second = await streams.nth(1);
  second.give(sendOpened());
  await second.until(() => keysOf(second.written).length === 2);
  assert.deepEqual(keysOf(second.written), ["0", "2"]);
  second.give(accepted("0", "2"));
  await second.until(() => second.ended);
  second.done();
  assert.deepEqual(
    (await all).map((result) => result.idempotencyKey),
    ["1", "0", "2"],
  );
});

test("never more than the gateway's own bound is unanswered", async () => {
  const { streams, sent } = sending(numbered(5));
  const all = collect(sent);
  const stream = await streams.nth(0);
  stream.give(sendOpened(2));
  // The first batch may have been admitted before the bound was known; what follows keeps to it.
  for (let answered = 0; answered < 5; answered += 1) {
    await stream.until(() => keysOf(stream.written).length > answered);
    stream.give(accepted(String(answered)));
  }
  await stream.until(() => stream.ended);
  stream.done();
  assert.equal((await all).length, 5);
});

test("a caller that takes no results stops the sending", async () => {
  let asked = 0;
  function* counted() {
    for (const message of numbered(100)) {
      asked += 1;
      yield message;
    }
  }
  const { streams, sent } = sending(counted(), 4);
  const first = sent.next();
  const stream = await streams.nth(0);
  stream.give(sendOpened());
  await stream.until(() => keysOf(stream.written).length === 4);
  stream.give(accepted("0", "1", "2", "3"));
  await first;
  await stream.until(() => keysOf(stream.written).length === 5);
  assert.deepEqual([keysOf(stream.written).length, asked], [5, 6]);
  await sent.close();
  assert.equal(stream.cancelled, true);
});

test("a draining gateway gets nothing more, and the rest goes to the next stream", async () => {
  const { streams, sent } = sending(numbered(1));
  const all = collect(sent);
  const first = await streams.nth(0);
  first.give(sendOpened());
  await first.until(() => keysOf(first.written).length === 1);
  first.give(send({ case: "draining", value: {} }));
  await first.until(() => first.ended);
  first.done();
  const second = await streams.nth(1);
  second.give(sendOpened());
  await second.until(() => keysOf(second.written).length === 1);
  second.give(accepted("0"));
  await second.until(() => second.ended);
  second.done();
  assert.equal((await all).length, 1);
});

test("an error that no repeat can mend ends the sending; so does the caller's own", async () => {
  const { streams, sent } = sending(numbered(1));
  const all = collect(sent);
  (await streams.nth(0)).fail(new Unauthenticated("no"));
  await assert.rejects(all, Unauthenticated);

  async function* broken() {
    yield { to, text: "x", idempotencyKey: "0" };
    throw new RangeError("the caller's");
  }
  const other = sending(broken());
  const results = collect(other.sent);
  const stream = await other.streams.nth(0);
  stream.give(sendOpened());
  await stream.until(() => keysOf(stream.written).length === 1);
  stream.give(accepted("0"));
  await stream.until(() => stream.ended);
  stream.done();
  await assert.rejects(results, RangeError);
});

test("a message that cannot be sent is a result, and the others go on", async () => {
  const { streams, sent } = sending([{ to }, { to, text: "x", idempotencyKey: "1" }]);
  const all = collect(sent);
  const stream = await streams.nth(0);
  stream.give(sendOpened());
  await stream.until(() => keysOf(stream.written).length === 1);
  stream.give(accepted("1"));
  await stream.until(() => stream.ended);
  stream.done();
  const [refused, good] = await all;
  assert.deepEqual([refused?.error?.field, good?.idempotencyKey], ["content", "1"]);
});

test("events are handed out once over lost streams, and their acks reach the gateway", async () => {
  const { streams, events: got } = receiving();
  const next = got.next();
  const first = await streams.nth(0);
  first.give(receiveOpened);
  first.give(events("a", "b"));
  (await next).value?.ack();
  await first.until(() => acksOf(first.written).length === 1);
  first.fail(new Unavailable("cut"));
  const second = await streams.nth(1);
  second.give(receiveOpened);
  second.give(events("a", "b", "c"));
  await second.until(() => acksOf(second.written).length === 1);
  assert.deepEqual(acksOf(second.written), ["a"]); // it may not have been taken
  assert.deepEqual(
    [(await got.next()).value?.eventId, (await got.next()).value?.eventId],
    ["b", "c"],
  );
  await ended(got, second);
  assert.equal((await got.next()).done, true);
});

test("leaving the loop writes the last acks before it goes on", async () => {
  const { streams, events: got } = receiving();
  const loop = (async () => {
    for await (const event of got) {
      event.ack();
      break;
    }
  })();
  const stream = await streams.nth(0);
  stream.give(receiveOpened);
  stream.give(events("a"));
  await stream.until(() => stream.ended);
  assert.deepEqual(acksOf(stream.written), ["a"]);
  stream.done();
  await loop;
});

test("a draining gateway is left when nothing is in hand; Replaced is not fought", async () => {
  const { streams, events: got } = receiving();
  const next = got.next();
  const first = await streams.nth(0);
  first.give(receiveOpened);
  first.give(receive({ case: "draining", value: {} }));
  await first.until(() => first.ended);
  first.done();
  (await streams.nth(1)).fail(new Replaced("newer"));
  await assert.rejects(next, Replaced);
});

test("a nacked event comes again before those behind it; others go on", async () => {
  const { streams, events: got } = receiving();
  const next = got.next();
  const stream = await streams.nth(0);
  stream.give(receiveOpened);
  stream.give(told("a1", "b1", "a2"));
  const first = (await next).value as Event;
  assert.deepEqual([first.eventId, first.userId, first.attempt], ["a1", "a", 1]);
  first.nack({ delay: 2.5 });
  first.nack(); // once is enough
  await stream.until(() => named(stream.written, "nacks").length > 0);
  assert.equal((await got.next()).value?.eventId, "b1");
  stream.give(told("a3", "b2")); // on its way when the nack was carried out
  stream.give(receive({ case: "nacked", value: { eventIds: ["a1"] } }));
  stream.give(told("a1", "a2", "a3"));
  const then = [];
  for (let n = 0; n < 4; n += 1) then.push((await got.next()).value?.eventId);
  assert.deepEqual(then, ["b2", "a1", "a2", "a3"]);
  assert.deepEqual(named(stream.written, "nacks"), ["a1"]);
  const { frame } = stream.written.at(-1) as ReceiveRequest;
  assert.deepEqual(
    frame.case === "nacks" && [frame.value.delay?.seconds, frame.value.delay?.nanos],
    [2n, 500_000_000],
  );
  for (const [bad, field] of [
    [() => first.nack({ delay: -1 }), "delay"],
    [() => first.nack({ delay: Number.NaN }), "delay"],
    [() => first.extend(0.5), "seconds"],
    [() => first.extend(601), "seconds"],
  ] as const) {
    assert.throws(
      bad,
      (error) => error instanceof InvalidRequest && error.field === field && !!error.limit,
    );
  }
  await ended(got, stream);
});

test("leases renew themselves while an event is held, not longer, and not into the next stream", async () => {
  let now = 0;
  mock.timers.enable({ apis: ["setInterval"] });
  const pass = (seconds: number) => {
    now += seconds;
    mock.timers.tick(seconds * 1000);
  };
  try {
    const { streams, events: got } = receiving(() => now);
    const next = got.next();
    const first = await streams.nth(0);
    first.give(leased);
    first.give(events("a", "b", "c"));
    (await next).value?.extend(50);
    (await got.next()).value?.ack();
    await got.next();
    await first.until(() => named(first.written, "extensions").length === 1);
    pass(10);
    await first.until(() => named(first.written, "extensions").length === 2);
    assert.deepEqual(named(first.written, "extensions"), ["a", "c"]); // "a" has its own, longer one
    pass(50);
    first.give(events("d")); // a minute in hand is enough for "a" and "c"
    await got.next();
    pass(10);
    await first.until(() => named(first.written, "extensions").length === 3);
    assert.deepEqual(named(first.written, "extensions"), ["a", "c", "d"]);
    first.fail(new Unavailable("cut"));
    const second = await streams.nth(1);
    second.give(leased);
    await second.until(() => second.written.length === 1);
    const { frame } = second.written[0] as ReceiveRequest;
    assert.equal(frame.case === "open" && frame.value.consumer, "me");
    await ended(got, second);
  } finally {
    mock.timers.reset();
  }
});

test("what waited can be taken up to its end", async () => {
  const { streams, events: got } = receiving();
  const all = collect(got.untilCaughtUp());
  const stream = await streams.nth(0);
  stream.give(receiveOpened);
  stream.give(events("a", "b"));
  stream.give(receive({ case: "caughtUp", value: {} }));
  assert.equal((await all).length, 2);
  await ended(got, stream);
});

/** Close a stream of events whose gateway then ends it. */
async function ended(
  got: ReceiveStream,
  stream: FakeStream<ReceiveRequest, ReceiveResponse>,
): Promise<void> {
  const closed = got.close();
  await stream.until(() => stream.ended);
  stream.done();
  await closed;
}

async function collect<T>(from: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of from) all.push(one);
  return all;
}
