import { mkdtempSync, rmSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { type OrphanFacts, rememberNode, waitForOrphans } from "./orphans.ts";

const lost: OrphanFacts = { isNewNode: true, hadNode: true, knownPods: 0, orphans: 3 };

/** How long pods unknown to the API go on, in minutes, and what was said. */
async function hold(facts: OrphanFacts): Promise<{ minutes: number; said: string[] }> {
  const clock = new FakeClock();
  const said: string[] = [];
  let isOver = false;
  const deps = { clock, log: silentLogger, warn: (text: string) => void said.push(text) };
  const waiting = waitForOrphans(facts, deps, new AbortController().signal).then(() => {
    isOver = true;
  });
  let minutes = 0;
  for (await settle(); !isOver; minutes++) await clock.advance(60_000);
  await waiting;
  return { minutes, said };
}

describe("pods that the API does not know", () => {
  test("go on for ten minutes where the store seems lost", async () => {
    const { minutes, said } = await hold(lost);
    expect(minutes).toBe(10);
    expect(said).toEqual([expect.stringMatching(/knows neither this node nor its 3 running pods/)]);
  });

  test.each<[string, Partial<OrphanFacts>]>([
    ["the node is known", { isNewNode: false }],
    ["this machine never had a node", { hadNode: false }],
    ["other pods of it are known", { knownPods: 1 }],
    ["nothing runs", { orphans: 0 }],
  ])("end at once where %s", async (_, more) => {
    expect(await hold({ ...lost, ...more })).toEqual({ minutes: 0, said: [] });
  });

  test("go on when the agent ends while it waits", async () => {
    const stop = new AbortController();
    const deps = { clock: new FakeClock(), log: silentLogger, warn: () => {} };
    const waiting = waitForOrphans(lost, deps, stop.signal);
    stop.abort(new Error("stop"));
    await expect(waiting).rejects.toThrow("stop");
  });
});

test("a machine remembers that it had a node", async () => {
  const folder = mkdtempSync("/tmp/mote-orphans-");
  expect(await rememberNode(folder)).toBe(false);
  expect(await rememberNode(folder)).toBe(true);
  rmSync(folder, { recursive: true });
});
