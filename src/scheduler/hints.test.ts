// Which changes wake a pod that a plugin turned down: upstream's event table and hints, v1.32.
import { describe, expect, test } from "vitest";
import type { Node, Pod, PodSpec } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import type { Change } from "./plugins/framework.ts";
import { podInfoOf } from "./pod-info.ts";
import { compileProfile, defaultProfileSettings } from "./profile.ts";

const { plugins } = compileProfile(defaultProfileSettings);
const host = "kubernetes.io/hostname";

const node = (labels: Record<string, string> = {}, spec: Node["spec"] = {}, cpu = "4"): Node => ({
  metadata: { name: "n", labels: { [host]: "n", ...labels } },
  spec,
  status: { allocatable: { cpu, pods: "110" } },
});
const tainted = (effect = "NoSchedule") => node({}, { taints: [{ key: "k", effect }] });
const pod = (spec: Partial<PodSpec> = {}, labels: Record<string, string> = {}, name = "p"): Pod => ({
  metadata: { name, namespace: "default", uid: name, labels },
  spec: { containers: [{ name: "c", resources: { requests: { cpu: "2" } } }], ...spec },
});
const asks = (cpu: string): Partial<PodSpec> => ({ containers: [{ name: "c", resources: { requests: { cpu } } }] });
const other = (labels: Record<string, string> = {}, spec: Partial<PodSpec> = {}): Pod =>
  pod({ ...asks("1"), nodeName: "n", ...spec }, labels, "other");
const port = (hostPort: number): Partial<PodSpec> => ({
  containers: [{ name: "c", ports: [{ containerPort: 1, hostPort }] }],
});
const term = (app: string, topologyKey = host) => ({ labelSelector: { matchLabels: { app } }, topologyKey });
const near = (app: string): Partial<PodSpec> => ({
  affinity: { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term(app, "zone")] } },
});
const far = (app: string): Partial<PodSpec> => ({
  affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term(app)] } },
});
const spread: Partial<PodSpec> = {
  topologySpreadConstraints: [
    {
      maxSkew: 1,
      topologyKey: "zone",
      whenUnsatisfiable: "DoNotSchedule",
      labelSelector: { matchLabels: { app: "web" } },
    },
  ],
};
const claimed: Partial<PodSpec> = { volumes: [{ name: "v", persistentVolumeClaim: { claimName: "data" } }] };
const named = (name: string, more: object = {}): ApiObject =>
  ({ metadata: { name, namespace: "default" }, ...more }) as ApiObject;

function helps(plugin: string, waiting: Pod, change: Change): boolean {
  const found = plugins.find(({ name }) => name === plugin);
  if (!found) throw new Error(`no plugin ${plugin}`);
  const view = { namespaceLabels: new Map() };
  return found.interests.some(
    ({ events, hint }) => events.includes(change.event) && (!hint || hint(podInfoOf(waiting), change, view)),
  );
}

describe.each<[string, [string, Pod, Change, boolean][]]>([
  [
    "NodeUnschedulable",
    [
      [
        "uncordoned",
        pod(),
        { event: "NodeUpdateNodeTaint", old: node({}, { unschedulable: true }), next: node() },
        true,
      ],
      [
        "cordoned",
        pod(),
        { event: "NodeUpdateNodeTaint", old: node(), next: node({}, { unschedulable: true }) },
        false,
      ],
      ["a pod ends", pod(), { event: "AssignedPodDelete", old: other() }, false],
    ],
  ],
  [
    "TaintToleration",
    [
      ["a taint goes", pod(), { event: "NodeUpdateNodeTaint", old: tainted(), next: node() }, true],
      ["a taint stays", pod(), { event: "NodeUpdateNodeTaint", old: tainted(), next: tainted("NoExecute") }, false],
      ["was no obstacle before", pod(), { event: "NodeUpdateNodeTaint", old: node(), next: node() }, false],
      ["a clean node comes", pod(), { event: "NodeAdd", next: node() }, true],
      ["a tainted node comes", pod(), { event: "NodeAdd", next: tainted() }, false],
      ["the pod tolerates more", pod(), { event: "UnschedulablePodUpdatePodToleration" }, true],
      ["a label changes", pod(), { event: "NodeUpdateNodeLabel", old: node(), next: node({ a: "b" }) }, false],
    ],
  ],
  [
    "NodeAffinity",
    [
      [
        "a node of the kind comes",
        pod({ nodeSelector: { disk: "ssd" } }),
        { event: "NodeAdd", next: node({ disk: "ssd" }) },
        true,
      ],
      ["another comes", pod({ nodeSelector: { disk: "ssd" } }), { event: "NodeAdd", next: node() }, false],
      [
        "a node becomes one of the kind",
        pod({ nodeSelector: { disk: "ssd" } }),
        { event: "NodeUpdateNodeLabel", old: node(), next: node({ disk: "ssd" }) },
        true,
      ],
      [
        "a node of the kind gets another label",
        pod({ nodeSelector: { disk: "ssd" } }),
        { event: "NodeUpdateNodeLabel", old: node({ disk: "ssd" }), next: node({ disk: "ssd", a: "b" }) },
        false,
      ],
    ],
  ],
  [
    "NodePorts",
    [
      ["the port is given back", pod(port(80)), { event: "AssignedPodDelete", old: other({}, port(80)) }, true],
      ["another port is", pod(port(80)), { event: "AssignedPodDelete", old: other({}, port(81)) }, false],
      ["a node comes", pod(port(80)), { event: "NodeAdd", next: node() }, true],
    ],
  ],
  [
    "NodeResourcesFit",
    [
      ["a pod ends", pod(), { event: "AssignedPodDelete", old: other() }, true],
      ["a pod comes", pod(), { event: "AssignedPodAdd", next: other() }, false],
      [
        "another pod shrinks",
        pod(),
        { event: "AssignedPodUpdatePodScaleDown", old: other({}, asks("2")), next: other({}, asks("1")) },
        true,
      ],
      [
        "another pod shrinks in what is not wanted",
        pod(),
        {
          event: "AssignedPodUpdatePodScaleDown",
          old: other({}, { containers: [{ name: "c", resources: { requests: { memory: "2Gi" } } }] }),
          next: other({}, { containers: [{ name: "c", resources: { requests: { memory: "1Gi" } } }] }),
        },
        false,
      ],
      ["the pod itself asks for less", pod(), { event: "UnschedulablePodUpdatePodScaleDown" }, true],
      ["a node that is too small comes", pod(), { event: "NodeAdd", next: node({}, {}, "1") }, false],
      ["a node that is large enough comes", pod(), { event: "NodeAdd", next: node() }, true],
      ["a node grows", pod(), { event: "NodeUpdateNodeAllocatable", old: node({}, {}, "1"), next: node() }, true],
      ["a node shrinks", pod(), { event: "NodeUpdateNodeAllocatable", old: node(), next: node({}, {}, "3") }, false],
      ["a taint goes", pod(), { event: "NodeUpdateNodeTaint", old: tainted(), next: node() }, false],
    ],
  ],
  [
    "InterPodAffinity",
    [
      ["a pod to be near to comes", pod(near("db")), { event: "AssignedPodAdd", next: other({ app: "db" }) }, true],
      ["another comes", pod(near("db")), { event: "AssignedPodAdd", next: other({ app: "x" }) }, false],
      ["a pod to be far from goes", pod(far("db")), { event: "AssignedPodDelete", old: other({ app: "db" }) }, true],
      ["another goes", pod(far("db")), { event: "AssignedPodDelete", old: other({ app: "x" }) }, false],
      [
        "a pod that kept it away goes",
        pod({}, { app: "web" }),
        { event: "AssignedPodDelete", old: other({}, far("web")) },
        true,
      ],
      [
        "a pod gets the label",
        pod(near("db")),
        { event: "AssignedPodUpdatePodLabel", old: other(), next: other({ app: "db" }) },
        true,
      ],
      ["a node without the topology comes", pod(near("db")), { event: "NodeAdd", next: node() }, false],
      ["a node with it comes", pod(near("db")), { event: "NodeAdd", next: node({ zone: "a" }) }, true],
      [
        "a node moves to another zone",
        pod(near("db")),
        { event: "NodeUpdateNodeLabel", old: node({ zone: "a" }), next: node({ zone: "b" }) },
        true,
      ],
    ],
  ],
  [
    "PodTopologySpread",
    [
      ["one of its kind comes", pod(spread), { event: "AssignedPodAdd", next: other({ app: "web" }) }, true],
      ["another comes", pod(spread), { event: "AssignedPodAdd", next: other({ app: "x" }) }, false],
      ["one of its kind ends", pod(spread), { event: "AssignedPodDelete", old: other({ app: "web" }) }, true],
      ["a node without a zone comes", pod(spread), { event: "NodeAdd", next: node() }, false],
      ["a node of a zone goes", pod(spread), { event: "NodeDelete", old: node({ zone: "a" }) }, true],
      [
        "a node gets another label",
        pod(spread),
        { event: "NodeUpdateNodeLabel", old: node({ zone: "a" }), next: node({ zone: "a", b: "c" }) },
        false,
      ],
    ],
  ],
  [
    "VolumeBinding",
    [
      [
        "its claim changes",
        pod(claimed),
        { event: "PersistentVolumeClaimUpdate", old: named("data"), next: named("data") },
        true,
      ],
      [
        "another claim does",
        pod(claimed),
        { event: "PersistentVolumeClaimUpdate", old: named("x"), next: named("x") },
        false,
      ],
      ["a volume comes", pod(claimed), { event: "PersistentVolumeAdd", next: named("v") }, true],
      [
        "a pool grows",
        pod(claimed),
        {
          event: "CSIStorageCapacityUpdate",
          old: named("c", { capacity: "1Gi" }),
          next: named("c", { capacity: "2Gi" }),
        },
        true,
      ],
      [
        "a pool shrinks",
        pod(claimed),
        {
          event: "CSIStorageCapacityUpdate",
          old: named("c", { capacity: "2Gi" }),
          next: named("c", { capacity: "1Gi" }),
        },
        false,
      ],
    ],
  ],
  [
    "VolumeRestrictions",
    [
      ["a pod with its claim ends", pod(claimed), { event: "AssignedPodDelete", old: other({}, claimed) }, true],
      ["another ends", pod(claimed), { event: "AssignedPodDelete", old: other() }, false],
    ],
  ],
  [
    "NodeVolumeLimits",
    [
      ["a pod with volumes ends", pod(claimed), { event: "AssignedPodDelete", old: other({}, claimed) }, true],
      ["a volume is detached", pod(claimed), { event: "VolumeAttachmentDelete", old: named("a") }, true],
      ["a driver's limit changes", pod(claimed), { event: "CSINodeUpdate", old: named("n"), next: named("n") }, true],
    ],
  ],
])("%s", (plugin, cases) => {
  test.each(cases)("%s", (_, waiting, change, expected) => {
    expect(helps(plugin, waiting, change)).toBe(expected);
  });
});
