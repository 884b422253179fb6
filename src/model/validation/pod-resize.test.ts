import { describe, expect, test } from "vitest";
import { resizePolicyOf } from "../defaults/pod.ts";
import { applyDefaults } from "../defaults.ts";
import type { Container, ContainerResizePolicy, Pod, ResourceRequirements } from "../gen/core-v1.ts";
import { pods } from "../resources.ts";
import type { FieldError } from "../status.ts";
import { validateObject, validateObjectUpdate } from "../validate.ts";
import { validatePodResize } from "./pod-resize.ts";

const size = (requests: Record<string, string>, limits?: Record<string, string>): ResourceRequirements => ({
  requests,
  ...(limits ? { limits } : {}),
});
const podOf = (resources: ResourceRequirements, more: Partial<Container> = {}, spec: object = {}): Pod => {
  const pod = {
    metadata: { name: "p", namespace: "default" },
    spec: { containers: [{ name: "c", image: "x", resources, ...more }], ...spec },
  } as Pod;
  applyDefaults(pods, pod);
  for (const container of pod.spec.containers) {
    const policy = resizePolicyOf(container);
    if (policy) container.resizePolicy = policy;
  }
  return pod;
};
const running = (pod: Pod, resources: object | null = {}): Pod => ({
  ...pod,
  status: { containerStatuses: [{ name: "c", state: { running: {} }, ...(resources ? { resources } : {}) }] as never },
});
const texts = (errors: readonly FieldError[]) => errors.map((e) => `${e.field}: ${e.message}`);

describe("resize policies that nobody gave", () => {
  const cpu = { resourceName: "cpu", restartPolicy: "NotRequired" };
  const memory = { resourceName: "memory", restartPolicy: "NotRequired" };
  const restart = (resourceName: string) => ({ resourceName, restartPolicy: "RestartContainer" });
  test.each<[string, ResourceRequirements, ContainerResizePolicy[] | undefined, ContainerResizePolicy[] | undefined]>([
    ["limits", { limits: { cpu: "1", memory: "1Gi" } }, undefined, [cpu, memory]],
    ["a request of cpu", { requests: { cpu: "1" } }, undefined, [cpu]],
    ["a limit of memory", { limits: { memory: "1Gi" } }, undefined, [memory]],
    ["nothing", {}, undefined, undefined],
    ["other resources", { limits: { "ephemeral-storage": "1Gi" } }, undefined, undefined],
    ["one is given", { limits: { cpu: "1", memory: "1Gi" } }, [restart("memory")], [restart("memory"), cpu]],
    ["both are given", { requests: { cpu: "1", memory: "1Gi" } }, [restart("cpu"), memory], [restart("cpu"), memory]],
  ])("%s", (_name, resources, given, expected) => {
    const pod = podOf(resources, given ? { resizePolicy: given } : {});
    expect(pod.spec.containers[0]?.resizePolicy).toEqual(expected);
  });
  test("an update of a pod from before there were any may bring them", () => {
    const next = podOf({ limits: { cpu: "1" } });
    const old = structuredClone(next);
    delete old.spec.containers[0]!.resizePolicy;
    expect(texts(validateObjectUpdate(pods, next, old))).toEqual([]);
    next.spec.containers[0]!.resizePolicy = [restart("cpu")];
    expect(texts(validateObjectUpdate(pods, next, old))[0]).toContain("spec: Forbidden: pod updates may not change");
  });
});

describe("resize policies", () => {
  const at = "spec.containers[0].resizePolicy";
  const policy = (resourceName: string, restartPolicy: string) => ({ resourceName, restartPolicy });
  test.each<[ContainerResizePolicy[], object, string[]]>([
    [[policy("cpu", "RestartContainer"), policy("memory", "NotRequired")], {}, []],
    [[policy("cpu", "NotRequired"), policy("cpu", "NotRequired")], {}, [`${at}[1]: Duplicate value: "cpu"`]],
    [[policy("disk", "NotRequired")], {}, [`${at}: Unsupported value: "disk": supported values: "cpu", "memory"`]],
    [
      [policy("cpu", "Maybe")],
      {},
      [`${at}: Unsupported value: "Maybe": supported values: "NotRequired", "RestartContainer"`],
    ],
    [[policy("", "")], {}, [`${at}: Required value`, `${at}: Required value`]],
    [
      [policy("cpu", "RestartContainer")],
      { restartPolicy: "Never" },
      [`${at}: Invalid value: "RestartContainer": must be 'NotRequired' when \`restartPolicy\` is 'Never'`],
    ],
  ])("%j %j", (resizePolicy, spec, expected) => {
    expect(texts(validateObject(pods, podOf({}, { resizePolicy }, spec)))).toEqual(expected);
  });
  test("not of init containers", () => {
    const initContainers = [{ name: "i", image: "x", resizePolicy: [policy("cpu", "NotRequired")] }];
    expect(texts(validateObject(pods, podOf({}, {}, { initContainers })))[0]).toMatch(
      /^spec\.initContainers\[0\]\.resizePolicy: Invalid value: .*: must not be set for init containers$/,
    );
  });
});

describe("a resize", () => {
  const both = size({ cpu: "1", memory: "1Gi" }, { cpu: "2", memory: "2Gi" });
  const qos = (name: string) => `spec: Invalid value: "${name}": Pod QOS Class may not change as a result of resizing`;
  const unsupported = "spec: Forbidden: Pod running on node without support for resize";
  const removed = (which: string) =>
    `spec.containers[0].resources.${which}: Forbidden: resource ${which} cannot be removed`;
  test.each<[string, ResourceRequirements, ResourceRequirements, string[]]>([
    ["larger", both, size({ cpu: "2", memory: "2Gi" }, { cpu: "3", memory: "3Gi" }), []],
    ["smaller", both, size({ cpu: "1m", memory: "1Mi" }, { cpu: "2m", memory: "2Mi" }), []],
    ["a limit that was not there", size({ cpu: "1" }), size({ cpu: "1" }, { cpu: "2" }), []],
    ["a limit removed", both, size({ cpu: "1", memory: "1Gi" }, { cpu: "2" }), [removed("limits")]],
    ["a request removed", size({ cpu: "1", memory: "1Gi" }), size({ cpu: "1" }), [removed("requests")]],
    ["into another class", both, size({ cpu: "2", memory: "2Gi" }, { cpu: "2", memory: "2Gi" }), [qos("Burstable")]],
    ["out of no class", {}, size({ cpu: "1" }), [qos("BestEffort")]],
    [
      "a request above the limit",
      both,
      size({ cpu: "3", memory: "1Gi" }, { cpu: "2", memory: "2Gi" }),
      ['spec.containers[0].resources.requests: Invalid value: "3": must be less than or equal to cpu limit of 2'],
    ],
    [
      "of something else",
      both,
      size({ cpu: "1", memory: "1Gi", "ephemeral-storage": "1Gi" }, { cpu: "2", memory: "2Gi" }),
      ["spec: Forbidden: only cpu and memory resources are mutable"],
    ],
  ])("%s", (_name, from, to, expected) => {
    const old = running(podOf(from));
    const qosClass = expected[0]?.includes("BestEffort") ? "BestEffort" : "Burstable";
    const next = { ...podOf(to), status: { qosClass } } as Pod;
    expect(texts(validatePodResize(next, old))).toEqual(expected);
  });
  const next = podOf(size({ cpu: "2", memory: "2Gi" }, { cpu: "3", memory: "3Gi" }));
  const old = podOf(both);
  test.each<[string, Pod, string[]]>([
    ["nothing runs", old, [unsupported]],
    ["a node that says nothing", running(old, null), [unsupported]],
    ["a node that can", running(old), []],
    [
      "a mirror of a static pod",
      running({ ...old, metadata: { ...old.metadata, annotations: { "kubernetes.io/config.mirror": "x" } } }),
      ["[]: Forbidden: static pods cannot be resized"],
    ],
    [
      "windows",
      running({ ...old, spec: { ...old.spec, os: { name: "windows" } } }),
      ["[]: Forbidden: windows pods cannot be resized"],
    ],
  ])("%s", (_name, before, expected) => {
    const after = { ...next, spec: { ...next.spec, ...(before.spec.os ? { os: before.spec.os } : {}) } };
    expect(texts(validatePodResize(after, before))).toEqual(expected);
  });
});
