// The server's side of joining: what nodes ask a server for before and while they are part of the cluster, on the API's
// port. A table of paths; nothing happens before authentication but handing out the authority's certificate and `pong`.
// Whoever has the token may join under a name that is free; the node's own password keeps the name (join/node-passwords.ts),
// and its device's key lets it in again however long it was away.
// Upstream counterpart: k3s pkg/server/router and handlers.
import { X509Certificate } from "node:crypto";
import { type Clock, pause, type Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import { canonicalIp } from "#base/ip-range.ts";
import type { Logger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { moteVersion } from "#base/version.ts";
import type { Client } from "#client/client.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes, secrets } from "#model/resources.ts";
import { ApiError, badRequest, isApiError, isNotFound, methodNotAllowed, unauthorized } from "#model/status.ts";
import { isIp } from "#model/validation/names.ts";
import type { ServerRequest, ServerResponse } from "#platform/https-server.ts";
import { splitAddress } from "./balancer/state-file.ts";
import { issueLeaf, type LeafName, leafNames, leaves } from "./join/leaves.ts";
import { NodePasswords } from "./join/node-passwords.ts";
import { formatSettings, headers, prefix, type ServerSettings } from "./join/protocol.ts";
import { namespace, nodeOfSecret, secretName, secretType } from "./join/secret-names.ts";
import { skewProblem } from "./join/version-skew.ts";
import { withdrawPermission } from "./node-replacement.ts";
import type { KeyPair, Pki } from "./pki.ts";
import { parseToken, sameText } from "./tokens.ts";

export type { ServerSettings } from "./join/protocol.ts";

export interface JoinServerOptions {
  readonly pki: () => Pki;
  /** Of the cluster's token; replaced by `mote token rotate`. */
  readonly password: string;
  /** Of nodes, where they have one of their own. */
  readonly agentPassword?: string;
  /** Keeps new ones, before they count. */
  readonly keepPassword: (password: string, agentPassword: string) => Promise<void>;
  /** Takes new authorities (authorities.ts), for the next start. */
  readonly keepAuthorities: (request: { readonly body: string; readonly isForced: boolean }) => Promise<void>;
  /** What servers that join must have alike, as JSON; absent: this server's datastore is its own. */
  readonly bootstrap?: () => Promise<string>;
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
    readonly clientIntermediates?: (() => readonly Uint8Array[]) | undefined;
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
/** Bundles of five authorities with what vouches for them. */
const maxAuthoritiesBytes = 512 * 1024;
const maxNodeIps = 16;
const minPasswordLength = 12;
const memberGroups = ["k3s:agent", "k3s:server", "system:nodes", "system:bootstrappers"];
const nodePrefix = "system:node:";
const serverLabel = "node-role.kubernetes.io/control-plane";
/** A password is older than its Node by the time that the node takes to register; nobody comes back after so long. */
const orphanAgeMs = 3600_000;

export function createJoinServer(options: JoinServerOptions, deps: JoinServerDeps): JoinServer {
  const { clock, random, log } = deps;
  const passwords = new NodePasswords({ client: deps.client, clock, random });
  const inFlight = { read: 0, write: 0 };
  let { password, agentPassword = password } = options;

  let turn: Promise<unknown> = Promise.resolve();
  /** What two write at once would be some files of the one and some of the other. */
  const inTurn =
    (change: (body: string, request: ServerRequest) => Promise<Answer>, maxBytes: number) =>
    async (request: ServerRequest): Promise<Answer> => {
      const body = Buffer.from(await bodyOf(request, maxBytes)).toString("utf8");
      const mine = turn.then(() => change(body, request));
      // Whoever asked hears of a failure; the next in line does not care.
      turn = mine.catch(() => undefined);
      return mine;
    };

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
    [`${prefix}token`, { methods: ["PUT"], isForServers: true, answer: inTurn(changePassword, maxBodyBytes) }],
    [
      `${prefix}cert/cacerts`,
      { methods: ["PUT"], isForServers: true, answer: inTurn(changeAuthorities, maxAuthoritiesBytes) },
    ],
    [`${prefix}server-bootstrap`, { methods: get, isForServers: true, answer: shared }],
    ...leafNames.map((name): [string, Route] => [
      `${prefix}${name}.crt`,
      { methods: ["GET", "POST"], answer: async (request, user) => text(await issue(name, request, user)) },
    ]),
  ]);

  async function changePassword(body: string): Promise<Answer> {
    const change = newPasswordsIn(body);
    const next = change.password ?? password;
    // Nodes without a password of their own have the servers' one, the new one too.
    const nextForAgents = change.agentPassword ?? (agentPassword === password ? next : agentPassword);
    await options.keepPassword(next, nextForAgents);
    [password, agentPassword] = [next, nextForAgents];
    log.info("the token has been changed");
    return text("");
  }

  async function shared(): Promise<Answer> {
    if (!options.bootstrap) throw badRequest(builtInDatastore);
    return { type: "application/json", body: await options.bootstrap() };
  }

  async function changeAuthorities(body: string, request: ServerRequest): Promise<Answer> {
    const isForced = new URL(request.target, "https://server").searchParams.get("force") === "true";
    await options.keepAuthorities({ body, isForced });
    log.info("new authorities are accepted; they count from the next start");
    return text("");
  }

  async function issue(name: LeafName, request: ServerRequest, user: JoinUser | undefined): Promise<string> {
    const { authority, ofNode } = leaves[name];
    const ips = name === "serving-kubelet" ? ownIpsOf(request) : [];
    const node = ofNode ? await provenNode(request, user) : "";
    const body = request.method === "POST" ? await bodyOf(request, maxBodyBytes) : new Uint8Array(0);
    const pki = options.pki();
    const pair = authority === "server" ? pki.serverCa : pki.clientCa;
    const issued = issueLeaf({ name, node, nodeIps: ips, request: body }, pair, { clock, random });
    if (issued === undefined)
      throw badRequest("the body is no certificate signing request in DER, or its signature does not fit");
    // Certificates of all nodes are asked for without a name.
    const claimed = request.headers[headers.nodeName];
    const named = node || (typeof claimed === "string" ? claimed.toLowerCase() : "") || (user?.name ?? "");
    log.info("certificate issued to a node", { file: name, node: named });
    return issued;
  }

  /** The name in the header, once it is certain that the caller owns it. */
  async function provenNode(request: ServerRequest, user: JoinUser | undefined): Promise<string> {
    const name = headerOf(request, headers.nodeName).toLowerCase();
    const password = headerOf(request, headers.nodePassword);
    const deviceKey = deviceKeyIn(request);
    if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name) || name.length > 253)
      throw badRequest("the node's name is not allowed");
    const isTaken = isReserved(name, options.settings.clusterDomain) || isNameOfServers(name, options.pki());
    if (isTaken || (isIp(name) && isAddressOfServers(name))) throw nameOfServers(name);
    if (user?.name.startsWith(nodePrefix)) {
      if (user.name !== `${nodePrefix}${name}`) {
        throw badRequest(`the certificate of ${user.name.slice(nodePrefix.length)} does not let it be ${name}`);
      }
      if (!(await exists(name))) throw unauthorized();
    }
    await checkVersion(request, name);
    if (!(await passwords.has(name)) && (await isOfServer(name))) throw nameTaken(name);
    if (name === options.ownNode || !(await passwords.claim({ node: name, password, deviceKey }))) {
      throw nameTaken(name);
    }
    return name;
  }

  /** Programs believe that whoever is certified for an address of a server, or of the API's service, is that server. */
  function isAddressOfServers(ip: string): boolean {
    if (isLoopback(ip)) return false;
    if (new X509Certificate(options.pki().servingApiserver.certificate).checkIP(ip) !== undefined) return true;
    return options.addresses().some((address) => canonicalIp(splitAddress(address)?.host ?? "") === ip);
  }

  function ownIpsOf(request: ServerRequest): readonly string[] {
    const ips = nodeIpsOf(request);
    const from = canonicalIp(String(request.remoteAddress ?? "").replace(/^::ffff:(?=[0-9.]+$)/, "")) ?? "";
    // A node may live on the machine of a server.
    const wrong = isLoopback(from) ? undefined : ips.find((ip) => ip !== from && isAddressOfServers(ip));
    if (wrong !== undefined) throw badRequest(`${wrong} is an address of a server; a node has others (--node-ip)`);
    return ips;
  }

  /** Who has been let in stays, whatever it runs: it may have been away for long, and comes for its update. */
  async function checkVersion(request: ServerRequest, node: string): Promise<void> {
    const problem = skewProblem(String(request.headers[headers.version] ?? ""), moteVersion);
    if (problem === undefined) return;
    if (!(await passwords.has(node))) throw new ApiError(409, "Conflict", problem);
    log.warn("a node of another version", { node, problem });
  }

  /** A device whose certificate has ended, by the key that it told when it joined: TLS has proven that it has that key. */
  async function knownDevice(request: ServerRequest): Promise<JoinUser | undefined> {
    const node = String(request.headers[headers.nodeName] ?? "").toLowerCase();
    const shown = publicKeyOf(request.clientCertificate);
    if (node === "" || shown === undefined) return undefined;
    if (!deps.isReady()) throw new ApiError(503, "ServiceUnavailable", "the server is starting");
    if (!(await passwords.isDevice(node, shown)) || !(await exists(node))) return undefined;
    return { name: `${nodePrefix}${node}`, groups: ["system:nodes"] };
  }

  const exists = async (node: string): Promise<boolean> => (await find(node)) !== undefined;

  /** Nodes of servers need no password, here and at other servers, and nobody else's Node says that it is one. */
  const isOfServer = async (node: string): Promise<boolean> =>
    (await find(node))?.metadata.labels?.[serverLabel] === "true";

  async function find(node: string): Promise<Node | undefined> {
    try {
      return await deps.client().get(nodes, node);
    } catch (error) {
      if (isNotFound(error)) return undefined;
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
      const given = pair.slice(colon + 1);
      // Both are looked at in any case, so that time tells nothing.
      const [isServers, isAgents] = [sameText(given, password), sameText(given, agentPassword)];
      if (group && (isServers || (isAgents && user === "node"))) return { name: user, groups: [group] };
    }
    const bearerToken = scheme.toLowerCase() === "bearer" ? value : undefined;
    const { clientCertificate } = request;
    const clientIntermediates = () => request.clientIntermediates?.() ?? [];
    return (
      (await known({ bearerToken })) ??
      (await known({ clientCertificate, clientIntermediates })) ??
      knownDevice(request)
    );
  }

  async function known(credentials: Parameters<typeof deps.authenticate>[0]): Promise<JoinUser | undefined> {
    try {
      return await deps.authenticate(credentials);
    } catch (error) {
      if (isApiError(error, "Unauthorized")) return undefined;
      throw error;
    }
  }

  /** Nodes judge by it what they have. */
  const httpDate = () => new Date(clock.now()).toUTCString();

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
      response.head(200, { "content-type": type, "content-length": Buffer.byteLength(body), date: httpDate() });
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
      date: httpDate(),
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
              await withdrawPermission(deps.client(), node);
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

const isLoopback = (ip: string): boolean => ip.startsWith("127.") || ip === "::1";

/** What programs call the API, the services of the cluster, and the machine that they run on. */
function isReserved(name: string, clusterDomain: string): boolean {
  const parts = [/^kubernetes(\.|$)/, /(^|\.)localhost$/, /\.svc$/];
  return parts.some((part) => part.test(name)) || name.endsWith(`.svc.${clusterDomain}`);
}

/**
 * Nodes and pods believe that whoever is certified under such a name is a server. Names of this machine do not count: where the
 * server has no node an agent may have them.
 */
function isNameOfServers(name: string, { servingApiserver, servingKubelet }: Pki): boolean {
  const isIn = ({ certificate }: KeyPair): boolean =>
    new X509Certificate(certificate).checkHost(name, { subject: "never", wildcards: false }) !== undefined;
  return isIn(servingApiserver) && !isIn(servingKubelet);
}

function nameOfServers(node: string): ApiError {
  const message = `node name ${JSON.stringify(node)} is one that servers are called by; choose another with --node-name`;
  return new ApiError(403, "Forbidden", message);
}

function nameTaken(node: string): ApiError {
  const message =
    `node name ${JSON.stringify(node)} is taken by another device; choose another with --node-name, or, if this device ` +
    `replaces it, allow that at the server (mote node replace ${node})`;
  return new ApiError(403, "Forbidden", message);
}

const builtInDatastore =
  "the datastore of this cluster is built into its one server; for several servers start all of them with " +
  "--datastore-endpoint and the addresses of an etcd";

/** Of a body such as {"newToken": "…"} or {"newAgentToken": "…"}: passwords or full tokens. */
function newPasswordsIn(body: string): { readonly password?: string; readonly agentPassword?: string } {
  const read = (token: unknown) => {
    const parsed = parseToken(typeof token === "string" ? token : "");
    return parsed.bootstrap || parsed.password.length < minPasswordLength ? undefined : parsed.password;
  };
  try {
    const given = JSON.parse(body) as Readonly<Record<string, unknown>>;
    const isForAgents = given["newAgentToken"] !== undefined;
    const found = read(given[isForAgents ? "newAgentToken" : "newToken"]);
    if (found !== undefined) return isForAgents ? { agentPassword: found } : { password: found };
  } catch {
    // Said below.
  }
  throw badRequest(
    `the new token must be a password of at least ${minPasswordLength} characters, or a full token with one`,
  );
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
  const found = ips.flatMap((ip) => canonicalIp(ip) ?? []);
  // An IPv4 address in the dress of IPv6 is the same to some programs, and another here.
  const isMapped = found.some((ip) => ip.startsWith("::ffff:"));
  if (ips.length > maxNodeIps || found.length < ips.length || isMapped)
    throw badRequest(`header ${headers.nodeIp} is no list of addresses`);
  return found;
}

/** Of the certificate that was shown, whoever signed it; what cannot be read is none. */
function publicKeyOf(certificate: Uint8Array | undefined): string | undefined {
  if (!certificate) return undefined;
  try {
    return new X509Certificate(certificate).publicKey.export({ type: "spki", format: "der" }).toString("base64");
  } catch {
    return undefined;
  }
}

function deviceKeyIn(request: ServerRequest): string | undefined {
  const value = request.headers[headers.deviceKey];
  if (value === undefined) return undefined;
  if (typeof value === "string" && /^[A-Za-z0-9+/]{80,400}={0,2}$/.test(value)) return value;
  throw badRequest(`header ${headers.deviceKey} is no public key`);
}

async function bodyOf(request: ServerRequest, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of request.body) {
    size += part.length;
    if (size > maxBytes) throw new ApiError(413, "RequestEntityTooLarge", "the request is too large");
    parts.push(part);
  }
  return Buffer.concat(parts);
}
