// The server side of WebSocket on a connection that the HTTPS door handed over, reduced to messages with back-pressure. Frames, masking and pings are the work of the `ws` package. Client side: none yet.
import { Duplex } from "node:stream";
import { WebSocket, WebSocketServer } from "ws";
import type { ServerUpgrade } from "./https-server.ts";

export interface WebSocketHandlers {
  message(data: Uint8Array): void;
  /** The connection is over, in whatever way. Called once. */
  close(): void;
  /** What was sent has gone out: more is welcome. */
  drain?(): void;
}

export interface WebSocketPeer {
  /** The subprotocol that was agreed on. */
  readonly protocol: string;
  /** A text goes as a text message. False: enough is on its way; wait for `drain`. */
  send(data: Uint8Array | string): boolean;
  pause(): void;
  resume(): void;
  close(code: number, reason?: string): void;
  destroy(): void;
}

/** Sent but not yet taken by the kernel; above it senders are asked to wait. */
const highWaterBytes = 256 * 1024;
/** kubectl sends 32 KiB pieces; other clients may send more at once. */
const maxMessageBytes = 16 * 1024 * 1024;
/** Silence of proxies and NATs between is shorter than this; upstream pings as often. */
const pingEveryMs = 5_000;
/** A peer that answered no ping for so long is gone without a word (a cable was pulled). */
const silenceTimeoutMs = 60_000;
/** How long a peer may take to answer our close. */
const closeTimeoutMs = 5_000;

/** Answers the upgrade with `protocol` ("" for none). `handle` is called with the open connection. */
export function acceptWebSocket(
  upgrade: ServerUpgrade,
  protocol: string,
  handle: (peer: WebSocketPeer) => WebSocketHandlers,
): void {
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    clientTracking: false,
  });
  // The caller has chosen; and ws would refuse names such as SPDY/3.1+portforward.k8s.io, which kubectl sends though a
  // slash is not allowed in them (RFC 6455, 4.1).
  delete upgrade.message.headers["sec-websocket-protocol"];
  if (protocol !== "") server.on("headers", (headers) => headers.push(`Sec-WebSocket-Protocol: ${protocol}`));
  server.handleUpgrade(upgrade.message, upgrade.socket, Buffer.from(upgrade.head), (socket) => {
    let waiting = false;
    const handlers = handle({
      protocol,
      send(data) {
        if (socket.readyState !== WebSocket.OPEN) return true;
        socket.send(data, { binary: typeof data !== "string" }, () => {
          if (!waiting || socket.bufferedAmount > highWaterBytes / 2) return;
          waiting = false;
          handlers.drain?.();
        });
        waiting ||= socket.bufferedAmount > highWaterBytes;
        return !waiting;
      },
      pause: () => socket.pause(),
      resume: () => socket.resume(),
      close(code, reason) {
        socket.resume();
        socket.close(code, reason);
        const timer = setTimeout(() => socket.terminate(), closeTimeoutMs);
        socket.once("close", () => clearTimeout(timer));
      },
      destroy: () => socket.terminate(),
    });
    let heardAtMs = performance.now();
    const heard = () => {
      heardAtMs = performance.now();
    };
    const pings = setInterval(() => {
      // While we do not read we cannot hear either.
      if (socket.isPaused) heard();
      if (performance.now() - heardAtMs > silenceTimeoutMs) socket.terminate();
      else if (socket.readyState === WebSocket.OPEN) socket.ping();
    }, pingEveryMs);
    socket.on("pong", heard);
    socket.on("message", (data: Buffer | ArrayBuffer | Buffer[]) => {
      heard();
      handlers.message(
        Array.isArray(data) ? Buffer.concat(data) : data instanceof ArrayBuffer ? new Uint8Array(data) : data,
      );
    });
    // The close event follows; it carries the consequence.
    socket.on("error", () => {});
    socket.on("close", () => {
      clearInterval(pings);
      handlers.close();
    });
  });
}

/** A WebSocket whose binary messages are slices of one byte stream, as that stream. */
export function acceptWebSocketStream(upgrade: ServerUpgrade, protocol: string): Promise<Duplex> {
  return new Promise((resolve) => {
    acceptWebSocket(upgrade, protocol, (peer) => {
      let wakeWriter: (() => void) | undefined;
      const stream = new Duplex({
        read: () => peer.resume(),
        write(chunk: Buffer, _encoding, done) {
          if (peer.send(chunk)) done();
          else wakeWriter = done;
        },
        final(done) {
          peer.close(1000);
          done();
        },
        destroy(error, done) {
          if (error) peer.destroy();
          else peer.close(1000);
          done(error);
        },
      });
      resolve(stream);
      return {
        message(data) {
          if (!stream.push(data)) peer.pause();
        },
        drain() {
          const wake = wakeWriter;
          wakeWriter = undefined;
          wake?.();
        },
        close() {
          wakeWriter?.();
          wakeWriter = undefined;
          if (!stream.readableEnded) stream.push(null);
          stream.destroy();
        },
      };
    });
  });
}
