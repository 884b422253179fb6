// Two API servers on one datastore hand out numbers at the same time; none goes out twice, and all come back.
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createNumberClaims } from "../../number-claims.ts";
import { Allocator } from "./allocator.ts";
import { SharedAllocator } from "./shared-allocator.ts";

const bounds = { first: 1, last: 40, reservedAtStart: 8 };
const clock = new FakeClock();
let backend: Backend;
/** What services hold. */
const stored: number[] = [];

beforeEach(async () => {
  stored.splice(0);
  backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
});
afterEach(() => backend.close());

const used = async () => [...stored];
const shared = (seed: number) => {
  const claims = createNumberClaims("test", { backend, log: silentLogger });
  return new SharedAllocator(bounds, { random: seededRandom(seed), used, claims });
};

test("no number goes out twice", async () => {
  const take = async (one: { next(): Promise<number | undefined> }) => {
    const number = await one.next();
    if (number !== undefined) stored.push(number);
  };
  const [a, b] = [shared(1), shared(2)];
  for (let i = 0; i < 10; i++) await Promise.all([take(a), take(b), take(a), take(b)]);
  expect([...new Set(stored)].length).toBe(stored.length);
  expect(stored.length).toBeGreaterThan(30);
  // The same with allocators that know nothing of each other, as a control.
  stored.splice(0);
  const alone = (seed: number) => new Allocator(bounds, { random: seededRandom(seed), used });
  const [c, d] = [alone(1), alone(2)];
  for (let i = 0; i < 10; i++) await Promise.all([take(c), take(d), take(c), take(d)]);
  expect([...new Set(stored)].length).toBeLessThan(stored.length);
});

test("one that is asked for is refused while another has it, and given when it is free again", async () => {
  const [a, b] = [shared(1), shared(2)];
  expect(await a.take(7)).toBe(true);
  expect(await b.take(7)).toBe(false);
  a.release(7);
  await clock.advance(10);
  expect(await b.take(7)).toBe(true);
  stored.push(7);
  expect(await a.take(7)).toBe(false);
  // Deleted through any server: the claim of the write that made it is over soon.
  stored.splice(0);
  await clock.advance(15_000);
  expect(await a.take(7)).toBe(true);
  expect([a.contains(0), a.contains(40), a.contains(41)]).toEqual([false, true, false]);
});
