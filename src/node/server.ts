// The node's own API on port 10250: what the API server asks a node for when somebody wants logs, a shell, a forwarded
// port or numbers. Invariant: nothing but /healthz answers before the client certificate was verified and allowed.
// Errors are plain text, as the kubelet's are; the API server turns them into Status objects.
// Upstream counterpart: pkg/kubelet/server/server.go.

import type { Clock } from "#base/clock.ts";
import { withEither } from "#base/either-signal.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import {
  type HttpsServer,
  openHttpsServer,
  type RequestHeaders,
  type ServerRequest,
  type ServerResponse,
  type ServerUpgrade,
  type TlsMaterial,
} from "#platform/https-server.ts";
import {
  negotiate,
  portForwardWebsocketProtocols,
  tunnelledPortForwardProtocol,
  websocketProtocols,
} from "#wire/remote-command.ts";
import { type NodeCredentials, type NodeUser, subresourceOf } from "./access.ts";
import type { ContainerLookup, PodLookup } from "./lookup.ts";
import { logRefusal } from "./server/log-refusal.ts";
import type { NodeStats } from "./stats/service.ts";
import {
  bridgeCommand,
  bridgePortForward,
  passSpdy,
  passTunnelledSpdy,
  type WantedStreams,
} from "./streams/container-streams.ts";
import { type LogQuery, readLog } from "./streams/log-reader.ts";

export interface NodeServerOptions {
  /** Address to listen on; default 0.0.0.0. */
  readonly host?: string;
  /** 10250; 0 for any free port. */
  readonly port: number;
  /** Asked at each start and after each renewal. */
  readonly tls: () => TlsMaterial;
  /** What /configz shows under `kubeletconfig`. */
  readonly configuration?: Readonly<Record<string, unknown>>;
}

export interface NodeServerDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly lookup: PodLookup;
  /** Who presents this certificate (the API server's authenticator fits); undefined or a rejection: 401. */
  authenticate(credentials: NodeCredentials): Promise<NodeUser | undefined>;
  /** Default: members of system:masters, which the API server's own client is. */
  authorize?(user: NodeUser, verb: string, path: string): Promise<boolean>;
  /** Prometheus text for /metrics. */
  metrics?(): string;
  /** For /stats/summary, /metrics/resource and /metrics/cadvisor; undefined: 503 until the agent runs. */
  stats?(): NodeStats | undefined;
  /** Calls `use` whenever there is another certificate, until the returned function is called. */
  onNewTls?(use: () => void): () => void;
  /** Called with the port once it is open, before `ready`. */
  listening?(server: { readonly host: string; readonly port: number }): void;
}

/** How long running streams may go on after the service was asked to stop. */
const stopGraceMs = 2000;
/** Short commands of /run; longer ones are what exec is for. */
const runTimeoutSeconds = 60;
const streamVerbs: ReadonlySet<string> = new Set(["exec", "attach", "portForward"]);

export function createNodeServer(options: NodeServerOptions, deps: NodeServerDeps): Service {
  return {
    name: "node-server",
    async run(signal, ready) {
      const stopping = new AbortController();
      const server: HttpsServer = await openHttpsServer(
        { host: options.host ?? "0.0.0.0", port: options.port, tls: options.tls(), log: deps.log },
        {
          request: (request, response) => answer(request, response, options, deps, stopping.signal),
          upgrade: (upgrade) => answerUpgrade(upgrade, deps),
        },
      );
      const stopRenewing = deps.onNewTls?.(() => server.setTls(options.tls()));
      try {
        deps.listening?.({ host: server.host, port: server.port });
        ready();
        await untilAborted(signal);
      } finally {
        stopRenewing?.();
        stopping.abort(new AppError("NODE_SERVER_STOP", "the node server is stopping"));
        await server.close(stopGraceMs);
      }
    },
  };
}

/** Plain text with a status: how this API says no. */
class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const text = { "content-type": "text/plain; charset=utf-8" };
const json = { "content-type": "application/json" };

async function answer(
  request: ServerRequest,
  response: ServerResponse,
  options: NodeServerOptions,
  deps: NodeServerDeps,
  stopping: AbortSignal,
): Promise<void> {
  try {
    const { segments, query, path } = partsOf(request.target);
    if (segments.length === 1 && segments[0] === "healthz") {
      response.head(200, text);
      response.end("ok");
      return;
    }
    await admit(request, path, deps);
    await route(segments, query, request, response, options, deps, stopping);
  } catch (error) {
    if (response.headSent) {
      response.destroy();
      return;
    }
    const { status, message } = refusalOf(error);
    if (status >= 500) deps.log.warn("node API request failed", { path: request.target.split("?")[0], error: message });
    response.head(status, text);
    response.end(message);
  }
}

async function route(
  segments: readonly string[],
  query: URLSearchParams,
  request: ServerRequest,
  response: ServerResponse,
  options: NodeServerOptions,
  deps: NodeServerDeps,
  stopping: AbortSignal,
): Promise<void> {
  const [first = "", namespace = "", pod = "", container = ""] = segments;
  const isRead = request.method === "GET" || request.method === "HEAD";
  if (first === "containerLogs" && segments.length === 4) {
    if (!isRead) throw new Refusal(405, "405: Method Not Allowed");
    await sendLogs(namespace, pod, container, query, request, response, deps, stopping);
  } else if (first === "run" && segments.length === 4 && request.method === "POST") {
    const found = containerOf(namespace, pod, container, deps);
    const command = (query.get("cmd") ?? "").split(" ").filter((word) => word !== "");
    const result = await deps.lookup.runtime.execSync(found.containerId, command, runTimeoutSeconds);
    response.head(result.exitCode === 0 ? 200 : 500, text);
    response.write(result.stdout);
    response.end(result.stderr);
  } else if (segments.length === 1 && isRead && (first === "pods" || first === "runningpods")) {
    response.head(200, json);
    response.end(JSON.stringify({ kind: "PodList", apiVersion: "v1", metadata: {}, items: deps.lookup.pods() }));
  } else if (segments.length === 1 && isRead && first === "metrics" && deps.metrics) {
    const claims = await claimFigures(deps);
    response.head(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
    response.end(deps.metrics() + claims);
  } else if (segments.length === 1 && isRead && first === "configz") {
    response.head(200, json);
    response.end(JSON.stringify({ kubeletconfig: options.configuration ?? {} }));
  } else if (segments.join("/") === "stats/summary" && isRead && deps.stats) {
    const summary = await statsOf(deps).summary(flag(query, "only_cpu_and_memory"));
    response.head(200, json);
    response.end(JSON.stringify(summary));
  } else if (first === "metrics" && segments.length === 2 && isRead && deps.stats && isStatsMetric(namespace)) {
    const stats = statsOf(deps);
    const body = await statsMetrics[namespace]!(stats);
    response.head(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
    response.end(body);
  } else if (first === "checkpoint") {
    throw new Refusal(404, "checkpointing of containers is not supported by this node");
  } else if (streamVerbs.has(first)) {
    throw new Refusal(400, "you must specify at least 1 of stdin, stdout, stderr, and upgrade the connection");
  } else {
    throw new Refusal(404, "404 page not found");
  }
}

async function sendLogs(
  namespace: string,
  pod: string,
  container: string,
  query: URLSearchParams,
  request: ServerRequest,
  response: ServerResponse,
  deps: NodeServerDeps,
  stopping: AbortSignal,
): Promise<void> {
  const isPrevious = flag(query, "previous");
  const logQuery = logQueryOf(query, deps.clock);
  const object = deps.lookup.pods().find((p) => p.metadata.namespace === namespace && p.metadata.name === pod);
  if (!object) throw new Refusal(404, `pod "${pod}" does not exist`);
  const refusal = logRefusal(object, container, isPrevious);
  if (refusal !== undefined) throw new Refusal(400, refusal);
  const found = deps.lookup.container(namespace, pod, container);
  const path = found?.logPath(isPrevious);
  if (!found || path === undefined) {
    throw new Refusal(
      400,
      isPrevious
        ? `previous terminated container "${container}" in pod "${pod}" not found`
        : `container "${container}" in pod "${pod}" is not available`,
    );
  }
  const isRunning = () => {
    const now = deps.lookup.container(namespace, pod, container);
    return now?.containerId === found.containerId && now.state !== "exited";
  };
  await withEither([request.signal, stopping], async (over) => {
    const pieces = readLog({ path, isRunning }, { ...logQuery, follow: logQuery.follow && !isPrevious }, deps, over);
    // Without following, the head waits for the first piece, so that a missing file is still an error.
    const first = logQuery.follow ? undefined : await pieces.next();
    response.head(200, text);
    response.flushHead();
    if (first && !first.done) response.write(first.value);
    if (!first?.done) {
      for await (const piece of pieces) {
        if (!response.write(piece)) await response.drained();
      }
    }
    response.end();
  });
}

async function answerUpgrade(upgrade: ServerUpgrade, deps: NodeServerDeps): Promise<void> {
  const { request, socket } = upgrade;
  try {
    const { segments, query, path } = partsOf(request.target);
    await admit(request, path, deps);
    await routeUpgrade(segments, query, upgrade, deps);
  } catch (error) {
    const { status, message } = refusalOf(error);
    deps.log.debug("stream refused", { path: request.target.split("?")[0], status, error: message });
    if (socket.destroyed || !socket.writable) return;
    const body = Buffer.from(message);
    socket.end(
      `HTTP/1.1 ${status} ${status < 500 ? "Refused" : "Failed"}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${message}`,
    );
  }
}

async function routeUpgrade(
  segments: readonly string[],
  query: URLSearchParams,
  upgrade: ServerUpgrade,
  deps: NodeServerDeps,
): Promise<void> {
  const [verb = "", namespace = "", pod = ""] = segments;
  const { headers } = upgrade.request;
  const isWebSocket = listed(headers, "upgrade").includes("websocket");
  const isSpdy = listed(headers, "upgrade").some((value) => value.startsWith("spdy/"));
  if (!isWebSocket && !isSpdy) throw new Refusal(400, `unable to upgrade: unexpected protocol in the Upgrade header`);
  const offered = headers["sec-websocket-protocol"];
  const { runtime } = deps.lookup;

  // The kubelet's paths also exist with the pod's UID before the container.
  if (verb === "portForward" && (segments.length === 3 || segments.length === 4)) {
    const sandbox = deps.lookup.sandbox(namespace, pod);
    if (!sandbox || (segments[3] !== undefined && segments[3] !== sandbox.podUid)) {
      throw new Refusal(404, `pod does not exist`);
    }
    const ports = query
      .getAll("port")
      .concat(query.getAll("ports"))
      .flatMap((value) => value.split(","))
      .map(portOf);
    const url = await runtime.portForward({ podSandboxId: sandbox.sandboxId, ports });
    if (isSpdy) await passSpdy(upgrade, url);
    else if (negotiate(offered, [tunnelledPortForwardProtocol])) await passTunnelledSpdy(upgrade, url);
    else {
      if (ports.length === 0) throw new Refusal(400, `query parameter "port" is required`);
      if (ports.length > 100) throw new Refusal(400, "too many ports");
      await bridgePortForward(upgrade, negotiate(offered, portForwardWebsocketProtocols) ?? "", url, ports, deps);
    }
    return;
  }
  if ((verb === "exec" || verb === "attach") && (segments.length === 4 || segments.length === 5)) {
    const found = containerOf(namespace, pod, segments.at(-1)!, deps);
    if (segments.length === 5 && segments[3] !== found.podUid) throw new Refusal(404, "pod does not exist");
    const wanted: WantedStreams = {
      stdin: flag(query, "input") || flag(query, "stdin"),
      stdout: flag(query, "output") || flag(query, "stdout"),
      stderr: flag(query, "error") || flag(query, "stderr"),
      tty: flag(query, "tty"),
    };
    if (!wanted.stdin && !wanted.stdout && !wanted.stderr) {
      throw new Refusal(400, "you must specify at least 1 of stdin, stdout, stderr");
    }
    // Who offers nothing speaks the oldest.
    const protocol = isWebSocket && offered !== undefined ? negotiate(offered, websocketProtocols) : "";
    if (protocol === undefined) throw new Refusal(400, `unsupported WebSocket subprotocols: ${String(offered)}`);
    if (found.state !== "running") throw new Refusal(500, `container not found ("${segments.at(-1)}")`);
    // A terminal has one output: the runtime refuses stderr beside it.
    const streams = { ...wanted, stderr: wanted.stderr && !wanted.tty, containerId: found.containerId };
    const command = query.getAll("command");
    if (verb === "exec" && command.length === 0) throw new Refusal(400, "you must provide at least 1 command");
    const url = verb === "exec" ? await runtime.exec({ ...streams, command }) : await runtime.attach(streams);
    if (isSpdy) await passSpdy(upgrade, url);
    else await bridgeCommand(upgrade, protocol, url, wanted, deps);
    return;
  }
  throw new Refusal(404, "404 page not found");
}

const statsMetrics: Readonly<Record<string, (stats: NodeStats) => Promise<string> | string>> = {
  resource: (stats) => stats.resource(),
  cadvisor: (stats) => stats.cadvisor(),
  probes: (stats) => stats.probes(),
};
const isStatsMetric = (name: string): boolean => Object.hasOwn(statsMetrics, name);

/** They take the container runtime; while it is away, the process's own figures are wanted all the more. */
async function claimFigures(deps: NodeServerDeps): Promise<string> {
  try {
    return (await deps.stats?.()?.claims()) ?? "";
  } catch (error) {
    deps.log.warn("there are no figures of claims now", { error: messageOf(error) });
    return "";
  }
}

function statsOf(deps: NodeServerDeps): NodeStats {
  const stats = deps.stats?.();
  if (!stats) throw new Refusal(503, "the node agent is starting");
  return stats;
}

/** Who may go on. */
async function admit(request: ServerRequest, path: string, deps: NodeServerDeps): Promise<void> {
  const { clientCertificate } = request;
  const bearerToken = /^Bearer (\S+)$/.exec(String(request.headers["authorization"] ?? ""))?.[1];
  const clientIntermediates = () => request.clientIntermediates?.() ?? [];
  const credentials = { clientCertificate, clientIntermediates, bearerToken };
  // A refusal and a failure to ask look alike to a stranger; the log has the difference.
  const unknown = (error: unknown) => {
    deps.log.debug("who asks the node API is not known", { error: messageOf(error) });
    return undefined;
  };
  const user = clientCertificate || bearerToken ? await deps.authenticate(credentials).catch(unknown) : undefined;
  if (!user) throw new Refusal(401, "Unauthorized");
  const verb = request.method === "GET" || request.method === "HEAD" ? "get" : "create";
  const isAllowed = deps.authorize ? await deps.authorize(user, verb, path) : user.groups.includes("system:masters");
  if (!isAllowed)
    throw new Refusal(
      403,
      `Forbidden (user=${user.name}, verb=${verb}, resource=nodes, subresource=${subresourceOf(path)})`,
    );
}

function containerOf(namespace: string, pod: string, container: string, deps: NodeServerDeps): ContainerLookup {
  const found = deps.lookup.container(namespace, pod, container);
  if (found) return found;
  const isKnown = deps.lookup.pods().some((p) => p.metadata.namespace === namespace && p.metadata.name === pod);
  throw isKnown ? new Refusal(500, `container not found ("${container}")`) : new Refusal(404, "pod does not exist");
}

function logQueryOf(query: URLSearchParams, clock: Clock): LogQuery {
  const number = (name: string, minimum: number): number | undefined => {
    const value = query.get(name);
    if (value === null || value === "") return undefined;
    const parsed = Number(value);
    if (!Number.isSafeInteger(parsed) || parsed < minimum) {
      throw new Refusal(400, `invalid ${name}: ${JSON.stringify(value)}: must be an integer of at least ${minimum}`);
    }
    return parsed;
  };
  const sinceSeconds = number("sinceSeconds", 1);
  const sinceTime = query.get("sinceTime");
  const sinceTimeMs = sinceTime === null || sinceTime === "" ? undefined : Date.parse(sinceTime);
  if (sinceTimeMs !== undefined && Number.isNaN(sinceTimeMs)) {
    throw new Refusal(400, `invalid sinceTime: ${JSON.stringify(sinceTime)}`);
  }
  return {
    follow: flag(query, "follow"),
    timestamps: flag(query, "timestamps"),
    tailLines: number("tailLines", 0),
    limitBytes: number("limitBytes", 1),
    sinceMs: sinceSeconds === undefined ? sinceTimeMs : clock.now() - sinceSeconds * 1000,
  };
}

function partsOf(target: string): { segments: string[]; query: URLSearchParams; path: string } {
  const at = target.indexOf("?");
  const path = at < 0 ? target : target.slice(0, at);
  try {
    const segments = path
      .split("/")
      .filter((segment) => segment !== "")
      .map(decodeURIComponent);
    return { segments, path, query: new URLSearchParams(at < 0 ? "" : target.slice(at + 1)) };
  } catch {
    throw new Refusal(400, "malformed path");
  }
}

/** As Go's strconv.ParseBool reads them; kubelet itself sends 1. */
const flag = (query: URLSearchParams, name: string): boolean =>
  ["1", "t", "T", "TRUE", "true", "True"].includes(query.get(name) ?? "");

function portOf(value: string): number {
  const port = Number(value);
  if (!Number.isInteger(port) || port < 1 || port > 65535)
    throw new Refusal(400, `invalid port: ${JSON.stringify(value)}`);
  return port;
}

const listed = (headers: RequestHeaders, name: string): string[] =>
  String(headers[name] ?? "")
    .split(",")
    .map((value) => value.trim().toLowerCase());

function refusalOf(error: unknown): { status: number; message: string } {
  if (error instanceof Refusal) return { status: error.status, message: error.message };
  if (hasCode(error, "NODE_LOG_MISSING")) return { status: 404, message: messageOf(error) };
  return { status: 500, message: messageOf(error) };
}
