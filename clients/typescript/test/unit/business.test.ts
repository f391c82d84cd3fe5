import assert from "node:assert/strict";
import { test } from "node:test";
import { BusinessClient, type BusinessClientOptions } from "../../src/business/client.js";
import { toWire } from "../../src/business/outgoing.js";
import { InvalidRequest } from "../../src/errors.js";

const names = (field: string) => (error: unknown) => {
  assert(error instanceof InvalidRequest);
  assert.equal(error.field, field);
  assert(error.limit);
  return true;
};

test("a client without a usable token is refused before anybody is asked", () => {
  for (const token of [undefined, null, "", "two\nlines"]) {
    const options = { token, number: "+15550100100", insecure: true };
    const make = () => new BusinessClient("127.0.0.1:1", options as BusinessClientOptions);
    assert.throws(make, names("token"));
  }
});

test("a recipient that is neither a number nor an id names `to` and the form", () => {
  for (const to of ["5550100101", "nobody", "", "0".repeat(31), undefined]) {
    assert.throws(() => toWire({ to: to as string, text: "x" }, "k"), names("to"));
  }
  const { recipient } = toWire({ to: "Ab".repeat(16), text: "x" }, "k");
  assert.deepEqual(recipient, { case: "userId", value: "Ab".repeat(16) });
});
