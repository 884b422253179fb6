// Services: cluster IPs and node ports are given out here, on create and on update, and given back when the write fails
// or the service goes. Each address family has its own range; families are decided in service-families.ts.
// Upstream: pkg/registry/core/service/storage/alloc.go.
import type { Random } from "#base/clock.ts";
import { type IpFamily, type IpRange, ipAt, offsetIn, parseIpRanges } from "#base/ip-range.ts";
import type { Service, ServiceSpec } from "#model/gen/core-v1.ts";
import { type FieldError, fieldInvalid, internalError, invalid } from "#model/status.ts";
import { goStrings, invalidGo } from "#model/validation/go-syntax.ts";
import type { Strategy, StrategyContext } from "../../strategy.ts";
import { Allocator } from "./allocator.ts";
import { keepStatus } from "./plain.ts";
import { fillFamilies, isHeadless, isNamed, matchAddressFields, sameList } from "./service-families.ts";

export interface ServiceStrategyOptions {
  /** One range, or one of each family with a comma between, the default family first. Default 10.43.0.0/16. */
  readonly serviceCidr?: string;
  /** First and last, default 30000 and 32767. */
  readonly nodePorts?: readonly [number, number];
}

/** Upstream keeps min(max(16, size / 16), 256) addresses, min(max(16, size / 32), 128) ports for static use. */
const reserved = (size: number, share: number, most: number): number =>
  Math.min(Math.max(16, Math.floor(size / share)), most, size);

/** What gives back each number that a write has taken. */
type Taken = (() => void)[];

interface Pool {
  readonly range: IpRange;
  readonly allocator: Allocator;
}

/** A range may be wider for IPv6, but no more of it is looked at. Upstream's number. */
const mostIpv6Addresses = 65_536;

/** Neither the network's own address nor the broadcast address of IPv4. */
function boundsOf({ family, hostBits }: IpRange): { first: number; last: number; reservedAtStart: number } {
  const size = 2 ** hostBits;
  const last = family === "IPv4" ? size - 2 : Math.min(size, mostIpv6Addresses) - 1;
  return { first: 1, last, reservedAtStart: reserved(size - 1, 16, 256) };
}

export function createServiceStrategy(
  options: ServiceStrategyOptions,
  dependencies: { readonly random: Random },
): Strategy {
  const ranges = parseIpRanges(options.serviceCidr ?? "10.43.0.0/16");
  const families = ranges.map(({ family }) => family);
  const [firstPort, lastPort] = options.nodePorts ?? [30_000, 32_767];
  // The store is reached through the context of the request at hand.
  let list: StrategyContext["list"] = async () => [];
  const stored = async (numbers: (spec: ServiceSpec) => Iterable<number>) => {
    const services = await list<Service>("services");
    return services.flatMap((service) => (service.spec ? [...numbers(service.spec)] : []));
  };
  const pools = new Map<IpFamily, Pool>(
    ranges.map((range) => {
      const used = () => stored((spec) => offsetsOf(spec, range));
      return [
        range.family,
        { range, allocator: new Allocator(boundsOf(range), { random: dependencies.random, used }) },
      ];
    }),
  );
  const ports = new Allocator(
    { first: firstPort, last: lastPort, reservedAtStart: reserved(lastPort - firstPort + 1, 32, 128) },
    { random: dependencies.random, used: () => stored(portsOf) },
  );
  /** What the write under way has taken, until it is done. */
  const taken = new WeakMap<object, Taken>();

  const giveBack = (mine: Taken): void => {
    for (const release of mine.splice(0)) release();
  };
  const markPort = (port: number, mine: Taken): void => void mine.push(() => ports.release(port));

  /** One address of the family, the one asked for if any. */
  const takeIp = async (pool: Pool, asked: string, shown: readonly string[], mine: Taken): Promise<string> => {
    const { range, allocator } = pool;
    const mark = (offset: number) => void mine.push(() => allocator.release(offset));
    if (asked === "") {
      const offset = await allocator.next();
      if (offset === undefined) throw internalError("failed to allocate a serviceIP: range is full");
      mark(offset);
      return ipAt(range, offset);
    }
    const offset = offsetIn(range, asked);
    const refuse = (why: string) =>
      new Refused(invalidGo("spec.clusterIPs", goStrings(shown), `failed to allocate IP ${asked}: ${why}`));
    if (offset === undefined || !allocator.contains(offset)) {
      const text = `the provided IP (${asked}) is not in the valid range. The range of valid IPs is ${range.cidr}`;
      throw refuse(text);
    }
    if (!(await allocator.take(offset))) throw refuse("provided IP is already allocated");
    mark(offset);
    return asked;
  };

  /** Fills what is missing: all of a new service, the second of one that got its second family. */
  const takeIps = async (spec: ServiceSpec, old: ServiceSpec | undefined, mine: Taken): Promise<FieldError[]> => {
    if (isNamed(spec) || isHeadless(spec)) return [];
    const had = old && !isNamed(old) && old.clusterIP ? old : undefined;
    if (had && isHeadless(had)) return [];
    const before = had ? addressesOf(had).length : 0;
    // Addresses of before that were changed are for the validation to refuse.
    if (had && (before > 1 || (spec.clusterIPs?.[0] ?? "") !== had.clusterIP)) return [];
    const ips = (spec.ipFamilies ?? []).map((_, i) => spec.clusterIPs?.[i] ?? "");
    for (const [i, family] of (spec.ipFamilies ?? []).entries()) {
      const pool = pools.get(family as IpFamily);
      if (i < before || !pool) continue;
      try {
        ips[i] = await takeIp(pool, ips[i] ?? "", ips, mine);
      } catch (error) {
        if (error instanceof Refused) return [error.fault];
        throw error;
      }
    }
    if (ips.length > 0 && ips.every((ip) => ip !== "")) {
      spec.clusterIPs = ips;
      spec.clusterIP = ips[0]!;
    }
    return [];
  };

  const takePorts = async (spec: ServiceSpec, held: ReadonlySet<number>, mine: Taken): Promise<FieldError[]> => {
    const errors: FieldError[] = [];
    // One node port may serve TCP and UDP of the same service.
    const own = new Map<number, Set<string>>();
    for (const [index, port] of (spec.ports ?? []).entries()) {
      const protocol = port.protocol ?? "TCP";
      const asked = port.nodePort ?? 0;
      if (asked === 0) continue;
      const protocols = own.get(asked);
      if (protocols && !protocols.has(protocol)) {
        protocols.add(protocol);
        continue;
      }
      own.set(asked, new Set([protocol]));
      if (held.has(asked)) continue;
      const field = `spec.ports[${index}].nodePort`;
      if (!ports.contains(asked)) {
        const why = `provided port is not in the valid range. The range of valid ports is ${firstPort}-${lastPort}`;
        errors.push(fieldInvalid(field, asked, why));
      } else if (await ports.take(asked)) markPort(asked, mine);
      else errors.push(fieldInvalid(field, asked, "provided port is already allocated"));
    }
    for (const port of spec.ports ?? []) {
      if (port.nodePort) continue;
      const sibling = spec.ports?.find(
        (other) => other.nodePort && other.port === port.port && other.protocol !== port.protocol,
      );
      const number = sibling?.nodePort ?? (await ports.next());
      if (number === undefined) throw internalError("failed to allocate a nodePort: range is full");
      if (!sibling) markPort(number, mine);
      port.nodePort = number;
    }
    return errors;
  };

  const takeHealthPort = async (spec: ServiceSpec, held: ReadonlySet<number>, mine: Taken): Promise<FieldError[]> => {
    const asked = spec.healthCheckNodePort ?? 0;
    if (asked !== 0 && held.has(asked)) return [];
    if (asked !== 0) {
      if (!ports.contains(asked) || !(await ports.take(asked))) {
        return [fieldInvalid("spec.healthCheckNodePort", asked, "provided port is already allocated")];
      }
      markPort(asked, mine);
      return [];
    }
    const number = await ports.next();
    if (number === undefined) throw internalError("failed to allocate a nodePort: range is full");
    markPort(number, mine);
    spec.healthCheckNodePort = number;
    return [];
  };

  /** Gives back what `old` held and `now` does not. */
  const release = (old: ServiceSpec, now: ServiceSpec | undefined): void => {
    for (const { range, allocator } of pools.values()) {
      const kept = new Set(now ? offsetsOf(now, range) : []);
      for (const offset of offsetsOf(old, range)) if (!kept.has(offset)) allocator.release(offset);
    }
    const kept = new Set(now ? portsOf(now) : []);
    for (const port of portsOf(old)) if (!kept.has(port)) ports.release(port);
  };

  const allocate = async (service: Service, old: Service | undefined, context: StrategyContext): Promise<void> => {
    const spec = service.spec;
    if (!spec) return;
    list = context.list;
    const mine: Taken = [];
    taken.set(service, mine);
    const errors: FieldError[] = [...fillFamilies(spec, old?.spec, families)];
    if (errors.length > 0) throw invalid("", "Service", service.metadata.name ?? "", errors);
    try {
      errors.push(...(await takeIps(spec, old?.spec, mine)));
      const held = new Set(old?.spec ? portsOf(old.spec) : []);
      if (wantsPorts(spec)) errors.push(...(await takePorts(spec, held, mine)));
      if (wantsHealthPort(spec)) errors.push(...(await takeHealthPort(spec, held, mine)));
    } catch (error) {
      giveBack(mine);
      throw error;
    }
    if (errors.length > 0) {
      giveBack(mine);
      throw invalid("", "Service", service.metadata.name ?? "", errors);
    }
  };

  return {
    allowCreateOnUpdate: true,
    async prepareForCreate(service: Service, context) {
      service.status = { loadBalancer: {} };
      if (service.spec) matchAddressFields(service.spec, undefined);
      await allocate(service, undefined, context);
    },
    async prepareForUpdate(service: Service, old: Service, context) {
      keepStatus(service, old);
      if (service.spec && old.spec) {
        matchAddressFields(service.spec, old.spec);
        carryOver(service.spec, old.spec);
        dropUnused(service.spec, old.spec);
      }
      await allocate(service, old, context);
    },
    rollback(service) {
      const mine = taken.get(service);
      if (mine) giveBack(mine);
    },
    afterUpdate(service: Service, old: Service) {
      if (old.spec) release(old.spec, service.spec);
    },
    afterDelete(service: Service) {
      if (service.spec) release(service.spec, undefined);
    },
    selectableFields: (service: Service) => ({
      "spec.clusterIP": service.spec?.clusterIP ?? "",
      "spec.type": service.spec?.type ?? "",
    }),
  };
}

/** An address that cannot be had. */
class Refused extends Error {
  readonly fault: FieldError;
  constructor(fault: FieldError) {
    super(fault.message);
    this.fault = fault;
  }
}

const wantsPorts = (spec: ServiceSpec): boolean =>
  spec.type === "NodePort" || (spec.type === "LoadBalancer" && spec.allocateLoadBalancerNodePorts !== false);
const wantsHealthPort = (spec: ServiceSpec): boolean =>
  spec.type === "LoadBalancer" && spec.externalTrafficPolicy === "Local";

const isReachedFromOutside = ({ type = "ClusterIP", externalIPs = [] }: ServiceSpec): boolean =>
  type === "NodePort" || type === "LoadBalancer" || (type === "ClusterIP" && externalIPs.length > 0);

const addressesOf = (spec: ServiceSpec): readonly string[] =>
  spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : []);

function* offsetsOf(spec: ServiceSpec, range: IpRange): Generator<number> {
  for (const ip of addressesOf(spec)) {
    const offset = offsetIn(range, ip);
    if (offset !== undefined) yield offset;
  }
}

function* portsOf(spec: ServiceSpec): Generator<number> {
  for (const port of spec.ports ?? []) if (port.nodePort) yield port.nodePort;
  if (spec.healthCheckNodePort) yield spec.healthCheckNodePort;
}

/** Ports that a client leaves out of an update stay as they were given. */
function carryOver(spec: ServiceSpec, old: ServiceSpec): void {
  if (wantsPorts(spec) && wantsPorts(old)) {
    const inUse = new Set(portsOf(spec));
    for (const port of spec.ports ?? []) {
      if (port.nodePort) continue;
      const before = old.ports?.find((p) => p.protocol === port.protocol && p.port === port.port);
      if (before?.nodePort && !inUse.has(before.nodePort)) {
        port.nodePort = before.nodePort;
        inUse.add(before.nodePort);
      }
    }
  }
  if (wantsHealthPort(spec) && wantsHealthPort(old) && !spec.healthCheckNodePort && old.healthCheckNodePort) {
    spec.healthCheckNodePort = old.healthCheckNodePort;
  }
}

/** Fields that mean nothing for the new type go, if the client only sent back what it had read. */
function dropUnused(spec: ServiceSpec, old: ServiceSpec): void {
  if (!isReachedFromOutside(spec) && isReachedFromOutside(old)) {
    if (spec.externalTrafficPolicy === old.externalTrafficPolicy) delete spec.externalTrafficPolicy;
  }
  if (spec.type === old.type) return;
  if (spec.type === "ExternalName") {
    if (sameList(addressesOf(spec), addressesOf(old)) || !spec.clusterIP) {
      delete spec.clusterIP;
      delete spec.clusterIPs;
    }
    if (sameList(spec.ipFamilies, old.ipFamilies)) delete spec.ipFamilies;
    if (spec.ipFamilyPolicy === old.ipFamilyPolicy) delete spec.ipFamilyPolicy;
  }
  if (!wantsPorts(spec) && wantsPorts(old)) {
    for (const port of spec.ports ?? []) {
      if (old.ports?.some((before) => before.nodePort === port.nodePort)) delete port.nodePort;
    }
  }
  if (!wantsHealthPort(spec) && spec.healthCheckNodePort === old.healthCheckNodePort) delete spec.healthCheckNodePort;
  if (spec.type === "ClusterIP" && spec.externalTrafficPolicy === old.externalTrafficPolicy) {
    if ((spec.externalIPs ?? []).length === 0) delete spec.externalTrafficPolicy;
  }
  if (spec.type !== "LoadBalancer") {
    delete spec.allocateLoadBalancerNodePorts;
    if (spec.loadBalancerClass === old.loadBalancerClass) delete spec.loadBalancerClass;
  }
}
