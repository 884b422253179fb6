// What can still be read of a damaged log. Walks the table's tree page by page as far as it holds; when a part of it
// cannot be reached, every page that is neither in a tree nor free is searched too. A row counts when its own checksum
// says so, wherever it was found.
// Format: https://www.sqlite.org/fileformat2.html; the roots are where SQLite puts the tables of our schema.
import { maxKeyBytes, maxValueBytes } from "../../backend.ts";
import { loggedFlag } from "../../engine/module.ts";
import type { LogLease, LogRecord } from "../log.ts";
import { checksum, checksumScratch } from "./format.ts";
import type { PageSource } from "./page-source.ts";

const roots = { meta: 2, lease: 3, log: 4 } as const;
const interiorTable = 5;
const leafTable = 13;
const leafIndex = 10;
const maxPayloadBytes = maxKeyBytes + maxValueBytes + 1024;
/** Damaged records that are remembered by name; beyond it only their number counts. */
const maxNamed = 1000;

export interface Salvaged {
  /** Row ids in order, each with how to read it. */
  readonly rows: readonly { readonly id: bigint; read(): LogRecord }[];
  readonly meta: ReadonlyMap<string, number>;
  readonly leases: readonly LogLease[];
  /** Rows that fail their checksum but still show a key. */
  readonly damaged: readonly { readonly key: string; readonly revision: number }[];
  readonly damagedRows: number;
  /** Pages of the table that could not be understood. */
  readonly unreadablePages: number;
}

interface Cell {
  readonly id: bigint;
  readonly columns: readonly (number | Buffer | null)[];
}

/** Where a row was found: a page of the source, or a frame that is not laid over it. */
type Place = { readonly page: number; readonly at: number } | { readonly content: Buffer; readonly at: number };

export function salvage(source: PageSource): Salvaged {
  const scratch = checksumScratch();
  const places = new Map<bigint, Place>();
  const damaged: { key: string; revision: number }[] = [];
  const suspects = new Map<bigint, { key: string; revision: number }>();
  let damagedRows = 0;
  const search = (content: Buffer, place: (at: number) => Place) => {
    for (const at of cellPointers(content)) {
      const cell = readCell(source, content, at, leafTable);
      if (!cell) {
        damagedRows++;
        continue;
      }
      const record = toRecord(cell);
      if (record && cell.columns[6] === checksum(cell.id, record, scratch)) places.set(cell.id, place(at));
      else {
        const key = cell.columns[1];
        if (Buffer.isBuffer(key))
          suspects.set(cell.id, { key: key.toString("latin1"), revision: Number(cell.id >> 16n) });
        else damagedRows++;
      }
    }
  };

  const tree = walk(source, roots.log);
  for (const page of tree.leaves) search(source.page(page)!, (at) => ({ page, at }));
  for (const content of source.wal.broken) search(content, (at) => ({ content, at }));
  if (tree.unreadable > 0 || source.wal.broken.length > 0) {
    const free = freePages(source);
    for (let page = 1; page <= source.pageCount; page++) {
      if (tree.seen.has(page) || free.has(page) || page <= roots.lease) continue;
      const content = source.page(page);
      if (content?.[0] === leafTable) searchOrphan(source, content, page, places, scratch);
    }
  }
  for (const [id, suspect] of suspects) {
    if (places.has(id)) continue;
    damagedRows++;
    if (damaged.length < maxNamed) damaged.push(suspect);
  }
  const rows = [...places]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([id, place]) => ({
      id,
      read: () => {
        const content = "page" in place ? source.page(place.page)! : place.content;
        return toRecord(readCell(source, content, place.at, leafTable)!)!;
      },
    }));
  return {
    rows,
    meta: readMeta(source),
    leases: readLeases(source),
    damaged,
    damagedRows,
    unreadablePages: tree.unreadable,
  };
}

/** A page outside every tree: only what proves itself is taken, and the rest of it means nothing. */
function searchOrphan(source: PageSource, content: Buffer, page: number, places: Map<bigint, Place>, scratch: Buffer) {
  for (const at of cellPointers(content)) {
    const cell = readCell(source, content, at, leafTable);
    const record = cell && toRecord(cell);
    if (!record || places.has(cell.id)) continue;
    if (cell.columns[6] === checksum(cell.id, record, scratch)) places.set(cell.id, { page, at });
  }
}

function walk(source: PageSource, root: number): { leaves: number[]; seen: Set<number>; unreadable: number } {
  const leaves: number[] = [];
  const seen = new Set<number>();
  let unreadable = 0;
  const visit = (number: number, depth: number) => {
    const content = source.page(number);
    const type = content?.[0];
    if (!content || seen.has(number) || depth > 20 || (type !== interiorTable && type !== leafTable)) {
      unreadable++;
      return;
    }
    seen.add(number);
    if (type === leafTable) {
      leaves.push(number);
      return;
    }
    const count = content.readUInt16BE(3);
    for (let i = 0; i < count && 12 + i * 2 + 2 <= content.length; i++) {
      const at = content.readUInt16BE(12 + i * 2);
      if (at + 4 > content.length) unreadable++;
      else visit(content.readUInt32BE(at), depth + 1);
    }
    visit(content.readUInt32BE(8), depth + 1);
  };
  visit(root, 0);
  return { leaves, seen, unreadable };
}

function freePages(source: PageSource): Set<number> {
  const free = new Set<number>();
  let trunk = source.page(1)?.readUInt32BE(32) ?? 0;
  while (trunk > 1 && trunk <= source.pageCount && !free.has(trunk)) {
    free.add(trunk);
    const content = source.page(trunk)!;
    const count = Math.min(content.readUInt32BE(4), (content.length - 8) / 4);
    for (let i = 0; i < count; i++) free.add(content.readUInt32BE(8 + i * 4));
    trunk = content.readUInt32BE(0);
  }
  return free;
}

/**
 * Where the cells of a leaf are. The number of them that the page gives is not believed: pointers follow each other up to
 * where cells begin, and what is no cell fails its checksum.
 */
function cellPointers(content: Buffer): number[] {
  const count = content.readUInt16BE(3);
  const start = content.readUInt16BE(5);
  const found: number[] = [];
  let lowest = content.length;
  for (let i = 0; 8 + i * 2 + 2 <= lowest; i++) {
    const at = content.readUInt16BE(8 + i * 2);
    if (at < 8 || at > content.length - 4) {
      if (i >= count) break;
      continue;
    }
    if (i >= count && at < start) break;
    if (!found.includes(at)) found.push(at);
    if (i < count) lowest = Math.min(lowest, at);
  }
  return found;
}

function readCell(source: PageSource, content: Buffer, at: number, type: number): Cell | undefined {
  const reader = { at };
  const length = varint(content, reader);
  const id = type === leafTable ? varint(content, reader) : 0n;
  if (length === undefined || id === undefined || length > BigInt(maxPayloadBytes) || length < 1n) return undefined;
  const payload = readPayload(source, content, reader.at, Number(length), type);
  const columns = payload && readColumns(payload);
  return columns && { id: BigInt.asIntN(64, id), columns };
}

function readPayload(
  source: PageSource,
  content: Buffer,
  at: number,
  length: number,
  type: number,
): Buffer | undefined {
  const pageBytes = content.length;
  const overflowBytes = pageBytes - 4;
  const most = type === leafTable ? pageBytes - 35 : Math.floor(((pageBytes - 12) * 64) / 255) - 23;
  const least = Math.floor(((pageBytes - 12) * 32) / 255) - 23;
  let local = length;
  if (length > most) {
    const fitting = least + ((length - least) % overflowBytes);
    local = fitting <= most ? fitting : least;
  }
  if (at + local > pageBytes) return undefined;
  if (local === length) return content.subarray(at, at + length);
  if (at + local + 4 > pageBytes) return undefined;
  const parts = [content.subarray(at, at + local)];
  let next = content.readUInt32BE(at + local);
  for (let left = length - local; left > 0; left -= overflowBytes) {
    const page = source.page(next);
    if (!page) return undefined;
    parts.push(page.subarray(4, 4 + Math.min(left, overflowBytes)));
    next = page.readUInt32BE(0);
  }
  return Buffer.concat(parts);
}

function readColumns(payload: Buffer): (number | Buffer | null)[] | undefined {
  const reader = { at: 0 };
  const headerLength = varint(payload, reader);
  if (headerLength === undefined || headerLength > BigInt(payload.length)) return undefined;
  let body = Number(headerLength);
  const columns: (number | Buffer | null)[] = [];
  while (reader.at < Number(headerLength)) {
    const serial = varint(payload, reader);
    if (serial === undefined || columns.length > 16) return undefined;
    const type = Number(serial);
    const bytes = type >= 12 ? Math.floor((type - 12) / 2) : [0, 1, 2, 3, 4, 6, 8, 8, 0, 0][type];
    if (bytes === undefined || body + bytes > payload.length) return undefined;
    if (type >= 12) columns.push(payload.subarray(body, body + bytes));
    else if (type === 0 || type === 7) columns.push(null);
    else if (type >= 8) columns.push(type - 8);
    else if (type === 6) columns.push(Number(payload.readBigInt64BE(body)));
    else columns.push(payload.readIntBE(body, bytes));
    body += bytes;
  }
  return columns;
}

function toRecord({ id, columns }: Cell): LogRecord | undefined {
  const [, key, create, version, lease, flags, , value] = columns;
  if (columns.length !== 8 || !Buffer.isBuffer(key) || !Buffer.isBuffer(value)) return undefined;
  if (key.length === 0 || key.length > maxKeyBytes || value.length > maxValueBytes) return undefined;
  for (const number of [create, version, lease, flags]) if (!Number.isSafeInteger(number)) return undefined;
  const revision = Number(id >> 16n);
  if (!(revision > 0) || !Number.isSafeInteger(revision)) return undefined;
  return {
    key: key.toString("latin1"),
    value,
    revision,
    sub: Number(id & 0xffffn),
    create: create as number,
    version: version as number,
    lease: lease as number,
    flags: (flags as number) | loggedFlag,
  };
}

function readMeta(source: PageSource): Map<string, number> {
  const meta = new Map<string, number>();
  const content = source.page(roots.meta);
  if (content?.[0] !== leafIndex) return meta;
  for (const at of cellPointers(content)) {
    const [name, value] = readCell(source, content, at, leafIndex)?.columns ?? [];
    if (Buffer.isBuffer(name) && typeof value === "number") meta.set(name.toString("utf8"), value);
  }
  return meta;
}

function readLeases(source: PageSource): LogLease[] {
  const leases: LogLease[] = [];
  for (const page of walk(source, roots.lease).leaves) {
    const content = source.page(page)!;
    for (const at of cellPointers(content)) {
      const cell = readCell(source, content, at, leafTable);
      const ttlSeconds = cell?.columns[1];
      const id = Number(cell?.id ?? 0n);
      if (cell && typeof ttlSeconds === "number" && ttlSeconds > 0 && Number.isSafeInteger(id) && id > 0) {
        leases.push({ id, ttlSeconds });
      }
    }
  }
  return leases;
}

/** Big-endian, seven bits a byte, the ninth byte whole. */
function varint(bytes: Buffer, reader: { at: number }): bigint | undefined {
  let value = 0n;
  for (let i = 0; i < 9; i++) {
    const byte = bytes[reader.at++];
    if (byte === undefined) return undefined;
    if (i === 8) return (value << 8n) | BigInt(byte);
    value = (value << 7n) | BigInt(byte & 0x7f);
    if (byte < 0x80) return value;
  }
  return value;
}
