import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger as log } from "#base/log.ts";
import { noteHome, planHome, settleHome } from "./home-cluster.ts";
import { rememberNode } from "./orphans.ts";

let dataFolder: string;
beforeEach(() => {
  dataFolder = mkdtempSync(join(tmpdir(), "mote-home-"));
});
afterEach(() => rmSync(dataFolder, { recursive: true, force: true }));

const memoryFolder = () => join(dataFolder, "remembered");
const settle = (...keys: string[]) => settleHome({ dataFolder, memoryFolder: memoryFolder(), keys }, log);

/** Whether what a run has remembered is still there, and that the machine had a Node. */
async function kept(): Promise<boolean[]> {
  return [existsSync(join(memoryFolder(), "pod.json")), await rememberNode(dataFolder)];
}
async function remember(): Promise<void> {
  mkdirSync(memoryFolder(), { recursive: true });
  writeFileSync(join(memoryFolder(), "pod.json"), "{}");
  await rememberNode(dataFolder);
}

test.each([
  ["the first time that it is noted", undefined, ["a"], "changed"],
  ["as ever", ["a"], ["a"], "same"],
  ["new authorities, for which the old ones vouch", ["a"], ["b", "a"], "changed"],
  ["new ones again, and the oldest have gone", ["b", "a"], ["c", "b"], "changed"],
  ["none of those that were known", ["b", "a"], ["d"], "other"],
])("%s", (_name, before, now, home) => {
  expect(planHome(before, now)).toBe(home);
});

test("what is of another cluster is removed, once", async () => {
  await settle("a");
  await remember();
  await settle("d");
  expect(await kept()).toEqual([false, false]);
  await remember();
  await settle("d");
  expect(await kept()).toEqual([true, true]);
});

test("it outlives new authorities, whether the node ran or not when they came", async () => {
  // A node of before there was such a note.
  await remember();
  await settle("a");
  await settle("b", "a");
  await noteHome({ dataFolder, keys: ["c", "b"] });
  await settle("d", "c");
  expect(await kept()).toEqual([true, true]);
});

test("a node that moves while it runs is found out at the next start", async () => {
  await settle("a");
  await remember();
  await noteHome({ dataFolder, keys: ["d"] });
  expect(await kept()).toEqual([true, true]);
  await settle("d");
  expect(await kept()).toEqual([false, false]);
});
