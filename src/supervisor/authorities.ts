// A cluster's authorities are replaced: new ones come from the owner, or are made so that the old ones vouch for them.
//
//   accept (while the server runs): read ─▶ check against those that are ─▶ server/tls-next, whole or not at all
//   apply (at the next start):      check again, tls ─▶ copy in tls-TIME, then each file of tls-next ─▶ tls
//
// A bundle begins with the authority that signs; then follow those by which nodes that know older ones get to it, however
// long they were away. Names and the body of the request are k3s's. Upstream counterpart: k3s pkg/server/handlers/cert.go.
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import type { Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import { badRequest } from "#model/status.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile, removeTree } from "#platform/folders.ts";
import { leadsTo } from "#wire/certificate-chain.ts";
import { copyFiles } from "./leaf-rotation.ts";
import { generateKey, splitPem } from "./pki/certificate.ts";
import { authorityName, authorityProblem, makeAuthority, type PkiDependencies } from "./pki.ts";

/** Files of server/tls, by their names in bodies and records. */
export const authorityFiles = {
  ServerCA: "server-ca.crt",
  ServerCAKey: "server-ca.key",
  ClientCA: "client-ca.crt",
  ClientCAKey: "client-ca.key",
  RequestHeaderCA: "request-header-ca.crt",
  RequestHeaderCAKey: "request-header-ca.key",
  ETCDServerCA: "etcd/server-ca.crt",
  ETCDServerCAKey: "etcd/server-ca.key",
  ETCDPeerCA: "etcd/peer-ca.crt",
  ETCDPeerCAKey: "etcd/peer-ca.key",
  ServiceKey: "service.key",
} as const;
type AuthorityFile = keyof typeof authorityFiles;
/** PEM by name. */
export type Authorities = Partial<Record<AuthorityFile, string>>;

const fileNames = Object.keys(authorityFiles) as AuthorityFile[];
const pairs = [
  ["ServerCA", "ServerCAKey", "mote-server-ca"],
  ["ClientCA", "ClientCAKey", "mote-client-ca"],
  ["RequestHeaderCA", "RequestHeaderCAKey", "mote-request-header-ca"],
  ["ETCDServerCA", "ETCDServerCAKey", "etcd-server-ca"],
  ["ETCDPeerCA", "ETCDPeerCAKey", "etcd-peer-ca"],
] as const;

/** Ten generations with what vouches for them: one a year while a device is away. A bundle is sent in every handshake. */
const maxBundle = 21;
/** Tokens last an hour as a rule; those that last longer are few, and are made anew. */
const maxServiceKeys = 5;

/** What of them stands in a folder. */
export async function readAuthorities(folder: string): Promise<Authorities> {
  const found: Authorities = {};
  for (const name of fileNames) {
    const text = (await readFileIfExists(`${folder}/${authorityFiles[name]}`))?.toString("utf8");
    if (text !== undefined) found[name] = text;
  }
  return found;
}

/** New ones with new keys, for which the old ones vouch; a new key for tokens before the old ones. */
export function nextAuthorities(current: Authorities, nowMs: number, random: Random): Authorities {
  const next: Authorities = {};
  for (const [name, keyName, commonName] of pairs) {
    const [bundle, oldKey] = [current[name], current[keyName]];
    if (bundle === undefined || oldKey === undefined) continue;
    const key = generateKey();
    const order = { commonName: authorityName(commonName, nowMs), key, nowMs };
    const vouched = makeAuthority({ ...order, issuer: { certificate: bundle, key: oldKey } }, random);
    const all = [vouched, ...splitPem(bundle), makeAuthority(order, random)];
    // Who vouches stands before the middle, latest first, and who needs nobody after it, oldest first.
    while (all.length > maxBundle) all.splice(Math.floor(all.length / 2) - 1, 2);
    [next[name], next[keyName]] = [all.join(""), key];
  }
  if (current.ServiceKey !== undefined) {
    next.ServiceKey = [generateKey(), ...privateKeysIn(current.ServiceKey)].slice(0, maxServiceKeys).join("");
  }
  return next;
}

/** Why the new ones cannot take the place of those that are. `isForced`: also where nobody who knows those will believe them. */
export function authoritiesProblem(current: Authorities, next: Authorities, isForced: boolean): string | undefined {
  if (fileNames.every((name) => next[name] === undefined))
    return "there is no authority, such as server-ca.crt and server-ca.key, in what is given with --path";
  for (const [name, keyName] of pairs) {
    const [certificate, key] = [next[name], next[keyName]];
    if (certificate === undefined && key === undefined) continue;
    const file = authorityFiles[name];
    if (certificate === undefined || key === undefined) return `${file}: certificate and key are needed together`;
    const problem = authorityProblem({ certificate, key }) ?? unreadableIn(certificate);
    if (problem !== undefined) return `${file}: ${problem}`;
    if (isForced || isVouchedFor(certificate, current[name])) continue;
    return `${file}: no authority that the cluster has now vouches for it; nodes would have to join again (--force)`;
  }
  return next.ServiceKey === undefined ? undefined : serviceKeyProblem(current.ServiceKey, next.ServiceKey, isForced);
}

/** Whoever is sent the bundle reads all of it. */
function unreadableIn(bundle: string): string | undefined {
  try {
    certificatesIn(bundle);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

function isVouchedFor(bundle: string, known: string | undefined): boolean {
  if (known === undefined) return true;
  const [first, ...others] = certificatesIn(bundle);
  const anchors = certificatesIn(known);
  return (
    first !== undefined &&
    (anchors.some(({ publicKey }) => publicKey.equals(first.publicKey)) || leadsTo(first, others, anchors))
  );
}

function serviceKeyProblem(current: string | undefined, next: string, isForced: boolean): string | undefined {
  const { ServiceKey: file } = authorityFiles;
  const publicKeys = (text: string) =>
    privateKeysIn(text).map((pem) => createPublicKey(createPrivateKey(pem)).export({ type: "spki", format: "pem" }));
  try {
    const fresh = publicKeys(next);
    if (fresh.length === 0) return `${file}: there is no private key in it`;
    const [inUse] = current === undefined ? [] : publicKeys(current);
    if (isForced || inUse === undefined || fresh.includes(inUse)) return undefined;
    return `${file}: the key that tokens are signed with now is missing; tokens would be worth nothing at once (--force)`;
  } catch (error) {
    return `${file}: ${messageOf(error)}`;
  }
}

const certificatesIn = (bundle: string): X509Certificate[] => splitPem(bundle).map((pem) => new X509Certificate(pem));
const privateKeysIn = (text: string): string[] =>
  (text.match(/-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+-----END [A-Z ]*PRIVATE KEY-----/g) ?? []).map(
    (pem) => `${pem}\n`,
  );

export function formatAuthorities(authorities: Authorities, timestamp: string): string {
  const entries = fileNames.flatMap((name) => {
    const text = authorities[name];
    return text === undefined ? [] : [[name, { Timestamp: timestamp, Content: Buffer.from(text).toString("base64") }]];
  });
  return JSON.stringify(Object.fromEntries(entries));
}

function parseAuthorities(body: string): Authorities {
  const found: Authorities = {};
  try {
    const fields = JSON.parse(body) as Readonly<Record<string, { readonly Content?: unknown } | undefined>>;
    for (const name of fileNames) {
      const content = fields[name]?.Content;
      if (typeof content === "string" && content !== "") found[name] = Buffer.from(content, "base64").toString("utf8");
    }
  } catch {
    throw badRequest("the body is no JSON object of authorities");
  }
  return found;
}

/** `folder`: server/tls. Rejects with ApiError 400 and the reason. They count from the next start on. */
export async function acceptAuthorities(
  folder: string,
  request: { readonly body: string; readonly isForced: boolean },
): Promise<Authorities> {
  const next = parseAuthorities(request.body);
  const problem = authoritiesProblem(await readAuthorities(folder), next, request.isForced);
  if (problem !== undefined) throw badRequest(problem);
  const staged = stagedFolder(folder);
  // What was accepted before is whole until this file is gone.
  await removeFile(`${staged}/${complete}`);
  await removeTree(staged);
  await makeFolder(`${staged}/etcd`, 0o700);
  for (const name of fileNames) {
    const text = next[name];
    if (text !== undefined) await writeFileDurable(`${staged}/${authorityFiles[name]}`, text, 0o600);
  }
  await writeFileDurable(`${staged}/${complete}`, request.isForced ? "forced" : "vouched", 0o600);
  return next;
}

const stagedFolder = (folder: string): string => `${folder}-next`;
/** Written last, removed first. */
const complete = "complete";

/**
 * What was accepted takes its place. A crash in it is no harm: it is done again. Where another server has replaced the
 * authorities meanwhile, for which these do not vouch, it is dropped.
 */
export async function applyStaged(
  folder: string,
  { clock, log }: Pick<PkiDependencies, "clock" | "log">,
): Promise<void> {
  const staged = stagedFolder(folder);
  const mark = (await readFileIfExists(`${staged}/${complete}`))?.toString("utf8");
  if (mark === undefined) {
    // What was not accepted to its end, or has been applied.
    await removeTree(staged);
    return;
  }
  const next = await readAuthorities(staged);
  const problem = mark === "vouched" ? authoritiesProblem(await readAuthorities(folder), next, false) : undefined;
  if (problem !== undefined) {
    log.error("another server has replaced the authorities meanwhile; rotate them again", { problem });
    await removeFile(`${staged}/${complete}`);
    await removeTree(staged);
    return;
  }
  const backup = `${folder}-${Math.floor(clock.now() / 1000)}`;
  await copyFiles(folder, backup);
  for (const [name, text] of Object.entries(next)) {
    const path = `${folder}/${authorityFiles[name as AuthorityFile]}`;
    await makeFolder(path.replace(/\/[^/]*$/, ""), 0o700);
    await writeFileDurable(path, text, 0o600);
  }
  await removeFile(`${staged}/${complete}`);
  await removeTree(staged);
  log.info("the cluster has new authorities", { copy: backup });
}
