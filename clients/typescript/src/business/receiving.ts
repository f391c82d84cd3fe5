/**
 * Which events of a Receive stream are in the caller's hands, and what to write of them: pure.
 *
 *     offer ──▶ in hand ──ack, nack──▶ to write ──take──▶ written
 *                  │                       ▲
 *                  │  offered again after its ack (the stream was lost before the ack was certain)
 *                  └──renew──▶ leases to begin anew, as long as an event is not held for too long
 *
 * An event is handed out once, although the gateway gives it again after a lost stream or lease. With
 * a nacked event the gateway takes back what it gave behind it of the same user: what of that is still
 * on its way is passed over until the nack is answered, and comes again, behind the nacked one. Knows
 * no stream, no clock, no task; reads no content. Times are seconds of one clock.
 */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type ReceiveRequest,
  ReceiveRequestSchema,
} from "../generated/letterlock/v1/messaging_pb.js";
import { durationOf } from "../wire.js";

/** The contract's limit of one frame. */
const MAX_IDS = 10_000;

type Frame = NonNullable<MessageInitShape<typeof ReceiveRequestSchema>["frame"]>;

/** An event in hand: since when, and to when the caller has extended its lease. */
interface Held {
  readonly since: number;
  extendedTo: number;
}

/** The events of one receiver, by event id. */
export class AckWindow {
  // Acks that were lost with a stream concern at most a window of events; twice that, so that those
  // of the stream before are still known. Forgetting one costs a second delivery.
  readonly #remembered: number;
  readonly #hold: number;
  readonly #inHand = new Map<string, Held>();
  readonly #acked = new Set<string>();
  #acks: string[] = [];
  #others: Frame[] = [];
  // Not answered yet, by user; never more than a window.
  readonly #nacked = new Map<string, Set<string>>();

  /**
   * `window`: how many events may be unacknowledged at a time; `hold`: for how many seconds the
   * lease of one in hand is renewed.
   */
  constructor(window: number, hold: number) {
    this.#remembered = 2 * window;
    this.#hold = hold;
  }

  /** Whether nothing is in hand and nothing is to be written. */
  get isIdle(): boolean {
    return this.#inHand.size === 0 && this.#acks.length === 0 && this.#others.length === 0;
  }

  /** Note an event from the stream; true when it is to be handed out. */
  offer(eventId: string, userId: string, now: number): boolean {
    if (this.#acked.has(eventId)) {
      this.#acks.push(eventId);
      return false;
    }
    if (this.#inHand.has(eventId) || this.#nacked.has(userId)) return false;
    this.#inHand.set(eventId, { since: now, extendedTo: now });
    return true;
  }

  /** The caller is done with an event. Acknowledging twice is harmless. */
  ack(eventId: string): void {
    if (!this.letGo(eventId)) return;
    this.#acks.push(eventId);
    this.#acked.add(eventId);
    for (const oldest of this.#acked) {
      if (this.#acked.size <= this.#remembered) break;
      this.#acked.delete(oldest);
    }
  }

  /** The caller wants it again after `delay` seconds. False when it is not in hand. */
  nack(eventId: string, userId: string, delay: number): boolean {
    if (!this.letGo(eventId)) return false;
    const value = { eventIds: [eventId], delay: durationOf(delay, "delay") };
    this.#others.push({ case: "nacks", value });
    const unanswered = this.#nacked.get(userId);
    if (unanswered === undefined) this.#nacked.set(userId, new Set([eventId]));
    else unanswered.add(eventId);
    return true;
  }

  /** The gateway has carried out these nacks: what comes from here on is given anew. */
  answered(eventIds: readonly string[]): void {
    for (const [userId, unanswered] of this.#nacked) {
      for (const eventId of eventIds) unanswered.delete(eventId);
      if (unanswered.size === 0) this.#nacked.delete(userId);
    }
  }

  /** The caller needs `seconds` more from now; nothing for an event that is not in hand. */
  extend(eventId: string, seconds: number, now: number): void {
    const held = this.#inHand.get(eventId);
    if (held === undefined) return;
    held.extendedTo = now + seconds;
    const value = { eventIds: [eventId], lease: durationOf(seconds, "seconds") };
    this.#others.push({ case: "extensions", value });
  }

  /** No longer in hand: it is handed out when it comes again. False when it was not. */
  letGo(eventId: string): boolean {
    return this.#inHand.delete(eventId);
  }

  /**
   * Begin anew the leases of what is in hand, unless it is held for too long, or was extended for
   * longer.
   */
  renew(now: number, lease: number): void {
    const ids = [...this.#inHand]
      .filter(([, held]) => now - held.since < this.#hold && held.extendedTo <= now + lease)
      .map(([eventId]) => eventId);
    for (let start = 0; start < ids.length; start += MAX_IDS) {
      const value = { eventIds: ids.slice(start, start + MAX_IDS) };
      this.#others.push({ case: "extensions", value });
    }
  }

  /** The stream is gone, and with it the leases: what was to be said of them is void. Acks stay good. */
  lost(): void {
    this.#others = [];
    this.#nacked.clear();
  }

  /** The next frame; undefined when there is nothing to say. */
  take(): ReceiveRequest | undefined {
    const eventIds = this.#acks.splice(0, MAX_IDS);
    const frame: Frame | undefined =
      eventIds.length > 0 ? { case: "acks", value: { eventIds } } : this.#others.shift();
    return frame && create(ReceiveRequestSchema, { frame });
  }
}
