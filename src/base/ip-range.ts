// Addresses of either family as numbers, and ranges of them: what gives out cluster IPs counts offsets from the start of a
// range, so that both families count alike. Text that is no address is undefined, never a wrong number.
// Upstream counterpart: k8s.io/utils/net.

export type IpFamily = "IPv4" | "IPv6";

export interface IpRange {
  readonly family: IpFamily;
  /** As it was given. */
  readonly cidr: string;
  /** The network's own address. */
  readonly base: bigint;
  readonly hostBits: number;
}

/** Of text that is known to be an address. */
export const familyOfIp = (address: string): IpFamily => (address.includes(":") ? "IPv6" : "IPv4");

export function parseIpRange(cidr: string): IpRange | undefined {
  const [address = "", bits = "", ...rest] = cidr.split("/");
  const number = ipToNumber(address);
  const family = familyOfIp(address);
  const width = family === "IPv4" ? 32 : 128;
  if (number === undefined || rest.length > 0 || !/^(?:0|[1-9]\d{0,2})$/.test(bits) || Number(bits) > width) {
    return undefined;
  }
  const hostBits = width - Number(bits);
  return { family, cidr, base: (number >> BigInt(hostBits)) << BigInt(hostBits), hostBits };
}

/** `10.43.0.0/16,fd00:43::/112`; what is no range is left out. */
export function parseIpRanges(cidrs: string): IpRange[] {
  return cidrs.split(",").flatMap((cidr) => parseIpRange(cidr.trim()) ?? []);
}

/** How far into the range; undefined outside of it. */
export function offsetIn(range: IpRange, address: string): number | undefined {
  const number = ipToNumber(address);
  if (number === undefined || familyOfIp(address) !== range.family) return undefined;
  const offset = number - range.base;
  return offset >= 0n && offset >> BigInt(range.hostBits) === 0n ? Number(offset) : undefined;
}

export const ipAt = (range: IpRange, offset: number): string =>
  range.family === "IPv4" ? formatIpv4(range.base + BigInt(offset)) : formatIpv6(range.base + BigInt(offset));

/** Undefined when it is no address. */
export const ipToNumber = (address: string): bigint | undefined =>
  address.includes(":") ? ipv6ToNumber(address) : ipv4ToNumber(address);

function ipv4ToNumber(address: string): bigint | undefined {
  const parts = address.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) {
    return undefined;
  }
  return BigInt(parts.reduce((sum, part) => sum * 256 + Number(part), 0));
}

function ipv6ToNumber(address: string): bigint | undefined {
  const halves = address.split("::");
  if (halves.length > 2) return undefined;
  const groups: (bigint[] | undefined)[] = halves.map((half, i) => groupsOf(half, i === halves.length - 1));
  const [head, tail = halves.length === 2 ? undefined : []] = groups;
  if (!head || !tail) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...head, ...new Array<bigint>(missing).fill(0n), ...tail];
  return all.reduce((sum, group) => (sum << 16n) | group, 0n);
}

/** Groups of 16 bits; the last two may stand as a dotted quad. */
function groupsOf(text: string, isEnd: boolean): bigint[] | undefined {
  if (text === "") return [];
  const parts = text.split(":");
  const out: bigint[] = [];
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) out.push(BigInt(`0x${part}`));
    else {
      const quad = isEnd && i === parts.length - 1 ? ipv4ToNumber(part) : undefined;
      if (quad === undefined) return undefined;
      out.push(quad >> 16n, quad & 0xffffn);
    }
  }
  return out;
}

/** The spelling that the kernel prints; undefined when it is no address. */
export function canonicalIp(address: string): string | undefined {
  const number = ipToNumber(address);
  if (number === undefined) return undefined;
  return familyOfIp(address) === "IPv4" ? formatIpv4(number) : formatIpv6(number);
}

/** The part of a range with so many network bits that stands at `index`. */
export function subnetAt(range: IpRange, bits: number, index: number): string {
  const width = range.family === "IPv4" ? 32 : 128;
  const base = range.base + (BigInt(index) << BigInt(width - bits));
  return `${range.family === "IPv4" ? formatIpv4(base) : formatIpv6(base)}/${bits}`;
}

const formatIpv4 = (number: bigint): string => [24n, 16n, 8n, 0n].map((shift) => (number >> shift) & 0xffn).join(".");

/** The canonical form of RFC 5952: the first longest run of two or more zero groups is left out. */
function formatIpv6(number: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) => ((number >> BigInt(112 - 16 * i)) & 0xffffn).toString(16));
  let start = 0;
  let length = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (groups[end] === "0") end++;
    if (end - i > length) [start, length] = [i, end - i];
  }
  if (length < 2) return groups.join(":");
  return `${groups.slice(0, start).join(":")}::${groups.slice(start + length).join(":")}`;
}

/** The one form that a range is written in. */
export const canonicalRange = ({ family, base, hostBits }: IpRange): string =>
  family === "IPv4" ? `${formatIpv4(base)}/${32 - hostBits}` : `${formatIpv6(base)}/${128 - hostBits}`;

/** Whether all of `inner` lies in `outer`. */
export const holdsRange = (outer: IpRange, inner: IpRange): boolean =>
  outer.family === inner.family &&
  outer.hostBits >= inner.hostBits &&
  outer.base >> BigInt(outer.hostBits) === inner.base >> BigInt(outer.hostBits);
