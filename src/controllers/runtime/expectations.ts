// What a controller has asked for and not yet seen in its store. Stores lag behind writes; a controller that counts
// objects would create too many if it looked again before its own creations came back. Keyed by the owner's key.
// After five minutes the answer is believed lost and the store is trusted again.
// Upstream counterpart: pkg/controller/controller_utils.go, ControllerExpectations.
import type { Clock } from "#base/clock.ts";

const timeoutMs = 300_000;

interface Expected {
  creations: number;
  readonly deletions: Set<string>;
  readonly sinceMs: number;
}

export class Expectations {
  readonly #clock: Clock;
  readonly #expected = new Map<string, Expected>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  expectCreations(key: string, count: number): void {
    this.#at(key).creations += count;
  }
  /** A creation came back, or failed. */
  creationSeen(key: string): void {
    const expected = this.#expected.get(key);
    if (expected) expected.creations--;
  }
  expectDeletions(key: string, uids: readonly string[]): void {
    const expected = this.#at(key);
    for (const uid of uids) expected.deletions.add(uid);
  }
  deletionSeen(key: string, uid: string): void {
    this.#expected.get(key)?.deletions.delete(uid);
  }
  /** True when the store shows all that was asked for, or too much time has passed. */
  satisfied(key: string): boolean {
    const expected = this.#expected.get(key);
    if (!expected) return true;
    const isOver = this.#clock.monotonicMs() - expected.sinceMs > timeoutMs;
    if (isOver || (expected.creations <= 0 && expected.deletions.size === 0)) {
      this.#expected.delete(key);
      return true;
    }
    return false;
  }
  forget(key: string): void {
    this.#expected.delete(key);
  }

  #at(key: string): Expected {
    let expected = this.#expected.get(key);
    if (!expected) {
      expected = { creations: 0, deletions: new Set(), sinceMs: this.#clock.monotonicMs() };
      this.#expected.set(key, expected);
    }
    return expected;
  }
}
