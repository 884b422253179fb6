// Files in memory that record every write, truncation and flush, so that power can be cut afterwards at any point of
// the record: what was flushed is kept; of the rest each 512-byte sector may be there or not, in any order.
// Not modelled: devices that lie about flushes, loss of directory entries, bit rot.
import type { Random } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";
import { nextTurn } from "#platform/turns.ts";

type Event =
  | { readonly type: "write"; readonly path: string; readonly position: number; readonly data: Uint8Array }
  | { readonly type: "truncate"; readonly path: string; readonly size: number }
  /** All events of the file before `upTo` are on the medium from here on. */
  | { readonly type: "flushed"; readonly path: string; readonly upTo: number }
  | { readonly type: "removed"; readonly path: string }
  | { readonly type: "renamed"; readonly path: string; readonly to: string };

const sectorBytes = 512;

export class RecordedFiles implements BlockFiles {
  readonly events: Event[] = [];
  /** What was there before the record began, on the medium. */
  readonly #before: ReadonlyMap<string, Buffer>;
  readonly #files: Map<string, Buffer>;
  /** Thrown by the next operations it is set for; for tests of failing disks. */
  fail: ((operation: "write" | "sync" | "flush", path: string) => Error | undefined) | undefined;

  constructor(image: ReadonlyMap<string, Buffer> = new Map()) {
    this.#before = new Map([...image].map(([path, data]) => [path, Buffer.from(data)]));
    this.#files = new Map([...image].map(([path, data]) => [path, Buffer.from(data)]));
  }

  open(path: string, options: { readonly create: boolean }): BlockFile {
    if (!this.#files.has(path)) {
      if (!options.create) throw new AppError("ENOENT", `${path} does not exist`);
      this.#files.set(path, Buffer.alloc(0));
    }
    const content = () => this.#files.get(path) ?? Buffer.alloc(0);
    const check = (operation: "write" | "sync" | "flush") => {
      const error = this.fail?.(operation, path);
      if (error) throw error;
    };
    return {
      read: (into, position) => (position < content().length ? content().copy(into, 0, position) : 0),
      write: (from, position) => {
        check("write");
        const data = Uint8Array.from(from);
        this.events.push({ type: "write", path, position, data });
        this.#files.set(path, written(content(), position, data));
      },
      truncate: (size) => {
        check("write");
        this.events.push({ type: "truncate", path, size });
        this.#files.set(path, resized(content(), size));
      },
      size: () => content().length,
      sync: () => {
        check("sync");
        this.events.push({ type: "flushed", path, upTo: this.events.length });
      },
      flush: async () => {
        const upTo = this.events.length;
        await nextTurn();
        check("flush");
        this.events.push({ type: "flushed", path, upTo });
      },
      close: () => {},
    };
  }

  exists(path: string): boolean {
    return (this.#files.get(path)?.length ?? 0) > 0;
  }

  remove(path: string): void {
    if (!this.#files.delete(path)) throw new AppError("ENOENT", `${path} does not exist`);
    this.events.push({ type: "removed", path });
  }

  rename(from: string, to: string): void {
    const content = this.#files.get(from);
    if (!content) throw new AppError("ENOENT", `${from} does not exist`);
    this.#files.delete(from);
    this.#files.set(to, content);
    this.events.push({ type: "renamed", path: from, to });
  }

  syncFolderOf(): void {}

  /** What a disk holds after power was cut before event `cut`, and how many unflushed writes there were to lose. */
  cut(cut: number, random: Random): { image: Map<string, Buffer>; unflushed: number } {
    const flushedUpTo = new Map<string, number>();
    for (const event of this.events.slice(0, cut)) {
      if (event.type === "flushed") flushedUpTo.set(event.path, Math.max(flushedUpTo.get(event.path) ?? 0, event.upTo));
    }
    // The mood of this cut: a disk that wrote nearly all of its cache, half of it, or nearly nothing.
    const keep = [0.95, 0.5, 0.05][Math.floor(random.float() * 3)]!;
    const image = new Map<string, Buffer>([...this.#before].map(([path, data]) => [path, Buffer.from(data)]));
    let unflushed = 0;
    this.events.slice(0, cut).forEach((event, i) => {
      if (event.type === "flushed") return;
      if (event.type === "removed") {
        image.delete(event.path);
        return;
      }
      if (event.type === "renamed") {
        // What the new name holds is what the old one held; only files that are flushed already are renamed.
        image.set(event.to, image.get(event.path) ?? Buffer.alloc(0));
        image.delete(event.path);
        return;
      }
      const safe = i < (flushedUpTo.get(event.path) ?? 0);
      if (!safe) unflushed++;
      const content = image.get(event.path) ?? Buffer.alloc(0);
      if (event.type === "truncate") {
        if (safe || random.float() < keep) image.set(event.path, resized(content, event.size));
      } else if (safe) {
        image.set(event.path, written(content, event.position, event.data));
      } else {
        image.set(
          event.path,
          torn(content, event.position, event.data, () => random.float() < keep),
        );
      }
    });
    return { image, unflushed };
  }
}

function resized(file: Buffer, size: number): Buffer {
  const out = Buffer.alloc(size);
  file.copy(out);
  return out;
}

function written(file: Buffer, position: number, data: Uint8Array): Buffer {
  const out = position + data.length > file.length ? resized(file, position + data.length) : file;
  out.set(data, position);
  return out;
}

/** Writes only the sectors that `kept` says. */
function torn(file: Buffer, position: number, data: Uint8Array, kept: () => boolean): Buffer {
  let out = file;
  let at = position;
  while (at < position + data.length) {
    const end = Math.min((Math.floor(at / sectorBytes) + 1) * sectorBytes, position + data.length);
    if (kept()) out = written(out, at, data.subarray(at - position, end - position));
    at = end;
  }
  return out;
}
