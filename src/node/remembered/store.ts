// What a node keeps on disk to start without a server. What comes and goes with pods lies in a journal, everything else in one
// file per key, replaced as a whole, so that a power cut leaves the old or the new one. Written soon after it was noted and
// only where it differs from what is there. Bounded thrice: in all, per key, and in bytes a day, so that something that changes
// all the time wears no card out.
// Counterpart: none; the kubelet keeps checkpoints of managers only.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { type BlockFiles, systemBlockFiles } from "#platform/block-file.ts";
import { listFolder, makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { Budget } from "./budget.ts";
import { Journal, type JournalChange, type JournalValue } from "./journal.ts";

export interface StoreBounds {
  /** Of all that is remembered. */
  readonly totalBytes: number;
  /** Of one key. */
  readonly fileBytes: number;
  /** Changes that are not vital, per kind: what may be written at once, and what a day adds. */
  readonly burstBytes: number;
  readonly dailyBytes: number;
  /** Those that are, all kinds together. */
  readonly vitalBurstBytes: number;
  readonly vitalDailyBytes: number;
}

/**
 * 32 MiB hold the specs of 110 pods, their maps and secrets and the services of a large cluster, and are read in a second at a
 * boot; a key is an object (3 MiB at most) or a list. A day's share is what ten years of a small card can take beside all
 * else. The vital burst lets 110 pods come at once, and a day of nothing but new pods stays below 8 MB.
 */
export const defaultBounds: StoreBounds = {
  totalBytes: 32 * 2 ** 20,
  fileBytes: 4 * 2 ** 20,
  burstBytes: 4 * 2 ** 20,
  dailyBytes: 2 * 2 ** 20,
  vitalBurstBytes: 2 * 2 ** 20,
  vitalDailyBytes: 5 * 2 ** 20,
};

/**
 * held: only once something else needs it. spare: as a day's bytes of its kind allow. vital: without it a pod would not come
 * back as it was; in the journal as the day's vital bytes allow, a file at once. must: at once, or something would run twice.
 */
export type Urgency = "held" | "spare" | "vital" | "must";
const rank: Readonly<Record<Urgency, number>> = { held: 0, spare: 1, vital: 2, must: 3 };

export interface NoteOptions {
  /** For the log, such as `pod default/web`. */
  readonly about: string;
  /** Changes of one kind share a day's bytes. */
  readonly kind: string;
  /** Default spare. */
  readonly urgency?: Urgency;
  /** Default a second. */
  readonly withinMs?: number;
  /** Keys that are no longer held when this is written. */
  readonly needs?: () => Iterable<string>;
}

interface Note extends NoteOptions {
  readonly urgency: Urgency;
  /** Asked when it is written: undefined where there is nothing to write after all. */
  readonly produce: () => unknown;
  readonly dueMs: number;
}

interface Entry {
  readonly bytes: number;
  readonly digest: string;
}

/** How files are written; tests count. */
export interface StoreFiles {
  readonly blocks: BlockFiles;
  readonly write: (path: string, text: string, mode: number) => Promise<void>;
  readonly remove: (path: string) => Promise<void>;
}

const systemFiles: StoreFiles = { blocks: systemBlockFiles, write: writeFileDurable, remove: removeFile };

/** Changes come in groups. */
const gatherMs = 1_000;
/** After the disk refused. */
const retryMs = 60_000;
/** What ext4 was seen to write besides: the file's inode in its own journal; of a new file its folder too. */
const overheadBytes = { batch: 12 * 1024, file: 20 * 1024 } as const;
const dayMs = 24 * 3600_000;
/** That something is gone, where a boot would make nothing of it: goes with whatever is written next. */
const idleGoneMs = 3600_000;
/** Keys that were told to be too much: each once. */
const maxRefused = 1_000;
const journalName = "pods";
/** What there is of each pod: as many as there are pods, and gone with them. */
const isJournaled = (key: string): boolean => /^(?:pod|token)\//.test(key);

export class RememberedStore implements Service {
  readonly name = "remembered";
  readonly #folder: string;
  readonly #bounds: StoreBounds;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #files: StoreFiles;
  readonly #journal: Journal;
  /** Of the files. */
  readonly #entries = new Map<string, Entry>();
  /** Not written yet, by key. As many as there are keys. */
  readonly #pending = new Map<string, Note>();
  /** Of the journal, gone but not struck out yet: by when. */
  readonly #leaving = new Map<string, number>();
  /** Of the journal, being written at this moment. */
  readonly #inFlight = new Set<string>();
  readonly #budgets = new Map<string, Budget>();
  readonly #vital: Budget;
  readonly #refused = new Set<string>();
  #bytes = 0;
  #writing: string | undefined;
  #isDirty = false;
  #saidSpentMs: number | undefined;
  /** One change of the folder after the other. */
  #line: Promise<void> = Promise.resolve();
  #wake: () => void = () => {};

  constructor(
    options: { readonly folder: string; readonly bounds?: StoreBounds },
    deps: { readonly clock: Clock; readonly log: Logger; readonly files?: StoreFiles | undefined },
  ) {
    this.#folder = options.folder;
    this.#bounds = options.bounds ?? defaultBounds;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#files = deps.files ?? systemFiles;
    const { vitalBurstBytes, vitalDailyBytes } = this.#bounds;
    this.#vital = new Budget({ burstBytes: vitalBurstBytes, dailyBytes: vitalDailyBytes }, deps.clock);
    const path = `${options.folder}/${journalName}`;
    this.#journal = new Journal({ path }, { files: this.#files.blocks, log: deps.log });
  }

  /** Learns what there is. Files that nobody can read are taken away. */
  async open(): Promise<void> {
    await makeFolder(this.#folder, 0o700);
    this.#journal.open();
    const old: Kept[] = [];
    for (const { name } of await listFolder(this.#folder)) {
      if (name === `${journalName}.a` || name === `${journalName}.b`) continue;
      const path = `${this.#folder}/${name}`;
      const text = (await readFileIfExists(path))?.toString("utf8") ?? "";
      const kept = parse(text);
      if (kept && fileOf(kept.key) === name) {
        if (isJournaled(kept.key)) old.push(kept);
        else this.#set(kept.key, { bytes: Buffer.byteLength(text), digest: digestOf(bodyOf(text) ?? "") });
        continue;
      }
      // Left by a crash while it was written, or damaged since.
      this.#log.warn("a file of what is remembered cannot be read and is taken away", { path });
      await this.#files.remove(path);
    }
    if (old.length > 0) await this.#after(() => this.#takeOver(old));
  }

  get bytes(): number {
    return this.#bytes + this.#journal.bytes;
  }

  keys(): string[] {
    const journaled = this.#journal.keys().filter((key) => !this.#leaving.has(key));
    return [...new Set([...this.#entries.keys(), ...journaled, ...this.#pending.keys()])];
  }

  has(key: string): boolean {
    return this.#pending.has(key) || this.isKept(key);
  }

  /** Whether it is on the disk, in whatever state, or on its way there. */
  isKept(key: string): boolean {
    if (this.#entries.has(key) || this.#writing === key || this.#inFlight.has(key)) return true;
    return this.#journal.has(key) && !this.#leaving.has(key);
  }

  /** Of the journal: what a boot would find; undefined while that is being changed. */
  written(key: string): JournalValue | undefined {
    return this.#inFlight.has(key) ? undefined : this.#journal.get(key);
  }

  async get(key: string): Promise<unknown> {
    const noted = this.#pending.get(key)?.produce();
    if (noted !== undefined) return noted;
    if (isJournaled(key)) return this.#leaving.has(key) ? undefined : this.#journal.get(key);
    if (!this.#entries.has(key)) return undefined;
    const text = (await readFileIfExists(this.#path(key)))?.toString("utf8") ?? "";
    return parse(text)?.value;
  }

  /** To be written soon, if it differs from what is there. */
  note(key: string, produce: () => unknown, options: NoteOptions): void {
    const known = this.#pending.get(key);
    const wanted = options.urgency ?? "spare";
    const urgency = known && rank[known.urgency] > rank[wanted] ? known.urgency : wanted;
    // What was put off stays so, unless it has become more urgent: or each change would be worked out only to be put off again.
    const isPutOff = known !== undefined && rank[wanted] <= rank[known.urgency] && rank[wanted] <= rank.spare;
    const soonMs =
      urgency === "held" ? Number.POSITIVE_INFINITY : this.#clock.monotonicMs() + (options.withinMs ?? gatherMs);
    const dueMs = isPutOff ? known.dueMs : Math.min(known?.dueMs ?? soonMs, soonMs);
    this.#leaving.delete(key);
    this.#pending.set(key, { ...options, produce, urgency, dueMs });
    this.#isDirty = true;
    this.#wake();
  }

  /** What was noted and is not written yet need not be. */
  drop(key: string): void {
    this.#pending.delete(key);
  }

  /** `isIdle`: a boot would make nothing of it, so that there is no hurry. */
  forget(key: string, options: { readonly isIdle?: boolean } = {}): void {
    this.#pending.delete(key);
    this.#refused.delete(key);
    if (isJournaled(key)) {
      if (!this.isKept(key)) return;
      const dueMs = this.#clock.monotonicMs() + (options.isIdle ? idleGoneMs : gatherMs);
      this.#leaving.set(key, dueMs);
      this.#isDirty = true;
      this.#wake();
      return;
    }
    if (!this.#entries.has(key) && this.#writing !== key) return;
    void this.#after(async () => {
      // Noted again since.
      if (this.#pending.has(key)) return;
      this.#set(key, undefined);
      await this.#files.remove(this.#path(key));
    });
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    ready();
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) await this.#pause(await this.writeDue(), signal);
    } finally {
      signal.removeEventListener("abort", onAbort);
      await this.flush();
      this.#journal.close();
    }
  }

  /** Writes what it is time for; how long until there is more. */
  async writeDue(): Promise<number> {
    for (;;) {
      const nowMs = this.#clock.monotonicMs();
      const due = [...this.#pending].flatMap(([key, { dueMs }]) => (dueMs <= nowMs ? [key] : []));
      const isGoneDue = [...this.#leaving.values()].some((dueMs) => dueMs <= nowMs);
      if (due.length === 0 && !isGoneDue) return this.#nextMs() - nowMs;
      const journaled = due.filter(isJournaled);
      if (journaled.length > 0 || isGoneDue) await this.#after(() => this.#writeJournal(journaled, isGoneDue, false));
      for (const key of due) if (!isJournaled(key)) await this.#after(() => this.#writeFile(key, false));
    }
  }

  /** Writes what has been noted and is not held, and resolves when all is on disk. */
  async flush(): Promise<void> {
    const keys = [...this.#pending].flatMap(([key, { urgency }]) => (urgency === "held" ? [] : [key]));
    await this.#after(() => this.#writeJournal(keys.filter(isJournaled), this.#leaving.size > 0, true));
    for (const key of keys) if (!isJournaled(key)) await this.#after(() => this.#writeFile(key, true));
    await this.#line;
  }

  #nextMs(): number {
    let firstMs = this.#clock.monotonicMs() + dayMs;
    for (const { dueMs } of this.#pending.values()) firstMs = Math.min(firstMs, dueMs);
    for (const dueMs of this.#leaving.values()) firstMs = Math.min(firstMs, dueMs);
    return firstMs;
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    // Noted while the last one was written.
    if (this.#isDirty) {
      this.#isDirty = false;
      return;
    }
    const wait = new AbortController();
    this.#wake = () => wait.abort();
    if (!signal.aborted) await pause(this.#clock, ms, wait.signal);
    this.#isDirty = false;
    this.#wake = () => {};
  }

  #after(work: () => Promise<void>): Promise<void> {
    this.#line = this.#line.then(work).catch((error: unknown) => {
      this.#log.warn("cannot change what is remembered", { folder: this.#folder, error: messageOf(error) });
    });
    return this.#line;
  }

  /**
   * Of an earlier version, a file each. At once, because a pod that is gone by the time it would be written must not be found
   * again by a later start. What the journal has is newer: a start before did not come to the end of this.
   */
  async #takeOver(old: readonly Kept[]): Promise<void> {
    const changes = old.flatMap(({ key, value }) =>
      this.#journal.has(key) || typeof value !== "object" || value === null
        ? []
        : [{ key, value: value as JournalValue }],
    );
    await this.#journal.append(changes);
    for (const { key } of old) await this.#files.remove(this.#path(key));
  }

  /** Until it is on disk it is given from here; unless it was noted anew meanwhile. */
  #done(key: string, note: Note, dueMs?: number): void {
    if (this.#pending.get(key) !== note) return;
    if (dueMs === undefined) this.#pending.delete(key);
    else this.#pending.set(key, { ...note, dueMs });
  }

  /** All that is due and may be written, in one batch, and what goes with it. */
  async #writeJournal(keys: readonly string[], isGoneDue: boolean, isLast: boolean): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    const taken = new Map<string, Note>();
    const changes: JournalChange[] = [];
    let gone: readonly string[] = [];
    let addedBytes = 0;
    let spareKind: string | undefined;
    let isVital = isGoneDue;
    const take = (key: string, note: Note): boolean => {
      const value = note.produce() as JournalValue | undefined;
      const bytes = value === undefined ? 0 : Buffer.byteLength(JSON.stringify(value));
      const before = this.#journal.bytesOf(key);
      if (value === undefined || !this.#hasRoom(key, note.about, bytes, before - addedBytes)) {
        this.#done(key, note);
        return false;
      }
      addedBytes += bytes - before;
      taken.set(key, note);
      changes.push({ key, value });
      // From here on it is on its way: what becomes of it must be written after it.
      this.#inFlight.add(key);
      return true;
    };
    try {
      for (const key of keys) {
        const note = this.#pending.get(key);
        if (!note || taken.has(key)) continue;
        const waitMs = isLast ? 0 : this.#waitMs(note);
        if (waitMs > 0) {
          this.#done(key, note, nowMs + waitMs);
          continue;
        }
        if (!take(key, note)) continue;
        if (note.urgency === "spare") spareKind ??= note.kind;
        else isVital = true;
        for (const needed of note.needs?.() ?? []) {
          const held = this.#pending.get(needed);
          if (held?.urgency !== "held") continue;
          if (isJournaled(needed)) take(needed, held);
          else await this.#writeFile(needed, true);
        }
      }
      if (changes.length === 0 && !isGoneDue) return;
      gone = [...this.#leaving.keys()].filter((key) => !taken.has(key));
      for (const key of gone) {
        changes.push({ key, value: undefined });
        this.#inFlight.add(key);
      }
      const bytes = await this.#journal.append(changes);
      if (bytes > 0) {
        const budget = isVital || spareKind === undefined ? this.#vital : this.#budgetOf(spareKind);
        budget.take(bytes + overheadBytes.batch);
      }
      for (const [key, note] of taken) this.#done(key, note);
      for (const key of gone) if (!this.#pending.has(key)) this.#leaving.delete(key);
      for (const key of taken.keys()) this.#refused.delete(key);
    } catch (error) {
      for (const [key, note] of taken) this.#done(key, note, nowMs + retryMs);
      for (const key of this.#leaving.keys()) this.#leaving.set(key, nowMs + retryMs);
      throw error;
    } finally {
      for (const { key } of changes) this.#inFlight.delete(key);
    }
  }

  /** 0: may be written. What has been written above what a day gives has to be made up for first. */
  #waitMs({ urgency, kind }: Note): number {
    if (urgency === "must") return 0;
    const waitMs = (urgency === "vital" ? this.#vital : this.#budgetOf(kind)).debtMs();
    if (waitMs > 0 && urgency === "vital") this.#saySpent(waitMs);
    return waitMs;
  }

  #saySpent(waitMs: number): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#saidSpentMs !== undefined && nowMs - this.#saidSpentMs < dayMs) return;
    this.#saidSpentMs = nowMs;
    this.#log.warn(
      "pods come and go so often that they are written down less often: a boot without a server lacks the newest",
      {
        ...{ bytesADay: this.#bounds.vitalDailyBytes, nextInSeconds: Math.ceil(waitMs / 1000) },
      },
    );
  }

  async #writeFile(key: string, isForced: boolean): Promise<void> {
    const note = this.#pending.get(key);
    if (!note) return;
    const value = note.produce();
    if (value === undefined) return this.#done(key, note);
    const body = `${JSON.stringify({ key, value })}\n`;
    const text = withSum(body);
    const entry = { bytes: Buffer.byteLength(text), digest: digestOf(body) };
    const before = this.#entries.get(key);
    if (before?.digest === entry.digest) return this.#done(key, note);
    if (!this.#hasRoom(key, note.about, entry.bytes, before?.bytes ?? 0)) return this.#done(key, note);
    const nowMs = this.#clock.monotonicMs();
    const cost = entry.bytes + overheadBytes.file;
    if (note.urgency === "spare") {
      const budget = this.#budgetOf(note.kind);
      const waitMs = isForced ? 0 : budget.lackMs(cost);
      if (waitMs > 0) return this.#done(key, note, nowMs + waitMs);
      budget.take(cost);
    } else {
      this.#vital.take(cost);
    }
    this.#writing = key;
    try {
      await this.#files.write(this.#path(key), text, 0o600);
      this.#set(key, entry);
      this.#refused.delete(key);
      this.#done(key, note);
    } catch (error) {
      this.#done(key, note, nowMs + retryMs);
      throw error;
    } finally {
      this.#writing = undefined;
    }
  }

  #budgetOf(kind: string): Budget {
    const known = this.#budgets.get(kind);
    if (known) return known;
    const budget = new Budget(this.#bounds, this.#clock);
    this.#budgets.set(kind, budget);
    return budget;
  }

  #hasRoom(key: string, about: string, bytes: number, before: number): boolean {
    const { totalBytes, fileBytes } = this.#bounds;
    if (bytes <= fileBytes && this.bytes - before + bytes <= totalBytes) return true;
    if (this.#refused.has(key) || this.#refused.size >= maxRefused) return false;
    this.#refused.add(key);
    const remembered = this.bytes;
    this.#log.warn("too much to remember: a boot without a server would lack it", {
      ...{ what: about, bytes, remembered, mostInAll: totalBytes, mostEach: fileBytes },
    });
    return false;
  }

  #set(key: string, entry: Entry | undefined): void {
    this.#bytes += (entry?.bytes ?? 0) - (this.#entries.get(key)?.bytes ?? 0);
    if (entry) this.#entries.set(key, entry);
    else this.#entries.delete(key);
  }

  #path(key: string): string {
    return `${this.#folder}/${fileOf(key)}`;
  }
}

/** Keys hold slashes and may be longer than a file's name may be. */
const fileOf = (key: string): string => `${createHash("sha256").update(key).digest("hex").slice(0, 32)}.json`;
const digestOf = (text: string): string => createHash("sha256").update(text).digest("base64");

/** What a file holds. */
interface Kept {
  readonly key: string;
  readonly value: unknown;
}

/** A file is one object of JSON, whose first field is the sum of all behind it: rot need not break the syntax. */
const sumField = '{"sum":"';
const sumDigits = 8;
const sumOf = (rest: string): string => crc32(rest).toString(16).padStart(sumDigits, "0");
const withSum = (body: string): string => `${sumField}${sumOf(body.slice(1))}",${body.slice(1)}`;

/** Without its sum; undefined where that is wrong. Files of earlier versions have none. */
function bodyOf(text: string): string | undefined {
  if (!text.startsWith(sumField)) return text;
  const at = sumField.length + sumDigits;
  const rest = text.slice(at + 2);
  const isRight = text.startsWith('",', at) && sumOf(rest) === text.slice(sumField.length, at);
  return isRight ? `{${rest}` : undefined;
}

function parse(text: string): Kept | undefined {
  const body = bodyOf(text);
  if (body === undefined) return undefined;
  try {
    const found = JSON.parse(body) as { key?: unknown; value?: unknown } | null;
    return typeof found?.key === "string" ? { key: found.key, value: found.value } : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
