import { describe, expect, test } from "vitest";
import type { PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod } from "#model/gen/core-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import { boundVolume, volumeAnnotations } from "#model/volumes.ts";
import { boundClaim, type ClaimStep, planClaim, planVolume, unboundVolume } from "./plan.ts";

type ClaimSpec = PersistentVolumeClaim["spec"];
const claim = (spec: Partial<ClaimSpec> = {}, annotations: Record<string, string> = {}): PersistentVolumeClaim => ({
  metadata: { name: "c", namespace: "ns", uid: "c-uid", annotations },
  spec: {
    accessModes: ["ReadWriteOnce"],
    resources: { requests: { storage: "1Gi" } },
    storageClassName: "",
    ...spec,
  },
  status: { phase: "Pending" },
});
const volume = (name: string, spec: Partial<PersistentVolumeSpec> = {}, phase = "Available"): PersistentVolume => ({
  metadata: { name },
  spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], hostPath: { path: "/x" }, ...spec },
  status: { phase },
});
const storageClass = (name: string, more: Partial<StorageClass> = {}): StorageClass => ({
  metadata: { name },
  provisioner: "example.com/p",
  volumeBindingMode: "Immediate",
  ...more,
});
const ours = { kind: "PersistentVolumeClaim", namespace: "ns", name: "c" };
const done = { [volumeAnnotations.bindCompleted]: "yes" };

interface World {
  readonly volumes?: PersistentVolume[];
  readonly classes?: StorageClass[];
  readonly pods?: string[];
}
const plan = (object: PersistentVolumeClaim, { volumes = [], classes = [], pods = [] }: World = {}) =>
  planClaim(object, {
    volume: (name) => volumes.find((v) => v.metadata.name === name),
    volumes: () => volumes,
    storageClass: (name) => classes.find((c) => c.metadata.name === name),
    defaultClass: () => classes.find((c) => c.metadata.annotations?.["storageclass.kubernetes.io/is-default-class"]),
    waitingPods: () => pods.map((name): Pod => ({ metadata: { name }, spec: { containers: [] } })),
  });
const brief = (step: ClaimStep): string => {
  if (step.do === "bind") return `bind ${step.volume.metadata.name}`;
  if (step.do === "assign-class") return `class ${step.className}`;
  if (step.do === "provision") return `provision ${step.provisioner}`;
  if (step.do === "wait") return step.say ? `wait ${step.say.reason}: ${step.say.message}` : "wait";
  return step.do === "lose" ? `lose ${step.say.reason}` : step.do;
};

describe("an unbound claim", () => {
  const nothing = "wait FailedBinding: no persistent volumes available for this claim and no storage class is set";
  test.each<[string, PersistentVolumeClaim, World, string]>([
    ["nothing there", claim(), {}, nothing],
    ["fits", claim(), { volumes: [volume("a")] }, "bind a"],
    [
      "the smallest that is large enough",
      claim(),
      {
        volumes: [
          volume("big", { capacity: { storage: "10Gi" } }),
          volume("tiny", { capacity: { storage: "1Mi" } }),
          volume("fits", { capacity: { storage: "2Gi" } }),
        ],
      },
      "bind fits",
    ],
    ["too small", claim(), { volumes: [volume("a", { capacity: { storage: "1000M" } })] }, nothing],
    ["not free", claim(), { volumes: [volume("a", {}, "Released")] }, nothing],
    ["another's", claim(), { volumes: [volume("a", { claimRef: { ...ours, name: "d" } })] }, nothing],
    [
      "of an older claim of the name",
      claim(),
      { volumes: [volume("a", { claimRef: { ...ours, uid: "x" } })] },
      nothing,
    ],
    [
      "made for it by hand, before what fits better",
      claim(),
      { volumes: [volume("a"), volume("z", { claimRef: ours, capacity: { storage: "5Gi" } })] },
      "bind z",
    ],
    ["other modes", claim({ accessModes: ["ReadWriteMany"] }), { volumes: [volume("a")] }, nothing],
    ["a block device", claim({ volumeMode: "Block" }), { volumes: [volume("a")] }, nothing],
    [
      "of its class",
      claim({ storageClassName: "s" }),
      { volumes: [volume("a"), volume("b", { storageClassName: "s" })], classes: [storageClass("s")] },
      "bind b",
    ],
    [
      "by labels",
      claim({ selector: { matchLabels: { disk: "fast" } } }),
      { volumes: [volume("a"), { ...volume("b"), metadata: { name: "b", labels: { disk: "fast" } } }] },
      "bind b",
    ],
    [
      "is being deleted",
      claim(),
      { volumes: [{ ...volume("a"), metadata: { name: "a", deletionTimestamp: "2026-01-01T00:00:00Z" } }] },
      nothing,
    ],
    ["to be made", claim({ storageClassName: "s" }), { classes: [storageClass("s")] }, "provision example.com/p"],
    [
      "class that makes nothing",
      claim({ storageClassName: "s" }),
      { classes: [storageClass("s", { provisioner: "kubernetes.io/no-provisioner" })] },
      nothing,
    ],
    [
      "unknown class",
      claim({ storageClassName: "s" }),
      {},
      'wait ProvisioningFailed: storageclass.storage.k8s.io "s" not found',
    ],
  ])("%s", (_, object, world, expected) => {
    expect(brief(plan(object, world))).toBe(expected);
  });

  const late = storageClass("late", { volumeBindingMode: "WaitForFirstConsumer" });
  const lateClaim = claim({ storageClassName: "late" });
  test.each<[string, PersistentVolumeClaim, World, string]>([
    [
      "waits for a consumer, whatever is free",
      lateClaim,
      { classes: [late], volumes: [volume("a", { storageClassName: "late" })] },
      "wait WaitForFirstConsumer: waiting for first consumer to be created before binding",
    ],
    [
      "names the pod that is waited for",
      lateClaim,
      { classes: [late], pods: ["p"] },
      "wait WaitForPodScheduled: waiting for pod p to be scheduled",
    ],
    [
      "takes what the scheduler has chosen",
      lateClaim,
      { classes: [late], volumes: [volume("a", { storageClassName: "late", claimRef: { ...ours, uid: "c-uid" } })] },
      "bind a",
    ],
    [
      "is made once a node is chosen",
      claim({ storageClassName: "late" }, { [volumeAnnotations.selectedNode]: "n1" }),
      { classes: [late] },
      "provision example.com/p",
    ],
  ])("that waits: %s", (_, object, world, expected) => {
    expect(brief(plan(object, world))).toBe(expected);
  });

  const { storageClassName: _, ...classless } = claim().spec;
  const unsaid = { ...claim(), spec: classless };
  const marked = {
    ...storageClass("std"),
    metadata: { name: "std", annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
  };
  test("gets the default class later", () => {
    expect(brief(plan(unsaid, { classes: [marked] }))).toBe("class std");
    expect(brief(plan(claim(), { classes: [marked] }))).toBe(nothing);
  });

  test.each<[string, World, string]>([
    ["that is not there", {}, "wait"],
    ["that is free", { volumes: [volume("a")] }, "bind a"],
    [
      "that is too small",
      { volumes: [volume("a", { capacity: { storage: "1" } })] },
      'wait VolumeMismatch: Cannot bind to requested volume "a": requested PV is too small',
    ],
    [
      "of another class",
      { volumes: [volume("a", { storageClassName: "s" })] },
      'wait VolumeMismatch: Cannot bind to requested volume "a": storageClassName does not match',
    ],
    [
      "that is taken",
      { volumes: [volume("a", { claimRef: { ...ours, name: "d", uid: "d" } })] },
      'wait FailedBinding: volume "a" already bound to a different claim.',
    ],
  ])("asks for a volume by name %s", (_name, world, expected) => {
    expect(brief(plan(claim({ volumeName: "a" }), world))).toBe(expected);
  });
});

test.each<[string, World, string]>([
  ["its volume", { volumes: [volume("a", { claimRef: { ...ours, uid: "c-uid" } })] }, "bind a"],
  ["no volume", {}, "lose ClaimLost"],
  ["a volume that lost its half", { volumes: [volume("a")] }, "bind a"],
  ["another claim's", { volumes: [volume("a", { claimRef: { ...ours, uid: "other" } })] }, "lose ClaimMisbound"],
])("a bound claim finds %s", (_, world, expected) => {
  expect(brief(plan(claim({ volumeName: "a" }, done), world))).toBe(expected);
});

const bound = { ...ours, uid: "c-uid" };
test.each<[string, Partial<PersistentVolumeSpec>, PersistentVolumeClaim | undefined, string]>([
  ["free", {}, undefined, "phase Available"],
  ["kept for a claim that has not come", { claimRef: ours }, undefined, "phase Available"],
  ["its claim is gone", { claimRef: bound }, undefined, "release"],
  ["its claim came back as another", { claimRef: { ...ours, uid: "old" } }, claim(), "release"],
  ["its claim does not know yet", { claimRef: bound }, claim(), "look-at-claim"],
  ["both know", { claimRef: bound }, claim({ volumeName: "a" }), "phase Bound"],
  ["its claim took another", { claimRef: bound }, claim({ volumeName: "b" }), "unbind"],
])("a volume: %s", (_, spec, found, expected) => {
  const step = planVolume(volume("a", spec), found);
  expect(step.do === "phase" ? `phase ${step.phase}` : step.do).toBe(expected);
});
test("a volume made for a claim that took another is given up", () => {
  const made = volume("a", { claimRef: bound, persistentVolumeReclaimPolicy: "Delete" });
  const annotated = { ...made, metadata: { name: "a", annotations: { [volumeAnnotations.provisionedBy]: "p" } } };
  expect(planVolume(annotated, claim({ volumeName: "b" })).do).toBe("release");
});

test("binding writes both sides, and unbinding takes back only what the binder wrote", () => {
  const both = boundVolume(volume("a"), claim());
  expect(both.spec.claimRef).toMatchObject(bound);
  expect(both.metadata.annotations).toEqual({ [volumeAnnotations.boundByController]: "yes" });
  expect(boundVolume(both, claim())).toBe(both);
  expect(unboundVolume(both).spec.claimRef).toBeUndefined();
  expect(unboundVolume(both).metadata.annotations).toEqual({});

  const byHand = boundVolume(volume("a", { claimRef: ours }), claim());
  expect(byHand.spec.claimRef?.uid).toBe("c-uid");
  expect(byHand.metadata.annotations).toEqual({});
  expect(unboundVolume(byHand).spec.claimRef).toEqual({ ...ours, apiVersion: "v1" });

  const finished = boundClaim(claim(), both);
  expect(finished.spec.volumeName).toBe("a");
  expect(Object.keys(finished.metadata.annotations ?? {})).toEqual([
    volumeAnnotations.bindCompleted,
    volumeAnnotations.boundByController,
  ]);
  expect(boundClaim(finished, both)).toBe(finished);
  expect(boundClaim(claim({ volumeName: "a" }), both).metadata.annotations).toEqual(done);
});
