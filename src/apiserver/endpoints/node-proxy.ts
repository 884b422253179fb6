// pods/log, pods/exec, pods/attach, pods/portforward and nodes/proxy: found out which node is meant, then everything
// goes through the dialer to that node's API. Upgrades pass byte by byte, so WebSocket and SPDY are the node's business;
// redirects are never followed, and when one side ends the other is closed.
// Upstream counterparts: registry/core/pod/rest, strategy.LogLocation and friends, util/proxy.UpgradeAwareHandler.
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import {
  ApiError,
  badRequest,
  type FieldError,
  fieldForbidden,
  fieldInvalid,
  internalError,
  invalid,
  methodNotAllowed,
} from "#model/status.ts";
import type { ServerResponse, ServerUpgrade } from "#platform/https-server.ts";
import { tunnel } from "#platform/tunnel.ts";
import { acceptWebSocket } from "#platform/websocket.ts";
import { isBase64, negotiate, readerProtocols } from "#wire/remote-command.ts";
import type { NodeDialer, NodeRequest, NodeResponse } from "../node-dialer.ts";
import { type Connector, type ConnectRequest, withoutBearer } from "./connect.ts";

export interface NodeProxyDeps {
  readonly dialer: NodeDialer;
  readonly log: Logger;
  /** Rejects with ApiError 404 when there is none. */
  getPod(namespace: string, name: string): Promise<Pod>;
}

/** What a node says about a refusal; longer texts are cut. */
const maxErrorBytes = 2048;
/** Bodies for nodes/proxy: /run and the like take none worth speaking of. */
const maxBodyBytes = 1024 * 1024;

export function createNodeProxy(deps: NodeProxyDeps): Connector {
  return {
    async handle(request, response) {
      const to = await locate(request, deps);
      if (!to) {
        // A pod that no node has taken yet has an empty log.
        response.head(200, { "content-type": "text/plain" });
        response.end();
        return;
      }
      const body = request.method === "GET" || request.method === "HEAD" ? undefined : await collect(request.body);
      const answer = await deps.dialer.request(
        to.node,
        {
          method: request.method as NodeRequest["method"],
          target: to.target,
          headers: forwarded(request, ["accept", "accept-encoding", "content-type"]),
          ...(body ? { body } : {}),
        },
        request.signal,
      );
      if (request.resource === "pods" && answer.status >= 400) throw await refusalOf(answer, to.node);
      await copy(request, answer, response);
    },

    async upgrade(request, upgrade) {
      const to = await locate(request, deps);
      if (request.subresource === "log") {
        await sendLog(request, upgrade, to, deps);
        return;
      }
      if (!to) throw badRequest(`pod ${request.name} does not have a host assigned`);
      const answer = await deps.dialer.upgrade(
        to.node,
        {
          method: request.method as NodeRequest["method"],
          target: to.target,
          headers: forwarded(request, upgradeHeaders),
        },
        request.signal,
      );
      if (!("socket" in answer)) throw await refusalOf(answer, to.node);
      if (upgrade.socket.destroyed) {
        answer.socket.destroy();
        return;
      }
      upgrade.socket.write(headOf(answer.headers));
      const counts = await tunnel(
        { socket: upgrade.socket, head: upgrade.head },
        { socket: answer.socket, head: answer.head },
      );
      deps.log.debug("stream ended", { pod: request.name, subresource: request.subresource, ...counts });
    },
  };
}

/** A log for a client that cannot read a body as it comes: its pieces as messages, after an empty one that says it stands. */
async function sendLog(
  request: ConnectRequest,
  upgrade: ServerUpgrade,
  to: Destination | undefined,
  deps: NodeProxyDeps,
): Promise<void> {
  if (String(request.headers["upgrade"] ?? "").toLowerCase() !== "websocket") {
    throw badRequest("a log can be upgraded to WebSocket only");
  }
  const offered = withoutBearer(request.headers["sec-websocket-protocol"]);
  const protocol = offered === undefined ? "" : negotiate(offered, readerProtocols);
  if (protocol === undefined) throw badRequest(`unsupported WebSocket subprotocols: ${offered}`);
  const left = new AbortController();
  const { signal } = left;
  const stop = () => left.abort(request.signal.reason);
  request.signal.addEventListener("abort", stop, { once: true });
  if (request.signal.aborted) stop();
  const answer = to && (await deps.dialer.request(to.node, { method: "GET", target: to.target, headers: {} }, signal));
  if (answer && answer.status >= 400) throw await refusalOf(answer, to.node);
  await new Promise<void>((resolve) => {
    acceptWebSocket(upgrade, protocol, (peer) => {
      let wake = () => {};
      const pump = async () => {
        peer.send(new Uint8Array(0));
        for await (const chunk of answer?.body ?? []) {
          const message = isBase64(protocol) ? Buffer.from(chunk).toString("base64") : chunk;
          if (!peer.send(message) && !signal.aborted) {
            await new Promise<void>((drained) => {
              wake = drained;
            });
          }
          if (signal.aborted) return;
        }
        peer.close(1000);
      };
      pump().catch((error: unknown) => {
        // The node went away in the middle: the client must see that this is not the end of the log.
        if (!signal.aborted) deps.log.debug("a log broke off", { pod: request.name, error: messageOf(error) });
        peer.destroy();
      });
      return {
        message() {},
        drain: () => wake(),
        close() {
          left.abort(new Error("the client has gone"));
          wake();
          resolve();
        },
      };
    });
  });
}

interface Destination {
  readonly node: string;
  /** Path and query on the node's API. */
  readonly target: string;
}

/** Where the request goes; undefined for the log of a pod without a node. */
async function locate(request: ConnectRequest, deps: NodeProxyDeps): Promise<Destination | undefined> {
  const { resource, subresource, query } = request;
  if (resource === "nodes" && subresource === "proxy") {
    return { node: request.name, target: `${request.rest || "/"}${request.search}` };
  }
  if (subresource === "log" && request.method !== "GET") {
    throw methodNotAllowed(`${request.method} is not supported on resources of kind "pods/log"`);
  }
  const pod = await deps.getPod(request.namespace, request.name);
  const node = pod.spec.nodeName ?? "";
  const podPath = `${encodeURIComponent(request.namespace)}/${encodeURIComponent(request.name)}`;
  const out = new URLSearchParams();
  switch (subresource) {
    case "log": {
      checkLogOptions(request.name, query);
      const container = containerName(pod, query.get("container") ?? "");
      if (node === "") return undefined;
      for (const name of ["follow", "previous", "timestamps"]) if (isTrue(query.get(name))) out.set(name, "true");
      for (const name of ["sinceSeconds", "sinceTime", "tailLines", "limitBytes"]) {
        const value = query.get(name);
        if (value) out.set(name, value);
      }
      return { node, target: `/containerLogs/${podPath}/${encodeURIComponent(container)}?${out.toString()}` };
    }
    case "exec":
    case "attach": {
      const container = containerName(pod, query.get("container") ?? "");
      if (node === "") throw badRequest(`pod ${request.name} does not have a host assigned`);
      // The defaults of PodExecOptions and PodAttachOptions: output yes, input no.
      if (isTrue(query.get("stdin"))) out.set("input", "1");
      if (isTrue(query.get("stdout") ?? (subresource === "attach" ? "true" : null))) out.set("output", "1");
      if (isTrue(query.get("stderr") ?? (subresource === "attach" ? "true" : null))) out.set("error", "1");
      if (isTrue(query.get("tty"))) out.set("tty", "1");
      if (subresource === "exec") for (const word of query.getAll("command")) out.append("command", word);
      return { node, target: `/${subresource}/${podPath}/${encodeURIComponent(container)}?${out.toString()}` };
    }
    case "portforward": {
      if (node === "") throw badRequest(`pod ${request.name} does not have a host assigned`);
      for (const port of query.getAll("ports").flatMap((value) => value.split(","))) out.append("port", port);
      return { node, target: `/portForward/${podPath}?${out.toString()}` };
    }
    default:
      throw new ApiError(501, "NotImplemented", `the server does not know pods/${subresource}`);
  }
}

/** The container that is meant; without a name there must be only one to choose. */
export function containerName(pod: Pod, asked: string): string {
  const names = (containers: readonly { readonly name: string }[] | undefined) => (containers ?? []).map((c) => c.name);
  const regular = names(pod.spec.containers);
  const init = names(pod.spec.initContainers);
  const ephemeral = names(pod.spec.ephemeralContainers);
  const podName = pod.metadata.name ?? "";
  if (asked !== "") {
    if ([...regular, ...init, ...ephemeral].includes(asked)) return asked;
    throw badRequest(`container ${asked} is not valid for pod ${podName}`);
  }
  if (regular.length === 1) return regular[0]!;
  if (regular.length === 0) throw badRequest(`a container name must be specified for pod ${podName}`);
  let message = `a container name must be specified for pod ${podName}, choose one of: [${regular.join(" ")}]`;
  if (init.length > 0) message += ` or one of the init containers: [${init.join(" ")}]`;
  if (ephemeral.length > 0) message += ` or one of the ephemeral containers: [${ephemeral.join(" ")}]`;
  throw badRequest(message);
}

function checkLogOptions(podName: string, query: URLSearchParams): void {
  const errors: FieldError[] = [];
  const numbers = [
    { field: "tailLines", minimum: 0, detail: "must be greater than or equal to 0" },
    { field: "limitBytes", minimum: 1, detail: "must be greater than 0" },
    { field: "sinceSeconds", minimum: 1, detail: "must be greater than 0" },
  ];
  for (const { field, minimum, detail } of numbers) {
    const value = query.get(field);
    if (value === null || value === "") continue;
    if (!/^[+-]?\d+$/.test(value))
      throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`);
    if (Number(value) < minimum) errors.push(fieldInvalid(field, Number(value), detail));
  }
  if (query.get("sinceSeconds") && query.get("sinceTime")) {
    errors.push(fieldForbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
  }
  const time = query.get("sinceTime");
  if (time && Number.isNaN(Date.parse(time))) throw badRequest(`parsing time ${JSON.stringify(time)}: not RFC 3339`);
  if (errors.length > 0) throw invalid("", "PodLogOptions", podName, errors);
}

/** A node's plain-text refusal as upstream hands it on. */
async function refusalOf(answer: NodeResponse, node: string): Promise<ApiError> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of answer.body) {
    parts.push(part);
    size += part.length;
    if (size >= maxErrorBytes) break;
  }
  const message = Buffer.concat(parts).toString("utf8", 0, Math.min(size, maxErrorBytes)).trim();
  switch (answer.status) {
    case 400:
      return badRequest(message);
    case 401:
    case 403:
      // It is the API server that the node refused, not the client.
      return internalError(`node ${node} refused the API server's credentials: ${message}`);
    case 404:
      return new ApiError(404, "NotFound", `the server could not find the requested resource: ${message}`, {});
    default:
      return internalError(message === "" ? `node ${node} answered ${answer.status}` : message);
  }
}

async function copy(request: ConnectRequest, answer: NodeResponse, response: ServerResponse): Promise<void> {
  const type = answer.headers["content-type"];
  const isLog = request.subresource === "log";
  response.head(answer.status, {
    "content-type": isLog ? "text/plain" : typeof type === "string" ? type : "application/octet-stream",
    ...(typeof answer.headers["content-encoding"] === "string"
      ? { "content-encoding": answer.headers["content-encoding"] }
      : {}),
  });
  // Whoever follows a silent log sees at once that the connection stands.
  response.flushHead();
  try {
    for await (const chunk of answer.body) {
      if (request.signal.aborted) return;
      if (!response.write(chunk)) await response.drained();
    }
    response.end();
  } catch {
    // The node went away in the middle: the client must see that this is not the end of the log.
    response.destroy();
  }
}

const upgradeHeaders = [
  "connection",
  "upgrade",
  "sec-websocket-key",
  "sec-websocket-version",
  "sec-websocket-protocol",
  "x-stream-protocol-version",
];

/** Only what the node must see: credentials and forwarding headers stay here. */
function forwarded(request: ConnectRequest, names: readonly string[]): Record<string, string> {
  const out: Record<string, string> = {};
  for (const name of names) {
    const value = request.headers[name];
    if (value !== undefined) out[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  const protocols = withoutBearer(out["sec-websocket-protocol"]);
  if (protocols !== undefined) out["sec-websocket-protocol"] = protocols;
  else delete out["sec-websocket-protocol"];
  return out;
}

function headOf(headers: NodeResponse["headers"]): string {
  let head = "HTTP/1.1 101 Switching Protocols\r\n";
  for (const [name, value] of Object.entries(headers)) {
    for (const one of Array.isArray(value) ? value : value === undefined ? [] : [value]) head += `${name}: ${one}\r\n`;
  }
  return `${head}\r\n`;
}

async function collect(body: AsyncIterable<Uint8Array>): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body) {
    size += part.length;
    if (size > maxBodyBytes) throw badRequest(`body is larger than ${maxBodyBytes} bytes`);
    parts.push(part);
  }
  return size === 0 ? undefined : Buffer.concat(parts);
}

const isTrue = (value: string | null): boolean =>
  value !== null && ["1", "t", "T", "TRUE", "true", "True"].includes(value);
