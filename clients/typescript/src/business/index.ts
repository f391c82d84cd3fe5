/** What a business backend uses: sending and receiving for its number. Needs no libsignal. */

export * from "../errors.js";
export type { Content } from "../generated/letterlock/content/v1/content_pb.js";
export type {
  ConfirmIdentityResponse,
  SafetyNumber,
} from "../generated/letterlock/v1/identities_pb.js";
export {
  type Accepted,
  type Failure,
  type Message,
  MessageStatus,
} from "../generated/letterlock/v1/messaging_pb.js";
export {
  AttemptFailure,
  type DeadLetter,
  type ReceivePolicy,
} from "../generated/letterlock/v1/receiving_pb.js";
export type { RetryPolicy } from "../retry.js";
export {
  BusinessClient,
  type BusinessClientOptions,
  type ReceiveOptions,
  Start,
} from "./client.js";
export { Event, statusName } from "./events.js";
export type { BusinessInbox } from "./inbox.js";
export {
  type ContentInit,
  newIdempotencyKey,
  type OutgoingMessage,
  type SendResult,
} from "./outgoing.js";
export type { ReceiveStream } from "./receiveStream.js";
export type { SendStream } from "./sendStream.js";
