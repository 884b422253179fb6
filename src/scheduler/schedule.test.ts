import { describe, expect, test } from "vitest";
import type { Container, Node, NodeSpec, Pod, PodSpec } from "#model/gen/core-v1.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { podInfoOf } from "./pod-info.ts";
import { compileProfile, defaultProfileSettings } from "./profile.ts";
import { podRequests } from "./resources.ts";
import { type Decision, findFeasible, nodesToFind, schedule } from "./schedule.ts";
import { type NodeInfo, type Snapshot, snapshotOf } from "./snapshot.ts";

const profile = compileProfile(defaultProfileSettings);
const zone = "topology.kubernetes.io/zone";
type Labels = Record<string, string>;

function node(
  name: string,
  options: { labels?: Labels; spec?: NodeSpec; allocatable?: Labels; images?: string[] } = {},
): Node {
  return {
    metadata: { name, labels: { "kubernetes.io/hostname": name, ...options.labels } },
    spec: options.spec ?? {},
    status: {
      allocatable: { cpu: "2", memory: "4Gi", pods: "110", ...options.allocatable },
      images: (options.images ?? []).map((image) => ({ names: [image], sizeBytes: 900 * 1024 * 1024 })),
    },
  };
}

let count = 0;
function pod(spec: Partial<PodSpec> = {}, labels: Labels = {}): Pod {
  count++;
  return { metadata: { name: `p${count}`, namespace: "default", labels }, spec: { containers: [], ...spec } };
}
const asks = (requests: Labels): Container => ({ name: "c", image: "i", resources: { requests } });
const on = (nodeName: string, spec: Partial<PodSpec> = {}, labels: Labels = {}): Pod =>
  pod({ ...spec, nodeName }, labels);

const decide = (wanted: Pod, snapshot: Snapshot): Decision =>
  schedule(podInfoOf(wanted), snapshot, { profile, pick: () => 0 });

/** The node, or the message. */
function outcome(
  wanted: Pod,
  nodes: Node[],
  pods: Pod[] = [],
  namespaces: Snapshot["namespaceLabels"] = new Map(),
): string {
  const decision = decide(wanted, snapshotOf(nodes, pods, namespaces));
  return decision.kind === "bind" ? decision.node : decision.message;
}

const noVictims = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
const notHelpful = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
const failure = (reason: string, preemption: string) => `0/1 nodes are available: 1 ${reason}. ${preemption}`;
const appSelector = (app: string) => ({
  labelSelector: { matchLabels: { app } },
  topologyKey: "kubernetes.io/hostname",
});
const requiredNear = (app: string) => ({
  podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [appSelector(app)] },
});
const requiredFar = (app: string) => ({
  podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [appSelector(app)] },
});
const nodeExpression = (key: string, operator: string, ...values: string[]): Partial<PodSpec> => ({
  affinity: {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchExpressions: [{ key, operator, values }] }],
      },
    },
  },
});

describe("filters", () => {
  test.each<[string, string, string]>([
    ["no nodes", outcome(pod(), []), "no nodes available to schedule pods"],
    ["fits", outcome(pod(), [node("a")]), "a"],
    [
      "cpu taken by another",
      outcome(
        pod({ containers: [asks({ cpu: "1500m" })] }),
        [node("a")],
        [on("a", { containers: [asks({ cpu: "1" })] })],
      ),
      failure("Insufficient cpu", noVictims),
    ],
    [
      "exactly full is fine",
      outcome(pod({ containers: [asks({ cpu: "1" })] }), [node("a")], [on("a", { containers: [asks({ cpu: "1" })] })]),
      "a",
    ],
    [
      "larger than the node, two ways",
      outcome(pod({ containers: [asks({ cpu: "3", memory: "5Gi" })] }), [node("a")]),
      `0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. ${notHelpful}`,
    ],
    [
      "extended resource that no node has",
      outcome(pod({ containers: [asks({ "example.com/gpu": "1" })] }), [node("a")]),
      failure("Insufficient example.com/gpu", notHelpful),
    ],
    [
      "a finished pod holds nothing",
      outcome(
        pod({ containers: [asks({ cpu: "2" })] }),
        [node("a")],
        [{ ...on("a", { containers: [asks({ cpu: "2" })] }), status: { phase: "Succeeded" } }],
      ),
      "a",
    ],
    [
      "too many pods",
      outcome(pod(), [node("a", { allocatable: { pods: "1" } })], [on("a")]),
      failure("Too many pods", noVictims),
    ],
    [
      "an init container counts by its peak",
      outcome(pod({ containers: [asks({ cpu: "1" })], initContainers: [asks({ cpu: "3" })] }), [node("a")]),
      failure("Insufficient cpu", notHelpful),
    ],
    [
      "a sidecar adds to the containers",
      outcome(
        pod({
          containers: [asks({ cpu: "1500m" })],
          initContainers: [{ ...asks({ cpu: "600m" }), restartPolicy: "Always" }],
        }),
        [node("a")],
      ),
      failure("Insufficient cpu", notHelpful),
    ],
    [
      "overhead counts",
      outcome(pod({ containers: [asks({ cpu: "2" })], overhead: { cpu: "1m" } }), [node("a")]),
      failure("Insufficient cpu", notHelpful),
    ],
    [
      "cordoned",
      outcome(pod(), [node("a", { spec: { unschedulable: true } })]),
      failure("node(s) were unschedulable", notHelpful),
    ],
    [
      "cordoned, tolerated",
      outcome(
        pod({ tolerations: [{ key: "node.kubernetes.io/unschedulable", operator: "Exists", effect: "NoSchedule" }] }),
        [node("a", { spec: { unschedulable: true } })],
      ),
      "a",
    ],
    [
      "taint",
      outcome(pod(), [node("a", { spec: { taints: [{ key: "k", value: "v", effect: "NoSchedule" }] } })]),
      failure("node(s) had untolerated taint {k: v}", notHelpful),
    ],
    [
      "taint tolerated by value",
      outcome(pod({ tolerations: [{ key: "k", value: "v" }] }), [
        node("a", { spec: { taints: [{ key: "k", value: "v", effect: "NoSchedule" }] } }),
      ]),
      "a",
    ],
    [
      "taint tolerated by all",
      outcome(pod({ tolerations: [{ operator: "Exists" }] }), [
        node("a", { spec: { taints: [{ key: "k", value: "v", effect: "NoExecute" }] } }),
      ]),
      "a",
    ],
    [
      "node selector",
      outcome(pod({ nodeSelector: { disk: "ssd" } }), [node("a")]),
      failure("node(s) didn't match Pod's node affinity/selector", notHelpful),
    ],
    [
      "node selector met",
      outcome(pod({ nodeSelector: { disk: "ssd" } }), [node("a"), node("b", { labels: { disk: "ssd" } })]),
      "b",
    ],
    [
      "node affinity In",
      outcome(pod(nodeExpression("z", "In", "1", "2")), [node("a"), node("b", { labels: { z: "2" } })]),
      "b",
    ],
    [
      "node affinity NotIn",
      outcome(pod(nodeExpression("z", "NotIn", "2")), [node("b", { labels: { z: "2" } }), node("a")]),
      "a",
    ],
    [
      "node affinity Gt",
      outcome(pod(nodeExpression("z", "Gt", "9")), [
        node("a", { labels: { z: "8" } }),
        node("b", { labels: { z: "10" } }),
      ]),
      "b",
    ],
    [
      "node affinity Exists",
      outcome(pod(nodeExpression("z", "Exists")), [node("a"), node("b", { labels: { z: "" } })]),
      "b",
    ],
    [
      "host port taken",
      outcome(
        pod({ containers: [{ name: "c", ports: [{ containerPort: 80, hostPort: 80 }] }] }),
        [node("a")],
        [on("a", { containers: [{ name: "c", ports: [{ containerPort: 80, hostPort: 80, hostIP: "127.0.0.1" }] }] })],
      ),
      failure("node(s) didn't have free ports for the requested pod ports", noVictims),
    ],
    [
      "host port on another protocol",
      outcome(
        pod({ containers: [{ name: "c", ports: [{ containerPort: 80, hostPort: 80 }] }] }),
        [node("a")],
        [on("a", { containers: [{ name: "c", ports: [{ containerPort: 80, hostPort: 80, protocol: "UDP" }] }] })],
      ),
      "a",
    ],
    [
      "affinity: near",
      outcome(pod({ affinity: requiredNear("db") }), [node("a"), node("b")], [on("b", {}, { app: "db" })]),
      "b",
    ],
    [
      "affinity: nobody there",
      outcome(pod({ affinity: requiredNear("db") }), [node("a")]),
      failure("node(s) didn't match pod affinity rules", notHelpful),
    ],
    [
      "affinity: first of its own group",
      outcome(pod({ affinity: requiredNear("db") }, { app: "db" }), [node("a")]),
      "a",
    ],
    [
      "affinity: other namespace does not count",
      outcome(
        pod({ affinity: requiredNear("db") }),
        [node("a")],
        [{ ...on("a", {}, { app: "db" }), metadata: { name: "x", namespace: "other", labels: { app: "db" } } }],
      ),
      failure("node(s) didn't match pod affinity rules", notHelpful),
    ],
    [
      "affinity: namespace selector",
      outcome(
        pod({
          affinity: {
            podAffinity: {
              requiredDuringSchedulingIgnoredDuringExecution: [
                { ...appSelector("db"), namespaceSelector: { matchLabels: { team: "x" } } },
              ],
            },
          },
        }),
        [node("a"), node("b")],
        [{ ...on("b"), metadata: { name: "x", namespace: "other", labels: { app: "db" } } }],
        new Map([["other", { team: "x" }]]),
      ),
      "b",
    ],
    [
      "anti-affinity",
      outcome(pod({ affinity: requiredFar("db") }), [node("a")], [on("a", {}, { app: "db" })]),
      failure("node(s) didn't match pod anti-affinity rules", noVictims),
    ],
    [
      "anti-affinity of one that runs",
      outcome(pod({}, { app: "web" }), [node("a")], [on("a", { affinity: requiredFar("web") })]),
      failure("node(s) didn't satisfy existing pods anti-affinity rules", noVictims),
    ],
    [
      "spread",
      outcome(
        pod({ topologySpreadConstraints: [spread("DoNotSchedule")] }, { app: "web" }),
        [node("a"), node("b")],
        [on("a", {}, { app: "web" })],
      ),
      "b",
    ],
    [
      "spread: label missing",
      outcome(
        pod({ topologySpreadConstraints: [{ ...spread("DoNotSchedule"), topologyKey: "zone" }] }, { app: "web" }),
        [node("a")],
      ),
      failure("node(s) didn't match pod topology spread constraints (missing required label)", notHelpful),
    ],
    [
      "spread: too few domains",
      outcome(
        pod({ topologySpreadConstraints: [{ ...spread("DoNotSchedule"), minDomains: 2 }] }, { app: "web" }),
        [node("a")],
        [on("a", {}, { app: "web" })],
      ),
      failure("node(s) didn't match pod topology spread constraints", noVictims),
    ],
    [
      "never preempting",
      outcome(pod({ nodeSelector: { x: "y" }, preemptionPolicy: "Never" }), [node("a")]),
      failure(
        "node(s) didn't match Pod's node affinity/selector",
        "preemption: not eligible due to preemptionPolicy=Never.",
      ),
    ],
    [
      "reasons are counted and sorted",
      outcome(
        pod({ containers: [asks({ cpu: "2" })] }),
        [node("a", { spec: { unschedulable: true } }), node("b"), node("c")],
        [on("b", { containers: [asks({ cpu: "1" })] }), on("c", { containers: [asks({ cpu: "1" })] })],
      ),
      "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.",
    ],
  ])("%s", (_, got, expected) => {
    expect(got).toBe(expected);
  });
});

describe("scores", () => {
  test.each<[string, string, string]>([
    ["least allocated", outcome(pod(), [node("a"), node("b")], [on("a", { containers: [asks({ cpu: "1" })] })]), "b"],
    [
      "preferred node affinity",
      outcome(
        pod({
          affinity: {
            nodeAffinity: {
              preferredDuringSchedulingIgnoredDuringExecution: [
                { weight: 1, preference: { matchExpressions: [{ key: "disk", operator: "In", values: ["ssd"] }] } },
              ],
            },
          },
        }),
        [node("a"), node("b", { labels: { disk: "ssd" } })],
      ),
      "b",
    ],
    [
      "away from soft taints",
      outcome(pod(), [node("a", { spec: { taints: [{ key: "k", effect: "PreferNoSchedule" }] } }), node("b")]),
      "b",
    ],
    [
      "preferred pod affinity",
      outcome(
        pod({
          affinity: {
            podAffinity: {
              preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 10, podAffinityTerm: appSelector("db") }],
            },
          },
        }),
        [node("a"), node("b")],
        [on("b", {}, { app: "db" })],
      ),
      "b",
    ],
    [
      "preferred anti-affinity",
      outcome(
        pod({
          affinity: {
            podAntiAffinity: {
              preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 10, podAffinityTerm: appSelector("db") }],
            },
          },
        }),
        [node("a"), node("b")],
        [on("a", {}, { app: "db" })],
      ),
      "b",
    ],
    [
      "soft spread",
      outcome(
        pod({ topologySpreadConstraints: [spread("ScheduleAnyway")] }, { app: "web" }),
        [node("a"), node("b")],
        [on("a", {}, { app: "web" })],
      ),
      "b",
    ],
    [
      "image already there",
      outcome(pod({ containers: [{ name: "c", image: "registry:5000/big" }] }), [
        node("a"),
        node("b", { images: ["registry:5000/big:latest"] }),
      ]),
      "b",
    ],
  ])("%s", (_, got, expected) => {
    expect(got).toBe(expected);
  });

  test("ties go where the caller picks", () => {
    const snapshot = snapshotOf([node("a"), node("b"), node("c")], []);
    const picked = [0, 1, 2].map((index) => schedule(podInfoOf(pod()), snapshot, { profile, pick: () => index }));
    expect(picked.map((d) => d.kind === "bind" && d.node)).toEqual(["a", "b", "c"]);
  });
});

describe("large clusters", () => {
  test.each([
    [99, 0, 99],
    [100, 0, 100],
    [1000, 0, 420],
    [5000, 0, 500],
    [6000, 0, 300],
    [5000, 30, 1500],
    [1000, 1, 100],
  ])("%i nodes, %i percent asked: %i are enough", (nodeCount, percentage, expected) => {
    expect(nodesToFind(nodeCount, percentage)).toBe(expected);
  });
  const many = Array.from({ length: 300 }, (_, i) => node(`n${i}`, { labels: { [zone]: `z${i < 200 ? 0 : 1}` } }));
  const few = { ...profile, percentageOfNodesToScore: 1 };
  test("the next pod goes on where the last one left off", () => {
    const snapshot = snapshotOf(many, []);
    const names = (start: number) => findFeasible(podInfoOf(pod()), snapshot, { profile: few, pick: () => 0, start });
    const first = names(0);
    expect([first.nodes.length, first.examined]).toEqual([100, 100]);
    const second = names(first.examined);
    expect(second.nodes.filter((one) => first.nodes.includes(one))).toEqual([]);
  });
  test("zones take turns", () => {
    const found = findFeasible(podInfoOf(pod()), snapshotOf(many, []), { profile: few, pick: () => 0 });
    expect(found.nodes.filter(({ labels }) => labels[zone] === "z1")).toHaveLength(50);
  });
  test("a pod for one named node asks no other", () => {
    const one = { key: "metadata.name", operator: "In", values: ["n7"] };
    const terms = { nodeSelectorTerms: [{ matchFields: [one] }] };
    const spec = { affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: terms } } };
    expect(outcome(pod(spec), many)).toBe("n7");
    expect(outcome(pod({ ...spec, containers: [asks({ cpu: "3" })] }), many.slice(0, 10))).toBe(
      "0/10 nodes are available: 1 Insufficient cpu, 9 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/10 nodes are available: 10 Preemption is not helpful for scheduling.",
    );
  });
  test("pods of one group are spread by default, over zones and hosts", () => {
    const labels = { app: "web" };
    const nodes = [
      node("a", { labels: { [zone]: "x" } }),
      node("b", { labels: { [zone]: "y" }, allocatable: { cpu: "1" } }),
    ];
    const snapshot = snapshotOf(nodes, [on("a", {}, labels), on("a", {}, labels)]);
    const groupOf = () => ({ matchLabels: labels });
    const wanted = podInfoOf(pod({ containers: [asks({ cpu: "500m" })] }, labels));
    const options = { profile, pick: () => 0 };
    expect(schedule(wanted, snapshot, options)).toMatchObject({ node: "a" });
    expect(schedule(wanted, { ...snapshot, groupOf }, options)).toMatchObject({ node: "b" });
  });
});

describe("whatever comes, no node is given more than it has", () => {
  test.each([1, 2, 3, 4, 5])("seed %i", (seed) => {
    const random = seededRandom(seed);
    const upTo = (n: number) => Math.floor(random.float() * n);
    const nodes = Array.from({ length: 1 + upTo(4) }, (_, i) =>
      node(`n${i}`, { allocatable: { cpu: `${1 + upTo(4)}`, memory: `${1 + upTo(4)}Gi`, pods: `${3 + upTo(20)}` } }),
    );
    const snapshot = snapshotOf(nodes, []);
    let bound = 0;
    let refused = 0;
    for (let step = 0; step < 300; step++) {
      const running = snapshot.nodes.flatMap((n) => [...n.pods.keys()].map((key) => ({ n, key })));
      if (running.length > 0 && random.float() < 0.3) {
        const { n, key } = running[upTo(running.length)]!;
        n.removePod(key);
        continue;
      }
      const container = (): Container => asks({ cpu: `${upTo(1500)}m`, memory: `${upTo(1200)}Mi` });
      const wanted = pod({
        containers: Array.from({ length: 1 + upTo(2) }, container),
        initContainers: Array.from({ length: upTo(3) }, () => ({
          ...container(),
          ...(random.float() < 0.5 && { restartPolicy: "Always" }),
        })),
      });
      const decision = schedule(podInfoOf(wanted), snapshot, { profile, pick: upTo });
      if (decision.kind === "bind") {
        bound++;
        snapshot.nodes.find((n) => n.name === decision.node)!.addPod(podInfoOf(wanted));
      } else refused++;
      for (const n of snapshot.nodes) {
        expect(isWithinAllocatable(n), `${n.name} at step ${step}, seed ${seed}`).toBe(true);
        expect(n.pods.size).toBeLessThanOrEqual(n.allocatableOf("pods"));
      }
    }
    // The run has to have met both answers to mean anything.
    expect(Math.min(bound, refused)).toBeGreaterThan(10);
  });
});

function spread(whenUnsatisfiable: string) {
  return {
    maxSkew: 1,
    topologyKey: "kubernetes.io/hostname",
    whenUnsatisfiable,
    labelSelector: { matchLabels: { app: "web" } },
  };
}

/** Summed afresh from the pods, not from the node's own sums. */
function isWithinAllocatable(info: NodeInfo): boolean {
  const sums = new Map<string, number>();
  for (const running of info.pods.values()) {
    for (const [name, amount] of podRequests(running.pod).requests) sums.set(name, (sums.get(name) ?? 0) + amount);
  }
  return [...sums].every(([name, amount]) => amount <= info.allocatableOf(name));
}
