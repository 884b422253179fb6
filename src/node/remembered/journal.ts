// Small records that come and go with pods, at the price of one block and one flush for all that changes at a time. Two files
// take turns: changes are appended to one until it is full, then what still counts is written to the other, over what was
// there, and that one goes on. Nothing that is on the medium is ever written over before its successor is, no file is made or
// renamed while it goes on, and a file that has its length costs the file system no change of its own. Files that have become
// much too long are cut once the next snapshot is on the medium; what that costs is what was written to make them so long.
//
//   batch = header (24 bytes) + lines of JSON, in whole blocks; valid when its sum is right: a torn one never was
//   generation = snapshot (the last of its batches says so) + appended batches; the highest complete one counts
//
// Of an object only the fields at its top that have changed are appended. Counterpart: none.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";

export type JournalValue = Readonly<Record<string, unknown>>;

export interface JournalChange {
  readonly key: string;
  /** Undefined: it is gone. */
  readonly value: JournalValue | undefined;
}

export interface JournalOptions {
  /** Of both files, without their `.a` and `.b`. */
  readonly path: string;
}

export interface JournalDeps {
  readonly files: BlockFiles;
  readonly log: Logger;
}

interface Line {
  readonly k: string;
  /** All of it. */
  readonly v?: JournalValue;
  /** Fields that are other than before, and those that are no more. */
  readonly d?: JournalValue;
  readonly x?: readonly string[];
}

interface Piece {
  readonly at: number;
  readonly bytes: number;
}

interface Entry {
  /** The whole, and what has changed since, in order. */
  readonly pieces: readonly Piece[];
  /** Of its fields. */
  readonly digests: ReadonlyMap<string, string>;
  readonly bytes: number;
}

interface Batch {
  readonly generation: number;
  readonly sequence: number;
  readonly part: number;
  /** Of its lines. */
  readonly at: number;
  readonly bytes: number;
  /** Where the next one begins. */
  readonly end: number;
}

interface Written {
  readonly line: Line;
  readonly text: string;
}

const blockBytes = 4096;
const headerBytes = 24;
/** `mrj1` */
const magic = 0x6d72_6a31;
const parts = { snapshot: 0, snapshotEnd: 1, appended: 2 } as const;
/** A batch of a snapshot; a single record may be longer. */
const snapshotBytes = 64 * 1024;
/** Longer ones were never written: the length is rot. */
const maxBatchBytes = 64 * 2 ** 20;
/** A file grows in such steps, for each step changes its length, which is a write of its own. */
const growthBytes = 64 * 1024;
/** Room behind a snapshot: 64 flushes of one block, so that small ones cost little; of large ones at most as much again. */
const leastRoomBytes = 256 * 1024;
/** A file that is longer than so many times what it needs is cut. */
const slackFactor = 4;
/** Then the whole is written again. */
const maxPieces = 8;

export class Journal {
  readonly #path: string;
  readonly #files: BlockFiles;
  readonly #log: Logger;
  readonly #open: (BlockFile | undefined)[] = [undefined, undefined];
  #entries = new Map<string, Entry>();
  #bytes = 0;
  /** Of the two files; undefined: nothing has been written yet. */
  #slot: number | undefined;
  #generation = 0;
  /** Higher than any that was found, be it torn. */
  #nextGeneration = 1;
  #sequence = 0;
  #end = 0;
  #limit = 0;
  /** What follows in this file cannot be relied on: it goes on in the other one. */
  #isBroken = false;
  /** The disk would not: not tried again in this run, or each change would cost a snapshot. */
  #cannotCut = false;

  constructor(options: JournalOptions, deps: JournalDeps) {
    this.#path = options.path;
    this.#files = deps.files;
    this.#log = deps.log;
  }

  /** Learns what there is. */
  open(): void {
    let best: { readonly slot: number; readonly batches: readonly Batch[] } | undefined;
    let isAny = false;
    for (const slot of [0, 1]) {
      for (const [generation, batches] of this.#scan(slot)) {
        isAny = true;
        this.#nextGeneration = Math.max(this.#nextGeneration, generation + 1);
        const isBetter = best === undefined || generation > best.batches[0]!.generation;
        if (isBetter && isComplete(batches)) best = { slot, batches };
      }
    }
    if (!best) {
      if (isAny) this.#log.warn("what was remembered of pods cannot be read", { path: this.#path });
      return;
    }
    const { slot, batches } = best;
    const file = this.#file(slot);
    try {
      for (const batch of batches) this.#replay(file, batch);
      // What a run wrote that was killed before its flush counts from here on, and is built upon.
      file.sync();
    } catch (error) {
      this.#isBroken = true;
      this.#unreadable(slot, error);
    }
    const last = batches.at(-1)!;
    this.#slot = slot;
    this.#generation = last.generation;
    this.#sequence = last.sequence + 1;
    this.#end = last.end;
    this.#limit = limitFor(this.#snapshotEndOf(batches));
    if (batches.length === this.#sequence) return;
    this.#isBroken = true;
    this.#log.warn("a part of what was remembered of pods cannot be read", { path: this.#path });
  }

  get bytes(): number {
    return this.#bytes;
  }

  keys(): string[] {
    return [...this.#entries.keys()];
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  bytesOf(key: string): number {
    return this.#entries.get(key)?.bytes ?? 0;
  }

  get(key: string): JournalValue | undefined {
    const entry = this.#entries.get(key);
    if (!entry || this.#slot === undefined) return undefined;
    const value: Record<string, unknown> = {};
    try {
      const file = this.#file(this.#slot);
      for (const { at, bytes } of entry.pieces) {
        const line = parseLine(readText(file, at, bytes));
        Object.assign(value, line?.v ?? line?.d);
        for (const field of line?.x ?? []) delete value[field];
      }
    } catch (error) {
      this.#unreadable(this.#slot, error);
      return undefined;
    }
    return value;
  }

  /** Resolves when all of it is on the medium; how many bytes were written for it, 0 where nothing is new. One at a time. */
  async append(changes: readonly JournalChange[]): Promise<number> {
    let lines = this.#linesOf(changes);
    if (lines.length === 0) return 0;
    let bytes = 0;
    const isFull = this.#slot === undefined || this.#isBroken || this.#end + sizeOf(lines) > this.#limit;
    const isTooLong = this.#isTooLong(limitFor(inBlocks(this.#bytes) + sizeOf(lines)));
    if (isFull || isTooLong) {
      bytes += await this.#turn();
      // What was a guess made them turn, so they are cut, be it a little less too long than that: or each change would cost a turn.
      if (isTooLong || this.#isTooLong(this.#limit)) this.#cut();
      // What could not be read again is not known any more.
      lines = this.#linesOf(changes);
    }
    const slot = this.#slot!;
    const file = this.#file(slot);
    try {
      bytes += this.#put(file, this.#end, parts.appended, lines);
      await file.flush();
    } catch (error) {
      this.#isBroken = true;
      throw error;
    }
    this.#note(this.#entries, this.#end, lines);
    this.#end += sizeOf(lines);
    this.#sequence++;
    return bytes;
  }

  close(): void {
    for (const slot of [0, 1]) {
      this.#open[slot]?.close();
      this.#open[slot] = undefined;
    }
  }

  /** What still counts, into the other file. */
  async #turn(): Promise<number> {
    const slot = this.#slot === 0 ? 1 : 0;
    const file = this.#file(slot, true);
    const entries = new Map<string, Entry>();
    const before = { generation: this.#generation, sequence: this.#sequence };
    const generation = this.#nextGeneration++;
    let sequence = 0;
    let end = 0;
    let written = 0;
    let lines: Written[] = [];
    const batch = (part: number) => {
      this.#generation = generation;
      this.#sequence = sequence++;
      written += this.#put(file, end, part, lines);
      this.#note(entries, end, lines, false);
      end += sizeOf(lines);
      lines = [];
    };
    try {
      for (const key of this.#entries.keys()) {
        const value = this.get(key);
        if (!value) continue;
        const line = { k: key, v: value };
        lines.push({ line, text: JSON.stringify(line) });
        if (sizeOf(lines) >= snapshotBytes) batch(parts.snapshot);
      }
      batch(parts.snapshotEnd);
      await file.flush();
    } catch (error) {
      this.#generation = before.generation;
      this.#sequence = before.sequence;
      // It may be on the medium all the same, and would count for more than what is appended to this one.
      this.#isBroken = true;
      throw error;
    }
    this.#entries = entries;
    this.#bytes = 0;
    for (const entry of entries.values()) this.#bytes += entry.bytes;
    this.#slot = slot;
    this.#generation = generation;
    this.#sequence = sequence;
    this.#end = end;
    this.#limit = limitFor(end);
    this.#isBroken = false;
    return written;
  }

  #isTooLong(limit: number): boolean {
    return !this.#cannotCut && [0, 1].some((slot) => this.#lengthOf(slot) > slackFactor * limit);
  }

  /** 0 where there is none. */
  #lengthOf(slot: number): number {
    try {
      return this.#file(slot).size();
    } catch (error) {
      if (!hasCode(error, "ENOENT")) this.#unreadable(slot, error);
      return 0;
    }
  }

  /** Only after a snapshot that is on the medium: of the other file nothing counts then, and of this one only its beginning. */
  #cut(): void {
    const bytes = Math.ceil(this.#limit / growthBytes) * growthBytes;
    try {
      for (const slot of [0, 1]) if (this.#lengthOf(slot) > bytes) this.#file(slot).truncate(bytes);
    } catch (error) {
      this.#cannotCut = true;
      this.#log.warn("a file of what is remembered stays longer than it need be", { error: messageOf(error) });
    }
  }

  #snapshotEndOf(batches: readonly Batch[]): number {
    let end = 0;
    for (const batch of batches) if (batch.part !== parts.appended) end = Math.max(end, batch.end);
    return end;
  }

  #linesOf(changes: readonly JournalChange[]): Written[] {
    return changes.flatMap((change) => this.#lineOf(change) ?? []);
  }

  /** Undefined where there is nothing new. */
  #lineOf({ key, value }: JournalChange): Written | undefined {
    const known = this.#entries.get(key);
    let line: Line;
    if (value === undefined) {
      if (!known) return undefined;
      line = { k: key };
    } else if (!known || known.pieces.length >= maxPieces) {
      line = { k: key, v: value };
    } else {
      const now = digestsOf(value);
      const changed = [...now].filter(([field, digest]) => known.digests.get(field) !== digest);
      const gone = [...known.digests.keys()].filter((field) => !now.has(field));
      if (changed.length === 0 && gone.length === 0) return undefined;
      line = {
        k: key,
        d: Object.fromEntries(changed.map(([field]) => [field, value[field]])),
        ...(gone.length > 0 ? { x: gone } : {}),
      };
    }
    return { line, text: JSON.stringify(line) };
  }

  /** One batch; how many bytes that were. */
  #put(file: BlockFile, at: number, part: number, lines: readonly Written[]): number {
    const size = sizeOf(lines);
    const length = file.size();
    const grown = at + size > length ? Math.ceil((at + size) / growthBytes) * growthBytes - at : size;
    const bytes = Buffer.alloc(grown);
    const payload = bytes.write(lines.map(({ text }) => `${text}\n`).join(""), headerBytes, "utf8");
    for (const [i, field] of [magic, this.#generation, this.#sequence, payload, part].entries()) {
      bytes.writeUInt32LE(field, i * 4);
    }
    bytes.writeUInt32LE(sumOf(bytes, payload), 20);
    file.write(bytes, at);
    return grown;
  }

  /** Where the lines of a batch at `at` lie from now on. */
  #note(entries: Map<string, Entry>, at: number, lines: readonly Written[], counts = true): void {
    let position = at + headerBytes;
    for (const { line, text } of lines) {
      const bytes = Buffer.byteLength(text);
      this.#apply(entries, line, { at: position, bytes }, counts);
      position += bytes + 1;
    }
  }

  #apply(entries: Map<string, Entry>, line: Line, piece: Piece, counts: boolean): void {
    const known = entries.get(line.k);
    if (counts) this.#bytes -= known?.bytes ?? 0;
    entries.delete(line.k);
    let entry: Entry | undefined;
    if (line.v) entry = { pieces: [piece], digests: digestsOf(line.v), bytes: piece.bytes };
    else if (line.d && known) {
      const digests = new Map([...known.digests, ...digestsOf(line.d)]);
      for (const field of line.x ?? []) digests.delete(field);
      entry = { pieces: [...known.pieces, piece], digests, bytes: known.bytes + piece.bytes };
    }
    if (!entry) return;
    entries.set(line.k, entry);
    if (counts) this.#bytes += entry.bytes;
  }

  #replay(file: BlockFile, batch: Batch): void {
    let position = batch.at;
    for (const text of readText(file, batch.at, batch.bytes).split("\n")) {
      const bytes = Buffer.byteLength(text);
      const line = text === "" ? undefined : parseLine(text);
      if (line) this.#apply(this.#entries, line, { at: position, bytes }, true);
      position += bytes + 1;
    }
  }

  /** Valid batches by generation, each in order. Looked for at every block: what is damaged hides nothing behind it. */
  #scan(slot: number): Map<number, Batch[]> {
    const found = new Map<number, Batch[]>();
    let file: BlockFile;
    try {
      file = this.#file(slot);
    } catch (error) {
      if (!hasCode(error, "ENOENT")) this.#unreadable(slot, error);
      return found;
    }
    try {
      const size = file.size();
      for (let at = 0; at + headerBytes <= size; ) {
        const batch = batchAt(file, at, size);
        at = batch?.end ?? at + blockBytes;
        if (!batch) continue;
        const ofGeneration = found.get(batch.generation);
        if (ofGeneration) ofGeneration.push(batch);
        else found.set(batch.generation, [batch]);
      }
    } catch (error) {
      this.#unreadable(slot, error);
    }
    for (const batches of found.values()) batches.sort((a, b) => a.sequence - b.sequence);
    return found;
  }

  #unreadable(slot: number, error: unknown): void {
    this.#log.warn("a file of what is remembered cannot be read", { path: this.#name(slot), error: messageOf(error) });
  }

  #name(slot: number): string {
    return `${this.#path}.${slot === 0 ? "a" : "b"}`;
  }

  #file(slot: number, create = false): BlockFile {
    const known = this.#open[slot];
    if (known) return known;
    const name = this.#name(slot);
    const isNew = create && !this.#files.exists(name);
    const file = this.#files.open(name, { create });
    this.#open[slot] = file;
    if (isNew) this.#files.syncFolderOf(name);
    return file;
  }
}

const limitFor = (snapshot: number): number => snapshot + Math.max(leastRoomBytes, snapshot);

/** Whether all of its snapshot was on the medium: batches are appended only after that. */
function isComplete(batches: readonly Batch[]): boolean {
  if (batches.some(({ part }) => part === parts.appended)) return true;
  const end = batches.find(({ part }) => part === parts.snapshotEnd);
  return end !== undefined && batches.length === end.sequence + 1;
}

function batchAt(file: BlockFile, at: number, size: number): Batch | undefined {
  const header = Buffer.alloc(headerBytes);
  if (file.read(header, at) < headerBytes || header.readUInt32LE(0) !== magic) return undefined;
  const [generation, sequence, bytes, part, sum] = [4, 8, 12, 16, 20].map((field) => header.readUInt32LE(field));
  if (bytes! > Math.min(maxBatchBytes, size - at - headerBytes)) return undefined;
  const all = Buffer.alloc(headerBytes + bytes!);
  if (file.read(all, at) < all.length || sumOf(all, bytes!) !== sum) return undefined;
  const end = at + inBlocks(all.length);
  return { generation: generation!, sequence: sequence!, part: part!, at: at + headerBytes, bytes: bytes!, end };
}

/** Of all but the place of the sum itself. */
const sumOf = (batch: Uint8Array, payload: number): number =>
  crc32(batch.subarray(headerBytes, headerBytes + payload), crc32(batch.subarray(0, headerBytes - 4)));

const inBlocks = (bytes: number): number => Math.ceil(bytes / blockBytes) * blockBytes;
const sizeOf = (lines: readonly Written[]): number =>
  inBlocks(lines.reduce((sum, { text }) => sum + Buffer.byteLength(text) + 1, headerBytes));

function readText(file: BlockFile, at: number, bytes: number): string {
  const into = Buffer.alloc(bytes);
  return into.toString("utf8", 0, file.read(into, at));
}

const digestsOf = (value: JournalValue): Map<string, string> =>
  new Map(
    Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .map(([name, field]) => [name, createHash("sha256").update(JSON.stringify(field)).digest("base64")]),
  );

function parseLine(text: string): Line | undefined {
  try {
    const found = JSON.parse(text) as Line | null;
    return typeof found?.k === "string" ? found : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
