// Who may do what: every kind of caller that a cluster starts with, or that an administrator makes with the roles that are
// there, against every resource and subresource that is served. The answers are in matrix.txt, for people to read; a line
// that changes there is somebody's right that changes. `npx vitest run -u` writes it anew.
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Subject } from "#model/gen/rbac-v1.ts";
import { allResources } from "#model/resources.ts";
import type { UserInfo } from "../authn/user.ts";
import { rbacPolicy } from "../bootstrap/rbac-policy.ts";
import { createRbacAuthorizer, RbacCache } from "./rbac.ts";

const namespace = "shop";
const cache = new RbacCache();
const policy = rbacPolicy();
for (const role of policy.clusterRoles) cache.upsert("ClusterRole", role);
for (const binding of policy.clusterRoleBindings) cache.upsert("ClusterRoleBinding", binding);
for (const role of policy.roles) cache.upsert("Role", role);
for (const binding of policy.roleBindings) cache.upsert("RoleBinding", binding);
for (const role of ["view", "edit", "admin"]) {
  cache.upsert("RoleBinding", {
    metadata: { namespace, name: role },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
    subjects: [{ kind: "User", name: role } as Subject],
  } as never);
}
const authorizer = createRbacAuthorizer({ source: cache });

const authenticated = "system:authenticated";
const user = (name: string, ...groups: string[]): UserInfo => ({ name, groups: [...groups, authenticated] });
const callers: Readonly<Record<string, UserInfo>> = {
  nobody: { name: "system:anonymous", groups: ["system:unauthenticated"] },
  anybody: user("jane"),
  view: user("view"),
  edit: user("edit"),
  admin: user("admin"),
  master: user("root", "system:masters"),
  scheduler: user("system:kube-scheduler"),
  manager: user("system:kube-controller-manager"),
  proxy: user("system:kube-proxy"),
  monitor: user("scraper", "system:monitoring"),
  joining: user("system:bootstrap:abcdef", "system:bootstrappers"),
  account: user(
    `system:serviceaccount:${namespace}:x`,
    "system:serviceaccounts",
    `system:serviceaccounts:${namespace}`,
  ),
};

/** One letter for each verb, in this order. */
const verbs = {
  g: "get",
  l: "list",
  w: "watch",
  c: "create",
  u: "update",
  p: "patch",
  d: "delete",
  D: "deletecollection",
};

function rights(
  who: UserInfo,
  about: { group: string; version: string; plural: string; namespaced: boolean },
  sub: string,
): string {
  const letters = Object.entries(verbs).map(([letter, verb]) => {
    const { verdict } = authorizer.authorize({
      ...{ user: who, verb, resourceRequest: true, path: "", name: "" },
      ...{ group: about.group, version: about.version, resource: about.plural, subresource: sub },
      namespace: about.namespaced ? namespace : "",
    });
    return verdict === "allow" ? letter : "";
  });
  const all = letters.join("");
  return all === "" ? "-" : all === "glwcupdD" ? "*" : all;
}

const paths = [
  "/api",
  "/apis/apps/v1",
  "/openapi/v3",
  "/version",
  "/healthz",
  "/readyz",
  "/livez",
  "/metrics",
  "/logs",
  "/",
];

test("every caller, every resource", async () => {
  const names = Object.keys(callers);
  const rows: string[][] = [["", ...names]];
  for (const info of allResources) {
    for (const sub of ["", ...Object.keys(info.subresources)]) {
      const label = [
        info.group === "" ? info.plural : `${info.plural}.${info.group}`,
        info.version === "v1" ? "" : `(${info.version})`,
      ].join("");
      rows.push([sub === "" ? label : `${label}/${sub}`, ...names.map((name) => rights(callers[name]!, info, sub))]);
    }
  }
  for (const path of paths) {
    const nothing = { group: "", version: "", resource: "", subresource: "", namespace: "", name: "" };
    const may = (who: UserInfo) =>
      authorizer.authorize({ user: who, verb: "get", resourceRequest: false, path, ...nothing }).verdict;
    rows.push([path, ...names.map((name) => (may(callers[name]!) === "allow" ? "g" : "-"))]);
  }
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const text = rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
  await expect(`${text}\n`).toMatchFileSnapshot(join(import.meta.dirname, "matrix.txt"));
});

test("nobody but masters and the parts of the cluster reads secrets of others, or changes who may do what", () => {
  const can = (name: string, verb: string, group: string, resource: string, where: string) =>
    authorizer.authorize({
      ...{ user: callers[name]!, verb, resourceRequest: true, path: "", name: "" },
      ...{ group, version: "v1", resource, subresource: "", namespace: where },
    }).verdict === "allow";
  const rbac = "rbac.authorization.k8s.io";
  for (const name of Object.keys(callers).filter((one) => !["master", "manager"].includes(one))) {
    expect([name, can(name, "list", "", "secrets", "")]).toEqual([name, false]);
    expect([name, can(name, "create", rbac, "clusterrolebindings", "")]).toEqual([name, false]);
    expect([name, can(name, "escalate", rbac, "roles", namespace)]).toEqual([name, false]);
    expect([name, can(name, "impersonate", "", "users", "")]).toEqual([name, false]);
  }
});
