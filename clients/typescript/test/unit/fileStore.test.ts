import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { appendFile, mkdtemp, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { FileStore } from "../../src/device/fileStore.js";
import { Journal } from "../../src/device/journal.js";
import { DeviceError } from "../../src/errors.js";

const KEY = new Uint8Array(32).fill(7);
const bytes = (text: string) => new Uint8Array(Buffer.from(text));
const row = (name: string, value: string | null) =>
  new Map([[name, value === null ? null : bytes(value)]]);

let folder = "";
let path = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "letterlock-"));
  path = join(folder, "device");
});
afterEach(() => rm(folder, { recursive: true }));

async function withStore<T>(use: (store: FileStore) => Promise<T>, key?: Uint8Array): Promise<T> {
  const store = new FileStore(path, key === undefined ? {} : { key });
  await store.load();
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

async function rowsOf(key?: Uint8Array): Promise<Record<string, string>> {
  const store = new FileStore(path, key === undefined ? {} : { key });
  const rows = await store.load();
  await store.close();
  return Object.fromEntries(
    [...rows].map(([name, value]) => [name, Buffer.from(value).toString()]),
  );
}

/** The file as a process leaves it that is killed after these commits. */
async function crashed(...commits: [string, string | null][]): Promise<void> {
  const journal = new Journal();
  let file = journal.header();
  for (const [name, value] of [["first", "1"] as [string, string], ...commits]) {
    file = Buffer.concat([file, journal.record(row(name, value), file.length)]);
  }
  await writeFile(path, file);
}

for (const key of [undefined, KEY]) {
  test(`rows come back ${key ? "sealed" : "in clear"}, for the owner alone`, async () => {
    await withStore(async (store) => {
      await store.commit(row("a", "secret"));
      await store.commit(new Map([...row("b", ""), ...row("c", "3")]));
      await store.commit(row("c", null));
    }, key);
    assert.deepEqual(await rowsOf(key), { a: "secret", b: "" });
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.equal((await readFile(path)).includes("secret"), key === undefined);
  });
}

test("a commit is in the file before it counts", async () => {
  const store = new FileStore(path);
  await store.load();
  await store.commit(row("a", "1"));
  assert.deepEqual(new Journal().read(await readFile(path)).get("a"), bytes("1"));
  await store.close();
});

test("a last record that is cut off anywhere is left out, and the rest stays", async () => {
  await crashed(["a", "1"], ["b", "2"]);
  const whole = (await stat(path)).size;
  await crashed(["a", "1"]);
  const before = (await stat(path)).size;
  for (let size = before; size < whole; size += 1) {
    await crashed(["a", "1"], ["b", "2"]);
    await truncate(path, size);
    assert.deepEqual(await rowsOf(), { first: "1", a: "1" }, String(size));
  }
});

test("damage before the last record, another key and another file are refused, and kept", async () => {
  await crashed(["a", "1"], ["b", "2"]);
  const damaged = await readFile(path);
  damaged.writeUInt8(damaged.readUInt8(60) ^ 1, 60);
  const sealed = new Journal(KEY);
  const header = sealed.header();
  const closed = Buffer.concat([header, sealed.record(row("a", "1"), header.length)]);
  const files: [Buffer, Uint8Array | undefined, string][] = [
    [damaged, undefined, "store"],
    [Buffer.from("something else"), undefined, "store"],
    [new Journal().header(), undefined, "store"],
    [closed, undefined, "store"],
    [closed, new Uint8Array(32), "key"],
  ];
  for (const [file, key, field] of files) {
    await writeFile(path, file);
    await assert.rejects(
      rowsOf(key),
      (error: unknown) => error instanceof DeviceError && error.field === field && !!error.limit,
    );
    assert.deepEqual(await readFile(path), file);
  }
  assert.throws(() => new FileStore(path, { key: new Uint8Array(31) }), DeviceError);
});

test("records cannot be moved or left out", async () => {
  const journal = new Journal(KEY);
  const header = journal.header();
  const [first, second] = ["a", "b"].map((name) => journal.record(row(name, "1"), header.length));
  const file = Buffer.concat([header, first ?? header, second ?? header, Buffer.of(0)]);
  assert.throws(() => journal.read(file), DeviceError);
});

test("a file that has grown is written anew, and says the same", async () => {
  await withStore(async (store) => {
    const large = "x".repeat(100_000);
    for (let n = 0; n < 60; n += 1) await store.commit(row("large", `${large}${n}`));
    assert.ok((await stat(path)).size < 2_000_000);
  });
  assert.match((await rowsOf()).large ?? "", /x59$/);
});

test("what was deleted is gone from the file after closing", async () => {
  await withStore(async (store) => {
    await store.commit(row("a", "content"));
    await store.commit(row("a", null));
  });
  assert.equal((await readFile(path)).includes("content"), false);
  await withStore(async (store) => {
    await store.commit(row("a", "content"));
    await store.clear();
    assert.equal((await readFile(path)).includes("content"), false);
  });
});

test("one user at a time; the lock of a process that was killed is taken over", async () => {
  await withStore(async () => {
    await assert.rejects(new FileStore(path).load(), /in use/);
  });
  await writeFile(`${path}.lock`, String(process.ppid)); // somebody who runs
  await assert.rejects(new FileStore(path).load(), /in use/);
  const gone = spawnSync(process.execPath, ["-e", "console.log(process.pid)"]).stdout.toString();
  for (const stale of [gone, String(process.pid), ""]) {
    await writeFile(`${path}.lock`, stale);
    await rowsOf();
  }
  await assert.rejects(stat(`${path}.lock`));
});

test("a file that cannot be written is told by field and limit, without its path", async () => {
  const store = new FileStore(join(folder, "missing", "device"));
  await assert.rejects(
    store.load(),
    (error: unknown) =>
      error instanceof DeviceError && error.field === "store" && !error.message.includes(folder),
  );
  await appendFile(path, "");
  assert.deepEqual(await rowsOf(), {}); // an empty file is a new one
});
