// The cluster's name server, inside mote: listens on the cluster DNS addresses, one of each address family, which are added
// to the loopback device so that pods reach them without a translation. One runs on each node. `removeClusterDns` takes the
// addresses away again; `ensureDnsService` writes the kube-dns Service that people and tools look for.
// Upstream counterpart: CoreDNS as k3s deploys it.
import type { Clock, Random } from "#base/clock.ts";
import { AppError, isAbort, messageOf } from "#base/errors.ts";
import { familyOfIp } from "#base/ip-range.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service as Lifecycle } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { endpointSlices, services } from "#model/resources.ts";
import { isAlreadyExists, isNotFound } from "#model/status.ts";
import { readFileIfExists } from "#platform/files.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { createForwarder, type Resolver } from "./dns/forwarder.ts";
import { createInformerView } from "./dns/informer-view.ts";
import { upstreamsOf } from "./dns/resolv-conf.ts";
import { createResponder } from "./dns/responder.ts";
import { type DnsServer, openDnsServer } from "./dns/server.ts";

export interface ClusterDnsOptions {
  /** The cluster DNS addresses, e.g. 10.43.0.10; one of each family that services have. */
  readonly addresses: readonly string[];
  /** Default 53. */
  readonly port?: number;
  /** e.g. cluster.local */
  readonly clusterDomain: string;
  /** Resolvers for everything else; default: those of the machine's resolv.conf, read again as it changes. */
  readonly upstreams?: readonly Resolver[];
  /** False: `addresses` are already on this machine. */
  readonly addsAddress: boolean;
}

export interface ClusterDnsDeps {
  readonly informers: InformerFactory;
  readonly commands: Commands;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics?: Metrics;
}

/** Marks our addresses of IPv4, so that they can be found and removed by name. Those of IPv6 cannot have one. */
const addressLabel = "lo:mote";
const retryMinMs = 500;
const retryMaxMs = 30_000;
/** How often to see whether the address is still there. Reads the kernel only. */
const checkMs = 30_000;
const dnsPort = 53;

export function createClusterDns(options: ClusterDnsOptions, deps: ClusterDnsDeps): Lifecycle {
  return { name: "cluster-dns", run: (signal, ready) => serve(options, deps, signal, ready) };
}

async function serve(
  options: ClusterDnsOptions,
  deps: ClusterDnsDeps,
  signal: AbortSignal,
  ready: () => void,
): Promise<void> {
  const { clock, commands, informers, log, metrics, random } = deps;
  const view = createInformerView(informers);
  // The serial only has to grow with changes; starting from the clock it also grows over restarts.
  let serial = Math.floor(clock.now() / 1000) % 2 ** 32;
  const { addresses } = options;
  const zone = () => ({ clusterDomain: options.clusterDomain.toLowerCase(), dnsAddresses: addresses, serial });
  const resolvers = async (): Promise<readonly Resolver[]> => options.upstreams ?? (await machineResolvers(addresses));
  const forwarder = createForwarder({ resolvers, clock, random, log });
  const questions = metrics?.counter("coredns_dns_requests_total", "DNS questions answered.");
  const inner = createResponder({ view, zone, forwarder, random, log });
  const responder: typeof inner = {
    respond(query, transport) {
      questions?.add(1, { proto: transport });
      return inner.respond(query, transport);
    },
  };
  const unwatch = view.watch(() => {
    serial = (serial + 1) % 2 ** 32;
  });
  const servers = new Map<string, DnsServer>();
  const listen = async (address: string) => {
    if (options.addsAddress) await addAddress(commands, address);
    if (servers.has(address)) return;
    const server = await openDnsServer({ address, port: options.port ?? dnsPort }, { responder, clock, log });
    servers.set(address, server);
    log.info("cluster DNS listening", { address, port: server.port });
  };
  let retryMs = retryMinMs;
  let hasTried = false;
  const tried = () => {
    if (!hasTried) ready();
    hasTried = true;
  };
  try {
    // Answering before the first list would say of every service that it does not exist.
    await view.whenSynced(signal);
    while (!signal.aborted) {
      let isListening = true;
      for (const address of addresses) {
        try {
          await listen(address);
        } catch (error) {
          if (signal.aborted) break;
          log.error("cluster DNS cannot listen", { address, error: messageOf(error) });
          isListening = false;
        }
      }
      if (signal.aborted) break;
      // The node must come up although somebody else holds the port; the attempts go on.
      tried();
      await clock.sleep(isListening ? checkMs : retryMs, signal);
      retryMs = isListening ? retryMinMs : Math.min(retryMs * 2, retryMaxMs);
    }
  } catch (error) {
    if (!isAbort(error, signal)) throw error;
  } finally {
    unwatch();
    for (const server of servers.values()) await server.close();
  }
}

interface LoopbackAddress {
  readonly local?: string;
  readonly prefixlen?: number;
  readonly deprecated?: boolean;
}

/** Of loopback, in one family; none where the kernel does not have it. */
async function loopbackAddresses(commands: Commands, family: "-4" | "-6"): Promise<LoopbackAddress[]> {
  const shown = await runChecked(commands, "ip", ["-j", family, "addr", "show", "dev", "lo"]);
  const links = JSON.parse(shown === "" ? "[]" : shown) as { addr_info?: LoopbackAddress[] }[];
  return links.flatMap(({ addr_info = [] }) => addr_info);
}

/**
 * For this machine and its pods, and never announced: IPv4 has a scope for it. An address of IPv6 is made a deprecated one
 * instead, which the kernel does not choose for what the machine itself sends.
 */
async function addAddress(commands: Commands, address: string): Promise<void> {
  const isIpv6 = address.includes(":");
  const known = await loopbackAddresses(commands, isIpv6 ? "-6" : "-4");
  if (known.some(({ local }) => local === address)) return;
  const how = isIpv6 ? ["nodad", "preferred_lft", "0"] : ["label", addressLabel, "scope", "host"];
  await runChecked(commands, "ip", ["addr", "replace", `${address}/${isIpv6 ? 128 : 32}`, "dev", "lo", ...how]);
}

/** Takes the DNS addresses off this machine; fine where there are none. */
export async function removeClusterDns(commands: Commands): Promise<void> {
  await runChecked(commands, "ip", ["addr", "flush", "dev", "lo", "label", addressLabel]);
  for (const { local, prefixlen, deprecated } of await loopbackAddresses(commands, "-6")) {
    // Nobody else has use for such an address there.
    if (local === undefined || prefixlen !== 128 || !deprecated) continue;
    const { code, stderr } = await commands.run("ip", ["addr", "delete", `${local}/128`, "dev", "lo"]);
    // Somebody else may have taken it away this moment.
    const isThere = code !== 0 && (await loopbackAddresses(commands, "-6")).some((one) => one.local === local);
    if (isThere) throw new AppError("NETWORK_REMOVAL", `ip addr delete ${local}: ${stderr.trim()}`);
  }
}

async function machineResolvers(ownAddresses: readonly string[]): Promise<Resolver[]> {
  const [resolvConf, systemd] = await Promise.all([
    readFileIfExists("/etc/resolv.conf"),
    readFileIfExists("/run/systemd/resolve/resolv.conf"),
  ]);
  const addresses = upstreamsOf(resolvConf?.toString("utf8"), systemd?.toString("utf8"), new Set(ownAddresses));
  return addresses.map((address) => ({ address, port: dnsPort }));
}

/** The kube-dns Service and its endpoints: the addresses answer on every node by themselves, so it has no selector. */
export function dnsServiceObjects(addresses: readonly string[]): { service: Service; slices: EndpointSlice[] } {
  const labels = { "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "ClusterDNS" };
  return {
    service: {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "kube-dns", namespace: "kube-system", labels },
      spec: {
        clusterIP: addresses[0] ?? "",
        clusterIPs: [...addresses],
        ipFamilies: addresses.map(familyOfIp),
        ipFamilyPolicy: addresses.length > 1 ? "RequireDualStack" : "SingleStack",
        type: "ClusterIP",
        ports: [
          { name: "dns", port: dnsPort, protocol: "UDP", targetPort: dnsPort },
          { name: "dns-tcp", port: dnsPort, protocol: "TCP", targetPort: dnsPort },
        ],
      },
    },
    slices: addresses.map((address, i) => ({
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: {
        // The first one is older than the second family.
        name: i === 0 ? "kube-dns-mote" : `kube-dns-mote-${familyOfIp(address).toLowerCase()}`,
        namespace: "kube-system",
        labels: {
          ...labels,
          "kubernetes.io/service-name": "kube-dns",
          "endpointslice.kubernetes.io/managed-by": "cluster-dns.mote",
        },
      },
      addressType: familyOfIp(address),
      endpoints: [{ addresses: [address], conditions: { ready: true, serving: true, terminating: false } }],
      ports: [
        { name: "dns", port: dnsPort, protocol: "UDP" },
        { name: "dns-tcp", port: dnsPort, protocol: "TCP" },
      ],
    })),
  };
}

/** Creates what is missing and leaves what is there, so that users may replace cluster DNS by their own. */
export async function ensureDnsService(client: Client, addresses: readonly string[]): Promise<void> {
  const { service, slices } = dnsServiceObjects(addresses);
  const found = await client.get(services, "kube-dns", "kube-system").catch((error: unknown) => {
    if (isNotFound(error)) return undefined;
    throw error;
  });
  // A Service with a selector is somebody's choice: no endpoint of ours belongs under it.
  if (found?.spec.selector) return;
  if (!found) await client.create(services, service);
  for (const slice of slices) {
    try {
      await client.create(endpointSlices, slice);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
    }
  }
}
