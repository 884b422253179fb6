import { describe, expect, test } from "vitest";
import type { Pod, Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { desiredGroups, desiredSubsets, maxPerSlice, planSlices } from "./plan.ts";

const service = (spec: Partial<Service["spec"]> = {}): Service =>
  ({
    metadata: { name: "web", namespace: "ns" },
    spec: {
      clusterIP: "10.43.0.5",
      selector: { app: "web" },
      ports: [{ name: "http", port: 80, targetPort: "http" }],
      ...spec,
    },
  }) as Service;
interface PodInput {
  readonly ready?: boolean;
  readonly deleting?: boolean;
  readonly phase?: string;
  readonly port?: number;
  readonly ips?: readonly string[];
  readonly hostname?: string;
  readonly subdomain?: string;
}
const pod = (n: number, input: PodInput = {}): Pod =>
  ({
    metadata: {
      name: `p${n}`,
      namespace: "ns",
      uid: `u${n}`,
      ...(input.deleting ? { deletionTimestamp: "2026-01-01T00:00:00Z" } : {}),
    },
    spec: {
      nodeName: "node-1",
      containers: [{ name: "c", ports: [{ name: "http", containerPort: input.port ?? 8080 }] }],
      ...(input.hostname ? { hostname: input.hostname, subdomain: input.subdomain } : {}),
    },
    status: {
      phase: input.phase ?? "Running",
      podIP: input.ips?.[0] ?? `10.42.0.${n}`,
      podIPs: (input.ips ?? [`10.42.0.${n}`]).map((ip) => ({ ip })),
      conditions: [{ type: "Ready", status: (input.ready ?? true) ? "True" : "False" }],
    },
  }) as unknown as Pod;
const noZone = () => undefined;

describe("endpoints of a service", () => {
  test.each([
    ["ready", {}, {}, { ready: true, serving: true, terminating: false }],
    ["not ready", { ready: false }, {}, { ready: false, serving: false, terminating: false }],
    ["ending but still serving", { deleting: true }, {}, { ready: false, serving: true, terminating: true }],
    [
      "published though not ready",
      { ready: false },
      { publishNotReadyAddresses: true },
      { ready: true, serving: false, terminating: false },
    ],
  ])("%s", (_, input, spec, conditions) => {
    const [group] = desiredGroups(service(spec), [pod(1, input)], noZone);
    expect(group?.endpoints[0]?.conditions).toEqual(conditions);
  });
  test("finished pods and pods without address are left out, which leaves an empty placeholder", () => {
    const groups = desiredGroups(service(), [pod(1, { phase: "Failed" }), pod(2, { ips: [""] })], noZone);
    expect(groups).toEqual([{ addressType: "IPv4", ports: [], endpoints: [] }]);
  });
  test("named ports are looked up in each pod: different numbers, different slices", () => {
    const groups = desiredGroups(service(), [pod(1), pod(2, { port: 9090 }), pod(3)], noZone);
    expect(groups.map((g) => [g.ports[0]?.port, g.endpoints.length])).toEqual([
      [8080, 2],
      [9090, 1],
    ]);
  });
  test("dual stack: one address type per group", () => {
    const spec = { ipFamilies: ["IPv4", "IPv6"] } as Partial<Service["spec"]>;
    const groups = desiredGroups(service(spec), [pod(1, { ips: ["10.42.0.1", "fd00::1"] })], noZone);
    expect(groups.map((g) => [g.addressType, g.endpoints[0]?.addresses])).toEqual([
      ["IPv4", ["10.42.0.1"]],
      ["IPv6", ["fd00::1"]],
    ]);
  });
  test("headless without ports, with a host name for its own subdomain only", () => {
    const headless = service({ clusterIP: "None", ports: [] } as Partial<Service["spec"]>);
    const pods = [pod(1, { hostname: "a", subdomain: "web" }), pod(2, { hostname: "b", subdomain: "other" })];
    const [group] = desiredGroups(headless, pods, noZone);
    expect(group?.ports).toEqual([]);
    expect(group?.endpoints.map((e) => e.hostname)).toEqual(["a", undefined]);
  });
});

describe("layout of slices", () => {
  const labels = { "kubernetes.io/service-name": "web" };
  const groupsOf = (numbers: readonly number[]) =>
    desiredGroups(
      service(),
      numbers.map((n) => pod(n)),
      noZone,
    );
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
  const slice = (name: string, numbers: readonly number[]): EndpointSlice => {
    const [group] = groupsOf(numbers);
    return {
      metadata: { name, namespace: "ns", labels: { ...labels } },
      addressType: "IPv4",
      ports: group!.ports,
      endpoints: group!.endpoints,
    } as unknown as EndpointSlice;
  };
  const shape = (existing: readonly EndpointSlice[], numbers: readonly number[]) => {
    const plan = planSlices(existing, groupsOf(numbers), labels);
    return {
      create: plan.create.map((s) => s.endpoints?.length),
      update: plan.update.map((s) => [s.metadata.name, s.endpoints?.length]),
      remove: plan.remove.map((s) => s.metadata.name),
    };
  };
  test("new ones are filled to the limit", () => {
    expect(shape([], range(0, 2 * maxPerSlice + 5))).toEqual({ create: [100, 100, 5], update: [], remove: [] });
  });
  test("nothing changes: nothing is written", () => {
    expect(shape([slice("a", [1, 2])], [1, 2])).toEqual({ create: [], update: [], remove: [] });
  });
  test("one pod replaced: one slice is written, the other left alone", () => {
    const existing = [slice("a", range(0, 100)), slice("b", range(100, 150))];
    expect(shape(existing, [...range(1, 150), 200])).toEqual({ create: [], update: [["a", 100]], remove: [] });
  });
  test("what became empty goes, unless it is the last", () => {
    const existing = [slice("a", [1]), slice("b", [2])];
    expect(shape(existing, [2])).toEqual({ create: [], update: [], remove: ["a"] });
    expect(shape([slice("a", [1])], [])).toEqual({ create: [0], update: [], remove: ["a"] });
  });
  test("changed labels are written", () => {
    const old = slice("a", [1]);
    old.metadata.labels = {};
    expect(shape([old], [1]).update).toEqual([["a", 1]]);
  });
});

test("subsets: ready apart from not ready, sorted, ending pods left out", () => {
  const { subsets, isTruncated } = desiredSubsets(service(), [
    pod(3),
    pod(1),
    pod(2, { ready: false }),
    pod(4, { deleting: true }),
  ]);
  expect(isTruncated).toBe(false);
  expect(subsets).toHaveLength(1);
  expect(subsets[0]?.addresses?.map((a) => a.ip)).toEqual(["10.42.0.1", "10.42.0.3"]);
  expect(subsets[0]?.notReadyAddresses?.map((a) => a.ip)).toEqual(["10.42.0.2"]);
  expect(subsets[0]?.ports).toEqual([{ name: "http", port: 8080, protocol: "TCP" }]);
});

test.each([
  ["PreferClose", "a", { hints: { forZones: [{ name: "a" }] }, zone: "a" }],
  ["PreferClose", undefined, {}],
  [undefined, "a", { zone: "a" }],
])("traffic to what is close (%s, zone %s)", (trafficDistribution, zone, expected) => {
  const spec = trafficDistribution === undefined ? {} : { trafficDistribution };
  const [group] = desiredGroups(service(spec), [pod(1)], () => zone);
  const { hints, zone: told } = group!.endpoints[0]!;
  expect({ ...(hints ? { hints } : {}), ...(told ? { zone: told } : {}) }).toEqual(expected);
});
