import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as resources from "#model/resources.ts";
import { resourceOfKind } from "#model/resources.ts";
import { validateObject } from "#model/validate.ts";
import { type Kinds, openKinds } from "../kinds.fixture.ts";
import { bootstrap, publishServers } from "./bootstrapper.ts";
import { flowSchemas, priorityLevels } from "./flow-control.ts";
import { parseRule, rbacPolicy } from "./rbac-policy.ts";
import { reconcileBinding } from "./reconcile.ts";
import { authenticationConfig, kubernetesService, priorityClasses } from "./system-objects.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds();
});
afterAll(() => kinds.close());

test.each([
  ["get,list core pods,pods/log", { verbs: ["get", "list"], apiGroups: [""], resources: ["pods", "pods/log"] }],
  ["get core,apps a x,y", { verbs: ["get"], apiGroups: ["", "apps"], resources: ["a"], resourceNames: ["x", "y"] }],
  ["* * *", { verbs: ["*"], apiGroups: ["*"], resources: ["*"] }],
  ["get /api,/api/*", { verbs: ["get"], nonResourceURLs: ["/api", "/api/*"] }],
  ["* /*", { verbs: ["*"], nonResourceURLs: ["*"] }],
])("rule %s", (line, rule) => expect(parseRule(line)).toEqual(rule));

test("everything it makes is valid", () => {
  const { clusterRoles, clusterRoleBindings, roles, roleBindings } = rbacPolicy();
  const { service, endpoints, slice } = kubernetesService({
    addresses: ["192.0.2.1"],
    apiPort: 6443,
    serviceIp: "10.43.0.1",
  });
  const trust = authenticationConfig({ clientCa: "a", requestHeaderCa: "b" });
  const objects = [
    ...clusterRoles,
    ...clusterRoleBindings,
    ...roles,
    ...roleBindings,
    ...priorityClasses(),
    ...priorityLevels(),
    ...flowSchemas(),
    endpoints,
    slice,
    trust!,
  ];
  for (const object of objects) {
    const [group, version] = object.apiVersion?.includes("/") ? object.apiVersion.split("/") : ["", object.apiVersion];
    const info = resourceOfKind(group ?? "", version ?? "", object.kind ?? "");
    expect(info && validateObject(info, object), `${object.kind} ${object.metadata.name}`).toEqual([]);
  }
  expect(service.spec?.clusterIP).toBe("10.43.0.1");
});

test("what only a feature gate needs is granted with it only", () => {
  const rulesOf = (policy: ReturnType<typeof rbacPolicy>) =>
    policy.clusterRoles
      .filter(({ rules }) => JSON.stringify(rules).includes("servicecidrs"))
      .map((r) => r.metadata.name);
  expect(rulesOf(rbacPolicy())).toEqual([]);
  expect(rulesOf(rbacPolicy({ serviceCidrs: true }))).toEqual([
    "system:node-proxier",
    "system:kube-controller-manager",
  ]);
});

test("every binding's role exists", () => {
  const { clusterRoles, clusterRoleBindings, roles, roleBindings } = rbacPolicy();
  const names = new Set(clusterRoles.map((role) => role.metadata.name));
  for (const binding of clusterRoleBindings) expect(names).toContain(binding.roleRef.name);
  const keys = roles.map((role) => `${role.metadata.namespace}/${role.metadata.name}`);
  for (const binding of roleBindings) expect(keys).toContain(`${binding.metadata.namespace}/${binding.roleRef.name}`);
});

describe("bootstrap", () => {
  const again = () => bootstrap({ advertiseAddress: "192.0.2.1" }, kinds.client);
  const revision = async () => (await kinds.client.list(resources.configMaps)).metadata.resourceVersion;

  test("makes what a cluster cannot do without", async () => {
    const { client } = kinds;
    const namespaces = await client.list(resources.namespaces);
    expect(namespaces.items.map((item) => item.metadata.name)).toEqual([
      "default",
      "kube-node-lease",
      "kube-public",
      "kube-system",
    ]);
    expect((await client.get(resources.services, "kubernetes", "default")).spec?.clusterIP).toBe("10.43.0.1");
    expect((await client.get(resources.endpointSlices, "kubernetes", "default")).endpoints[0]?.addresses).toEqual([
      "192.0.2.1",
    ]);
    expect((await client.get(resources.clusterRoles, "edit")).rules?.length).toBeGreaterThan(10);
  });

  test("the second time writes nothing", async () => {
    const before = await revision();
    await again();
    expect(await revision()).toBe(before);
  });

  test("puts back what is missing, keeps what was added, leaves what is marked", async () => {
    const { client } = kinds;
    const view = await client.get(resources.clusterRoles, "view");
    const extra = { verbs: ["get"], apiGroups: ["example.com"], resources: ["things"] };
    await client.update(resources.clusterRoles, { ...view, rules: [extra, ...(view.rules ?? []).slice(2)] });
    const discovery = await client.get(resources.clusterRoleBindings, "system:discovery");
    await client.update(resources.clusterRoleBindings, {
      ...discovery,
      subjects: [{ kind: "User", name: "ann", apiGroup: "rbac.authorization.k8s.io" }],
    });
    const monitoring = await client.get(resources.clusterRoles, "system:monitoring");
    const annotations = { ...monitoring.metadata.annotations, "rbac.authorization.kubernetes.io/autoupdate": "false" };
    await client.update(resources.clusterRoles, {
      ...monitoring,
      metadata: { ...monitoring.metadata, annotations },
      rules: [],
    });
    const info = await client.get(resources.clusterRoleBindings, "system:public-info-viewer");
    await client.delete(resources.clusterRoleBindings, { name: "system:public-info-viewer" });
    await client.create(resources.clusterRoleBindings, {
      metadata: { name: "system:public-info-viewer" },
      roleRef: { ...info.roleRef, name: "view" },
    } as typeof info);
    await again();
    const rules = (await client.get(resources.clusterRoles, "view")).rules;
    expect(rules).toContainEqual(extra);
    expect(rules).toHaveLength((view.rules?.length ?? 0) + 1);
    const subjects = (await client.get(resources.clusterRoleBindings, "system:discovery")).subjects?.map((s) => s.name);
    expect(subjects).toEqual(["ann", "system:authenticated"]);
    expect((await client.get(resources.clusterRoles, "system:monitoring")).rules ?? []).toEqual([]);
    expect((await client.get(resources.clusterRoleBindings, "system:public-info-viewer")).roleRef).toEqual(
      info.roleRef,
    );
  });

  test("follows the server's address", async () => {
    await bootstrap({ advertiseAddress: "192.0.2.77", apiPort: 7443 }, kinds.client);
    const slice = await kinds.client.get(resources.endpointSlices, "kubernetes", "default");
    expect(slice.endpoints[0]?.addresses).toEqual(["192.0.2.77"]);
    const endpoints = await kinds.client.get(resources.endpoints, "kubernetes", "default");
    expect(endpoints.subsets?.[0]?.ports?.[0]?.port).toBe(7443);
    const service = await kinds.client.get(resources.services, "kubernetes", "default");
    expect(service.spec?.ports?.[0]?.targetPort).toBe(7443);
  });

  test("names all servers, and one that starts leaves the others there", async () => {
    const addresses = async () => {
      const slice = await kinds.client.get(resources.endpointSlices, "kubernetes", "default");
      const { subsets } = await kinds.client.get(resources.endpoints, "kubernetes", "default");
      const inSlice = slice.endpoints.flatMap((endpoint) => endpoint.addresses);
      expect(subsets?.[0]?.addresses?.map(({ ip }) => ip)).toEqual(inSlice);
      return inSlice;
    };
    const two = ["192.0.2.1", "192.0.2.2"];
    await publishServers({ addresses: two, apiPort: 6443, serviceIp: "10.43.0.1" }, kinds.client);
    expect(await addresses()).toEqual(two);
    await bootstrap({ advertiseAddress: "192.0.2.2", hasOtherServers: true }, kinds.client);
    expect(await addresses()).toEqual(two);
    await publishServers({ addresses: ["192.0.2.2"], apiPort: 6443, serviceIp: "10.43.0.1" }, kinds.client);
    expect(await addresses()).toEqual(["192.0.2.2"]);
  });
});

test("what was once given to all nodes is taken back, what an administrator gave stays", () => {
  const wanted = rbacPolicy().clusterRoleBindings.find(({ metadata }) => metadata.name === "system:node")!;
  const group = (name: string) => ({ kind: "Group", apiGroup: "rbac.authorization.k8s.io", name });
  const found = { ...wanted, subjects: [group("system:nodes"), group("mine")] };
  expect(reconcileBinding(wanted, found)).toMatchObject({ do: "update", object: { subjects: [group("mine")] } });
  expect(reconcileBinding(wanted, { ...wanted, subjects: [group("mine")] })).toEqual({ do: "keep" });
});
