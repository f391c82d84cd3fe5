/**
 * Small conversions between wire values and what callers hold: names of enum values, hex, times; and
 * the checks without which a value cannot go on the wire.
 */

import type { DescEnum } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { InvalidRequest } from "./errors.js";

/** The name of an enum value without the enum's prefix; of a value of a newer peer its number. */
export function enumName(schema: DescEnum, value: number): string {
  const name = schema.value[value]?.name;
  return name === undefined ? String(value) : name.slice(schema.sharedPrefix?.length ?? 0);
}

/** Bytes as lower-case hex. */
export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Hex as bytes with a buffer of their own. */
export function unhex(text: string): Uint8Array<ArrayBuffer> {
  return owned(Buffer.from(text, "hex"));
}

/** A copy with a buffer of its own, as native code wants it. */
export function owned(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

/** A Timestamp as a Date; the epoch where there is none. */
export function dateOf(time: Timestamp | undefined): Date {
  return new Date(Number(time?.seconds ?? 0n) * 1000 + Math.floor((time?.nanos ?? 0) / 1e6));
}

/** Seconds as a Duration. Throws InvalidRequest, with the field's name, for what is no number. */
export function durationOf(seconds: number, field: string): Duration {
  if (!Number.isFinite(seconds)) {
    throw new InvalidRequest("no duration", { field, limit: "seconds, a finite number" });
  }
  const whole = Math.floor(seconds);
  const nanos = Math.min(Math.round((seconds - whole) * 1e9), 999_999_999);
  return { $typeName: "google.protobuf.Duration", seconds: BigInt(whole), nanos };
}

/** A Duration in seconds. */
export function secondsOf({ seconds, nanos }: Duration): number {
  return Number(seconds) + nanos / 1e9;
}

/** Throws InvalidRequest, with the field's name, for what is no whole number from `least` to `most`. */
export function checkWhole(value: number, field: string, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw new InvalidRequest(field, { field, limit: `${least} to ${most}, a whole number` });
  }
}
