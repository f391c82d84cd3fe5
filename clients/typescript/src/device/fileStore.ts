/**
 * A device's rows in a file: each commit is appended and flushed to the disk before it counts.
 *
 * The file is readable by its owner alone (mode 0600); with a `key` it is sealed with AES-256-GCM as
 * well, so that a copy is worth nothing without the key. Rows that were replaced or deleted leave the
 * file when it is written anew: at each opening and closing, and when it has grown to four times what
 * it says. What the bytes mean is journal.ts.
 */

import { constants } from "node:fs";
import { type FileHandle, open, readFile, rename, unlink } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { DeviceError, LetterlockError } from "../errors.js";
import { Turns } from "../waiting.js";
import { FileLock } from "./fileLock.js";
import { Journal } from "./journal.js";
import { applyChanges, type Changes, type DeviceStore } from "./store.js";

const OWNER_ONLY = 0o600;
const SMALL_FILE = 1024 * 1024;
const GROWTH = 4;

/** Rows in a file, locked while in use. */
export class FileStore implements DeviceStore {
  readonly #path: string;
  readonly #journal: Journal;
  readonly #lock: FileLock;
  readonly #turns = new Turns();
  #rows = new Map<string, Uint8Array<ArrayBuffer>>();
  #file: FileHandle | undefined;
  #size = 0;
  #smallest = 0;

  /** `key`: 32 bytes kept elsewhere; none: the file's mode is its only protection. */
  constructor(path: string, { key }: { key?: Uint8Array } = {}) {
    this.#path = resolve(path);
    this.#journal = new Journal(key);
    this.#lock = new FileLock(`${this.#path}.lock`);
  }

  /** Lock the file (made when missing), read every row, and write it anew. */
  load(): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
    return this.#run(async () => {
      await this.#lock.take();
      try {
        const file = await this.#read();
        this.#rows = file === undefined ? new Map() : this.#journal.read(file);
        await this.#writeAnew();
      } catch (error) {
        await this.#lock.release();
        throw error;
      }
      return new Map(this.#rows);
    });
  }

  commit(changes: Changes): Promise<void> {
    return this.#run(async () => {
      const record = this.#journal.record(changes, this.#size);
      await append(this.#opened, record, this.#size);
      this.#size += record.length;
      applyChanges(this.#rows, changes);
      if (this.#size > Math.max(SMALL_FILE, GROWTH * this.#smallest)) await this.#writeAnew();
    });
  }

  clear(): Promise<void> {
    return this.#run(async () => {
      this.#rows.clear();
      await this.#writeAnew();
    });
  }

  /** Write the file anew, so that nothing is left in it that is over, and unlock it. */
  close(): Promise<void> {
    return this.#run(async () => {
      if (this.#file === undefined) return;
      try {
        await this.#writeAnew();
      } finally {
        await this.#opened.close();
        this.#file = undefined;
        await this.#lock.release();
      }
    });
  }

  get #opened(): FileHandle {
    if (this.#file === undefined) throw new DeviceError("device file is not open");
    return this.#file;
  }

  async #read(): Promise<Buffer | undefined> {
    try {
      const file = await readFile(this.#path);
      return file.length > 0 ? file : undefined;
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  // The new file is whole on the disk before it takes the old one's name, so a crash leaves one of
  // the two.
  async #writeAnew(): Promise<void> {
    const path = `${this.#path}.new`;
    const file = await open(path, constants.O_CREAT | constants.O_RDWR | constants.O_TRUNC, 0o600);
    try {
      await file.chmod(OWNER_ONLY);
      const header = this.#journal.header();
      const bytes = Buffer.concat([header, this.#journal.record(this.#rows, header.length)]);
      await append(file, bytes, 0);
      await rename(path, this.#path);
      await flushFolder(dirname(this.#path));
      this.#size = this.#smallest = bytes.length;
    } catch (error) {
      await file.close();
      await unlink(path).catch(() => undefined);
      throw error;
    }
    await this.#file?.close();
    this.#file = file;
  }

  async #run<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await this.#turns.run(work);
    } catch (error) {
      if (error instanceof LetterlockError) throw error;
      throw new DeviceError(`device file cannot be used: ${codeOf(error)}`, {
        field: "store",
        limit: "a writable file that no other process uses",
      });
    }
  }
}

async function append(file: FileHandle, bytes: Buffer, place: number): Promise<void> {
  let written = 0;
  while (written < bytes.length) {
    const left = bytes.subarray(written);
    written += (await file.write(left, 0, left.length, place + written)).bytesWritten;
  }
  await file.datasync();
}

async function flushFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown";
}
