/**
 * Refuses content that the other end would have to drop: the limits of content.proto.
 *
 * Pure. An error names the field and its limit, never what was written.
 */

import { InvalidRequest, TooLarge } from "../errors.js";
import type {
  Content,
  Reaction,
  ReadReceipt,
} from "../generated/letterlock/content/v1/content_pb.js";

const MAX_TEXT_BYTES = 16_384;
/** Message ids in one read receipt. */
export const MAX_RECEIPT_IDS = 100;
const MAX_EMOJI_BYTES = 64;
const MESSAGE_ID_BYTES = 16;

/** Throws InvalidRequest or TooLarge. */
export function checkContent({ kind }: Content): void {
  if (kind.case === undefined) {
    throw new InvalidRequest("nothing to say", { field: "content", limit: "one kind is set" });
  }
  if (kind.case === "text") checkText(kind.value.body);
  else if (kind.case === "readReceipt") checkReceipt(kind.value);
  else if (kind.case === "reaction") checkReaction(kind.value);
}

function checkText(body: string): void {
  const field = "content.text.body";
  if (body === "" || !isWellFormed(body)) {
    const limit = `1 to ${MAX_TEXT_BYTES} bytes of UTF-8`;
    throw new InvalidRequest("unusable text", { field, limit });
  }
  if (Buffer.byteLength(body) > MAX_TEXT_BYTES) {
    const limit = `at most ${MAX_TEXT_BYTES} bytes of UTF-8`;
    throw new TooLarge("text is too long", { field, limit });
  }
}

function checkReceipt({ messageIds }: ReadReceipt): void {
  const rightSize = messageIds.every((id) => id.length === MESSAGE_ID_BYTES);
  if (messageIds.length < 1 || messageIds.length > MAX_RECEIPT_IDS || !rightSize) {
    const limit = `1 to ${MAX_RECEIPT_IDS} ids of ${MESSAGE_ID_BYTES} bytes`;
    const field = "content.read_receipt.message_ids";
    throw new InvalidRequest("unusable read receipt", { field, limit });
  }
}

function checkReaction({ messageId, emoji }: Reaction): void {
  if (messageId.length !== MESSAGE_ID_BYTES) {
    const [limit, field] = [`${MESSAGE_ID_BYTES} bytes`, "content.reaction.message_id"];
    throw new InvalidRequest("reaction to no message", { field, limit });
  }
  const size = Buffer.byteLength(emoji);
  if (size < 1 || size > MAX_EMOJI_BYTES || !isWellFormed(emoji)) {
    const [limit, field] = [`1 to ${MAX_EMOJI_BYTES} bytes of UTF-8`, "content.reaction.emoji"];
    throw new InvalidRequest("unusable emoji", { field, limit });
  }
}

// A lone surrogate has no UTF-8.
function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}
