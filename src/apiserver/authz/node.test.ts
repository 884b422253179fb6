import { describe, expect, test } from "vitest";
import type { PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import type { VolumeAttachment } from "#model/gen/storage-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { rbacPolicy } from "../bootstrap/rbac-policy.ts";
import { createNodeAuthorizer } from "./node.ts";

const volumes = [
  { name: "s", secret: { secretName: "mounted" } },
  { name: "c", configMap: { name: "settings" } },
  {
    name: "p",
    projected: { sources: [{ secret: { name: "projected" } }, { configMap: { name: "kube-root-ca.crt" } }] },
  },
  { name: "d", persistentVolumeClaim: { claimName: "data" } },
  { name: "e", ephemeral: { volumeClaimTemplate: { spec: {} } } },
];
const containers = [
  {
    name: "c",
    image: "x",
    env: [{ name: "A", valueFrom: { secretKeyRef: { name: "env", key: "k" } } }],
    envFrom: [{ configMapRef: { name: "all" } }],
  },
];
const pod = (name: string, nodeName: string, spec: object, annotations = {}): Pod =>
  ({ metadata: { name, namespace: "ns", annotations }, spec: { nodeName, containers: [], ...spec } }) as unknown as Pod;
const pods = [
  pod("web", "n1", { volumes, containers, imagePullSecrets: [{ name: "pull" }], serviceAccountName: "robot" }),
  pod("other", "n2", { volumes: [{ name: "s", secret: { secretName: "theirs" } }], serviceAccountName: "other" }),
  pod(
    "static",
    "n1",
    { volumes: [{ name: "s", secret: { secretName: "wished" } }] },
    { "kubernetes.io/config.mirror": "x" },
  ),
];
const stored: Record<string, readonly ApiObject[]> = {
  pods,
  persistentvolumes: [
    {
      metadata: { name: "pv" },
      spec: {
        claimRef: { namespace: "ns", name: "data" },
        csi: { driver: "d", volumeHandle: "h", nodeStageSecretRef: { namespace: "csi", name: "stage" } },
      },
    } as unknown as PersistentVolume,
  ],
  persistentvolumeclaims: [
    { metadata: { name: "data", namespace: "ns" }, spec: { volumeName: "pv" } } as unknown as PersistentVolumeClaim,
  ],
  "volumeattachments.storage.k8s.io": [
    { metadata: { name: "mine" }, spec: { nodeName: "n1", attacher: "a", source: {} } } as VolumeAttachment,
    { metadata: { name: "theirs" }, spec: { nodeName: "n2", attacher: "a", source: {} } } as VolumeAttachment,
  ],
};
const rules = rbacPolicy().clusterRoles.find((role) => role.metadata.name === "system:node")?.rules ?? [];

function authorizerOf(cached: readonly Pod[]) {
  return createNodeAuthorizer(
    {
      rules,
      podsOn: (node) => cached.filter(({ spec }) => spec.nodeName === node),
      read: async (resource, namespace, name) =>
        stored[resource]?.find(({ metadata }) => metadata.name === name && (metadata.namespace ?? "") === namespace),
      list: async (resource, namespace) =>
        (stored[resource] ?? []).filter(({ metadata }) => namespace === "" || metadata.namespace === namespace),
    },
    { authorize: () => ({ verdict: "no-opinion", reason: "" }) },
  );
}

/** `verb resource[/sub] [namespace/]name`, groups by the resource's suffix. */
async function may(line: string, cached: readonly Pod[] = pods, user = "system:node:n1"): Promise<boolean> {
  const [verb = "", what = "", where = ""] = line.split(" ");
  const [full = "", subresource = ""] = what.split("/");
  const dot = full.indexOf(".");
  const [name = "", namespace = ""] = where.split("/").reverse();
  const { verdict } = await authorizerOf(cached).authorize({
    user: { name: user, groups: user.startsWith("system:node:") ? ["system:nodes"] : [] },
    ...{ verb, subresource, namespace, name },
    resourceRequest: true,
    group: dot < 0 ? "" : full.slice(dot + 1),
    version: "v1",
    resource: dot < 0 ? full : full.slice(0, dot),
    path: "",
  });
  return verdict === "allow";
}

describe.each([
  ["from memory", pods],
  ["from the store", [] as readonly Pod[]],
])("%s", (_where, cached) => {
  test.each([
    "get secrets ns/mounted",
    "watch secrets ns/projected",
    "get secrets ns/env",
    "get secrets ns/pull",
    "get secrets csi/stage",
    "get configmaps ns/settings",
    "list configmaps ns/kube-root-ca.crt",
    "get configmaps ns/all",
    "get persistentvolumeclaims ns/data",
    "get persistentvolumeclaims ns/web-e",
    "patch persistentvolumeclaims/status ns/data",
    "create serviceaccounts/token ns/robot",
    "get volumeattachments.storage.k8s.io mine",
    "patch leases.coordination.k8s.io kube-node-lease/n1",
    "update csinodes.storage.k8s.io n1",
    "patch nodes/status n1",
    "list pods",
    "get runtimeclasses.node.k8s.io r",
    // What its network reads of others.
    "watch nodes",
    "list services",
    "watch endpointslices.discovery.k8s.io",
    "list namespaces",
  ])("may %s", async (line) => expect(await may(line, cached)).toBe(true));

  test.each([
    "get secrets ns/theirs",
    "get secrets ns/wished",
    "get secrets other/mounted",
    "list secrets ns/",
    "update secrets ns/mounted",
    "get configmaps ns/none",
    "get persistentvolumeclaims ns/none",
    "delete persistentvolumeclaims ns/data",
    "create serviceaccounts/token ns/other",
    "get volumeattachments.storage.k8s.io theirs",
    "get leases.coordination.k8s.io kube-node-lease/n2",
    "get leases.coordination.k8s.io default/n1",
    "update csinodes.storage.k8s.io n2",
    "create deployments.apps ns/",
    "update namespaces ns",
    "create endpointslices.discovery.k8s.io ns/web",
  ])("may not %s", async (line) => expect(await may(line, cached)).toBe(false));
});

test("who is no node is somebody else's question", async () => {
  expect(await may("get secrets ns/mounted", pods, "system:kube-proxy")).toBe(false);
});
