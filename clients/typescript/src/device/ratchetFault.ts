/** Why a ciphertext does not open: our own verdicts and libsignal's, as one error with a reason. */

import { ErrorCode, LibSignalErrorBase } from "@signalapp/libsignal-client";

/** A message cannot be opened, or a session cannot be made; nothing was changed. */
export class RatchetFault extends Error {
  /** For example INVALID_MESSAGE, DUPLICATED_MESSAGE, UNTRUSTED_IDENTITY. */
  readonly reason: string;

  constructor(reason: string) {
    super(reason);
    this.name = "RatchetFault";
    this.reason = reason;
  }
}

/** `error` as a RatchetFault; anything that is no verdict on a message is a bug, and thrown on. */
export function asRatchetFault(error: unknown): RatchetFault {
  if (error instanceof RatchetFault) return error;
  if (!(error instanceof LibSignalErrorBase)) throw error;
  const reason = ErrorCode[error.code] ?? "Generic";
  if (error.code === ErrorCode.Generic) return new RatchetFault("INVALID_MESSAGE");
  return new RatchetFault(reason.replace(/(?<=[a-z])[A-Z]/g, "_$&").toUpperCase());
}
