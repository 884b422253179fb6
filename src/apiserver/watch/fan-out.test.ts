import { expect, test } from "vitest";
import type { Clock } from "#base/clock.ts";
import { nextTurn } from "#platform/turns.ts";
import { FanOut } from "./fan-out.ts";

/** Streams over some connections; each write takes a millisecond. */
function streamsOver(connections: number, each: number) {
  let nowMs = 0;
  const fanOut = new FanOut({ clock: { monotonicMs: () => nowMs } as Clock });
  const written: number[] = [];
  const hosts = Array.from({ length: connections }, () => ({}));
  const streams = Array.from({ length: connections * each }, (_, i) => {
    const pending: number[] = [];
    const stream = {
      connection: hosts[i % connections]!,
      write(n: number) {
        pending.push(n);
        if (pending.length === 1 && fanOut.mayWrite(stream.connection, stream)) stream.flush();
      },
      flush() {
        nowMs++;
        written.push(i);
        pending.length = 0;
      },
    };
    return stream;
  });
  return { streams, written };
}

test("few write at once", () => {
  const { streams, written } = streamsOver(2, 1);
  for (const stream of streams) stream.write(1);
  expect(written).toEqual([0, 1]);
});

test("many take turns, a connection at a time, and nobody is left out", async () => {
  const { streams, written } = streamsOver(4, 10);
  for (const stream of streams) stream.write(1);
  // Five milliseconds of forty.
  expect(written).toHaveLength(5);
  let turns = 0;
  while (written.length < 40 && turns < 100) {
    const before = written.length;
    await nextTurn();
    turns++;
    // A connection has ten at most, so that is what a turn may be late by.
    expect(written.length - before).toBeLessThanOrEqual(15);
  }
  expect([...written].sort((a, b) => a - b)).toEqual(streams.map((_, i) => i));
  const order = written.slice(5).map((i) => i % 4);
  expect(order).toEqual([...order].sort((a, b) => order.indexOf(a) - order.indexOf(b)));
  // When all is out, the next one is at once again.
  await nextTurn();
  await nextTurn();
  streams[7]!.write(2);
  expect(written.at(-1)).toBe(7);
});

test("what comes meanwhile waits behind", async () => {
  const { streams, written } = streamsOver(1, 20);
  for (const stream of streams) stream.write(1);
  for (const stream of streams) stream.write(2);
  expect(written).toHaveLength(5);
  for (let turn = 0; turn < 20; turn++) await nextTurn();
  // Both events of a stream that waited went in one write.
  expect(written.filter((i) => i === 19)).toHaveLength(1);
  expect(new Set(written).size).toBe(20);
});
