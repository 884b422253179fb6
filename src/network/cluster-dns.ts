// The cluster's name server, inside mote: listens on the cluster DNS address, which is added to the loopback device so
// that pods reach it without a translation. One runs on each node. `removeClusterDns` takes the address away again;
// `ensureDnsService` writes the kube-dns Service that people and tools look for.
// Upstream counterpart: CoreDNS as k3s deploys it.
import type { Clock, Random } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
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
  /** The cluster DNS address, e.g. 10.43.0.10. */
  readonly address: string;
  /** Default 53. */
  readonly port?: number;
  /** e.g. cluster.local */
  readonly clusterDomain: string;
  /** Resolvers for everything else; default: those of the machine's resolv.conf, read again as it changes. */
  readonly upstreams?: readonly Resolver[];
  /** False: `address` is already on this machine. */
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

/** Marks our addresses, so that they can be found and removed by name. */
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
  const zone = () => ({ clusterDomain: options.clusterDomain.toLowerCase(), dnsAddress: options.address, serial });
  const resolvers = async (): Promise<readonly Resolver[]> =>
    options.upstreams ?? (await machineResolvers(options.address));
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
  let server: DnsServer | undefined;
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
      try {
        if (options.addsAddress) await addAddress(commands, options.address);
        if (!server) {
          server = await openDnsServer(
            { address: options.address, port: options.port ?? dnsPort },
            { responder, clock, log },
          );
          log.info("cluster DNS listening", { address: options.address, port: server.port });
        }
        tried();
        retryMs = retryMinMs;
        await clock.sleep(checkMs, signal);
      } catch (error) {
        if (signal.aborted) break;
        log.error("cluster DNS cannot listen", { address: options.address, error: messageOf(error) });
        // The node must come up although somebody else holds the port; the attempts go on.
        tried();
        await clock.sleep(retryMs, signal);
        retryMs = Math.min(retryMs * 2, retryMaxMs);
      }
    }
  } catch (error) {
    if (!isAbort(error, signal)) throw error;
  } finally {
    unwatch();
    await server?.close();
  }
}

/** Host scope: the address is for this machine and its pods and is never announced. */
async function addAddress(commands: Commands, address: string): Promise<void> {
  const shown = await runChecked(commands, "ip", ["-j", "-4", "addr", "show", "dev", "lo"]);
  const links = JSON.parse(shown) as { addr_info?: { local?: string }[] }[];
  if (links.some((link) => link.addr_info?.some((info) => info.local === address))) return;
  await runChecked(commands, "ip", [
    "addr",
    "replace",
    `${address}/32`,
    "dev",
    "lo",
    "label",
    addressLabel,
    "scope",
    "host",
  ]);
}

/** Takes the DNS address off this machine; fine where there is none. */
export async function removeClusterDns(commands: Commands): Promise<void> {
  await runChecked(commands, "ip", ["addr", "flush", "dev", "lo", "label", addressLabel]);
}

async function machineResolvers(ownAddress: string): Promise<Resolver[]> {
  const [resolvConf, systemd] = await Promise.all([
    readFileIfExists("/etc/resolv.conf"),
    readFileIfExists("/run/systemd/resolve/resolv.conf"),
  ]);
  const addresses = upstreamsOf(resolvConf?.toString("utf8"), systemd?.toString("utf8"), new Set([ownAddress]));
  return addresses.map((address) => ({ address, port: dnsPort }));
}

/** The kube-dns Service and its endpoint: the address answers on every node by itself, so it has no selector. */
export function dnsServiceObjects(address: string): { service: Service; slice: EndpointSlice } {
  const labels = { "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "ClusterDNS" };
  return {
    service: {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "kube-dns", namespace: "kube-system", labels },
      spec: {
        clusterIP: address,
        clusterIPs: [address],
        type: "ClusterIP",
        ports: [
          { name: "dns", port: dnsPort, protocol: "UDP", targetPort: dnsPort },
          { name: "dns-tcp", port: dnsPort, protocol: "TCP", targetPort: dnsPort },
        ],
      },
    },
    slice: {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: {
        name: "kube-dns-mote",
        namespace: "kube-system",
        labels: {
          ...labels,
          "kubernetes.io/service-name": "kube-dns",
          "endpointslice.kubernetes.io/managed-by": "cluster-dns.mote",
        },
      },
      addressType: "IPv4",
      endpoints: [{ addresses: [address], conditions: { ready: true, serving: true, terminating: false } }],
      ports: [
        { name: "dns", port: dnsPort, protocol: "UDP" },
        { name: "dns-tcp", port: dnsPort, protocol: "TCP" },
      ],
    },
  };
}

/** Creates what is missing and leaves what is there, so that users may replace cluster DNS by their own. */
export async function ensureDnsService(client: Client, address: string): Promise<void> {
  const { service, slice } = dnsServiceObjects(address);
  const found = await client.get(services, "kube-dns", "kube-system").catch((error: unknown) => {
    if (isNotFound(error)) return undefined;
    throw error;
  });
  // A Service with a selector is somebody's choice: no endpoint of ours belongs under it.
  if (found?.spec.selector) return;
  if (!found) await client.create(services, service);
  try {
    await client.create(endpointSlices, slice);
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  }
}
