import { describe, expect, test } from "vitest";
import type { Node } from "#model/gen/core-v1.ts";
import type { Endpoint } from "#model/gen/discovery-v1.ts";
import { hintMessages, planHints, wantsTopologyHints, type ZoneShares, zoneShares } from "./hints.ts";

interface NodeInput {
  readonly zone?: string;
  readonly cpu?: string;
  readonly ready?: boolean;
  readonly role?: string;
}
const node = ({ zone, cpu, ready = true, role }: NodeInput): Node =>
  ({
    metadata: {
      labels: {
        ...(zone ? { "topology.kubernetes.io/zone": zone } : {}),
        ...(role ? { [`node-role.kubernetes.io/${role}`]: "true" } : {}),
      },
    },
    spec: {},
    status: {
      ...(cpu ? { allocatable: { cpu } } : {}),
      conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
    },
  }) as Node;

test.each<[string, NodeInput[], [string, number][] | undefined]>([
  [
    "by processors",
    [
      { zone: "a", cpu: "3" },
      { zone: "b", cpu: "500m" },
      { zone: "b", cpu: "500m" },
    ],
    [
      ["a", 0.75],
      ["b", 0.25],
    ],
  ],
  ["of one zone there are none", [{ zone: "a", cpu: "3" }], undefined],
  ["a node without a zone spoils it", [{ zone: "a", cpu: "1" }, { zone: "b", cpu: "1" }, { cpu: "1" }], undefined],
  ["so does one without processors", [{ zone: "a", cpu: "1" }, { zone: "b", cpu: "1" }, { zone: "c" }], undefined],
  [
    "not where it is not ready, or steers the cluster",
    [
      { zone: "a", cpu: "1" },
      { zone: "b", cpu: "1" },
      { cpu: "1", ready: false },
      { cpu: "8", role: "control-plane" },
    ],
    [
      ["a", 0.5],
      ["b", 0.5],
    ],
  ],
])("shares of zones: %s", (_, nodes, expected) => {
  const shares = zoneShares(nodes.map(node));
  expect(shares && [...shares]).toEqual(expected);
});

/** "a" ready in zone a, "a-" not ready, "?" in no zone. */
const endpoint = (text: string): Endpoint => ({
  addresses: ["10.0.0.1"],
  conditions: { ready: !text.endsWith("-") },
  ...(text.startsWith("?") ? {} : { zone: text.slice(0, 1) }),
});
const plan = (endpoints: string, shares: Record<string, number> | undefined, before = ""): string => {
  const known = before.split(" ").map((zone) => (zone === "" || zone === "." ? undefined : zone));
  const all = endpoints.split(" ").filter(Boolean).map(endpoint);
  const by: ZoneShares | undefined = shares && new Map(Object.entries(shares));
  const found = planHints(all, known, by);
  return found.problem ?? found.zones.map((zone) => zone ?? ".").join(" ");
};
const even = { a: 0.5, b: 0.5 };

describe("hints", () => {
  test.each<[string, string, Record<string, number> | undefined, string, string]>([
    ["each for its own zone", "a b a b", even, "", "a b a b"],
    ["one that is not ready has none and counts for none", "a b- a b", { a: 0.6, b: 0.4 }, "", "a . a b"],
    ["a zone with too many gives", "a a a b", even, "", "b a a b"],
    ["a zone without any takes", "a a a a", even, "", "b b a a"],
    ["what was given out stays as long as it is fair", "a a a b", even, "a a b b", "a a b b"],
    ["and is given out anew when it is not", "a b a b", even, "a a a a", "a b a b"],
    ["a zone that is gone gives all", "c b a c", even, "c b a c", "a b a b"],
    ["nothing is known of the nodes", "a b", undefined, "", hintMessages.nodes],
    ["an endpoint without a zone", "a ? b b", even, "", hintMessages.zone],
    ["fewer endpoints than zones", "a", even, "", `${hintMessages.endpoints} (1 endpoints, 2 zones)`],
    ["somebody would carry too much", "a b", { a: 0.9, b: 0.1 }, "", `${hintMessages.overload} (2 endpoints, 2 zones)`],
  ])("%s", (_, endpoints, shares, before, expected) => {
    expect(plan(endpoints, shares, before)).toBe(expected);
  });

  test("every zone has what it needs, whatever it starts from", () => {
    const shares = { a: 0.5, b: 0.3, c: 0.2 };
    for (const start of ["a", "a b", "c c b", "a b c"]) {
      const zones = start.split(" ");
      const all = Array.from({ length: 30 }, (_, i) => zones[i % zones.length]).join(" ");
      const out = plan(all, shares).split(" ");
      const counts = Object.keys(shares).map((zone) => out.filter((one) => one === zone).length);
      counts.forEach((count, i) => {
        expect(count, start).toBeGreaterThanOrEqual(Math.floor((Object.values(shares)[i]! * 30) / 1.2));
      });
    }
  });
});

test.each([
  [{ "service.kubernetes.io/topology-mode": "Auto" }, true],
  [{ "service.kubernetes.io/topology-mode": "auto" }, true],
  [{ "service.kubernetes.io/topology-aware-hints": "auto" }, true],
  [{ "service.kubernetes.io/topology-mode": "Auto", "service.kubernetes.io/topology-aware-hints": "disabled" }, false],
  [{ "service.kubernetes.io/topology-mode": "PreferClose" }, false],
  [{}, false],
])("%j asks for hints: %s", (annotations, expected) => {
  expect(wantsTopologyHints({ metadata: { annotations }, spec: {} } as never)).toBe(expected);
});
