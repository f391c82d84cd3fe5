/**
 * A user's device for tests, told what to do by lines (lines.ts).
 *
 *     node device.js RELAY CA [STATE_FILE]
 *
 *     {"op": "requestVerification", "phone"}               -> {"verificationId"}
 *     {"op": "register", "verificationId", "code", "phone"} -> {"accountId", "deviceId"}
 *     {"op": "createLink"}                                 -> {"link"}
 *     {"op": "link", "link"}                               -> {"accountId", "deviceId"}
 *     {"op": "connect"}                                    -> {}; from now on events come
 *     {"op": "send", "to", "text"}                         -> {"messageId"} once the relay has it
 *     {"op": "read", "to", "messageId"}                    -> {"messageId"}
 *     {"op": "safetyNumber", "with"}                       -> {"digits", "scannable"}
 *     {"op": "compare", "with", "scanned"}                 -> {"same"}
 *     {"op": "close"}                                      -> {}
 *
 * Events: message (acked after its line was written), receipt, identity_changed, undecryptable, refused,
 * and {"event": "ended", "error"}.
 */

import {
  Device,
  type DeviceEvent,
  DeviceLink,
  FileStore,
  MemoryStore,
} from "../../src/device/index.js";
import { describe, print, serve } from "./lines.js";

const [relay = "", ca = "", stateFile] = process.argv.slice(2);
const device = await Device.open(relay, {
  ca,
  store: stateFile === undefined ? new MemoryStore() : new FileStore(stateFile),
  oneTimePreKeys: 10,
  deadline: 30,
  retry: { first: 0.05, most: 0.5 },
});

function lineOf(event: DeviceEvent): object {
  if (event.kind !== "message") return { event: event.kind, ...event };
  const { sender, deviceId, messageId, text, content } = event;
  return { event: "message", sender, deviceId, messageId, text, kind: content?.kind.case };
}

async function tellEvents(): Promise<void> {
  try {
    for await (const event of device.events()) {
      await print(lineOf(event));
      if (event.kind === "message") event.ack();
    }
  } catch (error) {
    await print({ event: "ended", error: describe(error) });
  }
}

const self = () => ({ accountId: device.accountId, deviceId: device.deviceId });

await serve({
  requestVerification: async ({ phone = "" }) => ({
    verificationId: await device.requestVerification(phone),
  }),
  async register({ phone = "", verificationId = "", code = "" }) {
    await device.register(phone, verificationId, code);
    return self();
  },
  createLink: async () => ({ link: (await device.createLink()).toText() }),
  async link({ link = "" }) {
    await device.link(DeviceLink.fromText(link));
    return self();
  },
  async connect() {
    await device.connect();
    void tellEvents();
    return undefined;
  },
  send: async ({ to = "", text = "" }) => ({ messageId: await device.sendText(to, text) }),
  read: async ({ to = "", messageId = "" }) => ({
    messageId: await device.sendReadReceipt(to, [messageId]),
  }),
  safetyNumber: async ({ with: party = "" }) => {
    const { digits, scannable } = device.safetyNumber(party);
    return { digits, scannable: Buffer.from(scannable).toString("hex") };
  },
  compare: async ({ with: party = "", scanned = "" }) => ({
    same: device.safetyNumber(party).compare(Buffer.from(scanned, "hex")),
  }),
  async close() {
    await device.close();
    return undefined;
  },
});
