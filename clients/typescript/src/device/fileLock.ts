/**
 * Keeps two processes of one machine from using a device's file: a file beside it names the process.
 *
 * Node has no flock. So the lock outlives a process that was killed; it is taken over when nobody runs
 * under its number any more. It does not reach over machines: keep a device's file on one.
 */

import { link, readFile, unlink, writeFile } from "node:fs/promises";
import { DeviceError } from "../errors.js";

/** The locks of this process: its own number in a lock file may be a former life's. */
const held = new Set<string>();

/** One lock file. */
export class FileLock {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /** Take the lock. Throws DeviceError when a running process has it. */
  async take(): Promise<void> {
    if (held.has(this.#path)) throw inUse();
    held.add(this.#path);
    try {
      if (await this.#tryTake()) return;
      await this.#removeStale();
      if (!(await this.#tryTake())) throw inUse();
    } catch (error) {
      held.delete(this.#path);
      throw error;
    }
  }

  /** Give it back. */
  async release(): Promise<void> {
    await unlink(this.#path).catch(() => undefined);
    held.delete(this.#path);
  }

  // A link appears with its content or not at all: nobody reads a lock that names no process yet.
  async #tryTake(): Promise<boolean> {
    const own = `${this.#path}.${process.pid}`;
    await writeFile(own, String(process.pid), { mode: 0o600 });
    try {
      await link(own, this.#path);
      return true;
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
      throw error;
    } finally {
      await unlink(own);
    }
  }

  async #removeStale(): Promise<void> {
    const holder = Number(await readFile(this.#path, "utf8").catch(() => ""));
    if (holder !== process.pid && holder > 0 && isRunning(holder)) throw inUse();
    await unlink(this.#path).catch(() => undefined);
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

function inUse(): DeviceError {
  const limit = "a file that no other process uses";
  return new DeviceError("device file is in use", { field: "store", limit });
}
