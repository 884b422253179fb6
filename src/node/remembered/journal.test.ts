import { expect, test } from "vitest";
import { createLogger, silentLogger } from "#base/log.ts";
import { RecordedFiles } from "#test/harness/recorded-files.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { Journal, type JournalChange, type JournalValue } from "./journal.ts";

const opened = (files: RecordedFiles, log = silentLogger) => {
  const journal = new Journal({ path: "/j" }, { files, log });
  journal.open();
  return journal;
};
const all = (journal: Journal): Record<string, JournalValue> =>
  Object.fromEntries(journal.keys().map((key) => [key, journal.get(key) ?? {}]));
const image = (files: RecordedFiles) =>
  new Map(files.cut(files.events.length, { float: () => 0, bytes: () => new Uint8Array(), uuid: () => "" }).image);
const block = 4096;
const put = (key: string, value: JournalValue): JournalChange => ({ key, value });
const gone = (key: string): JournalChange => ({ key, value: undefined });

test("what was appended is known to the next run", async () => {
  const files = new RecordedFiles();
  const journal = opened(files);
  await journal.append([put("a", { spec: { n: 1 }, status: { phase: "Running" } }), put("b", { spec: {} })]);
  await journal.append([put("a", { spec: { n: 1 }, status: { phase: "Succeeded" } }), gone("b")]);
  await journal.append([put("c", { spec: "ü", status: 1 }), gone("unknown")]);
  await journal.append([put("c", { spec: "ü" })]);
  const expected = { a: { spec: { n: 1 }, status: { phase: "Succeeded" } }, c: { spec: "ü" } };
  expect(all(journal)).toEqual(expected);
  const next = opened(files);
  expect([all(next), next.bytes]).toEqual([expected, journal.bytes]);
});

test("a change costs the blocks of what has changed, and none where nothing has", async () => {
  const files = new RecordedFiles();
  const journal = opened(files);
  const large = { spec: "x".repeat(3 * block), status: 0 };
  await journal.append([put("a", large)]);
  expect(await journal.append([put("a", { ...large })])).toBe(0);
  expect(await journal.append([put("a", { ...large, status: 1 })])).toBe(block);
  expect(await journal.append([gone("b")])).toBe(0);
  expect(journal.get("a")).toEqual({ ...large, status: 1 });
  // A long row of changes becomes a whole again.
  for (let n = 2; n < 20; n++) await journal.append([put("a", { ...large, status: n })]);
  expect(opened(files).get("a")).toEqual({ ...large, status: 19 });
});

test("its files stay as small as what they hold allows, and are not made anew", async () => {
  const files = new RecordedFiles();
  const journal = opened(files);
  let bytes = 0;
  const rounds = 1_200;
  for (let n = 0; n < rounds; n++) bytes += await journal.append([put(`k${n % 20}`, { n, text: "x".repeat(1_000) })]);
  const lengths = [...image(files).values()].map((file) => file.length);
  expect(lengths).toHaveLength(2);
  for (const length of lengths) expect(length).toBeLessThan(400 * 1024);
  // A block each, and now and then all of them again.
  expect(bytes / rounds).toBeLessThan(1.4 * block);
  expect(opened(files).keys()).toHaveLength(20);
  const journalOfLarge = opened(new RecordedFiles());
  bytes = 0;
  for (let n = 0; n < 300; n++)
    bytes += await journalOfLarge.append([put(`k${n % 100}`, { n, text: "x".repeat(9_000) })]);
  expect(bytes / 300).toBeLessThan(2.5 * 3 * block);
});

const longest = (files: RecordedFiles) => Math.max(...[...image(files).values()].map((file) => file.length));
const pods = (n: number, gone = false): JournalChange[] =>
  Array.from({ length: n }, (_, i) => ({
    key: `pod/${i}`,
    value: gone ? undefined : { spec: `${i}${"x".repeat(30_000)}` },
  }));

test("after a peak its files become short again, for less than what the peak has cost", async () => {
  const files = new RecordedFiles();
  const journal = opened(files);
  let peakBytes = await journal.append([put("stays", { spec: 1 })]);
  for (let n = 0; n < 2; n++) {
    for (const change of pods(100)) peakBytes += await journal.append([{ ...change, value: { ...change.value, n } }]);
  }
  const peak = longest(files);
  expect(peak).toBeGreaterThan(3 * 2 ** 20);
  let bytes = 0;
  for (const change of pods(100, true)) bytes += await journal.append([change]);
  // Four times what little needs.
  expect(longest(files)).toBeLessThan(2 ** 20);
  expect(bytes).toBeLessThan(peakBytes / 4);
  expect([all(journal), all(opened(files))]).toEqual([{ stays: { spec: 1 } }, { stays: { spec: 1 } }]);
  // And stay so, at the price of a block each.
  bytes = 0;
  for (let n = 0; n < 50; n++) bytes += await journal.append([put("stays", { spec: n })]);
  expect(bytes / 50).toBeLessThan(1.4 * block);
});

test("one that is only just too long is cut all the same, and turns but once for that", async () => {
  const files = new RecordedFiles();
  const journal = opened(files);
  // Each fills sixteen blocks but for its head, and takes seventeen in a snapshot.
  const whole = (i: number) => put(`k${i}`, { text: "x".repeat(16 * block - 26) });
  for (let i = 0; i < 10; i++) await journal.append([whole(i)]);
  await journal.append([put("peak", { text: "x".repeat(4_700_000) })]);
  await journal.append([gone("peak")]);
  const peak = longest(files);
  let bytes = 0;
  for (let n = 0; n < 20; n++) bytes += await journal.append([put("small", { n })]);
  expect(peak).toBeGreaterThan(5_300_000);
  // What is there once, and a block each.
  expect(bytes).toBeLessThan(2 ** 20);
  expect(longest(files)).toBeLessThan(2 * 2 ** 20);
  expect(opened(files).keys()).toHaveLength(11);
});

test("a power cut at any step of that loses nothing", async () => {
  const files = new RecordedFiles();
  const journal = opened(files);
  await journal.append([put("stays", { spec: 1 }), ...pods(40)]);
  await journal.append(pods(40, true));
  const known = [{ events: files.events.length, state: all(journal) }];
  for (const changes of [[put("a", { spec: 1 })], [put("b", { spec: 2 })], [put("b", { spec: 3 })]]) {
    await journal.append(changes);
    known.push({ events: files.events.length, state: all(journal) });
  }
  expect(files.events.some(({ type }) => type === "truncate")).toBe(true);
  const random = seededRandom(5);
  for (let cut = known[0]!.events; cut <= files.events.length; cut++) {
    for (let round = 0; round < 3; round++) {
      const found = all(opened(new RecordedFiles(files.cut(cut, random).image)));
      const before = known.findLastIndex(({ events }) => events <= cut);
      const possible = [known[before]!.state, (known[before + 1] ?? known[before]!).state];
      expect(
        possible.some((state) => JSON.stringify(state) === JSON.stringify(found)),
        `cut ${cut}`,
      ).toBe(true);
    }
  }
});

test("a disk that will not cut a file costs no snapshot for each change", async () => {
  class Uncut extends RecordedFiles {
    override open(path: string, options: { readonly create: boolean }) {
      const truncate = () => {
        throw new Error("EIO");
      };
      return { ...super.open(path, options), truncate };
    }
  }
  const files = new Uncut();
  const warnings: string[] = [];
  const journal = opened(
    files,
    createLogger((_, message) => warnings.push(message), "warn"),
  );
  await journal.append([put("stays", { text: "z".repeat(60_000) }), ...pods(100)]);
  await journal.append(pods(100, true));
  let bytes = 0;
  for (let n = 0; n < 20; n++) bytes += await journal.append([put("b", { spec: n })]);
  // One snapshot of what stays.
  expect(bytes).toBeLessThan(20 * block + 2 * 64 * 1024);
  expect(warnings).toHaveLength(1);
  expect(opened(files).keys()).toEqual(["stays", "b"]);
});

/** Random appends; what was known after each. */
async function history(seed: number, appends: number, files = new RecordedFiles()) {
  const random = seededRandom(seed);
  const pick = (n: number) => Math.floor(random.float() * n);
  const journal = opened(files);
  const state: Record<string, JournalValue> = {};
  /** By number of events: what was known once so many were recorded. */
  const known: { readonly events: number; readonly state: Record<string, JournalValue> }[] = [{ events: 0, state: {} }];
  for (let n = 0; n < appends; n++) {
    const changes: JournalChange[] = [];
    for (let i = 0; i <= pick(3); i++) {
      const key = `pod/${pick(12)}`;
      if (changes.some((change) => change.key === key)) continue;
      if (pick(4) === 0) {
        changes.push(gone(key));
        delete state[key];
      } else {
        const value = {
          spec: "s".repeat(pick(pick(8) === 0 ? 20_000 : 900)),
          status: n,
          ...(pick(3) === 0 ? { x: n } : {}),
        };
        changes.push(put(key, value));
        state[key] = value;
      }
    }
    await journal.append(changes);
    known.push({ events: files.events.length, state: { ...state } });
  }
  return { files, known, random };
}

test("a power cut leaves what was there before the append or after it, at every moment of a long life", async () => {
  const { files, known, random } = await history(7, 220);
  for (let round = 0; round < 120; round++) {
    const cut = Math.floor(random.float() * (files.events.length + 1));
    const found = all(opened(new RecordedFiles(files.cut(cut, random).image)));
    const before = known.findLastIndex(({ events }) => events <= cut);
    const possible = [known[before]!.state, (known[before + 1] ?? known[before]!).state];
    expect(possible, `cut ${cut}`).toContainEqual(found);
  }
});

test("it goes on after each of many power cuts", async () => {
  let files = new RecordedFiles();
  const random = seededRandom(3);
  let possible: Record<string, JournalValue>[] = [{}];
  for (let boot = 0; boot < 80; boot++) {
    const journal = opened(files);
    const state: Record<string, JournalValue> = all(journal);
    expect(possible, `boot ${boot}`).toContainEqual(state);
    const known = [{ events: 0, state: { ...state } }];
    for (let n = 0; n < random.float() * 20; n++) {
      const key = `k${Math.floor(random.float() * 6)}`;
      const value = { boot, n, text: "x".repeat(random.float() * 5_000) };
      const isGone = random.float() < 0.2;
      await journal.append([isGone ? gone(key) : put(key, value)]);
      if (isGone) delete state[key];
      else state[key] = value;
      known.push({ events: files.events.length, state: { ...state } });
    }
    const cut = Math.floor(random.float() * (files.events.length + 1));
    const before = known.findLastIndex(({ events }) => events <= cut);
    possible = [known[before]!.state, (known[before + 1] ?? known[before]!).state];
    files = new RecordedFiles(files.cut(cut, random).image);
  }
});

test("the harness can tell: without its flushes an append is lost", async () => {
  class Unflushed extends RecordedFiles {
    override open(path: string, options: { readonly create: boolean }) {
      return { ...super.open(path, options), flush: async () => {} };
    }
  }
  const { files, known, random } = await history(7, 60, new Unflushed());
  const last = known.at(-1)!;
  const found = Array.from({ length: 10 }, () => all(opened(new RecordedFiles(files.cut(last.events, random).image))));
  expect(found.some((each) => JSON.stringify(each) !== JSON.stringify(last.state))).toBe(true);
});

test.each([0, 1])("what is damaged takes nothing along but itself, and is told (%i)", async (byte) => {
  const files = new RecordedFiles();
  const journal = opened(files);
  for (const key of ["a", "b", "c"]) await journal.append([put(key, { spec: key })]);
  const [[name, file]] = [...image(files)] as [[string, Buffer]];
  // The batch of b: its header, or its lines.
  const at = file.indexOf('{"k":"b"');
  file[byte === 0 ? at - 24 : at + 10]! ^= 0x40;
  const warnings: string[] = [];
  const log = createLogger((_, message) => warnings.push(message), "warn");
  const damaged = new RecordedFiles(new Map([[name, file]]));
  const next = opened(damaged, log);
  expect([all(next), warnings]).toEqual([
    { a: { spec: "a" }, c: { spec: "c" } },
    ["a part of what was remembered of pods cannot be read"],
  ]);
  await next.append([put("d", { spec: "d" })]);
  warnings.length = 0;
  expect([opened(damaged, log).keys(), warnings]).toEqual([["a", "c", "d"], []]);
});

test("files that hold nothing that makes sense are no obstacle", async () => {
  const noise = Buffer.from(seededRandom(9).bytes(100_000));
  const files = new RecordedFiles(
    new Map([
      ["/j.a", noise],
      ["/j.b", Buffer.alloc(0)],
    ]),
  );
  const journal = opened(files);
  expect(journal.keys()).toEqual([]);
  await journal.append([put("a", { spec: 1 })]);
  expect(all(opened(files))).toEqual({ a: { spec: 1 } });
});

test.each(["write", "flush"] as const)(
  "a disk that refuses to %s loses nothing of before, and is used again",
  async (what) => {
    const files = new RecordedFiles();
    const journal = opened(files);
    await journal.append([put("a", { spec: 1 })]);
    files.fail = (operation) => (operation === what ? new Error("EIO") : undefined);
    for (const _ of [1, 2]) await expect(journal.append([put("b", { spec: 2 })])).rejects.toThrow("EIO");
    expect(all(journal)).toEqual({ a: { spec: 1 } });
    files.fail = undefined;
    await journal.append([put("c", { spec: 3 })]);
    const expected = { a: { spec: 1 }, c: { spec: 3 } };
    expect([all(journal), all(opened(files))]).toEqual([expected, expected]);
  },
);

test("a snapshot that may be on the medium all the same hides nothing of what comes after it", async () => {
  const files = new RecordedFiles();
  const journal = opened(files);
  await journal.append([put("a", { text: "x".repeat(200_000) })]);
  files.fail = (operation) => (operation === "flush" ? new Error("EIO") : undefined);
  // Too much for this file.
  await expect(journal.append([put("b", { text: "x".repeat(100_000) })])).rejects.toThrow("EIO");
  files.fail = undefined;
  await journal.append([put("c", { spec: 3 })]);
  expect([journal.keys(), opened(files).keys()]).toEqual([
    ["a", "c"],
    ["a", "c"],
  ]);
});

test("what a run wrote that was killed before its flush stays, once it counts", async () => {
  const files = new RecordedFiles();
  const killed = opened(files);
  await killed.append([put("a", { spec: 1 })]);
  files.fail = (operation) => (operation === "flush" ? new Error("killed") : undefined);
  await expect(killed.append([put("b", { spec: 2 })])).rejects.toThrow("killed");
  files.fail = undefined;
  expect(opened(files).keys()).toEqual(["a", "b"]);
  const random = seededRandom(1);
  for (let round = 0; round < 20; round++) {
    expect(opened(new RecordedFiles(files.cut(files.events.length, random).image)).keys()).toEqual(["a", "b"]);
  }
});

/** As it is known afterwards; undefined: not at all. */
const textOf = (value: JournalValue | undefined): string | undefined =>
  value && JSON.stringify(Object.entries(value).sort());

test.each([1, 9, 16, 24])(
  // With 16 and 24 it was seen to be otherwise.
  "among refusals of the disk, kills and power cuts what was written stays, and what failed is whole or absent (%i)",
  async (seed) => {
    const random = seededRandom(seed);
    let files = new RecordedFiles();
    let journal = opened(files);
    /** By key: the last that was written, and what may have been since. */
    const possible = new Map<string, Set<string | undefined>>();
    const begin = (moment: string) => {
      journal = opened(files);
      for (const [key, values] of possible) {
        const found = textOf(journal.get(key));
        expect([...values], `${key} after ${moment}`).toContain(found);
        possible.set(key, new Set([found]));
      }
      expect(journal.keys().filter((key) => !possible.has(key))).toEqual([]);
    };
    for (let n = 0; n < 150; n++) {
      const fate = random.float();
      if (fate < 0.12) begin(`kill ${n}`);
      else if (fate < 0.24) {
        files = new RecordedFiles(files.cut(files.events.length, random).image);
        begin(`power cut ${n}`);
      }
      const refused = (["write", "flush"] as const)[Math.floor(random.float() * 5)];
      let passed = Math.floor(random.float() * 3);
      files.fail = (operation) => (operation === refused && passed-- <= 0 ? new Error("EIO") : undefined);
      const length = random.float() < 0.5 ? 90_000 * random.float() : 500;
      const value = { n, spec: "s".repeat(length), ...(random.float() < 0.5 ? { x: n } : {}) };
      const change = { key: `k${Math.floor(random.float() * 8)}`, value: random.float() < 0.2 ? undefined : value };
      const before = possible.get(change.key) ?? [undefined];
      const isWritten = await journal.append([change]).then(
        () => true,
        () => false,
      );
      possible.set(change.key, new Set([...(isWritten ? [] : before), textOf(change.value)]));
      files.fail = undefined;
    }
  },
  60_000,
);
