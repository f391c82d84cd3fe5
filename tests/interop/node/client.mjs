// Which official client to use, by its package name on the command line: 0.90 (the default, the
// last that accepts a peer without SPQR) or 0.103. `own` gives the local address to those calls
// that want one since 0.92.

const DEFAULT = '@signalapp/libsignal-client';
export const name = process.argv[2] ?? DEFAULT;
export const signal = await import(name);
export const own = (address) => (name === DEFAULT ? [] : [address]);
