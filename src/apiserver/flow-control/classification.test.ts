import { expect, test } from "vitest";
import type { FlowSchema, PolicyRulesWithSubjects } from "#model/gen/flowcontrol-v1.ts";
import { flowSchemas } from "../bootstrap/flow-control.ts";
import { parseRequest } from "../endpoints/request-info.ts";
import { byPrecedence, classify, compileSchema, distinguish } from "./classification.ts";

const compiled = (schemas: readonly FlowSchema[]) => schemas.map(compileSchema).sort(byPrecedence);
const defaults = compiled(flowSchemas());
const asked = (method: string, target: string) => {
  const url = new URL(target, "https://x");
  return parseRequest(method, url.pathname, url.searchParams)!;
};
const user = (name: string, ...groups: string[]) => ({ name, groups: [...groups, "system:authenticated"] });
const account = (namespace: string, name: string) =>
  user(`system:serviceaccount:${namespace}:${name}`, "system:serviceaccounts", `system:serviceaccounts:${namespace}`);
const manager = user("system:kube-controller-manager");
const node = user("system:node:a", "system:nodes");
const leases = "/apis/coordination.k8s.io/v1/namespaces";

test.each([
  ["exempt", user("admin", "system:masters"), "GET", "/api/v1/pods"],
  ["probes", { name: "system:anonymous", groups: ["system:unauthenticated"] }, "GET", "/healthz"],
  ["probes", user("ann"), "GET", "/readyz"],
  ["global-default", user("ann"), "GET", "/readyz/etcd"],
  ["system-leader-election", user("system:kube-scheduler"), "PUT", `${leases}/kube-system/leases/kube-scheduler`],
  ["workload-leader-election", account("kube-system", "x"), "PUT", `${leases}/default/leases/x`],
  ["workload-leader-election", account("kube-system", "x"), "GET", "/api/v1/namespaces/default/configmaps/x"],
  ["endpoint-controller", manager, "PUT", "/api/v1/namespaces/default/endpoints/x"],
  ["kube-controller-manager", manager, "GET", "/api/v1/pods"],
  ["kube-scheduler", user("system:kube-scheduler"), "GET", "/api/v1/pods"],
  ["system-node-high", node, "PATCH", "/api/v1/nodes/a/status"],
  ["system-node-high", node, "PUT", `${leases}/kube-node-lease/leases/a`],
  ["system-nodes", node, "GET", "/api/v1/pods"],
  ["system-nodes", node, "PATCH", "/api/v1/namespaces/default/pods/x/status"],
  ["kube-system-service-accounts", account("kube-system", "x"), "GET", "/api/v1/pods"],
  ["service-accounts", account("default", "x"), "GET", "/api/v1/pods"],
  ["global-default", user("ann"), "GET", "/apis/example.com/v1/things"],
  ["global-default", user("ann"), "GET", "/version"],
])("%s", (schema, who, method, target) => {
  expect(classify(defaults, who, asked(method, target))?.name).toBe(schema);
});

const schemaOf = (name: string, matchingPrecedence: number, rules: PolicyRulesWithSubjects[]): FlowSchema => ({
  metadata: { name },
  spec: { matchingPrecedence, priorityLevelConfiguration: { name: "x" }, rules },
});
const ann = [{ kind: "User", user: { name: "ann" } }];

test("order is precedence, then name", () => {
  const rules = [{ subjects: ann, nonResourceRules: [{ verbs: ["*"], nonResourceURLs: ["*"] }] }];
  const all = compiled([schemaOf("b", 5, rules), schemaOf("a", 5, rules), schemaOf("z", 4, [])]);
  expect(all.map(({ name }) => name)).toEqual(["z", "a", "b"]);
  expect(classify(all, user("ann"), asked("GET", "/version"))?.name).toBe("a");
  expect(classify(all, user("bob"), asked("GET", "/version"))).toBeUndefined();
});

test.each([
  ["GET", "/api/v1/namespaces/default/pods", true],
  ["GET", "/api/v1/namespaces/other/pods", false],
  ["GET", "/api/v1/pods", false],
  ["GET", "/api/v1/namespaces/default/pods/x", false],
  ["GET", "/api/v1/namespaces/default/pods/x/status", false],
  ["GET", "/apis/apps/v1/namespaces/default/pods", false],
  ["GET", "/api/v1/nodes", true],
  ["GET", "/logs/a/b", true],
  ["GET", "/logs", false],
  ["GET", "/logsx", false],
  ["PUT", "/logs/a", false],
])("rules: %s %s", (method, target, matches) => {
  const schemas = compiled([
    schemaOf("rules", 1, [
      {
        subjects: ann,
        resourceRules: [
          { verbs: ["list"], apiGroups: [""], resources: ["pods"], namespaces: ["default"] },
          { verbs: ["*"], apiGroups: [""], resources: ["nodes"], namespaces: [], clusterScope: true },
        ],
        nonResourceRules: [{ verbs: ["get"], nonResourceURLs: ["/logs/*"] }],
      },
    ]),
  ]);
  expect(classify(schemas, user("ann"), asked(method, target)) !== undefined).toBe(matches);
});

test("what tells flows apart", () => {
  const of = (name: string) => defaults.find((schema) => schema.name === name)!;
  const request = asked("GET", "/api/v1/namespaces/default/pods");
  expect(distinguish(of("global-default"), user("ann"), request)).toBe("ann");
  expect(distinguish(of("kube-scheduler"), user("ann"), request)).toBe("default");
  expect(distinguish(of("exempt"), user("ann"), request)).toBe("");
});
