// The node's side of joining: `openMembership` trusts a server by the hash in the token, asks it for settings and
// certificates, keeps them, and has them renewed while the node runs. A node that has joined before starts with what it
// kept, whether or not a server answers. The keys of certificates never leave the node, and its password, made once, keeps
// its name. However long it was away: the server is known by the keys of its authorities, not by dates, and by the name that
// only servers are certified for, not by its address, which nodes are certified for as well; and the node shows
// the key of its device where neither its certificate nor the token counts any more. How old a certificate is the server's
// clock says. Upstream counterpart: k3s pkg/clientaccess and pkg/agent/config.
import { createHash, createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { dirname } from "node:path";
import { type Clock, pause, type Random } from "#base/clock.ts";
import { withEither } from "#base/either-signal.ts";
import { AppError, isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { moteVersion } from "#base/version.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { createHttpClient, type HttpClient, type HttpClientOptions, readBody } from "#platform/http-client.ts";
import { rotateMark } from "./certificate-services.ts";
import { ClientFiles } from "./join/client-files.ts";
import { clockProblem, explain, explainAnswer, isLasting, wrongAuthority } from "./join/failures.ts";
import { isDue, isOfSigner, type LeafName } from "./join/leaves.ts";
import { type ClusterSettings, headers, parseServers, parseSettings, prefix } from "./join/protocol.ts";
import { serverName } from "./load-balancer.ts";
import { generateKey, issueCertificate, signingRequest, splitPem } from "./pki/certificate.ts";
import type { KeyPair } from "./pki.ts";
import { createRepeatedProblem } from "./repeated-problem.ts";
import { namedAuthority, parseToken, type Token } from "./tokens.ts";

export type { ClusterSettings } from "./join/protocol.ts";

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

export interface Membership {
  readonly current: Credentials;
  /** What the cluster is known by, whoever else its authorities have come to be: two of its bundles have one of them. */
  readonly clusterKeys: readonly string[];
  /** Called with every change until the returned function is. */
  onChange(listener: () => void): () => void;
  /** Somebody was turned away, or turned away a server: asks soon for what counts now. */
  check(): void;
  /**
   * This machine has another address, by which servers know its node API from now on: the certificate that names it is asked for
   * at once, and soon again.
   */
  moved(): void;
  /** The Node is a new one: asks at once for a certificate, with which the name is this device's again. */
  claim(): void;
  /** Whether it began with what an earlier run had kept. */
  readonly hasJoinedBefore: boolean;
  /**
   * For a start, before anything is made of the settings: resolves when a server has said what counts now, or has been waited
   * for long enough. Nothing to wait for where the node has just joined.
   */
  catchUp(): Promise<void>;
  /** The time as the server had it when it was asked last: this machine's clock may be wrong. */
  nowMs(): number;
  readonly service: Service;
}

const leafFiles = {
  serving: "serving-kubelet",
  kubelet: "client-kubelet",
  controller: "client-k3s-controller",
  proxy: "client-kube-proxy",
} as const;
const files = { serverCa: "server-ca.crt", clientCa: "client-ca.crt", settings: "cluster.json" } as const;
/** So long a start waits for what may have changed while the node was away: less than pods wait for a server at a boot. */
const catchUpMs = 2_000;
/** The same where the token names another cluster: somebody moves this node, and sees that the other one answers. */
const moveMs = 20_000;
/** How long an answer may be silent: k3s's, for one request. */
const timeoutMs = 10_000;
/** Until it is whole. A busy server takes its time; whoever only answers in its place could take for ever. */
const wholeMs = 60_000;
/** Certificates, settings and messages; none is above some KiB. */
const maxBodyBytes = 1024 * 1024;
/** Whoever turns a thousand nodes away is not asked by all of them at once, and by none all the time. */
const checkPause = { minMs: 500, maxMs: 5000, gapMs: 2000, longestGapMs: 120_000 } as const;
const retry = { minMs: 1000, maxMs: 5000, jitter: 0.3 } as const;
/** After a change of the machine's address: many may get another at the same time. */
const movedMaxMs = 300;
/** Some five minutes, each with a line in the log: a device may have moved to where there is no server at all. */
const movedTries = 60;
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
  const kept = await readCredentials(store).catch((error: unknown) => {
    log.warn("what this node kept of its cluster is spoilt: it joins as if it were for the first time", {
      error: messageOf(error),
    });
    return undefined;
  });
  const token = tokenIn(options.token, kept !== undefined, log);
  /** What the server's clock said, and when. */
  let told: { readonly serverMs: number; readonly atMs: number } | undefined;
  let wake = () => {};
  /** There may be no certificate for this machine's address yet. */
  let hasMoved = false;
  /** And it has not been asked for since. */
  let isNew = false;
  let mustClaim = false;
  let askedMs = Number.NEGATIVE_INFINITY;
  let current = kept ?? (await joinFirst());
  let isStarting = false;
  /** Under way since the start: the service goes on with it. */
  let first: Promise<void> | undefined;

  async function joinOnce(): Promise<Credentials> {
    askedMs = clock.monotonicMs();
    const claims = mustClaim;
    mustClaim = false;
    const { credentials, serverMs } = await join({ ...options, claims }, token, store, deps, signal).catch((error) => {
      mustClaim ||= claims;
      throw error;
    });
    if (serverMs !== undefined) {
      told = { serverMs, atMs: clock.monotonicMs() };
      const problem = clockProblem(clock.now(), serverMs);
      if (problem !== undefined) log.warn(problem);
    }
    return credentials;
  }

  function isMoving({ serverCa }: Credentials): boolean {
    const hash = token?.caHash ?? "";
    return hash !== "" && namedAuthority(serverCa, hash) === undefined;
  }

  async function joinFirst(): Promise<Credentials> {
    const problem = createRepeatedProblem(clock);
    for (let attempt = 0; ; attempt++) {
      try {
        return await joinOnce();
      } catch (error) {
        if (isAbort(error, signal)) throw error;
        if (isLasting(error)) throw error;
        const fields = { error: messageOf(error) };
        if (problem.isNews(fields.error)) log.warn("cannot join yet, trying again", fields);
        else log.debug("cannot join yet, trying again", fields);
        deps.onProblem?.(messageOf(error));
        await clock.sleep(
          spread(Math.min(retry.minMs * 2 ** Math.min(attempt, 8), retry.maxMs), retry.jitter, random),
          signal,
        );
      }
    }
  }

  async function renew(): Promise<void> {
    const fresh = await joinOnce();
    const before = current;
    if (JSON.stringify(fresh) === JSON.stringify(before)) return;
    current = fresh;
    if (JSON.stringify(fresh.settings) !== JSON.stringify(before.settings)) {
      if (isStarting) log.info("the cluster's settings have changed since this agent ran");
      else log.warn("the cluster's settings have changed; they count from the next start of this agent");
    }
    for (const listener of listeners) listener();
  }

  return {
    get current() {
      return current;
    },
    get clusterKeys() {
      return keysIn(current.serverCa);
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    check: () => wake(),
    moved() {
      [hasMoved, isNew] = [true, true];
      wake();
    },
    claim() {
      [mustClaim, isNew] = [true, true];
      wake();
    },
    hasJoinedBefore: kept !== undefined,
    async catchUp() {
      if (!kept) return;
      isStarting = true;
      first = renew();
      const answered = new AbortController();
      // The service tells why not.
      const asked = first.catch(() => {}).finally(() => answered.abort());
      const patienceMs = isMoving(kept) ? moveMs : catchUpMs;
      const patience = withEither([answered.signal, signal], (over) => pause(clock, patienceMs, over));
      await Promise.race([asked, patience]);
      isStarting = false;
    },
    // From then on by the clock that nobody sets.
    nowMs: () => (told ? told.serverMs + clock.monotonicMs() - told.atMs : clock.now()),
    service: {
      name: "membership",
      async run(stop, ready) {
        ready();
        // Who has just joined has nothing to ask for.
        let waitMs: number = kept ? 0 : renewal.checkMs;
        let failures = 0;
        let gapMs: number = checkPause.gapMs;
        let woken = new AbortController();
        wake = () => woken.abort(new Error("somebody was turned away"));
        stop.addEventListener("abort", () => woken.abort(stop.reason), { once: true });
        while (!stop.aborted) {
          await pause(clock, spread(waitMs, renewal.jitter, random), woken.signal);
          if (woken.signal.aborted) {
            const leftMs = Math.max(checkPause.minMs, askedMs + gapMs - clock.monotonicMs());
            const chanceMs = random.float() * (checkPause.maxMs - checkPause.minMs);
            await pause(clock, isNew ? random.float() * movedMaxMs : leftMs + chanceMs, stop);
            if (!isNew) gapMs = Math.min(gapMs * 2, checkPause.longestGapMs);
          } else gapMs = checkPause.gapMs;
          if (stop.aborted) return;
          // Who is turned away from here on has it asked once more: what is under way may be too old for that.
          woken = new AbortController();
          const isOfMove = hasMoved;
          try {
            const asking = first ?? renew();
            first = undefined;
            [hasMoved, isNew] = [false, false];
            await asking;
            [waitMs, failures] = [renewal.checkMs, 0];
          } catch (error) {
            if (stop.aborted) return;
            hasMoved ||= isOfMove;
            const { minMs, maxMs } = hasMoved && failures < movedTries ? retry : renewal;
            waitMs = Math.min(minMs * 2 ** Math.min(failures++, 8), maxMs);
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
async function join(
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

/** Who has joined needs no token: one that is none, such as an empty one, does not keep its pods from starting. */
function tokenIn(text: string | undefined, hasJoined: boolean, log: JoinDeps["log"]): Token | undefined {
  if (text === undefined) return undefined;
  try {
    return parseToken(text);
  } catch (error) {
    if (!hasJoined) throw error;
    log.warn("this node has joined before and goes on without the token that it was given", {
      error: messageOf(error),
    });
    return undefined;
  }
}

/**
 * PEM of the authorities whose keys are believed: those that were kept, or what the token names among those that the server
 * claims to have.
 */
export async function trustedAuthority(
  options: Pick<JoinOptions, "server">,
  token: Token | undefined,
  kept: string | undefined,
  deps: Pick<JoinDeps, "clock" | "log">,
  signal: AbortSignal,
): Promise<string> {
  const { server } = options;
  const hash = token?.caHash ?? "";
  const named = (bundle: string) => (hash === "" ? bundle : namedAuthority(bundle, hash));
  if (kept !== undefined && named(kept) !== undefined) return kept;
  const cacerts = async (client: HttpClient): Promise<string> => {
    try {
      const { status, text } = await ask(
        client,
        { method: "GET", path: "/cacerts", headers: {} },
        server,
        deps,
        signal,
      );
      if (status !== 200) throw explainAnswer(status === 401 || status === 403 ? 404 : status, text, server);
      return text;
    } finally {
      client.close();
    }
  };
  const proven = (ca: string) => cacerts(createHttpClient({ baseUrl: server, ca, trust: "keys", serverName }));
  const claimed = await cacerts(createHttpClient({ baseUrl: server, insecureSkipTlsVerify: true }));
  if (!isCertificates(claimed)) throw explainAnswer(404, "no certificate", server);
  const believed = named(claimed);
  if (believed === undefined) {
    if (kept === undefined) throw wrongAuthority(server);
    // A token of before its authorities changed: who has joined knows the server all the same, or it is another.
    await proven(kept);
    return kept;
  }
  // Whoever hands out a certificate need not own it.
  await proven(believed);
  if (hash === "")
    deps.log.warn("the token does not name the server's authority: whoever answers first is believed", { server });
  return believed;
}

function isCertificates(text: string): boolean {
  try {
    const found = splitPem(text).map((pem) => new X509Certificate(pem));
    return found.length > 0;
  } catch {
    return false;
  }
}

const keysIn = (bundle: string): readonly string[] => {
  const hashOf = (pem: string) =>
    createHash("sha256")
      .update(new X509Certificate(pem).publicKey.export({ type: "spki", format: "der" }))
      .digest("base64");
  return [...new Set(splitPem(bundle).map(hashOf))];
};

const privateKeyIn = (pem: string): string | undefined =>
  /-----BEGIN (?:EC |RSA )?PRIVATE KEY-----[^-]+-----END (?:EC |RSA )?PRIVATE KEY-----\n?/.exec(pem)?.[0];

/** A full token may be the servers' one; a node is `node` all the same. */
function authorizationOf(token: Token | undefined): Record<string, string> {
  if (!token) return {};
  if (token.bootstrap) return { authorization: `Bearer ${token.password}` };
  return { authorization: `Basic ${Buffer.from(`node:${token.password}`).toString("base64")}` };
}

export async function ask(
  client: HttpClient,
  request: {
    readonly method: string;
    readonly path: string;
    readonly headers: Record<string, string>;
    readonly body?: Uint8Array;
  },
  server: string,
  { clock }: Pick<JoinDeps, "clock">,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly text: string; readonly serverMs: number | undefined }> {
  // Not AbortSignal.any: one that lasts as long as the process never forgets what was made of it.
  const over = new AbortController();
  const stop = () => over.abort(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  const cancel = clock.after(wholeMs, () =>
    over.abort(new AppError("HTTP_TIMEOUT", `${request.path}: no whole answer within ${wholeMs / 1000} s`)),
  );
  try {
    const response = await client.send({ ...request, idleTimeoutMs: timeoutMs }, over.signal);
    const serverMs = Date.parse(String(response.headers["date"]));
    return {
      status: response.status,
      text: (await readBody(response, maxBodyBytes)).toString("utf8"),
      serverMs: Number.isNaN(serverMs) ? undefined : serverMs,
    };
  } catch (error) {
    if (isAbort(error, signal)) throw error;
    throw explain(over.signal.aborted ? over.signal.reason : error, server);
  } finally {
    cancel();
    signal.removeEventListener("abort", stop);
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
