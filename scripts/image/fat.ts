// A FAT32 file system as bytes, for the boot partitions: written whole, once, with everything known before, so that the
// same files give the same bytes on any machine. Files lie in one piece each. Names get a long entry when the short one
// cannot hold them. The extents hold every byte a reader looks at; free clusters stay holes in the disk image.
// Upstream counterpart: Microsoft's "FAT32 File System Specification" 1.03, mkfs.fat --invariant.

export interface FatFile {
  /** `EFI/BOOT/BOOTX64.EFI`; folders come into being by being named. */
  readonly path: string;
  readonly data: Uint8Array;
}

export interface FatOptions {
  readonly sizeBytes: number;
  /** At most 11 characters, upper case. */
  readonly label: string;
  readonly volumeId: number;
  /** Time of every entry, in seconds since 1970, read as UTC. */
  readonly mtimeSeconds: number;
  /** Sector where the partition starts on its disk; boot code of others reads it. */
  readonly hiddenSectors?: number;
}

/** A part of the volume that has to be written. */
export interface FatExtent {
  readonly offset: number;
  readonly data: Uint8Array;
}

const sectorBytes = 512;
const reservedSectors = 32;
const fatCount = 2;
const entryBytes = 32;
const rootCluster = 2;
const endOfChain = 0x0fffffff;
/** FAT32 has more clusters than this; fewer would make readers take it for FAT16. */
const minClusters = 65_525;
const attribute = { label: 0x08, folder: 0x10, file: 0x20, longName: 0x0f } as const;

interface Node {
  readonly name: string;
  readonly data: Uint8Array | undefined;
  readonly children: Map<string, Node>;
  cluster: number;
}

export function buildFat(files: readonly FatFile[], options: FatOptions): FatExtent[] {
  const geometry = geometryOf(options.sizeBytes);
  const root: Node = { name: "", data: undefined, children: new Map(), cluster: rootCluster };
  for (const file of [...files].sort((a, b) => (a.path < b.path ? -1 : 1))) addFile(root, file);

  const fat = Buffer.alloc(geometry.fatSectors * sectorBytes);
  fat.writeUInt32LE(0x0ffffff8, 0);
  fat.writeUInt32LE(endOfChain, 4);
  let next = rootCluster;
  const allocate = (bytes: number): number => {
    if (bytes === 0) return 0;
    const count = Math.ceil(bytes / geometry.clusterBytes);
    const first = next;
    next += count;
    if (next - rootCluster > geometry.clusters) throw new RangeError(`the files do not fit ${options.sizeBytes} bytes`);
    for (let i = first; i < next; i++) fat.writeUInt32LE(i + 1 === next ? endOfChain : i + 1, i * 4);
    return first;
  };
  const extents: FatExtent[] = [];
  const dataAt = (reservedSectors + fatCount * geometry.fatSectors) * sectorBytes;
  const place = (cluster: number, data: Uint8Array): void => {
    if (cluster === 0) return;
    // Whole clusters, zeros included: on a medium that held something else, what is not written is not zero.
    const whole = Buffer.alloc(Math.ceil(data.length / geometry.clusterBytes) * geometry.clusterBytes);
    whole.set(data);
    extents.push({ offset: dataAt + (cluster - rootCluster) * geometry.clusterBytes, data: whole });
  };
  const layOut = (node: Node): void => {
    // The root starts at its fixed cluster because it is asked first.
    node.cluster = allocate(node.data ? node.data.length : Math.max(folderBytes(node, node === root), entryBytes));
    for (const child of node.children.values()) layOut(child);
  };
  layOut(root);
  const time = fatTime(options.mtimeSeconds);
  const write = (node: Node, parent: Node): void => {
    place(node.cluster, node.data ?? folderData(node, parent, root, options.label, time));
    for (const child of node.children.values()) write(child, node);
  };
  write(root, root);

  const head = Buffer.alloc(reservedSectors * sectorBytes);
  const boot = bootSector(geometry, options);
  boot.copy(head, 0);
  boot.copy(head, 6 * sectorBytes);
  const info = infoSector(geometry.clusters - (next - rootCluster), next);
  info.copy(head, sectorBytes);
  info.copy(head, 7 * sectorBytes);
  // The third boot sector is only a signature, in both copies.
  for (const sector of [2, 8]) head.writeUInt16LE(0xaa55, sector * sectorBytes + 510);
  for (let i = 0; i < fatCount; i++)
    extents.push({ offset: (reservedSectors + i * geometry.fatSectors) * sectorBytes, data: fat });
  extents.push({ offset: 0, data: head });
  return extents.sort((a, b) => a.offset - b.offset);
}

interface Geometry {
  readonly sectors: number;
  readonly clusterBytes: number;
  readonly clusters: number;
  readonly fatSectors: number;
}

function geometryOf(sizeBytes: number): Geometry {
  const sectors = sizeBytes / sectorBytes;
  if (!Number.isInteger(sectors)) throw new RangeError(`${sizeBytes} bytes are no whole sectors`);
  // Large enough for little table, small enough for FAT32's least number of clusters.
  for (const perCluster of [8, 4, 2, 1]) {
    let fatSectors = 1;
    for (;;) {
      const clusters = Math.floor((sectors - reservedSectors - fatCount * fatSectors) / perCluster);
      const needed = Math.ceil(((clusters + 2) * 4) / sectorBytes);
      if (needed <= fatSectors) {
        if (clusters >= minClusters * 1.2)
          return { sectors, clusterBytes: perCluster * sectorBytes, clusters, fatSectors };
        break;
      }
      fatSectors = needed;
    }
  }
  throw new RangeError(`${sizeBytes} bytes are too few for FAT32`);
}

function addFile(root: Node, file: FatFile): void {
  const parts = file.path.split("/");
  let at = root;
  for (const [i, name] of parts.entries()) {
    if (!/^[A-Za-z0-9._,+ -]{1,200}$/.test(name) || /^\.|\.$/.test(name))
      throw new RangeError(`"${file.path}": "${name}" is not allowed as a name here`);
    const key = name.toUpperCase();
    const isLast = i === parts.length - 1;
    const known = at.children.get(key);
    if (known && (isLast || known.data)) throw new RangeError(`"${file.path}" is there twice`);
    const node: Node = known ?? { name, data: isLast ? file.data : undefined, children: new Map(), cluster: 0 };
    at.children.set(key, node);
    at = node;
  }
}

/** Label or `.` and `..`, then the children. */
function folderBytes(node: Node, isRoot: boolean): number {
  const short = shortNames(node);
  let entries = isRoot ? 1 : 2;
  for (const child of node.children.values()) entries += 1 + longEntries(child.name, short.get(child)!).length;
  return entries * entryBytes;
}

function folderData(node: Node, parent: Node, root: Node, label: string, time: number): Uint8Array {
  const entry = (name: string, attributes: number, cluster: number, size: number): Buffer => {
    const bytes = Buffer.alloc(entryBytes);
    bytes.write(name.padEnd(11), 0, "latin1");
    bytes[11] = attributes;
    bytes.writeUInt32LE(time, 14);
    bytes.writeUInt16LE(time >>> 16, 18);
    bytes.writeUInt16LE(cluster >>> 16, 20);
    bytes.writeUInt32LE(time, 22);
    bytes.writeUInt16LE(cluster & 0xffff, 26);
    bytes.writeUInt32LE(size, 28);
    return bytes;
  };
  // A folder below the root names its parent as cluster 0.
  const parentCluster = parent === root ? 0 : parent.cluster;
  const entries =
    node === root
      ? [entry(label, attribute.label, 0, 0)]
      : [entry(".", attribute.folder, node.cluster, 0), entry("..", attribute.folder, parentCluster, 0)];
  const short = shortNames(node);
  for (const child of node.children.values()) {
    const name = short.get(child)!;
    entries.push(...longEntries(child.name, name));
    entries.push(entry(name, child.data ? attribute.file : attribute.folder, child.cluster, child.data?.length ?? 0));
  }
  return Buffer.concat(entries);
}

/** 11 characters each, unique within the folder. */
function shortNames(folder: Node): Map<Node, string> {
  const names = new Map<Node, string>();
  const taken = new Set<string>();
  for (const child of folder.children.values()) {
    const dot = child.name.lastIndexOf(".");
    const clean = (text: string): string => text.toUpperCase().replace(/[^A-Z0-9_-]/g, "");
    const stem = clean(dot < 0 ? child.name : child.name.slice(0, dot));
    const extension = dot < 0 ? "" : clean(child.name.slice(dot + 1)).slice(0, 3);
    let name = stem.slice(0, 8).padEnd(8) + extension.padEnd(3);
    const isExact = isShort(child.name);
    for (let n = 1; taken.has(name) || (!isExact && n === 1); n++) {
      const tail = `~${n}`;
      name = (stem.slice(0, 8 - tail.length) + tail).padEnd(8) + extension.padEnd(3);
    }
    taken.add(name);
    names.set(child, name);
  }
  return names;
}

/** Whether the name, in upper case, is its own short name. */
const isShort = (name: string): boolean => /^[A-Za-z0-9_-]{1,8}(\.[A-Za-z0-9_-]{1,3})?$/.test(name);

function longEntries(name: string, short: string): Buffer[] {
  // Short and upper case: nothing is lost. Lower case alone needs a long entry too, or Linux shows what it likes.
  if (isShort(name) && name === name.toUpperCase()) return [];
  let checksum = 0;
  for (const c of Buffer.from(short, "latin1")) checksum = (((checksum & 1) << 7) + (checksum >>> 1) + c) & 0xff;
  const count = Math.ceil(name.length / 13);
  const units = Array.from({ length: count * 13 }, (_, i) =>
    i < name.length ? name.charCodeAt(i) : i === name.length ? 0 : 0xffff,
  );
  const entries = Array.from({ length: count }, (_, i) => {
    const bytes = Buffer.alloc(entryBytes);
    bytes[0] = (i + 1) | (i + 1 === count ? 0x40 : 0);
    bytes[11] = attribute.longName;
    bytes[13] = checksum;
    const places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    for (const [j, at] of places.entries()) bytes.writeUInt16LE(units[i * 13 + j]!, at);
    return bytes;
  });
  return entries.reverse();
}

function bootSector(geometry: Geometry, options: FatOptions): Buffer {
  const boot = Buffer.alloc(sectorBytes);
  boot.set([0xeb, 0x58, 0x90], 0);
  boot.write("mkfs.fat", 3, "latin1");
  boot.writeUInt16LE(sectorBytes, 11);
  boot[13] = geometry.clusterBytes / sectorBytes;
  boot.writeUInt16LE(reservedSectors, 14);
  boot[16] = fatCount;
  boot[21] = 0xf8;
  boot.writeUInt16LE(63, 24);
  boot.writeUInt16LE(255, 26);
  boot.writeUInt32LE(options.hiddenSectors ?? 0, 28);
  boot.writeUInt32LE(geometry.sectors, 32);
  boot.writeUInt32LE(geometry.fatSectors, 36);
  boot.writeUInt32LE(rootCluster, 44);
  boot.writeUInt16LE(1, 48);
  boot.writeUInt16LE(6, 50);
  boot[64] = 0x80;
  boot[66] = 0x29;
  boot.writeUInt32LE(options.volumeId >>> 0, 67);
  boot.write(options.label.padEnd(11), 71, "latin1");
  boot.write("FAT32   ", 82, "latin1");
  // Started as a boot sector it only gives the processor back: int 0x18.
  boot.set([0xcd, 0x18, 0xeb, 0xfe], 90);
  boot.writeUInt16LE(0xaa55, 510);
  return boot;
}

function infoSector(free: number, next: number): Buffer {
  const info = Buffer.alloc(sectorBytes);
  info.writeUInt32LE(0x41615252, 0);
  info.writeUInt32LE(0x61417272, 484);
  info.writeUInt32LE(free, 488);
  info.writeUInt32LE(next, 492);
  info.writeUInt32LE(0xaa550000, 508);
  return info;
}

/** Time in the low, date in the high 16 bits. */
function fatTime(seconds: number): number {
  const t = new Date(seconds * 1000);
  const date = ((t.getUTCFullYear() - 1980) << 9) | ((t.getUTCMonth() + 1) << 5) | t.getUTCDate();
  const time = (t.getUTCHours() << 11) | (t.getUTCMinutes() << 5) | (t.getUTCSeconds() >> 1);
  return ((date << 16) | time) >>> 0;
}
