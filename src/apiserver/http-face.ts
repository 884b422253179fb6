// HTTP in front of the handler: who asks (authentication, impersonation), bounds (bodies, flow control, time),
// and the answer in the representation the client wants. Whatever goes wrong becomes a Status; nothing is thrown out.
// Upstream counterpart: the filters of DefaultBuildHandlerChain.
import { randomUUID } from "node:crypto";
import { AppError, messageOf } from "#base/errors.ts";
import type { Counter, Gauge, Histogram } from "#base/metrics.ts";
import { untilAborted } from "#base/service.ts";
import {
  ApiError,
  badRequest,
  isApiError,
  methodNotAllowed,
  requestTooLarge,
  timeout,
  unauthorized,
} from "#model/status.ts";
import type { HttpsHandlers, ServerRequest, ServerResponse, ServerUpgrade } from "#platform/https-server.ts";
import { recordAnswer } from "./audit/answer.ts";
import type { AuditRecord } from "./audit/record.ts";
import { AuditedResponse, onFirstStatus } from "./audit/response.ts";
import { anonymous, type UserInfo } from "./authn/user.ts";
import type { ConnectRequest } from "./endpoints/connect.ts";
import { parseRequest, type RequestInfo } from "./endpoints/request-info.ts";
import type { HandlerRequest, Result } from "./endpoints/result.ts";
import { type Exchange, one, type WriteDeps, writeError, writeResult } from "./endpoints/write.ts";
import type { FlowControl, Seat } from "./flow-control/flow-control.ts";
import { RequestWidths } from "./flow-control/width.ts";
import { type Handler, isLongRunning as isLongRunningRequest, isOpenPath, isStream, withSuperuser } from "./handler.ts";
import { impersonate } from "./impersonation.ts";
import type { ApiServerDeps, ApiServerOptions } from "./options.ts";
import { Pace } from "./pace.ts";
import { toApiError } from "./registry/errors.ts";

/** Upstream's limit of a request body. */
const maxBodyBytes = 3 * 1024 * 1024;
/** All warnings of one answer together, as upstream; some clients take no more than 16 KiB of headers. */
const maxWarningChars = 4096;
/** Of requests that are no watch and no stream; upstream's. */
export const requestTimeoutMs = 60_000;
const methods = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]);
/** Asks what a server can: what is behind a proxy may know it. */
const isOptionsOfProxy = (method: string, info: RequestInfo | undefined): boolean =>
  method === "OPTIONS" && info !== undefined && isStream(info) && info.subresource === "proxy";

export function createHttpFace(
  options: ApiServerOptions,
  deps: ApiServerDeps,
  handler: Handler,
  flowControl: FlowControl,
  write: WriteDeps,
): HttpsHandlers {
  const meters = createMeters(deps);
  const inFlight = { read: 0, write: 0 };
  const widths = new RequestWidths();
  const pace = new Pace(deps);
  const timeoutMs = options.requestTimeoutMs ?? requestTimeoutMs;

  /** Streams hold no seat: they last, and cost what their node says. */
  const admit = (user: UserInfo, info: RequestInfo | undefined, exchange: OpenExchange): Seat | Promise<Seat> => {
    if (!info || isStream(info)) return freeSeat;
    return flowControl.admit(user, info, {
      width: widths.of(info, exchange.query),
      get signal() {
        return exchange.request.signal;
      },
      onClassified(schemaUid, levelUid) {
        exchange.flow = { schemaUid, levelUid };
      },
    });
  };
  const learn = (info: RequestInfo | undefined, { query }: Exchange, result: Result) => {
    const isSelected = query.has("labelSelector") || query.has("fieldSelector") || query.has("continue");
    if (!info || result.type !== "list" || isSelected) return;
    widths.learn(info, result.items.length + (result.more?.count ?? result.metadata.remainingItemCount ?? 0));
  };

  const serve = async (request: ServerRequest, response: ServerResponse): Promise<void> => {
    const startedAt = deps.clock.monotonicMs();
    const exchange = newExchange(request, response);
    const path = pathOf(request.target);
    let info: RequestInfo | undefined;
    let code = 200;
    try {
      info = parseRequest(request.method, path, exchange.query);
      if (!methods.has(request.method) && !isOptionsOfProxy(request.method, info)) {
        throw methodNotAllowed("the server does not allow this method on the requested resource");
      }
      const longRunning = info !== undefined && isLongRunningRequest(info);
      const kind = request.method === "GET" || request.method === "HEAD" ? "read" : "write";
      const work = async () => {
        const turn = pace.enter();
        if (turn) await turn;
        const user = await identify(deps, exchange, info);
        const seat = await admit(user, info, exchange);
        try {
          const result = await handler.handle(handlerRequest(exchange, path, user, info));
          if (exchange.audit) recordAnswer(exchange.audit, result);
          if (result.type === "connect") {
            const asked = connectRequest(request, exchange.query, result.info, user);
            await result.connector.handle(asked, exchange.response);
            return;
          }
          code = "status" in result ? result.status : 200;
          learn(info, exchange, result);
          // A watch that has begun costs next to nothing.
          if (result.type === "watch") seat.release();
          await writeResult(write, exchange, result);
        } finally {
          seat.release();
        }
      };
      if (longRunning) {
        meters.longRunning.add(1);
        try {
          await work();
        } finally {
          meters.longRunning.add(-1);
        }
      } else {
        meters.inFlight(kind, ++inFlight[kind]);
        try {
          await withDeadline(deps, timeoutMs, work);
        } finally {
          meters.inFlight(kind, --inFlight[kind]);
        }
      }
    } catch (thrown) {
      code = await fail(deps, write, exchange, thrown);
    }
    const kept = exchange.audit?.complete();
    if (kept) await kept;
    meters.done(info, request.method, code, deps.clock.monotonicMs() - startedAt);
  };

  return {
    request: serve,
    async upgrade(upgrade) {
      const { request } = upgrade;
      const exchange = newExchange(request, refusing(upgrade));
      try {
        const path = pathOf(request.target);
        const info = parseRequest(request.method, path, exchange.query);
        const user = await identify(deps, exchange, info);
        const result = await handler.handle(handlerRequest(exchange, path, user, info));
        if (result.type !== "connect") throw badRequest("this path cannot be upgraded");
        const { audit } = exchange;
        if (audit) onFirstStatus(upgrade.socket, (code) => audit.head(code));
        await result.connector.upgrade(connectRequest(request, exchange.query, result.info, user), upgrade);
        // It is over when the client has gone, whoever moves the bytes.
        if (audit) await untilAborted(request.signal);
      } catch (thrown) {
        await fail(deps, write, exchange, thrown);
      }
      await exchange.audit?.complete();
    },
  };
}

const freeSeat: Seat = { release() {} };

/** Writes the Status, or cuts an answer that has begun. The code, for the metrics. */
async function fail(deps: ApiServerDeps, write: WriteDeps, exchange: OpenExchange, thrown: unknown): Promise<number> {
  // The client has gone: there is nobody to tell.
  if (exchange.request.signal.aborted) return 499;
  const error = toApiError(thrown);
  const { audit } = exchange;
  if (thrown instanceof ApiError || thrown instanceof AppError) audit?.status(error.status);
  else audit?.panicked(thrown);
  if (error.code >= 500 && error.reason === "InternalError") {
    deps.log.error("request failed", {
      method: exchange.request.method,
      path: pathOf(exchange.request.target),
      error: thrown instanceof Error ? (thrown.stack ?? thrown.message) : messageOf(thrown),
    });
  }
  try {
    await writeError(write, exchange, error);
  } catch (again) {
    deps.log.error("cannot write the answer", { error: messageOf(again) });
    exchange.response.destroy();
  }
  return error.code;
}

/** As long as it is being worked on. */
type OpenExchange = Omit<Exchange, "response"> & {
  response: ServerResponse;
  readonly warnings: string[];
  flow?: { schemaUid: string; levelUid: string };
  audit?: AuditRecord;
};

function newExchange(request: ServerRequest, response: ServerResponse): OpenExchange {
  const mark = request.target.indexOf("?");
  return {
    request,
    response,
    query: new URLSearchParams(mark < 0 ? "" : request.target.slice(mark + 1)),
    auditId: auditIdOf(request),
    warnings: [],
  };
}

const auditIdOf = (request: ServerRequest): string => {
  const given = one(request.headers["audit-id"]);
  return given !== undefined && /^[\w-]{1,64}$/.test(given) ? given : randomUUID();
};

function searchOf(target: string): string {
  const mark = target.indexOf("?");
  return mark < 0 ? "" : target.slice(mark);
}

function pathOf(target: string): string {
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  // A proxy may send the absolute form.
  return path.startsWith("/") ? path : path.replace(/^https?:\/\/[^/]*/, "") || "/";
}

/** Who is to be answered, and the audit log told of who asks. */
async function identify(deps: ApiServerDeps, exchange: OpenExchange, info: RequestInfo | undefined): Promise<UserInfo> {
  const { request } = exchange;
  const { method, headers, target: uri, remoteAddress } = request;
  const isLongRunning = info !== undefined && isLongRunningRequest(info);
  const begin = (user: UserInfo | undefined) =>
    deps.audit?.begin({ auditId: exchange.auditId, info, method, user, uri, headers, remoteAddress, isLongRunning });
  let asker: UserInfo;
  try {
    asker = await authenticate(deps, request, info);
  } catch (error) {
    if (isApiError(error, "Unauthorized")) await begin(undefined)?.refused(triedBy(request));
    throw error;
  }
  const audit = begin(asker);
  if (audit) {
    exchange.audit = audit;
    exchange.response = new AuditedResponse(exchange.response, audit);
    const kept = audit.received();
    if (kept) await kept;
  }
  const user = await impersonate(asker, headers, withSuperuser(deps));
  if (user !== asker) audit?.actingAs(user);
  return user;
}

function triedBy(request: ServerRequest): string {
  const tried = [
    ...(bearerOf(request) === undefined ? [] : ["bearer"]),
    ...(request.clientCertificate === undefined ? [] : ["x509"]),
  ];
  return tried.length === 0
    ? "Authentication failed, no credentials provided"
    : `Authentication failed, attempted: ${tried.join(", ")}`;
}

const bearerOf = (request: ServerRequest): string | undefined =>
  /^Bearer +(\S+) *$/i.exec(one(request.headers["authorization"]) ?? "")?.[1] ?? webSocketToken(request);

async function authenticate(
  deps: ApiServerDeps,
  request: ServerRequest,
  info: RequestInfo | undefined,
): Promise<UserInfo> {
  const { clientCertificate } = request;
  const clientIntermediates = clientCertificate && (() => request.clientIntermediates?.() ?? []);
  const bearer = bearerOf(request);
  let user: UserInfo | undefined;
  if (clientCertificate !== undefined || bearer !== undefined) {
    for (const authenticator of deps.authenticators) {
      user = await authenticator.authenticate({ clientCertificate, clientIntermediates, bearerToken: bearer });
      if (user) break;
    }
    // A certificate nobody knows is as good as none; a token nobody knows is a mistake.
    if (!user && bearer !== undefined) throw unauthorized();
  }
  if (!user) {
    // Anonymous is for health and version alone.
    if (!info || info.isResource || !isOpenPath(info.path)) throw unauthorized();
    return anonymous;
  }
  if (!user.groups.includes("system:authenticated"))
    user = { ...user, groups: [...user.groups, "system:authenticated"] };
  return user;
}

/** Browsers cannot set headers on a WebSocket: the token comes as a subprotocol. */
function webSocketToken(request: ServerRequest): string | undefined {
  const protocols = one(request.headers["sec-websocket-protocol"]);
  const match = protocols && /(?:^|, *)base64url\.bearer\.authorization\.k8s\.io\.([\w-]+)(?:,|$)/.exec(protocols);
  return match ? Buffer.from(match[1]!, "base64url").toString("utf8") : undefined;
}

function handlerRequest(
  exchange: OpenExchange,
  path: string,
  user: UserInfo,
  info: RequestInfo | undefined,
): HandlerRequest {
  const { request, audit } = exchange;
  return {
    audit,
    method: request.method,
    path,
    query: exchange.query,
    header: (name) => one(request.headers[name]),
    user,
    get signal() {
      return request.signal;
    },
    async body() {
      const bytes = await readBody(request);
      if (info?.verb === "patch") audit?.requestPatch(bytes, one(request.headers["content-type"]));
      return bytes;
    },
    warn(message) {
      // A header holds printable ASCII only, and what is warned of may come from the client.
      const text = message.replace(/[^\x20-\x7e]/g, "?").slice(0, maxWarningChars);
      const used = exchange.warnings.reduce((sum, each) => sum + each.length, 0);
      if (used + text.length <= maxWarningChars && !exchange.warnings.includes(text)) exchange.warnings.push(text);
    },
  };
}

async function readBody(request: ServerRequest): Promise<Uint8Array> {
  const announced = Number(one(request.headers["content-length"]) ?? "0");
  if (announced > maxBodyBytes) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body) {
    size += chunk.length;
    if (size > maxBodyBytes) throw tooLarge();
    chunks.push(chunk);
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}

const tooLarge = (): ApiError => requestTooLarge(`Request entity too large: limit is ${maxBodyBytes}`);

function connectRequest(
  request: ServerRequest,
  query: URLSearchParams,
  info: RequestInfo,
  user: UserInfo,
): ConnectRequest {
  return {
    method: request.method,
    resource: info.resource,
    subresource: info.subresource,
    namespace: info.namespace,
    name: info.name,
    rest: info.rest,
    query,
    search: searchOf(request.target),
    headers: request.headers,
    user,
    body: request.body,
    get signal() {
      return request.signal;
    },
  };
}

/** Rejects with 504 when `work` takes too long; what it still does goes on and its answer is dropped. */
async function withDeadline(deps: ApiServerDeps, ms: number, work: () => Promise<void>): Promise<void> {
  let cancel = () => {};
  const late = new Promise<never>((_resolve, reject) => {
    cancel = deps.clock.after(ms, () => reject(timeout("request did not complete within the allotted timeout")));
  });
  try {
    await Promise.race([work(), late]);
  } finally {
    cancel();
  }
}

/** The response face of an upgrade that is refused: an ordinary HTTP/1.1 answer on the socket, then the end. */
function refusing(upgrade: ServerUpgrade): ServerResponse {
  const { socket } = upgrade;
  let headSent = false;
  return {
    get headSent() {
      return headSent;
    },
    head(status, headers) {
      headSent = true;
      let text = `HTTP/1.1 ${status} ${reasons[status] ?? "Error"}\r\n`;
      for (const [name, value] of Object.entries(headers)) {
        for (const each of typeof value === "object" ? value : value === undefined ? [] : [value])
          text += `${name}: ${each}\r\n`;
      }
      socket.write(`${text}connection: close\r\n\r\n`);
    },
    flushHead() {},
    write: (chunk) => socket.write(chunk),
    get pendingBytes() {
      return socket.writableLength;
    },
    async drained() {},
    end(chunk) {
      if (chunk === undefined) socket.end();
      else socket.end(chunk);
    },
    destroy: () => void socket.destroy(),
  };
}

const reasons: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  500: "Internal Server Error",
  503: "Service Unavailable",
  504: "Gateway Timeout",
};

interface Meters {
  inFlight(kind: "read" | "write", count: number): void;
  readonly longRunning: { add(change: number): void };
  done(info: RequestInfo | undefined, method: string, code: number, ms: number): void;
}

function createMeters(deps: ApiServerDeps): Meters {
  const total: Counter = deps.metrics.counter("apiserver_request_total", "Requests by verb, resource and code.");
  const seconds: Histogram = deps.metrics.histogram(
    "apiserver_request_duration_seconds",
    "Time to answer, by verb.",
    [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  );
  const running: Gauge = deps.metrics.gauge("apiserver_longrunning_requests", "Watches and streams that are open.");
  const inFlight: Gauge = deps.metrics.gauge("apiserver_current_inflight_requests", "Requests being handled, by kind.");
  let open = 0;
  return {
    inFlight: (kind, count) => inFlight.set(count, { request_kind: kind === "read" ? "readOnly" : "mutating" }),
    longRunning: {
      add(change) {
        open += change;
        running.set(open);
      },
    },
    done(info, method, code, ms) {
      const verb = info?.isResource ? info.verb.toUpperCase() : method;
      const resource = info?.isResource && code !== 404 ? info.resource : "";
      const group = info?.isResource && code !== 404 ? info.group : "";
      total.add(1, { verb, group, resource, code: String(code) });
      if (!info || !isLongRunningRequest(info)) seconds.observe(ms / 1000, { verb });
    },
  };
}
