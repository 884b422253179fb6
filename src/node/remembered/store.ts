// What a node keeps on disk to start without a server. What comes and goes with pods lies in a journal (journal.ts), everything
// else in a file per key (key-files.ts); after a power cut there is the old or the new of each. Written soon after it was noted
// (notes.ts), only where it differs from what is there, and as far as it may be (allowance.ts). One change after the other.
// Counterpart: none; the kubelet keeps checkpoints of managers only.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { type BlockFiles, systemBlockFiles } from "#platform/block-file.ts";
import { makeFolder, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { Allowance, defaultBounds, type StoreBounds } from "./allowance.ts";
import { Journal, type JournalChange, type JournalValue } from "./journal.ts";
import { type FileChanges, type Kept, KeyFiles } from "./key-files.ts";
import { type Note, type NoteOptions, Notes } from "./notes.ts";

/** How all of it is written; tests count. */
export interface StoreFiles extends FileChanges {
  readonly blocks: BlockFiles;
}

const systemFiles: StoreFiles = { blocks: systemBlockFiles, write: writeFileDurable, remove: removeFile };

/** After the disk refused. */
const retryMs = 60_000;
const dayMs = 24 * 3600_000;
const journalName = "pods";
const isOfJournal = (name: string): boolean => name === `${journalName}.a` || name === `${journalName}.b`;
/** What there is of each pod: as many as there are pods, and gone with them. */
const isJournaled = (key: string): boolean => /^(?:pod|token)\//.test(key);

/** What goes into the journal at once, while it is gathered. */
interface Batch {
  readonly taken: Map<string, Note>;
  readonly changes: JournalChange[];
  /** By which the journal's content grows. */
  addedBytes: number;
  /** The first kind of spare notes in it. */
  spareKind: string | undefined;
  /** Whether something in it is not spare. */
  isVital: boolean;
}

export class RememberedStore implements Service {
  readonly name = "remembered";
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #journal: Journal;
  readonly #files: KeyFiles;
  readonly #notes: Notes;
  readonly #allowance: Allowance;
  /** Of the journal, being written at this moment. */
  readonly #inFlight = new Set<string>();
  #isDirty = false;
  /** One change of the folder after the other. */
  #line: Promise<void> = Promise.resolve();
  #wake: () => void = () => {};

  constructor(
    options: { readonly folder: string; readonly bounds?: StoreBounds },
    deps: { readonly clock: Clock; readonly log: Logger; readonly files?: StoreFiles | undefined },
  ) {
    const { folder, bounds = defaultBounds } = options;
    const { clock, log, files = systemFiles } = deps;
    this.#folder = folder;
    this.#clock = clock;
    this.#log = log;
    this.#journal = new Journal({ path: `${folder}/${journalName}` }, { files: files.blocks, log });
    this.#files = new KeyFiles({ folder }, { changes: files, log });
    this.#notes = new Notes(clock);
    this.#allowance = new Allowance(bounds, { clock, log });
  }

  /** Learns what there is. Files that nobody can read are taken away. */
  async open(): Promise<void> {
    await makeFolder(this.#folder, 0o700);
    this.#journal.open();
    const old = await this.#files.open(isOfJournal, isJournaled);
    if (old.length > 0) await this.#after(() => this.#takeOver(old));
  }

  get bytes(): number {
    return this.#files.bytes + this.#journal.bytes;
  }

  keys(): string[] {
    const journaled = this.#journal.keys().filter((key) => !this.#notes.isLeaving(key));
    return [...new Set([...this.#files.keys(), ...journaled, ...this.#notes.keys()])];
  }

  has(key: string): boolean {
    return this.#notes.has(key) || this.isKept(key);
  }

  /** Whether it is on the disk, in whatever state, or on its way there. */
  isKept(key: string): boolean {
    if (this.#files.has(key) || this.#inFlight.has(key)) return true;
    return this.#journal.has(key) && !this.#notes.isLeaving(key);
  }

  /** Of the journal: what a boot would find; undefined while that is being changed. */
  written(key: string): JournalValue | undefined {
    return this.#inFlight.has(key) ? undefined : this.#journal.get(key);
  }

  async get(key: string): Promise<unknown> {
    const noted = this.#notes.get(key)?.produce();
    if (noted !== undefined) return noted;
    if (!isJournaled(key)) return this.#files.read(key);
    return this.#notes.isLeaving(key) ? undefined : this.#journal.get(key);
  }

  /** To be written soon, if it differs from what is there. Until it is on disk it is given from here. */
  note(key: string, produce: () => unknown, options: NoteOptions): void {
    this.#notes.add(key, produce, options);
    this.#hasNews();
  }

  /** What was noted and is not written yet need not be. */
  drop(key: string): void {
    this.#notes.drop(key);
  }

  /** `isIdle`: a boot would make nothing of it, so that there is no hurry. */
  forget(key: string, options: { readonly isIdle?: boolean } = {}): void {
    this.#notes.drop(key);
    this.#allowance.settled(key);
    if (isJournaled(key)) {
      if (!this.isKept(key)) return;
      this.#notes.leave(key, options.isIdle ?? false);
      this.#hasNews();
      return;
    }
    if (!this.#files.has(key)) return;
    void this.#after(async () => {
      // Unless it was noted again since.
      if (!this.#notes.has(key)) await this.#files.remove(key);
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
      const due = this.#notes.due(nowMs);
      const isGoneDue = this.#notes.isGoneDue(nowMs);
      if (due.length === 0 && !isGoneDue) return this.#notes.nextMs(nowMs + dayMs) - nowMs;
      const journaled = due.filter(isJournaled);
      if (journaled.length > 0 || isGoneDue) await this.#after(() => this.#writeJournal(journaled, isGoneDue, false));
      for (const key of due) if (!isJournaled(key)) await this.#after(() => this.#writeFile(key, false));
    }
  }

  /** Writes what has been noted and is not held, and resolves when all is on disk. */
  async flush(): Promise<void> {
    const keys = this.#notes.wanted();
    const isGone = this.#notes.leaving().length > 0;
    await this.#after(() => this.#writeJournal(keys.filter(isJournaled), isGone, true));
    for (const key of keys) if (!isJournaled(key)) await this.#after(() => this.#writeFile(key, true));
    await this.#line;
  }

  #hasNews(): void {
    this.#isDirty = true;
    this.#wake();
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
    for (const { key } of old) await this.#files.remove(key);
  }

  /** All that is due and may be written, in one batch, and what goes with it. */
  async #writeJournal(keys: readonly string[], isGoneDue: boolean, isLast: boolean): Promise<void> {
    const retryAtMs = this.#clock.monotonicMs() + retryMs;
    const batch: Batch = { taken: new Map(), changes: [], addedBytes: 0, spareKind: undefined, isVital: isGoneDue };
    const { taken, changes } = batch;
    try {
      await this.#fill(batch, keys, isLast);
      if (changes.length === 0 && !isGoneDue) return;
      const gone = this.#notes.leaving().filter((key) => !taken.has(key));
      for (const key of gone) {
        changes.push({ key, value: undefined });
        this.#inFlight.add(key);
      }
      const bytes = await this.#journal.append(changes);
      if (bytes > 0) this.#allowance.takeBatch(bytes, batch.isVital ? undefined : batch.spareKind);
      for (const [key, note] of taken) this.#notes.done(key, note);
      for (const key of gone) this.#notes.left(key);
      for (const key of taken.keys()) this.#allowance.settled(key);
    } catch (error) {
      for (const [key, note] of taken) this.#notes.putOff(key, note, retryAtMs);
      this.#notes.putOffLeaving(retryAtMs);
      throw error;
    } finally {
      for (const { key } of changes) this.#inFlight.delete(key);
    }
  }

  /** Puts off what may not be written yet. What is held and needed goes along, a file even before it. */
  async #fill(batch: Batch, keys: readonly string[], isLast: boolean): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    for (const key of keys) {
      const note = this.#notes.get(key);
      if (!note || batch.taken.has(key)) continue;
      const waitMs = isLast ? 0 : this.#allowance.batchWaitMs(note);
      if (waitMs > 0) {
        this.#notes.putOff(key, note, nowMs + waitMs);
        continue;
      }
      if (!this.#take(batch, key, note)) continue;
      if (note.urgency === "spare") batch.spareKind ??= note.kind;
      else batch.isVital = true;
      for (const needed of note.needs?.() ?? []) {
        const held = this.#notes.get(needed);
        if (held?.urgency !== "held") continue;
        if (isJournaled(needed)) this.#take(batch, needed, held);
        else await this.#writeFile(needed, true);
      }
    }
  }

  #take(batch: Batch, key: string, note: Note): boolean {
    const value = note.produce() as JournalValue | undefined;
    const bytes = value === undefined ? 0 : Buffer.byteLength(JSON.stringify(value));
    const before = this.#journal.bytesOf(key);
    const all = this.bytes;
    if (
      value === undefined ||
      !this.#allowance.hasRoom(key, note.about, bytes, { all, others: all + batch.addedBytes - before })
    ) {
      this.#notes.done(key, note);
      return false;
    }
    batch.addedBytes += bytes - before;
    batch.taken.set(key, note);
    batch.changes.push({ key, value });
    // From here on it is on its way: what becomes of it must be written after it.
    this.#inFlight.add(key);
    return true;
  }

  async #writeFile(key: string, isForced: boolean): Promise<void> {
    const note = this.#notes.get(key);
    if (!note) return;
    const value = note.produce();
    const draft = value === undefined ? undefined : this.#files.draft(key, value);
    if (!draft) return this.#notes.done(key, note);
    const { bytes } = draft;
    const all = this.bytes;
    const others = all - this.#files.bytesOf(key);
    if (!this.#allowance.hasRoom(key, note.about, bytes, { all, others })) return this.#notes.done(key, note);
    const nowMs = this.#clock.monotonicMs();
    const waitMs = isForced ? 0 : this.#allowance.fileWaitMs(note, bytes);
    if (waitMs > 0) return this.#notes.putOff(key, note, nowMs + waitMs);
    this.#allowance.takeFile(note, bytes);
    try {
      await this.#files.write(key, draft);
      this.#allowance.settled(key);
      this.#notes.done(key, note);
    } catch (error) {
      this.#notes.putOff(key, note, nowMs + retryMs);
      throw error;
    }
  }
}
