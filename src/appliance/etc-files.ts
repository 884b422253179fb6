// Files of /etc that differ from device to device, rendered at every start into a layer that is gone with the power. Pure.
import { stringifyYaml } from "#wire/yaml.ts";
import type { MachineConfig } from "./machine-config.ts";

export interface EtcFile {
  /** Below /etc. */
  readonly path: string;
  readonly text: string;
  readonly mode: number;
}

export interface EtcFacts {
  readonly hostname: string;
  /** The host name of the first start. */
  readonly nodeName: string;
  readonly machineId: string;
  readonly machine: MachineConfig;
  /** Keys of config.yaml from mote.yaml. */
  readonly server: Readonly<Record<string, unknown>>;
  readonly token?: string;
  readonly dataDir: string;
  readonly runDir: string;
}

export function etcFiles(facts: EtcFacts): EtcFile[] {
  const { machine } = facts;
  const labels = Object.entries(machine.labels).map(([key, value]) => `${key}=${value}`);
  const given = facts.server["node-label"] ?? [];
  const config = {
    "node-name": facts.nodeName,
    ...facts.server,
    ...(facts.token === undefined ? {} : { token: facts.token }),
    ...(labels.length > 0 ? { "node-label": [...(Array.isArray(given) ? given : [given]), ...labels] } : {}),
    "data-dir": facts.dataDir,
    "run-dir": facts.runDir,
    "write-kubeconfig": `${facts.dataDir}/kubeconfig.yaml`,
  };
  return [
    { path: "hostname", text: `${facts.hostname}\n`, mode: 0o644 },
    {
      path: "hosts",
      text: `127.0.0.1 localhost\n127.0.1.1 ${facts.hostname}\n::1 localhost ip6-localhost\n`,
      mode: 0o644,
    },
    { path: "machine-id", text: `${facts.machineId}\n`, mode: 0o444 },
    // Holds the token.
    { path: "mote/config.yaml", text: stringifyYaml(config), mode: 0o600 },
  ];
}

/** Of configured servers; leases bring their own. */
export function resolvConf(dns: MachineConfig["dns"]): string {
  const search = dns.search.length > 0 ? [`search ${dns.search.join(" ")}`] : [];
  return [...search, ...dns.servers.map((server) => `nameserver ${server}`), ""].join("\n");
}

/** Environment of containerd and of mote's own clients. */
export function proxyEnvironment(
  proxy: MachineConfig["proxy"],
  clusterRanges: readonly string[],
): Readonly<Record<string, string>> {
  if (proxy.http === undefined && proxy.https === undefined) return {};
  const exclude = ["localhost", "127.0.0.0/8", ".svc", ".cluster.local", ...clusterRanges, ...proxy.exclude].join(",");
  const entries = { HTTP_PROXY: proxy.http, HTTPS_PROXY: proxy.https ?? proxy.http, NO_PROXY: exclude };
  return Object.fromEntries(
    Object.entries(entries).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}
