// Time and chance come in through these two. Logic measures with `monotonicMs`; `now` is only for what people or
// certificates read, because a board without a battery boots in 1970. Real ones: platform/clock.ts, platform/random.ts;
// simulated ones: test/harness.
import { isAbort } from "./errors.ts";

export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump in either direction. */
  now(): number;
  /** Milliseconds since an arbitrary start; never goes back. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with `signal.reason` when aborted before. Leaves no timer or listener behind. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `callback` once after `ms`; the returned function cancels. For deadlines that are mostly cancelled. */
  after(ms: number, callback: () => void): () => void;
}

/** Sleeps, or returns early when `signal` aborts; any other failure of the clock is passed on. */
export async function pause(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await clock.sleep(ms, signal);
  } catch (error) {
    if (!signal || !isAbort(error, signal)) throw error;
  }
}

export interface Random {
  /** Uniform in [0, 1). */
  float(): number;
  /** `size` bytes; from the real source they are fit for keys and tokens. */
  bytes(size: number): Uint8Array;
  /** RFC 4122 version 4, lower case. */
  uuid(): string;
}

/** An upstream-style name suffix of `length` characters without vowels or look-alikes (as generateName appends). */
export function randomSuffix(random: Random, length = 5): string {
  const alphabet = "bcdfghjklmnpqrstvwxz2456789";
  let out = "";
  for (let i = 0; i < length; i++) out += alphabet[Math.floor(random.float() * alphabet.length)];
  return out;
}

/** RFC 3339 with whole seconds, as metav1.Time prints. */
export function rfc3339(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** RFC 3339 with six fractional digits, as metav1.MicroTime prints. */
export function rfc3339Micro(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 23)}000Z`;
}
