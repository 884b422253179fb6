// The server's side of joining: what nodes ask a server for before and while they are part of the cluster, on the API's
// port. A table of paths; nothing happens before authentication but handing out the authority's certificate and `pong`.
// Whoever has the token may join under a name that is free; the node's own password keeps the name (join/node-passwords.ts).
// Upstream counterpart: k3s pkg/server/router and handlers.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { InformerFactory } from "#client/informer.ts";
import { nodes, secrets } from "#model/resources.ts";
import { ApiError, badRequest, isApiError, isNotFound, methodNotAllowed, unauthorized } from "#model/status.ts";
import { isIp } from "#model/validation/names.ts";
import type { ServerRequest, ServerResponse } from "#platform/https-server.ts";
import { issueLeaf, type LeafName, leafNames, leaves } from "./join/leaves.ts";
import { NodePasswords, namespace, nodeOfSecret, secretName, secretType } from "./join/node-passwords.ts";
import { formatSettings, headers, prefix, type ServerSettings } from "./join/protocol.ts";
import type { Pki } from "./pki.ts";
import { parseToken, sameText } from "./tokens.ts";

export interface JoinServerOptions {
  readonly pki: () => Pki;
  /** Of the cluster's token; replaced by `mote token rotate`. */
  readonly password: string;
  /** Keeps a new one, before it counts. */
  readonly keepPassword: (password: string) => Promise<void>;
  /** The node of this server, whose name nobody else may take; undefined: it has none. */
  readonly ownNode: string | undefined;
  readonly settings: ServerSettings;
  /** HOST:PORT that nodes reach the API at. */
  readonly addresses: () => readonly string[];
}

interface JoinUser {
  readonly name: string;
  readonly groups: readonly string[];
}

export interface JoinServerDeps {
  /** By certificate or bearer token; undefined or a rejection: nobody. */
  readonly authenticate: (credentials: {
    readonly clientCertificate?: Uint8Array | undefined;
    readonly bearerToken?: string | undefined;
  }) => Promise<JoinUser | undefined>;
  /** As system:masters. */
  readonly client: () => Client;
  /** Before the API can be used, nodes are told to come back. */
  readonly isReady: () => boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface JoinServer {
  /** Undefined: not a path of this server. Never rejects. */
  handle(request: ServerRequest, response: ServerResponse): Promise<void> | undefined;
  /** Names of deleted nodes become free again while it runs. */
  service(informers: InformerFactory): Service;
}

interface Answer {
  readonly type: string;
  readonly body: string;
}

interface Route {
  readonly methods: readonly string[];
  readonly isOpen?: true;
  /** It may be asked before the API can be used. */
  readonly isEarly?: true;
  /** Only with the servers' password. */
  readonly isForServers?: true;
  answer(request: ServerRequest, user: JoinUser | undefined): Answer | Promise<Answer>;
}

/** k3s's bounds: who is refused comes again. */
const maxInFlight = { read: 20, write: 10 } as const;
/** A request for a certificate is below 1 KiB. */
const maxBodyBytes = 16 * 1024;
const maxNodeIps = 16;
const minPasswordLength = 12;
const memberGroups = ["k3s:agent", "k3s:server", "system:nodes", "system:bootstrappers"];
const nodePrefix = "system:node:";
/** A password is older than its Node by the time that the node takes to register; nobody comes back after so long. */
const orphanAgeMs = 3600_000;

export function createJoinServer(options: JoinServerOptions, deps: JoinServerDeps): JoinServer {
  const { clock, random, log } = deps;
  const passwords = new NodePasswords({ client: deps.client, random });
  const inFlight = { read: 0, write: 0 };
  let password = options.password;

  const text = (body: string): Answer => ({ type: "text/plain", body });
  const json = (body: unknown): Answer => ({ type: "application/json", body: `${JSON.stringify(body)}\n` });
  const get = ["GET"];
  const routes = new Map<string, Route>([
    ["/ping", { methods: get, isOpen: true, isEarly: true, answer: () => text("pong") }],
    ["/cacerts", { methods: get, isOpen: true, isEarly: true, answer: () => text(options.pki().serverCa.certificate) }],
    [`${prefix}server-ca.crt`, { methods: get, answer: () => text(options.pki().serverCa.certificate) }],
    [`${prefix}client-ca.crt`, { methods: get, answer: () => text(options.pki().clientCa.certificate) }],
    [`${prefix}config`, { methods: get, answer: () => json(formatSettings(options.settings)) }],
    [`${prefix}apiservers`, { methods: get, answer: () => json(options.addresses()) }],
    [`${prefix}readyz`, { methods: get, answer: () => text("ok") }],
    [`${prefix}token`, { methods: ["PUT"], isForServers: true, answer: changePassword }],
    ...leafNames.map((name): [string, Route] => [
      `${prefix}${name}.crt`,
      { methods: ["GET", "POST"], answer: async (request, user) => text(await issue(name, request, user)) },
    ]),
  ]);

  async function changePassword(request: ServerRequest): Promise<Answer> {
    const next = newPasswordIn(Buffer.from(await bodyOf(request)).toString("utf8"));
    await options.keepPassword(next);
    password = next;
    log.info("the token has been changed");
    return text("");
  }

  async function issue(name: LeafName, request: ServerRequest, user: JoinUser | undefined): Promise<string> {
    const { authority, ofNode } = leaves[name];
    const node = ofNode ? await provenNode(request, user) : "";
    const ips = name === "serving-kubelet" ? nodeIpsOf(request) : [];
    const body = request.method === "POST" ? await bodyOf(request) : new Uint8Array(0);
    const pki = options.pki();
    const pair = authority === "server" ? pki.serverCa : pki.clientCa;
    const issued = issueLeaf({ name, node, nodeIps: ips, request: body }, pair, { clock, random });
    if (issued === undefined)
      throw badRequest("the body is no certificate signing request in DER, or its signature does not fit");
    log.info("certificate issued to a node", { file: name, node: node || (user?.name ?? "") });
    return issued;
  }

  /** The name in the header, once it is certain that the caller owns it. */
  async function provenNode(request: ServerRequest, user: JoinUser | undefined): Promise<string> {
    const name = headerOf(request, headers.nodeName).toLowerCase();
    const password = headerOf(request, headers.nodePassword);
    if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name) || name.length > 253)
      throw badRequest("the node's name is not allowed");
    if (user?.name.startsWith(nodePrefix)) {
      if (user.name !== `${nodePrefix}${name}`) {
        throw badRequest(`the certificate of ${user.name.slice(nodePrefix.length)} does not let it be ${name}`);
      }
      if (!(await exists(name))) throw unauthorized();
    }
    if (name === options.ownNode || !(await passwords.claim(name, password))) throw nameTaken(name);
    return name;
  }

  async function exists(node: string): Promise<boolean> {
    try {
      await deps.client().get(nodes, node);
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  /** Who has no valid password may still have a valid certificate: a node rejoins after the token was changed. */
  async function whoAsks(request: ServerRequest): Promise<JoinUser | undefined> {
    const [scheme = "", value = ""] = String(request.headers["authorization"] ?? "").split(" ");
    if (scheme.toLowerCase() === "basic") {
      const pair = Buffer.from(value, "base64").toString("utf8");
      const colon = pair.indexOf(":");
      const user = pair.slice(0, Math.max(colon, 0));
      const group = user === "node" ? "k3s:agent" : user === "server" ? "k3s:server" : undefined;
      if (group && sameText(pair.slice(colon + 1), password)) return { name: user, groups: [group] };
    }
    const bearerToken = scheme.toLowerCase() === "bearer" ? value : undefined;
    const { clientCertificate } = request;
    return (await known({ bearerToken })) ?? known({ clientCertificate });
  }

  async function known(credentials: Parameters<typeof deps.authenticate>[0]): Promise<JoinUser | undefined> {
    try {
      return await deps.authenticate(credentials);
    } catch (error) {
      if (isApiError(error, "Unauthorized")) return undefined;
      throw error;
    }
  }

  async function serve(route: Route, request: ServerRequest, response: ServerResponse): Promise<void> {
    const kind = request.method === "GET" ? "read" : "write";
    inFlight[kind]++;
    try {
      if (!route.methods.includes(request.method)) throw methodNotAllowed("the server does not allow this method here");
      if (inFlight[kind] > maxInFlight[kind]) {
        throw new ApiError(429, "TooManyRequests", "too many nodes are joining at once, please try again later");
      }
      let user: JoinUser | undefined;
      if (!route.isOpen) {
        user = await whoAsks(request);
        if (!user) throw unauthorized();
        const groups = route.isForServers ? ["k3s:server"] : memberGroups;
        if (!user.groups.some((group) => groups.includes(group))) {
          throw new ApiError(403, "Forbidden", `User ${JSON.stringify(user.name)} is no member of the cluster`);
        }
      }
      if (!route.isEarly && !deps.isReady()) throw new ApiError(503, "ServiceUnavailable", "the server is starting");
      const { type, body } = await route.answer(request, user);
      response.head(200, { "content-type": type, "content-length": Buffer.byteLength(body) });
      response.end(body);
    } catch (thrown) {
      refuse(request, response, thrown);
    } finally {
      inFlight[kind]--;
    }
  }

  function refuse(request: ServerRequest, response: ServerResponse, thrown: unknown): void {
    const error = thrown instanceof ApiError ? thrown : new ApiError(500, "InternalError", messageOf(thrown));
    if (error.code >= 500)
      log.warn("a joining node cannot be answered", { path: request.target, error: error.message });
    else log.debug("a joining node was refused", { path: request.target, code: error.code, error: error.message });
    const body = JSON.stringify(error.status);
    response.head(error.code, {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      ...(request.http2 ? {} : { connection: "close" }),
    });
    response.end(body);
  }

  /** The passwords of nodes that are gone, also of those that went while nobody looked. */
  async function sweep(has: (node: string) => boolean): Promise<void> {
    const selector = { namespace, fieldSelector: `type=${secretType}` };
    for (const { metadata } of (await deps.client().list(secrets, selector)).items) {
      const { name = "", creationTimestamp = "" } = metadata;
      if (clock.now() - Date.parse(creationTimestamp) > orphanAgeMs && !has(nodeOfSecret(name))) await free(name);
    }
  }

  async function free(name: string): Promise<void> {
    try {
      await deps.client().delete(secrets, { name, namespace });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  return {
    handle(request, response) {
      const route = routes.get(request.target.split("?", 1)[0] ?? "");
      return route && serve(route, request, response);
    },
    service: (informers) => ({
      name: "node-names",
      async run(signal, ready) {
        ready();
        const store = informers.informer(nodes);
        const gone = async (node: string) => {
          for (let pauseMs = 500; !signal.aborted; pauseMs = Math.min(pauseMs * 2, 60_000)) {
            // It registered again by itself: the name stays taken.
            if (store.get(node)) return;
            try {
              return await free(secretName(node));
            } catch (error) {
              log.warn("cannot free the name of a deleted node, trying again", { node, error: messageOf(error) });
              await pause(clock, pauseMs, signal);
            }
          }
        };
        await store.whenSynced(signal);
        const stop = store.addHandler({ delete: ({ metadata }) => void gone(metadata.name ?? "") });
        try {
          await sweep((node) => store.get(node) !== undefined);
          await untilAborted(signal);
        } finally {
          stop();
        }
      },
    }),
  };
}

function nameTaken(node: string): ApiError {
  const message =
    `node name ${JSON.stringify(node)} is taken by another device; choose another with --node-name, or delete the node ` +
    "(kubectl delete node) if this device replaces it";
  return new ApiError(403, "Forbidden", message);
}

/** Of a body such as {"newToken": "…"}: a password or a full token. */
function newPasswordIn(body: string): string {
  try {
    const { newToken } = JSON.parse(body) as { newToken?: unknown };
    const parsed = parseToken(typeof newToken === "string" ? newToken : "");
    if (!parsed.bootstrap && parsed.password.length >= minPasswordLength) return parsed.password;
  } catch {
    // Said below.
  }
  throw badRequest(`newToken must be a password of at least ${minPasswordLength} characters, or a full token with one`);
}

function headerOf(request: ServerRequest, name: string): string {
  const value = request.headers[name];
  if (typeof value !== "string" || value === "") throw badRequest(`header ${name} is missing`);
  return value;
}

function nodeIpsOf(request: ServerRequest): readonly string[] {
  const given = String(request.headers[headers.nodeIp] ?? "");
  const ips = given
    .split(",")
    .map((ip) => ip.trim())
    .filter((ip) => ip !== "");
  if (ips.length > maxNodeIps || !ips.every(isIp)) throw badRequest(`header ${headers.nodeIp} is no list of addresses`);
  return ips;
}

async function bodyOf(request: ServerRequest): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of request.body) {
    size += part.length;
    if (size > maxBodyBytes) throw new ApiError(413, "RequestEntityTooLarge", "the request is too large");
    parts.push(part);
  }
  return Buffer.concat(parts);
}
