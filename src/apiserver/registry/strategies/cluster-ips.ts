// Where addresses of services come from: the ranges of the server's flags, whose used addresses are those that services
// hold. With the feature gate MultiCIDRServiceAllocator it is service-cidrs.ts instead.
// Upstream counterpart: ipallocator.Interface, and the allocator over a bitmap.
import { type IpFamily, type IpRange, ipAt, offsetIn } from "#base/ip-range.ts";
import type { Service, ServiceSpec } from "#model/gen/core-v1.ts";
import type { StrategyContext } from "../../strategy.ts";
import type { Guard } from "../guard.ts";
import { type Numbers, type NumbersDeps, numbersOf } from "./shared-allocator.ts";

export interface WantedIp {
  readonly family: IpFamily;
  /** Empty: any. */
  readonly asked: string;
  readonly service: Service;
}

export type TakenIp =
  | { readonly ip: string; readonly guard?: Guard | undefined; undo(): void | Promise<void> }
  /** Why the one asked for cannot be had. */
  | { readonly problem: string }
  | "full";

export interface ClusterIps {
  /** Of the cluster, the default first. */
  readonly families: readonly IpFamily[];
  take(wanted: WantedIp, context: StrategyContext): Promise<TakenIp>;
  /** Gives back what `service` held. */
  release(ips: readonly string[], service: Service, context: StrategyContext): void | Promise<void>;
}

export const alreadyAllocated = "provided IP is already allocated";
export const notInRange = (ip: string, cidr: string): string =>
  `the provided IP (${ip}) is not in the valid range. The range of valid IPs is ${cidr}`;

/** Upstream keeps min(max(16, size / 16), 256) addresses, min(max(16, size / 32), 128) ports for static use. */
export const reserved = (size: number, share: number, most: number): number =>
  Math.min(Math.max(16, Math.floor(size / share)), most, size);

/** A range may be wider for IPv6, but no more of it is given out. Upstream's number. */
const mostIpv6Addresses = 65_536;

/** Neither the network's own address nor the broadcast address of IPv4. */
export function boundsOf({ family, hostBits }: IpRange): { first: number; last: number; reservedAtStart: number } {
  const size = 2 ** hostBits;
  const last = family === "IPv4" ? size - 2 : Math.min(size, mostIpv6Addresses) - 1;
  return { first: 1, last, reservedAtStart: reserved(size - 1, 16, 256) };
}

export const addressesOf = (spec: ServiceSpec): readonly string[] =>
  spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : []);

/** Of the addresses that lie in the range. */
export const offsetsOf = (addresses: readonly string[], range: IpRange): number[] =>
  addresses.flatMap((ip) => offsetIn(range, ip) ?? []);

export class FlagRanges implements ClusterIps {
  readonly families: readonly IpFamily[];
  readonly #pools: ReadonlyMap<IpFamily, { readonly range: IpRange; readonly allocator: Numbers }>;
  /** The store is reached through the context of the request at hand. */
  #list: StrategyContext["list"] = async () => [];

  constructor(ranges: readonly IpRange[], dependencies: NumbersDeps) {
    this.families = ranges.map(({ family }) => family);
    this.#pools = new Map(
      ranges.map((range) => {
        const used = async () => {
          const services = await this.#list<Service>("services");
          return services.flatMap(({ spec }) => (spec ? offsetsOf(addressesOf(spec), range) : []));
        };
        const allocator = numbersOf(`service-${range.family}`, boundsOf(range), { ...dependencies, used });
        return [range.family, { range, allocator }] as const;
      }),
    );
  }

  async take({ family, asked }: WantedIp, context: StrategyContext): Promise<TakenIp> {
    this.#list = context.list;
    const pool = this.#pools.get(family);
    if (!pool) return "full";
    const { range, allocator } = pool;
    const taken = (ip: string, offset: number): TakenIp => ({
      ip,
      guard: allocator.guard(offset),
      undo: () => allocator.release(offset),
    });
    if (asked === "") {
      const offset = await allocator.next();
      return offset === undefined ? "full" : taken(ipAt(range, offset), offset);
    }
    const offset = offsetIn(range, asked);
    if (offset === undefined || !allocator.contains(offset)) return { problem: notInRange(asked, range.cidr) };
    if (!(await allocator.take(offset))) return { problem: alreadyAllocated };
    return taken(asked, offset);
  }

  release(ips: readonly string[]): void {
    for (const { range, allocator } of this.#pools.values()) {
      for (const offset of offsetsOf(ips, range)) allocator.release(offset);
    }
  }
}
