import { expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { seatLimits, shareSeats } from "./seats.ts";
import { dealHand, flowHash } from "./shuffle-shard.ts";

const level = (shares: number, lendablePercent: number, borrowingLimitPercent?: number) => ({
  name: "x",
  shares,
  lendablePercent,
  borrowingLimitPercent,
});

test("nominal seats go by shares, and limits by per cent of them", () => {
  expect(seatLimits(600, [level(5, 0), level(40, 25, 50), level(100, 90), level(0, 0)])).toEqual([
    { nominal: 21, lower: 21, upper: 600 },
    { nominal: 166, lower: 124, upper: 249 },
    { nominal: 414, lower: 41, upper: 600 },
    { nominal: 0, lower: 0, upper: 600 },
  ]);
  expect(seatLimits(600, [level(0, 0)])).toEqual([{ nominal: 0, lower: 0, upper: 600 }]);
});

const limits = (nominal: number, lower: number, upper: number, demand: number) => ({ nominal, lower, upper, demand });

test.each([
  ["nobody asks: each has its own", [limits(10, 5, 20, 0), limits(10, 2, 20, 0)], [10, 10]],
  ["one borrows what is lendable", [limits(10, 5, 20, 0), limits(10, 2, 20, 50)], [5, 15]],
  ["a lender keeps what it uses", [limits(10, 0, 20, 8), limits(10, 2, 20, 50)], [8, 12]],
  ["not beyond the limit", [limits(10, 0, 20, 0), limits(10, 2, 13, 50)], [7, 13]],
  ["not more than is asked for", [limits(10, 0, 20, 0), limits(10, 2, 20, 12)], [8, 12]],
  ["by shares", [limits(30, 0, 99, 0), limits(20, 20, 99, 99), limits(10, 10, 99, 99)], [0, 40, 20]],
  [
    "what one does not take another does",
    [limits(30, 0, 99, 0), limits(20, 20, 99, 22), limits(10, 10, 99, 99)],
    [0, 22, 38],
  ],
])("%s", (_name, levels, seats) => {
  expect(shareSeats(levels)).toEqual(seats);
});

test("never more than there is, never less than is a level's own, whatever is asked for", () => {
  const random = seededRandom(3);
  const pick = (n: number) => Math.floor(random.float() * n);
  for (let i = 0; i < 1000; i++) {
    const configured = Array.from({ length: 1 + pick(8) }, () =>
      level(pick(100), pick(101), pick(2) === 0 ? undefined : pick(300)),
    );
    const levels = seatLimits(1 + pick(600), configured).map((each) => ({ ...each, demand: pick(700) }));
    const seats = shareSeats(levels);
    const sum = (list: readonly number[]) => list.reduce((all, each) => all + each, 0);
    expect(sum(seats)).toBeLessThanOrEqual(sum(levels.map(({ nominal }) => nominal)));
    for (const [n, { lower, upper, nominal, demand }] of levels.entries()) {
      expect(seats[n]).toBeGreaterThanOrEqual(Math.max(lower, Math.min(nominal, demand)));
      expect(seats[n]).toBeLessThanOrEqual(upper);
    }
  }
});

test("hands are of different queues, and flows seldom share theirs", () => {
  const seen = new Map<number, number>();
  const hands = Array.from({ length: 1000 }, (_, i) => dealHand(flowHash("schema", `user-${i}`), 128, 6));
  for (const hand of hands) {
    expect(new Set(hand).size).toBe(6);
    for (const card of hand) {
      expect(card).toBeGreaterThanOrEqual(0);
      expect(card).toBeLessThan(128);
      seen.set(card, (seen.get(card) ?? 0) + 1);
    }
  }
  // 47 of each on average.
  expect(seen.size).toBe(128);
  expect(Math.max(...seen.values())).toBeLessThan(90);
  const elephant = new Set(hands[0]);
  expect(hands.slice(1).filter((hand) => hand.every((card) => elephant.has(card)))).toEqual([]);
  expect(dealHand(flowHash("a", "b"), 3, 8).sort()).toEqual([0, 1, 2]);
  expect(flowHash("a", "b")).not.toBe(flowHash("ab", ""));
});
