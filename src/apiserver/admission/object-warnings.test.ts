import { expect, test } from "vitest";
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { allResources } from "#model/resources.ts";
import type { StrategyContext } from "../strategy.ts";
import { createObjectWarnings } from "./object-warnings.ts";

const plugin = createObjectWarnings();

const custom: ResourceInfo = { ...allResources[0]!, group: "example.com", plural: "widgets", type: "" };

async function said(plural: string, body: object, old?: object, name = "n"): Promise<string[]> {
  const resource = [...allResources, custom].find((row) => row.plural === plural)!;
  const objectOf = (from: object) => ({ metadata: { name }, ...from }) as ApiObject;
  const warnings: string[] = [];
  const request = {
    operation: old ? ("UPDATE" as const) : ("CREATE" as const),
    ...{ resource, subresource: "", namespace: "ns", name },
    object: objectOf(body),
    oldObject: old && objectOf(old),
  };
  if (!plugin.handles(request)) return [];
  await plugin.validate!(request, { warn: (text: string) => void warnings.push(text) } as StrategyContext);
  return warnings;
}

const container = (more: object) => ({ containers: [{ name: "c", image: "x", ...more }] });
const twice = { env: [{ name: "A", value: "1" }, { name: "B" }, { name: "A", value: "2" }] };

test.each<[string, string, object, string[]]>([
  ["nothing to say", "pods", { spec: container({}) }, []],
  ["a label of any name", "pods", { spec: { ...container({}), nodeSelector: { constructor: "", toString: "" } } }, []],
  [
    "an old label",
    "pods",
    { spec: { ...container({}), nodeSelector: { "beta.kubernetes.io/os": "linux" } } },
    ['spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'],
  ],
  [
    "a hidden variable",
    "pods",
    { spec: container(twice) },
    ['spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply'],
  ],
  [
    "in a template",
    "cronjobs",
    { spec: { jobTemplate: { spec: { template: { spec: container(twice) } } } } },
    [
      'spec.jobTemplate.spec.template.spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply',
    ],
  ],
  [
    "half a byte",
    "pods",
    { spec: container({ resources: { limits: { memory: "500m", cpu: "500m" } } }) },
    ['spec.containers[0].resources.limits[memory]: fractional byte value "500m" is invalid, must be an integer'],
  ],
  [
    "finalizers of nobody",
    "widgets",
    { metadata: { name: "n", finalizers: ["foregroundDeletion", "example.com/f", "f"] } },
    [
      'metadata.finalizers: "f": prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers',
    ],
  ],
  [
    "the same port",
    "pods",
    { spec: container({ ports: [{ containerPort: 80 }, { containerPort: 80, protocol: "TCP" }] }) },
    ["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
  ],
  [
    "an old annotation",
    "pods",
    { metadata: { name: "n", annotations: { "seccomp.security.alpha.kubernetes.io/pod": "x" } }, spec: container({}) },
    [
      'metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead',
    ],
  ],
  [
    "an ingress of old",
    "ingresses",
    { metadata: { name: "n", annotations: { "kubernetes.io/ingress.class": "x" } } },
    [`annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead`],
  ],
])("%s", async (_what, plural, body, wanted) => {
  expect(await said(plural, body)).toEqual(wanted);
});

test("a name that is no host name; an update that changes nothing", async () => {
  expect((await said("pods", { spec: container({}) }, undefined, "a.b"))[0]).toContain(
    "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [",
  );
  expect(await said("pods", { spec: container(twice) }, { spec: container(twice) })).toEqual([]);
});
