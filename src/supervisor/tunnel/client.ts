// The node's end of the tunnel: dials a server, lets it open streams to what is allowed here, and dials again when the
// connection is gone. A cut between motes is bridged for `bridgeMs`: the session waits, then goes on over the next
// connection. Pauses between attempts are spread by chance, so that a thousand nodes do not come back at once.
// Upstream counterpart: k3s pkg/agent/tunnel and remotedialer client.go.
import type { Duplex } from "node:stream";
import { type Clock, pause, type Random } from "#base/clock.ts";
import { type AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { type BareDial, type BareWebSocketAnswer, dialBareWebSocket } from "#platform/raw-websocket.ts";
import { tunnel } from "#platform/tunnel.ts";
import type { UpgradeTls } from "#platform/upgrade-client.ts";
import { createRepeatedProblem } from "../repeated-problem.ts";
import type { TunnelCodec } from "./codec.ts";
import { type Keepalive, keepalives } from "./keepalive.ts";
import type { Way } from "./liveness.ts";
import { formatHello, moteHeader, parseHello } from "./messages.ts";
import { Session } from "./session.ts";
import type { TunnelStream } from "./stream.ts";

export const connectPath = "/v1-k3s/connect";

/** Whether this end may be asked to dial so. */
export type DialPolicy = (proto: string, address: string) => boolean;

export interface TunnelClientOptions {
  readonly host: string;
  readonly port: number;
  /** Asked for each connection, because certificates are renewed. */
  readonly tls: () => UpgradeTls;
  /** Bytes cost money here. */
  readonly isMetered?: boolean;
  /** Sent along; servers that are peers of each other name and prove themselves with them. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Which of this process's tunnels it is; see `MoteHello`. */
  readonly of?: string;
}

export interface TunnelClientDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly codec: TunnelCodec;
  readonly mayDial: DialPolicy;
  /** A connection to what a stream asks for; rejects with the reason that the other end is told. */
  readonly open: (proto: string, address: string, signal: AbortSignal) => Promise<Duplex>;
  /** A server announces or is told of clients: see relay. */
  readonly onSession?: (session: Session | undefined) => void;
  /** The way to the server is there, or has been lost: said on every change. */
  readonly onLink?: (isThere: boolean) => void;
  readonly dial?: (dial: BareDial, signal: AbortSignal) => Promise<BareWebSocketAnswer>;
}

export interface TunnelClient extends Service {
  readonly isConnected: boolean;
  /** Somebody knows that the server is back: no pause before the next attempt. */
  hurry(): void;
}

/** How long motes keep a session that has lost its connection. */
export const bridgeMs = 30_000;
/**
 * Of TLS and HTTP; k3s's. Twice as long after each that was too short: a server that is starved or hangs has to answer what was
 * given up as well as what is waited for.
 */
const handshakeTimeoutMs = 10_000;
const mostHandshakeTimeoutMs = 30_000;
/** Time for a slow path. */
const connectTimeoutMs = 5000;
/** Between attempts to connect, where bytes cost money, or nobody has answered for a minute; else as `connectPatiently` has it. */
const meteredAgainMs = 2000;
const rare = { afterMs: 60_000, againMs: 500 } as const;
/**
 * While a session waits; while nobody is there at all, which costs nobody anything; and while somebody answers and does not take
 * us, or bytes cost money.
 */
const pauses = {
  waiting: { minMs: 100, maxMs: 500 },
  absent: { minMs: 250, maxMs: 500 },
  /** A session waits, and whoever is there does not take it: a thousand nodes must not keep a server from coming up. */
  busy: { minMs: 250, maxMs: 4000 },
  refused: { minMs: 500, maxMs: 15_000 },
} as const;
/** Upstream's, for what a stream asks for. */
const openTimeoutMs = 60_000;

/** Half of it for certain and the rest by chance; doubled with every attempt. */
export function pauseBefore(attempt: number, why: keyof typeof pauses, random: Random): number {
  const { minMs, maxMs } = pauses[why];
  const wholeMs = Math.min(maxMs, minMs * 2 ** Math.min(attempt, 16));
  return wholeMs * (0.5 + random.float() / 2);
}

export function createTunnelClient(options: TunnelClientOptions, deps: TunnelClientDeps): TunnelClient {
  const { clock, random, log } = deps;
  const dial = deps.dial ?? dialBareWebSocket;
  const wanted: Keepalive = options.isMetered ? keepalives.metered : keepalives.swift;
  const server = `${options.host}:${options.port}`;
  let session: Session | undefined;
  /** Since when nobody has answered. */
  let absentSinceMs: number | undefined;
  /** One that ended with what came beside the answer is none any more, though its socket may still be there. */
  const isConnected = () => session?.isAttached ?? false;
  let handshakeMs = handshakeTimeoutMs;
  const isRare = () => absentSinceMs !== undefined && clock.monotonicMs() - absentSinceMs >= rare.afterMs;

  /** One attempt: resolves when the connection it made is gone. */
  const connectOnce = async (signal: AbortSignal): Promise<void> => {
    const waiting = session;
    const answer = await dial(
      {
        ...{ host: options.host, port: options.port, path: connectPath, tls: options.tls() },
        headers: {
          ...options.headers,
          [moteHeader]: formatHello({
            from: waiting?.wanted ?? 0,
            ...wanted,
            ...(waiting ? { session: waiting.token } : {}),
            ...(options.of === undefined ? {} : { of: options.of }),
          }),
        },
        connectTimeoutMs,
        ...(options.isMetered ? { againMs: meteredAgainMs } : isRare() ? { againMs: rare.againMs } : {}),
        timeoutMs: handshakeMs,
      },
      signal,
    );
    if (signal.aborted) {
      // It came to stand in the moment in which it was given up.
      answer.socket.destroy();
      throw signal.reason;
    }
    const way: Way = { handshakeMs: answer.handshakeMs, reach: options.isMetered ? undefined : answer.reach };
    const hello = parseHello(answer.headers[moteHeader]);
    let lost = () => {};
    const isLost = new Promise<void>((resolve) => {
      lost = resolve;
    });
    if (waiting && hello?.session === waiting.token) {
      if (!waiting.canResume(hello.from)) {
        // It went on with something that has ended here.
        answer.socket.destroy();
        waiting.end("it was away for too long");
        return;
      }
      stopBridge();
      onLost = lost;
      log.info("tunnel: goes on", { server });
      waiting.attach(answer.socket, answer.head, hello.from, way);
      linked(isConnected());
    } else {
      waiting?.end("the server does not know it any more");
      // Not before: the end of the one must not be taken for that of the other.
      onLost = lost;
      const begun = begin(hello?.session);
      session = begun;
      log.info("tunnel: connected", { server, mote: hello !== undefined });
      deps.onSession?.(begun);
      begun.attach(answer.socket, answer.head, 0, way);
      linked(isConnected());
    }
    await isLost;
  };

  let endPause = () => {};
  /** Until `hurry` or the signal. */
  const pauseFor = async (ms: number, signal: AbortSignal): Promise<void> => {
    const over = new AbortController();
    endPause = () => over.abort();
    signal.addEventListener("abort", endPause, { once: true });
    await pause(clock, ms, over.signal);
    signal.removeEventListener("abort", endPause);
    endPause = () => {};
  };

  let onLost = () => {};
  let stopBridge = () => {};
  let isLinked = false;
  const linked = (isThere: boolean) => {
    if (isLinked === isThere) return;
    isLinked = isThere;
    deps.onLink?.(isThere);
  };

  const begin = (token: string | undefined): Session => {
    const isMote = token !== undefined;
    const keepalive = isMote ? wanted : options.isMetered ? keepalives.meteredK3s : keepalives.k3s;
    const begun: Session = new Session(
      { peer: server, isDialer: true, isMote, keepalive },
      deps,
      {
        connect: (stream) => void serve(stream),
        detached() {
          log.info("tunnel: lost, waiting for it", { server });
          linked(false);
          stopBridge();
          stopBridge = clock.after(bridgeMs, () => begun.end("it was away for too long"));
          onLost();
        },
        over(reason) {
          stopBridge();
          log.info("tunnel: ended", { server, reason });
          if (session !== begun) return;
          session = undefined;
          deps.onSession?.(undefined);
          linked(false);
          onLost();
        },
      },
      token,
    );
    return begun;
  };

  const serve = async (stream: TunnelStream): Promise<void> => {
    const slash = stream.target.indexOf("/");
    const [proto, address] = [stream.target.slice(0, Math.max(slash, 0)), stream.target.slice(slash + 1)];
    const gone = new AbortController();
    // Whoever reads or writes the stream is told too.
    stream.on("error", () => gone.abort(new Error("the stream has ended")));
    stream.once("close", () => gone.abort(new Error("the stream has ended")));
    try {
      // k3s ends the whole tunnel here; only this stream is at fault.
      if (!deps.mayDial(proto, address)) throw new Error("connect not allowed");
      const cancel = clock.after(openTimeoutMs, () => gone.abort(new Error("i/o timeout")));
      try {
        const socket = await deps.open(proto, address, gone.signal);
        // The other end is told why, and not only that.
        socket.once("error", (error: Error) => stream.destroy(error));
        if (stream.destroyed) socket.destroy();
        else void tunnel({ socket: stream, head: nothing }, { socket, head: nothing });
      } finally {
        cancel();
      }
    } catch (error) {
      log.debug("tunnel: a stream was refused", { server, target: stream.target, error: messageOf(error) });
      stream.destroy(error instanceof Error ? error : new Error(messageOf(error)));
    }
  };

  return {
    name: `tunnel to ${server}`,
    get isConnected() {
      return isConnected();
    },
    hurry: () => endPause(),
    async run(signal, ready) {
      // The node works without.
      ready();
      let attempt = 0;
      let isAbsent = false;
      let hasAnswered = false;
      const problem = createRepeatedProblem(clock);
      while (!signal.aborted) {
        const stop = () => session?.close();
        const startedMs = clock.monotonicMs();
        /** Of an attempt that came to nothing: its pause has been had. */
        let triedMs = 0;
        try {
          signal.addEventListener("abort", stop, { once: true });
          await connectOnce(signal);
          // One that stood for a moment only does not make the next attempt fresh.
          const wasMute = session?.wasMute === true;
          const isFresh = !wasMute && (clock.monotonicMs() - startedMs > 2000 || session !== undefined);
          attempt = isFresh ? 0 : attempt + 1;
          if (isFresh) problem.isOver();
          isAbsent = false;
          absentSinceMs = undefined;
          // It takes connections and does not come to more.
          hasAnswered = wasMute;
          handshakeMs = handshakeTimeoutMs;
        } catch (error) {
          if (signal.aborted) break;
          attempt++;
          triedMs = clock.monotonicMs() - startedMs;
          const details = hasCode(error, "WEBSOCKET_DIAL") ? (error as AppError).details : {};
          isAbsent = details["isConnected"] === false;
          absentSinceMs = isAbsent ? (absentSinceMs ?? startedMs) : undefined;
          hasAnswered = details["isConnected"] === true;
          const wasShort = hasAnswered && details["status"] === undefined && triedMs >= handshakeMs;
          handshakeMs = wasShort ? Math.min(mostHandshakeTimeoutMs, handshakeMs * 2) : handshakeTimeoutMs;
          const fields = { server, error: messageOf(error), attempt };
          if (problem.isNews(fields.error)) log.warn("tunnel: cannot connect", fields);
          else log.debug("tunnel: cannot connect", fields);
          if (!hasCode(error, "WEBSOCKET_DIAL")) log.error("tunnel: failed", fields);
        } finally {
          signal.removeEventListener("abort", stop);
        }
        if (signal.aborted) break;
        const why = session
          ? hasAnswered
            ? "busy"
            : "waiting"
          : isAbsent && !options.isMetered
            ? "absent"
            : "refused";
        const pauseMs = pauseBefore(attempt, why, random);
        const isOwed = why === "refused" || why === "busy";
        await pauseFor(isOwed ? pauseMs : Math.max(0, pauseMs - triedMs), signal);
      }
      session?.close();
    },
  };
}

const nothing = new Uint8Array(0);
