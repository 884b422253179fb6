// Services: cluster IPs and node ports are given out here, on create and on update, and given back when the write fails
// or the service goes. IPv4 single stack. Upstream: pkg/registry/core/service/storage/alloc.go.
import type { Random } from "#base/clock.ts";
import type { Service, ServiceSpec } from "#model/gen/core-v1.ts";
import { type FieldError, fieldInvalid, internalError, invalid } from "#model/status.ts";
import { isIp } from "#model/validation/names.ts";
import type { Strategy, StrategyContext } from "../../strategy.ts";
import { Allocator, ipv4ToNumber, numberToIpv4, parseIpv4Range } from "./allocator.ts";
import { keepStatus } from "./plain.ts";

export interface ServiceStrategyOptions {
  /** Default 10.43.0.0/16. */
  readonly serviceCidr?: string;
  /** First and last, default 30000 and 32767. */
  readonly nodePorts?: readonly [number, number];
}

/** Upstream keeps min(max(16, size / 16), 256) addresses, min(max(16, size / 32), 128) ports for static use. */
const reserved = (size: number, share: number, most: number): number =>
  Math.min(Math.max(16, Math.floor(size / share)), most, size);

interface Taken {
  readonly ips: number[];
  readonly ports: number[];
}

export function createServiceStrategy(
  options: ServiceStrategyOptions,
  dependencies: { readonly random: Random },
): Strategy {
  const cidr = options.serviceCidr ?? "10.43.0.0/16";
  const range = parseIpv4Range(cidr);
  const [firstPort, lastPort] = options.nodePorts ?? [30_000, 32_767];
  // The store is reached through the context of the request at hand.
  let list: StrategyContext["list"] = async () => [];
  const stored = async (numbers: (spec: ServiceSpec) => Iterable<number>) => {
    const services = await list<Service>("services");
    return services.flatMap((service) => (service.spec ? [...numbers(service.spec)] : []));
  };
  const ips = new Allocator(
    // Neither the network's own address nor the broadcast address.
    { first: range.first + 1, last: range.last - 1, reservedAtStart: reserved(range.last - range.first, 16, 256) },
    { random: dependencies.random, used: () => stored(ipsOf) },
  );
  const ports = new Allocator(
    { first: firstPort, last: lastPort, reservedAtStart: reserved(lastPort - firstPort + 1, 32, 128) },
    { random: dependencies.random, used: () => stored(portsOf) },
  );
  /** What the write under way has taken, until it is done. */
  const taken = new WeakMap<object, Taken>();

  const giveBack = (mine: Taken): void => {
    for (const ip of mine.ips.splice(0)) ips.release(ip);
    for (const port of mine.ports.splice(0)) ports.release(port);
  };

  const takeIp = async (spec: ServiceSpec, mine: Taken): Promise<FieldError[]> => {
    const asked = spec.clusterIP ?? "";
    if (asked !== "") {
      const number = ipv4ToNumber(asked);
      const refuse = (why: string) => [
        fieldInvalid("spec.clusterIPs", [asked], `failed to allocate IP ${asked}: ${why}`),
      ];
      if (!isIp(asked)) {
        const why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        return [fieldInvalid("spec.clusterIPs[0]", asked, why)];
      }
      if (!ips.contains(number)) {
        return refuse(`the provided network does not match the current range. The range of valid IPs is ${cidr}`);
      }
      if (!(await ips.take(number))) return refuse("provided IP is already allocated");
      mine.ips.push(number);
      return [];
    }
    const number = await ips.next();
    if (number === undefined) throw internalError("failed to allocate a serviceIP: range is full");
    mine.ips.push(number);
    spec.clusterIP = numberToIpv4(number);
    spec.clusterIPs = [spec.clusterIP];
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
      } else if (await ports.take(asked)) mine.ports.push(asked);
      else errors.push(fieldInvalid(field, asked, "provided port is already allocated"));
    }
    for (const port of spec.ports ?? []) {
      if (port.nodePort) continue;
      const sibling = spec.ports?.find(
        (other) => other.nodePort && other.port === port.port && other.protocol !== port.protocol,
      );
      const number = sibling?.nodePort ?? (await ports.next());
      if (number === undefined) throw internalError("failed to allocate a nodePort: range is full");
      if (!sibling) mine.ports.push(number);
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
      mine.ports.push(asked);
      return [];
    }
    const number = await ports.next();
    if (number === undefined) throw internalError("failed to allocate a nodePort: range is full");
    mine.ports.push(number);
    spec.healthCheckNodePort = number;
    return [];
  };

  const allocate = async (service: Service, old: Service | undefined, context: StrategyContext): Promise<void> => {
    const spec = service.spec;
    if (!spec) return;
    list = context.list;
    const mine: Taken = { ips: [], ports: [] };
    taken.set(service, mine);
    const errors: FieldError[] = [];
    try {
      const isSameIp = old?.spec?.clusterIP !== undefined && old.spec.clusterIP === spec.clusterIP;
      if (wantsIp(spec) && !isSameIp && !(old && wantsIp(old.spec ?? {}) && old.spec?.clusterIP)) {
        errors.push(...(await takeIp(spec, mine)));
      }
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
      if (service.spec) {
        normaliseIps(service.spec);
        dropUnused(service.spec, undefined);
        fillFamilies(service.spec);
      }
      await allocate(service, undefined, context);
    },
    async prepareForUpdate(service: Service, old: Service, context) {
      keepStatus(service, old);
      if (service.spec && old.spec) {
        carryOver(service.spec, old.spec);
        normaliseIps(service.spec);
        dropUnused(service.spec, old.spec);
        fillFamilies(service.spec);
      }
      await allocate(service, old, context);
    },
    rollback(service) {
      const mine = taken.get(service);
      if (mine) giveBack(mine);
    },
    afterDelete(service: Service) {
      if (!service.spec) return;
      for (const ip of ipsOf(service.spec)) ips.release(ip);
      for (const port of portsOf(service.spec)) ports.release(port);
    },
    selectableFields: (service: Service) => ({
      "spec.clusterIP": service.spec?.clusterIP ?? "",
      "spec.type": service.spec?.type ?? "",
    }),
  };
}

const wantsIp = (spec: ServiceSpec): boolean => spec.type !== "ExternalName" && spec.clusterIP !== "None";
const wantsPorts = (spec: ServiceSpec): boolean =>
  spec.type === "NodePort" || (spec.type === "LoadBalancer" && spec.allocateLoadBalancerNodePorts !== false);
const wantsHealthPort = (spec: ServiceSpec): boolean =>
  spec.type === "LoadBalancer" && spec.externalTrafficPolicy === "Local";

const isReachedFromOutside = ({ type = "ClusterIP", externalIPs = [] }: ServiceSpec): boolean =>
  type === "NodePort" || type === "LoadBalancer" || (type === "ClusterIP" && externalIPs.length > 0);

function* ipsOf(spec: ServiceSpec): Generator<number> {
  for (const ip of spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : [])) {
    const number = ipv4ToNumber(ip);
    if (!Number.isNaN(number)) yield number;
  }
}

function* portsOf(spec: ServiceSpec): Generator<number> {
  for (const port of spec.ports ?? []) if (port.nodePort) yield port.nodePort;
  if (spec.healthCheckNodePort) yield spec.healthCheckNodePort;
}

/** clusterIP and clusterIPs[0] say the same; a client may have set only one. */
function normaliseIps(spec: ServiceSpec): void {
  if (spec.clusterIP && (spec.clusterIPs ?? []).length === 0) spec.clusterIPs = [spec.clusterIP];
  if (!spec.clusterIP && spec.clusterIPs?.[0]) spec.clusterIP = spec.clusterIPs[0];
}

/** What a client leaves out of an update stays as it was allocated. */
function carryOver(spec: ServiceSpec, old: ServiceSpec): void {
  if (spec.type !== "ExternalName" && old.type !== "ExternalName") {
    if (!spec.clusterIP && (spec.clusterIPs ?? []).length === 0 && old.clusterIP) {
      spec.clusterIP = old.clusterIP;
      if (old.clusterIPs) spec.clusterIPs = [...old.clusterIPs];
    }
    // Only one of the two was changed: the other follows.
    if (spec.clusterIP !== old.clusterIP && sameList(spec.clusterIPs, old.clusterIPs) && spec.clusterIP) {
      spec.clusterIPs = [spec.clusterIP];
    }
  }
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
function dropUnused(spec: ServiceSpec, old: ServiceSpec | undefined): void {
  if (!old) return;
  if (!isReachedFromOutside(spec) && isReachedFromOutside(old)) {
    if (spec.externalTrafficPolicy === old.externalTrafficPolicy) delete spec.externalTrafficPolicy;
  }
  if (spec.type === old.type) return;
  if (spec.type === "ExternalName") {
    if (spec.clusterIP === old.clusterIP) {
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

function fillFamilies(spec: ServiceSpec): void {
  if (spec.type === "ExternalName") return;
  const isHeadlessWithoutSelector = spec.clusterIP === "None" && Object.keys(spec.selector ?? {}).length === 0;
  if (isHeadlessWithoutSelector) {
    // Its endpoints are somebody else's and may be of either family.
    spec.ipFamilyPolicy ||= "RequireDualStack";
    if ((spec.ipFamilies ?? []).length === 0) spec.ipFamilies = ["IPv4"];
    if (spec.ipFamilies?.length === 1 && spec.ipFamilyPolicy !== "SingleStack") {
      spec.ipFamilies = spec.ipFamilies[0] === "IPv4" ? ["IPv4", "IPv6"] : ["IPv6", "IPv4"];
    }
    return;
  }
  spec.ipFamilyPolicy ||= "SingleStack";
  if ((spec.ipFamilies ?? []).length === 0) spec.ipFamilies = ["IPv4"];
}

const sameList = (a: readonly string[] = [], b: readonly string[] = []): boolean =>
  a.length === b.length && a.every((value, index) => value === b[index]);
