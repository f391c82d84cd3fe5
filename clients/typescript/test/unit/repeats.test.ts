import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pad } from "../../src/content/padding.js";
import { Healing } from "../../src/device/healing.js";
import { Inbox } from "../../src/device/inbox.js";
import { Outbox } from "../../src/device/outbox.js";
import { Rows } from "../../src/device/rows.js";
import { Sent } from "../../src/device/sent.js";
import { PayloadSchema } from "../../src/generated/letterlock/content/v1/content_pb.js";
import { type Envelope, ItemSchema } from "../../src/generated/letterlock/relay/v1/mailbox_pb.js";
import { unhex } from "../../src/wire.js";
import { ana, ben, NOW, type Party } from "./party.js";

const MESSAGE_ID = unhex("c".repeat(32));

function inboxOf(party: Party, rows: Rows): Inbox {
  const sent = new Sent(rows);
  const healing = new Healing(party.sessions, new Outbox(rows), sent);
  return new Inbox(party.sessions, sent, healing, rows, () => {});
}

/** The same message under a ciphertext of its own: its sender saw no answer. */
async function said(from: Party, to: Party): Promise<Envelope> {
  const content = { kind: { case: "text" as const, value: { body: "once" } } };
  const payload = pad(create(PayloadSchema, { messageId: MESSAGE_ID, content }));
  return from.sent(await from.sessions.encrypt(to.accountId, 1, payload, NOW));
}

test("a message under a known id is given once, also after a restart", async () => {
  const [a, b] = [ana(), ben()];
  await a.sessions.start(b.bundles(), NOW);
  const stored = new Map<string, Uint8Array<ArrayBuffer>>();
  const taken = async (inbox: Inbox) => {
    const kind = { case: "envelope" as const, value: await said(a, b) };
    return (await inbox.takeIn(create(ItemSchema, { kind }), NOW.getTime())).events;
  };
  const rows = new Rows(stored);
  const inbox = inboxOf(b, rows);
  assert.equal((await taken(inbox)).length, 1);
  assert.deepEqual(await taken(inbox), []);
  for (const [id, row] of rows.all("seen")) stored.set(`seen/${id}`, row);
  assert.deepEqual(await taken(inboxOf(b, new Rows(stored))), []);
});
