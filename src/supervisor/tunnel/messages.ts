// What travels through a tunnel: remotedialer's messages by number, mote's own beside them, and the text that rides in
// headers when two motes meet. Numbers and limits of remotedialer are fixed by k3s; its receivers ignore types that they
// do not know. Upstream counterpart: rancher/remotedialer message.go.

export const messageTypes = {
  data: 1,
  /** `proto/address`; opens a stream. Nobody acknowledges it. */
  connect: 2,
  /** Ends a stream; `EOF`: in good order. Both directions end. */
  error: 3,
  /** `client/session`: a server tells another whom it can reach. */
  addClient: 4,
  removeClient: 5,
  pause: 6,
  resume: 7,
  /** Connections that the dialing end knows, 8 bytes each. */
  sync: 8,
  /** mote only: so many bytes more may be sent on the stream. */
  credit: 40,
  /** mote only: all bytes of the connection before this one have been read. */
  ack: 41,
} as const;

/**
 * What is read of a message; more is cut. Receivers of other implementations read 266 bytes of a connect and 100 of a client,
 * which does not hold every name that a node may have (253 bytes).
 */
export const maxMessageBytes: Readonly<Record<number, number>> = {
  [messageTypes.connect]: 512,
  [messageTypes.error]: 100,
  [messageTypes.addClient]: 300,
  [messageTypes.removeClient]: 300,
  [messageTypes.sync]: 64 * 1024,
  [messageTypes.credit]: 10,
  [messageTypes.ack]: 10,
};

export const orderlyEnd = "EOF";

/** A number below 2^53, seven bits at a time, lowest first. */
export function encodeNumber(value: number): Uint8Array {
  const out: number[] = [];
  for (let left = value; ; left = Math.floor(left / 128)) {
    if (left < 128) {
      out.push(left);
      return Uint8Array.from(out);
    }
    out.push((left % 128) | 0x80);
  }
}

/** NaN when it is none. */
export function decodeNumber(bytes: Uint8Array): number {
  let value = 0;
  let factor = 1;
  for (const [i, byte] of bytes.entries()) {
    value += (byte & 0x7f) * factor;
    if ((byte & 0x80) === 0) return i === bytes.length - 1 && Number.isSafeInteger(value) ? value : Number.NaN;
    factor *= 128;
  }
  return Number.NaN;
}

export function encodeSync(connections: Iterable<number>): Uint8Array {
  const sorted = [...connections].sort((a, b) => a - b);
  const out = Buffer.alloc(sorted.length * 8);
  for (const [i, id] of sorted.entries()) out.writeBigInt64LE(BigInt(id), i * 8);
  return out;
}

export function decodeSync(bytes: Uint8Array): Set<number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Set<number>();
  for (let i = 0; i + 8 <= bytes.length; i += 8) out.add(Number(view.getBigInt64(i, true)));
  return out;
}

/** In the request of a mote that dials and in the answer of one that accepts. Others neither send nor miss it. */
export const moteHeader = "x-mote-tunnel";

export interface MoteHello {
  /** Names the session that both ends keep over a cut; absent in a first request. */
  readonly session?: string;
  /**
   * PROCESS-NUMBER of the dialing end: a process may have several tunnels to one server, by different addresses, and none of
   * them takes the place of another.
   */
  readonly of?: string;
  /** The sender has read the other's bytes before this one, and asks for those from it on. */
  readonly from: number;
  /** How often the dialing end pings, and how long it waits for an answer. */
  readonly pingMs: number;
  readonly deadMs: number;
}

export function formatHello(hello: MoteHello): string {
  const session = hello.session === undefined ? "" : `; session=${hello.session}`;
  const of = hello.of === undefined ? "" : `; of=${hello.of}`;
  return `v=1; from=${hello.from}; ping=${hello.pingMs}; dead=${hello.deadMs}${session}${of}`;
}

/** Undefined: not of a mote that we understand. */
export function parseHello(text: string | readonly string[] | undefined): MoteHello | undefined {
  if (typeof text !== "string" || text.length > 256) return undefined;
  const fields = new Map(text.split(/ *; */).map((part) => part.split("=", 2) as [string, string]));
  const number = (name: string) => (/^\d{1,15}$/.test(fields.get(name) ?? "") ? Number(fields.get(name)) : Number.NaN);
  const [from, pingMs, deadMs] = [number("from"), number("ping"), number("dead")];
  const session = fields.get("session");
  if (fields.get("v") !== "1" || !(from >= 0 && pingMs > 0 && deadMs > 0)) return undefined;
  if (session !== undefined && !/^[0-9a-f]{32}$/.test(session)) return undefined;
  const of = fields.get("of");
  // What is not understood is not there: such a tunnel takes the place of all others.
  const isOf = of !== undefined && /^[0-9a-f]{16}-\d{1,9}$/.test(of);
  return { from, pingMs, deadMs, ...(session === undefined ? {} : { session }), ...(isOf ? { of } : {}) };
}

/** Whether both are tunnels of one process, and not the same one. */
export function isBeside(one: string | undefined, other: string | undefined): boolean {
  return one !== undefined && other !== undefined && one !== other && one.split("-")[0] === other.split("-")[0];
}
