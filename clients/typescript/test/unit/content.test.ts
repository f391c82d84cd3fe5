import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { checkContent } from "../../src/content/checks.js";
import { pad } from "../../src/content/padding.js";
import { InvalidRequest, TooLarge } from "../../src/errors.js";
import {
  ContentSchema,
  PayloadSchema,
} from "../../src/generated/letterlock/content/v1/content_pb.js";

function payload(size: number) {
  return create(PayloadSchema, {
    messageId: new Uint8Array(16).fill(1),
    content: { kind: { case: "text", value: { body: "x".repeat(size) } } },
  });
}

test("payloads of every size are padded to a step, and say the same as before", () => {
  for (let size = 0; size < 3_400; size += 1) {
    const bytes = pad(payload(size));
    assert.equal(bytes.length % (bytes.length <= 1_600 ? 160 : 1_600), 0, String(size));
    const { content, padding } = fromBinary(PayloadSchema, bytes);
    assert.deepEqual(content, payload(size).content);
    assert.ok(padding.every((byte) => byte === 0));
  }
});

test("a payload that no padding field can fill up goes to the step after", () => {
  const sizes = Array.from({ length: 160 }, (_, size) => pad(payload(size)).length);
  assert.equal(sizes.filter((size) => size === 320).length > 0, true);
  assert.deepEqual([...new Set(sizes)], [160, 320]);
});

test("padding that is there already is dropped", () => {
  const padded = create(PayloadSchema, { ...payload(1), padding: new Uint8Array(500) });
  assert.deepEqual(pad(padded), pad(payload(1)));
});

test("what the other end would drop is refused with field and limit", () => {
  const id = new Uint8Array(16);
  const wrong: [MessageInitShape<typeof ContentSchema>, typeof InvalidRequest, string][] = [
    [{}, InvalidRequest, "content"],
    [{ kind: { case: "text", value: { body: "" } } }, InvalidRequest, "content.text.body"],
    [{ kind: { case: "text", value: { body: "\ud800" } } }, InvalidRequest, "content.text.body"],
    [{ kind: { case: "text", value: { body: "é".repeat(8_193) } } }, TooLarge, "content.text.body"],
    [
      { kind: { case: "readReceipt", value: { messageIds: [] } } },
      InvalidRequest,
      "content.read_receipt.message_ids",
    ],
    [
      { kind: { case: "readReceipt", value: { messageIds: Array(101).fill(id) } } },
      InvalidRequest,
      "content.read_receipt.message_ids",
    ],
    [
      { kind: { case: "reaction", value: { messageId: id.slice(1), emoji: "x" } } },
      InvalidRequest,
      "content.reaction.message_id",
    ],
    [
      { kind: { case: "reaction", value: { messageId: id, emoji: "" } } },
      InvalidRequest,
      "content.reaction.emoji",
    ],
    [
      { kind: { case: "reaction", value: { messageId: id, emoji: "x".repeat(65) } } },
      InvalidRequest,
      "content.reaction.emoji",
    ],
  ];
  for (const [content, expected, field] of wrong) {
    assert.throws(
      () => checkContent(create(ContentSchema, content)),
      (error: unknown) =>
        error instanceof expected && error.field === field && error.limit.length > 0,
    );
  }
  checkContent(create(ContentSchema, { kind: { case: "text", value: { body: "😀" } } }));
  checkContent(create(ContentSchema, { kind: { case: "typing", value: {} } }));
});
