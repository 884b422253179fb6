// Reads a container's log file for `kubectl logs`: the last N lines, lines since a time, a limit of bytes, and following
// a file that grows and is rotated (renamed, with a new one under the old name) while the container runs.
// Invariant: output is made of whole log lines in file order; nothing is read twice or skipped when the file rotates.
// Bounds: one block in memory at a time, one line at most `maxLineBytes`. Upstream counterpart: kuberuntime/logs.ReadLogs.
import { type Clock, pause } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import { fileFacts, type OpenFile, openForReading } from "#platform/open-file.ts";
import { fixedTime, parseLogLine } from "./log-line.ts";

export interface LogQuery {
  readonly follow: boolean;
  readonly timestamps: boolean;
  readonly tailLines?: number | undefined;
  /** Lines before it are left out, ms since 1970. */
  readonly sinceMs?: number | undefined;
  readonly limitBytes?: number | undefined;
}

export interface LogSource {
  /** Path of the live log. */
  readonly path: string;
  /** False once the container has ended: what is written by then is all there will be. */
  isRunning(): boolean;
}

const blockBytes = 64 * 1024;
/** containerd cuts lines at 16 KiB; a file made by something else must not fill memory. */
const maxLineBytes = 1024 * 1024;
/** How often a followed file is looked at. People read this: a fifth of a second feels live, and costs a stat. */
const pollMs = 200;
const lineFeed = 0x0a;

/** The text to send, in pieces. Rejects with NODE_LOG_MISSING when there is no file. Ends quietly when aborted. */
export async function* readLog(
  source: LogSource,
  query: LogQuery,
  deps: { readonly clock: Clock },
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, void> {
  const first = await openForReading(source.path);
  if (!first) throw new AppError("NODE_LOG_MISSING", `there is no log file ${source.path}`, { path: source.path });
  let file: OpenFile = first;
  try {
    const writer = new LogWriter(query);
    let offset = query.tailLines === undefined ? 0 : await tailOffset(file, query.tailLines);
    let rest: Buffer = Buffer.alloc(0);
    let hasSuccessor = false;
    while (!signal.aborted) {
      // Asked before reading: what a container wrote before it ended is then still read.
      const mayGrow = query.follow && source.isRunning();
      for (;;) {
        const block = await file.read(offset, blockBytes);
        if (block.length === 0 || signal.aborted) break;
        offset += block.length;
        const { lines, remainder } = splitLines(rest.length === 0 ? block : Buffer.concat([rest, block]));
        rest = remainder;
        const piece = writer.write(lines);
        if (piece.length > 0) yield piece;
        if (writer.isFull) return;
      }
      if (signal.aborted) return;
      const next = query.follow ? await openSuccessor(source.path, file) : undefined;
      if (next && !hasSuccessor) {
        // The runtime may still be writing its last lines to the old file: look at it once more after a pause.
        hasSuccessor = true;
        await next.close();
        await pause(deps.clock, pollMs, signal);
        continue;
      }
      if (next) {
        await file.close();
        file = next;
        offset = 0;
        hasSuccessor = false;
        const piece = writer.write(rest.length > 0 ? [rest] : []);
        rest = Buffer.alloc(0);
        if (piece.length > 0) yield piece;
        continue;
      }
      if (!mayGrow) break;
      await pause(deps.clock, pollMs, signal);
    }
    // A last line without its line feed: the writer was cut off.
    if (rest.length > 0 && !signal.aborted) {
      const piece = writer.write([rest]);
      if (piece.length > 0) yield piece;
    }
  } finally {
    await file.close();
  }
}

/** Where the last `count` lines of the file begin; reads backwards by blocks. */
export async function tailOffset(file: OpenFile, count: number): Promise<number> {
  const { sizeBytes } = await file.facts();
  if (count === 0) return sizeBytes;
  let end = sizeBytes;
  let found = 0;
  while (end > 0) {
    const start = Math.max(0, end - blockBytes);
    const block = await file.read(start, end - start);
    for (let at = block.length - 1; at >= 0; at--) {
      // The line feed that ends the file ends the last line and begins none.
      if (block[at] !== lineFeed || start + at === sizeBytes - 1) continue;
      found++;
      if (found === count) return start + at + 1;
    }
    end = start;
  }
  return 0;
}

/** The file that now has the name, when it is another one than `current`. */
async function openSuccessor(path: string, current: OpenFile): Promise<OpenFile | undefined> {
  const named = await fileFacts(path);
  if (!named || named.identity === (await current.facts()).identity) return undefined;
  return openForReading(path);
}

function splitLines(bytes: Buffer): { lines: Buffer[]; remainder: Buffer } {
  const lines: Buffer[] = [];
  let at = 0;
  for (;;) {
    const end = bytes.indexOf(lineFeed, at);
    if (end < 0) break;
    lines.push(bytes.subarray(at, end + 1));
    at = end + 1;
  }
  // A copy, because the block it lies in is large.
  let remainder = Buffer.from(bytes.subarray(at));
  if (remainder.length > maxLineBytes) {
    lines.push(remainder);
    remainder = Buffer.alloc(0);
  }
  return { lines, remainder };
}

/** From log lines to what the client gets. */
class LogWriter {
  readonly #query: LogQuery;
  #leftBytes: number;
  /** A partial line came before: what follows continues it and gets no time of its own. */
  #isContinued = false;
  constructor(query: LogQuery) {
    this.#query = query;
    this.#leftBytes = query.limitBytes ?? Number.POSITIVE_INFINITY;
  }
  get isFull(): boolean {
    return this.#leftBytes <= 0;
  }
  write(lines: readonly Buffer[]): Buffer {
    const out: Buffer[] = [];
    for (const raw of lines) {
      if (this.isFull) break;
      const line = parseLogLine(raw);
      // Whatever else is in the file (a torn line after a crash) is left out, as upstream does.
      if (!line) continue;
      if (this.#query.sinceMs !== undefined && Date.parse(line.time) < this.#query.sinceMs) continue;
      const isContinued = this.#isContinued;
      this.#isContinued = line.isPartial;
      if (this.#query.timestamps && !isContinued) this.#push(out, Buffer.from(`${fixedTime(line.time)} `));
      this.#push(out, line.text);
    }
    return out.length === 1 ? out[0]! : Buffer.concat(out);
  }
  #push(out: Buffer[], bytes: Buffer): void {
    const piece = bytes.length > this.#leftBytes ? bytes.subarray(0, this.#leftBytes) : bytes;
    this.#leftBytes -= piece.length;
    out.push(piece);
  }
}
