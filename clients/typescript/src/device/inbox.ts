/**
 * From the relay's items to a device's events, and the messages its application has not acked.
 *
 * Works on rows; nothing may be acknowledged or handed out before they are committed. One bad item
 * becomes an event and leaves the others alone. Knows no network.
 */

import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Payload, PayloadSchema } from "../generated/letterlock/content/v1/content_pb.js";
import {
  type Envelope,
  type Item,
  Receipt_KindSchema,
  type Receipt as WireReceipt,
} from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { enumName, hex, unhex } from "../wire.js";
import {
  failedMessageId,
  MAX_ATTEMPTS,
  PLAINTEXT,
  type Report,
  readReport,
} from "./decryptionError.js";
import {
  type DeviceEvent,
  IdentityChanged,
  IncomingMessage,
  Receipt,
  Undecryptable,
} from "./events.js";
import type { Healing } from "./healing.js";
import type { Waiting } from "./outbox.js";
import { RatchetFault } from "./ratchetFault.js";
import type { Rows } from "./rows.js";
import type { Sent } from "./sent.js";
import type { Opened, Sessions } from "./sessions.js";

/**
 * Ids of inbound messages remembered. The ratchet and the relay drop repeats as well; this list
 * catches a message that was encrypted a second time because its sender saw no answer.
 */
const MAX_SEEN = 4_096;

/**
 * What came of an item: `events` for the application, a `complaint` that goes to the sender of what
 * could not be decrypted, a `report` that this device is to act on.
 */
export interface TakenIn {
  readonly events: readonly DeviceEvent[];
  readonly complaint?: Waiting;
  readonly report?: Report;
}

/** Inbound messages of one device. */
export class Inbox {
  readonly #sessions: Sessions;
  readonly #rows: Rows;
  readonly #sent: Sent;
  readonly #healing: Healing;
  readonly #onAck: (message: IncomingMessage) => void;
  /** Messages of an earlier process that were not acked. */
  readonly unacknowledged: readonly IncomingMessage[];
  #sequence: number;

  constructor(
    sessions: Sessions,
    sent: Sent,
    healing: Healing,
    rows: Rows,
    onAck: (message: IncomingMessage) => void,
  ) {
    this.#sessions = sessions;
    this.#sent = sent;
    this.#healing = healing;
    this.#rows = rows;
    this.#onAck = onAck;
    this.unacknowledged = rows
      .all("in")
      .map(([key, row]) => this.#fromRow(Number(key), row))
      .sort((a, b) => a.sequence - b.sequence);
    this.#sequence = this.unacknowledged.at(-1)?.sequence ?? 0;
  }

  /** What one item of the mailbox is; never throws for a bad one. */
  async takeIn({ kind }: Item, nowMs: number): Promise<TakenIn> {
    if (kind.case === "receipts") {
      return { events: kind.value.receipts.map((receipt) => this.#receipt(receipt)) };
    }
    if (kind.case !== "envelope") return { events: [] };
    const envelope = kind.value;
    if (envelope.type === PLAINTEXT) {
      const report = readReport(envelope);
      return report === undefined ? { events: [] } : { events: [], report };
    }
    try {
      return { events: this.#opened(envelope, await this.#sessions.decrypt(envelope)) };
    } catch (error) {
      if (!(error instanceof RatchetFault)) throw error;
      return this.#failed(envelope, error.reason, nowMs);
    }
  }

  /** The application is done with a message. */
  acknowledge(message: IncomingMessage): void {
    this.#rows.delete("in", String(message.sequence));
  }

  #opened(envelope: Envelope, { identityChanged, plaintext }: Opened): DeviceEvent[] {
    const message = this.#message(envelope, plaintext);
    const changed = identityChanged ? [new IdentityChanged(hex(envelope.senderAccountId))] : [];
    return message === undefined ? changed : [...changed, message];
  }

  #failed(envelope: Envelope, reason: string, nowMs: number): TakenIn {
    // A repeat was committed before; its acknowledgement was lost.
    if (reason === "DUPLICATED_MESSAGE") return { events: [] };
    const complaint = this.#healing.complain(envelope, nowMs);
    if (complaint === undefined) return { events: [undecryptable(envelope, reason)] };
    const asked = (envelope.resend?.attempt ?? 0) < MAX_ATTEMPTS;
    return { events: [undecryptable(envelope, reason, asked)], complaint };
  }

  #receipt({ messageId, recipientAccountId, kind }: WireReceipt): Receipt {
    this.#sent.forget(hex(messageId));
    const name = enumName(Receipt_KindSchema, kind);
    return new Receipt(hex(messageId), hex(recipientAccountId), name);
  }

  #message(envelope: Envelope, plaintext: Uint8Array): DeviceEvent | undefined {
    const payload = parse(plaintext);
    if (payload === undefined) return undecryptable(envelope, "MALFORMED");
    const sender = hex(envelope.senderAccountId);
    if (!this.#isNew(`${sender}.${hex(payload.messageId)}`)) return undefined;
    this.#sequence += 1;
    if (payload.content?.kind.case !== "typing") {
      const device = Buffer.of(envelope.senderDeviceId);
      const row = Buffer.concat([unhex(sender), device, toBinary(PayloadSchema, payload)]);
      this.#rows.put("in", String(this.#sequence), row);
    }
    const { senderDeviceId } = envelope;
    return new IncomingMessage(sender, senderDeviceId, this.#sequence, payload, this.#onAck);
  }

  #isNew(id: string): boolean {
    if (this.#rows.get("seen", id)) return false;
    const oldest = this.#rows.oldest("seen");
    if (oldest !== undefined && this.#rows.count("seen") >= MAX_SEEN) {
      this.#rows.delete("seen", oldest);
    }
    this.#rows.put("seen", id, Buffer.of(1));
    return true;
  }

  #fromRow(sequence: number, row: Uint8Array): IncomingMessage {
    const payload = fromBinary(PayloadSchema, row.subarray(17));
    const sender = hex(row.subarray(0, 16));
    return new IncomingMessage(sender, row[16] ?? 0, sequence, payload, this.#onAck);
  }
}

function parse(plaintext: Uint8Array): Payload | undefined {
  try {
    const payload = fromBinary(PayloadSchema, plaintext);
    payload.padding = new Uint8Array();
    return payload.messageId.length === 16 ? payload : undefined;
  } catch {
    return undefined;
  }
}

function undecryptable(envelope: Envelope, reason: string, asked = false): Undecryptable {
  const { senderAccountId, senderDeviceId } = envelope;
  const messageId = hex(failedMessageId(envelope));
  return new Undecryptable(hex(senderAccountId), senderDeviceId, reason, messageId, asked);
}
