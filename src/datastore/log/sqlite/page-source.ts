// The pages of a damaged log: the database file with the WAL's frames laid over it, by SQLite's file format but without
// SQLite, which stops at the first thing that is wrong.
//
// What of a WAL counts: frames whose checksums hang together from the header on. Where the chain breaks, there are two
// stories. A power cut tears the last transaction only, for each is flushed before the next begins: then nothing of
// this WAL follows the transaction's commit. If something does, the break is damage to what was flushed already, and the
// frames after it count; those that fail their own checksum are handed out apart, to be searched for rows. What a broken
// frame's header says counts as far as one sector holds it: a header is written as a whole, so with it.
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";
import { frameHeaderBytes, pageSizes } from "./format.ts";

const walHeaderBytes = 32;
/** What a device writes as a whole or not at all. */
const sectorBytes = 512;
/**
 * What a fold writes over the WAL's header: nothing here counts any more. SQLite takes it for no WAL. Not zeros, which a
 * sector that went bad reads as.
 */
export const struckOut: Uint8Array = Buffer.from("mote has folded this into the db".padEnd(walHeaderBytes));
const magicLittle = 0x377f0682;

export interface WalScan {
  /** Damage to what was flushed: SQLite would silently take the part before it for the whole. */
  readonly damaged: boolean;
  /** The last transaction is not whole. */
  readonly torn: boolean;
  /** Page number -> content, up to the last whole transaction. */
  readonly pages: ReadonlyMap<number, Buffer>;
  /** Contents of frames that fail their checksum. */
  readonly broken: readonly Buffer[];
}

export interface PageSource {
  readonly pageCount: number;
  readonly wal: WalScan;
  /** A page's bytes; undefined beyond the end. */
  page(number: number): Buffer | undefined;
  close(): void;
}

/** The size of the pages as the files say, and the other one that there is, should they not be right. */
export function likelyPageSizes(path: string, files: BlockFiles): readonly number[] {
  const said = [numberAt(path, files, 16, 2), numberAt(`${path}-wal`, files, 8, 4)];
  const first = said.find((size) => pageSizes.includes(size));
  return first === undefined ? pageSizes : [first, ...pageSizes.filter((size) => size !== first)];
}

function numberAt(path: string, files: BlockFiles, position: number, length: number): number {
  if (!files.exists(path)) return 0;
  const file = files.open(path, { create: false });
  try {
    const bytes = Buffer.alloc(length);
    return file.read(bytes, position) === length ? bytes.readUIntBE(0, length) : 0;
  } finally {
    file.close();
  }
}

export function openPages(path: string, pageBytes: number, files: BlockFiles): PageSource {
  const wal = scanWal(`${path}-wal`, pageBytes, files);
  const file = files.exists(path) ? files.open(path, { create: false }) : undefined;
  const inFile = Math.ceil((file?.size() ?? 0) / pageBytes);
  return {
    pageCount: Math.max(inFile, ...wal.pages.keys()),
    wal,
    page(number) {
      const laid = wal.pages.get(number);
      if (laid) return laid;
      if (!file || number < 1 || number > inFile) return undefined;
      const page = Buffer.alloc(pageBytes);
      file.read(page, (number - 1) * pageBytes);
      return page;
    },
    close: () => file?.close(),
  };
}

/** Reads the whole WAL, which is bounded by the log. */
export function scanWal(path: string, pageBytes: number, files: BlockFiles): WalScan {
  const nothing: WalScan = { damaged: false, torn: false, pages: new Map(), broken: [] };
  if (!files.exists(path)) return nothing;
  const file = files.open(path, { create: false });
  try {
    return scan(readAll(file), pageBytes) ?? nothing;
  } finally {
    file.close();
  }
}

function readAll(file: BlockFile): Buffer {
  const all = Buffer.alloc(file.size());
  return all.subarray(0, file.read(all, 0));
}

interface Frame {
  readonly page: number;
  /** Written since the WAL was started last. */
  readonly own: boolean;
  /** Only where it can be believed: of a header torn by a power cut the mark may be that of an older WAL. */
  readonly commits: boolean;
  readonly sound: boolean;
  readonly content: Buffer;
}

function scan(wal: Buffer, pageBytes: number): WalScan | undefined {
  const frameBytes = frameHeaderBytes + pageBytes;
  if (wal.length < walHeaderBytes + frameBytes) return undefined;
  const header = wal.subarray(0, walHeaderBytes);
  if (header.equals(struckOut)) return undefined;
  const magic = header.readUInt32BE(0);
  // What is written here is; only a whole header can say otherwise.
  const little = magic !== magicLittle + 1;
  const sum = checksum(header.subarray(0, 24), [0, 0], little);
  const headerSound =
    (magic === magicLittle || magic === magicLittle + 1) &&
    header.readUInt32BE(8) === pageBytes &&
    sum[0] === header.readUInt32BE(24) &&
    sum[1] === header.readUInt32BE(28);
  const salts = headerSound ? header.subarray(16, 24) : saltsOfFrames(wal, frameBytes);
  const frames: Frame[] = [];
  let before: [number, number] | undefined = headerSound ? sum : undefined;
  for (let at = walHeaderBytes; at + frameBytes <= wal.length; at += frameBytes) {
    const head = wal.subarray(at, at + frameHeaderBytes);
    const content = wal.subarray(at + frameHeaderBytes, at + frameBytes);
    const own = head.subarray(8, 16).equals(salts);
    let sound = false;
    if (own && before) {
      const expected = checksum(content, checksum(head.subarray(0, 8), before, little), little);
      sound = expected[0] === head.readUInt32BE(16) && expected[1] === head.readUInt32BE(20);
    }
    // The checksum that is stored is where the chain can be taken up again behind a frame that is damaged elsewhere.
    before = own ? [head.readUInt32BE(16), head.readUInt32BE(20)] : undefined;
    const believed = sound || (own && (at % sectorBytes) + frameHeaderBytes <= sectorBytes);
    frames.push({ page: head.readUInt32BE(0), own, commits: believed && head.readUInt32BE(4) !== 0, sound, content });
  }
  return judge(frames, headerSound);
}

/** Without a header the first frames that agree tell which are of this WAL; those before them went with it. */
function saltsOfFrames(wal: Buffer, frameBytes: number): Buffer {
  const saltsAt = (at: number) => wal.subarray(at + 8, at + 16);
  for (let at = walHeaderBytes; at + 2 * frameBytes <= wal.length; at += frameBytes) {
    const salts = saltsAt(at);
    if (salts.equals(saltsAt(at + frameBytes)) && salts.some((byte) => byte !== 0)) return salts;
  }
  return saltsAt(walHeaderBytes);
}

function judge(frames: readonly Frame[], headerSound: boolean): WalScan {
  let last = frames.length - 1;
  while (last >= 0 && !frames[last]!.sound) last--;
  let firstBreak = frames.findIndex((frame) => !frame.sound);
  if (firstBreak < 0) firstBreak = frames.length;
  const commitBefore = frames.findLastIndex((frame, i) => i < firstBreak && frame.commits);
  // Proof of damage: a sound frame that comes after a commit at or behind the break.
  const commitBehind = frames.findIndex((frame, i) => i >= firstBreak && frame.commits);
  const proven = commitBehind >= 0 && last > commitBehind;
  if (!proven && headerSound) {
    return {
      damaged: false,
      torn: frames.some((frame, i) => i > commitBefore && frame.own),
      pages: lay(frames.slice(0, commitBefore + 1)),
      broken: [],
    };
  }
  // Up to the last commit whose transaction is whole, or after which there is more.
  let through = -1;
  for (let i = 0, whole = true; i < frames.length; i++) {
    whole &&= frames[i]!.sound;
    if (!frames[i]!.commits) continue;
    if (whole || i < last) through = i;
    whole = true;
  }
  const counted = frames.slice(0, through + 1);
  return {
    damaged: through >= 0,
    torn: frames.some((frame, i) => i > through && frame.own),
    pages: lay(counted.filter((frame) => frame.sound)),
    broken: counted.filter((frame) => !frame.sound).map((frame) => frame.content),
  };
}

function lay(frames: readonly Frame[]): Map<number, Buffer> {
  return new Map(frames.map((frame) => [frame.page, frame.content]));
}

/** SQLite's WAL checksum, carried on from `from`. */
function checksum(bytes: Buffer, from: readonly [number, number], little: boolean): [number, number] {
  let [a, b] = from;
  for (let i = 0; i < bytes.length; i += 8) {
    a = (a + (little ? bytes.readUInt32LE(i) : bytes.readUInt32BE(i)) + b) >>> 0;
    b = (b + (little ? bytes.readUInt32LE(i + 4) : bytes.readUInt32BE(i + 4)) + a) >>> 0;
  }
  return [a, b];
}
