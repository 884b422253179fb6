// pods/proxy and services/proxy: requests of any method, and upgrades, passed on to a pod or to one of a service's pods, by
// plain HTTP or by TLS that is not checked (pods have certificates of nobody). Bytes stream both ways. The path that leads
// here is not the server's own, so redirects and links of pages get it in front; what the client showed to the API server
// stays here. Addresses that mean this machine are never dialled.
// Upstream counterparts: registry/core/{pod,service} ResourceLocation, util/proxy.UpgradeAwareHandler.
import type { Duplex } from "node:stream";
import { Readable } from "node:stream";
import { createGunzip, createInflate } from "node:zlib";
import type { Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { EndpointAddress, Endpoints, Pod, Service } from "#model/gen/core-v1.ts";
import { badRequest, serviceUnavailable } from "#model/status.ts";
import type { RequestHeaders } from "#platform/https-server.ts";
import { tunnel } from "#platform/tunnel.ts";
import { isUpgraded, openUpgrade, type PlainAnswer } from "#platform/upgrade-client.ts";
import type { Connector, ConnectRequest } from "./connect.ts";
import { withoutBearer } from "./connect.ts";
import { type LinkContext, LinkRewriter, rewriteLink } from "./html-links.ts";

export interface BackendProxyDeps {
  readonly log: Logger;
  readonly random: Random;
  /** Each rejects with ApiError 404 when there is none. */
  getPod(namespace: string, name: string): Promise<Pod>;
  getService(namespace: string, name: string): Promise<Service>;
  getEndpoints(namespace: string, name: string): Promise<Endpoints>;
  /** Default: openUpgrade. */
  readonly dial?: typeof openUpgrade;
}

interface Backend {
  readonly scheme: "http" | "https";
  readonly host: string;
  readonly port: number;
}

/** Connecting only: what the server behind takes for its answer is its own business. */
const connectTimeoutMs = 30_000;

/** Of this connection and not of the message (RFC 9110, 7.6.1), and the frames of HTTP/2. */
const hopHeaders = new Set([
  "connection",
  "proxy-connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
  "expect",
]);
/** Who the client is to the API server is nobody else's to know. */
const ownHeaders = /^(?:authorization|impersonate-.*|x-remote-.*|:.*)$/;
const bodiless = new Set(["GET", "HEAD"]);

export function createBackendProxy(deps: BackendProxyDeps): Connector {
  const dial = deps.dial ?? openUpgrade;

  const ask = async (request: ConnectRequest, headers: Record<string, string | readonly string[]>) => {
    const backend = await locate(request, deps);
    const { host, port, scheme } = backend;
    const to = { host, port, ...(scheme === "https" ? { tls: { isUnchecked: true as const } } : {}) };
    try {
      const answer = await dial(
        to,
        {
          method: request.method,
          target: `${request.rest || "/"}${request.search}`,
          headers,
          ...(hasBody(request) ? { body: request.body } : {}),
          timeoutMs: connectTimeoutMs,
          timeoutOf: "connection",
        },
        request.signal,
      );
      return { answer, links: linksOf(request, backend) };
    } catch (error) {
      if (request.signal.aborted) throw error;
      throw serviceUnavailable(`error trying to reach service: ${messageOf(error)}`);
    }
  };

  return {
    async handle(request, response) {
      if (request.rest === "" && bodiless.has(request.method)) {
        // What is not there is told of at once, as upstream does.
        await locate(request, deps);
        // Relative links of the page would lead beside it.
        response.head(301, { location: `${prefixOf(request)}/${request.search}` });
        response.end();
        return;
      }
      const { answer, links } = await ask(request, forwarded(request, []));
      if (isUpgraded(answer)) {
        answer.socket.destroy();
        throw serviceUnavailable("error trying to reach service: it switched protocols without being asked");
      }
      const { headers, body } = adapted(answer, links);
      response.head(answer.status, headers);
      response.flushHead();
      try {
        for await (const chunk of body) {
          if (request.signal.aborted) return;
          if (!response.write(chunk)) await response.drained();
        }
        response.end();
      } catch (error) {
        deps.log.debug("a proxied answer broke off", { name: request.name, error: messageOf(error) });
        // The client must see that this is not the end of it.
        response.destroy();
      }
    },

    async upgrade(request, upgrade) {
      const { answer, links } = await ask(request, forwarded(request, ["connection", "upgrade"]));
      const { socket } = upgrade;
      if (!isUpgraded(answer)) {
        await answerPlainly(socket, answer, links);
        return;
      }
      if (socket.destroyed) {
        answer.socket.destroy();
        return;
      }
      socket.write(headText(101, "Switching Protocols", answer.headers));
      const counts = await tunnel({ socket, head: upgrade.head }, { socket: answer.socket, head: answer.head });
      deps.log.debug("proxied stream ended", { name: request.name, ...counts });
    },
  };
}

/** HTTP/2 need not say that a body follows: there those methods have one that usually do. */
function hasBody({ method, headers }: ConnectRequest): boolean {
  if (bodiless.has(method)) return false;
  const size = headers["content-length"];
  return headers["transfer-encoding"] !== undefined || (size === undefined ? /^P/.test(method) : size !== "0");
}

const prefixOf = ({ namespace, resource, name }: ConnectRequest): string =>
  `/api/v1/namespaces/${namespace}/${resource}/${name}/proxy`;

const linksOf = (request: ConnectRequest, { host, port }: Backend): LinkContext => ({
  prefix: prefixOf(request),
  backendHost: authority(host, port),
  requestHost: String(request.headers["host"] ?? request.headers[":authority"] ?? ""),
});

const authority = (host: string, port: number): string => `${host.includes(":") ? `[${host}]` : host}:${port}`;

/** `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`; undefined for anything else. */
export function parseBackendName(
  text: string,
): { readonly scheme: "http" | "https"; readonly name: string; readonly port: string } | undefined {
  const parts = text.split(":");
  const [scheme = "", name = "", port = ""] = parts.length === 3 ? parts : ["", ...parts];
  if (parts.length > 3 || name === "" || !["", "http", "https"].includes(scheme)) return undefined;
  return { scheme: scheme === "https" ? "https" : "http", name, port };
}

async function locate(request: ConnectRequest, deps: BackendProxyDeps): Promise<Backend> {
  const { resource, namespace } = request;
  const wanted = parseBackendName(request.name);
  if (!wanted) throw badRequest(`invalid ${resource.replace(/s$/, "")} request ${JSON.stringify(request.name)}`);
  const { host, port } =
    resource === "pods"
      ? podAddress(await deps.getPod(namespace, wanted.name), wanted.port)
      : await serviceAddress(namespace, wanted.name, wanted.port, deps);
  if (!isProxyable(host)) throw badRequest("address not allowed");
  return { scheme: wanted.scheme, host, port: port ?? (wanted.scheme === "https" ? 443 : 80) };
}

/** Without a port the first that any container names. */
function podAddress(pod: Pod, asked: string): { readonly host: string; readonly port: number | undefined } {
  const host = pod.status?.podIP ?? "";
  if (host === "") throw serviceUnavailable(`pod ${JSON.stringify(pod.metadata.name)} has no address`);
  const first = (pod.spec.containers ?? []).flatMap((c) => c.ports ?? [])[0]?.containerPort;
  const port = asked === "" ? first : Number(asked);
  if (port !== undefined && !(Number.isInteger(port) && port > 0 && port < 65536)) {
    throw badRequest(`invalid port ${JSON.stringify(asked)}`);
  }
  return { host, port };
}

/** One of the service's pods that are ready, at random. A port is asked for by its name or by the service's number. */
async function serviceAddress(
  namespace: string,
  name: string,
  asked: string,
  deps: BackendProxyDeps,
): Promise<{ readonly host: string; readonly port: number }> {
  let portName = asked;
  if (/^\d+$/.test(asked)) {
    const service = await deps.getService(namespace, name);
    const found = service.spec.ports?.find((port) => port.port === Number(asked));
    if (!found) throw serviceUnavailable(`no service port ${asked} found for service ${JSON.stringify(name)}`);
    portName = found.name ?? "";
  }
  const { subsets = [] } = await deps.getEndpoints(namespace, name);
  const choices = subsets.flatMap((subset) =>
    (subset.ports ?? [])
      .filter((port) => (port.name ?? "") === portName)
      .flatMap(({ port }) => (subset.addresses ?? []).map((address) => ({ address, port }))),
  );
  for (let left = choices.length; left > 0; left--) {
    const at = Math.floor(deps.random.float() * left);
    const { address, port } = choices[at]!;
    if (await isOfPod(namespace, address, deps)) return { host: address.ip, port };
    choices[at] = choices[left - 1]!;
  }
  throw serviceUnavailable(`no endpoints available for service ${JSON.stringify(name)}`);
}

/** Endpoints can be written by hand; only addresses that a pod really has are dialled in the API server's name. */
async function isOfPod(
  namespace: string,
  { ip, targetRef }: EndpointAddress,
  deps: BackendProxyDeps,
): Promise<boolean> {
  if (targetRef?.kind !== "Pod" || !targetRef.name || (targetRef.namespace ?? namespace) !== namespace) return false;
  try {
    const pod = await deps.getPod(namespace, targetRef.name);
    return (pod.status?.podIPs ?? [{ ip: pod.status?.podIP ?? "" }]).some((one) => one.ip === ip);
  } catch (error) {
    deps.log.debug("an endpoint's pod is not there", { pod: targetRef.name, error: messageOf(error) });
    return false;
  }
}

/** Not this machine itself, nor what only its own link knows: a pod may write its status. */
export function isProxyable(ip: string): boolean {
  const address = ip.toLowerCase().replace(/^::ffff:(?=\d+\.)/, "");
  if (/^(?:127\.|169\.254\.|0\.|22[4-9]\.|23\d\.)/.test(address)) return false;
  return !/^(?:::1?$|fe[89ab]|ff)/.test(address);
}

function forwarded(request: ConnectRequest, kept: readonly string[]): Record<string, string | readonly string[]> {
  const named = String(request.headers["connection"] ?? "")
    .split(",")
    .map((name) => name.trim().toLowerCase());
  const out: Record<string, string | readonly string[]> = {};
  for (const [name, value] of Object.entries(request.headers)) {
    if (value === undefined || ownHeaders.test(name)) continue;
    if (!kept.includes(name) && (hopHeaders.has(name) || named.includes(name))) continue;
    out[name] = value;
  }
  const protocols = withoutBearer(request.headers["sec-websocket-protocol"]);
  if (protocols !== undefined) out["sec-websocket-protocol"] = protocols;
  else delete out["sec-websocket-protocol"];
  out["host"] ??= String(request.headers[":authority"] ?? "");
  out["x-forwarded-uri"] = `${prefixOf(request)}${request.rest}`;
  return out;
}

type Headers = Readonly<Record<string, string | readonly string[] | undefined>>;

/** The answer as it has to look behind the proxy's path. */
function adapted(
  answer: PlainAnswer,
  links: LinkContext,
): { readonly headers: Headers; readonly body: AsyncIterable<Uint8Array> } {
  const headers: Record<string, string | readonly string[] | undefined> = {};
  const own = String(answer.headers["connection"] ?? "").toLowerCase();
  for (const [name, value] of Object.entries(answer.headers)) {
    if (!hopHeaders.has(name) && !own.split(/\s*,\s*/).includes(name)) headers[name] = value;
  }
  const { location } = answer.headers;
  if (typeof location === "string") {
    headers["location"] = rewriteLink(location, links);
    return { headers, body: answer.body };
  }
  const type = String(answer.headers["content-type"] ?? "").split(";")[0]!;
  const encoding = String(answer.headers["content-encoding"] ?? "").toLowerCase();
  const readable = ["", "identity", "gzip", "deflate"].includes(encoding);
  if (type.trim().toLowerCase() !== "text/html" || !readable) return { headers, body: answer.body };
  delete headers["content-length"];
  delete headers["content-encoding"];
  return { headers, body: rewritten(decoded(answer.body, encoding), links) };
}

function decoded(body: AsyncIterable<Uint8Array>, encoding: string): AsyncIterable<Uint8Array> {
  if (encoding !== "gzip" && encoding !== "deflate") return body;
  const source = Readable.from(body, { objectMode: false });
  const decoder = encoding === "gzip" ? createGunzip() : createInflate();
  source.on("error", (error) => decoder.destroy(error));
  decoder.on("close", () => source.destroy());
  return source.pipe(decoder);
}

async function* rewritten(body: AsyncIterable<Uint8Array>, links: LinkContext): AsyncGenerator<Uint8Array> {
  const rewriter = new LinkRewriter(links);
  for await (const chunk of body) {
    const text = rewriter.write(Buffer.from(chunk).toString("latin1"));
    if (text !== "") yield Buffer.from(text, "latin1");
  }
  const rest = rewriter.end();
  if (rest !== "") yield Buffer.from(rest, "latin1");
}

function headText(status: number, reason: string, headers: Headers | RequestHeaders): string {
  let head = `HTTP/1.1 ${status} ${reason}\r\n`;
  for (const [name, value] of Object.entries(headers)) {
    for (const one of typeof value === "object" ? value : value === undefined ? [] : [value]) {
      head += `${name}: ${one}\r\n`;
    }
  }
  return `${head}\r\n`;
}

/** An upgrade that the server behind did not want: its answer, and the end. */
async function answerPlainly(socket: Duplex, answer: PlainAnswer, links: LinkContext): Promise<void> {
  const { headers, body } = adapted(answer, links);
  socket.write(headText(answer.status, "Refused", { ...headers, connection: "close" }));
  for await (const chunk of body) {
    if (socket.destroyed) return;
    if (!socket.write(chunk))
      await new Promise<void>((resolve) => void socket.once("drain", resolve).once("close", resolve));
  }
  socket.end();
}
