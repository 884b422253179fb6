// Which server is believed, and how it is asked: by the keys of the authorities that a token or an earlier join names, and never
// by its address. What is asked before that is what anybody may know, and no password goes with it.
// Invariant: every answer is bounded in bytes and time. Upstream counterpart: k3s pkg/clientaccess.
import { createHash, X509Certificate } from "node:crypto";
import type { Clock } from "#base/clock.ts";
import { AppError, isAbort } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { createHttpClient, type HttpClient, readBody } from "#platform/http-client.ts";
import { explain, explainAnswer, wrongAuthority } from "./join/failures.ts";
import { serverName } from "./load-balancer.ts";
import { splitPem } from "./pki/certificate.ts";
import { namedAuthority, type Token } from "./tokens.ts";

/** How long an answer may be silent: k3s's, for one request. */
const timeoutMs = 10_000;
/** Until it is whole. A busy server takes its time; whoever only answers in its place could take for ever. */
const wholeMs = 60_000;
/** Certificates, settings and messages; none is above some KiB. */
const maxBodyBytes = 1024 * 1024;

/**
 * PEM of the authorities whose keys are believed: those that were kept, or what the token names among those that the server
 * claims to have.
 */
export async function trustedAuthority(
  options: { readonly server: string },
  token: Token | undefined,
  kept: string | undefined,
  deps: { readonly clock: Clock; readonly log: Logger },
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

export function isCertificates(text: string): boolean {
  try {
    const found = splitPem(text).map((pem) => new X509Certificate(pem));
    return found.length > 0;
  } catch {
    return false;
  }
}

/** What the authorities of a bundle are known by. */
export const keysIn = (bundle: string): readonly string[] => {
  const hashOf = (pem: string) =>
    createHash("sha256")
      .update(new X509Certificate(pem).publicKey.export({ type: "spki", format: "der" }))
      .digest("base64");
  return [...new Set(splitPem(bundle).map(hashOf))];
};

export async function ask(
  client: HttpClient,
  request: {
    readonly method: string;
    readonly path: string;
    readonly headers: Record<string, string>;
    readonly body?: Uint8Array;
  },
  server: string,
  { clock }: { readonly clock: Clock },
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
