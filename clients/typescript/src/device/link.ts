/**
 * How a second device joins an account: what the first device tells it, outside of the relay.
 *
 * The text holds the account's private identity key and a link token: show it as a code to scan, never
 * send it over the network it is meant to protect. The same text as in every other SDK.
 */

import { InvalidRequest } from "../errors.js";

const VERSION = 1;
const IDENTITY_BYTES = 32;

/** Good for one device, until the relay forgets the token (minutes). */
export class DeviceLink {
  readonly #token: string;
  readonly #phoneNumber: string;
  readonly #identityPrivate: Uint8Array<ArrayBuffer>;

  constructor(token: string, phoneNumber: string, identityPrivate: Uint8Array<ArrayBuffer>) {
    this.#token = token;
    this.#phoneNumber = phoneNumber;
    this.#identityPrivate = identityPrivate;
  }

  get token(): string {
    return this.#token;
  }

  get phoneNumber(): string {
    return this.#phoneNumber;
  }

  get identityPrivate(): Uint8Array<ArrayBuffer> {
    return this.#identityPrivate;
  }

  /** About 120 characters of URL-safe base64. Secret. */
  toText(): string {
    const names = Buffer.from(`${this.#phoneNumber}\n${this.#token}`);
    const bytes = Buffer.concat([Buffer.of(VERSION), this.#identityPrivate, names]);
    return bytes.toString("base64").replaceAll("+", "-").replaceAll("/", "_");
  }

  /** Read what toText() made. Throws InvalidRequest, which does not show it. */
  static fromText(text: string): DeviceLink {
    const bytes = Buffer.from(text, "base64url");
    const names = bytes.subarray(1 + IDENTITY_BYTES).toString();
    const [phoneNumber, token, ...rest] = names.split("\n");
    if (bytes[0] !== VERSION || !phoneNumber || !token || rest.length > 0) {
      const limit = "as the first device made it";
      throw new InvalidRequest("not a device link", { field: "link", limit });
    }
    const identityPrivate = new Uint8Array(bytes.subarray(1, 1 + IDENTITY_BYTES));
    return new DeviceLink(token, phoneNumber, identityPrivate);
  }
}
