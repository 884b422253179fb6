import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { createStatusFile } from "./status-file.ts";

let folder: string;
let writes: number;
const clock = new FakeClock();
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-status-");
  writes = 0;
});
afterEach(() => rmSync(folder, { recursive: true }));

const open = () =>
  createStatusFile(
    {
      bootDir: folder,
      async writeBoot(work) {
        writes++;
        return work();
      },
    },
    { phase: "starting", version: "v1", problems: [], notes: [] },
    { clock, log: silentLogger },
  );
const first = () => readFileSync(`${folder}/mote-status.txt`, "utf8").split("\r\n")[0];

test("a first start says so; a warm start of a device that stays ready writes nothing", async () => {
  const cold = open();
  await cold.flush();
  expect(first()).toBe("The device is starting.");
  cold.set({ phase: "ready", detail: "" });
  await cold.flush();
  expect([first(), writes]).toEqual(["The device is ready.", 2]);
  const warm = open();
  warm.set({ hostname: "a" });
  await warm.flush();
  warm.set({ hostname: undefined as never, phase: "ready" });
  await warm.flush();
  expect(writes).toBe(2);
});

test("a start with problems is written although the last one went well", async () => {
  writeFileSync(`${folder}/mote-status.txt`, "The device is ready.\r\n");
  const status = open();
  status.set({ problems: ["no cable"] });
  await status.flush();
  expect(readFileSync(`${folder}/mote-status.txt`, "utf8")).toContain("- no cable\r\n");
});

test("a device that flaps does not wear out its card", async () => {
  const status = open();
  for (let i = 0; i < 600; i++) {
    status.set(i % 2 === 0 ? { phase: "ready" } : { phase: "waiting", detail: `because ${i}` });
    await clock.advance(1000);
  }
  await status.flush();
  expect(writes).toBeGreaterThan(3);
  expect(writes).toBeLessThan(16);
  expect(first()).toBe("The device is up, but not ready yet.");
});
