/**
 * What a device does about a message that one end could not decrypt.
 *
 *     ours failed     ──▶ report to the sender ──▶ it comes again, on a new session of theirs
 *     theirs failed   ──▶ report from them: our session archived, the message again on a new one
 *
 * A report is a claim (decryptionError.ts). It can cause three more ciphertexts of a message that is
 * under way, for the identity key known before, and a bounded number of new sessions; it is never
 * answered by a report. Call inside a turn. Knows no network.
 */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Envelope, SubmissionSchema } from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { dateOf, hex, unhex } from "../wire.js";
import { newMessageId } from "./account.js";
import { MAX_ATTEMPTS, PLAINTEXT, type Report, reportOn } from "./decryptionError.js";
import { isHealing, type Outbox, type Waiting } from "./outbox.js";
import type { Sent } from "./sent.js";
import type { Sessions } from "./sessions.js";

/** Sessions with one account that are given up within RENEWAL_MS: each costs a one-time pre-key. */
const MAX_RENEWALS = 6;
const RENEWAL_MS = 3_600_000;
const MAX_ACCOUNTS = 1_000;

const REPORT_LIFE_MS = 7 * 24 * 3_600_000;
const SHORTEST_LIFE_MS = 60_000;

/** What a report leads to. */
export type Remedy = "nothing" | "send again" | "give up";

/** Both halves, as far as they are a matter of state. */
export class Healing {
  readonly #sessions: Sessions;
  readonly #outbox: Outbox;
  readonly #sent: Sent;
  readonly #renewed = new Map<string, number[]>();

  constructor(sessions: Sessions, outbox: Outbox, sent: Sent) {
    this.#sessions = sessions;
    this.#outbox = outbox;
    this.#sent = sent;
  }

  /** Report an envelope that does not open. Undefined when it is given up, or too much waits. */
  complain(envelope: Envelope, nowMs: number): Waiting | undefined {
    const attempt = envelope.resend?.attempt ?? 0;
    if (attempt > MAX_ATTEMPTS || !this.#outbox.mayHeal || !isMessage(envelope)) return undefined;
    const diesMs = Math.min(dateOf(envelope.expireTime).getTime(), nowMs + REPORT_LIFE_MS);
    const submission = create(SubmissionSchema, {
      messageId: newMessageId(nowMs),
      recipientAccountId: envelope.senderAccountId,
      envelopes: [{ deviceId: envelope.senderDeviceId, type: PLAINTEXT, body: reportOn(envelope) }],
      expireTime: timestampFromMs(Math.max(diesMs, nowMs + SHORTEST_LIFE_MS)),
    });
    return this.#add({ submission, plaintext: new Uint8Array() });
  }

  /** The relay has it: until a device has taken it, one may still ask for it again. */
  keep(entry: Waiting, nowMs: number): void {
    const { messageId, recipientAccountId, expireTime, receiptWanted } = entry.submission;
    if (!receiptWanted || isHealing(entry)) return;
    const message = {
      accountId: hex(recipientAccountId),
      expireMs: dateOf(expireTime).getTime(),
      plaintext: entry.plaintext,
      attempts: new Map<number, number>(),
    };
    this.#sent.keep(hex(messageId), message, nowMs);
  }

  /** Archive the session that still sends what the device could not decrypt; says what is next. */
  async renew(report: Report, nowMs: number): Promise<Remedy> {
    const { accountId, deviceId, messageId, attempt, ratchetKey } = report;
    const sent = this.#sent.get(messageId, accountId, nowMs);
    const attempts = sent?.attempts.get(deviceId) ?? 0;
    if (attempt < attempts) return "nothing"; // it was sent again since
    if (ratchetKey !== undefined && this.#mayRenew(accountId, nowMs)) {
      if (await this.#sessions.archiveSending(accountId, deviceId, ratchetKey)) {
        this.#count(accountId, nowMs);
      }
    }
    if (sent === undefined || attempt > attempts) return "nothing";
    return attempts >= MAX_ATTEMPTS ? "give up" : "send again";
  }

  /**
   * Put a message into the outbox again, for the device that reported it alone; undefined when the
   * one or the other is gone.
   */
  async resend(report: Report, nowMs: number): Promise<Waiting | undefined> {
    const { accountId, deviceId, messageId } = report;
    const now = new Date(nowMs);
    const sent = this.#sent.get(messageId, accountId, nowMs);
    if (!sent || !this.#sessions.devices(accountId, now).includes(deviceId)) return undefined;
    const { plaintext, expireMs } = sent;
    const envelope = await this.#sessions.encrypt(accountId, deviceId, plaintext, now);
    const attempt = this.#sent.resent(messageId, sent, deviceId);
    const submission = create(SubmissionSchema, {
      messageId: newMessageId(nowMs),
      recipientAccountId: unhex(accountId),
      envelopes: [envelope],
      receiptWanted: true,
      expireTime: timestampFromMs(expireMs),
      resend: { messageId: unhex(messageId), attempt },
    });
    return this.#add({ submission, plaintext });
  }

  #add(made: Pick<Waiting, "submission" | "plaintext">): Waiting {
    const entry = { ...made, answered: undefined, isDurable: false, repairs: 0 };
    this.#outbox.add(entry);
    return entry;
  }

  #mayRenew(accountId: string, nowMs: number): boolean {
    const times = this.#renewed.get(accountId) ?? [];
    return times.filter((time) => time > nowMs - RENEWAL_MS).length < MAX_RENEWALS;
  }

  #count(accountId: string, nowMs: number): void {
    const times = this.#renewed.get(accountId) ?? [];
    this.#renewed.delete(accountId);
    this.#renewed.set(accountId, [...times.slice(1 - MAX_RENEWALS), nowMs]);
    const [oldest] = this.#renewed.keys();
    if (oldest !== undefined && this.#renewed.size > MAX_ACCOUNTS) this.#renewed.delete(oldest);
  }
}

function isMessage({ type, messageId }: Envelope): boolean {
  return (type === 2 || type === 3) && messageId.length === 16;
}
