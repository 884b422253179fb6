// DNS messages as bytes, for what is passed on unread: header fields, the question, and a walk over the records to see
// and age their TTLs (RFC 1035 section 4). Decoding of cluster questions and answers is dns-packet's.
// Every read is bounded; malformed input yields undefined.

export interface Question {
  /** Lower case, without the final dot; "" is the root. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Offset of the first byte after the question. */
  readonly end: number;
}

export const headerSize = 12;
export const rcodes = {
  noError: 0,
  formatError: 1,
  serverFailure: 2,
  nameError: 3,
  notImplemented: 4,
  refused: 5,
} as const;
const optType = 41;

export const idOf = (message: Buffer): number => message.readUInt16BE(0);
export const isResponse = (message: Buffer): boolean => (message[2]! & 0x80) !== 0;
export const isTruncated = (message: Buffer): boolean => (message[2]! & 0x02) !== 0;
export const opcodeOf = (message: Buffer): number => (message[2]! >> 3) & 0x0f;
export const rcodeOf = (message: Buffer): number => message[3]! & 0x0f;

/** The one question of a message. */
export function questionOf(message: Buffer): Question | undefined {
  if (message.length < headerSize || message.readUInt16BE(4) !== 1) return undefined;
  const labels: string[] = [];
  let at = headerSize;
  for (;;) {
    const length = message[at];
    // Pointers make no sense in the first name of a message.
    if (length === undefined || length > 63 || at + 1 + length > message.length) return undefined;
    if (length === 0) break;
    labels.push(message.toString("latin1", at + 1, at + 1 + length).toLowerCase());
    at += 1 + length;
    if (at - headerSize > 255) return undefined;
  }
  if (at + 5 > message.length) return undefined;
  return {
    name: labels.join("."),
    type: message.readUInt16BE(at + 1),
    class: message.readUInt16BE(at + 3),
    end: at + 5,
  };
}

export interface RecordSpan {
  readonly section: "answer" | "authority" | "additional";
  readonly type: number;
  readonly ttlOffset: number;
  readonly ttl: number;
  readonly dataOffset: number;
  readonly dataLength: number;
}

/** All records after the question; undefined when the message is cut short or malformed. */
export function recordsOf(message: Buffer): RecordSpan[] | undefined {
  const question = questionOf(message);
  if (!question) return undefined;
  const counts = {
    answer: message.readUInt16BE(6),
    authority: message.readUInt16BE(8),
    additional: message.readUInt16BE(10),
  };
  const out: RecordSpan[] = [];
  let at = question.end;
  for (const section of ["answer", "authority", "additional"] as const) {
    for (let i = 0; i < counts[section]; i++) {
      const afterName = skipName(message, at);
      if (afterName === undefined || afterName + 10 > message.length) return undefined;
      const dataLength = message.readUInt16BE(afterName + 8);
      const dataOffset = afterName + 10;
      if (dataOffset + dataLength > message.length) return undefined;
      out.push({
        section,
        type: message.readUInt16BE(afterName),
        ttlOffset: afterName + 4,
        ttl: message.readUInt32BE(afterName + 4),
        dataOffset,
        dataLength,
      });
      at = dataOffset + dataLength;
    }
  }
  return out;
}

function skipName(message: Buffer, start: number): number | undefined {
  let at = start;
  for (;;) {
    const length = message[at];
    if (length === undefined) return undefined;
    if ((length & 0xc0) === 0xc0) return at + 2;
    if (length > 63) return undefined;
    at += 1 + length;
    if (length === 0) return at;
  }
}

export interface Edns {
  readonly udpSize: number;
  readonly isDnssecOk: boolean;
}

/** What the sender can take (RFC 6891); undefined without an OPT record. */
export function ednsOf(message: Buffer): Edns | undefined {
  const opt = recordsOf(message)?.find((r) => r.section === "additional" && r.type === optType);
  if (!opt) return undefined;
  return { udpSize: message.readUInt16BE(opt.ttlOffset - 2), isDnssecOk: (opt.ttl & 0x8000) !== 0 };
}

/** Seconds a response may be kept: the smallest TTL; for a negative one the SOA's minimum counts too (RFC 2308). */
export function lifetimeOf(message: Buffer): number {
  const records = recordsOf(message)?.filter((r) => r.type !== optType);
  if (!records || records.length === 0) return 0;
  let seconds = Number.POSITIVE_INFINITY;
  for (const record of records) {
    seconds = Math.min(seconds, record.ttl);
    if (record.type === 6 && record.section === "authority" && record.dataLength >= 20) {
      seconds = Math.min(seconds, message.readUInt32BE(record.dataOffset + record.dataLength - 4));
    }
  }
  return seconds;
}

/** A copy for another client: its id and spelling of the name, TTLs `ageSeconds` lower. */
export function replay(response: Buffer, query: Buffer, ageSeconds: number): Buffer {
  const out = Buffer.from(response);
  out.writeUInt16BE(idOf(query), 0);
  const asked = questionOf(query);
  if (asked && questionOf(response)?.end === asked.end) query.copy(out, headerSize, headerSize, asked.end);
  if (ageSeconds > 0) {
    for (const { type, ttl, ttlOffset } of recordsOf(out) ?? []) {
      if (type !== optType) out.writeUInt32BE(Math.max(0, ttl - ageSeconds), ttlOffset);
    }
  }
  return out;
}

/** Header and question of `query` turned into an answer without records. */
export function emptyResponse(query: Buffer, rcode: number, options: { readonly isTruncated: boolean }): Buffer {
  const end = questionOf(query)?.end ?? headerSize;
  const out = Buffer.from(query.subarray(0, end));
  // QR, the opcode and RD as asked; RA, because we forward.
  out[2] = 0x80 | (query[2]! & 0x79) | (options.isTruncated ? 0x02 : 0);
  out[3] = 0x80 | rcode;
  out.writeUInt16BE(end > headerSize ? 1 : 0, 4);
  out.fill(0, 6, headerSize);
  return out;
}

/** Types whose data is one name, or begins with names, and which every reader knows with pointers (RFC 3597 section 4). */
const namesInData: Readonly<Record<number, number>> = { 2: 1, 5: 1, 6: 2, 12: 1 };

/**
 * The same message with repeated names replaced by pointers (RFC 1035 4.1.4), which lets three times as many addresses
 * into a datagram. For messages of our own encoder, which writes every name in full.
 */
export function compressed(message: Buffer): Buffer {
  const out = Buffer.alloc(message.length);
  message.copy(out, 0, 0, headerSize);
  const seen = new Map<string, number>();
  let from = headerSize;
  let to = headerSize;
  const copy = (length: number): void => {
    message.copy(out, to, from, from + length);
    from += length;
    to += length;
  };
  const name = (): void => {
    const end = skipName(message, from)!;
    while (message[from] !== 0) {
      const rest = message.toString("latin1", from, end);
      const known = seen.get(rest);
      if (known !== undefined) {
        to = out.writeUInt16BE(0xc000 | known, to);
        from = end;
        return;
      }
      // Pointers have fourteen bits.
      if (to < 0x4000) seen.set(rest, to);
      copy(1 + message[from]!);
    }
    copy(1);
  };
  for (let i = message.readUInt16BE(4); i > 0; i--) {
    name();
    copy(4);
  }
  const recordCount = message.readUInt16BE(6) + message.readUInt16BE(8) + message.readUInt16BE(10);
  for (let i = 0; i < recordCount; i++) {
    name();
    const end = from + 10 + message.readUInt16BE(from + 8);
    const names = namesInData[message.readUInt16BE(from)] ?? 0;
    copy(10);
    const dataAt = to;
    for (let n = 0; n < names; n++) name();
    copy(end - from);
    out.writeUInt16BE(to - dataAt, dataAt - 2);
  }
  return out.subarray(0, to);
}
