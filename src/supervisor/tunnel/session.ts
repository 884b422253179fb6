// A tunnel between two ends: streams over one link, with flow control for each, fair turns and a watch on the other end's
// life. Speaks remotedialer's protocol with k3s, and with another mote also credit, confirmation and resumption.
// Invariant: everything that the other end can make grow is bounded; a message that breaks a bound ends the session, never
// the process. Upstream counterpart: rancher/remotedialer session.go and connection.go.
import type { Duplex } from "node:stream";
import type { Clock, Random } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { nextTurn } from "#platform/turns.ts";
import {
  controlKind,
  type Frame,
  failureKind,
  failureText,
  maxBatchBytes,
  maxBatchFrames,
  opcodes,
  type Piece,
  type TunnelCodec,
} from "./codec.ts";
import { type Keepalive, tickMs } from "./keepalive.ts";
import { Link, mostUnconfirmedBytes } from "./link.ts";
import { Liveness, type Way } from "./liveness.ts";
import { MessageParts } from "./message-parts.ts";
import { decodeNumber, decodeSync, encodeNumber, encodeSync, messageTypes, orderlyEnd } from "./messages.ts";
import { SendQueue } from "./send-queue.ts";
import { type StreamHost, TunnelStream } from "./stream.ts";
import { type Ticking, Ticks } from "./ticks.ts";

export interface SessionOptions {
  /** Who is at the other end: a node, or another server. */
  readonly peer: string;
  readonly isDialer: boolean;
  /** The other end is a mote: credit, confirmation, resumption. */
  readonly isMote: boolean;
  readonly keepalive: Keepalive;
}

export interface SessionDeps {
  readonly codec: TunnelCodec;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Shared by all sessions of a server; absent: its own. */
  readonly ticks?: Ticks;
}

export interface SessionHandlers {
  /** The other end opens a stream. Absent: it may not. */
  connect?(stream: TunnelStream): void;
  /** A server tells whom it can reach, and whom no longer. */
  client?(name: string, isThere: boolean): void;
  /** The socket is gone; a session of motes waits for another. */
  detached?(): void;
  /** Called once. */
  over(reason: string): void;
}

/**
 * A node's pods, probes and people together stay far below; each costs a few KiB before any byte is held. One that has ended
 * counts until what it brought has been read.
 */
export const maxStreams = 4096;
/** Answers that wait for room. What the other end asks in between is worth no more. */
const maxControlFrames = 8192;
/** What all streams of a session may hold above their first windows. */
const lendableBytes = 4 * 1024 * 1024;
/** A mote confirms when this much has come since, at the end of a turn. */
const confirmEveryBytes = 16 * 1024;
/** Less than this is not worth a message of its own at idle: pings would be confirmed for ever. */
const confirmAtIdleBytes = 256;
/** A message of this size that goes or comes alone is somebody's keystroke, or the answer to it… */
const smallBytes = 2048;
/** …and for so long others are expected. */
const smallRecentMs = 500;
const syncEveryMs = 60_000;
/** How long the other end may take to answer our goodbye. */
const closeTimeoutMs = 2000;
const nothing = new Uint8Array(0);
const goodbye = Uint8Array.of(0x03, 0xe8);

export class Session implements Ticking {
  readonly options: SessionOptions;
  readonly #deps: SessionDeps;
  readonly #handlers: SessionHandlers;
  readonly #link: Link;
  /** Made with the first stream: most tunnels are idle. */
  #host: StreamHost | undefined;
  readonly #ticks: Ticks;
  readonly #streams = new Map<number, TunnelStream>();
  readonly #queue = new SendQueue();
  /** Names it after a cut. */
  readonly token: string;
  #control: Frame[] = [];
  /** To the last ping; one answers all before it. */
  #pong: Frame | undefined;
  /** Made with the first message that is not a stream's bytes. */
  #parts: MessageParts | undefined;
  /** Streams that hold anything, ended ones included. */
  #live = 0;
  /** k3s's counter starts at 1 and is raised before it is used. */
  #lastConnection = 1;
  #lent = 0;
  #isPumping = false;
  #isPumpDue = false;
  #confirmedToPeer = 0;
  #isConfirmDue = false;
  #isOver = false;
  /** When the last small message went or came. */
  #smallMs = Number.NEGATIVE_INFINITY;
  #stopClosing: () => void = () => {};
  readonly #liveness: Liveness;
  #syncedMs: number;
  /** Missing in the peer's last list; dropped when they are missing in the next as well. */
  #missing: ReadonlySet<number> | undefined;
  /** Of streams that are unknown here, told once each. */
  #toldUnknown: Set<number> | undefined;

  constructor(options: SessionOptions, deps: SessionDeps, handlers: SessionHandlers, token?: string) {
    this.options = options;
    this.#deps = deps;
    this.#handlers = handlers;
    this.token = token ?? Buffer.from(deps.random.bytes(16)).toString("hex");
    const { clock } = deps;
    this.#link = new Link(
      { isDialer: options.isDialer, isResumable: options.isMote },
      { codec: deps.codec, clock },
      {
        pieces: (pieces) => this.#take(pieces),
        writable: () => this.#pumpSoon(),
        detached: () => this.#detached(),
      },
    );
    this.#ticks = deps.ticks ?? new Ticks(clock);
    const { keepalive, isDialer, isMote } = options;
    this.#liveness = new Liveness({ keepalive, isDialer, isMote, nowMs: () => clock.monotonicMs() });
    this.#syncedMs = clock.monotonicMs();
  }

  #hostOfStreams(): StreamHost {
    const { peer, isMote } = this.options;
    return {
      peer,
      usesCredit: isMote,
      nowMs: () => this.#deps.clock.monotonicMs(),
      ready: (stream) => {
        this.#queue.add(stream);
        this.#pumpSoon();
      },
      close: (stream, text) => this.#closed(stream, text),
      gone: (lentBytes) => {
        this.#lent -= lentBytes;
        this.#live--;
      },
      credit: (stream, bytes) => this.#say(messageTypes.credit, stream.connection, encodeNumber(bytes)),
      pausePeer: (stream, isPaused) =>
        this.#say(isPaused ? messageTypes.pause : messageTypes.resume, stream.connection, nothing),
      borrow: (bytes) => {
        if (this.#lent + bytes > lendableBytes) return false;
        this.#lent += bytes;
        return true;
      },
      giveBack: (bytes) => {
        this.#lent -= bytes;
      },
    };
  }

  get isAttached(): boolean {
    return this.#link.isAttached;
  }
  get isOver(): boolean {
    return this.#isOver;
  }
  /** Known to both ends. */
  get streamCount(): number {
    return this.#streams.size;
  }
  /** Those, and the ended ones whose bytes nobody has read yet. */
  get liveStreamCount(): number {
    return this.#live;
  }
  /** The byte of the other end from which on it is to send over the next socket. */
  get wanted(): number {
    return this.#link.wanted;
  }
  /** When anything was last heard. */
  get heardMs(): number {
    return this.#link.heardMs;
  }
  /** The last connection was given up without a byte of the other end: its machine is there and does not come to answering. */
  get wasMute(): boolean {
    return this.#liveness.wasMute;
  }
  /** Kept in case that it has to be sent again. */
  get unconfirmedBytes(): number {
    return this.#link.unconfirmedBytes;
  }
  /** Whether the session can go on where the other end stopped reading. */
  canResume(from: number): boolean {
    return this.options.isMote && !this.#isOver && this.#link.has(from);
  }

  /** Begins, or goes on, over a socket whose handshake is done. `from`: what the other end wants. */
  attach(socket: Duplex, head: Uint8Array, from: number, way: Way = {}): void {
    const { isDialer, isMote, keepalive } = this.options;
    this.#liveness.attached(way);
    this.#link.attach(socket, head, from);
    // What came with the head may have ended it already.
    if (this.#isOver || !this.#link.isAttached) return;
    this.#ticks.add(this, tickMs(keepalive));
    // Until it is answered nobody knows that the way is good; and the other end learns how slow this one is.
    if (isDialer && isMote) this.#ping(false);
    this.#pump();
  }

  /** A new stream to `target` behind the other end. What is written goes out at once: nobody acknowledges a connect. */
  open(proto: string, address: string): TunnelStream {
    if (this.#isOver) throw new AppError("TUNNEL_OVER", `the tunnel to ${this.options.peer} has ended`);
    if (this.#live >= maxStreams) {
      throw new AppError("TUNNEL_STREAMS", `the tunnel to ${this.options.peer} has ${maxStreams} streams already`);
    }
    const stream = this.#newStream(++this.#lastConnection, `${proto}/${address}`);
    this.#say(messageTypes.connect, stream.connection, new TextEncoder().encode(stream.target));
    return stream;
  }

  /** Tells a server that `name` can be reached here, or not any more. */
  announce(name: string, isThere: boolean): void {
    // The number of the session is nobody's business; one is enough.
    const type = isThere ? messageTypes.addClient : messageTypes.removeClient;
    this.#say(type, 0, new TextEncoder().encode(`${name}/1`));
  }

  /** Cuts the socket but not the session. */
  cut(): void {
    this.#link.cut();
  }

  /** Says goodbye; the streams end. */
  close(): void {
    if (this.#isOver) return;
    if (this.#link.isAttached) {
      this.#control.push({ kind: controlKind | opcodes.close, connection: 0, payload: goodbye });
      this.#pump();
      this.#link.finish();
    }
    this.end("closed");
    if (this.#link.isAttached) this.#stopClosing = this.#deps.clock.after(closeTimeoutMs, () => this.#link.cut());
  }

  /** Everything ends, at once. */
  end(reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#ticks.delete(this);
    if (reason !== "closed") this.#link.cut();
    this.#link.forget();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#queue.clear();
    this.#control = [];
    this.#pong = undefined;
    this.#parts = undefined;
    this.#liveness.detached();
    for (const stream of streams) {
      const what = `${this.options.peer}: ${stream.target}: tunnel disconnect: ${reason}`;
      stream.destroy(new AppError("TUNNEL_DISCONNECT", what));
    }
    this.#handlers.over(reason);
  }

  // ---- out ----

  #newStream(connection: number, target: string): TunnelStream {
    this.#host ??= this.#hostOfStreams();
    const stream = new TunnelStream(connection, target, this.#host);
    this.#live++;
    this.#streams.set(connection, stream);
    return stream;
  }

  #say(kind: number, connection: number, payload: Uint8Array): void {
    if (this.#isOver) return;
    if (this.#control.length >= maxControlFrames) {
      this.end("it asks without reading the answers");
      return;
    }
    this.#control.push({ kind, connection, payload });
    this.#pumpSoon();
  }

  /** After the current callbacks, so that what they have for us goes out together. */
  #pumpSoon(): void {
    if (this.#isPumpDue || this.#isPumping) return;
    this.#isPumpDue = true;
    queueMicrotask(() => {
      this.#isPumpDue = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      while (this.#link.isAttached && this.#sendBatch()) {}
    } finally {
      this.#isPumping = false;
    }
  }

  /** Answers and signals first, then streams by turns, as much as there is room for. */
  #sendBatch(): boolean {
    const batch: Frame[] = [];
    const done: (() => void)[] = [];
    let bytes = 0;
    if (this.#link.isClogged) return false;
    if (this.#pong) {
      bytes += this.#pong.payload.length;
      batch.push(this.#pong);
      this.#pong = undefined;
    }
    while (this.#control.length > 0 && batch.length < maxBatchFrames) {
      const frame = this.#control[0]!;
      if (bytes + frame.payload.length > maxBatchBytes) break;
      bytes += frame.payload.length;
      batch.push(frame);
      this.#control.shift();
    }
    const nowMs = this.#deps.clock.monotonicMs();
    let room = Math.min(this.#link.room(nowMs - this.#smallMs < smallRecentMs), maxBatchBytes - bytes);
    const { frameBytes } = this.#link;
    while (room > 0 && batch.length < maxBatchFrames) {
      const stream = this.#queue.next();
      if (!stream) break;
      const slice = stream.slice(Math.min(frameBytes, maxBatchBytes - bytes));
      if (!slice) {
        stream.finished();
        continue;
      }
      stream.deficit -= slice.bytes.length;
      if (slice.bytes.length <= smallBytes && stream.isDrained) this.#smallMs = nowMs;
      batch.push({ kind: messageTypes.data, connection: stream.connection, payload: slice.bytes });
      if (slice.done) done.push(slice.done);
      room -= slice.bytes.length;
      bytes += slice.bytes.length;
      if (bytes >= maxBatchBytes) break;
    }
    if (batch.length === 0) return this.#control.length > 0;
    const isAsking = batch.some(({ kind }) => !isReply(kind));
    this.#link.send(this.#deps.codec.encode(batch, this.options.isDialer), isAsking);
    for (const finish of done) finish();
    if (this.options.isMote && this.#link.unconfirmedBytes > mostUnconfirmedBytes)
      this.end("it does not confirm what it gets");
    return true;
  }

  #closed(stream: TunnelStream, text: string): void {
    if (!this.#streams.delete(stream.connection)) return;
    this.#say(messageTypes.error, stream.connection, errorText(text));
  }

  // ---- in ----

  #take(pieces: readonly Piece[]): void {
    this.#liveness.heard();
    for (const piece of pieces) {
      if (this.#isOver) return;
      if (piece.kind >= failureKind) {
        this.#deps.log.warn("tunnel: the other end broke the protocol", {
          peer: this.options.peer,
          error: failureText(piece.kind),
        });
        this.end(failureText(piece.kind));
      } else if (piece.kind >= controlKind) this.#takeControl(piece.kind - controlKind, piece.bytes);
      else if (piece.kind === messageTypes.data) this.#takeData(piece);
      else this.#gather(piece);
    }
    if (!this.options.isMote || this.#isConfirmDue) return;
    if (this.#link.wanted - this.#confirmedToPeer < confirmEveryBytes) return;
    this.#isConfirmDue = true;
    // All that this turn of the event loop brings is confirmed together.
    void nextTurn().then(() => {
      this.#isConfirmDue = false;
      this.#confirm();
    });
  }

  #confirm(): void {
    this.#confirmedToPeer = this.#link.wanted;
    this.#say(messageTypes.ack, 0, encodeNumber(this.#confirmedToPeer));
  }

  #takeControl(opcode: number, payload: Uint8Array): void {
    if (opcode === opcodes.close) this.end("the other end said goodbye");
    else if (opcode === opcodes.ping) {
      this.#liveness.told(payload);
      const own = payload.length === 0 ? nothing : new Uint8Array(payload);
      this.#pong = { kind: controlKind | opcodes.pong, connection: 0, payload: own };
      this.#pumpSoon();
    } else if (opcode === opcodes.pong) this.#liveness.ponged();
  }

  #takeData(piece: Piece): void {
    const stream = this.#streams.get(piece.connection);
    if (!stream) {
      if (piece.isFirst) this.#unknown(piece.connection);
      return;
    }
    if (piece.isFirst && piece.isLast && piece.bytes.length <= smallBytes)
      this.#smallMs = this.#deps.clock.monotonicMs();
    if (piece.bytes.length === 0 || stream.receive(piece.bytes)) return;
    stream.destroy(new AppError("TUNNEL_FLOW", `${stream.target}: more bytes came than were asked for`));
  }

  /** Bytes that were under way when we ended the stream are no reason to answer each. */
  #unknown(connection: number): void {
    this.#toldUnknown ??= new Set();
    if (this.#toldUnknown.has(connection)) return;
    this.#toldUnknown.add(connection);
    if (this.#toldUnknown.size > 1024) this.#toldUnknown.delete(this.#toldUnknown.values().next().value!);
    const { peer } = this.options;
    this.#say(messageTypes.error, connection, errorText(`connection not found ${peer}/0/${connection}`));
  }

  #gather(piece: Piece): void {
    this.#parts ??= new MessageParts();
    const whole = this.#parts.take(piece);
    if (whole === "too long") this.end("a list of connections that is too long");
    else if (whole) this.#takeMessage(piece.kind, piece.connection, whole);
  }

  #takeMessage(kind: number, connection: number, bytes: Uint8Array): void {
    const stream = this.#streams.get(connection);
    switch (kind) {
      case messageTypes.connect:
        this.#takeConnect(connection, textOf(bytes));
        return;
      case messageTypes.error: {
        if (!stream) return;
        this.#streams.delete(connection);
        this.#say(messageTypes.error, connection, bytes);
        stream.endedByPeer(textOf(bytes));
        return;
      }
      case messageTypes.pause:
        stream?.setPausedByPeer(true);
        return;
      case messageTypes.resume:
        stream?.setPausedByPeer(false);
        return;
      case messageTypes.addClient:
      case messageTypes.removeClient: {
        const name = textOf(bytes).split("/")[0] ?? "";
        if (name !== "") this.#handlers.client?.(name, kind === messageTypes.addClient);
        return;
      }
      case messageTypes.sync:
        this.#takeSync(decodeSync(bytes));
        return;
      case messageTypes.credit: {
        const more = decodeNumber(bytes);
        if (this.options.isMote && more > 0) stream?.addCredit(more);
        return;
      }
      case messageTypes.ack:
        if (this.options.isMote) this.#link.confirm(decodeNumber(bytes));
        return;
      default:
        // Types of later versions are not ours to judge.
        return;
    }
  }

  #takeConnect(connection: number, target: string): void {
    const { connect } = this.#handlers;
    if (this.#streams.has(connection)) {
      this.end("a connection was opened twice");
      return;
    }
    const refusal =
      connect === undefined ? "connect not allowed" : this.#live >= maxStreams ? "too many connections" : "";
    if (refusal !== "") {
      this.#say(messageTypes.error, connection, errorText(refusal));
      return;
    }
    this.#toldUnknown?.delete(connection);
    connect!(this.#newStream(connection, target));
  }

  /** k3s drops what one list misses, even what is still on its way; two lists in a row are proof. */
  #takeSync(known: ReadonlySet<number>): void {
    const missing = new Set<number>();
    for (const [connection, stream] of this.#streams) {
      if (known.has(connection)) continue;
      if (this.#missing?.has(connection)) {
        this.#streams.delete(connection);
        stream.endedByPeer("connection lost by the other end");
      } else missing.add(connection);
    }
    this.#missing = missing;
  }

  // ---- life ----

  #detached(): void {
    this.#ticks.delete(this);
    this.#liveness.detached();
    this.#stopClosing();
    if (this.#isOver) return;
    if (this.options.isMote) this.#handlers.detached?.();
    else this.end("the connection was lost");
  }

  #ping(isProbe: boolean): void {
    this.#say(controlKind | opcodes.ping, 0, this.#liveness.asks(isProbe));
  }

  tick(nowMs: number, lateMs: number): void {
    const { isDialer, isMote, peer } = this.options;
    const { heardMs, unansweredMs } = this.#link;
    const verdict = this.#liveness.look(nowMs, lateMs, heardMs, isMote ? unansweredMs : undefined);
    if (verdict === "dead") {
      const { patienceMs } = this.#liveness;
      const silentMs = Math.round(nowMs - heardMs);
      this.#deps.log.info("tunnel: the other end is silent", { peer, silentMs, patienceMs });
      this.#link.cut();
      return;
    }
    if (verdict !== "wait") this.#ping(verdict === "probe");
    if (isMote && this.#link.wanted - this.#confirmedToPeer >= confirmAtIdleBytes) this.#confirm();
    if (isDialer && !isMote && nowMs - this.#syncedMs >= syncEveryMs) {
      this.#syncedMs = nowMs;
      this.#say(messageTypes.sync, 0, encodeSync(this.#streams.keys()));
    }
  }
}

/** Nobody answers these; if they were waited for, each end of a silent tunnel would ask the other because it had answered. */
const isReply = (kind: number): boolean =>
  kind === (controlKind | opcodes.pong) || kind === messageTypes.ack || kind === messageTypes.credit;

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("utf8");
/** An empty text would be read as none at all. */
const errorText = (text: string): Uint8Array => new TextEncoder().encode((text || orderlyEnd).slice(0, 100));
