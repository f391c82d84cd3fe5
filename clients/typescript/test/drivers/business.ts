/**
 * A business's backend for tests, told what to do by lines (lines.ts).
 *
 *     node business.js GATEWAY CA TOKEN NUMBER
 *
 *     {"op": "send", "to", "text", "key"}      -> {"messageId", "userId", "repeated"}
 *     {"op": "sendMany", "to", "prefix", "count", "window"} -> {"accepted"}, after a
 *         {"event": "result", "key", "messageId" or "error"} for each
 *     {"op": "receive", "hold"?, "lease"?, "consumer"?} -> {}; from now on events come, acked after
 *         their line; with "hold", messages stay in hand
 *     {"op": "ack"} {"op": "nack"}             -> {}: the oldest message in hand
 *     {"op": "deadLetters"}                    -> {"letters": [{"eventId", "attempts", "lastFailure"}]}
 *     {"op": "deadLetter", "eventId"}          -> {"text"}
 *     {"op": "replayDeadLetter", "eventId"} {"op": "dropDeadLetter", "eventId"} -> {"count"}
 *     {"op": "replay", "eventId"}              -> {"count"}
 *     {"op": "policy", "maxAttempts", "keep"}  -> {"maxAttempts", "keep"}, as they are then
 *     {"op": "message", "messageId"}           -> {"status"}
 *     {"op": "safetyNumber", "user"}           -> {"digits", "unconfirmed"}
 *     {"op": "confirm", "user", "digits" or "scanned"} -> {"userId", "released"}
 *     {"op": "close"}                          -> {}
 *
 * Events: message, status, identity_change, undecryptable, and {"event": "ended", "error"}.
 */

import {
  AttemptFailure,
  BusinessClient,
  type Event,
  type OutgoingMessage,
  type ReceiveOptions,
  statusName,
} from "../../src/business/index.js";
import { describe, print, serve } from "./lines.js";

const [gateway = "", ca = "", token = "", number = ""] = process.argv.slice(2);
const business = new BusinessClient(gateway, {
  ca,
  token,
  number,
  deadline: 30,
  retry: { first: 0.05, most: 0.5 },
});

function* messages(to: string, prefix: string, count: number): Generator<OutgoingMessage> {
  for (let n = 0; n < count; n += 1) yield { to, text: `${prefix} ${n}` };
}

const inHand: Event[] = [];

function oldestInHand(): Event {
  const event = inHand.shift();
  if (event === undefined) throw new RangeError("nothing in hand");
  return event;
}

async function tellEvents(options: ReceiveOptions, holding: boolean): Promise<void> {
  try {
    for await (const event of business.receive(options)) {
      const { eventId, kind, attempt, userId, text, message, status, statusName } = event;
      const messageId = message?.messageId ?? status?.messageId;
      const held = holding && message !== undefined;
      if (held) inHand.push(event);
      await print({ event: kind, eventId, attempt, userId, messageId, text, status: statusName });
      if (!held) event.ack();
    }
  } catch (error) {
    await print({ event: "ended", error: describe(error) });
  }
}

await serve({
  async send({ to = "", text = "", key }) {
    const sent = await business.send({ to, text, idempotencyKey: key });
    return { messageId: sent.messageId, userId: sent.userId, repeated: sent.repeated };
  },
  async sendMany({ to = "", prefix = "", count, window }) {
    let accepted = 0;
    const options = window === undefined ? {} : { window: Number(window) };
    for await (const result of business.sendMany(messages(to, prefix, Number(count)), options)) {
      const { idempotencyKey: key, error } = result;
      accepted += result.accepted === undefined ? 0 : 1;
      const messageId = result.accepted?.messageId;
      await print({ event: "result", key, messageId, error: error && describe(error) });
    }
    return { accepted };
  },
  async receive({ hold, lease, consumer }) {
    const leased = lease === undefined ? {} : { lease: Number(lease) };
    void tellEvents({ ...leased, ...(consumer === undefined ? {} : { consumer }) }, !!hold);
    return undefined;
  },
  async ack() {
    oldestInHand().ack();
    return undefined;
  },
  async nack() {
    oldestInHand().nack();
    return undefined;
  },
  async deadLetters() {
    const letters = [];
    for await (const { eventId, attempts, lastFailure } of business.inbox.deadLetters()) {
      letters.push({ eventId, attempts, lastFailure: AttemptFailure[lastFailure] });
    }
    return { letters };
  },
  async deadLetter({ eventId = "" }) {
    const kind = (await business.inbox.deadLetter(eventId)).event?.kind;
    const said = kind?.case === "message" ? kind.value.content?.kind : undefined;
    return { text: said?.case === "text" ? said.value.body : undefined };
  },
  async replayDeadLetter({ eventId = "" }) {
    return { count: await business.inbox.replayDeadLetters([eventId]) };
  },
  async dropDeadLetter({ eventId = "" }) {
    return { count: await business.inbox.dropDeadLetters([eventId]) };
  },
  async replay({ eventId = "" }) {
    return { count: await business.inbox.replay({ eventId }) };
  },
  async policy({ maxAttempts, keep }) {
    const wanted = { maxAttempts: Number(maxAttempts), keepAcknowledged: Number(keep) };
    await business.inbox.setPolicy(wanted);
    const set = await business.inbox.policy();
    return { maxAttempts: set.maxAttempts, keep: Number(set.keepAcknowledged?.seconds ?? 0n) };
  },
  async message({ messageId = "" }) {
    const { status } = await business.message({ messageId });
    return { status: statusName(status) };
  },
  async safetyNumber({ user = "" }) {
    const { digits, unconfirmed } = await business.safetyNumber(user);
    return { digits, unconfirmed };
  },
  async confirm({ user = "", digits, scanned = "" }) {
    const checked = digits === undefined ? { scanned: Buffer.from(scanned, "hex") } : { digits };
    const { userId, released } = await business.confirmIdentity(user, checked);
    return { userId, released };
  },
  async close() {
    await business.close();
    return undefined;
  },
});
