// Numbers handed out once where several servers hand out the same ones: a number is claimed in the datastore, then looked for
// in what is stored, and only then used, in a write that counts only while the claim is there. A claim ends by itself, and
// whoever claims the number next sees what was stored before; so no two servers give out the same, however slow one is.
// Upstream counterpart: the RangeAllocation objects of registry/core/service/allocator/storage.
import type { Random } from "#base/clock.ts";
import type { Compare } from "#datastore/backend.ts";
import { serviceUnavailable } from "#model/status.ts";
import type { Guard } from "../guard.ts";
import { Allocator, type AllocatorDependencies, type AllocatorOptions, pickFree } from "./allocator.ts";

/** Of one kind of numbers. */
export interface NumberClaims {
  /** False: somebody else has it. */
  take(number: number): Promise<boolean>;
  /** What holds in the datastore as long as it is ours; undefined: it is not. */
  held(number: number): Compare | undefined;
  /** Nothing where it is not ours. */
  drop(number: number): void;
}

/** Numbers of one kind, as this server has to hand them out. */
export interface Numbers extends Pick<Allocator, "contains" | "take" | "next" | "release"> {
  /** For the write of what a number was just taken for. */
  guard(number: number): Guard | undefined;
}

export interface NumbersDeps {
  readonly random: Random;
  /** Where other servers hand out the same numbers. */
  readonly claims?: ((kind: string) => NumberClaims) | undefined;
}

export const numbersOf = (
  kind: string,
  bounds: AllocatorOptions,
  { claims, ...deps }: NumbersDeps & AllocatorDependencies,
): Numbers => (claims ? new SharedAllocator(bounds, { ...deps, claims: claims(kind) }) : new Allocator(bounds, deps));

/** Clashes are rare: more in a row mean that others take faster than we do. */
const mostTries = 32;

/** What cannot hold: the claim was lost before it was used. */
const never: Compare = { key: "/mote/claims/", target: "create", op: "<", value: 0 };

export class SharedAllocator implements Numbers {
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

  guard(number: number): Guard {
    return {
      compare: this.#deps.claims.held(number) ?? never,
      refuse: () => serviceUnavailable("the datastore was too slow for what this object was given; try again"),
    };
  }

  release(number: number): void {
    this.#deps.claims.drop(number);
  }
}
