// Join tokens in the k3s format: K10<hash>::<user>:<password>, where the hash pins the server's authority, so that a
// joining node knows whom it talks to before it trusts anything. Files: server/token, server/node-token.
import { createHash, timingSafeEqual, X509Certificate } from "node:crypto";
import { join } from "node:path";
import type { Random } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { splitPem } from "./pki/certificate.ts";

export interface Token {
  /** 64 hex digits, or empty where the token is a bare password. */
  readonly caHash: string;
  readonly user: string;
  readonly password: string;
  /** kubeadm-style `id.secret` instead of user and password. */
  readonly bootstrap: boolean;
}

/** Takes full and short tokens apart; throws TOKEN_FORMAT with what is wrong. */
export function parseToken(text: string): Token {
  const trimmed = text.trim();
  let caHash = "";
  let credentials = trimmed;
  if (trimmed.startsWith(prefix)) {
    const separator = trimmed.indexOf("::");
    if (separator < 0) throw new AppError("TOKEN_FORMAT", "invalid token format: no '::' after the CA hash");
    caHash = trimmed.slice(prefix.length, separator);
    if (caHash !== "" && !/^[0-9a-f]{64}$/.test(caHash)) {
      throw new AppError("TOKEN_FORMAT", "invalid token CA hash: must be 64 hexadecimal digits");
    }
    credentials = trimmed.slice(separator + 2);
  }
  if (credentials === "") throw new AppError("TOKEN_FORMAT", "invalid token format: no credentials");
  if (/^[a-z0-9]{6}\.[a-z0-9]{16}$/.test(credentials)) {
    return { caHash, user: "", password: credentials, bootstrap: true };
  }
  const colon = trimmed.startsWith(prefix) ? credentials.indexOf(":") : -1;
  return colon < 0
    ? { caHash, user: "", password: credentials, bootstrap: false }
    : { caHash, user: credentials.slice(0, colon), password: credentials.slice(colon + 1), bootstrap: false };
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
    const parent = certificates.find((c) => c !== child && child.checkIssued(c) && child.verify(c.publicKey));
    if (!parent) break;
    current = parent;
  }
  return sha256(caPem);
}

export interface TokenFiles {
  /** The full token, as in server/token. */
  readonly token: string;
  readonly password: string;
}

/**
 * Makes server/token and server/node-token, or keeps the password that is there. `wanted` (from --token) must fit it:
 * a changed password would lock out what was encrypted or joined with the old one.
 */
export async function ensureTokens(
  options: { readonly folder: string; readonly serverCa: string; readonly wanted?: string },
  dependencies: { readonly random: Random },
): Promise<TokenFiles> {
  await makeFolder(options.folder, 0o700);
  const path = join(options.folder, "token");
  const old = (await readFileIfExists(path))?.toString("utf8");
  const wanted = options.wanted === undefined ? undefined : parseToken(options.wanted).password;
  const known = old === undefined || old.trim() === "" ? undefined : parseToken(old).password;
  if (wanted !== undefined && known !== undefined && !sameText(wanted, known)) {
    throw new AppError("TOKEN_CHANGED", `the token given differs from the one in ${path}`, { path });
  }
  const password = known ?? wanted ?? Buffer.from(dependencies.random.bytes(16)).toString("hex");
  return { token: await writeTokens(options, password), password };
}

/** Whoever joins from now on needs the new password; nodes that have joined have certificates. */
export async function writeTokens(
  options: { readonly folder: string; readonly serverCa: string },
  password: string,
): Promise<string> {
  const token = formatToken(options.serverCa, "server", password);
  const text = `${token}\n`;
  // k3s links node-token to token; a copy says the same and survives file systems without links.
  for (const file of ["token", "node-token"].map((name) => join(options.folder, name))) {
    if ((await readFileIfExists(file))?.toString("utf8") !== text) await writeFileDurable(file, text, 0o600);
  }
  return token;
}

const prefix = "K10";

/** In time that does not depend on the content. */
export function sameText(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
