// What a pod's resolv.conf and hosts file say. Pure. Sources: the Kubernetes page "DNS for Services and Pods".
import type { Pod } from "#model/gen/core-v1.ts";

export interface DnsSettings {
  readonly servers: string[];
  readonly searches: string[];
  readonly options: string[];
}

export interface DnsContext {
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  readonly host: DnsSettings;
}

/** Bounds of the API and of libc. */
const maxServers = 3;
const maxSearches = 32;

export function parseResolvConf(text: string): DnsSettings {
  const out: DnsSettings = { servers: [], searches: [], options: [] };
  for (const line of text.split("\n")) {
    const [key, ...values] = line
      .replace(/[#;].*$/, "")
      .trim()
      .split(/\s+/);
    if (key === "nameserver" && values[0]) out.servers.push(values[0]);
    // The last search line wins.
    else if (key === "search") out.searches.splice(0, out.searches.length, ...values.filter((v) => v !== "."));
    else if (key === "options") out.options.push(...values);
  }
  return out;
}

export function podDns(pod: Pod, context: DnsContext): DnsSettings {
  const own = pod.spec.dnsConfig;
  let policy = pod.spec.dnsPolicy ?? "ClusterFirst";
  if (policy === "ClusterFirst" && pod.spec.hostNetwork) policy = "Default";
  let base: DnsSettings;
  if (policy === "None") base = { servers: [], searches: [], options: [] };
  else if (policy === "Default") base = context.host;
  else {
    const { clusterDomain } = context;
    base = {
      servers: [...context.clusterDns],
      searches: [
        `${pod.metadata.namespace}.svc.${clusterDomain}`,
        `svc.${clusterDomain}`,
        clusterDomain,
        ...context.host.searches,
      ],
      options: ["ndots:5"],
    };
  }
  const named = new Map<string, string>();
  for (const option of base.options) named.set(option.split(":")[0]!, option);
  for (const { name, value } of own?.options ?? [])
    if (name) named.set(name, value === undefined ? name : `${name}:${value}`);
  return {
    servers: [...new Set([...base.servers, ...(own?.nameservers ?? [])])].slice(0, maxServers),
    searches: [...new Set([...base.searches, ...(own?.searches ?? [])])].slice(0, maxSearches),
    options: [...named.values()],
  };
}

/** The longest host name Linux takes is 64; the API promises 63. */
const maxHostname = 63;

export function podHostname(
  pod: Pod,
  context: { readonly clusterDomain: string; readonly nodeName: string },
): {
  readonly hostname: string;
  readonly domain: string;
} {
  if (pod.spec.hostNetwork) return { hostname: context.nodeName, domain: "" };
  const hostname = (pod.spec.hostname || pod.metadata.name || "").slice(0, maxHostname).replace(/[-.]+$/, "");
  const domain = pod.spec.subdomain
    ? `${pod.spec.subdomain}.${pod.metadata.namespace}.svc.${context.clusterDomain}`
    : "";
  const full = pod.spec.setHostnameAsFQDN && domain ? `${hostname}.${domain}` : hostname;
  return { hostname: full, domain };
}

export function hostsFile(
  pod: Pod,
  context: {
    readonly ips: readonly string[];
    readonly hostname: string;
    readonly domain: string;
    /** The machine's own file, for pods in the host's network. */
    readonly hostFile: string;
  },
): string {
  let text: string;
  if (pod.spec.hostNetwork) text = `# Kubernetes-managed hosts file (host network).\n${context.hostFile}`;
  else {
    text = [
      "# Kubernetes-managed hosts file.",
      "127.0.0.1\tlocalhost",
      "::1\tlocalhost ip6-localhost ip6-loopback",
      "fe00::0\tip6-localnet",
      "fe00::0\tip6-mcastprefix",
      "fe00::1\tip6-allnodes",
      "fe00::2\tip6-allrouters",
      ...context.ips.map((ip) =>
        context.domain
          ? `${ip}\t${context.hostname}.${context.domain}\t${context.hostname}`
          : `${ip}\t${context.hostname}`,
      ),
      "",
    ].join("\n");
  }
  const aliases = pod.spec.hostAliases ?? [];
  if (aliases.length === 0) return text;
  const lines = aliases.map((alias) => [alias.ip, ...(alias.hostnames ?? [])].join("\t"));
  return `${text}\n# Entries added by HostAliases.\n${lines.join("\n")}\n`;
}
