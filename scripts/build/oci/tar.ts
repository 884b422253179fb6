// A ustar writer that gives the same bytes for the same entries everywhere: sorted paths, one fixed time, numeric
// owners only. Enough for image layers and image archives (POSIX.1-1988 header with the ustar name prefix); names
// that do not fit are an error, because every path we write is our own.
import { assert } from "#base/assert.ts";

export interface TarEntry {
  /** Relative, without a leading or trailing slash. */
  readonly path: string;
  readonly type: "file" | "folder" | "link";
  readonly mode: number;
  /** File content. */
  readonly data?: Uint8Array;
  /** Symbolic link target. */
  readonly target?: string;
  readonly uid?: number;
  readonly gid?: number;
}

const blockBytes = 512;
const typeFlags = { file: "0", link: "2", folder: "5" } as const;

/** The archive of `entries`, in the order given unless `sorted`; ends with the two zero blocks. */
export function tarArchive(
  entries: readonly TarEntry[],
  options: { readonly sorted: boolean },
): Uint8Array<ArrayBuffer> {
  const ordered = options.sorted
    ? [...entries].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
    : entries;
  const parts: Uint8Array[] = [];
  for (const entry of ordered) {
    const data = entry.data ?? new Uint8Array(0);
    assert(entry.type === "file" || data.length === 0, `${entry.path}: only files have content`);
    parts.push(
      header(entry, data.length),
      data,
      new Uint8Array((blockBytes - (data.length % blockBytes)) % blockBytes),
    );
  }
  parts.push(new Uint8Array(2 * blockBytes));
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

function header(entry: TarEntry, sizeBytes: number): Uint8Array {
  const block = Buffer.alloc(blockBytes);
  const { name, prefix } = splitName(entry.type === "folder" ? `${entry.path}/` : entry.path);
  const target = entry.target ?? "";
  assert(Buffer.byteLength(target) <= 100, `${entry.path}: link target is longer than 100 bytes`);
  const octal = (value: number, width: number, offset: number) =>
    block.write(`${value.toString(8).padStart(width - 1, "0")}\0`, offset, "latin1");
  block.write(name, 0, "utf8");
  octal(entry.mode, 8, 100);
  octal(entry.uid ?? 0, 8, 108);
  octal(entry.gid ?? 0, 8, 116);
  octal(sizeBytes, 12, 124);
  octal(0, 12, 136); // modification time: 1970, so that the bytes do not depend on when they were made
  block.write("        ", 148, "latin1");
  block.write(typeFlags[entry.type], 156, "latin1");
  block.write(target, 157, "utf8");
  block.write("ustar\x0000", 257, "latin1");
  block.write(prefix, 345, "utf8");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** ustar keeps up to 100 bytes of name and, split at a slash, 155 more in front of it. */
function splitName(path: string): { name: string; prefix: string } {
  if (Buffer.byteLength(path) <= 100) return { name: path, prefix: "" };
  for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) {
    const prefix = path.slice(0, at);
    const name = path.slice(at + 1);
    if (name !== "" && Buffer.byteLength(name) <= 100 && Buffer.byteLength(prefix) <= 155) return { name, prefix };
  }
  throw new Error(`${path}: too long for a ustar header`);
}
