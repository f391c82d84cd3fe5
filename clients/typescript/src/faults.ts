/**
 * Turns what arrives over gRPC, a failed call or a Refusal, into the SDK's errors.
 *
 * Knows the error domain of errors.proto; knows nothing of what was asked for.
 */

import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import {
  DeadlineExceeded,
  errorFor,
  type LetterlockError,
  ServerError,
  Unauthenticated,
  Unavailable,
} from "./errors.js";
import {
  type ErrorInfo,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./generated/google/rpc/error_details_pb.js";
import { StatusSchema } from "./generated/google/rpc/status_pb.js";
import {
  ErrorReasonSchema,
  type Refusal,
  RefusalScopeSchema,
} from "./generated/letterlock/v1/errors_pb.js";
import { enumName, secondsOf } from "./wire.js";

const DOMAIN = "letterlock";
const DETAILS = "grpc-status-details-bin";

// A status without our details was made by gRPC or a proxy: the connection's doing, not an answer.
const BARE = new Map([
  [status.DEADLINE_EXCEEDED, DeadlineExceeded],
  [status.UNIMPLEMENTED, ServerError],
  [status.UNAUTHENTICATED, Unauthenticated],
]);

/** The error that a failed call stands for. Never throws. */
export function fromRpc(error: ServiceError): LetterlockError {
  const { info, retryAfter } = detailsOf(error.metadata);
  if (info?.domain !== DOMAIN) {
    const Made = BARE.get(error.code) ?? Unavailable;
    const name = status[error.code] ?? "UNKNOWN";
    return new Made(error.details || name, { reason: name });
  }
  const { field = "", limit = "" } = info.metadata;
  const details = { reason: info.reason, field, limit, retryAfter };
  return new (errorFor(info.reason))(error.details || info.reason, details);
}

/** The error that a refusal on a stream stands for. */
export function fromRefusal(refusal: Refusal): LetterlockError {
  const reason = enumName(ErrorReasonSchema, refusal.reason);
  return new (errorFor(reason))(refusal.detail || reason, {
    reason,
    field: refusal.field,
    limit: refusal.limit,
    retryAfter: refusal.retryAfter && secondsOf(refusal.retryAfter),
    scope: enumName(RefusalScopeSchema, refusal.scope),
  });
}

function detailsOf(metadata: Metadata | undefined): { info?: ErrorInfo; retryAfter?: number } {
  const found: { info?: ErrorInfo; retryAfter?: number } = {};
  const bytes = metadata?.get(DETAILS)[0];
  if (!(bytes instanceof Uint8Array)) return found;
  try {
    for (const detail of fromBinary(StatusSchema, bytes).details) {
      const info = anyUnpack(detail, ErrorInfoSchema);
      const retry = anyUnpack(detail, RetryInfoSchema);
      if (info) found.info = info;
      if (retry?.retryDelay) found.retryAfter = secondsOf(retry.retryDelay);
    }
  } catch {
    return {}; // details that are no details: the status alone counts
  }
  return found;
}
