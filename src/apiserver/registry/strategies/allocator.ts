// Numbers handed out once: offsets of cluster IPs, node ports. The set in memory is only a hint made from the stored
// objects; on every clash it is made again from them, so that what leaked (a crash, a changed type) comes back by
// itself. Upstream counterpart: registry/core/service/{ipallocator,portallocator} with their repair loops.
import type { Random } from "#base/clock.ts";

export interface AllocatorOptions {
  /** First and last number, both included. */
  readonly first: number;
  readonly last: number;
  /** Up to this many numbers at the start are left to clients that ask by number, while others are free. */
  readonly reservedAtStart: number;
}

export interface AllocatorDependencies {
  readonly random: Random;
  /** What the stored objects hold. */
  used(): Promise<Iterable<number>>;
}

export class Allocator {
  readonly #options: AllocatorOptions;
  readonly #dependencies: AllocatorDependencies;
  /** Undefined until first asked; at most last - first + 1 entries. */
  #used: Set<number> | undefined;
  /** Handed out and not yet seen in the store: their writes may be under way, so a repair must not give them away. */
  readonly #pending = new Set<number>();

  constructor(options: AllocatorOptions, dependencies: AllocatorDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  contains(number: number): boolean {
    return number >= this.#options.first && number <= this.#options.last;
  }

  /** Takes just this one; false when somebody has it. */
  async take(number: number): Promise<boolean> {
    let used = this.#used ?? (await this.#load());
    if (used.has(number)) used = await this.#load();
    if (used.has(number)) return false;
    this.#mark(used, number);
    return true;
  }

  /** Any free one; undefined when all are taken. */
  async next(): Promise<number | undefined> {
    for (const reload of [false, true]) {
      const used = reload || !this.#used ? await this.#load() : this.#used;
      const number = pickFree(this.#options, used, this.#dependencies.random);
      if (number === undefined) continue;
      this.#mark(used, number);
      return number;
    }
    return undefined;
  }

  /** It was handed out and then found to be somebody else's: it stays taken until the store is read again. */
  lose(number: number): void {
    this.#pending.delete(number);
  }

  /** Nobody else hands out the same. */
  guard(_number: number): undefined {
    return undefined;
  }

  release(number: number): void {
    this.#pending.delete(number);
    this.#used?.delete(number);
  }

  #mark(used: Set<number>, number: number): void {
    used.add(number);
    this.#pending.add(number);
  }

  async #load(): Promise<Set<number>> {
    const used = new Set(await this.#dependencies.used());
    for (const number of this.#pending) {
      if (used.has(number)) this.#pending.delete(number);
      else used.add(number);
    }
    this.#used = used;
    return used;
  }
}

/** Any free one, of those that are not kept for who asks by number as long as there are others. */
export function pickFree(
  { first, last, reservedAtStart }: AllocatorOptions,
  used: ReadonlySet<number>,
  random: Random,
): number | undefined {
  return pickBetween(first + reservedAtStart, last, used, random) ?? pickBetween(first, last, used, random);
}

/** A random start, then upwards and around: every number is looked at once at most. */
function pickBetween(first: number, last: number, used: ReadonlySet<number>, random: Random): number | undefined {
  const size = last - first + 1;
  const start = Math.floor(random.float() * size);
  for (let i = 0; i < size; i++) {
    const number = first + ((start + i) % size);
    if (!used.has(number)) return number;
  }
  return undefined;
}
