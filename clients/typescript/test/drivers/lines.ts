/**
 * Operations and answers as lines of JSON, for a test that drives a client in a process of its own.
 *
 * In, on standard input, one operation a line with an `op`. Out, on standard output, an answer for each
 * operation, in order: {"ok": true, ...} or {"ok": false, "error": {name, reason, field, limit}}; and in
 * between, unasked, lines with an `event`.
 */

import { createInterface } from "node:readline";

/** What one operation was given. */
export type Fields = Record<string, string> & { readonly op: string };

/** The operations of a client, by name; each gives what its answer tells. */
export type Operations = Record<string, (fields: Fields) => Promise<object | undefined>>;

/** Tell something; settles when it is written. */
export function print(line: object): Promise<void> {
  return new Promise((resolve) =>
    process.stdout.write(`${JSON.stringify(line)}\n`, () => resolve()),
  );
}

/** Carry out the operations that come, one after the other, until the input ends. */
export async function serve(operations: Operations): Promise<never> {
  for await (const line of createInterface({ input: process.stdin })) {
    const fields = JSON.parse(line) as Fields;
    const operation = operations[fields.op];
    try {
      if (operation === undefined) throw new Error(`no operation ${fields.op}`);
      await print({ ok: true, ...(await operation(fields)) });
    } catch (error) {
      await print({ ok: false, error: describe(error) });
    }
  }
  process.exit(0);
}

/** An error as a line tells it. */
export function describe(error: unknown): object {
  if (!(error instanceof Error)) return { name: "?", detail: String(error) };
  const { name, message, ...rest } = error;
  return { name, detail: message, ...rest };
}
