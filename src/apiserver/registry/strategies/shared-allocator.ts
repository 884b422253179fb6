// Numbers handed out once where several servers hand out the same ones: a number is claimed in the datastore, then looked for
// in what is stored, and only then used. Whoever claimed it before has stored it by the time that the claim is gone; so no two
// servers give out the same. A claim ends by itself.
// Upstream counterpart: the RangeAllocation objects of registry/core/service/allocator/storage.
import type { Random } from "#base/clock.ts";
import { Allocator, type AllocatorDependencies, type AllocatorOptions, pickFree } from "./allocator.ts";

/** Of one kind of numbers. */
export interface NumberClaims {
  /** False: somebody else has it. */
  take(number: number): Promise<boolean>;
  /** Nothing where it is not ours. */
  drop(number: number): void;
}

export interface NumbersDeps {
  readonly random: Random;
  /** Where other servers hand out the same numbers. */
  readonly claims?: ((kind: string) => NumberClaims) | undefined;
}

/** Numbers of one kind, as this server has to hand them out. */
export const numbersOf = (
  kind: string,
  bounds: AllocatorOptions,
  { claims, ...deps }: NumbersDeps & AllocatorDependencies,
): Pick<Allocator, "contains" | "take" | "next" | "release"> =>
  claims ? new SharedAllocator(bounds, { ...deps, claims: claims(kind) }) : new Allocator(bounds, deps);

/** Clashes are rare: more in a row mean that others take faster than we do. */
const mostTries = 32;

export class SharedAllocator {
  readonly #options: AllocatorOptions;
  readonly #deps: AllocatorDependencies & { readonly claims: NumberClaims };

  constructor(options: AllocatorOptions, deps: AllocatorDependencies & { readonly claims: NumberClaims }) {
    this.#options = options;
    this.#deps = deps;
  }

  contains(number: number): boolean {
    return number >= this.#options.first && number <= this.#options.last;
  }

  async take(number: number): Promise<boolean> {
    const { claims, used } = this.#deps;
    if (!(await claims.take(number))) return false;
    for (const taken of await used()) {
      if (taken !== number) continue;
      claims.drop(number);
      return false;
    }
    return true;
  }

  async next(): Promise<number | undefined> {
    const { random, used } = this.#deps;
    const tried = new Set(await used());
    for (let i = 0; i < mostTries; i++) {
      const number = pickFree(this.#options, tried, random);
      if (number === undefined) return undefined;
      tried.add(number);
      if (await this.take(number)) return number;
    }
    return undefined;
  }

  release(number: number): void {
    this.#deps.claims.drop(number);
  }
}
