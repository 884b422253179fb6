// A folder of what is remembered by key, a file for each: replaced as a whole, so that a power cut leaves the old or the new
// one, and with a sum, so that rot is noticed that leaves it JSON. What cannot be read is taken away when the folder is opened.
// What may be written, and when, is for whoever calls (store.ts).
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Logger } from "#base/log.ts";
import { listFolder, readFileIfExists } from "#platform/files.ts";

/** How files are changed; tests count. */
export interface FileChanges {
  readonly write: (path: string, text: string, mode: number) => Promise<void>;
  readonly remove: (path: string) => Promise<void>;
}

/** What a file holds. */
export interface Kept {
  readonly key: string;
  readonly value: unknown;
}

/** Of a file that is there. */
interface Entry {
  readonly bytes: number;
  readonly digest: string;
}

/** Of one that could be. */
interface Draft extends Entry {
  readonly text: string;
}

export class KeyFiles {
  readonly #folder: string;
  readonly #changes: FileChanges;
  readonly #log: Logger;
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #writing: string | undefined;

  constructor(options: { readonly folder: string }, deps: { readonly changes: FileChanges; readonly log: Logger }) {
    this.#folder = options.folder;
    this.#changes = deps.changes;
    this.#log = deps.log;
  }

  /** Learns what there is in the folder, but for names of somebody else's; what has a key that belongs elsewhere is given back. */
  async open(
    isForeignName: (name: string) => boolean,
    belongsElsewhere: (key: string) => boolean,
  ): Promise<readonly Kept[]> {
    const elsewhere: Kept[] = [];
    for (const { name } of await listFolder(this.#folder)) {
      if (isForeignName(name)) continue;
      const path = `${this.#folder}/${name}`;
      const text = (await readFileIfExists(path))?.toString("utf8") ?? "";
      const kept = parse(text);
      if (kept && fileOf(kept.key) === name) {
        if (belongsElsewhere(kept.key)) elsewhere.push(kept);
        else this.#set(kept.key, { bytes: Buffer.byteLength(text), digest: digestOf(bodyOf(text) ?? "") });
        continue;
      }
      // Left by a crash while it was written, or damaged since.
      this.#log.warn("a file of what is remembered cannot be read and is taken away", { path });
      await this.#changes.remove(path);
    }
    return elsewhere;
  }

  get bytes(): number {
    return this.#bytes;
  }

  keys(): IterableIterator<string> {
    return this.#entries.keys();
  }

  /** Whether it is there, or on its way there. */
  has(key: string): boolean {
    return this.#entries.has(key) || this.#writing === key;
  }

  bytesOf(key: string): number {
    return this.#entries.get(key)?.bytes ?? 0;
  }

  async read(key: string): Promise<unknown> {
    if (!this.#entries.has(key)) return undefined;
    const text = (await readFileIfExists(this.#path(key)))?.toString("utf8") ?? "";
    return parse(text)?.value;
  }

  /** What would be written; undefined where that is there already. */
  draft(key: string, value: unknown): Draft | undefined {
    const body = `${JSON.stringify({ key, value })}\n`;
    const text = withSum(body);
    const digest = digestOf(body);
    if (this.#entries.get(key)?.digest === digest) return undefined;
    return { text, bytes: Buffer.byteLength(text), digest };
  }

  /** One at a time. */
  async write(key: string, { text, bytes, digest }: Draft): Promise<void> {
    this.#writing = key;
    try {
      await this.#changes.write(this.#path(key), text, 0o600);
      this.#set(key, { bytes, digest });
    } finally {
      this.#writing = undefined;
    }
  }

  async remove(key: string): Promise<void> {
    this.#set(key, undefined);
    await this.#changes.remove(this.#path(key));
  }

  #set(key: string, entry: Entry | undefined): void {
    this.#bytes += (entry?.bytes ?? 0) - this.bytesOf(key);
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
