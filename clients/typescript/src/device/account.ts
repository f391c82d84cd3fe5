/** Who a device is, as the row `self`; ids of messages and names of accounts. */

import { randomBytes } from "node:crypto";
import { DeviceError } from "../errors.js";
import { hex, unhex } from "../wire.js";

const VERSION = 1;

/** 16 bytes in hex: an account id, a message id. */
export const ID = /^[0-9a-f]{32}$/;

/** One device of an account. `identityPrivate` is shared by all devices of the account. */
export interface Account {
  /** 32 characters of hex. */
  readonly accountId: string;
  readonly deviceId: number;
  readonly registrationId: number;
  readonly phoneNumber: string;
  readonly credential: string;
  readonly identityPrivate: Uint8Array<ArrayBuffer>;
}

/** The row `self`. */
export function accountToRow(account: Account): Uint8Array {
  const identityPrivate = hex(account.identityPrivate);
  return Buffer.from(JSON.stringify({ version: VERSION, ...account, identityPrivate }));
}

/** Read the row `self`. Throws DeviceError. */
export function accountFromRow(row: Uint8Array): Account {
  const unreadable = { field: "store", limit: "a device's state" };
  let values: Record<string, unknown>;
  try {
    values = JSON.parse(Buffer.from(row).toString());
  } catch {
    throw new DeviceError("unreadable", unreadable);
  }
  if (values.version !== VERSION) {
    throw new DeviceError("unknown version", { field: "store", limit: `version ${VERSION}` });
  }
  const { accountId, deviceId, registrationId, phoneNumber, credential, identityPrivate } = values;
  if (
    typeof accountId !== "string" ||
    typeof deviceId !== "number" ||
    typeof registrationId !== "number" ||
    typeof phoneNumber !== "string" ||
    typeof credential !== "string" ||
    typeof identityPrivate !== "string"
  ) {
    throw new DeviceError("unreadable", unreadable);
  }
  const key = unhex(identityPrivate);
  return { accountId, deviceId, registrationId, phoneNumber, credential, identityPrivate: key };
}

/** A message id: UUID version 7, 16 bytes. */
export function newMessageId(nowMs: number): Uint8Array<ArrayBuffer> {
  const id = randomBytes(16);
  id.writeUIntBE(nowMs, 0, 6);
  id.writeUInt8(0x70 | (id.readUInt8(6) & 0x0f), 6);
  id.writeUInt8(0x80 | (id.readUInt8(8) & 0x3f), 8);
  return new Uint8Array(id);
}

/** An account as the name of a ratchet address: a hyphenated UUID. */
export function ratchetName(accountId: string): string {
  return accountId.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
