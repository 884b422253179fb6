import { describe, expect, test } from "vitest";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import { podInfoOf } from "./pod-info.ts";
import { compileProfile, defaultProfileSettings } from "./profile.ts";
import { type Decision, schedule } from "./schedule.ts";
import { snapshotOf } from "./snapshot.ts";

const profile = compileProfile(defaultProfileSettings);

const node = (name: string, cpu = "2"): Node => ({
  metadata: { name, labels: { "kubernetes.io/hostname": name } },
  spec: {},
  status: { allocatable: { cpu, memory: "4Gi", pods: "110" } },
});
const leaving = { type: "DisruptionTarget", status: "True", reason: "PreemptionByScheduler" };
interface Options {
  readonly on?: string;
  readonly start?: string;
  readonly labels?: Record<string, string>;
  readonly deleting?: boolean;
  readonly spec?: Partial<Pod["spec"]>;
  readonly nominated?: string;
}
function pod(name: string, cpu: string, priority: number, options: Options = {}): Pod {
  return {
    metadata: {
      name,
      namespace: "default",
      labels: options.labels ?? {},
      ...(options.deleting ? { deletionTimestamp: "2026-01-01T00:00:00Z" } : {}),
    },
    spec: {
      priority,
      containers: [{ name: "c", image: "i", resources: { requests: { cpu } } }],
      ...(options.on ? { nodeName: options.on } : {}),
      ...options.spec,
    },
    status: {
      phase: options.on ? "Running" : "Pending",
      ...(options.start ? { startTime: options.start } : {}),
      ...(options.deleting ? { conditions: [leaving] } : {}),
      ...(options.nominated ? { nominatedNodeName: options.nominated } : {}),
    },
  };
}
const budget = (app: string, disruptionsAllowed: number): PodDisruptionBudget =>
  ({
    metadata: { name: app, namespace: "default" },
    spec: { selector: { matchLabels: { app } } },
    status: { disruptionsAllowed, currentHealthy: 1, desiredHealthy: 1, expectedPods: 1 },
  }) as PodDisruptionBudget;
const decide = (wanted: Pod, nodes: Node[], pods: Pod[], budgets: PodDisruptionBudget[] = []): Decision =>
  schedule(podInfoOf(wanted), snapshotOf(nodes, pods), { profile, pick: () => 0, budgets });
/** "node: victims", or the message. */
function outcome(wanted: Pod, nodes: Node[], pods: Pod[], budgets: PodDisruptionBudget[] = []): string {
  const decision = decide(wanted, nodes, pods, budgets);
  if (decision.kind === "bind") return `bind ${decision.node}`;
  const { preemption } = decision;
  return preemption ? `${preemption.node}: ${preemption.victims.map((v) => v.pod.metadata.name)}` : decision.message;
}

test("only as many as must go, the least important ones", () => {
  const pods = [
    pod("low", "1", 1, { on: "a" }),
    pod("middle", "0.5", 5, { on: "a" }),
    pod("high", "0.5", 50, { on: "a" }),
  ];
  expect(outcome(pod("p", "1", 10), [node("a")], pods)).toBe("a: low");
  expect(outcome(pod("p", "1.5", 10), [node("a")], pods)).toBe("a: middle,low");
  expect(outcome(pod("p", "1", 10), [node("a")], pods)).not.toContain("high");
});
test("among equals the one that started last", () => {
  const pods = [
    pod("old", "1", 1, { on: "a", start: "2026-01-01T00:00:00Z" }),
    pod("new", "1", 1, { on: "a", start: "2026-01-02T00:00:00Z" }),
  ];
  expect(outcome(pod("p", "1", 10), [node("a")], pods)).toBe("a: new");
});
test("nobody of the same priority", () => {
  expect(outcome(pod("p", "1", 10), [node("a")], [pod("same", "2", 10, { on: "a" })])).toBe(
    "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
  );
});
test("where all of them together would not be enough", () => {
  const pods = [pod("low", "1", 1, { on: "a" }), pod("high", "1", 50, { on: "a" })];
  expect(outcome(pod("p", "1.5", 10), [node("a")], pods)).toBe(
    "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.",
  );
});
test("a policy of never", () => {
  const wanted = pod("p", "1", 10, { spec: { preemptionPolicy: "Never" } });
  expect(outcome(wanted, [node("a")], [pod("low", "2", 1, { on: "a" })])).toBe(
    "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
  );
});
test("not again while the victims are still leaving", () => {
  const leaving = pod("low", "2", 1, { on: "a", deleting: true });
  const others = [leaving, pod("low2", "2", 1, { on: "b" })];
  expect(outcome(pod("p", "1", 10, { nominated: "a" }), [node("a"), node("b")], others)).toContain(
    "not eligible due to a terminating pod on the nominated node.",
  );
});
test("anti-affinity counts as a reason that victims can remove", () => {
  const spec = {
    affinity: {
      podAntiAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: [
          { labelSelector: { matchLabels: { app: "x" } }, topologyKey: "kubernetes.io/hostname" },
        ],
      },
    },
  };
  const pods = [pod("x", "0.1", 1, { on: "a", labels: { app: "x" } }), pod("y", "0.1", 1, { on: "a" })];
  expect(outcome(pod("p", "0.1", 10, { spec }), [node("a")], pods)).toBe("a: x");
});

describe("which node", () => {
  const nodes = [node("a", "1"), node("b", "1")];
  test.each([
    [
      "fewer broken budgets",
      [pod("x", "1", 1, { on: "a", labels: { app: "x" } }), pod("y", "1", 5, { on: "b" })],
      "b: y",
    ],
    ["the less important first victim", [pod("x", "1", 5, { on: "a" }), pod("y", "1", 1, { on: "b" })], "b: y"],
    [
      "the smaller sum",
      [pod("x1", "0.5", 5, { on: "a" }), pod("x2", "0.5", 4, { on: "a" }), pod("y", "1", 5, { on: "b" })],
      "b: y",
    ],
    [
      "the one whose victim started last",
      [
        pod("x", "1", 1, { on: "a", start: "2026-01-01T00:00:00Z" }),
        pod("y", "1", 1, { on: "b", start: "2026-01-02T00:00:00Z" }),
      ],
      "b: y",
    ],
  ])("%s", (_, pods, expected) => {
    expect(outcome(pod("p", "1", 10), nodes, pods, [budget("x", 0)])).toBe(expected);
  });
});
test("a budget is spared where another victim does as well", () => {
  const pods = [pod("x", "1", 1, { on: "a", labels: { app: "x" } }), pod("y", "1", 5, { on: "a" })];
  expect(outcome(pod("p", "1", 10), [node("a")], pods, [budget("x", 0)])).toBe("a: y");
  expect(outcome(pod("p", "1", 10), [node("a")], pods, [budget("x", 1)])).toBe("a: x");
});
test("promised room is taken, but not from those that matter more", () => {
  const snapshot = snapshotOf([node("a")], []);
  const vip = podInfoOf(pod("vip", "2", 10));
  const options = { profile, pick: () => 0 };
  const nominated = () => [vip];
  expect(schedule(podInfoOf(pod("p", "1", 1)), snapshot, { ...options, nominated }).kind).toBe("unschedulable");
  expect(schedule(podInfoOf(pod("p", "1", 1)), snapshot, options).kind).toBe("bind");
  expect(schedule(podInfoOf(pod("p", "1", 20)), snapshot, { ...options, nominated }).kind).toBe("bind");
  expect(schedule(vip, snapshot, { ...options, nominated }).kind).toBe("bind");
  // What was thought has left no trace.
  expect(snapshot.nodes[0]!.requestedOf("cpu")).toBe(0);
});
