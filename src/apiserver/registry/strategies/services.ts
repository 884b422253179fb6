// Services: cluster IPs and node ports are given out here, on create and on update, and given back when the write fails
// or the service goes. Where addresses come from is in cluster-ips.ts, which families a service has in service-families.ts.
// Upstream: pkg/registry/core/service/storage/alloc.go.
import type { Random } from "#base/clock.ts";
import { type IpFamily, parseIpRanges } from "#base/ip-range.ts";
import type { Service, ServiceSpec } from "#model/gen/core-v1.ts";
import { clusterIpsOf } from "#model/service-addresses.ts";
import { type FieldError, fieldInvalid, internalError, invalid } from "#model/status.ts";
import { goStrings, invalidGo } from "#model/validation/go-syntax.ts";
import type { Strategy, StrategyContext } from "../../strategy.ts";
import type { Guard } from "../guard.ts";
import { addressesOf, FlagRanges, reserved } from "./cluster-ips.ts";
import { keepStatus } from "./plain.ts";
import { ServiceCidrRanges } from "./service-cidrs.ts";
import { fillFamilies, isHeadless, isNamed, matchAddressFields, sameList } from "./service-families.ts";
import { type NumberClaims, numbersOf } from "./shared-allocator.ts";

export interface ServiceStrategyOptions {
  /** One range, or one of each family with a comma between, the default family first. Default 10.43.0.0/16. */
  readonly serviceCidr?: string;
  /** First and last, default 30000 and 32767. */
  readonly nodePorts?: readonly [number, number];
  /** The feature gate MultiCIDRServiceAllocator: `serviceCidr` says the families only. */
  readonly multiCidr?: boolean;
  /** Where other servers hand out the same numbers. */
  readonly claims?: ((kind: string) => NumberClaims) | undefined;
}

/** What a write has taken: how each goes back, and what must hold for it to be the service's. */
type Taken = { undo(): void | Promise<void>; readonly guard?: Guard | undefined }[];

export function createServiceStrategy(
  options: ServiceStrategyOptions,
  dependencies: { readonly random: Random },
): Strategy {
  const ranges = parseIpRanges(options.serviceCidr ?? "10.43.0.0/16");
  const families = ranges.map(({ family }) => family);
  const clusterIps = options.multiCidr
    ? new ServiceCidrRanges(families, dependencies)
    : new FlagRanges(ranges, { ...dependencies, claims: options.claims });
  const [firstPort, lastPort] = options.nodePorts ?? [30_000, 32_767];
  // The store is reached through the context of the request at hand.
  let list: StrategyContext["list"] = async () => [];
  const usedPorts = async () => {
    const services = await list<Service>("services");
    return services.flatMap((service) => (service.spec ? [...portsOf(service.spec)] : []));
  };
  const ports = numbersOf(
    "node-port",
    { first: firstPort, last: lastPort, reservedAtStart: reserved(lastPort - firstPort + 1, 32, 128) },
    { random: dependencies.random, claims: options.claims, used: usedPorts },
  );
  /** What the write under way has taken, until it is done. */
  const taken = new WeakMap<object, Taken>();

  /** What cannot be given back now is found by the controller that looks after addresses. */
  const giveBack = async (mine: Taken): Promise<void> => {
    await Promise.allSettled(mine.splice(0).map(async ({ undo }) => undo()));
  };
  const markPort = (port: number, mine: Taken): void =>
    void mine.push({ undo: () => ports.release(port), guard: ports.guard(port) });

  /** One address of the family, the one asked for if any. */
  const takeIp = async (
    { family, asked, shown }: { family: IpFamily; asked: string; shown: readonly string[] },
    service: Service,
    context: StrategyContext,
    mine: Taken,
  ): Promise<string> => {
    const got = await clusterIps.take({ family, asked, service }, context);
    if (got === "full") throw internalError("failed to allocate a serviceIP: range is full");
    if ("problem" in got) {
      throw new Refused(
        invalidGo("spec.clusterIPs", goStrings(shown), `failed to allocate IP ${asked}: ${got.problem}`),
      );
    }
    mine.push(got);
    return got.ip;
  };

  /** Fills what is missing: all of a new service, the second of one that got its second family. */
  const takeIps = async (
    service: Service,
    old: ServiceSpec | undefined,
    context: StrategyContext,
    mine: Taken,
  ): Promise<FieldError[]> => {
    const { spec } = service;
    if (isNamed(spec) || isHeadless(spec)) return [];
    const had = old && !isNamed(old) && old.clusterIP ? old : undefined;
    if (had && isHeadless(had)) return [];
    const before = had ? addressesOf(had).length : 0;
    // Addresses of before that were changed are for the validation to refuse.
    if (had && (before > 1 || (spec.clusterIPs?.[0] ?? "") !== had.clusterIP)) return [];
    const ips = (spec.ipFamilies ?? []).map((_, i) => spec.clusterIPs?.[i] ?? "");
    for (const [i, family] of (spec.ipFamilies ?? []).entries()) {
      if (i < before || !families.includes(family as IpFamily)) continue;
      const wanted = { family: family as IpFamily, asked: ips[i] ?? "", shown: ips };
      try {
        ips[i] = await takeIp(wanted, service, context, mine);
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
  const release = async (service: Service, now: ServiceSpec | undefined, context: StrategyContext): Promise<void> => {
    const old = service.spec;
    const kept = new Set(now ? portsOf(now) : []);
    for (const port of portsOf(old)) if (!kept.has(port)) ports.release(port);
    const keptIps = now ? addressesOf(now) : [];
    const gone = clusterIpsOf(service).filter((ip) => !keptIps.includes(ip));
    // Last, for it may fail.
    if (gone.length > 0) await clusterIps.release(gone, service, context);
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
      errors.push(...(await takeIps(service, old?.spec, context, mine)));
      const held = new Set(old?.spec ? portsOf(old.spec) : []);
      if (wantsPorts(spec)) errors.push(...(await takePorts(spec, held, mine)));
      if (wantsHealthPort(spec)) errors.push(...(await takeHealthPort(spec, held, mine)));
    } catch (error) {
      await giveBack(mine);
      throw error;
    }
    if (errors.length > 0) {
      await giveBack(mine);
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
    guards: (service) => (taken.get(service) ?? []).flatMap(({ guard }) => guard ?? []),
    async rollback(service) {
      const mine = taken.get(service);
      if (mine) await giveBack(mine);
    },
    async afterUpdate(service: Service, old: Service, context) {
      if (old.spec) await release(old, service.spec, context);
    },
    async afterDelete(service: Service, context) {
      if (service.spec) await release(service, undefined, context);
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
