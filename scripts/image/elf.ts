// Which shared libraries an ELF program asks for (DT_NEEDED) and which loader starts it, without running it: it may be of
// another architecture. Little endian only, 32 and 64 bit.

export interface ElfNeeds {
  readonly libraries: readonly string[];
  readonly interpreter: string | undefined;
}

const segment = { dynamic: 2, interpreter: 3, load: 1 } as const;
const tag = { end: 0, needed: 1, strings: 5 } as const;

/** Undefined when these bytes are no ELF file. */
export function elfNeeds(input: Uint8Array): ElfNeeds | undefined {
  const bytes = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46) return undefined;
  const is64 = bytes[4] === 2;
  const word = (at: number): number => (is64 ? Number(bytes.readBigUInt64LE(at)) : bytes.readUInt32LE(at));
  const headerAt = word(is64 ? 32 : 28);
  const headerBytes = bytes.readUInt16LE(is64 ? 54 : 42);
  const headers = Array.from({ length: bytes.readUInt16LE(is64 ? 56 : 44) }, (_, i) => {
    const at = headerAt + i * headerBytes;
    return is64
      ? { type: bytes.readUInt32LE(at), offset: word(at + 8), address: word(at + 16), size: word(at + 32) }
      : { type: bytes.readUInt32LE(at), offset: word(at + 4), address: word(at + 8), size: word(at + 16) };
  });
  const text = (at: number): string => bytes.toString("latin1", at, bytes.indexOf(0, at));
  const dynamic = headers.find(({ type }) => type === segment.dynamic);
  const loader = headers.find(({ type }) => type === segment.interpreter);
  const needed: number[] = [];
  let strings = 0;
  const width = is64 ? 8 : 4;
  for (let at = dynamic?.offset ?? 0; dynamic && at < dynamic.offset + dynamic.size; at += 2 * width) {
    const kind = word(at);
    if (kind === tag.end) break;
    if (kind === tag.needed) needed.push(word(at + width));
    if (kind === tag.strings) strings = word(at + width);
  }
  const home = headers.find((h) => h.type === segment.load && strings >= h.address && strings < h.address + h.size);
  const base = home ? strings - home.address + home.offset : strings;
  return { libraries: needed.map((at) => text(base + at)), interpreter: loader && text(loader.offset) };
}
