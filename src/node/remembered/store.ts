// What a node keeps on disk to start without a server: one file per key, written soon after it was noted and only where it
// differs from what the file says. Each file is replaced as a whole, so a power cut leaves the old or the new one. Bounded
// thrice: in all, per file, and in bytes a day, so that something that changes all the time wears no card out.
// Counterpart: none; the kubelet keeps checkpoints of managers only.
import { createHash } from "node:crypto";
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { listFolder, makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";

export interface StoreBounds {
  /** Of all files. */
  readonly totalBytes: number;
  readonly fileBytes: number;
  /** Changes that are not vital, per kind: what may be written at once, and what a day adds. */
  readonly burstBytes: number;
  readonly dailyBytes: number;
}

/**
 * 32 MiB hold the specs of 110 pods, their maps and secrets and the services of a large cluster, and are read in a second at a
 * boot; a file is an object (3 MiB at most) or a list. A day's share is what ten years of a small card can take beside all else.
 */
export const defaultBounds: StoreBounds = {
  totalBytes: 32 * 2 ** 20,
  fileBytes: 4 * 2 ** 20,
  burstBytes: 4 * 2 ** 20,
  dailyBytes: 2 * 2 ** 20,
};

export interface NoteOptions {
  /** For the log, such as `pod default/web`. */
  readonly about: string;
  /** Changes of one kind share a day's bytes. */
  readonly kind: string;
  /** Without this the pod would not come back as it was: written at once, whatever has been written today. */
  readonly isVital?: boolean;
}

interface Note extends NoteOptions {
  /** Asked when it is written: undefined where there is nothing to write after all. */
  readonly produce: () => unknown;
  readonly dueMs: number;
}

interface Entry {
  readonly bytes: number;
  readonly digest: string;
}

/** Changes come in groups. */
const gatherMs = 1_000;
/** After the disk refused. */
const retryMs = 60_000;
/** A file takes whole blocks, and its folder and journal are written too. */
const overheadBytes = 8 * 1024;
const dayMs = 24 * 3600_000;
/** Keys that were told to be too much: each once. */
const maxRefused = 1_000;

export class RememberedStore implements Service {
  readonly name = "remembered";
  readonly #folder: string;
  readonly #bounds: StoreBounds;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #entries = new Map<string, Entry>();
  /** Not written yet, by key. As many as there are keys. */
  readonly #pending = new Map<string, Note>();
  readonly #budgets = new Map<string, { bytes: number; atMs: number }>();
  readonly #refused = new Set<string>();
  #bytes = 0;
  #writing: string | undefined;
  #isDirty = false;
  /** One change of the folder after the other. */
  #line: Promise<void> = Promise.resolve();
  #wake: () => void = () => {};

  constructor(
    options: { readonly folder: string; readonly bounds?: StoreBounds },
    deps: { readonly clock: Clock; readonly log: Logger },
  ) {
    this.#folder = options.folder;
    this.#bounds = options.bounds ?? defaultBounds;
    this.#clock = deps.clock;
    this.#log = deps.log;
  }

  /** Learns what there is. Files that nobody can read are taken away. */
  async open(): Promise<void> {
    await makeFolder(this.#folder, 0o700);
    for (const { name } of await listFolder(this.#folder)) {
      const path = `${this.#folder}/${name}`;
      const text = (await readFileIfExists(path))?.toString("utf8") ?? "";
      const kept = parse(text);
      if (kept && fileOf(kept.key) === name) {
        this.#set(kept.key, { bytes: Buffer.byteLength(text), digest: digestOf(text) });
        continue;
      }
      // Left by a crash while it was written, or damaged since.
      this.#log.warn("a file of what is remembered cannot be read and is taken away", { path });
      await removeFile(path);
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  keys(): string[] {
    return [...new Set([...this.#entries.keys(), ...this.#pending.keys()])];
  }

  has(key: string): boolean {
    return this.#entries.has(key) || this.#pending.has(key);
  }

  async get(key: string): Promise<unknown> {
    const noted = this.#pending.get(key)?.produce();
    if (noted !== undefined) return noted;
    if (!this.#entries.has(key)) return undefined;
    const text = (await readFileIfExists(this.#path(key)))?.toString("utf8") ?? "";
    return parse(text)?.value;
  }

  /** To be written soon, if it differs from what is there. */
  note(key: string, produce: () => unknown, options: NoteOptions): void {
    const known = this.#pending.get(key);
    const isVital = options.isVital === true || known?.isVital === true;
    // What was put off stays so, unless it has become vital: or each change would be worked out only to be put off again.
    const isPutOff = known !== undefined && (known.isVital === true || !isVital);
    const soonMs = this.#clock.monotonicMs() + gatherMs;
    const dueMs = isPutOff ? known.dueMs : Math.min(known?.dueMs ?? soonMs, soonMs);
    this.#pending.set(key, { ...options, produce, isVital, dueMs });
    this.#isDirty = true;
    this.#wake();
  }

  forget(key: string): void {
    this.#pending.delete(key);
    this.#refused.delete(key);
    if (!this.#entries.has(key) && this.#writing !== key) return;
    void this.#after(async () => {
      // Noted again since.
      if (this.#pending.has(key)) return;
      this.#set(key, undefined);
      await removeFile(this.#path(key));
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
    }
  }

  /** Writes what it is time for; how long until there is more. */
  async writeDue(): Promise<number> {
    for (;;) {
      const next = this.#next();
      if (next === undefined) return dayMs;
      const leftMs = (this.#pending.get(next)?.dueMs ?? 0) - this.#clock.monotonicMs();
      if (leftMs > 0) return leftMs;
      await this.#after(() => this.#write(next, false));
    }
  }

  /** Writes what has been noted, and resolves when all is on disk. */
  async flush(): Promise<void> {
    for (const key of [...this.#pending.keys()]) await this.#after(() => this.#write(key, true));
    await this.#line;
  }

  #next(): string | undefined {
    let first: string | undefined;
    let firstMs = Number.POSITIVE_INFINITY;
    for (const [key, { dueMs }] of this.#pending) {
      if (dueMs >= firstMs) continue;
      first = key;
      firstMs = dueMs;
    }
    return first;
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

  async #write(key: string, isLast: boolean): Promise<void> {
    const note = this.#pending.get(key);
    if (!note) return;
    // Until it is on disk it is given from here; unless it was noted anew meanwhile.
    const done = (dueMs?: number) => {
      if (this.#pending.get(key) !== note) return;
      if (dueMs === undefined) this.#pending.delete(key);
      else this.#pending.set(key, { ...note, dueMs });
    };
    const value = note.produce();
    if (value === undefined) return done();
    const text = `${JSON.stringify({ key, value })}\n`;
    const entry = { bytes: Buffer.byteLength(text), digest: digestOf(text) };
    const before = this.#entries.get(key);
    if (before?.digest === entry.digest) return done();
    const { totalBytes, fileBytes } = this.#bounds;
    if (entry.bytes > fileBytes || this.#bytes - (before?.bytes ?? 0) + entry.bytes > totalBytes) {
      this.#refuse(key, note.about, entry.bytes);
      return done();
    }
    const nowMs = this.#clock.monotonicMs();
    const waitMs = this.#spend(note.kind, entry.bytes + overheadBytes, note.isVital === true || isLast, nowMs);
    if (waitMs > 0) return done(nowMs + waitMs);
    this.#writing = key;
    try {
      await writeFileDurable(this.#path(key), text, 0o600);
      this.#set(key, entry);
      this.#refused.delete(key);
      done();
    } catch (error) {
      done(nowMs + retryMs);
      throw error;
    } finally {
      this.#writing = undefined;
    }
  }

  /** 0: taken. Else how long until there is enough. */
  #spend(kind: string, bytes: number, isForced: boolean, nowMs: number): number {
    const { burstBytes, dailyBytes } = this.#bounds;
    const budget = this.#budgets.get(kind) ?? { bytes: burstBytes, atMs: nowMs };
    budget.bytes = Math.min(burstBytes, budget.bytes + ((nowMs - budget.atMs) * dailyBytes) / dayMs);
    budget.atMs = nowMs;
    this.#budgets.set(kind, budget);
    // What is larger than all that can be saved up waits for a full purse.
    const lacking = Math.min(bytes, burstBytes) - budget.bytes;
    if (!isForced && lacking > 0) return Math.ceil((lacking / dailyBytes) * dayMs);
    budget.bytes = Math.max(-burstBytes, budget.bytes - bytes);
    return 0;
  }

  #refuse(key: string, about: string, bytes: number): void {
    if (this.#refused.has(key) || this.#refused.size >= maxRefused) return;
    this.#refused.add(key);
    const { totalBytes, fileBytes } = this.#bounds;
    const remembered = this.#bytes;
    this.#log.warn("too much to remember: a boot without a server would lack it", {
      ...{ what: about, bytes, remembered, mostInAll: totalBytes, mostEach: fileBytes },
    });
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

function parse(text: string): { readonly key: string; readonly value: unknown } | undefined {
  try {
    const found = JSON.parse(text) as { key?: unknown; value?: unknown } | null;
    return typeof found?.key === "string" ? { key: found.key, value: found.value } : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
