// One pass of a node over all that it asks a server for: settings, authorities, certificates; and what it has kept of the last.
// It shows what it has in turn, until one counts: its certificate, the token, the key of its device. Invariants: the keys of
// certificates never leave the node; its password, made once, keeps its name; and what is kept is whole, or asked for again.
// Upstream counterpart: k3s pkg/agent/config.
import { createPrivateKey, createPublicKey } from "node:crypto";
import { dirname } from "node:path";
import type { Clock, Random } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { moteVersion } from "#base/version.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { createHttpClient, type HttpClient, type HttpClientOptions } from "#platform/http-client.ts";
import { rotateMark } from "../certificate-services.ts";
import { serverName } from "../load-balancer.ts";
import { generateKey, issueCertificate, signingRequest, splitPem } from "../pki/certificate.ts";
import type { KeyPair } from "../pki.ts";
import { ask, isCertificates, trustedAuthority } from "../server-trust.ts";
import type { Token } from "../tokens.ts";
import type { ClientFiles } from "./client-files.ts";
import { explainAnswer } from "./failures.ts";
import { isDue, isOfSigner, type LeafName } from "./leaves.ts";
import { type ClusterSettings, headers, parseServers, parseSettings, prefix } from "./protocol.ts";

export interface JoinOptions {
  /** https://HOST:PORT */
  readonly server: string;
  /** Undefined: only a node that has joined before can start. */
  readonly token: string | undefined;
  /** DATA-DIR/agent. */
  readonly folder: string;
  /** Survives the data folder's content: it is the device's. Its key, `device.key`, lies beside. */
  readonly passwordFile: string;
  readonly nodeName: string;
  readonly nodeIps: readonly string[];
  /** To whichever server is there, for a node that has joined: the first time it asks the one it was given. */
  readonly way?: Pick<HttpClientOptions, "dial">;
}

export interface JoinDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Told, in a sentence, what keeps the node from joining, each time it tries again. */
  readonly onProblem?: ((sentence: string) => void) | undefined;
  /** Told, as HOST:PORT, which servers the cluster has. */
  readonly onServers?: (servers: readonly string[]) => Promise<void>;
}

export interface Credentials {
  readonly settings: ClusterSettings;
  /** PEM. */
  readonly serverCa: string;
  readonly clientCa: string;
  /** Serves the node API. */
  readonly serving: KeyPair;
  /** The node itself towards the API. */
  readonly kubelet: KeyPair;
  /** What the node knows of others it reads as this. */
  readonly controller: KeyPair;
  /** The same of services, endpoints and nodes; only where the server is one of k3s (reader-transport.ts). */
  readonly proxy: KeyPair | undefined;
}

const leafFiles = {
  serving: "serving-kubelet",
  kubelet: "client-kubelet",
  controller: "client-k3s-controller",
  proxy: "client-kube-proxy",
} as const;
const files = { serverCa: "server-ca.crt", clientCa: "client-ca.crt", settings: "cluster.json" } as const;

/** What an earlier run has kept, if it is whole. */
export async function readCredentials(store: ClientFiles): Promise<Credentials | undefined> {
  const [serverCa, clientCa, settings, serving, kubelet, controller, proxy] = await Promise.all([
    ...[store.read(files.serverCa), store.read(files.clientCa), store.read(files.settings)],
    ...[store.readPair(leafFiles.serving), store.readPair(leafFiles.kubelet), store.readPair(leafFiles.controller)],
    store.readPair(leafFiles.proxy),
  ] as const);
  if (!serverCa || !clientCa || !settings || !serving || !kubelet || !controller) return undefined;
  // Even one that has ended may be what the server knows the node by.
  if ([serving, kubelet, controller].some((pair) => isDue(pair, `${serverCa}${clientCa}`, [], 0))) return undefined;
  const parsed = parseSettings(settings);
  // What is left of a cluster of k3s that the node was in before is renewed by nobody.
  const reader = parsed.isMote ? undefined : proxy;
  return { settings: parsed, serverCa, clientCa, serving, kubelet, controller, proxy: reader };
}

/** Undefined also where it is spoilt: it is asked for again then. */
async function readPair(store: ClientFiles, name: LeafName): Promise<KeyPair | undefined> {
  const pair = await store.readPair(name);
  return pair && isCertificates(pair.certificate) && isKey(pair.key) ? pair : undefined;
}

function isKey(text: string): boolean {
  try {
    createPrivateKey(text);
    return true;
  } catch {
    return false;
  }
}

interface Joined {
  readonly credentials: Credentials;
  /** The server's clock; undefined: it did not say. */
  readonly serverMs: number | undefined;
}

/** One pass over all a node asks for. What it already has is only asked for again when it is due. */
export async function join(
  options: JoinOptions & { readonly claims: boolean },
  token: Token | undefined,
  store: ClientFiles,
  deps: JoinDeps,
  signal: AbortSignal,
): Promise<Joined> {
  const { clock, log } = deps;
  const { server, nodeName } = options;
  const bundle = await store.read(files.serverCa);
  const keptAuthority = bundle !== undefined && isCertificates(bundle) ? bundle : undefined;
  // Without token the device's key may do, for a server that is known; nobody is believed because he answers.
  if (token === undefined && keptAuthority === undefined) {
    throw new AppError(
      "JOIN_TOKEN",
      "a node joins with --token: it stands in server/token of the server's data folder",
    );
  }
  const anchors = await trustedAuthority(options, token, keptAuthority, deps, signal);
  const own = await readPair(store, leafFiles.kubelet);
  const password = await ensurePassword(options.passwordFile, deps.random);
  const device = await ensureDevicePair(options, deps.random);
  const by = (pair?: KeyPair) =>
    createHttpClient({
      ...{ baseUrl: server, ca: anchors, trust: "keys", serverName },
      // The servers that it knows are of its cluster; the token may name another.
      ...(own && anchors === keptAuthority ? options.way : {}),
      ...(pair ? { cert: pair.certificate, key: pair.key } : {}),
    });
  const authorization = authorizationOf(token);
  // In this order, until one counts: a certificate may have ended, a token may be another by now, a Node may be gone.
  const ways: { readonly client: HttpClient; readonly headers: Record<string, string> }[] = [
    ...(own ? [{ client: by(own), headers: authorization }] : []),
    ...(token ? [{ client: by(), headers: authorization }] : []),
    { client: by(device), headers: {} },
  ];
  const clients = ways.map(({ client }) => client);
  let serverMs: number | undefined;
  const call = async (
    path: string,
    more: { readonly headers?: Record<string, string>; readonly body?: Uint8Array } = {},
  ): Promise<string> => {
    for (;;) {
      const [way] = ways;
      if (!way) throw explainAnswer(401, "", server);
      const request = {
        method: more.body ? "POST" : "GET",
        path: `${prefix}${path}`,
        headers: { ...way.headers, [headers.nodeName]: nodeName, [headers.version]: moteVersion, ...more.headers },
        ...(more.body ? { body: more.body } : {}),
      };
      const answer = await ask(way.client, request, server, deps, signal);
      serverMs = answer.serverMs ?? serverMs;
      if (answer.status === 200) return answer.text;
      if (answer.status !== 401) throw explainAnswer(answer.status, answer.text, server);
      ways.shift();
    }
  };
  try {
    const ofOwn = ways[0];
    const settingsText = await call("config");
    const settings = parseSettings(settingsText);
    // Whatever its dates say here.
    const isTurnedAway = own !== undefined && ways[0] !== ofOwn;
    const serverCa = await call("server-ca.crt");
    const clientCa = await call("client-ca.crt");
    if (!isCertificates(serverCa) || !isCertificates(clientCa)) throw explainAnswer(404, "no certificate", server);
    const nodeHeaders = {
      [headers.nodePassword]: password,
      [headers.nodeIp]: options.nodeIps.join(","),
      [headers.deviceKey]: publicPart(device.key),
    };
    const marked = (await store.read(rotateMark))?.split("\n") ?? [];
    // With that one comes the password.
    const wanted = new Set([...marked, ...(options.claims ? [leafFiles.serving] : [])]);
    const leaf = async (name: LeafName, authorities: string, ips: readonly string[]): Promise<KeyPair> => {
      const kept = await readPair(store, name);
      const isKept = kept && !isTurnedAway && !wanted.has(name) && isOfSigner(kept, authorities);
      if (isKept && !isDue(kept, authorities, ips, serverMs ?? clock.now())) return kept;
      const key = generateKey();
      const pem = await call(`${name}.crt`, { headers: nodeHeaders, body: signingRequest(nodeName, key) });
      const pair = { certificate: splitPem(pem).join(""), key: privateKeyIn(pem) ?? key };
      if (isDue(pair, authorities, ips, 0)) {
        throw new AppError(
          "JOIN_ANSWER",
          `${server} gave a certificate that does not fit what was asked for (${name})`,
        );
      }
      await store.writePair(name, pair);
      log.info("certificate received", { file: name });
      return pair;
    };
    const credentials: Credentials = {
      ...{ settings, serverCa, clientCa },
      serving: await leaf(leafFiles.serving, serverCa, options.nodeIps),
      kubelet: await leaf(leafFiles.kubelet, clientCa, []),
      controller: await leaf(leafFiles.controller, clientCa, []),
      proxy: settings.isMote ? undefined : await leaf(leafFiles.proxy, clientCa, []),
    };
    await store.write(files.serverCa, serverCa);
    await store.write(files.clientCa, clientCa);
    await store.write(files.settings, settingsText);
    if (marked.length > 0) await removeFile(`${options.folder}/${rotateMark}`);
    await deps.onServers?.(parseServers(await call("apiservers")));
    return { credentials, serverMs };
  } finally {
    for (const client of clients) client.close();
  }
}

const privateKeyIn = (pem: string): string | undefined =>
  /-----BEGIN (?:EC |RSA )?PRIVATE KEY-----[^-]+-----END (?:EC |RSA )?PRIVATE KEY-----\n?/.exec(pem)?.[0];

/** A full token may be the servers' one; a node is `node` all the same. */
function authorizationOf(token: Token | undefined): Record<string, string> {
  if (!token) return {};
  if (token.bootstrap) return { authorization: `Bearer ${token.password}` };
  return { authorization: `Basic ${Buffer.from(`node:${token.password}`).toString("base64")}` };
}

/** The device's own: 16 bytes as hex, as k3s makes them. */
async function ensurePassword(path: string, random: Random): Promise<string> {
  const kept = (await readFileIfExists(path))?.toString("utf8").trim();
  if (kept) return kept;
  const made = Buffer.from(random.bytes(16)).toString("hex");
  await makeFolder(dirname(path), 0o700);
  await writeFileDurable(path, `${made}\n`, 0o600);
  return made;
}

/** A key that the device keeps for good, with a certificate that says nothing: TLS shows keys by certificates. */
async function ensureDevicePair({ passwordFile }: JoinOptions, random: Random): Promise<KeyPair> {
  const path = `${dirname(passwordFile)}/device.key`;
  let key = (await readFileIfExists(path))?.toString("utf8");
  if (!key) {
    key = generateKey();
    await makeFolder(dirname(path), 0o700);
    await writeFileDurable(path, key, 0o600);
  }
  const order = {
    commonName: "mote-device",
    usage: "client",
    notBeforeMs: 0,
    notAfterMs: Date.UTC(9999, 0, 1),
  } as const;
  return { certificate: issueCertificate(order, key, undefined, random), key };
}

const publicPart = (key: string): string =>
  createPublicKey(key).export({ type: "spki", format: "der" }).toString("base64");
