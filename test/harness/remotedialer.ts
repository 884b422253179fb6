// One end of a tunnel as k3s v1.32 has it: remotedialer's messages over WebSocket as Go's libraries frame them. Written from
// what travels, and nothing of src/supervisor/tunnel is used here. With the habits that matter to whoever is at the other end:
// a dialing end sends long messages in parts of 4 KiB, only pings and pongs count as signs of life, one mark serves both
// directions of a pause, and an address that is not allowed ends the whole tunnel.
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";

const types = { data: 1, connect: 2, error: 3, addClient: 4, removeClient: 5, pause: 6, resume: 7, sync: 8 } as const;
const opcodes = { more: 0, binary: 2, close: 8, ping: 9, pong: 10 } as const;
/** Of the sender's buffer in Go's WebSockets. */
const partBytes = 4096;
const copyBytes = 32 * 1024;
const pauseAboveBytes = 2 * 1024 * 1024;
const resumeBelowBytes = pauseAboveBytes / 8;
/** Nobody looks at it any more, and everybody sends it. */
const deadline = 15_000n;

interface Message {
  readonly type: number;
  readonly connection: number;
  readonly body: Buffer;
}

export interface RemoteDialerOptions {
  /** Dials: masks what it sends, pings, and is asked to connect. */
  readonly isClient: boolean;
  readonly pingMs?: number;
  readonly deadMs?: number;
  readonly mayDial?: (proto: string, address: string) => boolean;
  readonly dial?: (address: string) => Socket;
}

export class RemoteDialer {
  /** Why it ended. */
  readonly ended: Promise<string>;
  /** How many messages of each type came. */
  readonly received = new Map<number, number>();
  pongs = 0;
  readonly #socket: Duplex;
  readonly #options: RemoteDialerOptions;
  readonly #connections = new Map<number, Connection>();
  #end: (why: string) => void = () => {};
  #bytes = Buffer.alloc(0);
  #parts: Buffer[] = [];
  #drained: Promise<void> | undefined;
  #id = randomBytes(8).readBigUInt64LE() >> 1n;
  #nextConnection = 1;
  #pings: NodeJS.Timeout | undefined;
  #deadline: NodeJS.Timeout | undefined;

  constructor(socket: Duplex, head: Uint8Array, options: RemoteDialerOptions) {
    this.#socket = socket;
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#end = (why) => {
        clearInterval(this.#pings);
        clearTimeout(this.#deadline);
        for (const [id, connection] of this.#connections) connection.over(`tunnel disconnect ${id}`);
        this.#connections.clear();
        socket.destroy();
        resolve(why);
      };
    });
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#end("the connection is gone"));
    if (options.isClient) this.#pings = setInterval(() => this.#frame(opcodes.ping, noBytes), options.pingMs ?? 5000);
    this.#alive();
    if (head.length > 0) this.#read(Buffer.from(head));
  }

  /** Nobody says whether it stands. */
  dial(proto: string, address: string): Connection {
    const connection = this.#open(++this.#nextConnection);
    this.send(types.connect, connection.id, Buffer.from(`${proto}/${address}`));
    return connection;
  }

  /** What the dialing end says every minute. */
  sync(): void {
    const ids = [...this.#connections.keys()].sort((a, b) => a - b);
    const body = Buffer.alloc(ids.length * 8);
    for (const [i, id] of ids.entries()) body.writeBigUInt64LE(BigInt(id), i * 8);
    this.send(types.sync, 0, body);
  }

  close(): void {
    this.#end("closed");
  }

  /** For connections: false when the socket's buffer is full. */
  send(type: number, connection: number, body: Uint8Array): boolean {
    const header = [varint(this.#id++), varint(BigInt(connection)), varint(BigInt(type))];
    if (type === types.data || type === types.connect) header.push(varint(deadline));
    const whole = Buffer.concat([...header, body]);
    if (!this.#options.isClient) return this.#frame(opcodes.binary, whole);
    let isRoomy = true;
    for (let at = 0; at === 0 || at < whole.length; at += partBytes) {
      const isLast = at + partBytes >= whole.length;
      isRoomy = this.#frame(at === 0 ? opcodes.binary : opcodes.more, whole.subarray(at, at + partBytes), isLast);
    }
    return isRoomy;
  }

  whenDrained(): Promise<void> {
    this.#drained ??= new Promise((resolve) => {
      const done = () => {
        this.#drained = undefined;
        this.#socket.off("drain", done).off("close", done);
        resolve();
      };
      this.#socket.on("drain", done).on("close", done);
    });
    return this.#drained;
  }

  closeConnection(id: number, text: string): void {
    const connection = this.#connections.get(id);
    if (!connection) return;
    this.#connections.delete(id);
    this.send(types.error, id, Buffer.from(text));
    connection.over(text);
  }

  #open(id: number): Connection {
    const connection = new Connection(id, this);
    this.#connections.set(id, connection);
    return connection;
  }

  #frame(opcode: number, payload: Uint8Array, isLast = true): boolean {
    if (this.#socket.destroyed) return true;
    const size = payload.length;
    const masked = this.#options.isClient ? 0x80 : 0;
    const head = [(isLast ? 0x80 : 0) | opcode];
    if (size < 126) head.push(masked | size);
    else if (size < 65_536) head.push(masked | 126, size >> 8, size & 0xff);
    else {
      const long = Buffer.alloc(8);
      long.writeBigUInt64BE(BigInt(size));
      head.push(masked | 127, ...long);
    }
    if (masked === 0) return this.#socket.write(Buffer.concat([Buffer.from(head), payload]));
    const mask = randomBytes(4);
    const hidden = Buffer.from(payload).map((byte, i) => byte ^ mask[i & 3]!);
    return this.#socket.write(Buffer.concat([Buffer.from(head), mask, hidden]));
  }

  #alive(): void {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#end("no sign of life"), this.#options.deadMs ?? 60_000);
  }

  #read(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    for (;;) {
      const bytes = this.#bytes;
      if (bytes.length < 2) return;
      const isMasked = (bytes[1]! & 0x80) !== 0;
      if (isMasked === this.#options.isClient) {
        this.#end("masked where it must not be, or not where it must");
        return;
      }
      let [at, size] = [2, bytes[1]! & 0x7f];
      if (size === 126) {
        if (bytes.length < 4) return;
        [at, size] = [4, bytes.readUInt16BE(2)];
      } else if (size === 127) {
        if (bytes.length < 10) return;
        [at, size] = [10, Number(bytes.readBigUInt64BE(2))];
      }
      const from = at + (isMasked ? 4 : 0);
      if (bytes.length < from + size) return;
      const payload = Buffer.from(bytes.subarray(from, from + size));
      if (isMasked) for (let i = 0; i < size; i++) payload[i]! ^= bytes[at + (i & 3)]!;
      this.#bytes = Buffer.from(bytes.subarray(from + size));
      this.#take(bytes[0]! & 0x0f, (bytes[0]! & 0x80) !== 0, payload);
    }
  }

  #take(opcode: number, isLast: boolean, payload: Buffer): void {
    if (opcode === opcodes.ping) {
      this.#frame(opcodes.pong, noBytes);
      this.#alive();
    } else if (opcode === opcodes.pong) {
      this.pongs++;
      this.#alive();
    } else if (opcode === opcodes.close) this.#end("the other end said goodbye");
    else if (opcode === opcodes.binary || (opcode === opcodes.more && this.#parts.length > 0)) {
      this.#parts.push(payload);
      if (!isLast) return;
      const whole = Buffer.concat(this.#parts);
      this.#parts = [];
      this.#serve(messageOf(whole));
    } else this.#end(`a message that is none (${opcode})`);
  }

  #serve({ type, connection: id, body }: Message): void {
    this.received.set(type, (this.received.get(type) ?? 0) + 1);
    const connection = this.#connections.get(id);
    // Others are not looked at.
    if (type === types.connect) this.#connect(id, body.subarray(0, 266).toString());
    else if (type === types.data && connection) connection.offer(body);
    else if (type === types.data) this.send(types.error, id, Buffer.from(`connection not found client/0/${id}`));
    else if (type === types.pause || type === types.resume) connection?.setPaused(type === types.pause);
    else if (type === types.error) this.closeConnection(id, body.subarray(0, 100).toString());
    else if (type === types.sync) this.#keepOnly(body);
  }

  #keepOnly(list: Buffer): void {
    if (list.length % 8 !== 0) {
      this.#end("a list that is none");
      return;
    }
    const known = new Set<number>();
    for (let i = 0; i < list.length; i += 8) known.add(Number(list.readBigUInt64LE(i)));
    for (const [id, stale] of this.#connections) {
      if (known.has(id)) continue;
      this.#connections.delete(id);
      stale.over("sync from client");
    }
  }

  #connect(id: number, target: string): void {
    const slash = target.indexOf("/");
    const [proto, address] = [target.slice(0, slash), target.slice(slash + 1)];
    if (slash < 0 || !this.#options.mayDial?.(proto, address) || !this.#options.dial) {
      this.#end(`connect not allowed: ${target}`);
      return;
    }
    const connection = this.#open(id);
    const socket = this.#options.dial(address);
    const close = (text: string) => {
      socket.destroy();
      this.closeConnection(id, text);
    };
    let written = Promise.resolve();
    socket.on("error", (error) => close(error.message));
    socket.on("end", () => void written.then(() => close("EOF")));
    socket.on("data", (chunk: Buffer) => {
      socket.pause();
      written = connection.write(chunk).then(() => void socket.resume());
    });
    void (async () => {
      for (;;) {
        const bytes = await connection.read();
        if (!bytes) break;
        if (!socket.write(bytes))
          await new Promise<void>((resolve) => socket.once("drain", resolve).once("close", resolve));
      }
      socket.end();
    })();
  }
}

export class Connection {
  readonly id: number;
  /** What ended it. */
  endedBy: string | undefined;
  readonly #tunnel: RemoteDialer;
  #buffer: Buffer[] = [];
  #buffered = 0;
  #isPaused = false;
  #wake: (() => void)[] = [];

  constructor(id: number, tunnel: RemoteDialer) {
    this.id = id;
    this.#tunnel = tunnel;
  }

  get bufferedBytes(): number {
    return this.#buffered;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += copyBytes) {
      while (this.#isPaused && this.endedBy === undefined) await this.#change();
      if (this.endedBy !== undefined) return;
      if (!this.#tunnel.send(types.data, this.id, bytes.subarray(at, at + copyBytes))) await this.#tunnel.whenDrained();
    }
  }

  /** Undefined: the end. */
  async read(): Promise<Buffer | undefined> {
    while (this.#buffer.length === 0) {
      if (this.endedBy !== undefined) return undefined;
      await this.#change();
    }
    const bytes = this.#buffer.shift()!;
    this.#buffered -= bytes.length;
    if (this.#buffered < resumeBelowBytes && this.#isPaused) {
      this.#isPaused = false;
      this.#tunnel.send(types.resume, this.id, noBytes);
      this.#changed();
    }
    return bytes;
  }

  close(): void {
    this.#tunnel.closeConnection(this.id, "EOF");
  }

  offer(bytes: Buffer): void {
    if (bytes.length > 0) this.#buffer.push(bytes);
    this.#buffered += bytes.length;
    if (this.#buffered > pauseAboveBytes && !this.#isPaused) {
      this.#isPaused = true;
      this.#tunnel.send(types.pause, this.id, noBytes);
    }
    this.#changed();
  }

  setPaused(isPaused: boolean): void {
    this.#isPaused = isPaused;
    this.#changed();
  }

  over(text: string): void {
    this.endedBy ??= text;
    this.#changed();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

const noBytes = Buffer.alloc(0);

/** Go's signed form: the sign in the lowest bit, then seven bits at a time. */
function varint(value: bigint): Buffer {
  const out: number[] = [];
  let left = (value << 1n) ^ (value >> 63n);
  for (; left >= 128n; left >>= 7n) out.push(Number(left & 0x7fn) | 0x80);
  out.push(Number(left));
  return Buffer.from(out);
}

function messageOf(bytes: Buffer): Message {
  let at = 0;
  const number = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) break;
    }
    return Number((value >> 1n) ^ -(value & 1n));
  };
  number();
  const [connection, type] = [number(), number()];
  if (type === types.data || type === types.connect) number();
  return { type, connection, body: bytes.subarray(at) };
}
