// Assertions for programmer errors. Always on, in release too: a broken invariant must stop before it is written.

export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** One condition per call, so that the message names what broke. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
