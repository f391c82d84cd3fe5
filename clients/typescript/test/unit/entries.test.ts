import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { inspect } from "node:util";
import { create } from "@bufbuild/protobuf";
import { BusinessClient, Event, InvalidRequest } from "../../src/business/index.js";
import { DeviceLink, IncomingMessage } from "../../src/device/index.js";
import { PayloadSchema } from "../../src/generated/letterlock/content/v1/content_pb.js";
import {
  EventSchema,
  UndecryptableMessage_Reason,
} from "../../src/generated/letterlock/v1/messaging_pb.js";
import { nobody } from "./fakes.js";

test("the business entry works where libsignal is not installed", () => {
  const loader = `export async function resolve(name, context, next) {
    if (name.startsWith("@signalapp/")) throw new Error("libsignal was imported");
    return next(name, context);
  }`;
  const load = (entry: string) =>
    execFileSync(
      process.execPath,
      [
        "--input-type=module",
        "--eval",
        `import { register } from "node:module";
         register("data:text/javascript," + encodeURIComponent(${JSON.stringify(loader)}));
         await import(${JSON.stringify(entry)});`,
      ],
      { cwd: new URL("../../..", import.meta.url), stdio: "pipe" },
    );
  load("@letterlock/client/business");
  assert.throws(() => load("@letterlock/client/device"), /libsignal was imported/);
});

test("a client refuses what it cannot use, by field and limit", () => {
  const options = { token: "t", number: "+15550100100" };
  const open = (more: object) => new BusinessClient("localhost:1", { ...options, ...more });
  const receive = (more: object) => open({ insecure: true }).receive(more);
  for (const [make, field] of [
    [() => open({ token: "" }), "token"],
    [() => open({ token: "two\nlines" }), "token"],
    [() => open({ ca: "/missing.pem" }), "ca"],
    [() => open({ ca: "x", insecure: true }), "insecure"],
    [() => receive({ window: 0 }), "window"],
    [() => receive({ windowBytes: 0.5 }), "window_bytes"],
    [() => receive({ lease: Number.POSITIVE_INFINITY }), "lease"],
    [() => receive({ hold: Number.NaN }), "hold"],
    [() => open({ insecure: true }).sendMany([], { window: 10_001 }), "window"],
  ] as const) {
    assert.throws(
      make,
      (error: unknown) => error instanceof InvalidRequest && error.field === field && !!error.limit,
    );
  }
});

test("a link is read back, and shows nothing of itself", () => {
  const link = new DeviceLink("token", "+15550100101", new Uint8Array(32).fill(9));
  const text = link.toText();
  // As clients/python/letterlock/device/link.py makes it.
  assert.equal(text, "AQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJKzE1NTUwMTAwMTAxCnRva2Vu");
  const read = DeviceLink.fromText(text);
  assert.deepEqual([read.token, read.phoneNumber], ["token", "+15550100101"]);
  assert.deepEqual(read.identityPrivate, link.identityPrivate);
  assert.equal(inspect(link), "DeviceLink {}");
  for (const wrong of ["", "x", text.slice(0, 20), `B${text.slice(1)}`]) {
    assert.throws(() => DeviceLink.fromText(wrong), InvalidRequest);
  }
});

test("content and numbers stay out of what console.log shows", () => {
  const content = { kind: { case: "text", value: { body: "secret" } } } as const;
  const message = { content, phoneNumber: "+15550100101" };
  const wire = create(EventSchema, { eventId: "1", kind: { case: "message", value: message } });
  const event = new Event(wire, nobody);
  const payload = create(PayloadSchema, { content });
  const incoming = new IncomingMessage("a".repeat(32), 1, 1, payload, () => undefined);
  assert.deepEqual([event.text, event.kind, incoming.text], ["secret", "message", "secret"]);
  const shown = inspect(
    [
      event,
      incoming,
      new BusinessClient("x:1", { token: "secret", number: "+15550100101", insecure: true }),
    ],
    {
      depth: 9,
      showHidden: true,
    },
  );
  assert.doesNotMatch(shown, /secret|15550100101/);
});

test("kinds of events are the contract's words", () => {
  const kindOf = (kind: "identityChange" | "undecryptable" | "status") =>
    new Event(create(EventSchema, { kind: { case: kind, value: {} } }), nobody).kind;
  assert.deepEqual(
    [kindOf("identityChange"), kindOf("undecryptable"), kindOf("status")],
    ["identity_change", "undecryptable", "status"],
  );
  const unknown = new Event(create(EventSchema, {}), nobody);
  assert.deepEqual([unknown.kind, unknown.userId], ["", ""]);
  const value = { reason: UndecryptableMessage_Reason.NOT_RESENT };
  const lost = create(EventSchema, { kind: { case: "undecryptable", value } });
  assert.equal(new Event(lost, nobody).undecryptableReason, "NOT_RESENT");
});
