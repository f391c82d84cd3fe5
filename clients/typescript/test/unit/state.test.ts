import assert from "node:assert/strict";
import { test } from "node:test";
import { accountToRow } from "../../src/device/account.js";
import { DeviceState, SELF } from "../../src/device/state.js";
import { type Changes, MemoryStore } from "../../src/device/store.js";
import { DeviceError } from "../../src/errors.js";
import { Signal } from "../../src/waiting.js";
import { ana } from "./party.js";

class Recording extends MemoryStore {
  readonly commits: Changes[] = [];
  failing = false;

  override async commit(changes: Changes): Promise<void> {
    if (this.failing) throw new DeviceError("no space");
    this.commits.push(changes);
  }
}

function opened(store = new Recording()) {
  const { accountId, identity } = ana();
  const self = accountToRow({
    accountId,
    deviceId: 1,
    registrationId: 1,
    phoneNumber: "+15550100101",
    credential: "c",
    identityPrivate: identity.serialize(),
  });
  return {
    store,
    state: new DeviceState(store, new Map([[SELF, new Uint8Array(self)]]), () => {}),
  };
}

test("turns come one after the other, each with one commit of what it changed", async () => {
  const { store, state } = opened();
  const gate = new Signal();
  const order: string[] = [];
  const first = state.turn(async () => {
    order.push("first");
    await gate.changed();
    state.rememberNumber("+15550100102", "b".repeat(32));
    order.push("first ends");
  });
  const note = state.note(() => order.push("note"));
  const second = state.turn(async () => order.push("second"));
  await Promise.resolve();
  gate.notify();
  await Promise.all([first, note, second]);
  assert.deepEqual(order, ["first", "first ends", "note", "second"]);
  assert.deepEqual(
    store.commits.map((changes) => [...changes.keys()]),
    [["number/+15550100102"]],
  );
});

test("what a note changed goes with the next commit", async () => {
  const { store, state } = opened();
  await state.note(() => state.rememberNumber("+15550100102", "b".repeat(32)));
  assert.equal(store.commits.length, 0);
  await state.turn(async () => undefined);
  assert.equal(store.commits.length, 1);
});

test("after a commit that failed nothing more is done with the state", async () => {
  const { store, state } = opened();
  store.failing = true;
  const change = async () => state.rememberNumber("+15550100102", "b".repeat(32));
  await assert.rejects(state.turn(change), DeviceError);
  store.failing = false;
  assert.equal(state.isBroken, true);
  await assert.rejects(state.turn(change), /open the device again/);
  assert.equal(store.commits.length, 0);
});

test("a state that is no device's is refused", () => {
  for (const row of ["", "{}"]) {
    const stored = new Map([[SELF, new Uint8Array(Buffer.from(row))]]);
    assert.throws(() => new DeviceState(new MemoryStore(), stored, () => {}), DeviceError);
  }
});
