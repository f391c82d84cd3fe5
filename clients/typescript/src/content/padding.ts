/**
 * Rounds a payload up to a size step, so that its ciphertext tells only the step.
 *
 *     160, 320, … 1,440, 1,600, 3,200, 4,800, …
 *
 * Both ends use it on what they send; on receipt padding is ignored. Knows no encryption.
 * Source: letterlock/content/v1/content.proto, message Payload.
 */

import { toBinary } from "@bufbuild/protobuf";
import { type Payload, PayloadSchema } from "../generated/letterlock/content/v1/content_pb.js";

/** Step up to LARGE_STEP. Finer steps tell more, coarser ones cost more for short texts. */
const SMALL_STEP = 160;

/** Step above it: longer texts are rare, so each needs a larger crowd to hide in. */
const LARGE_STEP = 1_600;

const PADDING_TAG = 0x7a; // field 15, length-delimited

/** `payload` serialised, with zero bytes in `padding` up to the next step. Its own is dropped. */
export function pad(payload: Payload): Uint8Array<ArrayBuffer> {
  const body = toBinary(PayloadSchema, { ...payload, padding: new Uint8Array() });
  let target = nextStep(body.length);
  while (!fits(target - body.length)) target = nextStep(target + 1);
  const padded = new Uint8Array(target);
  padded.set(body);
  padded.set(fieldHeader(target - body.length), body.length);
  return padded;
}

function nextStep(size: number): number {
  const step = size <= LARGE_STEP ? SMALL_STEP : LARGE_STEP;
  return Math.max(Math.ceil(size / step), 1) * step;
}

// A field takes a tag, a length and the bytes: no field has 1 byte, and none has 130, where the
// length grows to two bytes. Such a payload goes to the step after.
function fits(size: number): boolean {
  return size !== 1 && size !== 130;
}

function fieldHeader(size: number): number[] {
  if (size === 0) return [];
  if (size < 130) return [PADDING_TAG, size - 2];
  const count = size - 3;
  return [PADDING_TAG, (count & 0x7f) | 0x80, count >> 7];
}
