import { expect, test } from "vitest";
import type { CustomResourceDefinition } from "#model/custom-resources.ts";
import type { ValidatingAdmissionPolicy } from "#model/gen/admissionregistration-v1.ts";
import { createKindSource } from "./kind-types.ts";
import { checkPolicy } from "./type-check.ts";

const crontabs = {
  metadata: { name: "crontabs.example.com" },
  spec: {
    group: "example.com",
    scope: "Namespaced",
    names: { plural: "crontabs", singular: "crontab", kind: "CronTab" },
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: {
            type: "object",
            properties: {
              spec: { type: "object", properties: { replicas: { type: "integer" }, image: { type: "string" } } },
            },
          },
        },
      },
    ],
  },
} as unknown as CustomResourceDefinition;
const source = createKindSource(() => [crontabs]);

type Spec = ValidatingAdmissionPolicy["spec"];
const policy = (resource: string, more: Partial<Spec>): ValidatingAdmissionPolicy => {
  const [plural = "", group = ""] = resource.split(/\.(.*)/);
  const rule = { apiGroups: [group], apiVersions: ["v1"], operations: ["CREATE"], resources: [plural] };
  return { metadata: { name: "p" }, spec: { matchConstraints: { resourceRules: [rule] }, ...more } } as never;
};
function warningsOf(of: ValidatingAdmissionPolicy): string[] {
  const work = checkPolicy(of, source);
  for (;;) {
    const step = work.next();
    if (step.done) return step.value.map(({ fieldRef, warning }) => `${fieldRef}: ${warning}`);
  }
}
const warned = (resource: string, expression: string, more: Partial<Spec> = {}) =>
  warningsOf(policy(resource, { validations: [{ expression }], ...more }));

test("a field that the kind does not have, in upstream's words", () => {
  expect(warned("deployments.apps", "object.replicas > 1")).toEqual([
    "spec.validations[0].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n" +
      " | object.replicas > 1\n | ......^\n",
  ]);
});

test.each<[string, string, Partial<Spec>]>([
  ["deployments.apps", "object.spec.replicas > 1 && object.metadata.labels['a'] == 'b'", {}],
  ["deployments.apps", "object.spec.template.spec.containers.all(c, c.image.startsWith('x'))", {}],
  ["deployments.apps", "object.metadata.__namespace__ == request.__namespace__", {}],
  ["deployments.apps", "namespaceObject.metadata.labels.size() > 0", {}],
  ["deployments.apps", "authorizer.group('').resource('pods').check('get').allowed()", {}],
  ["pods.", "has(object.spec.containers[0].resources.limits) && oldObject == null", {}],
  ["pods.", "object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')", {}],
  ["customresourcedefinitions.apiextensions.k8s.io", "object.spec.versions.size() > 0", {}],
  ["crontabs.example.com", "object.spec.replicas > 1 && object.metadata.annotations.size() == 0", {}],
  ["crontabs.example.com", "variables.n > 1", { variables: [{ name: "n", expression: "object.spec.replicas" }] }],
  ["pods.", "params.data.size() > 0", { paramKind: { apiVersion: "v1", kind: "ConfigMap" } }],
  // Nothing is known of these, so nothing is said.
  ["*.apps", "object.nonsense", {}],
  ["pods/status.", "object.nonsense", {}],
  ["unknown.example.org", "object.nonsense", {}],
])("nothing is wrong for %s with %s", (resource, expression, more) => {
  expect(warned(resource, expression, more)).toEqual([]);
});

test.each<[string, string, Partial<Spec>, string]>([
  ["crontabs.example.com", "object.spec.replicas == 'a'", {}, "found no matching overload for '_==_'"],
  ["crontabs.example.com", "object.spec.schedule == ''", {}, "undefined field 'schedule'"],
  ["pods.", "params.data.size() > 0", {}, "undeclared reference to 'params'"],
  ["pods.", "params.nope == 1", { paramKind: { apiVersion: "v1", kind: "ConfigMap" } }, "undefined field 'nope'"],
  ["pods.", "variables.x > 1", {}, "undefined field 'x'"],
  ["pods.", "variables.x > 1", { variables: [{ name: "x", expression: "object.spec.nodeName" }] }, "_>_"],
  ["pods.", "request.nope == ''", {}, "undefined field 'nope'"],
])("for %s with %s something is", (resource, expression, more, text) => {
  expect(warned(resource, expression, more).join()).toContain(text);
});

test("each kind and each expression speaks for itself", () => {
  const rule = {
    apiGroups: ["apps"],
    apiVersions: ["v1"],
    operations: ["*"],
    resources: ["replicasets", "daemonsets"],
  };
  const both = policy("pods.", {
    matchConstraints: { resourceRules: [rule] },
    validations: [{ expression: "object.spec.replicas > 0" }, { expression: "true", messageExpression: "object.nope" }],
  } as Partial<Spec>);
  const all = warningsOf(both);
  expect(all.map((one) => one.split(":")[0])).toEqual([
    "spec.validations[0].expression",
    "spec.validations[1].messageExpression",
  ]);
  expect(all[0]).toContain("Kind=DaemonSet");
  expect(all[0]).not.toContain("Kind=ReplicaSet");
  expect(all[1]?.match(/Kind=\w+/g)).toEqual(["Kind=DaemonSet", "Kind=ReplicaSet"]);
});
