import { linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { overwriteAndRemove, overwriteInPlace } from "./flash-files.ts";
import { rotatingFile } from "./rotating-file.ts";
import { openWatchdog } from "./watchdog.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-flash-");
});
afterEach(() => rmSync(folder, { recursive: true }));

test("what is removed has been overwritten first", async () => {
  writeFileSync(`${folder}/token`, "secret");
  linkSync(`${folder}/token`, `${folder}/sectors`);
  await overwriteAndRemove(`${folder}/token`);
  expect(readdirSync(folder)).toEqual(["sectors"]);
  expect(readFileSync(`${folder}/sectors`)).toEqual(Buffer.alloc(6));
  await expect(overwriteAndRemove(`${folder}/token`)).rejects.toMatchObject({ code: "ENOENT" });
});

test("overwriting keeps the file and makes a missing one", async () => {
  const path = `${folder}/status`;
  await overwriteInPlace(path, Buffer.from("longer"));
  const { ino } = statSync(path);
  await overwriteInPlace(path, Buffer.from("short"));
  expect([readFileSync(path, "utf8"), statSync(path).ino]).toEqual(["short", ino]);
});

test("a rotating file takes at most twice its bound and keeps the newest", () => {
  const path = `${folder}/log`;
  const file = rotatingFile(path, 100);
  expect(readdirSync(folder)).toEqual([]);
  for (let i = 0; i < 50; i++) file.append(`line ${String(i).padStart(3)}\n`);
  file.close();
  const sizes = readdirSync(folder).map((name) => statSync(`${folder}/${name}`).size);
  expect(sizes).toEqual([expect.any(Number), expect.any(Number)]);
  for (const size of sizes) expect(size).toBeLessThanOrEqual(100);
  expect(readFileSync(path, "utf8")).toMatch(/line {2}49\n$/);
  // Another start goes on where the last one ended; a medium that is gone is no failure.
  rotatingFile(path, 1000).append("again\n");
  expect(readFileSync(path, "utf8")).toMatch(/line {2}49\nagain\n$/);
  rotatingFile(`${folder}/none/log`, 10).append("lost");
});

test("a watchdog is fed and told to stop; none is no failure", async () => {
  expect(await openWatchdog(`${folder}/none`)).toBeUndefined();
  writeFileSync(`${folder}/watchdog0`, "");
  const watchdog = (await openWatchdog(`${folder}/watchdog0`, folder))!;
  expect(watchdog.timeoutS).toBe(30);
  watchdog.feed();
  watchdog.feed();
  watchdog.disarm();
  expect(readFileSync(`${folder}/watchdog0`, "utf8")).toBe("..V");
  mkdirSync(`${folder}/class/watchdog/watchdog0`, { recursive: true });
  writeFileSync(`${folder}/class/watchdog/watchdog0/timeout`, "60\n");
  writeFileSync(`${folder}/class/watchdog/watchdog0/nowayout`, "1\n");
  expect([watchdog.canDisarm, await openWatchdog(`${folder}/watchdog0`, folder)]).toMatchObject([
    true,
    { timeoutS: 60, canDisarm: false },
  ]);
});
