// Crash images over a small disk with a journal of its own, recorded as it runs: whatever is lost, torn or reordered
// after a flush, what was acknowledged is there; with flushes forgotten the same check must find losses.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openReader, Replayer } from "#scripts/qemu/power-loss-disk.ts";
import {
  type CrashKind,
  type CrashPlan,
  crashKinds,
  durableBefore,
  planCrash,
  planOf,
} from "#scripts/qemu/power-loss-images.ts";
import { encodeLog, type LogEntry, type LogRecordInput, parseLog } from "#scripts/qemu/power-loss-log.ts";
import { type Change, judgeObjects, seenRevisionAt } from "#scripts/qemu/power-loss-workload.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-power-loss-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const write = (sector: number, count: number, fill: number, more: Partial<LogRecordInput> = {}): LogRecordInput => ({
  sector,
  data: new Uint8Array(count * 512).fill(fill),
  ...more,
});
const entriesOf = (records: readonly LogRecordInput[]): readonly LogEntry[] => {
  const bytes = encodeLog(records);
  return parseLog((offset, length) => bytes.subarray(offset, offset + length)).entries;
};

describe("planOf", () => {
  const entries = entriesOf([
    write(0, 4, 1),
    { flush: true },
    write(4, 4, 2),
    write(8, 4, 3, { fua: true }),
    write(0, 4, 4),
    write(12, 1, 5),
  ]);

  it("finds what is durable", () => {
    expect(Array.from({ length: 7 }, (_, cut) => durableBefore(entries, cut))).toEqual([0, 0, 2, 2, 2, 2, 2]);
    // A flush on a write covers what came before it, not the write itself.
    expect(durableBefore(entriesOf([write(0, 1, 1), write(1, 1, 2, { flush: true })]), 2)).toBe(1);
  });

  const wholes = (plan: CrashPlan) => plan.kept.map((piece) => piece.entry);
  const make = (kind: CrashKind, seed: number) =>
    planOf(entries, { cut: 6, durableUntil: 2, kind, random: seededRandom(seed) });

  it("keeps forced writes whatever happens to the others", () => {
    expect(wholes(make("dropped", 1))).toEqual([3]);
    expect(make("dropped", 1).lostWrites).toBe(3);
    expect(wholes(make("kept", 1))).toEqual([2, 3, 4, 5]);
    for (let seed = 0; seed < 50; seed++) {
      for (const kind of crashKinds) {
        const forced = make(kind, seed).kept.filter((piece) => piece.entry === 3);
        expect(forced).toEqual([{ entry: 3, from: 0, sectorCount: 4 }]);
      }
    }
  });

  it("loses an earlier write and keeps a later one", () => {
    const orders = Array.from({ length: 50 }, (_, seed) => wholes(make("missing", seed)).join());
    expect(new Set(orders)).toEqual(new Set(["3,4,5", "2,3,5", "2,3,4", "2,3,4,5"]));
  });

  it("tears a write at sectors, within its bounds", () => {
    const shapes = new Set<string>();
    for (let seed = 0; seed < 300; seed++) {
      const pieces = make("torn", seed).kept.filter((piece) => piece.entry === 2);
      for (const piece of pieces) expect(piece.from + piece.sectorCount).toBeLessThanOrEqual(4);
      shapes.add(pieces.flatMap((p) => Array.from({ length: p.sectorCount }, (_, i) => p.from + i)).join(""));
    }
    // All sixteen subsets of four sectors occur.
    expect(shapes.size).toBe(16);
  });

  it("makes the same plan from the same seed", () => {
    const plan = (seed: number) => planCrash(entries, { random: seededRandom(seed) });
    expect(plan(5)).toEqual(plan(5));
    expect(new Set(Array.from({ length: 30 }, (_, seed) => JSON.stringify(plan(seed)))).size).toBeGreaterThan(10);
  });
});

describe("Replayer", () => {
  it("puts on the disk what the plan keeps, within its window", async () => {
    const logFile = join(folder, "log");
    const baseFile = join(folder, "base");
    const records = [
      write(0, 8, 1),
      { flush: true },
      write(2, 4, 2),
      write(6, 4, 0),
      write(4, 4, 9, { discard: true }),
    ];
    writeFileSync(logFile, encodeLog(records));
    writeFileSync(baseFile, Buffer.alloc(16 * 512, 7));
    const log = openReader(logFile);
    const { entries } = parseLog(log.read);
    const image = join(folder, "image");
    const sectorsOf = () => {
      const bytes = readFileSync(image);
      return Array.from({ length: bytes.length / 512 }, (_, i) => bytes[i * 512]).join("");
    };
    const make = async (firstSector: number, sectorCount: number, kind: CrashKind, cut: number) => {
      const replayer = await Replayer.open({
        baseFile,
        workFile: join(folder, "work"),
        entries,
        readLog: log.read,
        window: { firstSector, sectorCount },
      });
      const durableUntil = durableBefore(entries, cut);
      await replayer.make(planOf(entries, { cut, durableUntil, kind, random: seededRandom(1) }), image);
      replayer.close();
      return sectorsOf();
    };
    expect(await make(0, 16, "kept", 0)).toBe("7777777777777777");
    expect(await make(0, 16, "dropped", 5)).toBe("1111111177777777");
    expect(await make(0, 16, "kept", 5)).toBe("1122220000777777");
    expect(await make(3, 4, "kept", 5)).toBe("2220");
    expect(await make(7, 4, "dropped", 5)).toBe("1777");
    log.close();
  });
});

describe("a store that flushes before it acknowledges", () => {
  // Records of two sectors in a journal, each with its number and a sum; the reader stops at the first that is not whole.
  const journal = (numbers: number): { records: LogRecordInput[]; changes: Change[] } => {
    const records: LogRecordInput[] = [];
    const changes: Change[] = [];
    for (let n = 1; n <= numbers; n++) {
      const data = Buffer.alloc(1024);
      data.writeUInt32LE(n, 0);
      data.writeUInt32LE(n, 512);
      records.push({ sector: (n - 1) * 2, data }, { flush: true });
      changes.push({ name: `object-${n}`, number: n, type: "put", revision: n, mark: records.length });
    }
    return { records, changes };
  };
  const readBack = (image: Buffer): Map<string, number> => {
    const found = new Map<string, number>();
    for (let n = 1; n * 1024 <= image.length; n++) {
      if (image.readUInt32LE((n - 1) * 1024) !== n || image.readUInt32LE((n - 1) * 1024 + 512) !== n) break;
      found.set(`object-${n}`, n);
    }
    return found;
  };

  const count = 60;
  const findLosses = async (ignoreFlushes: boolean): Promise<number> => {
    const { records, changes } = journal(count);
    const logFile = join(folder, "store.log");
    const baseFile = join(folder, "store.base");
    writeFileSync(logFile, encodeLog(records));
    writeFileSync(baseFile, Buffer.alloc(count * 1024));
    const log = openReader(logFile);
    const { entries } = parseLog(log.read);
    const plans = Array.from({ length: 60 }, (_, seed) =>
      planCrash(entries, { random: seededRandom(seed), ignoreFlushes }),
    ).sort((a, b) => a.durableUntil - b.durableUntil);
    const window = { firstSector: 0, sectorCount: count * 2 };
    const workFile = join(folder, "store.work");
    const replayer = await Replayer.open({ baseFile, workFile, entries, readLog: log.read, window });
    let losses = 0;
    const image = join(folder, "store.image");
    for (const plan of plans) {
      await replayer.make(plan, image);
      const problems = judgeObjects(readBack(readFileSync(image)), { changes, seenRevision: 0, cut: plan.cut });
      if (problems.length > 0) losses++;
    }
    replayer.close();
    log.close();
    return losses;
  };

  it("loses nothing, whatever the cut", async () => {
    expect(await findLosses(false)).toBe(0);
  });

  it("is seen to lose when flushes are forgotten", async () => {
    expect(await findLosses(true)).toBeGreaterThan(10);
  });
});

describe("judgeObjects", () => {
  const changes: Change[] = [
    { name: "a", number: 1, type: "put", revision: 10, mark: 5 },
    { name: "a", number: 2, type: "put", revision: 11, mark: 9 },
    { name: "a", number: 3, type: "delete", mark: 12 },
    { name: "a", number: 4, type: "put" },
  ];
  it.each([
    ["before anything is promised, nothing", 4, [], 0],
    ["before anything is promised, an attempt", 4, [["a", 1]], 0],
    ["the promised", 5, [["a", 1]], 0],
    ["a later one than promised", 5, [["a", 2]], 0],
    ["an attempt without answer", 12, [["a", 4]], 0],
    ["a deletion that was on its way", 9, [], 0],
    ["an older one than promised", 9, [["a", 1]], 1],
    ["the deleted one again", 12, [["a", 2]], 1],
    ["an object that never was", 12, [["b", 2]], 1],
  ] as const)("%s", (_, cut, found, problems) => {
    expect(judgeObjects(new Map(found), { changes, seenRevision: 0, cut })).toHaveLength(problems);
  });

  it("misses what was promised", () => {
    const promised = changes.slice(0, 1);
    expect(judgeObjects(new Map(), { changes: promised, seenRevision: 0, cut: 5 })[0]).toMatch(
      /a is absent, but put 1/,
    );
  });

  it("knows the revisions that were seen before the cut", () => {
    const sightings = [
      { revision: 7, mark: 2 },
      { revision: 9, mark: 6 },
      { revision: 8, mark: 6 },
    ];
    expect([1, 2, 5, 6].map((cut) => seenRevisionAt(sightings, cut))).toEqual([0, 7, 7, 9]);
  });
});
