import { expect, test } from "vitest";
import { revision, type WatchEvent } from "../../backend.ts";
import { History } from "./history.ts";

const event = (at: number, key: string, size = 10): WatchEvent => ({
  type: "put",
  kv: {
    ...{ key, value: new Uint8Array(size), version: 1, lease: 0 },
    createRevision: revision(at),
    modRevision: revision(at),
  },
  prevKv: undefined,
});
const all = () => true;
const revisions = (events: readonly WatchEvent[]) => events.map(({ kv }) => kv.modRevision);

test("what is read is complete to where it says", () => {
  const history = new History(10);
  for (let at = 10; at < 20; at++) history.push(at, [event(at, at % 2 === 0 ? "/even" : "/odd"), event(at, "/both")]);
  const odd = history.read(12, 1000, 25, (key) => key === "/odd");
  expect([revisions(odd.events), odd.through]).toEqual([[13, 15, 17, 19], 25]);
  // Cut at a whole revision.
  const cut = history.read(12, 3, 25, all);
  expect([revisions(cut.events), cut.through]).toEqual([[12, 12, 13, 13], 13]);
  expect(history.read(26, 1000, 25, all)).toEqual({ events: [], through: 25 });
});

test("the oldest go when it grows too large, and it says from where on it is whole", () => {
  const history = new History(1, 100_000);
  for (let at = 1; at <= 5000; at++) history.push(at, [event(at, "/a", 700)]);
  expect(history.from).toBe(4901);
  const { events } = history.read(history.from, 10_000, 5000, all);
  expect(revisions(events)).toEqual(Array.from({ length: 100 }, (_, i) => 4901 + i));
});

test("one change that is larger than all of it is not kept", () => {
  const history = new History(1, 1000);
  history.push(7, [event(7, "/a", 5000)]);
  expect(history.from).toBe(8);
  history.restart(3);
  expect([history.from, history.read(3, 10, 5, all)]).toEqual([3, { events: [], through: 5 }]);
});
