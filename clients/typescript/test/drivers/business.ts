/**
 * A business's backend for tests, told what to do by lines (lines.ts).
 *
 *     node business.js GATEWAY CA TOKEN NUMBER
 *
 *     {"op": "send", "to", "text", "key"}      -> {"messageId", "userId", "repeated"}
 *     {"op": "sendMany", "to", "prefix", "count", "window"} -> {"accepted"}, after a
 *         {"event": "result", "key", "messageId" or "error"} for each
 *     {"op": "receive"}                        -> {}; from now on events come, acked after their line
 *     {"op": "message", "messageId"}           -> {"status"}
 *     {"op": "safetyNumber", "user"}           -> {"digits", "unconfirmed"}
 *     {"op": "confirm", "user", "digits" or "scanned"} -> {"userId", "released"}
 *     {"op": "close"}                          -> {}
 *
 * Events: message, status, identity_change, undecryptable, and {"event": "ended", "error"}.
 */

import { BusinessClient, type OutgoingMessage, statusName } from "../../src/business/index.js";
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

async function tellEvents(): Promise<void> {
  try {
    for await (const event of business.receive()) {
      const { kind, text, message, status, statusName } = event;
      const userId = message?.userId ?? status?.userId;
      const messageId = message?.messageId ?? status?.messageId;
      await print({ event: kind, userId, messageId, text, status: statusName });
      event.ack();
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
  async receive() {
    void tellEvents();
    return undefined;
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
