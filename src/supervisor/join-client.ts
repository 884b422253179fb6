// The node's side of joining: `openMembership` trusts a server by the hash in the token, asks it for settings and
// certificates, keeps them, and has them renewed while the node runs. A node that has joined before starts with what it
// kept, whether or not a server answers. The keys of certificates never leave the node, and its password, made once, keeps
// its name. Upstream counterpart: k3s pkg/clientaccess and pkg/agent/config.
import { X509Certificate } from "node:crypto";
import { dirname } from "node:path";
import { type Clock, pause, type Random } from "#base/clock.ts";
import { AppError, isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { createHttpClient, type HttpClient, readBody } from "#platform/http-client.ts";
import { ClientFiles } from "./join/client-files.ts";
import { explain, explainAnswer, isLasting, wrongAuthority } from "./join/failures.ts";
import { isDue, type LeafName } from "./join/leaves.ts";
import { type ClusterSettings, headers, parseSettings, prefix } from "./join/protocol.ts";
import { generateKey, signingRequest, splitPem } from "./pki/certificate.ts";
import type { KeyPair } from "./pki.ts";
import { caHash, parseToken, type Token } from "./tokens.ts";

export type { ClusterSettings } from "./join/protocol.ts";

export interface JoinOptions {
  /** https://HOST:PORT */
  readonly server: string;
  /** Undefined: only a node that has joined before can start. */
  readonly token: string | undefined;
  /** DATA-DIR/agent. */
  readonly folder: string;
  /** Survives the data folder's content: it is the device's. */
  readonly passwordFile: string;
  readonly nodeName: string;
  readonly nodeIps: readonly string[];
}

export interface JoinDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Told, in a sentence, what keeps the node from joining, each time it tries again. */
  readonly onProblem?: ((sentence: string) => void) | undefined;
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
}

export interface Membership {
  readonly current: Credentials;
  /** Called with every change until the returned function is. */
  onChange(listener: () => void): () => void;
  readonly service: Service;
}

const leafFiles = {
  serving: "serving-kubelet",
  kubelet: "client-kubelet",
  controller: "client-k3s-controller",
} as const;
const files = { serverCa: "server-ca.crt", clientCa: "client-ca.crt", settings: "cluster.json" } as const;
/** k3s's, for one request. */
const timeoutMs = 10_000;
/** Certificates, settings and messages; none is above some KiB. */
const maxBodyBytes = 1024 * 1024;
const retry = { minMs: 1000, maxMs: 5000, jitter: 0.3 } as const;
/** While the node runs anyway. */
const renewal = { minMs: 5000, maxMs: 300_000, checkMs: 12 * 3600_000, jitter: 0.2 } as const;

/**
 * At once where the node has joined before; else it tries until it has. Rejects with JOIN_* where trying again cannot help,
 * and with the signal's reason.
 */
export async function openMembership(options: JoinOptions, deps: JoinDeps, signal: AbortSignal): Promise<Membership> {
  const { clock, random, log } = deps;
  const store = new ClientFiles(options.folder);
  const listeners = new Set<() => void>();
  const kept = await readCredentials(store);
  let current = kept ?? (await joinFirst());

  async function joinFirst(): Promise<Credentials> {
    if (options.token === undefined) {
      throw new AppError(
        "JOIN_TOKEN",
        "a node joins with --token: it stands in server/token of the server's data folder",
      );
    }
    for (let attempt = 0; ; attempt++) {
      try {
        return await join(options, store, deps, signal);
      } catch (error) {
        if (isAbort(error, signal)) throw error;
        if (isLasting(error)) throw error;
        log.warn("cannot join yet, trying again", { error: messageOf(error) });
        deps.onProblem?.(messageOf(error));
        await clock.sleep(
          spread(Math.min(retry.minMs * 2 ** Math.min(attempt, 8), retry.maxMs), retry.jitter, random),
          signal,
        );
      }
    }
  }

  async function renew(): Promise<void> {
    const fresh = await join(options, store, deps, signal);
    const before = current;
    if (JSON.stringify(fresh) === JSON.stringify(before)) return;
    current = fresh;
    if (JSON.stringify(fresh.settings) !== JSON.stringify(before.settings)) {
      log.warn("the cluster's settings have changed; they count from the next start of this agent");
    }
    for (const listener of listeners) listener();
  }

  return {
    get current() {
      return current;
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    service: {
      name: "membership",
      async run(stop, ready) {
        ready();
        // Who has just joined has nothing to ask for.
        let waitMs: number = kept ? 0 : renewal.checkMs;
        let failures = 0;
        while (!stop.aborted) {
          await pause(clock, spread(waitMs, renewal.jitter, random), stop);
          if (stop.aborted) return;
          try {
            await renew();
            [waitMs, failures] = [renewal.checkMs, 0];
          } catch (error) {
            if (stop.aborted) return;
            waitMs = Math.min(renewal.minMs * 2 ** Math.min(failures++, 8), renewal.maxMs);
            log.warn("the server cannot be asked for certificates; going on with those there are", {
              error: messageOf(error),
            });
          }
        }
      },
    },
  };
}

const spread = (ms: number, jitter: number, random: Random): number => ms * (1 + (random.float() * 2 - 1) * jitter);

/** What an earlier run has kept, if it is whole. */
async function readCredentials(store: ClientFiles): Promise<Credentials | undefined> {
  const [serverCa, clientCa, settings, serving, kubelet, controller] = await Promise.all([
    ...[store.read(files.serverCa), store.read(files.clientCa), store.read(files.settings)],
    ...[store.readPair(leafFiles.serving), store.readPair(leafFiles.kubelet), store.readPair(leafFiles.controller)],
  ] as const);
  if (!serverCa || !clientCa || !settings || !serving || !kubelet || !controller) return undefined;
  // Even one that has ended may be what the server knows the node by.
  if ([serving, kubelet, controller].some((pair) => isDue(pair, `${serverCa}${clientCa}`, [], 0))) return undefined;
  return { settings: parseSettings(settings), serverCa, clientCa, serving, kubelet, controller };
}

/** One pass over all a node asks for. What it already has is only asked for again when it is due. */
async function join(
  options: JoinOptions,
  store: ClientFiles,
  deps: JoinDeps,
  signal: AbortSignal,
): Promise<Credentials> {
  const { clock, log } = deps;
  const { server } = options;
  const token = options.token === undefined ? undefined : parseToken(options.token);
  const serverCa = await trustedAuthority(options, token, await store.read(files.serverCa), deps, signal);
  const own = await store.readPair(leafFiles.kubelet);
  const password = await ensurePassword(options.passwordFile, deps.random);
  const named = createHttpClient({
    baseUrl: server,
    ca: serverCa,
    ...(own ? { cert: own.certificate, key: own.key } : {}),
  });
  const bare = createHttpClient({ baseUrl: server, ca: serverCa });
  const authorization = authorizationOf(token);
  const call = async (
    path: string,
    more: { readonly headers?: Record<string, string>; readonly body?: Uint8Array } = {},
  ) => {
    const request = {
      method: more.body ? "POST" : "GET",
      path: `${prefix}${path}`,
      headers: { ...authorization, ...more.headers },
      ...(more.body ? { body: more.body } : {}),
    };
    const first = await ask(named, request, server, clock, signal);
    // A certificate of a node that was deleted since.
    const answer = first.status === 401 && own && token ? await ask(bare, request, server, clock, signal) : first;
    if (answer.status !== 200) throw explainAnswer(answer.status, answer.text, server);
    return answer.text;
  };
  try {
    const settings = await call("config");
    const clientCa = await call("client-ca.crt");
    const nodeHeaders = {
      [headers.nodeName]: options.nodeName,
      [headers.nodePassword]: password,
      [headers.nodeIp]: options.nodeIps.join(","),
    };
    const leaf = async (name: LeafName, authorities: string, ips: readonly string[]): Promise<KeyPair> => {
      const kept = await store.readPair(name);
      if (kept && !isDue(kept, authorities, ips, clock.now())) return kept;
      const key = generateKey();
      const pem = await call(`${name}.crt`, { headers: nodeHeaders, body: signingRequest(options.nodeName, key) });
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
      settings: parseSettings(settings),
      ...{ serverCa, clientCa },
      serving: await leaf(leafFiles.serving, serverCa, options.nodeIps),
      kubelet: await leaf(leafFiles.kubelet, clientCa, []),
      controller: await leaf(leafFiles.controller, clientCa, []),
    };
    await store.write(files.serverCa, serverCa);
    await store.write(files.clientCa, clientCa);
    await store.write(files.settings, settings);
    return credentials;
  } finally {
    named.close();
    bare.close();
  }
}

/** PEM of the authority that the server proves to have, and that the token names. */
async function trustedAuthority(
  options: JoinOptions,
  token: Token | undefined,
  kept: string | undefined,
  deps: JoinDeps,
  signal: AbortSignal,
): Promise<string> {
  const { server } = options;
  const { clock, log } = deps;
  const isNamed = (ca: string) => token === undefined || token.caHash === "" || caHash(ca) === token.caHash;
  if (kept !== undefined && isNamed(kept)) return kept;
  const cacerts = async (client: HttpClient): Promise<string> => {
    try {
      const { status, text } = await ask(
        client,
        { method: "GET", path: "/cacerts", headers: {} },
        server,
        clock,
        signal,
      );
      if (status !== 200) throw explainAnswer(status === 401 || status === 403 ? 404 : status, text, server);
      return text;
    } finally {
      client.close();
    }
  };
  const claimed = await cacerts(createHttpClient({ baseUrl: server, insecureSkipTlsVerify: true }));
  if (!isCertificates(claimed)) throw explainAnswer(404, "no certificate", server);
  if (!isNamed(claimed)) throw wrongAuthority(server);
  // Whoever hands out a certificate need not own it.
  await cacerts(createHttpClient({ baseUrl: server, ca: claimed }));
  if (token?.caHash === "")
    log.warn("the token does not name the server's authority: whoever answers first is believed", { server });
  return claimed;
}

function isCertificates(text: string): boolean {
  try {
    const found = splitPem(text).map((pem) => new X509Certificate(pem));
    return found.length > 0;
  } catch {
    return false;
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

async function ask(
  client: HttpClient,
  request: {
    readonly method: string;
    readonly path: string;
    readonly headers: Record<string, string>;
    readonly body?: Uint8Array;
  },
  server: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly text: string }> {
  try {
    const response = await client.send({ ...request, idleTimeoutMs: timeoutMs }, signal);
    return { status: response.status, text: (await readBody(response, maxBodyBytes)).toString("utf8") };
  } catch (error) {
    throw isAbort(error, signal) ? error : explain(error, server, clock.now());
  }
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
