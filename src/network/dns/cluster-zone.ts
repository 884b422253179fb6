// Answers for the cluster's own names: the Kubernetes DNS specification 1.1.0, and node names as k3s serves them. Pure: asks
// a ClusterView, knows nothing of sockets. Upstream counterpart: CoreDNS's kubernetes plugin (ttl 5, pods insecure).
//
//   SERVICE.NS.svc.ZONE                A AAAA  cluster IPs, or every ready endpoint of a headless service
//   HOST.SERVICE.NS.svc.ZONE           A AAAA  the endpoint of that host name (or dashed address)
//   _PORT._PROTO.SERVICE.NS.svc.ZONE   SRV
//   A-B-C-D.NS.pod.ZONE                A       the address in the name; of IPv6 with dashes for colons, AAAA
//   D.C.B.A.in-addr.arpa, ….ip6.arpa   PTR     services and endpoints
import type { Answer, SrvAnswer } from "dns-packet";
import { canonicalIp } from "#base/ip-range.ts";

export interface ZonePort {
  readonly name: string;
  /** lower case */
  readonly protocol: string;
  readonly port: number;
}
export interface ZoneEndpoint {
  readonly address: string;
  readonly hostname: string | undefined;
  readonly ports: readonly ZonePort[];
}
export type ZoneService =
  | { readonly kind: "clusterIp"; readonly addresses: readonly string[]; readonly ports: readonly ZonePort[] }
  | { readonly kind: "headless"; readonly endpoints: readonly ZoneEndpoint[] }
  | { readonly kind: "external"; readonly target: string };

export interface ClusterView {
  hasNamespace(namespace: string): boolean;
  service(namespace: string, name: string): ZoneService | undefined;
  /** Full names (without the zone) of what has this address, which is spelled canonically. */
  namesOf(address: string): readonly string[];
  /** Addresses of a node, by its name in lower case. */
  nodeAddresses(name: string): readonly string[];
}

export interface ZoneOptions {
  /** Lower case, e.g. cluster.local. */
  readonly clusterDomain: string;
  readonly dnsAddresses: readonly string[];
  /** Changes whenever the zone may have. */
  readonly serial: number;
}

export interface ZoneAnswer {
  readonly status: "ok" | "noData" | "noName";
  readonly answers: readonly Answer[];
  readonly additionals: readonly Answer[];
  /** A CNAME that leads to this name was given: the caller may add what it resolves to. */
  readonly follow?: string;
}

export const ttlSeconds = 5;
/** k3s serves node names from a hosts file with this one. */
const nodeTtlSeconds = 60;

const noName: ZoneAnswer = { status: "noName", answers: [], additionals: [] };
const noData: ZoneAnswer = { status: "noData", answers: [], additionals: [] };

/** Undefined where the name is not the cluster's and should be forwarded. `asked` keeps the client's spelling. */
export function answerFor(
  question: { readonly name: string; readonly type: string },
  view: ClusterView,
  options: ZoneOptions,
): ZoneAnswer | undefined {
  const asked = question.name;
  const name = asked.toLowerCase().replace(/\.$/, "");
  const zone = options.clusterDomain;
  if (name === zone) return apex(asked, question.type, options);
  if (name.endsWith(`.${zone}`))
    return inZone(asked, name.slice(0, -zone.length - 1).split("."), question.type, view, options);
  const reverse = addressOfReverse(name);
  if (reverse) {
    const names = view.namesOf(reverse);
    if (names.length === 0) return undefined;
    if (question.type !== "PTR" && question.type !== "ANY") return noData;
    return ok(names.map((n) => ({ type: "PTR", name: asked, ttl: ttlSeconds, data: `${n}.${zone}` })));
  }
  if (name.includes(".")) return undefined;
  const nodeAddresses = view.nodeAddresses(name);
  return nodeAddresses.length === 0 ? undefined : addresses(asked, question.type, nodeAddresses, nodeTtlSeconds);
}

export const soaOf = ({ clusterDomain, serial }: ZoneOptions): Answer => ({
  type: "SOA",
  name: clusterDomain,
  ttl: ttlSeconds,
  data: {
    mname: `ns.dns.${clusterDomain}`,
    rname: `hostmaster.${clusterDomain}`,
    serial,
    refresh: 7200,
    retry: 1800,
    expire: 86_400,
    minimum: ttlSeconds,
  },
});

function apex(asked: string, type: string, options: ZoneOptions): ZoneAnswer {
  if (type === "SOA") return ok([soaOf(options)]);
  if (type !== "NS") return noData;
  const host = `ns.dns.${options.clusterDomain}`;
  return {
    ...ok([{ type: "NS", name: asked, ttl: ttlSeconds, data: host }]),
    additionals: addresses(host, "ANY", options.dnsAddresses, ttlSeconds).answers,
  };
}

function inZone(
  asked: string,
  labels: readonly string[],
  type: string,
  view: ClusterView,
  options: ZoneOptions,
): ZoneAnswer {
  const kind = labels.at(-1);
  const namespace = labels.at(-2);
  if (labels.length === 1 && kind === "dns-version") {
    return type === "TXT" ? ok([{ type: "TXT", name: asked, ttl: ttlSeconds, data: "1.1.0" }]) : noData;
  }
  if (kind === "dns") {
    if (labels.length === 1) return noData;
    return labels.length === 2 && namespace === "ns"
      ? addresses(asked, type, options.dnsAddresses, ttlSeconds)
      : noName;
  }
  if (kind !== "svc" && kind !== "pod") return noName;
  if (namespace === undefined) return noData;
  if (!view.hasNamespace(namespace)) return noName;
  const rest = labels.slice(0, -2);
  if (rest.length === 0) return noData;
  if (kind === "pod") return podAnswer(asked, rest, type);
  const service = view.service(namespace, rest.at(-1) ?? "");
  if (!service) return noName;
  const serviceName = `${rest.at(-1)}.${namespace}.svc.${options.clusterDomain}`;
  return serviceAnswer(asked, rest.slice(0, -1), type, service, serviceName);
}

/** `10-42-0-5`: the address is in the name and not checked, as CoreDNS's `pods insecure`. */
function podAnswer(asked: string, labels: readonly string[], type: string): ZoneAnswer {
  const [label = ""] = labels.length === 1 ? labels : [];
  const isIpv4 = /^\d{1,3}(?:-\d{1,3}){3}$/.test(label);
  const address = canonicalIp(label.replaceAll("-", isIpv4 ? "." : ":"));
  return address === undefined ? noName : addresses(asked, type, [address], ttlSeconds);
}

function serviceAnswer(
  asked: string,
  prefix: readonly string[],
  type: string,
  service: ZoneService,
  serviceName: string,
): ZoneAnswer {
  if (service.kind === "external") {
    if (prefix.length > 0) return noName;
    return {
      ...ok([{ type: "CNAME", name: asked, ttl: ttlSeconds, data: service.target }]),
      ...(type !== "CNAME" && { follow: service.target }),
    };
  }
  if (prefix.length === 0) {
    if (service.kind === "headless" && service.endpoints.length === 0) return noName;
    if (type === "SRV") return srvAnswer(asked, service, serviceName, () => true);
    const all = service.kind === "clusterIp" ? service.addresses : service.endpoints.map((e) => e.address);
    return addresses(asked, type, all, ttlSeconds);
  }
  const [first = "", second] = prefix;
  if (prefix.length === 2 && first.startsWith("_") && second?.startsWith("_")) {
    const matches = (port: ZonePort) => port.name === first.slice(1) && port.protocol === second.slice(1);
    const found = srvAnswer(asked, service, serviceName, matches);
    if (found.answers.length === 0) return noName;
    return type === "SRV" || type === "ANY" ? found : noData;
  }
  if (prefix.length === 1 && service.kind === "headless") {
    const matching = service.endpoints.filter((e) => hostLabel(e) === first);
    if (matching.length > 0)
      return addresses(
        asked,
        type,
        matching.map((e) => e.address),
        ttlSeconds,
      );
  }
  return noName;
}

function srvAnswer(
  asked: string,
  service: Exclude<ZoneService, { kind: "external" }>,
  serviceName: string,
  matches: (port: ZonePort) => boolean,
): ZoneAnswer {
  const answers: SrvAnswer[] = [];
  const additionals: Answer[] = [];
  const add = (port: ZonePort, target: string, weight: number) =>
    answers.push({ type: "SRV", name: asked, ttl: ttlSeconds, data: { priority: 0, weight, port: port.port, target } });
  if (service.kind === "clusterIp") {
    const ports = service.ports.filter(matches);
    for (const port of ports) add(port, serviceName, Math.floor(100 / ports.length));
    if (ports.length > 0) {
      additionals.push(...addresses(serviceName, "ANY", service.addresses, ttlSeconds).answers);
    }
  } else {
    const targets = new Map<string, { readonly target: string; readonly port: ZonePort }>();
    for (const endpoint of service.endpoints) {
      const target = `${hostLabel(endpoint)}.${serviceName}`;
      const ports = endpoint.ports.filter(matches);
      // A pod with a host name is there once for each of its addresses.
      for (const port of ports) targets.set(`${target} ${port.port}`, { target, port });
      if (ports.length > 0) additionals.push(...addresses(target, "ANY", [endpoint.address], ttlSeconds).answers);
    }
    for (const { target, port } of targets.values()) add(port, target, Math.max(1, Math.floor(100 / targets.size)));
  }
  return answers.length === 0 ? noData : { status: "ok", answers, additionals };
}

/** The endpoint's host name, else its address with dashes. */
export const hostLabel = (endpoint: Pick<ZoneEndpoint, "address" | "hostname">): string =>
  endpoint.hostname || endpoint.address.replaceAll(/[.:]/g, "-");

function addresses(name: string, type: string, all: readonly string[], ttl: number): ZoneAnswer {
  const records = [...new Set(all)].flatMap((data): Answer[] => {
    const recordType = data.includes(":") ? "AAAA" : "A";
    return type === recordType || type === "ANY" ? [{ type: recordType, name, ttl, data }] : [];
  });
  return records.length === 0 ? noData : ok(records);
}

const ok = (answers: readonly Answer[]): ZoneAnswer => ({ status: "ok", answers, additionals: [] });

function addressOfReverse(name: string): string | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name);
  if (match) return `${match[4]}.${match[3]}.${match[2]}.${match[1]}`;
  const [, nibbles] = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name) ?? [];
  if (nibbles === undefined) return undefined;
  const digits = nibbles.split(".").reverse().join("");
  return canonicalIp(digits.replaceAll(/.{4}(?!$)/g, "$&:"));
}
