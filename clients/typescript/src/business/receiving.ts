/**
 * Which events of a Receive stream are in the caller's hands, and which acks to write: pure.
 *
 *     offer ──▶ in hand ──ack──▶ to write ──take──▶ written
 *                                   ▲
 *       offered again after its ack ┘   (the stream was lost before the ack was certain)
 *
 * An event is handed out once, although the gateway gives it again after a lost stream. Knows no
 * stream, no clock, no task; reads no content.
 */

/** The contract's limit of one ack frame. */
const MAX_ACKS = 10_000;

/** The events of one receiver, by event id. */
export class AckWindow {
  // Acks that were lost with a stream concern at most a window of events; twice that, so that those
  // of the stream before are still known. Forgetting one costs a second delivery.
  readonly #remembered: number;
  readonly #inHand = new Set<string>();
  readonly #acked = new Set<string>();
  #toWrite: string[] = [];

  /** `window`: how many events may be unacknowledged at a time. */
  constructor(window: number) {
    this.#remembered = 2 * window;
  }

  /** Whether nothing is in hand and nothing is to be written. */
  get isIdle(): boolean {
    return this.#inHand.size === 0 && this.#toWrite.length === 0;
  }

  /** Note an event from the stream; true when it is to be handed out. */
  offer(eventId: string): boolean {
    if (this.#acked.has(eventId)) {
      this.#toWrite.push(eventId);
      return false;
    }
    if (this.#inHand.has(eventId)) return false;
    this.#inHand.add(eventId);
    return true;
  }

  /** The caller is done with an event. Acknowledging twice is harmless. */
  ack(eventId: string): void {
    if (!this.#inHand.delete(eventId)) return;
    this.#toWrite.push(eventId);
    this.#acked.add(eventId);
    for (const oldest of this.#acked) {
      if (this.#acked.size <= this.#remembered) break;
      this.#acked.delete(oldest);
    }
  }

  /** The ids of the next ack frame; empty when there is nothing to say. */
  take(): string[] {
    return this.#toWrite.splice(0, MAX_ACKS);
  }
}
