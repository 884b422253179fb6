// What is to be remembered and is not on the disk yet: by key, how urgent it is and when it is due; and which keys are gone and
// not struck out yet. As many as there are keys. Decides about time only; nothing is written here.
import type { Clock } from "#base/clock.ts";

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

export interface Note extends NoteOptions {
  readonly urgency: Urgency;
  /** Asked when it is written: undefined where there is nothing to write after all. */
  readonly produce: () => unknown;
  readonly dueMs: number;
}

/** Changes come in groups. */
const gatherMs = 1_000;
/** That something is gone, where a boot would make nothing of it: goes with whatever is written next. */
const idleGoneMs = 3600_000;

export class Notes {
  readonly #clock: Clock;
  readonly #pending = new Map<string, Note>();
  /** Gone: struck out by when. */
  readonly #leaving = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  has(key: string): boolean {
    return this.#pending.has(key);
  }

  get(key: string): Note | undefined {
    return this.#pending.get(key);
  }

  keys(): IterableIterator<string> {
    return this.#pending.keys();
  }

  /** All but those that are held. */
  wanted(): string[] {
    return [...this.#pending].flatMap(([key, { urgency }]) => (urgency === "held" ? [] : [key]));
  }

  due(nowMs: number): string[] {
    return [...this.#pending].flatMap(([key, { dueMs }]) => (dueMs <= nowMs ? [key] : []));
  }

  add(key: string, produce: () => unknown, options: NoteOptions): void {
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
  }

  drop(key: string): void {
    this.#pending.delete(key);
  }

  /** Written, or not to be after all; unless it was noted anew meanwhile. */
  done(key: string, note: Note): void {
    if (this.#pending.get(key) === note) this.#pending.delete(key);
  }

  /** The same, and it is tried again by then. */
  putOff(key: string, note: Note, dueMs: number): void {
    if (this.#pending.get(key) === note) this.#pending.set(key, { ...note, dueMs });
  }

  /** It is gone. `isIdle`: a boot would make nothing of it, so that there is no hurry. */
  leave(key: string, isIdle: boolean): void {
    this.#leaving.set(key, this.#clock.monotonicMs() + (isIdle ? idleGoneMs : gatherMs));
  }

  isLeaving(key: string): boolean {
    return this.#leaving.has(key);
  }

  leaving(): string[] {
    return [...this.#leaving.keys()];
  }

  isGoneDue(nowMs: number): boolean {
    return [...this.#leaving.values()].some((dueMs) => dueMs <= nowMs);
  }

  /** It is struck out; unless it was noted anew meanwhile. */
  left(key: string): void {
    if (!this.#pending.has(key)) this.#leaving.delete(key);
  }

  putOffLeaving(dueMs: number): void {
    for (const key of this.#leaving.keys()) this.#leaving.set(key, dueMs);
  }

  /** When the next of all is due, at the latest. */
  nextMs(latestMs: number): number {
    let firstMs = latestMs;
    for (const { dueMs } of this.#pending.values()) firstMs = Math.min(firstMs, dueMs);
    for (const dueMs of this.#leaving.values()) firstMs = Math.min(firstMs, dueMs);
    return firstMs;
  }
}
