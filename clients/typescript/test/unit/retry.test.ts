import assert from "node:assert/strict";
import { test } from "node:test";
import { Busy, InvalidRequest, Replaced, ServerError, Unavailable } from "../../src/errors.js";
import { Backoff, SERVER_ERROR_ATTEMPTS } from "../../src/retry.js";

const lost = new Unavailable("gone");

test("waits grow to their bound, and begin anew after progress", () => {
  const backoff = new Backoff({ first: 1, most: 5, factor: 2 }, () => 1);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => backoff.after(lost)),
    [1, 2, 4, 5],
  );
  backoff.succeeded();
  assert.equal(backoff.after(lost), 1);
});

test("a retry time named by the other side is the least that is waited", () => {
  const backoff = new Backoff({ first: 1 }, () => 0.5);
  assert.equal(backoff.after(new Busy("full", { retryAfter: 7 })), 7.5);
});

test("what no repeat can mend is thrown at once", () => {
  for (const error of [new InvalidRequest("bad"), new Replaced("newer")]) {
    assert.throws(() => new Backoff({}, () => 0).after(error), error);
  }
});

test("attempts are counted in a row", () => {
  const backoff = new Backoff({ attempts: 3 }, () => 0);
  backoff.after(lost);
  backoff.after(lost);
  assert.throws(() => backoff.after(lost), lost);
});

test("a bug on the other side is told after a few tries even where there is no end", () => {
  const backoff = new Backoff({}, () => 0);
  const bug = new ServerError("bug");
  for (let n = 1; n < SERVER_ERROR_ATTEMPTS; n += 1) backoff.after(bug);
  assert.throws(() => backoff.after(bug), bug);
});
