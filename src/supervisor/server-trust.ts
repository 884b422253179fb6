// Whom a machine believes to be a server of its cluster: whoever proves to own one of the authorities that it has kept, or
// that the token names. Keys count and dates do not, for a device may have been away for years; nor does the address, for
// nodes are certified for addresses as well. Upstream counterpart: k3s pkg/clientaccess.
import { createHash, X509Certificate } from "node:crypto";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { createHttpClient, type HttpClient } from "#platform/http-client.ts";
import { explainAnswer, wrongAuthority } from "./join/failures.ts";
import { ask } from "./join/request.ts";
import { serverName } from "./load-balancer.ts";
import { splitPem } from "./pki/certificate.ts";
import { namedAuthority, type Token } from "./tokens.ts";

export interface TrustDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * PEM of the authorities whose keys are believed: those that were kept, or what the token names among those that the server
 * claims to have.
 */
export async function trustedAuthority(
  { server }: { readonly server: string },
  token: Token | undefined,
  kept: string | undefined,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<string> {
  const hash = token?.caHash ?? "";
  const named = (bundle: string) => (hash === "" ? bundle : namedAuthority(bundle, hash));
  if (kept !== undefined && named(kept) !== undefined) return kept;
  const claimedTo = (client: HttpClient) => claimedAuthorities(client, server, deps, signal);
  const proven = (ca: string) => claimedTo(createHttpClient({ baseUrl: server, ca, trust: "keys", serverName }));
  const claimed = await claimedTo(createHttpClient({ baseUrl: server, insecureSkipTlsVerify: true }));
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

/** What a server says that its authorities are, to a client that is used for this only. */
async function claimedAuthorities(
  client: HttpClient,
  server: string,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<string> {
  try {
    const question = { method: "GET", path: "/cacerts", headers: {} };
    const { status, text } = await ask(client, question, server, deps, signal);
    if (status !== 200) throw explainAnswer(status === 401 || status === 403 ? 404 : status, text, server);
    return text;
  } finally {
    client.close();
  }
}

/** Whether it is PEM of certificates, and of at least one. */
export function isCertificates(text: string): boolean {
  try {
    const found = splitPem(text).map((pem) => new X509Certificate(pem));
    return found.length > 0;
  } catch {
    return false;
  }
}

/** The keys of a bundle's authorities, each once, as base64 of their SHA-256. */
export function authorityKeys(bundle: string): readonly string[] {
  const hashOf = (pem: string) =>
    createHash("sha256")
      .update(new X509Certificate(pem).publicKey.export({ type: "spki", format: "der" }))
      .digest("base64");
  return [...new Set(splitPem(bundle).map(hashOf))];
}
