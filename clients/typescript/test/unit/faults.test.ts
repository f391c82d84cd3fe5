import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { errorFor, LetterlockError } from "../../src/errors.js";
import { fromRefusal, fromRpc } from "../../src/faults.js";
import {
  ErrorInfoSchema,
  RetryInfoSchema,
} from "../../src/generated/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../src/generated/google/rpc/status_pb.js";
import {
  ErrorReason,
  ErrorReasonSchema,
  RefusalSchema,
  RefusalScope,
} from "../../src/generated/letterlock/v1/errors_pb.js";

function failed(code: status, details: string, bytes?: Uint8Array): ServiceError {
  const metadata = new Metadata();
  if (bytes) metadata.set("grpc-status-details-bin", Buffer.from(bytes));
  return Object.assign(new Error(details), { code, details, metadata });
}

function detailed(domain: string): Uint8Array {
  const metadata = { field: "phone_number", limit: "E.164" };
  const info = create(ErrorInfoSchema, { reason: "RATE_LIMITED", domain, metadata });
  const retry = create(RetryInfoSchema, { retryDelay: { seconds: 2n, nanos: 500_000_000 } });
  const details = [anyPack(ErrorInfoSchema, info), anyPack(RetryInfoSchema, retry)];
  return toBinary(StatusSchema, create(StatusSchema, { details }));
}

test("every reason of the contract but the unset one has a class", () => {
  for (const { name } of ErrorReasonSchema.values) {
    const reason = name.replace("ERROR_REASON_", "");
    assert.equal(errorFor(reason) === LetterlockError, reason === "UNSPECIFIED", reason);
  }
});

test("a status with our details tells reason, field, limit and retry time", () => {
  const error = fromRpc(failed(status.RESOURCE_EXHAUSTED, "slow down", detailed("letterlock")));
  assert.equal(error.name, "Busy");
  const { reason, field, limit, retryAfter } = error;
  assert.deepEqual(
    { reason, field, limit, retryAfter },
    {
      reason: "RATE_LIMITED",
      field: "phone_number",
      limit: "E.164",
      retryAfter: 2.5,
    },
  );
  assert.equal(error.message, "RATE_LIMITED: slow down (phone_number: E.164)");
});

test("a status of gRPC itself, of another domain or with broken details is the connection's", () => {
  const broken = Uint8Array.of(0xff, 0xff);
  for (const details of [undefined, broken, detailed("elsewhere")]) {
    assert.equal(fromRpc(failed(status.INTERNAL, "x", details)).name, "Unavailable");
  }
  assert.equal(fromRpc(failed(status.DEADLINE_EXCEEDED, "x")).name, "DeadlineExceeded");
  assert.equal(fromRpc(failed(status.UNIMPLEMENTED, "x")).name, "ServerError");
  assert.equal(fromRpc(failed(status.UNAUTHENTICATED, "x")).name, "Unauthenticated");
});

test("a refusal tells its scope; a reason of a newer gateway keeps its number", () => {
  const refused = create(RefusalSchema, {
    reason: ErrorReason.QUEUE_FULL,
    scope: RefusalScope.BUSINESS_NUMBER,
    retryAfter: { seconds: 1n },
  });
  const error = fromRefusal(refused);
  assert.deepEqual([error.name, error.scope, error.retryAfter], ["Busy", "BUSINESS_NUMBER", 1]);
  const unknown = fromRefusal(create(RefusalSchema, { reason: 999 as ErrorReason }));
  assert.deepEqual([unknown.name, unknown.reason], ["LetterlockError", "999"]);
  assert.equal(unknown.retryAfter, undefined);
});

test("an error shows its class, and no more than it tells", () => {
  assert.match(inspect(fromRpc(failed(status.NOT_FOUND, "x"))), /Unavailable.*NOT_FOUND: x/s);
});
