// The data of ICU (locales, time zones, converters) cut down to what Node needs here. Debian's libicudata holds every
// language, 32 MB; a device speaks English to those who read its log. Invariant: items stay sorted by name and aligned to
// 16 bytes, as ICU's search and its readers expect. Upstream counterparts: ICU's icupkg and pkgdata.
//
// A package is a header (its size, magic, "CmnD"), a count, pairs of (name, data) offsets from that count, names, items.
import { buildDataLibrary, findSymbol } from "./elf.ts";

export interface IcuItem {
  /** With the package's name before it, as in `icudt76l/en.res`. */
  readonly name: string;
  readonly data: Uint8Array;
}

export interface IcuPackage {
  readonly header: Uint8Array;
  readonly items: readonly IcuItem[];
}

const alignBytes = 16;
/** Names and data of far more items than any ICU has had; a wrong offset must not make a wild loop. */
const maxItems = 100_000;

export function readIcuPackage(input: Uint8Array): IcuPackage {
  const bytes = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  const fail = (why: string): Error => new Error(`no ICU data package: ${why}`);
  if (bytes.length < 36 || bytes[2] !== 0xda || bytes[3] !== 0x27) throw fail("the magic number is missing");
  if (bytes.toString("latin1", 12, 16) !== "CmnD") throw fail("it is of another kind");
  if (bytes[8] !== 0) throw fail("it is big endian");
  const base = bytes.readUInt16LE(0);
  const count = bytes.readUInt32LE(base);
  if (count === 0 || count > maxItems || base + 4 + 8 * count > bytes.length) throw fail(`it counts ${count} items`);
  const places = Array.from({ length: count }, (_, i) => ({
    nameAt: base + bytes.readUInt32LE(base + 4 + 8 * i),
    dataAt: base + bytes.readUInt32LE(base + 8 + 8 * i),
  }));
  const items = places.map(({ nameAt, dataAt }, i) => {
    const end = places[i + 1]?.dataAt ?? bytes.length;
    if (nameAt >= bytes.length || dataAt > end || end > bytes.length) throw fail(`item ${i} lies outside`);
    return { name: bytes.toString("latin1", nameAt, bytes.indexOf(0, nameAt)), data: bytes.subarray(dataAt, end) };
  });
  return { header: bytes.subarray(0, base), items };
}

export function writeIcuPackage({ header, items }: IcuPackage): Buffer {
  const sorted = [...items].sort((a, b) => (a.name < b.name ? -1 : 1));
  const align = (at: number): number => Math.ceil(at / alignBytes) * alignBytes;
  const base = header.length;
  if (base % alignBytes !== 0) throw new Error(`an ICU header of ${base} bytes`);
  const namesAt = 4 + 8 * sorted.length;
  let nameAt = namesAt;
  let dataAt = align(namesAt + sorted.reduce((sum, { name }) => sum + name.length + 1, 0));
  const out = Buffer.alloc(base + sorted.reduce((end, { data }) => align(end + data.length), dataAt));
  out.set(header, 0);
  out.writeUInt32LE(sorted.length, base);
  for (const [i, { name, data }] of sorted.entries()) {
    out.writeUInt32LE(nameAt, base + 4 + 8 * i);
    out.writeUInt32LE(dataAt, base + 8 + 8 * i);
    out.write(name, base + nameAt, "latin1");
    out.set(data, base + dataAt);
    nameAt += name.length + 1;
    dataAt = align(dataAt + data.length);
  }
  return out;
}

/**
 * The library `libicudata.so.N` with only those items whose names (without the package's) match one of `keep`. Every
 * expression must match something: a new ICU that renames an item stops the build.
 */
export function trimIcuLibrary(library: Uint8Array, soname: string, keep: readonly string[]): Buffer {
  const symbol = findSymbol(library, /^icudt\d+_dat$/);
  if (!symbol) throw new Error(`${soname} offers no icudt*_dat`);
  const whole = readIcuPackage(library.subarray(symbol.offset, symbol.offset + symbol.sizeBytes));
  const expressions = keep.map((text) => new RegExp(`^(?:${text})$`));
  const plainName = (item: IcuItem): string => item.name.slice(item.name.indexOf("/") + 1);
  for (const expression of expressions) {
    if (!whole.items.some((item) => expression.test(plainName(item)))) {
      throw new Error(`${soname} has nothing like ${expression.source}`);
    }
  }
  const items = whole.items.filter((item) => expressions.some((expression) => expression.test(plainName(item))));
  const data = writeIcuPackage({ header: whole.header, items });
  return buildDataLibrary(library, { soname, symbol: symbol.name, data });
}
