// ELF files as bytes, without running them: they may be of another architecture. What a program asks for (DT_NEEDED), where
// a library keeps a symbol, a library that holds nothing but data, and programs relieved of names that nobody looks up.
// Little endian only, 32 and 64 bit. Upstream counterparts: readelf, ld, strip.

interface ElfNeeds {
  readonly libraries: readonly string[];
  readonly interpreter: string | undefined;
}

export interface ElfSymbol {
  readonly name: string;
  /** Place in the file. */
  readonly offset: number;
  readonly sizeBytes: number;
}

interface Section {
  readonly name: string;
  readonly type: number;
  readonly address: number;
  readonly offset: number;
  readonly size: number;
}

const magic = 0x7f454c46;
const segment = { load: 1, dynamic: 2, interpreter: 3, stack: 0x6474e551 } as const;
const sectionType = {
  rela: 4,
  rel: 9,
  dynsym: 11,
  gnuHash: 0x6ffffff6,
  verneed: 0x6ffffffe,
  versym: 0x6fffffff,
} as const;
const tag = {
  end: 0,
  needed: 1,
  hash: 4,
  strings: 5,
  symbols: 6,
  stringBytes: 10,
  symbolBytes: 11,
  soname: 14,
} as const;
/** Tags whose value is an offset into the strings: NEEDED, SONAME, RPATH, RUNPATH. */
const stringTags = new Set([tag.needed, tag.soname, 15, 29]);
/** Fewer are not worth a program that differs from its package. */
const minExports = 100;
const executable = 2;
const sharedObject = 3;
/** The largest page of the architectures we build for; smaller ones are content with it. */
const pageBytes = 0x10000;
/** Relocations that make the program's own copy of a library's variable the one that counts, by machine. */
const copyRelocation: Readonly<Record<number, number>> = { 62: 5, 183: 1024, 40: 20 };

/** Views the same bytes; undefined when they are no ELF file. */
function openElf(input: Uint8Array) {
  const bytes = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== magic) return undefined;
  const is64 = bytes[4] === 2;
  const word = (at: number): number => (is64 ? Number(bytes.readBigUInt64LE(at)) : bytes.readUInt32LE(at));
  const headerAt = word(is64 ? 32 : 28);
  const headerBytes = bytes.readUInt16LE(is64 ? 54 : 42);
  const segments = Array.from({ length: bytes.readUInt16LE(is64 ? 56 : 44) }, (_, i) => {
    const at = headerAt + i * headerBytes;
    return is64
      ? { type: bytes.readUInt32LE(at), offset: word(at + 8), address: word(at + 16), size: word(at + 32) }
      : { type: bytes.readUInt32LE(at), offset: word(at + 4), address: word(at + 8), size: word(at + 16) };
  });
  const text = (at: number): string => bytes.toString("latin1", at, bytes.indexOf(0, at));
  return { bytes, is64, word, segments, text, type: bytes.readUInt16LE(16), machine: bytes.readUInt16LE(18) };
}

type Elf = NonNullable<ReturnType<typeof openElf>>;

/** Undefined when these bytes are no ELF file. */
export function elfNeeds(input: Uint8Array): ElfNeeds | undefined {
  const elf = openElf(input);
  if (!elf) return undefined;
  const { segments, text } = elf;
  const loader = segments.find(({ type }) => type === segment.interpreter);
  const entries = dynamicEntries(elf);
  const strings = entries.find(([kind]) => kind === tag.strings)?.[1] ?? 0;
  const home = segments.find((h) => h.type === segment.load && strings >= h.address && strings < h.address + h.size);
  const base = home ? strings - home.address + home.offset : strings;
  return {
    libraries: entries.filter(([kind]) => kind === tag.needed).map(([, at]) => text(base + at)),
    interpreter: loader && text(loader.offset),
  };
}

function dynamicEntries({ segments, is64, word }: Elf): (readonly [kind: number, value: number])[] {
  const dynamic = segments.find(({ type }) => type === segment.dynamic);
  const width = is64 ? 8 : 4;
  const entries: (readonly [number, number])[] = [];
  for (let at = dynamic?.offset ?? 0; dynamic && at < dynamic.offset + dynamic.size; at += 2 * width) {
    const kind = word(at);
    if (kind === tag.end) break;
    entries.push([kind, word(at + width)]);
  }
  return entries;
}

function sections({ bytes, is64, word, text }: Elf): Section[] {
  const at = word(is64 ? 40 : 32);
  const each = bytes.readUInt16LE(is64 ? 58 : 46);
  const count = at === 0 ? 0 : bytes.readUInt16LE(is64 ? 60 : 48);
  const raw = Array.from({ length: count }, (_, i) => {
    const h = at + i * each;
    return is64
      ? {
          nameAt: bytes.readUInt32LE(h),
          type: bytes.readUInt32LE(h + 4),
          address: word(h + 16),
          offset: word(h + 24),
          size: word(h + 32),
        }
      : {
          nameAt: bytes.readUInt32LE(h),
          type: bytes.readUInt32LE(h + 4),
          address: word(h + 12),
          offset: word(h + 16),
          size: word(h + 20),
        };
  });
  const names = raw[bytes.readUInt16LE(is64 ? 62 : 50)];
  return raw.map(({ nameAt, ...s }) => ({ ...s, name: names ? text(names.offset + nameAt) : "" }));
}

/** The first symbol that a library offers under such a name. */
export function findSymbol(input: Uint8Array, name: RegExp): ElfSymbol | undefined {
  const elf = openElf(input);
  if (!elf) return undefined;
  const { bytes, is64, word, text, segments } = elf;
  const all = sections(elf);
  const symbols = all.find((s) => s.type === sectionType.dynsym);
  const strings = all.find((s) => s.name === ".dynstr");
  if (!symbols || !strings) return undefined;
  const each = is64 ? 24 : 16;
  for (let at = symbols.offset; at < symbols.offset + symbols.size; at += each) {
    const found = text(strings.offset + bytes.readUInt32LE(at));
    const address = word(at + (is64 ? 8 : 4));
    if (address === 0 || !name.test(found)) continue;
    const home = segments.find((s) => s.type === segment.load && address >= s.address && address < s.address + s.size);
    if (!home) continue;
    const sizeBytes = is64 ? word(at + 16) : word(at + 8);
    return { name: found, offset: address - home.address + home.offset, sizeBytes };
  }
  return undefined;
}

/** A shared library of nothing but `data` under one name, for the machine that the library `like` is for. */
export function buildDataLibrary(
  like: Uint8Array,
  { soname, symbol, data }: { readonly soname: string; readonly symbol: string; readonly data: Uint8Array },
): Buffer {
  const model = openElf(like);
  if (!model) throw new Error("the library to resemble is no ELF file");
  const { is64 } = model;
  const width = is64 ? 8 : 4;
  const headerBytes = is64 ? 64 : 52;
  const segmentBytes = is64 ? 56 : 32;
  const symbolBytes = is64 ? 24 : 16;
  const align = (at: number, to: number): number => Math.ceil(at / to) * to;

  const hashAt = headerBytes + 4 * segmentBytes;
  const symbolsAt = align(hashAt + 5 * 4, 8);
  const stringsAt = symbolsAt + 2 * symbolBytes;
  const strings = Buffer.from(`\0${symbol}\0${soname}\0`, "latin1");
  const dataAt = align(stringsAt + strings.length, 16);
  const dynamicAt = align(dataAt + data.length, 16);
  // The loader may write into what it is told about a library: that part needs a page of its own.
  const dynamicAddress = align(dynamicAt, pageBytes) + (dynamicAt % pageBytes);
  const entries = [
    [tag.soname, 1 + symbol.length + 1],
    [tag.hash, hashAt],
    [tag.strings, stringsAt],
    [tag.symbols, symbolsAt],
    [tag.stringBytes, strings.length],
    [tag.symbolBytes, symbolBytes],
    [tag.end, 0],
  ] as const;
  const dynamicBytes = entries.length * 2 * width;
  const out = Buffer.alloc(dynamicAt + dynamicBytes);
  const put = (at: number, value: number): unknown =>
    is64 ? out.writeBigUInt64LE(BigInt(value), at) : out.writeUInt32LE(value, at);

  model.bytes.copy(out, 0, 0, 16);
  out.writeUInt16LE(sharedObject, 16);
  out.writeUInt16LE(model.machine, 18);
  out.writeUInt32LE(1, 20);
  put(is64 ? 32 : 28, headerBytes);
  // Flags name the ABI, e.g. hard-float, and a loader refuses a mixture.
  model.bytes.copy(out, is64 ? 48 : 36, is64 ? 48 : 36, is64 ? 52 : 40);
  out.writeUInt16LE(headerBytes, is64 ? 52 : 40);
  out.writeUInt16LE(segmentBytes, is64 ? 54 : 42);
  out.writeUInt16LE(4, is64 ? 56 : 44);
  const read = 4;
  const readWrite = 6;
  const rows = [
    [segment.load, read, 0, 0, dataAt + data.length, pageBytes],
    [segment.load, readWrite, dynamicAt, dynamicAddress, dynamicBytes, pageBytes],
    [segment.dynamic, readWrite, dynamicAt, dynamicAddress, dynamicBytes, width],
    // Without this one the loader makes every stack executable.
    [segment.stack, readWrite, 0, 0, 0, 16],
  ] as const;
  for (const [i, [type, flags, offset, address, size, alignment]] of rows.entries()) {
    const at = headerBytes + i * segmentBytes;
    out.writeUInt32LE(type, at);
    out.writeUInt32LE(flags, at + (is64 ? 4 : 24));
    const fields = is64 ? [8, 16, 24, 32, 40, 48] : [4, 8, 12, 16, 20, 28];
    for (const [j, value] of [offset, address, address, size, size, alignment].entries()) put(at + fields[j]!, value);
  }

  // One bucket, whose chain is the one symbol.
  for (const [i, value] of [1, 2, 1, 0, 0].entries()) out.writeUInt32LE(value, hashAt + 4 * i);
  const at = symbolsAt + symbolBytes;
  const globalObject = 0x11;
  out.writeUInt32LE(1, at);
  put(at + (is64 ? 8 : 4), dataAt);
  put(at + (is64 ? 16 : 8), data.length);
  out[at + (is64 ? 4 : 12)] = globalObject;
  // Any section number but 0, which means "to be found elsewhere".
  out.writeUInt16LE(1, at + (is64 ? 6 : 14));
  strings.copy(out, stringsAt);
  out.set(data, dataAt);
  for (const [i, [kind, value]] of entries.entries()) {
    put(dynamicAt + i * 2 * width, kind);
    put(dynamicAt + i * 2 * width + width, value);
  }
  return out;
}

/**
 * A program that offers its own functions by name (Go's linker does so on some architectures), with those names zeroed:
 * places and length stay, and zeros cost nothing once compressed. Undefined when there is nothing to gain, or when one of
 * the names may be needed after all.
 */
export function withoutExports(
  input: Uint8Array,
): { readonly bytes: Buffer; readonly zeroedBytes: number } | undefined {
  const elf = openElf(input);
  if (!elf || elf.type !== executable) return undefined;
  const { is64 } = elf;
  const all = sections(elf);
  const find = (type: number): Section | undefined => all.find((s) => s.type === type);
  const [hash, symbols, versions] = [find(sectionType.gnuHash), find(sectionType.dynsym), find(sectionType.versym)];
  const strings = all.find((s) => s.name === ".dynstr");
  if (!hash || !symbols || !strings) return undefined;
  const symbolBytes = is64 ? 24 : 16;
  const count = symbols.size / symbolBytes;
  // Names to be found elsewhere come first, those on offer behind them.
  const kept = elf.bytes.readUInt32LE(hash.offset + 4);
  if (count - kept < minExports) return undefined;
  for (const r of all.filter((s) => s.type === sectionType.rela || s.type === sectionType.rel)) {
    const each = (is64 ? 16 : 8) + (r.type === sectionType.rela ? (is64 ? 8 : 4) : 0);
    for (let at = r.offset; at < r.offset + r.size; at += each) {
      const info = elf.bytes.readUInt32LE(at + (is64 ? 8 : 4));
      const [index, kind] = is64 ? [elf.bytes.readUInt32LE(at + 12), info] : [info >>> 8, info & 0xff];
      if (index >= kept || kind === copyRelocation[elf.machine]) return undefined;
    }
  }

  const bytes = Buffer.from(elf.bytes);
  const used = new Set<number>();
  for (let i = 0; i < kept; i++) used.add(bytes.readUInt32LE(symbols.offset + i * symbolBytes));
  for (const [kind, value] of dynamicEntries(elf)) if (stringTags.has(kind as 1)) used.add(value);
  const needs = find(sectionType.verneed);
  for (let at = needs?.offset ?? 0, next = 1; needs && next !== 0; at += next) {
    used.add(bytes.readUInt32LE(at + 4));
    for (let one = at + bytes.readUInt32LE(at + 8), step = 1; step !== 0; one += step) {
      used.add(bytes.readUInt32LE(one + 8));
      step = bytes.readUInt32LE(one + 12);
    }
    next = bytes.readUInt32LE(at + 12);
  }
  bytes.fill(0, strings.offset, strings.offset + strings.size);
  for (const at of used) {
    const from = strings.offset + at;
    elf.bytes.copy(bytes, from, from, elf.bytes.indexOf(0, from));
  }
  bytes.fill(0, symbols.offset + kept * symbolBytes, symbols.offset + symbols.size);
  if (versions) bytes.fill(0, versions.offset + kept * 2, versions.offset + versions.size);
  bytes.fill(0, hash.offset, hash.offset + hash.size);
  // One bucket that leads nowhere, behind a filter that lets nothing pass.
  for (const [i, value] of [1, kept, 1, 0].entries()) bytes.writeUInt32LE(value, hash.offset + 4 * i);
  return { bytes, zeroedBytes: strings.size + hash.size + (count - kept) * symbolBytes };
}
