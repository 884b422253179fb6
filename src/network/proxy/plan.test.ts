import { describe, expect, test } from "vitest";
import type { Service } from "#model/gen/core-v1.ts";
import type { Endpoint, EndpointSlice } from "#model/gen/discovery-v1.ts";
import { fewerFlows, planProxy, staleFlows } from "./plan.ts";
import { type Ruleset, removal, transition } from "./ruleset.ts";
import { servicePortsOf } from "./service-port.ts";

type Ready = "ready" | "ending" | "not";
const conditions: Readonly<Record<Ready, Endpoint["conditions"] & object>> = {
  ready: { ready: true, serving: true, terminating: false },
  ending: { ready: false, serving: true, terminating: true },
  not: { ready: false, serving: false, terminating: false },
};

function service(spec: Partial<Service["spec"]>, status?: Service["status"]): Service {
  return {
    metadata: { name: "web", namespace: "default" },
    spec: { clusterIP: "10.43.0.7", ports: [{ name: "http", port: 80, protocol: "TCP", nodePort: 30080 }], ...spec },
    ...(status ? { status } : {}),
  };
}
function slice(
  endpoints: readonly (readonly [ip: string, ready?: Ready, node?: string])[],
  more: Partial<EndpointSlice> = {},
) {
  const full: EndpointSlice = {
    metadata: { name: "web-1", namespace: "default", labels: { "kubernetes.io/service-name": "web" } },
    addressType: "IPv4",
    endpoints: endpoints.map(([ip, ready = "ready", nodeName = "n1"]) => ({
      addresses: [ip],
      nodeName,
      conditions: conditions[ready],
    })),
    ports: [{ name: "http", port: 8080, protocol: "TCP" }],
    ...more,
  };
  return full;
}
const options = { family: "IPv4" as const, nodeName: "n1", localServiceIps: new Set(["10.43.0.10"]) };
const portsOf = (s: Service, ...slices: EndpointSlice[]) => servicePortsOf([s], slices, options);
const planOptions = { table: "t", clusterCidr: "10.42.0.0/16", hasBridgeNetfilter: true, masqueradesOutside: true };
const plan = (s: Service, ...slices: EndpointSlice[]): Ruleset => planProxy(portsOf(s, ...slices), planOptions);
/** The same service in the other family. */
const plan6 = (s: Service, ...slices: EndpointSlice[]): Ruleset =>
  planProxy(servicePortsOf([s], slices, { ...options, family: "IPv6" }), {
    ...planOptions,
    clusterCidr: "fd00:42::/56",
  });
const elements = (ruleset: Ruleset, name: string) => Object.fromEntries(ruleset.collections.get(name)?.elements ?? []);

describe("service ports", () => {
  test.each<[string, string[], string[]]>([
    [
      "ready ones",
      portsOf(service({}), slice([["10.42.0.2"], ["10.42.0.1"], ["10.42.0.3", "not"]])).flatMap(ips),
      ["10.42.0.1", "10.42.0.2"],
    ],
    [
      "ending ones only while none is ready",
      portsOf(
        service({}),
        slice([
          ["10.42.0.1", "ending"],
          ["10.42.0.3", "not"],
        ]),
      ).flatMap(ips),
      ["10.42.0.1"],
    ],
    [
      "ending ones not beside ready ones",
      portsOf(service({}), slice([["10.42.0.1", "ending"], ["10.42.0.2"]])).flatMap(ips),
      ["10.42.0.2"],
    ],
    [
      "the same address in two slices counts once",
      portsOf(service({}), slice([["10.42.0.1"]]), slice([["10.42.0.1"]])).flatMap(ips),
      ["10.42.0.1"],
    ],
    [
      "other address families and port names are passed over",
      portsOf(
        service({}),
        slice([["fd00::1"]], { addressType: "IPv6" }),
        slice([["10.42.0.1"]], { ports: [{ name: "x", port: 1, protocol: "TCP" }] }),
      ).flatMap(ips),
      [],
    ],
    [
      "text that is no address never reaches nft",
      portsOf(service({ externalIPs: ["1.2.3.4", "1.2.3.4 }; flush ruleset"] }), slice([["10.42.0.1; drop"]])).flatMap(
        (p) => [...p.externalIps, ...ips(p)],
      ),
      ["1.2.3.4"],
    ],
    ["headless", portsOf(service({ clusterIP: "None" })).map((p) => p.id), []],
    ["of IPv6 only", portsOf(service({ clusterIP: "fd00::7", clusterIPs: ["fd00::7"] })).map((p) => p.id), []],
    [
      "of both families, IPv6 first",
      portsOf(service({ clusterIP: "fd00::7", clusterIPs: ["fd00::7", "10.43.0.7"] })).map((p) => p.clusterIp),
      ["10.43.0.7"],
    ],
    ["external name", portsOf(service({ type: "ExternalName" })).map((p) => p.id), []],
    ["served on this node by mote itself", portsOf(service({ clusterIP: "10.43.0.10" })).map((p) => p.id), []],
  ])("%s", (_, got, expected) => {
    expect(got).toEqual(expected);
  });
});
describe("hints", () => {
  /** "1:a" for clients of zone a, "2:" for nobody in particular; with "-" it is ending. */
  const hinted = (...texts: string[]) => {
    const full = slice(
      texts.map((text) => [`10.42.0.${text[0]}`, text.endsWith("-") ? "ending" : "ready", `n${text[0]}`]),
    );
    const endpoints = full.endpoints.map((endpoint, i) => {
      const zones = texts[i]!.slice(2)
        .replace("-", "")
        .split("")
        .map((name) => ({ name }));
      return zones.length > 0 ? { ...endpoint, hints: { forZones: zones } } : endpoint;
    });
    return { ...full, endpoints };
  };
  test.each<[string, string | undefined, string[], string[]]>([
    ["those of the own zone", "a", ["1:a", "2:b", "3:ab"], ["10.42.0.1", "10.42.0.3"]],
    ["all where nobody is for the zone", "c", ["1:a", "2:b"], ["10.42.0.1", "10.42.0.2"]],
    ["all where one says nothing", "a", ["1:a", "2:"], ["10.42.0.1", "10.42.0.2"]],
    ["all where the node has no zone", undefined, ["1:a", "2:b"], ["10.42.0.1", "10.42.0.2"]],
    ["one that is ending does not count", "a", ["1:a", "2:b", "3:-"], ["10.42.0.1"]],
    ["while none is ready hints do not count", "a", ["1:a-", "2:b-"], ["10.42.0.1", "10.42.0.2"]],
  ])("%s", (_, zone, texts, expected) => {
    expect(servicePortsOf([service({})], [hinted(...texts)], { ...options, zone }).flatMap(ips)).toEqual(expected);
  });
  test("what is local stays reachable under the policy Local, though clients are sent elsewhere", () => {
    const local = service({ externalTrafficPolicy: "Local", type: "NodePort" });
    const ports = servicePortsOf([local], [hinted("1:b", "2:a")], { ...options, zone: "a" });
    expect(ports.flatMap(ips)).toEqual(["10.42.0.2"]);
    const ruleset = planProxy(ports, planOptions);
    expect(ruleset.chains.get("loc-default/web/tcp/http")?.rules).toEqual([
      "goto ep-default/web/tcp/http/10.42.0.1/8080",
    ]);
    expect(ruleset.chains.has("ep-default/web/tcp/http/10.42.0.1/8080")).toBe(true);
  });
  test("a local one that is ending serves under the policy Local while others elsewhere are ready", () => {
    const local = service({ internalTrafficPolicy: "Local" });
    const [port] = servicePortsOf([local], [hinted("1:-", "2:")], options);
    expect(port?.endpoints.map(({ ip }) => ip)).toEqual(["10.42.0.2"]);
    expect(port?.localEndpoints.map(({ ip }) => ip)).toEqual(["10.42.0.1"]);
  });
});

function ips(port: { endpoints: readonly { ip: string }[] }): string[] {
  return port.endpoints.map((e) => e.ip);
}

describe("plan", () => {
  test("cluster and node port", () => {
    const ruleset = plan(service({}), slice([["10.42.0.1"], ["10.42.0.2"]]));
    expect(elements(ruleset, "service-ips")).toEqual({ "10.43.0.7 . tcp . 80": "goto svc-default/web/tcp/http" });
    expect(elements(ruleset, "node-ports")).toEqual({ "tcp . 30080": "goto ext-default/web/tcp/http" });
    expect(ruleset.chains.get("svc-default/web/tcp/http")?.rules).toEqual([
      "numgen random mod 2 vmap { 0 : goto ep-default/web/tcp/http/10.42.0.1/8080, 1 : goto ep-default/web/tcp/http/10.42.0.2/8080 }",
    ]);
    expect(ruleset.chains.get("ep-default/web/tcp/http/10.42.0.1/8080")?.rules).toEqual([
      "ip saddr 10.42.0.1 jump mark-for-masquerade",
      "meta l4proto tcp dnat to 10.42.0.1:8080",
    ]);
  });

  test("internal traffic policy Local: here or nowhere", () => {
    const spec = { internalTrafficPolicy: "Local" };
    const here = plan(service(spec), slice([["10.42.0.1"], ["10.42.1.1", "ready", "n2"]]));
    expect(elements(here, "service-ips")).toEqual({ "10.43.0.7 . tcp . 80": "goto loc-default/web/tcp/http" });
    expect(here.chains.get("loc-default/web/tcp/http")?.rules).toEqual(["goto ep-default/web/tcp/http/10.42.0.1/8080"]);
    const nowhere = plan(service(spec), slice([["10.42.1.1", "ready", "n2"]]));
    expect(elements(nowhere, "refused-services")).toEqual({ "10.43.0.7 . tcp . 80": "drop" });
    expect(elements(nowhere, "service-ips")).toEqual({});
  });

  test("load balancer addresses, with source ranges that overlap", () => {
    const balanced = { loadBalancer: { ingress: [{ ip: "192.0.2.50" }, { ip: "192.0.2.51", ipMode: "Proxy" }] } };
    const ranges = ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "192.168.1.7/24"];
    const ruleset = plan(service({ loadBalancerSourceRanges: ranges }, balanced), slice([["10.42.0.1"]]));
    expect(elements(ruleset, "service-ips")["192.0.2.50 . tcp . 80"]).toBe("goto fw-default/web/tcp/http");
    expect(elements(ruleset, "service-ips")["192.0.2.51 . tcp . 80"]).toBeUndefined();
    expect(ruleset.chains.get("fw-default/web/tcp/http")?.rules).toEqual([
      "ip saddr { 10.0.0.0/8, 192.168.1.0/24 } goto ext-default/web/tcp/http",
      "drop",
    ]);
  });

  test("without br_netfilter, traffic between pods through a service is masqueraded", () => {
    const rules = (hasBridgeNetfilter: boolean) =>
      planProxy([], { ...planOptions, hasBridgeNetfilter }).chains.get("postrouting")?.rules ?? [];
    expect(rules(false)).toHaveLength(rules(true).length + 1);
    expect(rules(false).at(-1)).toBe("ct status dnat ip saddr 10.42.0.0/16 ip daddr 10.42.0.0/16 masquerade");
  });
});

describe("IPv6", () => {
  const both = (more: Partial<Service["spec"]> = {}, status?: Service["status"]) =>
    service({ clusterIPs: ["10.43.0.7", "FD00:43:0::7"], ...more }, status);
  const slice6 = (...ips: string[]) =>
    slice(
      ips.map((ip) => [ip] as const),
      { addressType: "IPv6" },
    );

  test("a service of both families has a part in each table", () => {
    const slices = [slice([["10.42.0.1"]]), slice6("fd00:42::1", "FD00:42::0:2")];
    expect(elements(plan(both(), ...slices), "service-ips")).toEqual({
      "10.43.0.7 . tcp . 80": "goto svc-default/web/tcp/http",
    });
    const ruleset = plan6(both(), ...slices);
    expect(ruleset.family).toBe("ip6");
    expect(elements(ruleset, "service-ips")).toEqual({ "fd00:43::7 . tcp . 80": "goto svc-default/web/tcp/http" });
    expect(elements(ruleset, "node-ports")).toEqual({ "tcp . 30080": "goto ext-default/web/tcp/http" });
    expect(elements(ruleset, "cluster-ips")).toEqual({ "fd00:43::7": "" });
    expect(ruleset.chains.get("ep-default/web/tcp/http/fd00.42..2/8080")?.rules).toEqual([
      "ip6 saddr fd00:42::2 jump mark-for-masquerade",
      "meta l4proto tcp dnat to [fd00:42::2]:8080",
    ]);
    expect(transition(undefined, ruleset)).not.toMatch(/\bip (?:t|saddr|daddr)\b|ipv4_addr|icmp type|127\.0\.0/);
  });

  test.each<[string, Partial<Service["spec"]>, string[]]>([
    ["of IPv4 only", { clusterIPs: ["10.43.0.7"] }, []],
    ["of IPv6 only", { clusterIP: "fd00:43::7", clusterIPs: ["fd00:43::7"] }, ["fd00:43::7"]],
    ["IPv6 first", { clusterIP: "fd00:43::7", clusterIPs: ["fd00:43::7", "10.43.0.7"] }, ["fd00:43::7"]],
  ])("a service %s", (_, spec, expected) => {
    expect([...(plan6(service(spec)).collections.get("cluster-ips")?.elements.keys() ?? [])]).toEqual(expected);
  });

  test("of the other family nothing is taken", () => {
    const ingress = { loadBalancer: { ingress: [{ ip: "192.0.2.50" }, { ip: "2001:db8::50" }] } };
    const ranges = ["10.0.0.0/8", "2001:db8:1::/48", "2001:db8:1:2::/64", "2001:db8:1::/48 }; flush ruleset"];
    const spec = { externalIPs: ["192.0.2.7", "2001:db8::7"], loadBalancerSourceRanges: ranges };
    const ruleset = plan6(both(spec, ingress), slice6("fd00:42::1"));
    expect(Object.keys(elements(ruleset, "service-ips"))).toEqual([
      ...["fd00:43::7 . tcp . 80", "2001:db8::7 . tcp . 80", "2001:db8::50 . tcp . 80"],
    ]);
    expect(ruleset.chains.get("fw-default/web/tcp/http")?.rules).toEqual([
      "ip6 saddr { 2001:db8:1::/48 } goto ext-default/web/tcp/http",
      "drop",
    ]);
  });

  test("affinity, and policy Local", () => {
    const spec = { sessionAffinity: "ClientIP", externalTrafficPolicy: "Local", type: "NodePort" };
    const ruleset = plan6(both(spec), slice6("fd00:42::1"));
    const set = ruleset.collections.get("aff-default/web/tcp/http/fd00.42..1/8080/10800");
    expect(set?.declaration).toMatch(/^type ipv6_addr; flags dynamic,timeout;/);
    expect(ruleset.chains.get("ext-default/web/tcp/http")?.rules[0]).toBe(
      "ip6 saddr fd00:42::/56 goto svc-default/web/tcp/http",
    );
  });

  test.each([
    [true, 2],
    [false, 1],
  ])("pods are hidden behind their node's address: %s", (masqueradesOutside, count) => {
    const options6 = { ...planOptions, clusterCidr: "fd00:42::/56", masqueradesOutside };
    expect(planProxy([], options6).chains.get("postrouting")?.rules).toHaveLength(count);
  });
});

describe("transition", () => {
  const one = plan(service({}), slice([["10.42.0.1"]]));
  test("nothing changes, nothing is written", () => {
    expect(transition(one, plan(service({}), slice([["10.42.0.1"]])))).toBe("");
  });
  test("an endpoint comes and one goes: only their chains and the balancer", () => {
    const script = transition(one, plan(service({}), slice([["10.42.0.2"]])));
    expect(script.trim().split("\n")).toEqual([
      "add chain ip t ep-default/web/tcp/http/10.42.0.2/8080",
      "flush chain ip t svc-default/web/tcp/http",
      "add rule ip t svc-default/web/tcp/http goto ep-default/web/tcp/http/10.42.0.2/8080",
      "add rule ip t ep-default/web/tcp/http/10.42.0.2/8080 ip saddr 10.42.0.2 jump mark-for-masquerade",
      "add rule ip t ep-default/web/tcp/http/10.42.0.2/8080 meta l4proto tcp dnat to 10.42.0.2:8080",
      "flush chain ip t ep-default/web/tcp/http/10.42.0.1/8080",
      "delete chain ip t ep-default/web/tcp/http/10.42.0.1/8080",
    ]);
  });
  test("the first one replaces whatever the table held", () => {
    expect(transition(undefined, one).split("\n").slice(0, 3)).toEqual([
      "add table ip t",
      "delete table ip t",
      "add table ip t",
    ]);
    expect(removal("ip6", "t")).toBe("add table ip6 t\ndelete table ip6 t\n");
  });
});

describe("stale flows", () => {
  const udp = { ports: [{ name: "http", port: 53, protocol: "UDP", nodePort: 30053 }] };
  const udpPorts = (...addresses: string[]) =>
    portsOf(
      service(udp),
      slice(
        addresses.map((ip) => [ip] as const),
        { ports: [{ name: "http", port: 5353, protocol: "UDP" }] },
      ),
    );
  test.each([
    ["same endpoints", udpPorts("10.42.0.1"), udpPorts("10.42.0.1"), []],
    ["another one is added", udpPorts("10.42.0.1"), udpPorts("10.42.0.1", "10.42.0.2"), []],
    [
      "one has gone",
      udpPorts("10.42.0.1", "10.42.0.2"),
      udpPorts("10.42.0.1"),
      [
        { protocol: "udp", originalIp: "10.43.0.7", originalPort: 53, endpointIp: "10.42.0.2" },
        { protocol: "udp", originalPort: 30053, endpointIp: "10.42.0.2" },
      ],
    ],
    [
      "the first one comes",
      udpPorts(),
      udpPorts("10.42.0.1"),
      [
        { protocol: "udp", originalIp: "10.43.0.7", originalPort: 53 },
        { protocol: "udp", originalPort: 30053 },
      ],
    ],
    ["TCP ends by itself", portsOf(service({}), slice([["10.42.0.1"]])), portsOf(service({})), []],
  ])("%s", (_, before, after, expected) => {
    expect(staleFlows(before, after)).toEqual(expected);
  });
});

test("many stale flows are put together by endpoint", () => {
  const exact = [1, 2, 3].flatMap((n) =>
    ["10.43.0.7", "192.0.2.9"].map((originalIp) => {
      return { protocol: "udp" as const, originalIp, originalPort: 53, endpointIp: `10.42.0.${n}` };
    }),
  );
  const begun = { protocol: "udp" as const, originalIp: "10.43.0.8", originalPort: 53 };
  expect(fewerFlows([...exact, begun], 7)).toEqual([...exact, begun]);
  const byEndpoint = [1, 2, 3].map((n) => ({ protocol: "udp", endpointIp: `10.42.0.${n}` }));
  expect(fewerFlows([...exact, begun], 6)).toEqual([...byEndpoint, begun]);
});
