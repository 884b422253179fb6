import { describe, expect, test } from "vitest";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { parseSchedulerArguments } from "./arguments.ts";
import { filesNamedBy, parseSchedulerConfiguration } from "./configuration.ts";
import { podInfoOf } from "./pod-info.ts";
import type { Profile } from "./profile.ts";
import { schedule } from "./schedule.ts";
import { snapshotOf } from "./snapshot.ts";

const head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
const parse = (text: string) => parseSchedulerConfiguration(head + text);
const profile = (text: string): Profile => {
  const [first] = parse(`profiles:\n- ${text.trim().replaceAll("\n", "\n  ")}\n`).profiles;
  return first!;
};
const args = (plugin: string, json: string) => `pluginConfig: [{name: ${plugin}, args: ${json}}]`;

describe("what is not as it should be is named by its path", () => {
  test.each<[string, string]>([
    ["parallelism: 0", "parallelism: Invalid value: 0: should be an integer value greater than zero"],
    ["nonsense: 1", 'strict decoding error: unknown field "nonsense"'],
    [
      "profiles: [{plugins: {filter: {none: []}}}]",
      'strict decoding error: unknown field "profiles[0].plugins.filter.none"',
    ],
    ["percentageOfNodesToScore: 101", "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"],
    ["percentageOfNodesToScore: many", 'percentageOfNodesToScore: Invalid value: "many": must be an integer'],
    ["podInitialBackoffSeconds: 0", "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0"],
    [
      "podInitialBackoffSeconds: 5\npodMaxBackoffSeconds: 2",
      "podMaxBackoffSeconds: Invalid value: 2: must be greater than or equal to PodInitialBackoffSeconds",
    ],
    [
      "profiles: [{schedulerName: a}, {schedulerName: a}]",
      'profiles[1].schedulerName: Duplicate value: "profiles[0].schedulerName"',
    ],
    ["profiles: [{schedulerName: a}, {}]", "profiles[1].schedulerName: Required value"],
    [
      "profiles: [{plugins: {filter: {enabled: [{name: Nonsense}]}}}]",
      'profiles[0].plugins.filter.enabled[0].name: Invalid value: "Nonsense": FilterPlugin "Nonsense" does not exist',
    ],
    [
      "profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]",
      'profiles[0].plugins.score.enabled[0].name: Invalid value: "NodeName": plugin "NodeName" does not extend ScorePlugin plugin',
    ],
    [
      "profiles: [{plugins: {score: {disabled: [{name: Nonsense}]}}}]",
      'profiles[0].plugins.score.disabled[0].name: Invalid value: "Nonsense": no such plugin',
    ],
    [
      "profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: -1}]}}}]",
      "profiles[0].plugins.score.enabled[0].weight: Invalid value: -1: not in valid range [0-2147483647]",
    ],
    [
      'profiles: [{plugins: {queueSort: {disabled: [{name: "*"}]}}}]',
      'profiles[0].plugins.queueSort: one queue sort plugin required for profile with scheduler name "default-scheduler"',
    ],
    [
      "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]",
      "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
    ],
    [
      "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {weight: 1}}]}]",
      'strict decoding error: unknown field "profiles[0].pluginConfig[0].args.weight"',
    ],
    [
      "profiles: [{pluginConfig: [{name: InterPodAffinity}, {name: InterPodAffinity}]}]",
      'profiles[0].pluginConfig[1]: Duplicate value: "InterPodAffinity"',
    ],
    [
      "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]}]",
      'profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: "Best": supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"',
    ],
    [
      "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {resources: [{name: cpu, weight: 101}]}}}]}]",
      "profiles[0].pluginConfig[0].args.scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]",
    ],
    [
      "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}]}]",
      "profiles[0].pluginConfig[0].args.scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is RequestedToCapacityRatio",
    ],
    [
      "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}}]}]",
      'profiles[0].pluginConfig[0].args.defaultingType: Invalid value: "System": when .defaultConstraints are not empty',
    ],
    [
      "profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}}]}]",
      "[profiles[0].pluginConfig[0].args.minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as minCandidateNodesAbsolute, profiles[0].pluginConfig[0].args.minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time as minCandidateNodesPercentage]",
    ],
    [
      "profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: -1}}]}]",
      "profiles[0].pluginConfig[0].args.bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value",
    ],
    [
      "extenders: [{urlPrefix: 'http://a', prioritizeVerb: p}]",
      "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
    ],
    [
      "extenders: [{urlPrefix: 'http://a', bindVerb: b}, {urlPrefix: 'http://b', bindVerb: b}]",
      'extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind',
    ],
    [
      "extenders: [{urlPrefix: 'http://a', managedResources: [{name: cpu}]}]",
      'extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name',
    ],
    [
      "leaderElection: {resourceLock: endpoints}",
      'leaderElection.resourceLock: Invalid value: "endpoints": resourceLock value must be "leases"',
    ],
  ])("%s", (text, message) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ code: "SCHEDULER_CONFIGURATION", message }));
  });

  test("another kind or version", () => {
    expect(() => parseSchedulerConfiguration("kind: KubeSchedulerConfiguration\napiVersion: v1\n")).toThrow(
      'no kind "KubeSchedulerConfiguration" is registered for version "v1"',
    );
  });
  test("arguments", () => {
    expect(parseSchedulerArguments(["config=/etc/s.yaml"])).toEqual({ configFile: "/etc/s.yaml" });
    expect(() => parseSchedulerArguments(["v=2"])).toThrow("kube-scheduler-arg v: is not known");
    expect(() => parseSchedulerArguments(["--config"])).toThrow("needs a value");
  });
});

describe("which plugins work", () => {
  const scorers = (p: Profile) => p.scorers.map(({ plugin, weight }) => `${plugin.name}:${weight}`);
  const all = [
    "TaintToleration:3",
    "NodeAffinity:2",
    "NodeResourcesFit:1",
    "PodTopologySpread:2",
    "InterPodAffinity:2",
  ];
  const rest = ["NodeResourcesBalancedAllocation:1", "ImageLocality:1"];

  test("nothing said: upstream's", () => {
    const { profiles, podInitialBackoffMs, podMaxBackoffMs } = parse("leaderElection: {leaderElect: true}");
    expect(profiles.map(({ name }) => name)).toEqual(["default-scheduler"]);
    expect(scorers(profiles[0]!)).toEqual([...all, ...rest]);
    expect(profiles[0]!.preemption).toEqual({ minCandidateNodesPercentage: 10, minCandidateNodesAbsolute: 100 });
    expect([podInitialBackoffMs, podMaxBackoffMs]).toEqual([1000, 10_000]);
  });
  test.each<[string, string, string[]]>([
    ["one less", "plugins: {score: {disabled: [{name: NodeAffinity}]}}", [all[0]!, ...all.slice(2), ...rest]],
    [
      "none but one",
      'plugins: {score: {disabled: [{name: "*"}], enabled: [{name: ImageLocality}]}}',
      ["ImageLocality:1"],
    ],
    [
      "another weight comes first",
      "plugins: {score: {enabled: [{name: ImageLocality, weight: 7}]}}",
      ["ImageLocality:7", ...all, rest[0]!],
    ],
    [
      "another weight by multiPoint stays in place",
      "plugins: {multiPoint: {enabled: [{name: NodeAffinity, weight: 9}]}}",
      [all[0]!, "NodeAffinity:9", ...all.slice(2), ...rest],
    ],
    ["off by multiPoint", "plugins: {multiPoint: {disabled: [{name: ImageLocality}]}}", [...all, rest[0]!]],
  ])("%s", (_, text, expected) => {
    expect(scorers(profile(text))).toEqual(expected);
  });
  test("preemption, gates and volumes can be switched off", () => {
    expect(profile("plugins: {postFilter: {disabled: [{name: DefaultPreemption}]}}").preemption).toBeUndefined();
    expect(profile("plugins: {preEnqueue: {disabled: [{name: SchedulingGates}]}}").holdsGatedPods).toBe(false);
    expect(profile("plugins: {preBind: {disabled: [{name: VolumeBinding}]}}").bindsVolumes).toBe(false);
  });
  test("a profile's share of nodes wins over that of all", () => {
    const { profiles } = parse(
      "percentageOfNodesToScore: 30\nprofiles: [{schedulerName: a, percentageOfNodesToScore: 7}, {schedulerName: b}]",
    );
    expect(profiles.map((p) => p.percentageOfNodesToScore)).toEqual([7, 30]);
  });
});

describe("what arguments do", () => {
  const node = (name: string, cpu: string, labels = {}): Node => ({
    metadata: { name, labels: { "kubernetes.io/hostname": name, ...labels } },
    spec: {},
    status: { allocatable: { cpu, memory: "8Gi", pods: "110", "example.com/gpu": "4" } },
  });
  let count = 0;
  const pod = (requests: Record<string, string>, on?: string, more: Partial<Pod["metadata"]> = {}): Pod => ({
    metadata: { name: `p${count++}`, namespace: "default", ...more },
    spec: { containers: [{ name: "c", image: "i", resources: { requests } }], ...(on ? { nodeName: on } : {}) },
  });
  const place = (text: string, wanted: Pod, nodes: Node[], pods: Pod[]): string => {
    const decision = schedule(podInfoOf(wanted), snapshotOf(nodes, pods), { profile: profile(text), pick: () => 0 });
    return decision.kind === "bind" ? decision.node : decision.message;
  };
  const two = [node("a", "4"), node("b", "4")];
  const onB = [pod({ cpu: "2", memory: "4Gi" }, "b")];
  const small = () => pod({ cpu: "1", memory: "2Gi" });

  test("NodeResourcesFit: fill up, or spread out", () => {
    expect(place("schedulerName: x", small(), two, onB)).toBe("a");
    expect(place(args("NodeResourcesFit", "{scoringStrategy: {type: MostAllocated}}"), small(), two, onB)).toBe("b");
  });
  test("NodeResourcesFit: a shape", () => {
    const shape = (first: number, last: number) =>
      args(
        "NodeResourcesFit",
        `{scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 0, score: ${first}}, {utilization: 100, score: ${last}}]}}}`,
      );
    expect(place(shape(0, 10), small(), two, onB)).toBe("b");
    expect(place(shape(10, 0), small(), two, onB)).toBe("a");
  });
  test("NodeResourcesFit: weights of other resources", () => {
    const text = args(
      "NodeResourcesFit",
      "{scoringStrategy: {type: MostAllocated, resources: [{name: example.com/gpu, weight: 5}]}}",
    );
    const gpuOnA = [pod({ "example.com/gpu": "2" }, "a")];
    expect(place(text, pod({ "example.com/gpu": "1" }), two, gpuOnA)).toBe("a");
  });
  test("NodeResourcesFit: resources that somebody else looks after", () => {
    const wanted = pod({ "other.com/thing": "1" });
    expect(place("schedulerName: x", wanted, two, [])).toContain("2 Insufficient other.com/thing");
    expect(place(args("NodeResourcesFit", "{ignoredResources: [other.com/thing]}"), wanted, two, [])).toBe("a");
    expect(place(args("NodeResourcesFit", "{ignoredResourceGroups: [other.com]}"), wanted, two, [])).toBe("a");
  });
  test("NodeAffinity: what the cluster adds", () => {
    const text = args(
      "NodeAffinity",
      "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [batch]}]}]}}}",
    );
    expect(place(text, small(), two, [])).toContain("2 node(s) didn't match scheduler-enforced node affinity");
    expect(place(text, small(), [...two, node("c", "4", { pool: "batch" })], [])).toBe("c");
  });
  test("PodTopologySpread: constraints for pods of a group, hard ones too", () => {
    const text = args(
      "PodTopologySpread",
      "{defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule}]}",
    );
    const labels = { labels: { app: "web" } };
    const wanted = podInfoOf(pod({ cpu: "1" }, undefined, labels));
    const nodes = [node("a", "64"), node("b", "4")];
    const snapshot = snapshotOf(nodes, [pod({}, "a", labels)]);
    const groupOf = () => ({ matchLabels: { app: "web" } });
    const options = { profile: profile(text), pick: () => 0 };
    expect(schedule(wanted, { ...snapshot, groupOf }, options)).toMatchObject({ node: "b" });
    // On its own the pod is drawn to the larger node.
    expect(schedule(wanted, snapshot, options)).toMatchObject({ node: "a" });
  });
});

test("files of extenders are read beforehand", () => {
  const text = `${head}extenders: [{urlPrefix: 'https://a', enableHTTPS: true, httpTimeout: 3s, tlsConfig: {caFile: /ca, certData: ${Buffer.from("CERT").toString("base64")}}}]`;
  expect(filesNamedBy(text)).toEqual(["/ca"]);
  const [extender] = parseSchedulerConfiguration(text, new Map([["/ca", "CA"]])).extenders;
  expect(extender).toMatchObject({ httpTimeoutMs: 3000, tls: { ca: "CA", cert: "CERT", insecure: false } });
});
