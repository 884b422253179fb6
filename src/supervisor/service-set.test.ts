import { expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { createServiceSet } from "./service-set.ts";

/** A set over a list that the test changes, and what has become of its services. */
function open(make: (name: string) => Service["run"]) {
  const clock = new FakeClock();
  const said: string[] = [];
  const log = createLogger((_level, message, fields) => said.push(`${message}: ${String(fields["service"])}`), "info");
  let names: readonly string[] = [];
  let changed = () => {};
  const set = createServiceSet(
    {
      name: "relays",
      names: () => names,
      onChange(listener) {
        changed = listener;
        return () => {};
      },
      make: (name) => ({ name, run: make(name) }),
    },
    { clock, log },
  );
  const stop = new AbortController();
  const done = set.run(stop.signal, () => {});
  return {
    ...{ clock, said },
    set(next: readonly string[]) {
      names = next;
      changed();
      return settle();
    },
    close() {
      stop.abort(new Error("the test is over"));
      return done;
    },
  };
}

test("one runs for each name while it stands in the list", async () => {
  const running = new Set<string>();
  const set = open((name) => async (signal) => {
    running.add(name);
    await untilAborted(signal);
    running.delete(name);
  });
  await set.set(["a", "b"]);
  expect([...running]).toEqual(["a", "b"]);
  await set.set(["b", "c"]);
  expect([...running]).toEqual(["b", "c"]);
  await set.close();
  expect([...running]).toEqual([]);
});

test("one that fails, or ends by itself, comes back after pauses that grow; others go on", async () => {
  const starts: Record<string, number> = { bad: 0, ended: 0, good: 0 };
  const set = open((name) => async (signal) => {
    starts[name]!++;
    if (name === "bad") throw new Error("broken");
    if (name === "good") await untilAborted(signal);
  });
  await set.set(["bad", "ended", "good"]);
  expect(starts).toEqual({ bad: 1, ended: 1, good: 1 });
  expect(set.said).toEqual(["service failed, restarting: relays bad", "service ended, restarting: relays ended"]);
  // 200 ms, then 400.
  await set.clock.advance(250);
  expect(starts).toEqual({ bad: 2, ended: 2, good: 1 });
  await set.clock.advance(250);
  expect(starts).toEqual({ bad: 2, ended: 2, good: 1 });
  await set.clock.advance(200);
  expect(starts).toEqual({ bad: 3, ended: 3, good: 1 });
  // However long it goes on, it is tried; and one whose name has gone is not.
  await set.clock.advance(60_000);
  expect(starts["bad"]).toBeGreaterThan(8);
  await set.set(["good"]);
  const { bad } = starts;
  await set.clock.advance(60_000);
  expect(starts["bad"]).toBe(bad);
  expect(starts["good"]).toBe(1);
  await set.close();
});

test("one that cannot even be made is tried again", async () => {
  let attempts = 0;
  const set = open(() => {
    if (++attempts < 3) throw new Error("no key yet");
    return (signal) => untilAborted(signal);
  });
  await set.set(["a"]);
  await set.clock.advance(1000);
  expect(attempts).toBe(3);
  await set.close();
});
