// An initramfs archive ("newc" cpio) as bytes: entries in the order of their paths, owner root, one time for all, so that
// the same input gives the same bytes. Upstream counterpart: the kernel's Documentation/driver-api/early-userspace.

export interface CpioEntry {
  /** Without a leading slash. */
  readonly path: string;
  readonly kind: "file" | "folder" | "link" | "character-device";
  readonly mode: number;
  /** File content, or the target of a link. */
  readonly data?: Uint8Array;
  readonly device?: { readonly major: number; readonly minor: number };
}

const typeBits = { file: 0o100000, folder: 0o040000, link: 0o120000, "character-device": 0o020000 } as const;

/** Folders that entries lie in are added where they are missing. */
export function encodeCpio(entries: readonly CpioEntry[], mtimeSeconds: number): Uint8Array {
  const byPath = new Map(entries.map((e) => [e.path, e]));
  for (const { path } of entries) {
    for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
      const folder = path.slice(0, at);
      if (!byPath.has(folder)) byPath.set(folder, { path: folder, kind: "folder", mode: 0o755 });
    }
  }
  const chunks: Buffer[] = [];
  const sorted = [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const [i, entry] of sorted.entries()) chunks.push(...encodeEntry(entry, i + 1, mtimeSeconds));
  chunks.push(...encodeEntry({ path: "TRAILER!!!", kind: "file", mode: 0 }, 0, 0, 0));
  return Buffer.concat(chunks);
}

function encodeEntry(entry: CpioEntry, inode: number, mtimeSeconds: number, mode?: number): Buffer[] {
  const data = Buffer.from(entry.data ?? []);
  const name = Buffer.from(`${entry.path}\0`);
  const fields = [
    inode,
    mode ?? typeBits[entry.kind] | entry.mode,
    0,
    0,
    entry.kind === "folder" ? 2 : 1,
    mtimeSeconds,
    data.length,
    0,
    0,
    entry.device?.major ?? 0,
    entry.device?.minor ?? 0,
    name.length,
    0,
  ];
  const header = Buffer.from(`070701${fields.map((n) => n.toString(16).padStart(8, "0")).join("")}`, "latin1");
  const padding = (length: number): Buffer => Buffer.alloc((4 - (length % 4)) % 4);
  return [header, name, padding(header.length + name.length), data, padding(data.length)];
}
