/**
 * Where a device keeps its state: named rows of bytes, changed in whole transactions.
 *
 * The rows hold private keys and message content. This module does not know what a row means. The
 * store in a file is fileStore.ts.
 */

type Bytes = Uint8Array<ArrayBuffer>;

/** Rows to write; null deletes. */
export type Changes = ReadonlyMap<string, Bytes | null>;

/** The rows of one device. One Device at a time may use them: two would fork its ratchets. */
export interface DeviceStore {
  /** All rows. Throws DeviceError where they cannot be read. */
  load(): Promise<Map<string, Bytes>>;
  /** Make all changes, durably, or none. Throws DeviceError. */
  commit(changes: Changes): Promise<void>;
  /** Delete every row, durably. Throws DeviceError. */
  clear(): Promise<void>;
  /** Let go of what load() took. */
  close(): Promise<void>;
}

/** Rows that die with the process: for tests and load generators. */
export class MemoryStore implements DeviceStore {
  readonly rows = new Map<string, Bytes>();

  async load(): Promise<Map<string, Bytes>> {
    return new Map(this.rows);
  }

  async commit(changes: Changes): Promise<void> {
    applyChanges(this.rows, changes);
  }

  async clear(): Promise<void> {
    this.rows.clear();
  }

  /** Keeps the rows for a later load(). */
  async close(): Promise<void> {}
}

/** Make changes to rows in memory. */
export function applyChanges(rows: Map<string, Bytes>, changes: Changes): void {
  for (const [name, value] of changes) {
    if (value === null) rows.delete(name);
    else rows.set(name, value);
  }
}
