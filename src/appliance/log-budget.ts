// How much of the log may reach flash: a bucket of bytes that fills over a day. What does not fit is counted and said once
// there is room again. Pure.

export interface LogBudgetOptions {
  readonly bytesPerDay: number;
  /** In the bucket at start; small, so that a device that restarts in a loop does not wear its flash out either. */
  readonly burstBytes: number;
}

const dayMs = 24 * 3600_000;

export class LogBudget {
  readonly #options: LogBudgetOptions;
  #bytes: number;
  #atMs: number;
  #dropped = 0;

  /** `leftBytes` is what an earlier run of the program had left. */
  constructor(options: LogBudgetOptions, nowMs: number, leftBytes?: number) {
    this.#options = options;
    this.#bytes = Math.min(leftBytes ?? options.burstBytes, options.burstBytes);
    this.#atMs = nowMs;
  }

  get leftBytes(): number {
    return Math.floor(this.#bytes);
  }

  /** What to write for this line at monotonic time `nowMs`: the line, with a count of those lost before it, or nothing. */
  admit(line: string, nowMs: number): string | undefined {
    const { bytesPerDay } = this.#options;
    this.#bytes = Math.min(bytesPerDay, this.#bytes + ((nowMs - this.#atMs) / dayMs) * bytesPerDay);
    this.#atMs = nowMs;
    const text = this.#dropped > 0 ? `(${this.#dropped} lines were left out)\n${line}` : line;
    const size = Buffer.byteLength(text);
    if (size > this.#bytes) {
      this.#dropped++;
      return undefined;
    }
    this.#bytes -= size;
    this.#dropped = 0;
    return text;
  }
}
