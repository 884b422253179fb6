// How a command reaches a server by its address and the cluster's whole token, from a machine that has no kubeconfig: the hash in
// the token says who is believed, before the password goes to anybody.
import { silentLogger } from "#base/log.ts";
import { usageError } from "#cli/flags.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { createHttpClient, type HttpClient } from "#platform/http-client.ts";
import { serverName } from "#supervisor/load-balancer.ts";
import { trustedAuthority } from "#supervisor/server-trust.ts";
import { parseToken } from "#supervisor/tokens.ts";
import { serverUrl } from "./node-config.ts";

/** `ca` in PEM. Rejects with JOIN_*; the caller closes `http`. */
export async function openServerClient(
  address: string,
  tokenText: string,
): Promise<{ readonly http: HttpClient; readonly ca: string }> {
  const server = serverUrl(address);
  const token = parseToken(tokenText);
  if (token.caHash === "") {
    throw usageError("token: with --server the whole token is needed, K10…::server:…: its hash says who is believed");
  }
  const ca = await trustedAuthority(
    { server },
    token,
    undefined,
    { clock, log: silentLogger },
    new AbortController().signal,
  );
  return { http: createHttpClient({ baseUrl: server, ca, trust: "keys", serverName }), ca };
}
