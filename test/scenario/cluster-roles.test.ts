// Roles that collect others show what they have collected; tokens for joining go when their time has come.
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Secret } from "#model/gen/core-v1.ts";
import type { ClusterRole } from "#model/gen/rbac-v1.ts";
import { clusterRoles, secrets } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster;
beforeEach(async () => {
  cluster = await InMemoryCluster.start();
});
afterEach(() => cluster.stop());

test("a collecting role follows what it collects", async () => {
  const part = (name: string, resource: string, labels = { collect: "yes" }): ClusterRole =>
    ({
      metadata: { name, labels },
      rules: [{ verbs: ["get"], apiGroups: [""], resources: [resource] }],
    }) as ClusterRole;
  await cluster.client.create(clusterRoles, {
    metadata: { name: "whole" },
    rules: [],
    aggregationRule: { clusterRoleSelectors: [{ matchLabels: { collect: "yes" } }] },
  } as ClusterRole);
  await cluster.client.create(clusterRoles, part("b", "pods"));
  await cluster.client.create(clusterRoles, part("a", "nodes"));
  await cluster.client.create(clusterRoles, part("c", "pods"));
  const collected = async () => (await cluster.find(clusterRoles, "whole"))?.rules?.flatMap((rule) => rule.resources);
  await cluster.until(async () => String(await collected()) === "nodes,pods", "has both, each once");
  await cluster.client.delete(clusterRoles, { name: "a" });
  await cluster.until(async () => String(await collected()) === "pods", "has lost one");
});

test("a bootstrap token goes when it has expired", async () => {
  const token = (name: string, expiration: string): Secret =>
    ({
      metadata: { name, namespace: "kube-system" },
      type: "bootstrap.kubernetes.io/token",
      stringData: expiration === "" ? {} : { expiration },
    }) as Secret;
  const soon = new Date(cluster.clock.now() + 60_000).toISOString();
  await cluster.client.create(secrets, token("bootstrap-token-aaaaaa", soon));
  await cluster.client.create(secrets, token("bootstrap-token-bbbbbb", ""));
  await cluster.advance(50_000);
  expect(await cluster.find(secrets, "bootstrap-token-aaaaaa", "kube-system")).toBeDefined();
  await cluster.advance(20_000);
  expect(await cluster.find(secrets, "bootstrap-token-aaaaaa", "kube-system")).toBeUndefined();
  expect(await cluster.find(secrets, "bootstrap-token-bbbbbb", "kube-system")).toBeDefined();
});
