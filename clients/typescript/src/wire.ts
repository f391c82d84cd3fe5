/**
 * Small conversions between wire values and what callers hold: names of enum values, hex, times.
 */

import type { DescEnum } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";

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
