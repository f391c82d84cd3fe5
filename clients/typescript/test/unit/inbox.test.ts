import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { BusinessInbox, type Call } from "../../src/business/inbox.js";
import { InvalidRequest } from "../../src/errors.js";
import type {
  ListDeadLettersRequest,
  ReplayEventsRequest,
  SetReceivePolicyRequest,
} from "../../src/generated/letterlock/v1/receiving_pb.js";

const number = "+15550100100";

/** An inbox whose calls get these answers; what was asked is in `asked`, as it was then. */
function answering(...answers: object[]) {
  const asked: Message[] = [];
  const call: Call = async (method, request) => {
    asked.push({ ...request });
    return create(method.output, (answers.shift() ?? {}) as MessageInitShape<typeof method.output>);
  };
  return { asked, inbox: new BusinessInbox(number, call) };
}

test("dead letters come page by page", async () => {
  const { asked, inbox } = answering(
    { deadLetters: [{ eventId: "a" }, { eventId: "b" }], nextPageToken: "more" },
    { deadLetters: [{ eventId: "c" }] },
  );
  const ids: string[] = [];
  for await (const letter of inbox.deadLetters()) ids.push(letter.eventId);
  assert.deepEqual(ids, ["a", "b", "c"]);
  const requests = asked as ListDeadLettersRequest[];
  assert.deepEqual(
    requests.map(({ businessNumber, pageToken }) => [businessNumber, pageToken]),
    [
      [number, ""],
      [number, "more"],
    ],
  );
});

test("a replay is asked for part by part, from the same place", async () => {
  const { asked, inbox } = answering({ replayed: 2, nextCursor: "on" }, { replayed: 1 });
  const since = new Date("2026-11-22T10:00:00Z");
  assert.equal(await inbox.replay({ since }), 3);
  for (const { from } of asked as ReplayEventsRequest[]) {
    assert.deepEqual(from.case === "fromTime" && timestampDate(from.value), since);
  }
  assert.deepEqual(
    (asked as ReplayEventsRequest[]).map((request) => request.cursor),
    ["", "on"],
  );
});

test("a policy is set as a whole; bad values name field and limit", async () => {
  const { asked, inbox } = answering({ maxAttempts: 10 });
  assert.equal((await inbox.setPolicy({ keepAcknowledged: 60 })).maxAttempts, 10);
  const { policy } = asked[0] as SetReceivePolicyRequest;
  assert.deepEqual([policy?.maxAttempts, policy?.keepAcknowledged?.seconds], [0, 60n]);
  for (const [bad, field] of [
    [() => inbox.setPolicy({ maxAttempts: 1.5 }), "max_attempts"],
    [() => inbox.setPolicy({ keepAcknowledged: Number.NaN }), "keep_acknowledged"],
    [() => inbox.replay({ since: new Date("never") }), "since"],
  ] as const) {
    await assert.rejects(
      bad,
      (error) => error instanceof InvalidRequest && error.field === field && !!error.limit,
    );
  }
  assert.equal(asked.length, 1);
});
