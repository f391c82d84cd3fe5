/**
 * What a user's device uses. The one entry that imports the official libsignal client, which is
 * AGPL-3.0: see README.md.
 */

export * from "../errors.js";
export type { Content } from "../generated/letterlock/content/v1/content_pb.js";
export type { RetryPolicy } from "../retry.js";
export { Device, type DeviceOptions } from "./device.js";
export {
  type DeviceEvent,
  IdentityChanged,
  IncomingMessage,
  Receipt,
  SendRefused,
  Undecryptable,
} from "./events.js";
export { FileStore } from "./fileStore.js";
export { DeviceLink } from "./link.js";
export type { SafetyNumber } from "./safetyNumber.js";
export { type Changes, type DeviceStore, MemoryStore } from "./store.js";
