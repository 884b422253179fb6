import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger, silentLogger } from "#base/log.ts";
import { systemBlockFiles } from "#platform/block-file.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { defaultBounds, type StoreBounds } from "./allowance.ts";
import type { Urgency } from "./notes.ts";
import { RememberedStore } from "./store.ts";

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
  store.note("pod/u", () => ({ spec: {} }), about);
  store.note("gone", () => 1, about);
  store.note("nothing", () => undefined, about);
  // Before it is on disk as well.
  expect(await store.get("gone")).toBe(1);
  await store.flush();
  store.forget("gone");
  await store.flush();
  expect([modes(), (statSync(`${folder}/r`).mode & 0o777).toString(8)]).toEqual([["600", "600"], "700"]);
  const next = await opened();
  expect([next.keys(), next.bytes]).toEqual([["/api/v1/namespaces/x/secrets/y", "pod/u"], store.bytes]);
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

test("one byte that is other than it was is noticed, wherever in a file", async () => {
  const store = await opened();
  store.note("list/services", () => [{ metadata: { name: "web" }, spec: { clusterIP: "10.43.7.7" } }], about);
  await store.flush();
  const [path = ""] = files();
  const whole = readFileSync(path);
  // Without the name of its first field a file has no sum, and is what it was.
  for (let at = whole.indexOf('":"') + 3; at < whole.length - 1; at++) {
    const spoilt = Buffer.from(whole);
    // Of most letters and digits another one, so that it stays JSON.
    spoilt[at]! ^= 1;
    writeFileSync(path, spoilt);
    expect((await opened()).keys(), `byte ${at}`).toEqual([]);
  }
  writeFileSync(path, whole);
  expect((await opened()).keys()).toEqual(["list/services"]);
});

test("files of an earlier version, without a sum, are as good, and not written again for that", async () => {
  const store = await opened();
  store.note("a", () => ({ n: 1 }), about);
  await store.flush();
  const [path = ""] = files();
  const { sum: _, ...rest } = JSON.parse(readFileSync(path, "utf8")) as { sum: string };
  writeFileSync(path, `${JSON.stringify(rest)}\n`);
  const next = await opened();
  expect(await next.get("a")).toEqual({ n: 1 });
  next.note("a", () => ({ n: 1 }), about);
  await next.flush();
  expect(readFileSync(path, "utf8")).not.toContain("sum");
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
      store.note(key, text(bytes), { about: `pod ${key}`, kind: "pods", urgency: "vital" });
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
  const store = await opened({ burstBytes: 100_000, dailyBytes: 600_000 }, clock);
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
      store.note("a", () => value, { ...about, urgency: isVital ? "vital" : "spare" });
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
    store.note("a", () => ++workedOut, { ...about, urgency: isVital ? "vital" : "spare" });
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

test("what is held is written with what needs it, and not before", async () => {
  const store = await opened();
  const held = { ...about, urgency: "held" } as const;
  store.note("/map", () => ({ a: 1 }), held);
  store.note("token/u/1", () => ({ a: 2 }), held);
  store.note("/other", () => ({ a: 3 }), held);
  await store.flush();
  expect((await opened()).keys()).toEqual([]);
  // Known all the same.
  expect(await store.get("/map")).toEqual({ a: 1 });
  const needs = () => ["/map", "token/u/1", "/unknown"];
  store.note("pod/u", () => ({ spec: {} }), { ...about, urgency: "vital", needs });
  await store.flush();
  expect((await opened()).keys().sort()).toEqual(["/map", "pod/u", "token/u/1"]);
});

test("pods wait for the day's bytes, which is said once; what would run twice does not", async () => {
  const warnings: string[] = [];
  const log = createLogger((level, message) => {
    if (level === "warn") warnings.push(message);
  }, "warn");
  const clock = new FakeClock();
  // A batch is a block and what it costs besides, 16 KiB; the first makes the file, 64 KiB.
  const store = await opened({ vitalBurstBytes: 90_000, vitalDailyBytes: 384 * 1024 }, clock, log);
  const note = (uid: string, value: object, urgency: Urgency) =>
    store.note(`pod/${uid}`, () => value, { ...about, urgency });
  const pass = async (ms: number) => {
    await clock.advance(ms);
    await store.writeDue();
  };
  const written = async () => (await opened()).keys().map((key) => key.slice(4));
  for (const uid of ["a", "b"]) {
    note(uid, { status: "runs" }, "vital");
    await pass(2_000);
  }
  // In debt from here on.
  note("c", { status: "runs" }, "vital");
  note("d", { status: "runs" }, "vital");
  await pass(2_000);
  expect([await written(), warnings.length]).toEqual([["a", "b"], 1]);
  note("a", { status: "ended" }, "must");
  await pass(2_000);
  expect([await written(), await (await opened()).get("pod/a")]).toEqual([["b", "a"], { status: "ended" }]);
  store.forget("pod/b");
  await pass(2_000);
  expect(await written()).toEqual(["a"]);
  // 24 such batches a day.
  await pass(4 * 3600_000);
  expect([(await written()).sort(), warnings.length]).toEqual([["a", "c", "d"], 1]);
});

test("that something is gone for good goes along with the next write, within an hour", async () => {
  const clock = new FakeClock();
  const store = await opened({}, clock);
  const note = (uid: string) => store.note(`pod/${uid}`, () => ({ a: uid }), { ...about, urgency: "vital" });
  const pass = async (ms: number) => {
    await clock.advance(ms);
    await store.writeDue();
  };
  for (const uid of ["a", "b", "c"]) note(uid);
  await pass(2_000);
  store.forget("pod/a", { isIdle: true });
  await pass(2_000);
  expect([store.keys(), (await opened()).keys()]).toEqual([
    ["pod/b", "pod/c"],
    ["pod/a", "pod/b", "pod/c"],
  ]);
  note("d");
  await pass(2_000);
  expect((await opened()).keys()).toEqual(["pod/b", "pod/c", "pod/d"]);
  store.forget("pod/b", { isIdle: true });
  // There again.
  note("b");
  store.forget("pod/c", { isIdle: true });
  await pass(3600_000);
  expect((await opened()).keys().sort()).toEqual(["pod/b", "pod/d"]);
});

/** As an earlier version kept it. */
function oldFile(key: string, value: object): void {
  const name = `${createHash("sha256").update(key).digest("hex").slice(0, 32)}.json`;
  mkdirSync(`${folder}/r`, { recursive: true });
  writeFileSync(`${folder}/r/${name}`, `${JSON.stringify({ key, value })}\n`);
}

test("pods of an earlier version, a file each, are taken over", async () => {
  const key = "pod/u";
  oldFile(key, { spec: { a: 1 } });
  const store = await opened();
  expect(await store.get(key)).toEqual({ spec: { a: 1 } });
  await store.flush();
  expect(readdirSync(`${folder}/r`)).toEqual(["pods.a"]);
  expect(await (await opened()).get(key)).toEqual({ spec: { a: 1 } });
});

test("one that is gone a moment later does not come back, and one that the journal has is not set back", async () => {
  oldFile("pod/u", { status: "runs" });
  const first = await opened();
  first.forget("pod/u");
  await first.flush();
  expect([(await opened()).keys(), readdirSync(`${folder}/r`)]).toEqual([[], ["pods.a"]]);
  first.note("pod/v", () => ({ status: "ended" }), about);
  await first.flush();
  oldFile("pod/v", { status: "runs" });
  expect(await (await opened()).get("pod/v")).toEqual({ status: "ended" });
  expect(readdirSync(`${folder}/r`)).toEqual(["pods.a"]);
});

test("what is on its way to the disk counts as written, and a disk that refuses is asked again after a while", async () => {
  const clock = new FakeClock();
  let refusals = 0;
  let isBroken = true;
  let seen: readonly boolean[] = [];
  const files = {
    blocks: systemBlockFiles,
    remove: async () => {},
    write: async () => {
      seen = ["pod/u", "pod/v"].map((key) => store.isKept(key));
      if (!isBroken) return;
      refusals++;
      throw new Error("EIO");
    },
  };
  const store = new RememberedStore({ folder: `${folder}/r` }, { clock, log: silentLogger, files });
  await store.open();
  store.note("/map", () => ({ a: 1 }), { ...about, urgency: "held" });
  const needs = () => ["/map"];
  store.note("pod/u", () => ({ status: "runs" }), { ...about, urgency: "vital", needs });
  const pass = async (ms: number) => {
    await clock.advance(ms);
    await store.writeDue();
  };
  await pass(2_000);
  expect([seen, refusals, store.isKept("pod/u"), store.has("pod/u")]).toEqual([[true, false], 1, false, true]);
  await pass(2_000);
  expect(refusals).toBe(1);
  isBroken = false;
  await pass(60_000);
  expect([refusals, (await opened()).keys()]).toEqual([1, ["pod/u"]]);
});
