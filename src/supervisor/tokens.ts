// Join tokens in the k3s format: K10<hash>::<user>:<password>, where the hash pins the server's authority, so that a
// joining node knows whom it talks to before it trusts anything. Files: server/token, server/node-token; server/agent-token
// where nodes have one of their own; and server/cred/passwd, in which servers find what is the same for all of them.
import { createHash, timingSafeEqual, X509Certificate } from "node:crypto";
import { join } from "node:path";
import type { Random } from "#base/clock.ts";
import { AppError, hasCode } from "#base/errors.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { splitPem } from "./pki/certificate.ts";

export interface Token {
  /** 64 hex digits, or empty where the token is a bare password. */
  readonly caHash: string;
  readonly user: string;
  readonly password: string;
  /** kubeadm-style `id.secret` instead of user and password. */
  readonly bootstrap: boolean;
}

const howToCopy = "copy the whole line of server/token in the server's data folder";

/** Takes full and short tokens apart; throws TOKEN_FORMAT with what is wrong. */
export function parseToken(text: string): Token {
  const trimmed = text.trim();
  let caHash = "";
  let credentials = trimmed;
  if (trimmed.startsWith(prefix)) {
    const separator = trimmed.indexOf("::");
    if (separator < 0) throw new AppError("TOKEN_FORMAT", `invalid token: no '::' after the hash; ${howToCopy}`);
    caHash = trimmed.slice(prefix.length, separator);
    if (caHash !== "" && !/^[0-9a-f]{64}$/.test(caHash)) {
      throw new AppError("TOKEN_FORMAT", `invalid token: its hash is not 64 hexadecimal digits; ${howToCopy}`);
    }
    credentials = trimmed.slice(separator + 2);
  }
  if (credentials === "")
    throw new AppError(
      "TOKEN_FORMAT",
      `invalid token: ${trimmed === "" ? "it is empty" : "nothing after its hash"}; ${howToCopy}`,
    );
  if (/^[a-z0-9]{6}\.[a-z0-9]{16}$/.test(credentials)) {
    return { caHash, user: "", password: credentials, bootstrap: true };
  }
  const colon = trimmed.startsWith(prefix) ? credentials.indexOf(":") : -1;
  const [user, password] = colon < 0 ? ["", credentials] : [credentials.slice(0, colon), credentials.slice(colon + 1)];
  // Everybody knows the empty secret.
  if (password === "") throw new AppError("TOKEN_FORMAT", `invalid token: its password is empty; ${howToCopy}`);
  return { caHash, user, password, bootstrap: false };
}

export function formatToken(caPem: string, user: string, password: string): string {
  return `${prefix}${caHash(caPem)}::${user}:${password}`;
}

/** A self-made single authority: SHA-256 of the PEM text; a chain that verifies: SHA-256 of its root's DER. */
export function caHash(caPem: string): string {
  const sha256 = (data: string | Uint8Array) => createHash("sha256").update(data).digest("hex");
  const certificates = splitPem(caPem).map((pem) => new X509Certificate(pem));
  let current = certificates[0];
  if (certificates.length <= 1 || !current) return sha256(caPem);
  // One step per certificate at most: a loop of cross-signed authorities must end too.
  for (let step = 0; step < certificates.length; step++) {
    const child: X509Certificate = current;
    if (child.checkIssued(child) && child.verify(child.publicKey)) return sha256(child.raw);
    const parents = certificates.filter((c) => c !== child && child.checkIssued(c) && child.verify(c.publicKey));
    // The shortest way, as Go takes it, where several authorities have vouched for one.
    const parent = parents.find((c) => c.checkIssued(c)) ?? parents[0];
    if (!parent) break;
    current = parent;
  }
  return sha256(caPem);
}

/**
 * The certificate that a hash names among those that a server claims to have: the root of the chain, or one that stood alone
 * when the token was made. Only what leads to it may be believed: the others came along with it.
 */
export function namedAuthority(bundle: string, hash: string): string | undefined {
  const blocks = splitPem(bundle);
  const sha256 = (data: string | Uint8Array) => createHash("sha256").update(data).digest("hex");
  if (sha256(bundle) === hash) return bundle;
  return blocks.find((pem) => sha256(pem) === hash || sha256(new X509Certificate(pem).raw) === hash);
}

export interface Passwords {
  /** Of servers; nodes may use it too. */
  readonly password: string;
  /** Of nodes: the same, or one that lets nobody in as a server. */
  readonly agentPassword: string;
}

export interface TokenFiles extends Passwords {
  /** The full token, as in server/token. */
  readonly token: string;
}

interface TokenOptions {
  readonly folder: string;
  readonly serverCa: string;
}

const passwdFile = "cred/passwd";
const otherFile = "token-other";

/** What an earlier start was told or made; undefined: it is the first. */
export async function knownPassword(folder: string): Promise<string | undefined> {
  const text = (await readFileIfExists(join(folder, "token")))?.toString("utf8").trim();
  return text ? parseToken(text).password : undefined;
}

/**
 * Makes the files of the tokens, or keeps the passwords that are there. `wanted` (from --token) must fit what is known: a
 * changed password would lock out what was encrypted or joined with the old one. `agreed` is the one that all servers have,
 * and needs no fitting. `wantedForAgents` (from --agent-token) counts when it is there.
 */
export async function ensureTokens(
  options: TokenOptions & { readonly wanted?: string; readonly agreed?: string; readonly wantedForAgents?: string },
  dependencies: { readonly random: Random },
): Promise<TokenFiles> {
  await makeFolder(options.folder, 0o700);
  const path = join(options.folder, "token");
  const wanted = options.wanted === undefined ? undefined : parseToken(options.wanted).password;
  const known = await knownPassword(options.folder);
  if (options.agreed === undefined && wanted !== undefined && known !== undefined && !sameText(wanted, known)) {
    throw new AppError(
      "TOKEN_CHANGED",
      `the token given differs from the one in ${path}: give that one; mote token rotate changes it`,
      { path },
    );
  }
  const password = options.agreed ?? known ?? wanted ?? Buffer.from(dependencies.random.bytes(16)).toString("hex");
  const forAgents = options.wantedForAgents === undefined ? undefined : parseToken(options.wantedForAgents).password;
  const kept = await agentPasswordIn(options.folder);
  // Who had none of their own has none now.
  const agentPassword = forAgents ?? (kept === undefined || kept === known ? password : kept);
  const passwords = { password, agentPassword };
  return { token: await writeTokens(options, passwords), ...passwords };
}

/** Whoever joins from now on needs the new passwords; nodes that have joined have certificates. */
export async function writeTokens(options: TokenOptions, { password, agentPassword }: Passwords): Promise<string> {
  const token = formatToken(options.serverCa, "server", password);
  // k3s links node-token to token; a copy says the same and survives file systems without links.
  for (const name of ["token", "node-token"]) await write(options.folder, name, `${token}\n`);
  const ofAgents = formatToken(options.serverCa, "node", agentPassword);
  const hasAgentToken = (await readFileIfExists(join(options.folder, "agent-token"))) !== undefined;
  if (agentPassword !== password || hasAgentToken) await write(options.folder, "agent-token", `${ofAgents}\n`);
  // Only what is not the rule has to be found again, here and by other servers.
  const hasRows = (await readFileIfExists(join(options.folder, passwdFile))) !== undefined;
  if (agentPassword !== password || hasRows) {
    const rows = `${agentPassword},node,node,k3s:agent\n${password},server,server,k3s:server\n`;
    await makeFolder(join(options.folder, "cred"), 0o700);
    await write(options.folder, passwdFile, rows);
  }
  return token;
}

/**
 * Under which the keys of the cluster may lie, beside the password in server/token: this server was stopped while it changed the
 * one to the other, or was not told how that ended. What stands in server/token counts.
 */
export const otherPassword = async (folder: string): Promise<string | undefined> =>
  (await readFileIfExists(join(folder, otherFile)))?.toString("utf8").trim() || undefined;

export const forgetOtherPassword = (folder: string): Promise<void> => removeFile(join(folder, otherFile));

/** The same where other servers have to know; what cannot be told to them stays as it was. */
export async function changeTokens(
  options: TokenOptions,
  next: Passwords,
  shared: { rotate(password: string): Promise<void>; save(): Promise<void> } | undefined,
): Promise<void> {
  const password = await knownPassword(options.folder);
  const before = password && { password, agentPassword: (await agentPasswordIn(options.folder)) ?? password };
  if (shared && before) await write(options.folder, otherFile, `${before.password}\n`);
  await writeTokens(options, next);
  if (!shared) return;
  let isRotated = false;
  try {
    await shared.rotate(next.password);
    isRotated = true;
    await shared.save();
  } catch (error) {
    const isRefused = !isRotated && (hasCode(error, "BOOTSTRAP_CONFLICT") || hasCode(error, "BOOTSTRAP_TOKEN"));
    if (before) await writeTokens(options, before);
    if (isRefused) await forgetOtherPassword(options.folder);
    // Else nobody knows whether it came to pass: the next start takes it back where it did.
    else await write(options.folder, otherFile, `${next.password}\n`);
    throw error;
  }
  await forgetOtherPassword(options.folder);
}

async function write(folder: string, name: string, text: string): Promise<void> {
  const path = join(folder, name);
  if ((await readFileIfExists(path))?.toString("utf8") !== text) await writeFileDurable(path, text, 0o600);
}

/** Of k3s's table of users, PASSWORD,NAME,UID,GROUP: the row of nodes. */
async function agentPasswordIn(folder: string): Promise<string | undefined> {
  const text = (await readFileIfExists(join(folder, passwdFile)))?.toString("utf8") ?? "";
  const row = text.split("\n").find((line) => line.split(",")[1] === "node");
  return row?.split(",")[0] || undefined;
}

const prefix = "K10";

/** In time that does not depend on the content. */
export function sameText(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
