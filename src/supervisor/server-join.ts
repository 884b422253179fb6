// A further server joins: it trusts a server of the cluster by the hash in the token, makes sure that both are set up for the
// same cluster, and takes over what all servers have alike. Only before its first start; from then on it has it on disk.
// Upstream counterpart: k3s pkg/cluster/bootstrap.go and pkg/daemons/config.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { AppError, isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { exists } from "#platform/files.ts";
import { createHttpClient } from "#platform/http-client.ts";
import { parseFiles, sharedFiles, writeFiles } from "./bootstrap/files.ts";
import { explainAnswer, isLasting } from "./join/failures.ts";
import { formatSettings, prefix, type ServerSettings } from "./join/protocol.ts";
import { serverName } from "./load-balancer.ts";
import { createRepeatedProblem } from "./repeated-problem.ts";
import { ask, trustedAuthority } from "./server-trust.ts";
import { parseToken } from "./tokens.ts";

export interface ServerJoinOptions {
  /** https://HOST:PORT of a server that is there. */
  readonly server: string;
  readonly token: string | undefined;
  /** DATA-DIR/server. */
  readonly serverDir: string;
  /** Of this server. */
  readonly settings: ServerSettings;
}

export interface ServerJoinDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** k3s's list, as far as it is said here. */
const critical = [
  ...["ClusterIPRange", "ClusterIPRanges", "ServiceIPRange", "ServiceIPRanges", "ClusterDNS", "ClusterDNSs"],
  ...["ClusterDomain", "DisableCCM", "DisableNPC", "DisableServiceLB", "EmbeddedRegistry", "FlannelBackend"],
  ...["FlannelIPv6Masq", "FlannelExternalIP", "EgressSelectorMode", "SupervisorMetrics"],
] as const;
/** What they are called as flags. */
const flagOf: Readonly<Record<string, string>> = {
  ClusterIPRange: "cluster-cidr",
  ClusterIPRanges: "cluster-cidr",
  ServiceIPRange: "service-cidr",
  ServiceIPRanges: "service-cidr",
  ClusterDNS: "cluster-dns",
  ClusterDNSs: "cluster-dns",
  ClusterDomain: "cluster-domain",
  FlannelBackend: "flannel-backend",
  FlannelIPv6Masq: "flannel-ipv6-masq",
  FlannelExternalIP: "flannel-external-ip",
  EgressSelectorMode: "egress-selector-mode",
};
/** What a server of k3s may have and one of mote has not, or the other way about: it is for the other server to change. */
const changeThere: Readonly<Record<string, string>> = {
  DisableCCM: "with --disable-cloud-controller",
  DisableServiceLB: "with --disable=servicelb",
  DisableNPC: "without --disable-network-policy",
  EmbeddedRegistry: "without --embedded-registry",
  SupervisorMetrics: "without --supervisor-metrics",
};
const retryMs = 3000;

/** Resolves when the files are on disk. Rejects with JOIN_* where trying again cannot help, and with the signal's reason. */
export async function joinAsServer(
  options: ServerJoinOptions,
  deps: ServerJoinDeps,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log } = deps;
  if (await exists(`${options.serverDir}/${sharedFiles.ServerCAKey}`)) return;
  if (options.token === undefined) {
    const message = "a server joins with --token: the line in server/token of the data folder of the one that is there";
    throw new AppError("JOIN_TOKEN", message);
  }
  const problem = createRepeatedProblem(clock);
  for (;;) {
    try {
      return await joinOnce(options, options.token, deps, signal);
    } catch (error) {
      if (isAbort(error, signal) || isLasting(error)) throw error;
      const fields = { error: messageOf(error) };
      if (problem.isNews(fields.error)) log.warn("cannot join yet, trying again", fields);
      else log.debug("cannot join yet, trying again", fields);
      await pause(clock, retryMs, signal);
      signal.throwIfAborted();
    }
  }
}

async function joinOnce(
  { server, serverDir, settings }: ServerJoinOptions,
  tokenText: string,
  deps: ServerJoinDeps,
  signal: AbortSignal,
): Promise<void> {
  const token = parseToken(tokenText);
  if (token.bootstrap) {
    throw new AppError("JOIN_TOKEN", "a server joins with the servers' token; a bootstrap token lets nodes join only");
  }
  const ca = await trustedAuthority({ server }, token, undefined, deps, signal);
  const http = createHttpClient({ baseUrl: server, ca, trust: "keys", serverName });
  const authorization = `Basic ${Buffer.from(`server:${token.password}`).toString("base64")}`;
  const call = async (path: string): Promise<string> => {
    const request = { method: "GET", path: `${prefix}${path}`, headers: { authorization } };
    const { status, text } = await ask(http, request, server, deps, signal);
    if (status !== 200) throw explainAnswer(status, text, server);
    return text;
  };
  try {
    const different = differingSettings(await call("config"), settings);
    if (different.length > 0) {
      const here = different.filter((one) => one.startsWith("--"));
      const there = different.filter((one) => !one.startsWith("--"));
      const advice = [
        ...(here.length > 0 ? [`give it the same ${here.join(", ")}`] : []),
        ...(there.length > 0 ? [`start that one ${there.join(", ")}`] : []),
      ];
      const message = `this server is set up otherwise than ${server}: ${advice.join("; ")}`;
      throw new AppError("JOIN_SETTINGS", message, { settings: different });
    }
    const files = parseFiles(await call("server-bootstrap"));
    await writeFiles(serverDir, files, [...files.keys()]);
    deps.log.info("keys of the cluster received", { server, files: files.size });
  } finally {
    http.close();
  }
}

/** As flags of this server, or as what is to be changed at the other. What the other does not say is not compared. */
export function differingSettings(text: string, own: ServerSettings): readonly string[] {
  let theirs: Readonly<Record<string, unknown>>;
  try {
    theirs = JSON.parse(text) as Readonly<Record<string, unknown>>;
  } catch {
    throw new AppError("JOIN_ANSWER", "the server's settings are no JSON object");
  }
  const ours = formatSettings(own);
  const different = critical.filter(
    (name) => theirs[name] !== undefined && JSON.stringify(theirs[name]) !== JSON.stringify(ours[name]),
  );
  return [...new Set(different.map((name) => (flagOf[name] ? `--${flagOf[name]}` : (changeThere[name] ?? name))))];
}
