/**
 * Opens gRPC channels, TLS by default, with limits and keep-alive that fit the contract; makes calls
 * of the generated service descriptions.
 *
 * Knows no service. A channel belongs to whoever opened it.
 */

import { readFileSync } from "node:fs";
import { type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { Client, type ClientDuplexStream, credentials, Metadata, status } from "@grpc/grpc-js";
import { InvalidRequest, type LetterlockError, Unavailable } from "./errors.js";
import { fromRpc } from "./faults.js";

/** Environment variable with the path of the certificate authority to trust. */
export const CA_VARIABLE = "LETTERLOCK_CA";

/**
 * The largest frame taken or sent, in bytes. The contract's largest batch is 4 MiB of messages; below
 * it a legal frame would cut the stream, far above it one frame could fill the memory.
 */
export const MAX_FRAME_BYTES = 8 * 1024 * 1024;

/**
 * How often an open connection is probed; the daemon takes a probe every 10 seconds. It is what ends
 * the streams of a connection that was reset while Node, in the middle of a write, was not reading:
 * of that Node 20 tells nothing (seen once in forty kills of a gateway under load, and on no other
 * client).
 */
const KEEPALIVE_MS = 20_000;

const OPTIONS = {
  "grpc.max_receive_message_length": MAX_FRAME_BYTES,
  "grpc.max_send_message_length": MAX_FRAME_BYTES,
  "grpc.keepalive_time_ms": KEEPALIVE_MS,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.initial_reconnect_backoff_ms": 200,
  "grpc.max_reconnect_backoff_ms": 5_000,
  "grpc.enable_retries": 0,
  // Channels to one target would share a connection, and with it its limit of streams.
  "grpc.use_local_subchannel_pool": 1,
};

/** Which connection to open. */
export interface ChannelOptions {
  /** PEM file of the authority to trust. Not set: LETTERLOCK_CA, else the system's authorities. */
  readonly ca?: string | undefined;
  /** Plaintext: tokens and content cross the network in clear. */
  readonly insecure?: boolean | undefined;
}

/** A method of a generated service, with both its messages. */
export type Method<Request extends Message, Response extends Message> = DescMethod & {
  input: GenMessage<Request>;
  output: GenMessage<Response>;
};

/** One bidirectional stream: frames in and out, and its status as an error. */
export interface Stream<Request, Response> {
  /** Write a frame; settles when the connection takes the next one, or is lost. Never rejects. */
  write(frame: Request): Promise<void>;
  /** Nothing more will be written. */
  end(): void;
  /** The next frame; undefined at an end with OK. Throws the LetterlockError of any other status. */
  read(): Promise<Response | undefined>;
  /** Give the stream up. */
  cancel(): void;
}

/** An open channel to `host:port`. Throws InvalidRequest. */
export class Channel {
  readonly #client: Client;

  constructor(target: string, options: ChannelOptions = {}) {
    this.#client = new Client(target, credentialsOf(options), OPTIONS);
  }

  /** End the connection. */
  close(): void {
    this.#client.close();
  }

  /** Make one call; `deadline` in seconds. Throws LetterlockError. */
  unary<Request extends Message, Response extends Message>(
    method: Method<Request, Response>,
    request: Request,
    metadata: Metadata,
    deadline: number,
  ): Promise<Response> {
    const options = { deadline: Date.now() + deadline * 1000 };
    const { path, encode, decode } = codec(method);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        encode,
        decode,
        request,
        metadata,
        options,
        (error, got) => (got === undefined ? reject(error && fromRpc(error)) : resolve(got)),
      );
    });
  }

  /** Open a stream. */
  stream<Request extends Message, Response extends Message>(
    method: Method<Request, Response>,
    metadata: Metadata,
  ): Stream<Request, Response> {
    const { path, encode, decode } = codec(method);
    return new GrpcStream(this.#client.makeBidiStreamRequest(path, encode, decode, metadata));
  }
}

/** The metadata that authenticates a call. Throws InvalidRequest for what no header can hold. */
export function bearer(token: string): Metadata {
  // Callers without a type checker can leave it out, and RegExp would take the word "undefined".
  if (typeof token !== "string" || !/^[\x20-\x7e]+$/.test(token)) {
    const limit = "printable ASCII, not empty";
    throw new InvalidRequest("no usable token", { field: "token", limit });
  }
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}

class GrpcStream<Request, Response> implements Stream<Request, Response> {
  readonly #call: ClientDuplexStream<Request, Response>;
  readonly #frames: AsyncIterator<Response>;
  #written: () => void = () => undefined;
  #lost = false;

  constructor(call: ClientDuplexStream<Request, Response>) {
    this.#call = call;
    // Reading tells how a stream ended. A write to an ended stream is an "error" event besides.
    call.on("error", () => this.#over());
    call.on("close", () => this.#over());
    this.#frames = call[Symbol.asyncIterator]();
  }

  write(frame: Request): Promise<void> {
    return new Promise((resolve) => {
      if (this.#lost) return resolve();
      this.#written = resolve;
      this.#call.write(frame, () => resolve());
    });
  }

  end(): void {
    this.#call.end();
  }

  async read(): Promise<Response | undefined> {
    try {
      const { done, value } = await this.#frames.next();
      return done ? undefined : value;
    } catch (error) {
      throw asFault(error);
    } finally {
      if (this.#call.readableEnded) this.#over();
    }
  }

  cancel(): void {
    this.#call.cancel();
    this.#over();
  }

  #over(): void {
    this.#lost = true;
    this.#written();
  }
}

function asFault(error: unknown): LetterlockError {
  if (error instanceof Error && "code" in error && typeof error.code === "number") {
    if (error.code === status.CANCELLED) return new Unavailable("the stream was cut off");
    return fromRpc(error as Parameters<typeof fromRpc>[0]);
  }
  return new Unavailable("the stream was cut off");
}

function codec<Request extends Message, Response extends Message>(
  method: Method<Request, Response>,
) {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    encode: (request: Request) => Buffer.from(toBinary(method.input, request)),
    decode: (bytes: Buffer) => fromBinary(method.output, bytes),
  };
}

function credentialsOf({ ca, insecure }: ChannelOptions) {
  if (insecure) {
    if (ca === undefined) return credentials.createInsecure();
    throw new InvalidRequest("both given", { field: "insecure", limit: "cannot be set with ca" });
  }
  const path = ca ?? process.env[CA_VARIABLE];
  return credentials.createSsl(path === undefined ? null : readCa(path));
}

function readCa(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const why = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    throw new InvalidRequest(`cannot be read: ${why}`, {
      field: "ca",
      limit: "a readable PEM file",
    });
  }
}
