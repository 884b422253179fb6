// Reaches a node's API over TLS: port from the Node object, the API server's client certificate, the server authority for the
// other side, and its name (node-identity.ts). The connection is the node's tunnel where there is one, else a plain one to its
// address. A node that is expected to come back in a moment is waited for: this server has just started, or the node has.
//
//   tunnel? ─no─▶ dial the address and look for a tunnel meanwhile ─▶ TLS ─▶ request
//      └──────────── cut before the request went out, and patience left ◀──┘
//
// Invariant: a request is sent once. Upstream counterpart: pkg/kubelet/client.
import { type Clock, pause } from "#base/clock.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { ApiError, serviceUnavailable, timeout } from "#model/status.ts";
import { openTcp } from "#platform/dial.ts";
import type { Duplex } from "#platform/https-server.ts";
import { isUpgraded, openUpgrade } from "#platform/upgrade-client.ts";
import type { NodeDialer, NodeRequest, NodeResponse, NodeStream } from "./node-dialer.ts";
import { nodeIdentityProblem } from "./node-identity.ts";

export interface DirectNodeDialerOptions {
  /** PEM: who may have signed the nodes' serving certificates. */
  readonly serverCaPem: string;
  /** PEM; asked for each connection, because it is renewed. */
  readonly client: () => { readonly certificate: string; readonly key: string };
  /** In this order the addresses of a node are tried for a match; default: InternalIP, ExternalIP, Hostname. */
  readonly addressTypes?: readonly string[];
}

export interface DirectNodeDialerDeps {
  readonly clock: Clock;
  /** The Node object; rejects with ApiError 404 when there is none. */
  getNode(name: string): Promise<Node>;
  /** An open connection to a node's API; undefined: there is none. Absent: none ever. */
  connect?: ((node: string, port: number) => Duplex | undefined) | undefined;
}

const defaultPort = 10250;
/** A node that does not even answer the head of a request within this time is taken for gone. */
const answerTimeoutMs = 30_000;
/** Upstream's, of a plain connection. */
const dialTimeoutMs = 30_000;
/** What people take for an answer that takes its time. Agents are back half a second after their server. */
const patienceMs = 5_000;
const lookMs = 100;
/** What becomes of connections whose other end is not there yet, or not any more. */
const cutCodes = /^(?:ECONN|EPIPE|EHOST|ENET|EADDRNOTAVAIL|ETIMEDOUT|TUNNEL_|DIAL_)/;

interface Way {
  readonly socket: Duplex;
  readonly isTunnel: boolean;
}

export function createDirectNodeDialer(options: DirectNodeDialerOptions, deps: DirectNodeDialerDeps): NodeDialer {
  const { clock } = deps;
  const types = options.addressTypes ?? ["InternalIP", "ExternalIP", "Hostname"];

  /** A plain connection, and a tunnel that comes meanwhile. Rejects with what is wrong with the plain one. */
  const tryWays = async (name: string, host: string, port: number, signal: AbortSignal): Promise<Way> => {
    const over = new AbortController();
    const settled = new AbortController();
    const stop = () => over.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    let plain: Duplex | undefined;
    let failure: unknown;
    const dialled = openTcp({ host, port, timeoutMs: dialTimeoutMs }, over.signal)
      .then(
        (socket) => {
          plain = socket;
          if (over.signal.aborted) socket.destroy();
        },
        (error: unknown) => {
          failure = error;
        },
      )
      .finally(() => settled.abort());
    try {
      while (!settled.signal.aborted) {
        await pause(clock, lookMs, settled.signal);
        const socket = settled.signal.aborted ? undefined : deps.connect?.(name, port);
        if (!socket) continue;
        over.abort(new Error("there is a tunnel"));
        return { socket, isTunnel: true };
      }
      await dialled;
      if (!plain) throw failure;
      return { socket: plain, isTunnel: false };
    } finally {
      signal.removeEventListener("abort", stop);
    }
  };

  const wayTo = async (name: string, host: string | undefined, port: number, signal: AbortSignal): Promise<Way> => {
    const socket = deps.connect?.(name, port);
    if (socket) return { socket, isTunnel: true };
    if (host === undefined) throw new AppError("DIAL_FAILED", `it has no address of type ${types.join(", ")}`);
    return tryWays(name, host, port, signal);
  };

  const dial = async (
    nodeName: string,
    request: NodeRequest,
    signal: AbortSignal,
  ): Promise<NodeStream | NodeResponse> => {
    const node = await deps.getNode(nodeName);
    const addresses = (node.status?.addresses ?? []).map(({ type, address }) => ({ type, address }));
    const host = types.map((type) => addresses.find((a) => a.type === type)?.address).find((address) => address);
    const port = node.status?.daemonEndpoints?.kubeletEndpoint?.Port || defaultPort;
    const identity = { name: nodeName, addresses: addresses.map(({ address }) => address) };
    const untilMs = clock.monotonicMs() + (isExpected(node) ? patienceMs : 0);
    for (;;) {
      try {
        const { socket, isTunnel } = await wayTo(nodeName, host, port, signal);
        // What ends it is told by whoever uses it.
        socket.on("error", () => {});
        if (socket.destroyed) throw new AppError("DIAL_FAILED", messageOf(socket.errored ?? "the connection was cut"));
        const { certificate: cert, key } = options.client();
        const answer = await openUpgrade(
          {
            ...{ host: host ?? nodeName, port, socket },
            tls: {
              ...{ ca: options.serverCaPem, cert, key },
              // A tunnel stands since the node has shown a certificate that is good now. The one that it serves with is renewed
              // in a moment where this machine's clock was set.
              trust: isTunnel ? "keys" : "dates",
              identity: (leaf) => nodeIdentityProblem(leaf, identity),
            },
          },
          { ...request, timeoutMs: answerTimeoutMs },
          signal,
        );
        return isUpgraded(answer) ? { ...answer, status: 101 } : answer;
      } catch (error) {
        if (error instanceof ApiError || signal.aborted) throw error;
        if (hasCode(error, "UPGRADE_TIMEOUT")) throw timeout(`node ${nodeName} did not answer`);
        if (!(error instanceof AppError)) throw error;
        if (!isCut(error) || clock.monotonicMs() >= untilMs) {
          throw serviceUnavailable(`error dialing backend: node ${nodeName}: ${messageOf(error)}`);
        }
      }
      await clock.sleep(lookMs, signal);
    }
  };

  return {
    async request(nodeName, request, signal) {
      const answer = await dial(nodeName, request, signal);
      if ("socket" in answer) {
        answer.socket.destroy();
        throw serviceUnavailable(`node ${nodeName} switched protocols without being asked`);
      }
      return answer;
    },
    upgrade: dial,
  };
}

/** Was heard of a moment ago, as far as is known here. */
function isExpected(node: Node): boolean {
  const ready = node.status?.conditions?.find(({ type }) => type === "Ready");
  return ready !== undefined && ready.status !== "Unknown";
}

/** Nobody has seen the request. */
function isCut(error: AppError): boolean {
  if (error.details["isConnected"] === true) return false;
  const { cause } = error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : error.code;
  return cutCodes.test(code);
}
