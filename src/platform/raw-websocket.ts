// The opening handshake of WebSocket by `ws`, and then the bare socket: for those who read and write frames themselves.
// Invariant: whoever gets the socket is the only one who listens to it.
import * as net from "node:net";
import type { Duplex } from "node:stream";
import { type ClientOptions, WebSocket, WebSocketServer } from "ws";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { ServerUpgrade } from "./https-server.ts";
import { connectTls } from "./key-trust.ts";
import { connectPatiently } from "./patient-connect.ts";
import type { UpgradeTls } from "./upgrade-client.ts";

/** Where `ws` would begin to read frames, it hands the socket on. */
class BareWebSocket extends WebSocket {
  taken: ((socket: Duplex, head: Uint8Array) => void) | undefined;
  setSocket(socket: net.Socket, head: Uint8Array): void {
    // What listens now was put there by the handshake.
    socket.removeAllListeners("error");
    socket.setTimeout?.(0);
    socket.setNoDelay?.(true);
    // Whoever speaks over it asks the other end himself, as rarely as bytes cost there. On first: a TLS socket does not know what
    // the one below it was told.
    socket.setKeepAlive?.(true);
    socket.setKeepAlive?.(false);
    this.taken?.(socket, head);
  }
}

/** Answers the upgrade with `headers` and returns the socket; undefined: the request was no handshake, and has its answer. */
export function acceptBareWebSocket(
  upgrade: ServerUpgrade,
  headers: Readonly<Record<string, string>>,
): Duplex | undefined {
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    clientTracking: false,
    WebSocket: BareWebSocket,
  });
  server.on("headers", (lines) => {
    for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  });
  let isAccepted = false;
  server.handleUpgrade(upgrade.message, upgrade.socket, Buffer.from(upgrade.head), () => {
    isAccepted = true;
  });
  return isAccepted ? upgrade.socket : undefined;
}

export interface BareDial {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly tls: UpgradeTls;
  readonly headers: Readonly<Record<string, string>>;
  /** Until the connection stands, and until the handshake is over. */
  readonly connectTimeoutMs: number;
  readonly timeoutMs: number;
  /** See `PatientConnect`. */
  readonly againMs?: number;
}

export interface BareWebSocketAnswer {
  readonly socket: Duplex;
  readonly head: Uint8Array;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** TLS and HTTP, once TCP stood. */
  readonly handshakeMs?: number;
  readonly reach?: Reach;
}

/**
 * Tries the way beside a connection, from the same address: says when the other machine has taken one more, which its kernel does,
 * and resolves when the program behind it has answered what is no handshake, which costs it next to nothing.
 */
export type Reach = (signal: AbortSignal, connected: () => void) => Promise<void>;

/** Longer than anybody waits for it. */
const reachTimeoutMs = 5000;
/** A record of TLS of a type that there is none of. */
const noRecord = Uint8Array.of(0, 3, 3, 0, 1, 0);

/** However it answers: an alert, or the end. */
function answered(probe: net.Socket, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const over = () => {
      signal.removeEventListener("abort", over);
      probe.destroy();
      resolve();
    };
    signal.addEventListener("abort", over, { once: true });
    probe.once("data", over).once("close", over).on("error", over);
    if (signal.aborted) over();
    else probe.write(noRecord);
  });
}

/** Of whoever has a certificate that none of the believed authorities' keys leads to, or one that names somebody else. */
const strangers = ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "ERR_TLS_CERT_ALTNAME_INVALID"];

/**
 * Rejects with WEBSOCKET_DIAL, which says the status when there is one, whether anybody was there and whether it was somebody
 * else, or with the signal's reason.
 */
export async function dialBareWebSocket(dial: BareDial, signal: AbortSignal): Promise<BareWebSocketAnswer> {
  const { host, port, connectTimeoutMs: timeoutMs, againMs } = dial;
  let tcp: net.Socket;
  try {
    tcp = await connectPatiently({ host, port, timeoutMs, ...(againMs === undefined ? {} : { againMs }) }, signal);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw new AppError("WEBSOCKET_DIAL", messageOf(error), { isConnected: false });
  }
  return upgrade(tcp, dial, signal);
}

function upgrade(tcp: net.Socket, dial: BareDial, signal: AbortSignal): Promise<BareWebSocketAnswer> {
  const startedMs = performance.now();
  const { localAddress } = tcp;
  return new Promise((resolve, reject) => {
    const { host, port, tls: trust } = dial;
    const name = `${host.includes(":") ? `[${host}]` : host}:${port}`;
    const settings = {
      socket: tcp,
      host,
      ALPNProtocols: ["http/1.1"],
      minVersion: "TLSv1.2" as const,
      rejectUnauthorized: trust.isUnchecked !== true,
      ...(trust.ca === undefined ? {} : { ca: trust.ca }),
      ...(trust.cert === undefined ? {} : { cert: trust.cert }),
      ...(trust.key === undefined ? {} : { key: trust.key }),
      ...(trust.serverName === undefined
        ? net.isIP(host)
          ? {}
          : { servername: host }
        : { servername: trust.serverName }),
    };
    const secure = connectTls(settings, trust);
    tcp.on("error", (error) => secure.destroy(error));
    const options: ClientOptions = {
      headers: { ...dial.headers },
      perMessageDeflate: false,
      createConnection: (() => secure) as unknown as NonNullable<ClientOptions["createConnection"]>,
    };
    const socket = new BareWebSocket(`wss://${name}${dial.path}`, options);
    let headers: BareWebSocketAnswer["headers"] = {};
    const onAbort = () => secure.destroy(new Error("aborted"));
    const fail = (why: string, more: Readonly<Record<string, unknown>> = {}) => {
      clearTimeout(late);
      signal.removeEventListener("abort", onAbort);
      secure.destroy();
      if (signal.aborted) reject(signal.reason);
      else {
        const details = { isConnected: true, ...more };
        reject(new AppError("WEBSOCKET_DIAL", `${name}: ${why}`, details));
      }
    };
    // That of `ws` counts on sockets that Node has made for it.
    const late = setTimeout(() => fail(`no answer within ${dial.timeoutMs} ms`), dial.timeoutMs);
    signal.addEventListener("abort", onAbort, { once: true });
    socket.on("upgrade", (answer) => {
      headers = answer.headers;
    });
    socket.on("unexpected-response", (_request, answer) => {
      fail(`answered ${answer.statusCode}`, { status: answer.statusCode });
    });
    socket.on("error", (error) =>
      fail(messageOf(error), { isStranger: strangers.some((code) => hasCode(error, code)) }),
    );
    socket.taken = (bare, head) => {
      clearTimeout(late);
      signal.removeEventListener("abort", onAbort);
      const again = { host, port, timeoutMs: reachTimeoutMs, ...(localAddress === undefined ? {} : { localAddress }) };
      const reach: Reach = async (by, connected) => {
        const probe = await connectPatiently(again, by);
        connected();
        await answered(probe, by);
      };
      resolve({ socket: bare, head, headers, handshakeMs: performance.now() - startedMs, reach });
    };
  });
}
