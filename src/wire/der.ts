// The few DER shapes that certificates are made of (X.690): a writer whose functions each return a complete
// tag-length-value, and a reader of one level for what node:crypto does not show (raw names and key identifiers).

export const sequence = (...parts: readonly Uint8Array[]): Uint8Array => element(0x30, ...parts);
export const setOf = (...parts: readonly Uint8Array[]): Uint8Array => element(0x31, ...parts);
export const octetString = (...parts: readonly Uint8Array[]): Uint8Array => element(0x04, ...parts);
export const utf8String = (text: string): Uint8Array => element(0x0c, Buffer.from(text, "utf8"));
export const boolean = (value: boolean): Uint8Array => element(0x01, Uint8Array.of(value ? 0xff : 0));
/** A whole number of bytes, or with `unusedBits` low bits that do not count. */
export const bitString = (bytes: Uint8Array, unusedBits = 0): Uint8Array =>
  element(0x03, Uint8Array.of(unusedBits), bytes);
/** `[number] EXPLICIT`. */
export const explicit = (number: number, ...parts: readonly Uint8Array[]): Uint8Array =>
  element(0xa0 | number, ...parts);
/** `[number] IMPLICIT` over a primitive value. */
export const implicit = (number: number, value: Uint8Array): Uint8Array => element(0x80 | number, value);

/** A non-negative integer from its big-endian bytes. */
export function integer(bigEndian: Uint8Array): Uint8Array {
  let start = 0;
  while (start < bigEndian.length - 1 && bigEndian[start] === 0) start++;
  const digits = bigEndian.subarray(start);
  // A set top bit would read as a minus sign.
  return (digits[0] ?? 0) & 0x80 ? element(0x02, Uint8Array.of(0), digits) : element(0x02, digits);
}

export function objectIdentifier(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const groups = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      groups.unshift((left & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return element(0x06, Uint8Array.from(bytes));
}

/** UTCTime up to 2049, GeneralizedTime from 2050 (RFC 5280, 4.1.2.5). */
export function time(ms: number): Uint8Array {
  const digits = `${new Date(ms).toISOString().slice(0, 19).replace(/[-:T]/g, "")}Z`;
  return digits < "2050" ? element(0x17, Buffer.from(digits.slice(2))) : element(0x18, Buffer.from(digits));
}

/** The elements that follow each other in `bytes`; stops at the first that does not fit. */
export function* elements(bytes: Uint8Array): Generator<{ tag: number; value: Uint8Array; whole: Uint8Array }> {
  let at = 0;
  while (at + 2 <= bytes.length) {
    const tag = bytes[at]!;
    let size = bytes[at + 1]!;
    let header = 2;
    if (size >= 0x80) {
      const digits = size & 0x7f;
      if (digits > 4) return; // longer than any certificate
      size = 0;
      for (let i = 0; i < digits; i++) size = size * 256 + (bytes[at + 2 + i] ?? 0);
      header += digits;
    }
    const end = at + header + size;
    if (end > bytes.length) return;
    yield { tag, value: bytes.subarray(at + header, end), whole: bytes.subarray(at, end) };
    at = end;
  }
}

function element(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of parts) size += part.length;
  const header = [tag];
  if (size < 0x80) header.push(size);
  else {
    const digits: number[] = [];
    for (let left = size; left > 0; left = Math.floor(left / 256)) digits.unshift(left & 0xff);
    header.push(0x80 | digits.length, ...digits);
  }
  return Buffer.concat([Uint8Array.from(header), ...parts]);
}
