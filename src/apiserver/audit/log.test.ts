// The ring, the queue before the disk, and files that follow each other: on a real folder, and on a disk that is full.
import { mkdtemp, readdir, readFile, rm, stat, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { gunzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { type LineTarget, LogWriter } from "./log-writer.ts";
import { AuditRing } from "./ring.ts";
import { openRotatingLog, planBackups, type RotationOptions } from "./rotation.ts";

describe("the ring", () => {
  const lines = (ring: AuditRing, limit = 1e9) => ring.read(limit).toString().split("\n").slice(0, -1);

  test("tells in the order of arrival, and the newest where few are wanted", () => {
    const ring = new AuditRing();
    for (let i = 0; i < 5; i++) ring.add(`e${i}`, i % 2 === 0);
    expect(lines(ring)).toEqual(["e0", "e1", "e2", "e3", "e4"]);
    expect(lines(ring, 2)).toEqual(["e3", "e4"]);
    expect(lines(ring, 0)).toEqual([]);
  });

  test("has a bound of bytes and of events, and keeps the newest", () => {
    const ring = new AuditRing();
    for (let i = 0; i < 10_000; i++) ring.add(`e${i}`, false);
    expect(ring.count).toBe(1750);
    expect(lines(ring).at(-1)).toBe("e9999");
    for (let i = 0; i < 200; i++) ring.add(`${i} ${"x".repeat(30_000)}`, false);
    expect(ring.sizeBytes).toBeLessThanOrEqual(1024 * 1024);
    expect(ring.sizeBytes).toBeGreaterThan(800_000);
    expect(lines(ring).at(-1)).toMatch(/^199 /);
  });

  test("who is not known pushes out nobody else", () => {
    const ring = new AuditRing();
    ring.add("ann deleted a secret", false);
    for (let i = 0; i < 10_000; i++) ring.add(`stranger ${i} ${"x".repeat(500)}`, true);
    expect(lines(ring)[0]).toBe("ann deleted a secret");
    expect(lines(ring).at(-1)).toMatch(/^stranger 9999/);
  });
});

describe("the queue", () => {
  function open(isBatch: boolean, maxLines: number, target: Partial<LineTarget>) {
    const written: string[][] = [];
    let lost = 0;
    const writer = new LogWriter(
      { isBatch, maxLines, batchBytes: 20 },
      {
        target: {
          async append(lines) {
            written.push(lines.map((line) => line.toString().trimEnd()));
            return 0;
          },
          close: async () => {},
          ...target,
        },
        clock: new FakeClock(),
        log: silentLogger,
        onLost(count) {
          lost += count;
        },
      },
    );
    return { writer, written, lost: () => lost };
  }

  test("writes in order, several at once, and all of it before it closes", async () => {
    const { writer, written } = open(true, 100, {});
    for (let i = 0; i < 10; i++) expect(writer.write(`line ${i}`)).toBeUndefined();
    await writer.close();
    expect(written.flat()).toEqual(Array.from({ length: 10 }, (_, i) => `line ${i}`));
    expect(Math.max(...written.map((batch) => batch.length))).toBe(2);
  });

  test("batch: a disk that hangs costs so many events and no more, and nobody waits", async () => {
    let release = () => {};
    const hangs = new Promise<void>((resolve) => {
      release = resolve;
    });
    const kept: number[] = [];
    const append = async (lines: readonly Buffer[]) => {
      await hangs;
      kept.push(lines.length);
      return 0;
    };
    const { writer, lost } = open(true, 5, { append });
    for (let i = 0; i < 20; i++) expect(writer.write(`line ${i}`)).toBeUndefined();
    expect(lost()).toBe(15);
    release();
    await writer.close();
    expect(kept.reduce((sum, count) => sum + count, 0)).toBe(5);
  });

  test("blocking: whoever writes learns whether it was kept", async () => {
    let fails = false;
    const append = async () => {
      if (fails) throw new Error("no space");
      return 0;
    };
    const { writer, lost } = open(false, 5, { append });
    expect(await writer.write("a")).toBe(true);
    fails = true;
    expect(await writer.write("b")).toBe(false);
    expect(lost()).toBe(1);
    fails = false;
    expect(await writer.write("c")).toBe(true);
    await writer.close();
  });
});

describe("files", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(`${tmpdir()}/audit-`);
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const clock = new FakeClock(Date.UTC(2026, 10, 21, 14, 36, 47, 123));
  const open = (options: Partial<RotationOptions> = {}) =>
    openRotatingLog(
      { path: `${folder}/logs/audit.log`, maxBytes: 100, maxAgeDays: 0, maxBackups: 0, compress: false, ...options },
      { clock, log: silentLogger },
    );
  const names = async () => (await readdir(`${folder}/logs`)).sort();
  const text = async (name: string) => (await readFile(`${folder}/logs/${name}`)).toString();
  const line = (name: string, length = 40) => Buffer.from(`${name.padEnd(length - 1, ".")}\n`);

  test("a full file steps aside under the time of the day, and the next begins", async () => {
    const log = await open();
    expect((await stat(`${folder}/logs`)).mode & 0o777).toBe(0o700);
    expect((await stat(`${folder}/logs/audit.log`)).mode & 0o777).toBe(0o600);
    expect(await log.append([line("a"), line("b")])).toBe(0);
    expect(await names()).toEqual(["audit.log"]);
    await log.append([line("c")]);
    await log.close();
    expect(await names()).toEqual(["audit-2026-11-21T14-36-47.123.log", "audit.log"]);
    expect(await text("audit-2026-11-21T14-36-47.123.log")).toMatch(/^a\.+\nb\.+\n$/);
    expect(await text("audit.log")).toMatch(/^c\.+\n$/);
  });

  test("goes on in the file of the run before", async () => {
    for (const each of ["a", "b", "c"]) {
      const log = await open();
      await log.append([line(each)]);
      await log.close();
      clock.jump(1000);
    }
    expect((await names()).length).toBe(2);
    expect(await text("audit.log")).toMatch(/^c/);
  });

  test("old files are compressed, and only so many are kept", async () => {
    const log = await open({ compress: true, maxBackups: 2 });
    for (const each of ["a", "b", "c", "d", "e"]) {
      await log.append([line(each, 90)]);
      clock.jump(1000);
    }
    await log.close();
    const left = await names();
    expect(left).toHaveLength(3);
    expect(left.filter((name) => name.endsWith(".log.gz"))).toHaveLength(2);
    const [oldest] = left as [string];
    expect(gunzipSync(await readFile(`${folder}/logs/${oldest}`)).toString()).toMatch(/^c/);
  });

  test("a line that no file can take is left out alone", async () => {
    const log = await open();
    expect(await log.append([line("a"), line("long", 101), line("b")])).toBe(1);
    await log.close();
    expect(await text("audit.log")).toMatch(/^a\.+\nb\.+\n$/);
  });

  test.each(["/proc/nowhere/deep/audit.log", "/dev/null/audit.log"])("no file can be at %s", async (path) => {
    await expect(open({ path })).rejects.toThrow(/ENOENT|EEXIST/);
  });

  test("a full disk is told of, and another file taken when the old one has gone", async () => {
    const log = await openRotatingLog(
      { path: "/dev/full", maxBytes: 100, maxAgeDays: 0, maxBackups: 0, compress: false },
      { clock, log: silentLogger },
    );
    await expect(log.append([line("a")])).rejects.toThrow("ENOSPC");
    await log.close();
    const other = await open();
    await other.append([line("a")]);
    await unlink(`${folder}/logs/audit.log`);
    await other.append([line("b"), line("c"), line("d")]);
    await other.append([line("e")]);
    await other.close();
    expect(await names()).toContain("audit.log");
  });

  const day = 86_400_000;
  const at = Date.UTC(2026, 10, 21, 12);
  const named = (daysAgo: number, more = "") =>
    `audit-${new Date(at - daysAgo * day).toISOString().slice(0, 23).replaceAll(":", "-")}.log${more}`;
  test.each<[string, readonly string[], object, readonly string[], readonly string[]]>([
    ["nothing to do", [named(1), named(2)], {}, [], []],
    ["too many", [named(3), named(1), named(2)], { maxBackups: 2 }, [named(3)], []],
    ["too old", [named(1), named(8), named(9, ".gz")], { maxAgeDays: 7 }, [named(8), named(9, ".gz")], []],
    ["to be compressed", [named(1), named(2, ".gz")], { compress: true }, [], [named(1)]],
    ["cut short", [named(1), named(1, ".gz")], { compress: true, maxBackups: 1 }, [], [named(1)]],
    [
      "of others",
      ["audit.log", "audit-old.log", "other-2026-11-01T00-00-00.000.log"],
      { maxAgeDays: 1, maxBackups: 1 },
      [],
      [],
    ],
  ])("backups: %s", (_name, files, more, remove, compress) => {
    const options = { stem: "audit", extension: ".log", maxAgeDays: 0, maxBackups: 0, compress: false, nowMs: at };
    expect(planBackups(files, { ...options, ...more })).toEqual({ remove, compress });
  });
});
