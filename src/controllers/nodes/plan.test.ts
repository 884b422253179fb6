import { describe, expect, test } from "vitest";
import type { Node, Pod, Taint, Toleration } from "#model/gen/core-v1.ts";
import {
  byEvictionAndAge,
  isOutOfService,
  notReadyTaint,
  planTaints,
  planZones,
  silentConditions,
  stayMs,
  ttlSecondsOf,
  ttlStep,
  unreachableTaint,
  zoneState,
} from "./plan.ts";

const now = "2026-01-01T00:00:00Z";
const node = (
  conditions: Readonly<Record<string, string>>,
  taints: readonly Taint[] = [],
  unschedulable = false,
): Node =>
  ({
    metadata: { name: "n" },
    spec: { ...(taints.length > 0 ? { taints: [...taints] } : {}), unschedulable },
    status: { conditions: Object.entries(conditions).map(([type, status]) => ({ type, status })) },
  }) as Node;
const ids = (taints: readonly Taint[]) => taints.map((t) => `${t.key.split("/").at(-1)}:${t.effect}`).sort();

describe("taints follow conditions", () => {
  test.each([
    ["ready", { Ready: "True" }, true, []],
    ["not ready", { Ready: "False" }, true, ["not-ready:NoExecute", "not-ready:NoSchedule"]],
    ["not ready, eviction withheld", { Ready: "False" }, false, ["not-ready:NoSchedule"]],
    ["silent", { Ready: "Unknown" }, true, ["unreachable:NoExecute", "unreachable:NoSchedule"]],
    ["short of memory", { Ready: "True", MemoryPressure: "True" }, true, ["memory-pressure:NoSchedule"]],
  ])("%s", (_, conditions, isEvicting, expected) => {
    expect(ids(planTaints(node(conditions), isEvicting, now))).toEqual(expected);
  });
  test("from not ready to silent the taints are exchanged, others' are kept", () => {
    const old: Taint[] = [
      { key: notReadyTaint, effect: "NoExecute", timeAdded: now },
      { key: notReadyTaint, effect: "NoSchedule" },
      { key: "mine", effect: "NoSchedule", value: "1" },
    ];
    const next = planTaints(node({ Ready: "Unknown" }, old), true, now);
    expect(ids(next)).toEqual(["mine:NoSchedule", "unreachable:NoExecute", "unreachable:NoSchedule"]);
  });
  test("nothing to change gives the same list", () => {
    const n = node({ Ready: "Unknown" }, [
      { key: unreachableTaint, effect: "NoSchedule" },
      { key: unreachableTaint, effect: "NoExecute" },
    ]);
    expect(planTaints(n, true, now)).toBe(n.spec.taints);
  });
});

test("silence makes conditions unknown once", () => {
  const silent = silentConditions(node({ Ready: "True", MemoryPressure: "False" }), now);
  expect(silent.filter((c) => c.status === "Unknown").map((c) => [c.type, c.reason])).toEqual([
    ["Ready", "NodeStatusUnknown"],
    ["MemoryPressure", "NodeStatusUnknown"],
    ["DiskPressure", "NodeStatusNeverUpdated"],
    ["PIDPressure", "NodeStatusNeverUpdated"],
  ]);
  const again = { ...node({}), status: { conditions: [...silent] } } as Node;
  expect(silentConditions(again, "2026-01-02T00:00:00Z")).toBe(again.status!.conditions);
});

test.each([
  [0, 0, "normal"],
  [1, 1, "full"],
  [2, 3, "normal"],
  [3, 5, "partial"],
  [3, 6, "normal"],
  [5, 5, "full"],
])("%i of %i nodes not ready: %s", (notReady, count, expected) => {
  expect(zoneState(notReady, count)).toBe(expected);
});

describe("zones", () => {
  /** "a3/5": of zone a three of five nodes are not ready. */
  const zonesOf = (text: string) => {
    const nodes: Node[] = [];
    for (const [, zone = "", bad, all] of text.matchAll(/(\w)(\d+)\/(\d+)/g)) {
      for (let i = 0; i < Number(all); i++) {
        const one = node({ Ready: i < Number(bad) ? "Unknown" : "True" });
        nodes.push({ ...one, metadata: { name: `${zone}${i}`, labels: { "topology.kubernetes.io/zone": zone } } });
      }
    }
    const { zones, isAllDown } = planZones(nodes);
    const shown = [...zones].map(([name, zone]) => `${name} ${zone.state} ${zone.pauseMs ?? "never"}`);
    return [...shown, ...(isAllDown ? ["all down"] : [])].join(", ");
  };
  test.each([
    ["a1/5", "a normal 10000"],
    ["a3/5 b0/5", "a partial never, b normal 10000"],
    ["a28/50 b0/5", "a partial never, b normal 10000"],
    ["a29/51 b0/5", "a partial 100000, b normal 10000"],
    ["a2/2 b0/1", "a full 10000, b normal 10000"],
    ["a2/2 b1/1", "a full never, b full never, all down"],
    ["a1/1", "a full never, all down"],
    ["", ""],
  ])("%s: %s", (text, expected) => {
    expect(zonesOf(text)).toBe(expected);
  });
});

test("nodes of a larger cluster keep what they know for longer, and steps overlap", () => {
  const seen: number[] = [];
  let step = 0;
  for (const count of [1, 100, 101, 95, 89, 1000, 3000, 1800, 1799]) {
    step = ttlStep(step, count);
    seen.push(ttlSecondsOf(step));
  }
  expect(seen).toEqual([0, 0, 15, 15, 0, 30, 300, 300, 60]);
});

describe("how long a pod may stay", () => {
  const taint: Taint = { key: unreachableTaint, effect: "NoExecute" };
  const pod = (tolerations: readonly Toleration[]): Pod =>
    ({ metadata: {}, spec: { containers: [], tolerations } }) as unknown as Pod;
  test.each<[string, readonly Toleration[], number]>([
    ["no toleration", [], 0],
    ["for ever", [{ key: unreachableTaint, operator: "Exists", effect: "NoExecute" }], Number.POSITIVE_INFINITY],
    ["all taints", [{ operator: "Exists" }], Number.POSITIVE_INFINITY],
    [
      "the shortest of two",
      [
        { key: unreachableTaint, operator: "Exists", tolerationSeconds: 300 },
        { operator: "Exists", tolerationSeconds: 60 },
      ],
      60_000,
    ],
    ["another effect", [{ key: unreachableTaint, operator: "Exists", effect: "NoSchedule" }], 0],
    ["another value", [{ key: unreachableTaint, value: "x" }], 0],
    ["negative is at once", [{ operator: "Exists", tolerationSeconds: -5 }], 0],
  ])("%s", (_, tolerations, expected) => {
    expect(stayMs(pod(tolerations), [taint])).toBe(expected);
  });
});

test.each([
  ["marked and silent", ["node.kubernetes.io/out-of-service"], "Unknown", true],
  ["marked, but there", ["node.kubernetes.io/out-of-service"], "True", false],
  ["silent, not marked", [unreachableTaint], "Unknown", false],
])("a node is out of service when it is %s", (_, keys, status, expected) => {
  const node = {
    metadata: {},
    spec: { taints: keys.map((key) => ({ key, effect: "NoExecute" })) },
    status: { conditions: [{ type: "Ready", status }] },
  } as unknown as Node;
  expect(isOutOfService(node)).toBe(expected);
});

test("of finished pods the evicted ones are given up first, then the oldest", () => {
  const finished = (name: string, day: number, reason?: string): Pod =>
    ({
      metadata: { name, creationTimestamp: `2026-01-0${day}T00:00:00Z` },
      spec: { containers: [] },
      status: { phase: "Failed", ...(reason ? { reason } : {}) },
    }) as Pod;
  const all = [
    finished("new", 3),
    finished("evicted", 4, "Evicted"),
    finished("old", 1),
    finished("too", 2, "Evicted"),
  ];
  expect(all.sort(byEvictionAndAge).map((pod) => pod.metadata.name)).toEqual(["too", "evicted", "old", "new"]);
});
