// What a cluster that exists says to --service-cidr and --cluster-cidr. The service `kubernetes` has the first address of the
// first range for ever, pods know it and certificates name it, so a server that would have another one does not start. Nodes
// and services keep what they were given; where that lies outside of what the flags say now, the log says so with names.
// Upstream counterpart: k3s's comparison of critical settings (among servers only); kube-controller-manager ends where a node
// has a range that is not of --cluster-cidr.
import {
  canonicalIp,
  familyOfIp,
  holdsRange,
  ipAt,
  ipToNumber,
  offsetIn,
  parseIpRange,
  parseIpRanges,
} from "#base/ip-range.ts";
import type { Logger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { usageError } from "#cli/flags.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Node, Service as ServiceObject } from "#model/gen/core-v1.ts";
import { keyOf, nameOf } from "#model/object.ts";
import { nodes, services } from "#model/resources.ts";
import { clusterIpsOf } from "#model/service-addresses.ts";
import type { ServerConfig } from "./config.ts";

type Ranges = Pick<ServerConfig, "clusterCidr" | "serviceCidr" | "apiServiceIp">;

/** Throws a sentence where the cluster's `kubernetes` has an address that this server would not have. */
export function checkServiceRange({ serviceCidr, apiServiceIp }: Ranges, kubernetes: ServiceObject | undefined): void {
  const address = kubernetes?.spec?.clusterIP ?? "";
  const number = ipToNumber(address);
  if (number === undefined || canonicalIp(address) === canonicalIp(apiServiceIp)) return;
  const family = familyOfIp(address);
  const [hostBits, bits] = family === "IPv4" ? [16, 16] : [16, 112];
  const first = ipAt({ family, base: number - 1n, cidr: "", hostBits }, 0);
  throw usageError(
    `service-cidr: "${serviceCidr}" is not allowed; this cluster was begun with another first range, in which its service kubernetes has ${address}: use that, such as ${first}/${bits}. A second range of the other IP family may be added; more addresses are had from ServiceCIDRs`,
  );
}

export interface RangeWarning {
  readonly message: string;
  readonly fields: Readonly<Record<string, string>>;
}

/** `isFixed`: services have addresses of --service-cidr only. */
export function rangeWarnings(
  { clusterCidr, serviceCidr }: Ranges,
  known: { readonly nodes: readonly Node[]; readonly services: readonly ServiceObject[]; readonly isFixed: boolean },
): RangeWarning[] {
  const pods = parseIpRanges(clusterCidr);
  const held = known.nodes.map((node) => ({
    node: nameOf(node),
    ranges: (node.spec?.podCIDRs ?? []).flatMap((text) => parseIpRange(text) ?? []),
  }));
  const strangers = held.flatMap(({ node, ranges }) => {
    const outside = ranges.filter((range) => !pods.some((outer) => holdsRange(outer, range)));
    return outside.length > 0 ? [`${node} ${outside.map(({ cidr }) => cidr).join(",")}`] : [];
  });
  const halves = held.flatMap(({ node, ranges }) =>
    ranges.length > 0 && pods.some(({ family }) => ranges.every((range) => range.family !== family)) ? [node] : [],
  );
  const addresses = parseIpRanges(serviceCidr);
  const lost = known.isFixed
    ? known.services.flatMap((service) => {
        const outside = clusterIpsOf(service).filter((ip) =>
          addresses.every((range) => offsetIn(range, ip) === undefined),
        );
        return outside.length > 0 ? [`${keyOf(service)} ${outside.join(",")}`] : [];
      })
    : [];
  const warn = (names: readonly string[], message: string, fields: Readonly<Record<string, string>>) =>
    names.length > 0 ? [{ message, fields }] : [];
  return [
    ...warn(
      strangers,
      "nodes keep ranges that are not of --cluster-cidr, and their pods count as outside of the cluster: give one that holds them, or drain and delete these Nodes and start their agents again",
      { "cluster-cidr": clusterCidr, nodes: some(strangers) },
    ),
    ...warn(
      halves,
      "nodes have no range of an IP family of --cluster-cidr: pods have addresses of both once their Node was drained and deleted, and its agent started again",
      { "cluster-cidr": clusterCidr, nodes: some(halves) },
    ),
    ...warn(
      lost,
      "services keep addresses that are not of --service-cidr and may be given out by nobody: give the range again that holds them, or make these services anew",
      { "service-cidr": serviceCidr, services: some(lost) },
    ),
  ];
}

/** As many as a line of the log is read for. */
const shown = 5;
const some = (names: readonly string[]): string =>
  names.length > shown ? `${names.slice(0, shown).join("; ")} and ${names.length - shown} more` : names.join("; ");

/** Looks once, when all nodes and services are known. */
export function createRangeWarnings(
  ranges: Ranges & { readonly isFixed: boolean },
  { informers, log }: { readonly informers: InformerFactory; readonly log: Logger },
): Service {
  const stores = { nodes: informers.informer(nodes), services: informers.informer(services) };
  return {
    name: "range-warnings",
    async run(signal, ready) {
      ready();
      try {
        await Promise.all([stores.nodes.whenSynced(signal), stores.services.whenSynced(signal)]);
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
      const known = { nodes: stores.nodes.list(), services: stores.services.list(), isFixed: ranges.isFixed };
      for (const { message, fields } of rangeWarnings(ranges, known)) log.warn(message, fields);
      await untilAborted(signal);
    },
  };
}
