// The Huffman code of HPACK (RFC 7541, appendix B), decoding only: what we send is short and goes out as it is. The code is
// canonical, so the lengths are all there is to know; the tree is built from them once, when the module is loaded.
import { AppError } from "#base/errors.ts";

/** Bits of each symbol's code, from byte 0 to 255; the last is the end of string, which must not occur. */
const lengths: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
  28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6,
  5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23,
  22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22,
  23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26,
  20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27,
  27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
  27, 27, 27, 26, 30,
];
const endOfString = 256;
const longest = 30;
/** Unused bits at the end are at most so many, all ones. */
const maxPaddingBits = 7;

/** children[2 * node + bit]: the next node, or -1 - symbol. */
const children = buildTree();

function buildTree(): Int16Array {
  const tree = new Int16Array(2 * lengths.length);
  let nodes = 1;
  let code = 0;
  for (let length = 1; length <= longest; length++) {
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] !== length) continue;
      let node = 0;
      for (let bit = length - 1; bit > 0; bit--) {
        const at = 2 * node + ((code >>> bit) & 1);
        if (tree[at] === 0) tree[at] = nodes++;
        node = tree[at]!;
      }
      tree[2 * node + (code & 1)] = -1 - symbol;
      code++;
    }
    code *= 2;
  }
  return tree;
}

/** Bytes [start, end) as the string they stand for, a char per byte. Throws WIRE_HPACK. */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  let node = 0;
  let depth = 0;
  let ones = true;
  for (let i = start; i < end; i++) {
    const byte = bytes[i]!;
    for (let bit = 7; bit >= 0; bit--) {
      const one = (byte >>> bit) & 1;
      const next = children[2 * node + one]!;
      depth++;
      ones = ones && one === 1;
      if (next >= 0) {
        node = next;
        continue;
      }
      const symbol = -1 - next;
      if (symbol === endOfString) throw broken("end of string within a string");
      text += String.fromCharCode(symbol);
      node = 0;
      depth = 0;
      ones = true;
    }
  }
  if (depth > maxPaddingBits || !ones) throw broken("padding that is none");
  return text;
}

const broken = (what: string): AppError => new AppError("WIRE_HPACK", `malformed Huffman code: ${what}`);
