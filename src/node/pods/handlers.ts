// One try of a probe or lifecycle handler: exec in the container, HTTP, TCP or gRPC to the pod. Answers are values;
// nothing here throws for a handler that fails. Bodies and output are bounded: they end up in events.
import type { Clock } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Container, ExecAction, GRPCAction, HTTPGetAction, TCPSocketAction } from "#model/gen/core-v1.ts";
import { tryConnect } from "#platform/dial.ts";
import { createGrpcClient } from "#platform/grpc-client.ts";
import { createHttpClient } from "#platform/http-client.ts";
import { isGrpcError } from "#wire/grpc.ts";
import type { Cri } from "../cri.ts";

export interface Handler {
  readonly exec?: ExecAction;
  readonly httpGet?: HTTPGetAction;
  readonly tcpSocket?: TCPSocketAction;
  readonly grpc?: GRPCAction;
  readonly sleep?: { readonly seconds: number };
}

export interface HandlerTarget {
  readonly containerId: string;
  readonly container: Container;
  /** The pod's address, or the node's for pods in the host's network. */
  readonly ip: string;
}

export interface HandlerResult {
  readonly ok: boolean;
  readonly output: string;
}

export interface HandlerDeps {
  readonly cri: Cri;
  readonly clock: Clock;
  readonly version: string;
}

const maxOutputBytes = 10 * 1024;
const maxRedirects = 10;

export async function runHandler(
  handler: Handler,
  target: HandlerTarget,
  timeoutSeconds: number,
  deps: HandlerDeps,
  signal?: AbortSignal,
): Promise<HandlerResult> {
  try {
    if (handler.exec) return await runExec(handler.exec.command ?? [], target, timeoutSeconds, deps, signal);
    if (handler.httpGet) return await runHttp(handler.httpGet, target, timeoutSeconds, deps, signal);
    if (handler.tcpSocket) {
      const port = portOf(handler.tcpSocket.port, target.container);
      try {
        await tryConnect({ host: handler.tcpSocket.host || target.ip, port, timeoutMs: timeoutSeconds * 1000 });
      } catch (error) {
        return { ok: false, output: dialText(error) };
      }
      return { ok: true, output: "" };
    }
    if (handler.grpc) return await runGrpc(handler.grpc, target, timeoutSeconds);
    if (handler.sleep) {
      await deps.clock.sleep(handler.sleep.seconds * 1000, signal);
      return { ok: true, output: "" };
    }
    return { ok: false, output: "missing probe handler" };
  } catch (error) {
    return { ok: false, output: messageOf(error) };
  }
}

async function runExec(
  command: readonly string[],
  target: HandlerTarget,
  timeoutSeconds: number,
  deps: HandlerDeps,
  signal: AbortSignal | undefined,
): Promise<HandlerResult> {
  try {
    const result = await deps.cri.execSync(target.containerId, command, timeoutSeconds, signal);
    const output = Buffer.concat([result.stdout, result.stderr]).toString("utf8").slice(0, maxOutputBytes);
    return { ok: result.exitCode === 0, output };
  } catch (error) {
    if (isGrpcError(error, "DEADLINE_EXCEEDED")) {
      return { ok: false, output: `command timed out: "${command.join(" ")}" timed out after ${timeoutSeconds}s` };
    }
    throw error;
  }
}

async function runHttp(
  action: HTTPGetAction,
  target: HandlerTarget,
  timeoutSeconds: number,
  deps: HandlerDeps,
  signal: AbortSignal | undefined,
): Promise<HandlerResult> {
  const scheme = (action.scheme ?? "HTTP").toLowerCase();
  const host = action.host || target.ip;
  const path = action.path ?? "/";
  let url = new URL(
    `${scheme}://${host.includes(":") ? `[${host}]` : host}:${portOf(action.port, target.container)}${path.startsWith("/") ? path : `/${path}`}`,
  );
  const first = url;
  const headers: Record<string, string> = {
    "user-agent": `kube-probe/${deps.version.split(".").slice(0, 2).join(".").slice(1)}`,
    accept: "*/*",
  };
  for (const header of action.httpHeaders ?? []) {
    const name = header.name.toLowerCase();
    if (header.value === "" && (name === "user-agent" || name === "accept")) delete headers[name];
    else headers[name] = header.value;
  }
  for (let hop = 0; hop <= maxRedirects; hop++) {
    const client = createHttpClient({ baseUrl: url.origin, insecureSkipTlsVerify: true });
    const limit = new AbortController();
    const stop = () => limit.abort(signal?.reason);
    signal?.addEventListener("abort", stop, { once: true });
    const cancel = deps.clock.after(timeoutSeconds * 1000, () =>
      limit.abort(
        new Error(`Get "${first}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)`),
      ),
    );
    try {
      const response = await client.send(
        { method: "GET", path: `${url.pathname}${url.search}`, headers, idleTimeoutMs: timeoutSeconds * 1000 + 1000 },
        limit.signal,
      );
      const location = response.headers["location"];
      response.destroy();
      if (response.status >= 300 && response.status < 400 && typeof location === "string") {
        const next = new URL(location, url);
        // Elsewhere is not this container's business: upstream counts it as success with a warning.
        if (next.hostname !== first.hostname) return { ok: true, output: "Probe terminated redirects" };
        url = next;
        continue;
      }
      const ok = response.status >= 200 && response.status < 400;
      return { ok, output: ok ? "" : `HTTP probe failed with statuscode: ${response.status}` };
    } catch (error) {
      if (limit.signal.aborted) throw limit.signal.reason;
      if (hasCode(error, "HTTP_TIMEOUT")) throw new Error(`Get "${first}": context deadline exceeded`);
      throw new Error(`Get "${first}": ${dialText(error)}`);
    } finally {
      cancel();
      signal?.removeEventListener("abort", stop);
      client.close();
    }
  }
  return { ok: false, output: `Get "${first}": stopped after ${maxRedirects} redirects` };
}

const healthStatuses = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"] as const;

/** Key and length of a length-delimited protobuf field. */
function fieldHead(number: number, length: number): Buffer {
  const bytes = [(number << 3) | 2];
  for (; length > 0x7f; length >>>= 7) bytes.push((length & 0x7f) | 0x80);
  return Buffer.from([...bytes, length]);
}

/** grpc.health.v1: request {1 service}, response {1 status}, where 1 means SERVING. */
async function runGrpc(action: GRPCAction, target: HandlerTarget, timeoutSeconds: number): Promise<HandlerResult> {
  const client = createGrpcClient({
    target: { host: target.ip, port: action.port },
    connectTimeoutMs: timeoutSeconds * 1000,
  });
  try {
    const service = Buffer.from(action.service ?? "");
    const request = service.length === 0 ? Buffer.alloc(0) : Buffer.concat([fieldHead(1, service.length), service]);
    const answer = await client.unary("/grpc.health.v1.Health/Check", request, { timeoutMs: timeoutSeconds * 1000 });
    // A status of zero is left out on the wire.
    const status = answer[0] === 0x08 ? (answer[1] ?? 0) : 0;
    const ok = healthStatuses[status] === "SERVING";
    return { ok, output: ok ? "" : `service unhealthy (responded with "${healthStatuses[status] ?? status}")` };
  } catch (error) {
    if (isGrpcError(error, "UNIMPLEMENTED")) {
      const said = messageOf(error);
      return {
        ok: false,
        output: `error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ${said}`,
      };
    }
    if (isGrpcError(error, "DEADLINE_EXCEEDED")) {
      return { ok: false, output: `timeout: health rpc did not complete within ${timeoutSeconds}s` };
    }
    return { ok: false, output: `error: health rpc probe failed: ${dialText(error)}` };
  } finally {
    client.close();
  }
}

/** Node's words for what a connection came to, in those that people know from events. */
function dialText(error: unknown): string {
  const text = messageOf(error);
  const match = /connect (ECONNREFUSED|EHOSTUNREACH|ENETUNREACH) (\S+)/.exec(text);
  if (!match) return text;
  const reasons: Readonly<Record<string, string>> = {
    ECONNREFUSED: "connection refused",
    EHOSTUNREACH: "no route to host",
    ENETUNREACH: "network is unreachable",
  };
  return `dial tcp ${match[2]}: connect: ${reasons[match[1]!]}`;
}

/** A number, or the name of one of the container's ports. */
function portOf(port: string | number | undefined, container: Container): number {
  const number = Number(port);
  if (Number.isInteger(number) && number > 0 && number < 65536) return number;
  const named = container.ports?.find((p) => p.name === port);
  if (!named) throw new Error(`couldn't find port: ${port}`);
  return named.containerPort;
}
