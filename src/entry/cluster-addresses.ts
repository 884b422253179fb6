// Which addresses a cluster has, from its flags: ranges of pods and services, one of IPv4, one of IPv6, or both, whose first
// family is the cluster's own; and which of a machine's addresses its node is known by. What does not do is said in one
// sentence. Upstream counterpart: pkg/cli/server of k3s, and kube-controller-manager's checks of its ranges.
import { canonicalIp, familyOfIp, type IpFamily, type IpRange, ipAt, parseIpRange, subnetAt } from "#base/ip-range.ts";
import { usageError } from "#cli/flags.ts";
import { defaultAddress, defaultIpv6Address } from "#platform/host.ts";

export interface ClusterRanges {
  /** One range, or one of each family with a comma between. */
  readonly clusterCidr: string;
  readonly serviceCidr: string;
  /** Of the first service range: the `kubernetes` service. */
  readonly apiServiceIp: string;
  /** One of each family that services have. */
  readonly clusterDns: readonly string[];
  readonly warnings: readonly string[];
}

export interface ClusterRangeFlags {
  readonly clusterCidr: string;
  readonly serviceCidr: string;
  readonly clusterDns: string | undefined;
  /** Network bits of the range of a node. */
  readonly maskSizes: Readonly<Record<IpFamily, number>>;
}

/** As upstream: a cluster is divided among at most so many nodes (in bits) with IPv6. */
const mostIpv6NodeBits = 16;
const dnsOffset = 10;

export function clusterRangesOf(flags: ClusterRangeFlags): ClusterRanges {
  const pods = rangesOf("cluster-cidr", flags.clusterCidr);
  const services = rangesOf("service-cidr", flags.serviceCidr);
  for (const range of pods) checkPodRange(range, flags.maskSizes[range.family]);
  for (const range of services) checkServiceRange(range);
  if (pods[0]!.family !== services[0]!.family) {
    throw usageError(
      `cluster-cidr: "${flags.clusterCidr}" and service-cidr "${flags.serviceCidr}" do not go together; their first ranges must be of the same IP family`,
    );
  }
  const clusterCidr = textOf(pods);
  const serviceCidr = textOf(services);
  return {
    ...{ clusterCidr, serviceCidr },
    apiServiceIp: ipAt(services[0]!, 1),
    clusterDns: dnsAddresses(flags.clusterDns, services),
    warnings:
      pods.length === services.length
        ? []
        : [`pods have ${clusterCidr} and services ${serviceCidr}: what has one IP family only cannot use the other`],
  };
}

function rangesOf(flag: "cluster-cidr" | "service-cidr", text: string): IpRange[] {
  const example = flag === "cluster-cidr" ? "10.42.0.0/16 or fd00:42::/56" : "10.43.0.0/16 or fd00:43::/112";
  const ranges = text.split(",").map((part) => {
    const range = parseIpRange(part.trim());
    if (!range) throw notAllowed(flag, part.trim(), `a range such as ${example}`);
    return range;
  });
  if (ranges.length > 2) throw notAllowed(flag, text, "at most two ranges, of different IP families");
  if (ranges[0]!.family === ranges[1]?.family) {
    throw usageError(`${flag}: "${text}" is not allowed; two ranges must be of different IP families`);
  }
  return ranges;
}

function checkPodRange({ family, hostBits, cidr }: IpRange, maskSize: number): void {
  const bits = bitsOf(family, hostBits);
  const least = family === "IPv4" ? 8 : maskSize - mostIpv6NodeBits;
  if (bits >= least && bits <= maskSize) return;
  const example = family === "IPv4" ? "10.42.0.0/16" : "fd00:42::/56";
  throw notAllowed("cluster-cidr", cidr, `an ${family} range from /${least} to /${maskSize} such as ${example}`);
}

/** Upstream gives out no more addresses of IPv6 than twenty bits hold. */
function checkServiceRange({ family, hostBits, cidr }: IpRange): void {
  const bits = bitsOf(family, hostBits);
  const [least, most, example] = family === "IPv4" ? [8, 28, "10.43.0.0/16"] : [108, 124, "fd00:43::/112"];
  if (bits >= least && bits <= most) return;
  throw notAllowed("service-cidr", cidr, `an ${family} range from /${least} to /${most} such as ${example}`);
}

function dnsAddresses(flag: string | undefined, services: readonly IpRange[]): readonly string[] {
  if (flag === undefined) return services.map((range) => ipAt(range, dnsOffset));
  return addressesOf("cluster-dns", flag);
}

/** Addresses of `--node-ip`; undefined where the machine's own are to be taken. */
export const nodeIpsOf = (flag: string | undefined): readonly string[] | undefined =>
  flag === undefined ? undefined : addressesOf("node-ip", flag);

/** The same of `--node-external-ip`; none where it is not given. */
export const externalIpsOf = (flag: string | undefined): readonly string[] =>
  flag === undefined ? [] : addressesOf("node-external-ip", flag);

function addressesOf(flag: string, text: string): readonly string[] {
  const addresses = text.split(",").map((part) => {
    const address = canonicalIp(part.trim());
    if (address === undefined) throw notAllowed(flag, part.trim(), "an IP address, or one of each IP family");
    return address;
  });
  if (new Set(addresses.map(familyOfIp)).size === addresses.length) return addresses;
  throw notAllowed(flag, text, "an IP address, or one of each IP family");
}

/**
 * What a node of this cluster is known by, the cluster's first family first: what was given, else what the machine has of
 * each of the cluster's families.
 */
export function nodeIpsIn(clusterCidr: string, given: readonly string[] | undefined): readonly [string, ...string[]] {
  const families = familiesOf(clusterCidr);
  const found = given ?? families.flatMap((family) => defaultIpOf(family) ?? []);
  const first = found.find((address) => familyOfIp(address) === families[0]);
  if (first === undefined) {
    throw usageError(
      `node-ip: ${given ? `"${given.join(",")}" is not allowed` : "this machine has none"}; the cluster wants an ${families[0]} address`,
    );
  }
  return [first, ...found.filter((address) => address !== first)];
}

/** All that a node may come to be known by, for whoever does not know its cluster yet. */
export const possibleNodeIps = (given: readonly string[] | undefined): readonly string[] =>
  given ?? (["IPv4", "IPv6"] as const).flatMap((family) => defaultIpOf(family) ?? []);

export const familiesOf = (cidrs: string): readonly IpFamily[] => cidrs.split(",").map(familyOfIp);

export const defaultIpOf = (family: IpFamily): string | undefined =>
  family === "IPv4" ? defaultAddress() : defaultIpv6Address();

/** The first part of each range: of a cluster's first node. */
export const firstPodCidrs = (clusterCidr: string, maskSizes: Readonly<Record<IpFamily, number>>): readonly string[] =>
  rangesOf("cluster-cidr", clusterCidr).map((range) => subnetAt(range, maskSizes[range.family], 0));

const bitsOf = (family: IpFamily, hostBits: number): number => (family === "IPv4" ? 32 : 128) - hostBits;
const textOf = (ranges: readonly IpRange[]): string =>
  ranges.map((range) => `${ipAt(range, 0)}/${bitsOf(range.family, range.hostBits)}`).join(",");
const notAllowed = (flag: string, value: string, allowed: string) =>
  usageError(`${flag}: "${value}" is not allowed; use ${allowed}`);
