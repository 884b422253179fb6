import { describe, expect, test } from "vitest";
import type { PolicyRule, Subject } from "#model/gen/rbac-v1.ts";
import { rbacPolicy } from "../bootstrap/rbac-policy.ts";
import type { Attributes } from "./authorizer.ts";
import { compactRule, createRbacAuthorizer, RbacCache, uncoveredRules } from "./rbac.ts";

const cache = new RbacCache();
const group = "rbac.authorization.k8s.io";
for (const role of rbacPolicy().clusterRoles) cache.upsert("ClusterRole", role);
for (const binding of rbacPolicy().clusterRoleBindings) cache.upsert("ClusterRoleBinding", binding);
const bind = (namespace: string, name: string, kind: string, role: string, subject: Subject) =>
  cache.upsert("RoleBinding", {
    metadata: { namespace, name },
    roleRef: { apiGroup: group, kind, name: role },
    subjects: [subject],
  } as never);
const role = (namespace: string, name: string, rules: PolicyRule[]) =>
  cache.upsert("Role", { metadata: { namespace, name }, rules } as never);
role("shop", "one-secret", [{ verbs: ["get"], apiGroups: [""], resources: ["secrets"], resourceNames: ["till"] }]);
role("shop", "logs", [{ verbs: ["get"], apiGroups: [""], resources: ["*/log"] }]);
bind("shop", "a", "ClusterRole", "view", { kind: "User", name: "ann" });
bind("shop", "b", "Role", "one-secret", { kind: "ServiceAccount", name: "robot" });
bind("shop", "c", "Role", "logs", { kind: "Group", name: "support" });
bind("shop", "d", "Role", "nowhere", { kind: "User", name: "ann" });
const authorizer = createRbacAuthorizer({ source: cache });

const users = {
  admin: { name: "admin", groups: ["system:masters", "system:authenticated"] },
  ann: { name: "ann", groups: ["system:authenticated"] },
  robot: { name: "system:serviceaccount:shop:robot", groups: ["system:serviceaccounts", "system:authenticated"] },
  sam: { name: "sam", groups: ["support", "system:authenticated"] },
  nobody: { name: "system:anonymous", groups: ["system:unauthenticated"] },
  node: { name: "system:node:n1", groups: ["system:nodes", "system:authenticated"] },
  scheduler: { name: "system:kube-scheduler", groups: ["system:authenticated"] },
};

test.each<[keyof typeof users, string, boolean]>([
  ["admin", "/anything", true],
  ["ann", "/api/v1", true],
  ["ann", "/apis", true],
  ["ann", "/metrics", false],
  ["nobody", "/readyz", true],
  ["nobody", "/version", true],
  ["nobody", "/api", false],
])("%s gets %s -> %s", (who, path, allowed) => {
  const nothing = { group: "", version: "", resource: "", subresource: "", namespace: "", name: "" };
  const attributes: Attributes = { user: users[who], verb: "get", resourceRequest: false, path, ...nothing };
  expect(authorizer.authorize(attributes).verdict === "allow").toBe(allowed);
});

describe("resources", () => {
  const question = (
    who: keyof typeof users,
    verb: string,
    apiGroup: string,
    resource: string,
    namespace = "",
    name = "",
  ) => {
    const [plural = "", subresource = ""] = resource.split("/");
    return (
      authorizer.authorize({
        user: users[who],
        verb,
        resourceRequest: true,
        group: apiGroup,
        version: "v1",
        resource: plural,
        subresource,
        namespace,
        name,
        path: "",
      }).verdict === "allow"
    );
  };
  test.each<[keyof typeof users, string, string, string, string, string, boolean]>([
    ["ann", "list", "", "pods", "shop", "", true],
    ["ann", "list", "", "pods", "other", "", false],
    ["ann", "list", "", "pods", "", "", false],
    ["ann", "get", "", "pods/log", "shop", "p", true],
    ["ann", "get", "", "secrets", "shop", "till", false],
    ["ann", "create", "", "pods", "shop", "", false],
    ["ann", "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", "", true],
    ["robot", "get", "", "secrets", "shop", "till", true],
    ["robot", "get", "", "secrets", "shop", "other", false],
    ["robot", "list", "", "secrets", "shop", "", false],
    ["sam", "get", "", "pods/log", "shop", "p", true],
    ["sam", "get", "", "pods", "shop", "p", false],
    ["node", "patch", "", "nodes/status", "", "n1", false],
    ["node", "delete", "apps", "deployments", "shop", "d", false],
    ["scheduler", "create", "", "pods/binding", "shop", "p", true],
    ["scheduler", "update", "coordination.k8s.io", "leases", "kube-system", "kube-controller-manager", false],
    ["nobody", "list", "", "pods", "shop", "", false],
    ["admin", "escalate", "x", "anything", "", "", true],
  ])("%s %s %s/%s in %j %j -> %s", (who, verb, apiGroup, resource, namespace, name, allowed) => {
    expect(question(who, verb, apiGroup, resource, namespace, name)).toBe(allowed);
  });

  test("a binding that goes takes its rights along", () => {
    bind("tmp", "x", "ClusterRole", "view", { kind: "User", name: "ann" });
    expect(question("ann", "list", "", "pods", "tmp")).toBe(true);
    cache.remove("RoleBinding", { metadata: { namespace: "tmp", name: "x" } });
    expect(question("ann", "list", "", "pods", "tmp")).toBe(false);
  });
});

const rule = (verbs: string, groups: string, resources: string, names?: string): PolicyRule => ({
  verbs: verbs.split(","),
  apiGroups: groups.split(","),
  resources: resources.split(","),
  ...(names ? { resourceNames: names.split(",") } : {}),
});

test.each<[string, PolicyRule[], PolicyRule[], number]>([
  ["the same", [rule("get,list", "", "pods")], [rule("get", "", "pods")], 0],
  ["from two rules", [rule("get", "", "pods"), rule("list", "", "pods")], [rule("get,list", "", "pods")], 0],
  ["one verb more", [rule("get", "", "pods")], [rule("get,delete", "", "pods")], 1],
  ["star is not the sum", [rule("get,list,watch", "", "pods")], [rule("*", "", "pods")], 1],
  ["star covers all", [rule("*", "*", "*")], [rule("get", "apps", "deployments/scale")], 0],
  ["subresource", [rule("get", "", "pods")], [rule("get", "", "pods/log")], 1],
  ["any subresource", [rule("get", "", "*/log")], [rule("get", "", "pods/log")], 0],
  ["a name covers no more than itself", [rule("get", "", "secrets", "a")], [rule("get", "", "secrets")], 1],
  ["all names cover one", [rule("get", "", "secrets")], [rule("get", "", "secrets", "a")], 0],
  [
    "paths",
    [{ verbs: ["get"], nonResourceURLs: ["/logs/*"] }],
    [{ verbs: ["get"], nonResourceURLs: ["/logs/x", "/metrics"] }],
    1,
  ],
])("uncovered rules: %s", (_name, held, wanted, missing) => expect(uncoveredRules(held, wanted)).toHaveLength(missing));

test("rules print as upstream prints them", () => {
  expect(compactRule(rule("get", "", "pods"))).toBe('{APIGroups:[""], Resources:["pods"], Verbs:["get"]}');
});

test("an aggregated role has the rules of those it selects, as they come and go", () => {
  const own = new RbacCache();
  const selects = (label: string) => ({ clusterRoleSelectors: [{ matchLabels: { [label]: "true" } }] });
  const names = (name: string) => own.clusterRole(name)?.rules?.map((r) => r.resources?.[0]);
  const put = (name: string, labels: object, more: object) =>
    own.upsert("ClusterRole", { metadata: { name, labels }, ...more } as never);
  put("outer", { x: "true" }, { aggregationRule: selects("to-outer") });
  put("inner", { "to-outer": "true" }, { aggregationRule: selects("to-inner"), rules: [rule("get", "", "pods")] });
  put("leaf", { "to-inner": "true" }, { rules: [rule("get", "", "things"), rule("get", "", "pods")] });
  expect(names("outer")).toEqual(["pods", "things"]);
  put("leaf", { "to-inner": "true" }, { rules: [rule("get", "", "others")] });
  expect(names("outer")).toEqual(["pods", "others"]);
  own.remove("ClusterRole", { metadata: { name: "leaf" } });
  expect(names("outer")).toEqual(["pods"]);
  // Roles that select each other end.
  put("inner", { "to-outer": "true" }, { aggregationRule: selects("x"), rules: [rule("get", "", "pods")] });
  expect(names("outer")).toEqual(["pods"]);
});
