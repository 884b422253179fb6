// Lines of the audit log on their way to a file, standard output or a collector: in order, as many at once as wait. In the
// mode `batch` nobody waits, and what finds no place is lost and counted; else whoever writes learns whether it was kept.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";

/** Where lines go, in order; one call at a time. */
export interface LineTarget {
  /** Each with its end. Resolves with how many were not kept because they are longer than a file may be. */
  append(lines: readonly Buffer[]): Promise<number>;
  /** There is little time left: what fails is not to be tried again. */
  stopping?(): void;
  close(): Promise<void>;
}

export interface LogWriterOptions {
  readonly isBatch: boolean;
  /** Lines that may wait. */
  readonly maxLines: number;
  /** Of lines written at once. */
  readonly batchBytes: number;
  readonly batchLines?: number;
  /** So long is waited for a batch to become full; default not at all. */
  readonly lingerMs?: number;
}

export interface LogWriterDeps {
  readonly target: LineTarget;
  readonly clock: Clock;
  readonly log: Logger;
  /** So many lines are lost. */
  readonly onLost: (count: number) => void;
}

/** All that waits: a disk that hangs must not take the memory with it. */
const maxWaitingBytes = 16 * 1024 * 1024;
/** A full disk says the same of every line. */
const complainEveryMs = 60_000;

interface Waiting {
  readonly line: Buffer;
  readonly done: (isKept: boolean) => void;
}

const nobody = () => {};

export class LogWriter {
  readonly #options: LogWriterOptions;
  readonly #deps: LogWriterDeps;
  #waiting: Waiting[] = [];
  #bytes = 0;
  #running: Promise<void> | undefined;
  /** Ends the waiting for a full batch. */
  #hurry: () => void = nobody;
  #isClosing = false;
  #complainedMs = Number.NEGATIVE_INFINITY;

  constructor(options: LogWriterOptions, deps: LogWriterDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** `text` without its end. Undefined in the mode `batch`; else resolves with whether it was kept. */
  write(text: string): Promise<boolean> | undefined {
    const line = Buffer.from(`${text}\n`);
    const { isBatch, maxLines } = this.#options;
    const isFull = this.#waiting.length >= maxLines || this.#bytes + line.length > maxWaitingBytes;
    if (isFull && this.#waiting.length > 0) {
      this.#lose(1, "too many events wait for the disk");
      return isBatch ? undefined : Promise.resolve(false);
    }
    this.#bytes += line.length;
    if (this.#waiting.length + 1 >= (this.#options.batchLines ?? 1)) this.#hurry();
    if (isBatch) {
      this.#waiting.push({ line, done: nobody });
      this.#start();
      return undefined;
    }
    return new Promise((done) => {
      this.#waiting.push({ line, done });
      this.#start();
    });
  }

  /** Writes what waits, and closes. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#hurry();
    this.#deps.target.stopping?.();
    while (this.#running) await this.#running;
    await this.#deps.target.close();
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // What came while the last of it ended.
      if (this.#waiting.length > 0) this.#start();
    });
  }

  async #run(): Promise<void> {
    // In a turn of its own, so that what is told together is written together.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      await this.#linger();
      const batch = this.#next();
      let isKept = true;
      try {
        const tooLong = await this.#deps.target.append(batch.map(({ line }) => line));
        if (tooLong > 0) this.#lose(tooLong, "an event is larger than audit-log-maxsize");
      } catch (error) {
        isKept = false;
        this.#lose(batch.length, messageOf(error));
      }
      for (const { done } of batch) done(isKept);
    }
  }

  async #linger(): Promise<void> {
    const { lingerMs = 0, batchLines = Number.POSITIVE_INFINITY } = this.#options;
    if (lingerMs === 0 || this.#isClosing || this.#waiting.length >= batchLines) return;
    await new Promise<void>((resolve) => {
      const cancel = this.#deps.clock.after(lingerMs, resolve);
      this.#hurry = () => {
        cancel();
        resolve();
      };
    });
    this.#hurry = nobody;
  }

  #next(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const { line } of this.#waiting) {
      if (count > 0 && bytes + line.length > this.#options.batchBytes) break;
      if (count === this.#options.batchLines) break;
      bytes += line.length;
      count++;
    }
    this.#bytes -= bytes;
    return this.#waiting.splice(0, count);
  }

  #lose(count: number, why: string): void {
    this.#deps.onLost(count);
    const nowMs = this.#deps.clock.monotonicMs();
    if (nowMs - this.#complainedMs < complainEveryMs) return;
    this.#complainedMs = nowMs;
    this.#deps.log.error("audit events are lost", { error: why });
  }
}
