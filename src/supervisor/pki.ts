// The cluster's keys and certificates on disk: made at the first start, re-issued when they near their end, when their
// names change or when their authority changed. File names and subjects are k3s's (server/tls); lifetimes are made for
// devices whose clock is wrong: everything is valid since 1970, and ends are counted from a date that is never before
// this software was written. Authorities that somebody put there before the first start are used as they are; the first
// certificate of such a file signs, the others lead to its root.
// Upstream counterpart: k3s's generated certificates and kubeadm's certs phase.
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { join } from "node:path";
import type { Clock, Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { type CertificateRequest, generateKey, type Issuer, issueCertificate, splitPem } from "./pki/certificate.ts";

export interface PkiOptions {
  /** Where the files live, e.g. /var/lib/mote/server/tls. */
  readonly folder: string;
  readonly nodeName: string;
  /** Addresses of this machine, for the serving certificates. */
  readonly nodeIps: readonly string[];
  /** Further names or addresses clients may use (`--tls-san`). */
  readonly extraNames?: readonly string[];
  /** Default 10.43.0.1. */
  readonly serviceIps?: readonly string[];
  /** Default cluster.local. */
  readonly clusterDomain?: string;
}

export interface KeyPair {
  /** PEM: the certificate, for leaves followed by its authority. */
  readonly certificate: string;
  /** PEM. */
  readonly key: string;
}

export interface Pki {
  readonly clientCa: KeyPair;
  readonly serverCa: KeyPair;
  readonly requestHeaderCa: KeyPair;
  /** Serves the API port. */
  readonly servingApiserver: KeyPair;
  /** Serves the node API. */
  readonly servingKubelet: KeyPair;
  readonly clientAdmin: KeyPair;
  /** The API server towards kubelets. */
  readonly clientApiserver: KeyPair;
  readonly clientKubelet: KeyPair;
  readonly clientProxy: KeyPair;
  readonly clientScheduler: KeyPair;
  readonly clientController: KeyPair;
  /** The API server towards extension servers. */
  readonly clientAuthProxy: KeyPair;
  readonly serviceAccount: {
    /** PEM of the signing key. */
    readonly privateKey: string;
    /** PEM of every key that tokens may be signed with, current first. */
    readonly publicKeys: readonly string[];
  };
}

export interface PkiDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Loads what is there, makes what is missing or due, and returns all of it. Running it again changes nothing. */
export async function ensurePki(options: PkiOptions, dependencies: PkiDependencies): Promise<Pki> {
  await makeFolder(options.folder, 0o700);
  const store = new PairStore(options.folder, dependencies);
  const [clientCa, serverCa, requestHeaderCa] = await Promise.all([
    store.authority("client-ca", "mote-client-ca"),
    store.authority("server-ca", "mote-server-ca"),
    store.authority("request-header-ca", "mote-request-header-ca"),
  ]);
  const names = servingNames(options);
  const { nodeName } = options;
  const client = (file: string, commonName: string, organizations: readonly string[] = []) =>
    store.leaf(file, clientCa, { commonName, organizations, usage: "client" });
  const server = (file: string, commonName: string, subjects: typeof names.kubelet) =>
    store.leaf(file, serverCa, { commonName, usage: "server", ...subjects });
  // Together: at the first start each pair is flushed to a card that may take 20 ms for it.
  const leaves = await all({
    servingApiserver: server("serving-kube-apiserver", "kube-apiserver", names.apiserver),
    servingKubelet: server("serving-kubelet", nodeName, names.kubelet),
    clientAdmin: client("client-admin", "system:admin", ["system:masters"]),
    clientApiserver: client("client-kube-apiserver", "system:apiserver", ["system:masters"]),
    clientKubelet: client("client-kubelet", `system:node:${nodeName}`, ["system:nodes"]),
    clientProxy: client("client-kube-proxy", "system:kube-proxy"),
    clientScheduler: client("client-scheduler", "system:kube-scheduler"),
    clientController: client("client-controller", "system:kube-controller-manager"),
    clientAuthProxy: store.leaf("client-auth-proxy", requestHeaderCa, {
      commonName: "system:auth-proxy",
      usage: "client",
    }),
    serviceAccount: store.signingKey("service.key"),
  });
  store.tell();
  return { clientCa, serverCa, requestHeaderCa, ...leaves };
}

/** Pairs of k3s that no part of mote uses: for whoever looks for them under their names. */
export async function ensureSparePairs(options: PkiOptions, pki: Pki, dependencies: PkiDependencies): Promise<void> {
  const store = new PairStore(options.folder, dependencies);
  const client = (file: string, commonName: string, organizations: readonly string[] = []) =>
    store.leaf(file, pki.clientCa, { commonName, organizations, usage: "client" });
  const server = (commonName: string) =>
    store.leaf(commonName, pki.serverCa, {
      ...{ commonName, usage: "server", dnsNames: ["localhost"], ips: ["127.0.0.1", "::1"] },
    });
  // One after the other: nobody waits for them, and the card has other things to do.
  await client("client-supervisor", "system:k3s-supervisor", ["system:masters"]);
  await client("client-k3s-controller", "system:k3s-controller");
  await client("client-k3s-cloud-controller", "k3s-cloud-controller-manager");
  await server("kube-scheduler");
  await server("kube-controller-manager");
  store.tell();
}

async function all<T extends Record<string, Promise<unknown>>>(tasks: T): Promise<{ [K in keyof T]: Awaited<T[K]> }> {
  const entries = await Promise.all(Object.entries(tasks).map(async ([name, task]) => [name, await task] as const));
  return Object.fromEntries(entries) as { [K in keyof T]: Awaited<T[K]> };
}

const dayMs = 24 * 60 * 60 * 1000;
/** A board without a battery boots in 1970; whatever it makes then must still be valid when its clock is right. */
const neverBeforeMs = Date.UTC(2026, 10, 1);
/** What certificates count their time from. */
export const issueTime = (nowMs: number): number => Math.max(nowMs, neverBeforeMs);
const notBeforeMs = 0;
/** Long enough to outlive the device: an authority that ends takes every node with it. */
const authorityDays = 30 * 365;
const leafDays = 365;
/** k3s's margin: a device that is switched on once a quarter still renews in time. */
const renewDays = 120;
export const renewMs = renewDays * dayMs;

/** From when until when a leaf of this authority is good. */
export function leafTimes(authority: string, nowMs: number): { notBeforeMs: number; notAfterMs: number } {
  // Never longer than the authority, or the chain would end before the leaf says so.
  const lastMs = Date.parse(new X509Certificate(authority).validTo);
  return { notBeforeMs, notAfterMs: Math.min(issueTime(nowMs) + leafDays * dayMs, lastMs) };
}

/** PEM of an authority for `key`; signed by `issuer`, which vouches for it so, or else by itself. */
export function makeAuthority(
  order: { readonly commonName: string; readonly key: string; readonly issuer?: Issuer; readonly nowMs: number },
  random: Random,
): string {
  const { commonName, key, issuer } = order;
  const notAfterMs = issueTime(order.nowMs) + authorityDays * dayMs;
  return issueCertificate({ commonName, usage: "authority", notBeforeMs, notAfterMs }, key, issuer, random);
}

/** With the time of its making, as k3s has it. */
export const authorityName = (name: string, nowMs: number): string => `${name}@${Math.floor(issueTime(nowMs) / 1000)}`;

/** Pairs of another folder, kept by the same rules. */
export const openPairStore = (
  folder: string,
  dependencies: PkiDependencies,
): Pick<PairStore, "authority" | "leaf" | "tell"> => new PairStore(folder, dependencies);

type LeafRequest = Omit<CertificateRequest, "notBeforeMs" | "notAfterMs">;

/** Pairs of NAME.crt and NAME.key in one folder. */
class PairStore {
  readonly #folder: string;
  readonly #dependencies: PkiDependencies;
  readonly #nowMs: number;
  /** File names by the reason why they were issued, until they are told. */
  readonly #issued = new Map<string, string[]>();

  constructor(folder: string, dependencies: PkiDependencies) {
    this.#folder = folder;
    this.#dependencies = dependencies;
    this.#nowMs = issueTime(dependencies.clock.now());
  }

  /** A user may have put the files there before the first start; they are never replaced. */
  async authority(file: string, commonName: string): Promise<KeyPair> {
    const found = await this.#read(file);
    if (found.certificate !== undefined && found.key !== undefined) {
      const pair = { certificate: found.certificate, key: found.key };
      const problem = authorityProblem(pair);
      if (problem !== undefined) {
        throw new AppError("PKI_AUTHORITY", `${join(this.#folder, file)}.crt: ${problem}`, { file });
      }
      return pair;
    }
    if (found.certificate !== undefined) {
      // Making a new one would lock out every node that trusts the old one.
      throw new AppError("PKI_AUTHORITY", `${join(this.#folder, file)}.key is missing`, { file });
    }
    // A key without certificate is a first start that lost power between the two.
    const key = found.key ?? generateKey();
    const order = { commonName: authorityName(commonName, this.#nowMs), key, nowMs: this.#nowMs };
    return await this.#write(file, { certificate: makeAuthority(order, this.#dependencies.random), key });
  }

  async leaf(file: string, issuer: Issuer, request: LeafRequest): Promise<KeyPair> {
    const found = await this.#read(file);
    const due = found.certificate === undefined ? "missing" : this.#reasonToRenew(found.certificate, issuer, request);
    if (due === undefined && found.certificate !== undefined && found.key !== undefined) {
      const pair = { certificate: found.certificate, key: found.key };
      if (mismatch(pair) === undefined) return pair;
    }
    const key = generateKey();
    const [authority = ""] = splitPem(issuer.certificate);
    const certificate = issueCertificate(
      { ...request, ...leafTimes(issuer.certificate, this.#nowMs) },
      key,
      { certificate: authority, key: issuer.key },
      this.#dependencies.random,
    );
    const reason = due ?? "key does not fit";
    this.#issued.set(reason, [...(this.#issued.get(reason) ?? []), file]);
    return await this.#write(file, { certificate: certificate + issuer.certificate, key });
  }

  /** Logs what was issued, in one line for each reason: at a first start that is all there is. */
  tell(): void {
    for (const [reason, files] of this.#issued) {
      this.#dependencies.log.info("certificates issued", { reason, files: files.join(" ") });
    }
    this.#issued.clear();
  }

  async signingKey(file: string): Promise<Pki["serviceAccount"]> {
    const path = join(this.#folder, file);
    let text = (await readFileIfExists(path))?.toString("utf8");
    if (text === undefined) {
      text = generateKey();
      await writeFileDurable(path, text, 0o600);
    }
    const keys = text.match(/-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+-----END [A-Z ]*PRIVATE KEY-----/g) ?? [];
    const [privateKey] = keys;
    if (privateKey === undefined) throw new AppError("PKI_SIGNING_KEY", `${path} holds no private key`, { file });
    const publicKeys = keys.map((key) => createPublicKey(key).export({ type: "spki", format: "pem" }).toString());
    return { privateKey, publicKeys };
  }

  async #read(file: string): Promise<{ certificate: string | undefined; key: string | undefined }> {
    const text = async (extension: string) =>
      (await readFileIfExists(join(this.#folder, `${file}.${extension}`)))?.toString("utf8");
    return { certificate: await text("crt"), key: await text("key") };
  }

  async #write(file: string, pair: KeyPair): Promise<KeyPair> {
    // A crash between the two leaves a leaf's key that does not fit (it is re-issued) or an authority's key alone (it gets
    // its certificate at the next start).
    await writeFileDurable(join(this.#folder, `${file}.key`), pair.key, 0o600);
    await writeFileDurable(join(this.#folder, `${file}.crt`), pair.certificate, 0o600);
    return pair;
  }

  #reasonToRenew(bundle: string, issuer: Issuer, request: LeafRequest): string | undefined {
    let leaf: X509Certificate;
    try {
      leaf = new X509Certificate(bundle);
    } catch (error) {
      return `unreadable: ${messageOf(error)}`;
    }
    const authority = new X509Certificate(issuer.certificate);
    if (!leaf.checkIssued(authority) || !leaf.verify(authority.publicKey)) return "authority changed";
    const endMs = Date.parse(leaf.validTo);
    // Under an authority that ends soon a new one would end no later, again and again.
    const isWorthIt = leafTimes(issuer.certificate, this.#nowMs).notAfterMs - endMs > dayMs;
    if (endMs - this.#nowMs < renewMs && isWorthIt) return "near its end";
    const subject = [...(request.organizations ?? []).map((name) => `O=${name}`), `CN=${request.commonName}`].join(
      "\n",
    );
    if (leaf.subject !== subject) return "subject changed";
    const wanted = [
      ...(request.dnsNames ?? []).map((name) => `DNS:${name}`),
      ...(request.ips ?? []).map((ip) => `IP Address:${canonicalIp(ip)}`),
    ].join(", ");
    return (leaf.subjectAltName ?? "") === wanted ? undefined : "names changed";
  }
}

/** Why they cannot sign for the cluster. */
export function authorityProblem(pair: KeyPair): string | undefined {
  return (
    mismatch(pair) ??
    (new X509Certificate(pair.certificate).ca ? undefined : "the first certificate is not that of an authority")
  );
}

/** Why certificate and key are no pair. */
function mismatch(pair: KeyPair): string | undefined {
  try {
    const fits = new X509Certificate(pair.certificate).checkPrivateKey(createPrivateKey(pair.key));
    return fits ? undefined : "the key does not belong to the certificate";
  } catch (error) {
    return messageOf(error);
  }
}

/** Who the API may be asked for as; for the certificates of other listeners too. */
export function servingNames(options: PkiOptions) {
  const domain = options.clusterDomain ?? "cluster.local";
  const isIp = (name: string) => name.includes(":") || /^[0-9.]+$/.test(name);
  const extra = options.extraNames ?? [];
  const short = options.nodeName.split(".")[0] ?? options.nodeName;
  const unique = (names: readonly string[]) => [...new Set(names)];
  return {
    apiserver: {
      dnsNames: unique([
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        `kubernetes.default.svc.${domain}`,
        "localhost",
        options.nodeName,
        short,
        ...extra.filter((name) => !isIp(name)),
      ]),
      ips: unique([
        "127.0.0.1",
        "::1",
        ...(options.serviceIps ?? ["10.43.0.1"]),
        ...options.nodeIps,
        ...extra.filter(isIp),
      ]),
    },
    kubelet: {
      dnsNames: unique([options.nodeName, "localhost"]),
      ips: unique(["127.0.0.1", "::1", ...options.nodeIps]),
    },
  };
}

/** How node:crypto prints an address: IPv6 as eight upper-case groups without leading zeros. */
function canonicalIp(ip: string): string {
  if (!ip.includes(":")) return ip;
  const [head = "", tail] = ip.split("::");
  const groups = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const all = [...left, ...Array<string>(8 - left.length - right.length).fill("0"), ...right];
  return all.map((group) => Number.parseInt(group, 16).toString(16).toUpperCase()).join(":");
}
