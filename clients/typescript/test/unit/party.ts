/** Devices without store and relay: rows, keys and sessions alone. */

import { create } from "@bufbuild/protobuf";
import { PrivateKey } from "@signalapp/libsignal-client";
import { makeKeys, OwnKeys } from "../../src/device/keys.js";
import { Rows } from "../../src/device/rows.js";
import { Sessions } from "../../src/device/sessions.js";
import { AccountBundlesSchema } from "../../src/generated/letterlock/relay/v1/keys_pb.js";
import {
  type DeviceEnvelope,
  EnvelopeSchema,
} from "../../src/generated/letterlock/relay/v1/mailbox_pb.js";
import { unhex } from "../../src/wire.js";

export const NOW = new Date("2026-11-22T00:00:00Z");
export const bytes = (text: string) => new Uint8Array(Buffer.from(text));

/** One device, without store and relay. */
export class Party {
  readonly rows = new Rows(new Map());
  readonly keys = new OwnKeys(this.rows);
  readonly sessions: Sessions;

  constructor(
    readonly accountId: string,
    readonly identity = PrivateKey.generate(),
    kyber = 1,
  ) {
    this.keys.keep(makeKeys(identity, 1, NOW.getTime(), { signed: true, ec: 1, kyber }), 0);
    this.sessions = new Sessions(
      {
        accountId,
        deviceId: 1,
        registrationId: 7,
        phoneNumber: "+15550100101",
        credential: "secret",
        identityPrivate: identity.serialize(),
      },
      this.keys,
      this.rows,
    );
  }

  bundles({ lastResort = false } = {}) {
    const [signed, kyber, oneTime] = [
      this.keys.signedPreKey(1),
      this.keys.kyberPreKey(lastResort ? 1 : 2),
      this.keys.preKey(2),
    ].map((key) => ({
      keyId: key.id(),
      publicKey: key.publicKey().serialize(),
      signature: "signature" in key ? key.signature() : new Uint8Array(),
    }));
    return create(AccountBundlesSchema, {
      accountId: unhex(this.accountId),
      identityKey: this.identity.getPublicKey().serialize(),
      devices: [
        {
          deviceId: 1,
          registrationId: 7,
          ...(signed && { signedPreKey: signed }),
          ...(kyber && { kyberPreKey: kyber }),
          ...(oneTime && !lastResort && { oneTimePreKey: oneTime }),
        },
      ],
    });
  }

  sent({ type, body }: DeviceEnvelope) {
    const [senderAccountId, senderDeviceId] = [unhex(this.accountId), 1];
    return create(EnvelopeSchema, { senderAccountId, senderDeviceId, type, body });
  }
}

export const ana = (identity?: PrivateKey) => new Party("a".repeat(32), identity);
export const ben = (kyber = 1) => new Party("b".repeat(32), PrivateKey.generate(), kyber);

export async function say(from: Party, to: Party, text: string) {
  return from.sent(await from.sessions.encrypt(to.accountId, 1, bytes(text), NOW));
}
