import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger as log } from "#base/log.ts";
import { Allocations } from "./allocations.ts";

let dataFolder: string;
beforeEach(() => {
  dataFolder = mkdtempSync("/tmp/mote-allocations-");
});
afterEach(() => rmSync(dataFolder, { recursive: true, force: true }));

const opened = async () => {
  const allocations = new Allocations({ dataFolder, log });
  await allocations.open();
  return allocations;
};
const some = { main: { requests: { cpu: "1" } } };

test("what was allocated is known to the next run, what was given back is not", async () => {
  const first = await opened();
  await first.set("a", some);
  await first.set("b", some);
  first.forget("a");
  await first.set("c", some);
  const second = await opened();
  expect([second.get("a"), second.get("b"), second.get("c")]).toEqual([undefined, some, some]);
  second.keep(new Set(["c"]));
  expect(second.get("b")).toBeUndefined();
  await second.close();
  expect((await opened()).get("b")).toBeUndefined();
});
test("what cannot be written is not allocated", async () => {
  const allocations = await opened();
  await allocations.set("a", some);
  rmSync(dataFolder, { recursive: true });
  await expect(allocations.set("a", {})).rejects.toThrow("ENOENT");
  await expect(allocations.set("b", some)).rejects.toThrow("ENOENT");
  expect([allocations.get("a"), allocations.get("b")]).toEqual([some, undefined]);
});
test("a file that makes no sense is as none", async () => {
  writeFileSync(`${dataFolder}/allocations.json`, "{");
  expect((await opened()).get("a")).toBeUndefined();
});
