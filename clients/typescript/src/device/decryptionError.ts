/**
 * Decryption-error messages, which one device sends another about a message it could not decrypt.
 *
 *     body of an envelope of type 8: c0 | letterlock.content.v1.Unencrypted | 80
 *
 * They are not encrypted, so what they say is a claim. Pure.
 */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { DecryptionErrorMessage, LibSignalErrorBase } from "@signalapp/libsignal-client";
import { UnencryptedSchema } from "../generated/letterlock/content/v1/content_pb.js";
import type { Envelope } from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { dateOf, hex, owned } from "../wire.js";

/** Type of an envelope that is not encrypted. */
export const PLAINTEXT = 8;

/** How often a message is sent again to one device. */
export const MAX_ATTEMPTS = 3;

const BEGIN = 0xc0;
const END = 0x80;
const ID_BYTES = 16;

/** A device says that it could not decrypt a message, sent again `attempt` times. */
export interface Report {
  readonly accountId: string;
  readonly deviceId: number;
  readonly messageId: string;
  readonly attempt: number;
  /** The sender's ratchet key that the message was under, where it could be told. */
  readonly ratchetKey: Uint8Array<ArrayBuffer> | undefined;
}

/** What to tell the sender of an envelope that does not open. */
export function reportOn(envelope: Envelope): Uint8Array {
  const said = create(UnencryptedSchema, {
    decryptionError: decryptionError(envelope),
    messageId: failedMessageId(envelope),
    attempt: envelope.resend?.attempt ?? 0,
  });
  return Buffer.concat([Buffer.of(BEGIN), toBinary(UnencryptedSchema, said), Buffer.of(END)]);
}

/** The message that an envelope brings, as it was named when it was first submitted. */
export function failedMessageId(envelope: Envelope): Uint8Array {
  return envelope.resend?.messageId ?? envelope.messageId;
}

/** What an envelope of type 8 says; undefined when it breaks the contract. */
export function readReport(envelope: Envelope): Report | undefined {
  try {
    const said = fromBinary(UnencryptedSchema, contentOf(envelope.body));
    const error = DecryptionErrorMessage.deserialize(owned(said.decryptionError));
    if (said.messageId.length !== ID_BYTES || said.attempt > MAX_ATTEMPTS) return undefined;
    return {
      accountId: hex(envelope.senderAccountId),
      deviceId: envelope.senderDeviceId,
      messageId: hex(said.messageId),
      attempt: said.attempt,
      ratchetKey: error.ratchetKey()?.serialize(),
    };
  } catch {
    return undefined; // malformed, at whichever layer
  }
}

function decryptionError({ type, body, acceptTime, senderDeviceId }: Envelope): Uint8Array {
  const time = Math.max(0, dateOf(acceptTime).getTime());
  try {
    return DecryptionErrorMessage.forOriginal(owned(body), type, time, senderDeviceId).serialize();
  } catch (error) {
    if (!(error instanceof LibSignalErrorBase)) throw error;
    // Too damaged to tell its ratchet key: the message without field 1, as libsignal reads it.
    return new BinaryWriter().uint32(16).uint64(time).uint32(24).uint32(senderDeviceId).finish();
  }
}

// The end marker may be followed by zero bytes, as padding.
function contentOf(body: Uint8Array): Uint8Array {
  const end = body.findLastIndex((byte) => byte !== 0);
  if (body[0] !== BEGIN || end < 1 || body[end] !== END) throw new RangeError("no markers");
  return body.subarray(1, end);
}
