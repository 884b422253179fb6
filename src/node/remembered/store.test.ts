import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger, silentLogger } from "#base/log.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { defaultBounds, RememberedStore, type StoreBounds } from "./store.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-remembered-");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const opened = async (bounds: Partial<StoreBounds> = {}, clock = new FakeClock(), log = silentLogger) => {
  const store = new RememberedStore({ folder: `${folder}/r`, bounds: { ...defaultBounds, ...bounds } }, { clock, log });
  await store.open();
  return store;
};
const about = { about: "a thing", kind: "things" };
const files = () => readdirSync(`${folder}/r`).map((name) => `${folder}/r/${name}`);
const modes = () => files().map((path) => (statSync(path).mode & 0o777).toString(8));

test("what was noted is known to the next run, and to nobody else", async () => {
  const store = await opened();
  store.note("/api/v1/namespaces/x/secrets/y", () => ({ data: { a: "b" } }), about);
  store.note("gone", () => 1, about);
  store.note("nothing", () => undefined, about);
  // Before it is on disk as well.
  expect(await store.get("gone")).toBe(1);
  await store.flush();
  store.forget("gone");
  await store.flush();
  expect([modes(), (statSync(`${folder}/r`).mode & 0o777).toString(8)]).toEqual([["600"], "700"]);
  const next = await opened();
  expect([next.keys(), next.bytes]).toEqual([["/api/v1/namespaces/x/secrets/y"], store.bytes]);
  expect(await next.get("/api/v1/namespaces/x/secrets/y")).toEqual({ data: { a: "b" } });
  expect([await next.get("gone"), await next.get("nothing")]).toEqual([undefined, undefined]);
});

test("what has not changed is not written again", async () => {
  const store = await opened();
  store.note("a", () => ({ n: 1 }), about);
  await store.flush();
  const [path = ""] = files();
  const before = statSync(path);
  store.note("a", () => ({ n: 1 }), about);
  await store.flush();
  expect(statSync(path).ino).toBe(before.ino);
  store.note("a", () => ({ n: 2 }), about);
  await store.flush();
  expect(statSync(path).ino).not.toBe(before.ino);
});

test("files that make no sense are taken away", async () => {
  const store = await opened();
  store.note("a", () => 1, about);
  store.note("b", () => 2, about);
  await store.flush();
  const [first = "", second = ""] = files();
  const kept = (JSON.parse(readFileSync(second, "utf8")) as { key: string }).key;
  writeFileSync(first, readFileSync(first, "utf8").slice(0, 7));
  writeFileSync(`${folder}/r/x.json.tmp-77`, "{");
  const next = await opened();
  expect([next.keys(), files()]).toEqual([[kept], [second]]);
});

test("no more is kept than the bounds allow, and what is left out is named once", async () => {
  const warnings: string[] = [];
  const log = createLogger((level, _, fields) => {
    if (level === "warn") warnings.push(String(fields?.["what"]));
  }, "warn");
  const store = await opened({ totalBytes: 3_000, fileBytes: 2_000 }, new FakeClock(), log);
  const text = (bytes: number) => () => "x".repeat(bytes);
  for (let round = 0; round < 2; round++) {
    for (const [key, bytes] of [
      ["a", 1_500],
      ["b", 1_000],
      ["c", 1_000],
      ["d", 2_500],
    ] as const) {
      store.note(key, text(bytes), { about: `pod ${key}`, kind: "pods", isVital: true });
    }
    await store.flush();
  }
  expect([store.keys().sort(), warnings]).toEqual([
    ["a", "b"],
    ["pod c", "pod d"],
  ]);
  // Room again.
  store.forget("a");
  store.note("c", text(1_000), { about: "pod c", kind: "pods" });
  await store.flush();
  expect([store.keys().sort(), store.bytes < 3_000]).toEqual([["b", "c"], true]);
});

test("what changes all the time is written as often as a day's bytes allow, what is vital at once", async () => {
  const clock = new FakeClock();
  const store = await opened({ burstBytes: 40_000, dailyBytes: 240_000 }, clock);
  let writes = 0;
  let bytes = "";
  const look = () => {
    const [path] = files();
    const now = path === undefined ? "" : readFileSync(path, "utf8");
    if (now !== bytes) writes++;
    bytes = now;
  };
  let n = 0;
  const pass = async (minutes: number, isVital: boolean) => {
    for (let minute = 0; minute < minutes; minute++) {
      const value = ++n;
      store.note("a", () => value, { ...about, isVital });
      await clock.advance(60_000);
      await store.writeDue();
      look();
    }
  };
  await pass(120, false);
  // Four at once, and then one in 50 minutes.
  expect(writes).toBeGreaterThan(4);
  expect(writes).toBeLessThan(10);
  writes = 0;
  await pass(20, true);
  expect(writes).toBe(20);
  expect(await store.get("a")).toBe(n);
});

test("what has to wait for the next day's bytes is not worked out again at every change", async () => {
  const clock = new FakeClock();
  const store = await opened({ burstBytes: 9_000, dailyBytes: 9_000 }, clock);
  let workedOut = 0;
  const change = async (isVital = false) => {
    store.note("a", () => ++workedOut, { ...about, isVital });
    await clock.advance(2_000);
    await store.writeDue();
  };
  for (let i = 0; i < 50; i++) await change();
  // Written, and put off.
  expect(workedOut).toBe(2);
  await change(true);
  expect(workedOut).toBe(3);
  expect(await store.get("a")).toBe(3);
});
