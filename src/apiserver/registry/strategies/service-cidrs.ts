// Where addresses of services come from with the feature gate MultiCIDRServiceAllocator: from every ServiceCIDR that is ready
// and not on its way out. An address is somebody's when its IPAddress could be created, so ranges may overlap and no two
// writers ever get the same; the sets in memory only say where it is worth trying. Services whose IPAddress is missing, as
// all are when the gate was just turned on, count as holding their addresses too.
// Upstream counterpart: ipallocator's MetaAllocator and its Allocator over IPAddress.
import type { Random } from "#base/clock.ts";
import { canonicalIp, type IpFamily, type IpRange, ipAt, ipToNumber, offsetIn, parseIpRange } from "#base/ip-range.ts";
import type { Service } from "#model/gen/core-v1.ts";
import type { IPAddress, ServiceCIDR } from "#model/gen/networking-v1beta1.ts";
import { keyOf, nameOf } from "#model/object.ts";
import { qualifiedResource } from "#model/resource-info.ts";
import { ipAddresses, serviceCidrs } from "#model/resources.ts";
import { addressFor, clusterIpsOf, isReady, serviceKeyOf } from "#model/service-addresses.ts";
import { serviceUnavailable } from "#model/status.ts";
import type { StrategyContext } from "../../strategy.ts";
import type { Guard } from "../guard.ts";
import { objectKey } from "../keys.ts";
import { Allocator } from "./allocator.ts";
import {
  alreadyAllocated,
  boundsOf,
  type ClusterIps,
  notInRange,
  offsetsOf,
  type TakenIp,
  type WantedIp,
} from "./cluster-ips.ts";

/** One CIDR, of however many objects. */
interface Pool {
  readonly range: IpRange;
  readonly allocator: Allocator;
}

interface Claim {
  readonly guard?: Guard;
  undo(): Promise<void>;
}

const cidrsName = qualifiedResource(serviceCidrs);
const addressesName = qualifiedResource(ipAddresses);
/** Addresses that others took between a look at the store and the try, in a row. */
const attempts = 64;
/** Upstream refuses to give out of wider ones. */
const mostIpv6HostBits = 64;

export class ServiceCidrRanges implements ClusterIps {
  readonly families: readonly IpFamily[];
  readonly #random: Random;
  /** By CIDR: as many as ServiceCIDRs name. */
  readonly #pools = new Map<string, Pool>();
  /** The store is reached through the context of the request at hand. */
  #list: StrategyContext["list"] = async () => [];

  constructor(families: readonly IpFamily[], dependencies: { readonly random: Random }) {
    this.families = families;
    this.#random = dependencies.random;
  }

  async take({ family, asked, service }: WantedIp, context: StrategyContext): Promise<TakenIp> {
    this.#list = context.list;
    const pools = await this.#ready(family);
    if (asked !== "") return this.#takeThis(asked, pools, service, context);
    for (const { range, allocator } of pools) {
      for (let attempt = 0; attempt < attempts; attempt++) {
        const offset = await allocator.next();
        if (offset === undefined) break;
        const ip = ipAt(range, offset);
        const claim = await claimFor(ip, service, context, () => allocator.release(offset));
        if (claim) return { ip, ...claim };
        allocator.lose(offset);
      }
    }
    return "full";
  }

  async release(ips: readonly string[], service: Service, context: StrategyContext): Promise<void> {
    for (const { range, allocator } of this.#pools.values()) {
      for (const offset of offsetsOf(ips, range)) allocator.release(offset);
    }
    for (const ip of ips) {
      const held = await context.get<IPAddress>(addressesName, "", canonicalIp(ip) ?? ip);
      if (held && serviceKeyOf(held) === keyOf(service)) await context.remove(addressesName, held);
    }
  }

  async #takeThis(asked: string, pools: readonly Pool[], service: Service, context: StrategyContext): Promise<TakenIp> {
    const holding = pools.filter(({ range }) => offsetIn(range, asked) !== undefined);
    if (!holding[0]) return { problem: "the provided network does not match the current range" };
    const pool = holding.find(({ range }) => isUsable(range, asked));
    if (!pool) return { problem: notInRange(asked, holding[0].range.cidr) };
    const { allocator } = pool;
    const offset = offsetIn(pool.range, asked)!;
    // Of a wide IPv6 range only a part is counted; what lies beyond is had by name alone.
    const isCounted = allocator.contains(offset);
    if (isCounted && !(await allocator.take(offset))) return { problem: alreadyAllocated };
    const claim = await claimFor(asked, service, context, () => allocator.release(offset));
    if (claim) return { ip: asked, ...claim };
    allocator.lose(offset);
    return { problem: alreadyAllocated };
  }

  async #ready(family: IpFamily): Promise<Pool[]> {
    const objects = await this.#list<ServiceCIDR>(cidrsName);
    const named = new Set(objects.flatMap(({ spec }) => spec?.cidrs ?? []));
    for (const cidr of this.#pools.keys()) if (!named.has(cidr)) this.#pools.delete(cidr);
    const ready = new Set(objects.filter(isReady).flatMap(({ spec }) => spec?.cidrs ?? []));
    return [...ready].flatMap((cidr) => {
      const pool = this.#poolOf(cidr);
      return pool?.range.family === family ? [pool] : [];
    });
  }

  #poolOf(cidr: string): Pool | undefined {
    const known = this.#pools.get(cidr);
    if (known) return known;
    const range = parseIpRange(cidr);
    if (!range || (range.family === "IPv6" && range.hostBits > mostIpv6HostBits)) return undefined;
    const used = async () => {
      const [services, addresses] = await Promise.all([
        this.#list<Service>("services"),
        this.#list<IPAddress>(addressesName),
      ]);
      return [
        ...services.flatMap((service) => offsetsOf(clusterIpsOf(service), range)),
        ...offsetsOf(addresses.map(nameOf), range),
      ];
    };
    const pool = { range, allocator: new Allocator(boundsOf(range), { random: this.#random, used }) };
    this.#pools.set(cidr, pool);
    return pool;
  }
}

/** Makes the address the service's; undefined where it is somebody's. `release` is what else is to be undone. */
async function claimFor(
  ip: string,
  service: Service,
  context: StrategyContext,
  release: () => void,
): Promise<Claim | undefined> {
  const wanted = addressFor(ip, service);
  if (context.dryRun) {
    const taken = await context.get<IPAddress>(addressesName, "", nameOf(wanted));
    return taken ? undefined : { undo: async () => release() };
  }
  const made = await context.create(addressesName, wanted);
  if (!made) return undefined;
  const createRevision = Number(made.metadata.resourceVersion);
  return {
    // One that was left over is taken for lost after a while.
    guard: {
      compare: { key: objectKey(ipAddresses, "", nameOf(made)), target: "create", op: "=", value: createRevision },
      refuse: () => serviceUnavailable(`the address ${ip} was taken back before the service was written; try again`),
    },
    async undo() {
      release();
      await context.remove(addressesName, made);
    },
  };
}

/** Neither the network's own address nor the broadcast address of IPv4. */
function isUsable({ family, base, hostBits }: IpRange, address: string): boolean {
  const offset = (ipToNumber(address) ?? base) - base;
  return offset > 0n && (family === "IPv6" || offset < (1n << BigInt(hostBits)) - 1n);
}
