import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { readAt, writeAt } from "#platform/block-devices.ts";
import { runChecked, systemCommands } from "#platform/processes.ts";
import { type DataTarget, prepareFileSystem, readMarker, roomToGrow, writeMarker } from "./data-file-system.ts";
import { decodeMarker, encodeMarker, markerBytes, markerOffset } from "./data-marker.ts";
import { type DataFacts, planData } from "./data-plan.ts";
import { parseSuperblock, type Superblock } from "./ext4-superblock.ts";
import { startReset } from "./storage.ts";

const mib = 1024 * 1024;
const uuid = "00112233445566778899aabbccddeeff";
const other = "ff112233445566778899aabbccddeeff";

test("the marker: either state comes back, anything else is damaged or absent", () => {
  expect(decodeMarker(encodeMarker({ kind: "fresh" }))).toEqual({ kind: "fresh" });
  expect(decodeMarker(encodeMarker({ kind: "formatted", uuid }))).toEqual({ kind: "formatted", uuid });
  expect(decodeMarker(new Uint8Array(markerBytes))).toEqual({ kind: "absent" });
  const changed = Buffer.from(encodeMarker({ kind: "fresh" }));
  for (let at = 0; at < markerBytes; at++) {
    changed[at]! ^= 1;
    expect(decodeMarker(changed)).toEqual({ kind: "damaged" });
    changed[at]! ^= 1;
  }
});

describe("the plan", () => {
  const superblock = (more: Partial<Superblock> = {}): Superblock => ({
    ...{ uuid, blockBytes: 4096, bytes: 300 * mib, isClean: true },
    ...more,
  });
  const backup = (more: Partial<Superblock> = {}) => ({
    ...{ block: 32_768, blockBytes: 4096 },
    superblock: superblock(more),
  });
  const facts = (more: Partial<DataFacts>): DataFacts => ({
    ...{ marker: { kind: "absent" }, primary: undefined, backups: [], isBlank: false, partitionBytes: 300 * mib },
    ...more,
  });
  const formatted = { kind: "formatted", uuid } as const;
  test.each<[string, Partial<DataFacts>, string]>([
    ["an image just written", { marker: { kind: "fresh" }, isBlank: true }, "format"],
    [
      "an image over an old device, whose copies are there still",
      { marker: { kind: "fresh" }, backups: [backup()] },
      "format",
    ],
    ["cut before the marker turned", { marker: { kind: "fresh" }, primary: superblock() }, "format"],
    ["in use", { marker: formatted, primary: superblock() }, "use"],
    ["in use, with another name by hand", { marker: formatted, primary: superblock({ uuid: other }) }, "use"],
    ["torn", { marker: formatted, backups: [backup()] }, "repair"],
    ["zeroed", { marker: formatted, backups: [backup()], isBlank: true }, "repair"],
    ["torn, and only somebody else's copies", { marker: formatted, backups: [backup({ uuid: other })] }, "refuse"],
    ["zeroed, without a copy", { marker: formatted, isBlank: true }, "refuse"],
    ["marker damaged, in use", { marker: { kind: "damaged" }, primary: superblock() }, "use"],
    ["marker damaged, torn", { marker: { kind: "damaged" }, backups: [backup()] }, "repair"],
    ["marker damaged, nothing found", { marker: { kind: "damaged" }, isBlank: true }, "refuse"],
    ["no marker, in use", { primary: superblock() }, "use"],
    ["no marker, zeroed, copies found", { backups: [backup()], isBlank: true }, "repair"],
    ["no marker, something else", {}, "refuse"],
    ["no marker, nothing", { isBlank: true }, "format"],
    ["copied to a smaller medium", { marker: formatted, primary: superblock({ bytes: 301 * mib }) }, "refuse"],
    ["copies too large for here", { marker: formatted, backups: [backup({ bytes: 301 * mib })] }, "refuse"],
  ])("%s", (_, more, kind) => expect(planData(facts(more)).kind).toBe(kind));

  test("copies of an earlier life are outvoted", () => {
    const backups = [backup({ uuid: other }), backup(), backup()];
    const plan = planData(facts({ backups }));
    expect(plan).toEqual({ kind: "repair", backups: backups.slice(1) });
  });
});

describe("with mkfs.ext4 and e2fsck", () => {
  const size = 300 * mib;
  const deps = { commands: systemCommands, log: silentLogger };
  let folder: string;
  let target: DataTarget;
  let notes: string[];

  const empty = (path: string, bytes: number) => {
    const fd = openSync(path, "w");
    ftruncateSync(fd, bytes);
    closeSync(fd);
  };
  const prepare = async () => {
    notes = [];
    await prepareFileSystem(target, deps, notes);
  };
  const zero = (offset: number, bytes: number) => writeAt(target.path, [{ offset, bytes: new Uint8Array(bytes) }]);
  const superblock = async () => parseSuperblock(await readAt(target.path, 1024, 1024));
  const debugfs = (command: string) => runChecked(systemCommands, "debugfs", ["-w", "-R", command, target.path]);
  const keeps = async (text: string) => {
    await runChecked(systemCommands, "e2fsck", ["-f", "-n", target.path]);
    rmSync(`${folder}/out`, { force: true });
    await debugfs(`dump /kept ${folder}/out`);
    expect(readFileSync(`${folder}/out`, "utf8")).toBe(text);
  };

  beforeAll(async () => {
    // Ordinary users do not have it.
    process.env["PATH"] += ":/usr/sbin:/sbin";
    folder = mkdtempSync("/tmp/mote-data-");
    target = { path: `${folder}/data.img`, bytes: size, diskPath: `${folder}/disk.img` };
    empty(target.diskPath, 5 * mib);
    empty(target.path, size);
    await writeMarker(target.diskPath, { kind: "fresh" });
    await prepare();
    writeFileSync(`${folder}/in`, "somebody's data");
    await debugfs(`write ${folder}/in kept`);
    for (const name of ["data", "disk"]) copyFileSync(`${folder}/${name}.img`, `${folder}/${name}.whole`);
  });
  beforeEach(() => {
    for (const name of ["data", "disk"]) copyFileSync(`${folder}/${name}.whole`, `${folder}/${name}.img`);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test("a fresh partition is formatted, marked, and used from then on", async () => {
    await prepare();
    expect(notes).toEqual([]);
    const found = await superblock();
    expect(found).toMatchObject({ bytes: size, isClean: true });
    expect(await readMarker(target.diskPath)).toEqual({ kind: "formatted", uuid: found!.uuid });
    await keeps("somebody's data");
  });

  test("cut while it was being made: it is made again", async () => {
    const before = (await superblock())!.uuid;
    await writeMarker(target.diskPath, { kind: "fresh" });
    await prepare();
    expect(notes).toEqual(["the data partition was formatted"]);
    const after = (await superblock())!.uuid;
    expect(after).not.toBe(before);
    expect(await readMarker(target.diskPath)).toEqual({ kind: "formatted", uuid: after });
  });

  const garbage = (bytes: number) => Uint8Array.from({ length: bytes }, (_, i) => (i * 89 + 7) & 0xff);
  // The first block is 4 KiB: loader's place, superblock in two sectors, nothing.
  test.each<[string, number, Uint8Array]>([
    ["first sector of the superblock lost", 1024, new Uint8Array(512)],
    ["second sector of the superblock lost", 1536, new Uint8Array(512)],
    ["first sector is noise", 1024, garbage(512)],
    ["second sector is noise", 1536, garbage(512)],
    ["one bit turned", 1024 + 300, Uint8Array.of(0x80)],
    ["both lost", 1024, new Uint8Array(1024)],
    ["first block lost", 0, new Uint8Array(4096)],
    ["superblock and group descriptors lost", 0, new Uint8Array(8192)],
  ])("%s: repaired from a copy, nothing is missing", async (_, offset, bytes) => {
    await writeAt(target.path, [{ offset, bytes }]);
    expect(await superblock()).toBeUndefined();
    await prepare();
    expect(notes).toEqual(["the data partition's first block was damaged and has been repaired; files may be missing"]);
    await keeps("somebody's data");
    await prepare();
    expect(notes).toEqual([]);
  });

  test("torn, and the marker unreadable or absent as well: repaired all the same, and marked", async () => {
    for (const marker of [garbage(markerBytes), new Uint8Array(markerBytes)]) {
      copyFileSync(`${folder}/data.whole`, target.path);
      await zero(1024, 512);
      await writeAt(target.diskPath, [{ offset: markerOffset, bytes: marker }]);
      await prepare();
      await keeps("somebody's data");
      expect(await readMarker(target.diskPath)).toMatchObject({ kind: "formatted", uuid: (await superblock())!.uuid });
    }
  });

  test("the first MiB zeroed: what was there is gone, the file system is not made again", async () => {
    const before = (await superblock())!.uuid;
    await zero(0, mib);
    await prepare();
    expect((await superblock())!.uuid).toBe(before);
    await runChecked(systemCommands, "e2fsck", ["-f", "-n", target.path]);
    expect(notes[0]).toMatch(/files may be missing/);
  });

  test("no copy left: not a byte is written, and the sentence says what to do", async () => {
    await zero(0, 8192);
    for (const group of [1, 3, 5, 7, 9]) if (group * 128 * mib < size) await zero(group * 128 * mib, 4096);
    // A partition below 512 MiB has blocks of 1 KiB.
    for (const group of [1, 3, 5, 7, 9, 25, 27]) await zero((group * 8192 + 1) * 1024, 1024);
    const before = readFileSync(target.path);
    await expect(prepare()).rejects.toThrow(/cannot be used: .* file named factory-reset/);
    expect(Buffer.compare(readFileSync(target.path), before)).toBe(0);
    expect(await readMarker(target.diskPath)).toMatchObject({ kind: "formatted" });
  });

  test("errors found while it was last in use are looked at", async () => {
    await debugfs("set_super_value state 3");
    expect(await superblock()).toMatchObject({ isClean: false });
    await prepare();
    expect(await superblock()).toMatchObject({ isClean: true });
    await keeps("somebody's data");
  });

  test("tells how much an extension that was cut has left", async () => {
    expect(await roomToGrow(target)).toBe(0);
    expect(await roomToGrow({ ...target, bytes: size + 50 * mib })).toBe(50 * mib);
  });

  test("a factory reset whose request cannot be taken back changes nothing; one that can is done, also after a cut", async () => {
    const fail = () => Promise.reject(new Error("card is locked"));
    notes = [];
    expect(await startReset(target.diskPath, deps, notes, fail)).toBe(false);
    expect(notes).toEqual(["no factory reset: its file could not be removed (card is locked)"]);
    await prepare();
    await keeps("somebody's data");
    expect(await startReset(target.diskPath, deps, notes, async () => {})).toBe(true);
    // Here the power goes; the request is gone, the marker says the rest.
    await prepare();
    expect(notes).toEqual(["the data partition was formatted"]);
    await expect(keeps("somebody's data")).rejects.toThrow();
  });
});
