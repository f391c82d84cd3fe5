/**
 * How a device comes to an account: makes its keys, asks the relay, gives the first rows.
 *
 * Knows no store: the caller commits the rows before it does anything with the account.
 */

import { randomInt } from "node:crypto";
import { PrivateKey } from "@signalapp/libsignal-client";
import { InvalidRequest } from "../errors.js";
import type { RegisterResponse } from "../generated/letterlock/relay/v1/accounts_pb.js";
import type { PreKeyUpload } from "../generated/letterlock/relay/v1/keys_pb.js";
import { hex } from "../wire.js";
import { accountToRow } from "./account.js";
import { makeKeys, OwnKeys, toUpload } from "./keys.js";
import type { DeviceLink } from "./link.js";
import type { Relay } from "./relay.js";
import { Rows } from "./rows.js";
import type { Changes } from "./store.js";

const MAX_REGISTRATION_ID = 16_383;
const FIRST_KEY_ID = 1;

type Ask = (registrationId: number, preKeys: PreKeyUpload) => Promise<RegisterResponse>;

/** Registers one device, with that many one-time pre-keys of each kind. */
export class Registration {
  readonly #relay: Relay;
  readonly #oneTimePreKeys: number;
  readonly #nowMs: () => number;

  constructor(relay: Relay, oneTimePreKeys: number, nowMs: () => number) {
    this.#relay = relay;
    this.#oneTimePreKeys = oneTimePreKeys;
    this.#nowMs = nowMs;
  }

  /** Make or take over the account of a number; the rows to commit. */
  register(phoneNumber: string, verificationId: string, code: string): Promise<Changes> {
    const identity = PrivateKey.generate();
    const identityKey = identity.getPublicKey().serialize();
    const known = { verificationId, code, phoneNumber, identityKey };
    return this.#become(phoneNumber, identity, (registrationId, preKeys) =>
      this.#relay.register({ ...known, registrationId, preKeys }),
    );
  }

  /** Join the account of a link; the rows to commit. */
  async link({ token, phoneNumber, identityPrivate }: DeviceLink): Promise<Changes> {
    const identity = readIdentity(identityPrivate);
    return await this.#become(phoneNumber, identity, (registrationId, preKeys) =>
      this.#relay.linkDevice({ linkToken: token, registrationId, preKeys }),
    );
  }

  async #become(phoneNumber: string, identity: PrivateKey, ask: Ask): Promise<Changes> {
    const nowMs = this.#nowMs();
    const count = this.#oneTimePreKeys;
    const wanted = { signed: true, ec: count, kyber: count };
    const keys = makeKeys(identity, FIRST_KEY_ID, nowMs, wanted);
    const registrationId = randomInt(1, MAX_REGISTRATION_ID + 1);
    const { accountId, deviceId, credential } = await ask(registrationId, toUpload(keys));
    const rows = new Rows(new Map());
    const self = accountToRow({
      accountId: hex(accountId),
      deviceId,
      registrationId,
      phoneNumber,
      credential,
      identityPrivate: identity.serialize(),
    });
    rows.put("self", "", self);
    new OwnKeys(rows).keep(keys, nowMs);
    return rows.take();
  }
}

function readIdentity(bytes: Uint8Array<ArrayBuffer>): PrivateKey {
  try {
    return PrivateKey.deserialize(bytes);
  } catch {
    const limit = "as the first device made it";
    throw new InvalidRequest("not a device link", { field: "link", limit });
  }
}
