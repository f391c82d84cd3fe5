/**
 * The calls that a device makes to its relay: account, devices, pre-keys, and the mailbox stream.
 *
 * Turns statuses and refusals into LetterlockError, and repeats what is safe to repeat. Keeps no
 * state of the device.
 */

import { create, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { Metadata } from "@grpc/grpc-js";
import { bearer, type Channel, type Method, type Stream } from "../channel.js";
import { ServerError } from "../errors.js";
import { fromRefusal } from "../faults.js";
import {
  Accounts,
  type CreateDeviceLinkResponse,
  type Device,
  type LinkDeviceRequestSchema,
  type RegisterRequestSchema,
  type RegisterResponse,
} from "../generated/letterlock/relay/v1/accounts_pb.js";
import {
  type AccountBundles,
  type BundleTargetSchema,
  type GetPreKeyCountResponse,
  Keys,
  type PreKeyUpload,
} from "../generated/letterlock/relay/v1/keys_pb.js";
import {
  type ConnectRequest,
  type ConnectResponse,
  Mailbox,
} from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { repeat } from "../reconnect.js";
import { Backoff, type RetryPolicy } from "../retry.js";
import type { Sleep } from "../waiting.js";

/** How often a call that is safe to repeat is tried before its caller hears of it. */
const CALL_ATTEMPTS = 5;

/** One device's stream to its mailbox. */
export type MailboxCall = Stream<ConnectRequest, ConnectResponse>;

/** How calls are made. */
export interface CallOptions {
  /** Seconds for each call. */
  readonly deadline: number;
  readonly retry: RetryPolicy;
  readonly jitter: () => number;
  readonly sleep: Sleep;
}

/** The relay as one device sees it. */
export class Relay {
  readonly #channel: Channel;
  readonly #options: CallOptions;
  #metadata = new Metadata();

  constructor(channel: Channel, options: CallOptions) {
    this.#channel = channel;
    this.#options = options;
  }

  /** Authenticate as a device from now on. */
  useCredential(credential: string): void {
    this.#metadata = bearer(credential);
  }

  /** A new Mailbox.Connect stream. */
  connect(): MailboxCall {
    return this.#channel.stream(Mailbox.method.connect, this.#metadata);
  }

  /** Have a code sent; gives the verification id. Tried once: every try sends another. */
  async requestVerification(phoneNumber: string): Promise<string> {
    const answer = await this.#once(Accounts.method.requestVerification, { phoneNumber });
    return answer.verificationId;
  }

  /** Make the account. Tried once: a code is good for one try. */
  register(request: MessageInitShape<typeof RegisterRequestSchema>): Promise<RegisterResponse> {
    return this.#once(Accounts.method.register, request);
  }

  /** Join an account. Tried once: a link token is good for one device. */
  linkDevice(request: MessageInitShape<typeof LinkDeviceRequestSchema>): Promise<RegisterResponse> {
    return this.#once(Accounts.method.linkDevice, request);
  }

  /** A token for a further device. */
  createDeviceLink(): Promise<CreateDeviceLinkResponse> {
    return this.#once(Accounts.method.createDeviceLink, {});
  }

  /** The devices of the account. */
  async listDevices(): Promise<Device[]> {
    return (await this.#repeated(Accounts.method.listDevices, {})).devices;
  }

  /** Remove a further device of the account. */
  async removeDevice(deviceId: number): Promise<void> {
    await this.#once(Accounts.method.removeDevice, { deviceId });
  }

  /** Remove the account. */
  async deleteAccount(): Promise<void> {
    await this.#once(Accounts.method.deleteAccount, {});
  }

  /** Bundles of one account. Throws UnknownRecipient, Busy. */
  async fetchBundles(target: MessageInitShape<typeof BundleTargetSchema>): Promise<AccountBundles> {
    const { results } = await this.#repeated(Keys.method.fetchBundles, { targets: [target] });
    const [result] = results;
    if (result === undefined || results.length !== 1 || result.outcome.case === undefined) {
      throw new ServerError("not one answer for one target");
    }
    if (result.outcome.case === "refused") throw fromRefusal(result.outcome.value);
    return result.outcome.value;
  }

  /** One-time keys left in the directory. */
  preKeyCount(): Promise<GetPreKeyCountResponse> {
    return this.#repeated(Keys.method.getPreKeyCount, {});
  }

  /** Publish keys. The same upload again changes nothing. */
  async uploadPreKeys(preKeys: PreKeyUpload): Promise<void> {
    await this.#repeated(Keys.method.uploadPreKeys, { preKeys });
  }

  #repeated<Request extends Message, Response extends Message>(
    method: Method<Request, Response>,
    request: MessageInitShape<Method<Request, Response>["input"]>,
  ): Promise<Response> {
    return this.#try(method, request, CALL_ATTEMPTS);
  }

  #once<Request extends Message, Response extends Message>(
    method: Method<Request, Response>,
    request: MessageInitShape<Method<Request, Response>["input"]>,
  ): Promise<Response> {
    return this.#try(method, request, 1);
  }

  #try<Request extends Message, Response extends Message>(
    method: Method<Request, Response>,
    request: MessageInitShape<Method<Request, Response>["input"]>,
    attempts: number,
  ): Promise<Response> {
    const { deadline, retry, jitter, sleep } = this.#options;
    const message = create(method.input, request);
    const attempt = () => this.#channel.unary(method, message, this.#metadata, deadline);
    return repeat(attempt, new Backoff({ ...retry, attempts }, jitter), sleep);
  }
}
