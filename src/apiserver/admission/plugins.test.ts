import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import type {
  Namespace,
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  Pod,
  ServiceAccount,
} from "#model/gen/core-v1.ts";
import type { Ingress, IngressClass } from "#model/gen/networking-v1.ts";
import type { RuntimeClass } from "#model/gen/node-v1.ts";
import type { ClusterRole, ClusterRoleBinding, Role, RoleBinding } from "#model/gen/rbac-v1.ts";
import type { PriorityClass } from "#model/gen/scheduling-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import * as resources from "#model/resources.ts";
import { makeSigningRequest } from "#wire/pkcs10.fixture.ts";
import { type Kinds, openKinds, refusal } from "../kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds();
  const { client } = kinds;
  await client.create(resources.serviceAccounts, {
    metadata: { name: "default", namespace: "default" },
  } as ServiceAccount);
  await client.create(resources.serviceAccounts, {
    metadata: { name: "plain", namespace: "default" },
    automountServiceAccountToken: false,
    imagePullSecrets: [{ name: "registry" }],
  } as ServiceAccount);
  await kinds.syncRbac();
});
afterAll(() => kinds.close());

const pod = (name: string, spec: object = {}, namespace = "default"): Pod =>
  ({ metadata: { name, namespace }, spec: { containers: [{ name: "c", image: "x" }], ...spec } }) as Pod;
const create = (object: Pod) => kinds.client.create(resources.pods, object);

describe("NamespaceLifecycle", () => {
  test("nothing is made where there is no namespace, or in one that goes", async () => {
    expect(await refusal(create(pod("p", {}, "nowhere")))).toBe('namespaces "nowhere" not found');
    await kinds.client.create(resources.namespaces, { metadata: { name: "going" } } as Namespace);
    await kinds.client.delete(resources.namespaces, { name: "going" });
    expect(await refusal(create(pod("p", {}, "going")))).toBe(
      'pods "p" is forbidden: unable to create new content in namespace going because it is being terminated',
    );
  });
  test.each(["default", "kube-system", "kube-public"])("%s stays", async (name) => {
    expect(await refusal(kinds.client.delete(resources.namespaces, { name }))).toBe(
      `namespaces "${name}" is forbidden: this namespace may not be deleted`,
    );
  });
});

describe("ServiceAccount", () => {
  test("the token is mounted into every container that has none", async () => {
    const path = "/var/run/secrets/kubernetes.io/serviceaccount";
    const { spec } = await create(
      pod("mounted", {
        initContainers: [{ name: "i", image: "x" }],
        containers: [
          { name: "c", image: "x" },
          { name: "own", image: "x", volumeMounts: [{ name: "v", mountPath: path }] },
        ],
        volumes: [{ name: "v", emptyDir: {} }],
      }),
    );
    expect(spec.serviceAccountName).toBe("default");
    expect(spec.serviceAccount).toBe("default");
    const name = spec.volumes?.[1]?.name ?? "";
    expect(name).toMatch(/^kube-api-access-[bcdfghjklmnpqrstvwxz2456789]{5}$/);
    const mount = { name, readOnly: true, mountPath: path };
    expect(spec.initContainers?.[0]?.volumeMounts).toEqual([mount]);
    expect(spec.containers[0]?.volumeMounts).toEqual([mount]);
    expect(spec.containers[1]?.volumeMounts).toEqual([{ name: "v", mountPath: path }]);
    expect(spec.volumes?.[1]?.projected?.sources?.map((source) => Object.keys(source)[0])).toEqual([
      "serviceAccountToken",
      "configMap",
      "downwardAPI",
    ]);
  });

  test("an account may say no, and bring pull secrets", async () => {
    const { spec } = await create(pod("plain", { serviceAccountName: "plain" }));
    expect(spec.volumes ?? []).toEqual([]);
    expect(spec.imagePullSecrets).toEqual([{ name: "registry" }]);
  });

  test("a pod that comes with its namespace waits for the default account, but not for ever", async () => {
    await kinds.client.create(resources.namespaces, { metadata: { name: "fresh" } } as Namespace);
    const making = create(pod("early", {}, "fresh"));
    await kinds.clock.advance(300);
    await kinds.client.create(resources.serviceAccounts, {
      metadata: { name: "default", namespace: "fresh" },
    } as ServiceAccount);
    await kinds.clock.advance(300);
    expect((await making).spec.serviceAccountName).toBe("default");

    await kinds.client.create(resources.namespaces, { metadata: { name: "bare" } } as Namespace);
    const refused = refusal(create(pod("never", {}, "bare")));
    await kinds.clock.advance(2_000);
    expect(await refused).toContain('serviceaccount "default" not found');
  });

  test("an account must exist", async () => {
    expect(await refusal(create(pod("p", { serviceAccountName: "ghost" })))).toBe(
      'pods "p" is forbidden: error looking up service account default/ghost: serviceaccount "ghost" not found',
    );
  });
});

describe("Priority", () => {
  test.each<[string, object, number, string]>([
    ["none", {}, 0, "PreemptLowerPriority"],
    ["system", { priorityClassName: "system-node-critical" }, 2_000_001_000, "PreemptLowerPriority"],
  ])("%s", async (name, spec, priority, preemptionPolicy) => {
    expect((await create(pod(`priority-${name}`, spec))).spec).toMatchObject({ priority, preemptionPolicy });
  });
  test("an unknown class, and a number of one's own", async () => {
    expect(await refusal(create(pod("p", { priorityClassName: "gold" })))).toBe(
      'pods "p" is forbidden: no PriorityClass with name gold was found',
    );
    expect(await refusal(create(pod("p", { priority: 7 })))).toContain("must not be provided in pod spec");
  });
  test("one default", async () => {
    const entry = (name: string, value: number): PriorityClass => ({ metadata: { name }, value, globalDefault: true });
    await kinds.client.create(resources.priorityClasses, entry("usual", 10));
    expect(await refusal(kinds.client.create(resources.priorityClasses, entry("other", 11)))).toContain(
      "PriorityClass usual is already marked as default. Only one default can exist",
    );
    expect((await create(pod("usual"))).spec).toMatchObject({ priority: 10, priorityClassName: "usual" });
    await kinds.client.delete(resources.priorityClasses, { name: "usual" });
  });
});

test("DefaultTolerationSeconds adds what is not tolerated yet", async () => {
  const own = { key: "node.kubernetes.io/not-ready", operator: "Exists", effect: "NoExecute", tolerationSeconds: 5 };
  const { spec } = await create(pod("tolerant", { tolerations: [own] }));
  const added = { ...own, key: "node.kubernetes.io/unreachable", tolerationSeconds: 300 };
  expect(spec.tolerations).toEqual([own, added]);
  expect((await create(pod("all", { tolerations: [{ operator: "Exists" }] }))).spec.tolerations).toHaveLength(1);
});

test("DefaultStorageClass fills in the default, an empty name is a choice", async () => {
  const annotations = { "storageclass.kubernetes.io/is-default-class": "true" };
  await kinds.client.create(resources.storageClasses, {
    metadata: { name: "fast", annotations },
    provisioner: "p",
  } as StorageClass);
  const claim = (name: string, spec: object = {}): PersistentVolumeClaim =>
    ({
      metadata: { name, namespace: "default" },
      spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } }, ...spec },
    }) as PersistentVolumeClaim;
  const make = (object: PersistentVolumeClaim) => kinds.client.create(resources.persistentVolumeClaims, object);
  expect((await make(claim("a"))).spec?.storageClassName).toBe("fast");
  expect((await make(claim("b", { storageClassName: "" }))).spec?.storageClassName).toBe("");
});

describe("RuntimeClass", () => {
  const runtimeClass = (name: string, more: object): RuntimeClass =>
    ({ metadata: { name }, handler: "h", ...more }) as RuntimeClass;
  test("a pod gets what its class costs and where it may run", async () => {
    const tolerations = [{ key: "sandbox", operator: "Exists" }];
    const scheduling = { nodeSelector: { sandbox: "yes" }, tolerations };
    const overhead = { podFixed: { cpu: "250m" } };
    await kinds.client.create(resources.runtimeClasses, runtimeClass("sandbox", { overhead, scheduling }));
    const { spec } = await create(pod("boxed", { runtimeClassName: "sandbox", nodeSelector: { a: "b" } }));
    expect(spec.overhead).toEqual({ cpu: "250m" });
    expect(spec.nodeSelector).toEqual({ a: "b", sandbox: "yes" });
    expect(spec.tolerations?.filter(({ key }) => key === "sandbox")).toEqual(tolerations);
    const refused = (name: string, more: object) =>
      refusal(create(pod(name, { runtimeClassName: "sandbox", ...more })));
    expect(await refused("p", { nodeSelector: { sandbox: "no" } })).toBe(
      'pods "p" is forbidden: pod rejected: conflict: runtimeClass.scheduling.nodeSelector[sandbox] = yes; pod.spec.nodeSelector[sandbox] = no',
    );
    expect(await refused("p", { overhead: { cpu: "1" } })).toContain("Pod's Overhead doesn't match RuntimeClass's");
    expect(await refusal(create(pod("p", { overhead: { cpu: "1" } })))).toContain(
      "Pod Overhead set without corresponding RuntimeClass defined Overhead",
    );
  });
  test("an unknown class, and one that is gone", async () => {
    const wanted = 'pods "p" is forbidden: pod rejected: RuntimeClass "fleeting" not found';
    expect(await refusal(create(pod("p", { runtimeClassName: "fleeting" })))).toBe(wanted);
    await kinds.client.create(resources.runtimeClasses, runtimeClass("fleeting", {}));
    expect(await refusal(create(pod("q", { runtimeClassName: "fleeting" })))).toBe("accepted");
    await kinds.client.delete(resources.runtimeClasses, { name: "fleeting" });
    expect(await refusal(create(pod("p", { runtimeClassName: "fleeting" })))).toBe(wanted);
  });
});

test("an ingress gets the default class, volumes and claims their finalizers, new nodes a taint", async () => {
  const annotations = { "ingressclass.kubernetes.io/is-default-class": "true" };
  await kinds.client.create(resources.ingressClasses, {
    metadata: { name: "usual", annotations },
    spec: {},
  } as IngressClass);
  const defaultBackend = { service: { name: "s", port: { number: 80 } } };
  const ingress = (name: string, spec: object): Ingress =>
    ({ metadata: { name, namespace: "default" }, spec: { defaultBackend, ...spec } }) as Ingress;
  expect((await kinds.client.create(resources.ingresses, ingress("a", {}))).spec?.ingressClassName).toBe("usual");
  const other = ingress("b", { ingressClassName: "other" });
  expect((await kinds.client.create(resources.ingresses, other)).spec?.ingressClassName).toBe("other");
  const volume = await kinds.client.create(resources.persistentVolumes, {
    metadata: { name: "v" },
    spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], hostPath: { path: "/tmp/v" } },
  } as PersistentVolume);
  expect(volume.metadata.finalizers).toEqual(["kubernetes.io/pv-protection"]);
  const node = await kinds.client.create(resources.nodes, { metadata: { name: "new" }, spec: {} } as Node);
  expect(node.spec?.taints).toEqual([{ key: "node.kubernetes.io/not-ready", effect: "NoSchedule" }]);
});

test("a claim grows only when it is bound and its class lets it", async () => {
  const make = (name: string, allowVolumeExpansion: boolean) =>
    kinds.client.create(resources.storageClasses, {
      metadata: { name },
      provisioner: "p",
      allowVolumeExpansion,
    } as StorageClass);
  await make("elastic", true);
  await make("stiff", false);
  const grown = async (name: string, storageClassName: string, phase: string) => {
    const made = await kinds.client.create(resources.persistentVolumeClaims, {
      metadata: { name, namespace: "default" },
      spec: {
        accessModes: ["ReadWriteOnce"],
        resources: { requests: { storage: "1Gi" } },
        storageClassName,
        volumeName: "v",
      },
    } as PersistentVolumeClaim);
    const bound = await kinds.client.updateStatus(resources.persistentVolumeClaims, { ...made, status: { phase } });
    const spec = { ...bound.spec, resources: { requests: { storage: "2Gi" } } };
    return refusal(kinds.client.update(resources.persistentVolumeClaims, { ...bound, spec } as PersistentVolumeClaim));
  };
  expect(await grown("g1", "elastic", "Bound")).toBe("accepted");
  expect(await grown("g2", "elastic", "Pending")).toContain("is immutable after creation");
  expect(await grown("g3", "stiff", "Bound")).toContain("must support resize");
});

describe("NodeRestriction", () => {
  const node = (name: string) =>
    kinds.as({ name: `system:node:${name}`, groups: ["system:nodes", "system:authenticated"] });
  test("a node keeps to itself", async () => {
    const make = (name: string): Node => ({ metadata: { name }, spec: {} }) as Node;
    const made = await node("n1").create(resources.nodes, make("n1"));
    expect(await refusal(node("n1").create(resources.nodes, make("n2")))).toBe(
      'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"',
    );
    const labelled = (labels: Record<string, string>) => ({ ...made, metadata: { ...made.metadata, labels } });
    const tainted = { ...made, spec: { taints: [{ key: "a", effect: "NoSchedule" }] } };
    expect(await refusal(node("n1").update(resources.nodes, tainted))).toContain("is not allowed to modify taints");
    expect(await refusal(node("n1").update(resources.nodes, labelled({ "k8s.io/x": "" })))).toContain(
      "is not allowed to modify labels: k8s.io/x",
    );
    expect(await refusal(node("n1").update(resources.nodes, labelled({ "example.com/x": "" })))).toBe("accepted");
  });
  test("the status of pods that run elsewhere is not its business", async () => {
    const made = await create(pod("elsewhere", { nodeName: "n2" }));
    const status = { ...made, status: { phase: "Running" } };
    expect(await refusal(node("n1").updateStatus(resources.pods, status))).toBe(
      'pods "elsewhere" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself',
    );
    expect(await refusal(node("n2").updateStatus(resources.pods, status))).toBe("accepted");
    expect(await refusal(node("n1").delete(resources.pods, { name: "elsewhere", namespace: "default" }))).toContain(
      "can only delete pods with spec.nodeName set to itself",
    );
  });
});

describe("NodeRestriction, of what is asked for", () => {
  const n1 = () => kinds.as({ name: "system:node:n1", groups: ["system:nodes", "system:authenticated"] }).transport;
  const post = (path: string, body: object) =>
    refusal(n1().request({ method: "POST", path: `/api/v1/namespaces/default/${path}`, body }));
  let here: Pod;
  let there: Pod;
  beforeAll(async () => {
    here = await create(pod("here", { nodeName: "n1" }));
    there = await create(pod("there", { nodeName: "n2" }));
  });
  test("tokens are bound to pods that run on the node", async () => {
    const token = (boundObjectRef?: object) =>
      post("serviceaccounts/default/token", { spec: { audiences: [], boundObjectRef } });
    const bound = ({ metadata: { name, uid } }: Pod) => ({ kind: "Pod", apiVersion: "v1", name, uid });
    expect(await token()).toContain("node requested token not bound to a pod");
    expect(await token(bound(there))).toContain("node requested token bound to a pod scheduled on a different node");
    expect(await token({ ...bound(here), uid: "other" })).toContain("does not match the UID in record");
    expect(await token(bound(here))).toBe("accepted");
  });
  test("pods of other nodes are not evicted, and take nothing from their budgets", async () => {
    const evict = (name: string) => post(`pods/${name}/eviction`, { metadata: { name } });
    expect(await evict("there")).toBe(
      'pods "there" is forbidden: node "n1" can only evict pods with spec.nodeName set to itself',
    );
    expect(await evict("here")).toBe("accepted");
  });
});

test.each<[string, string, string, string]>([
  ["kubernetes.io/kubelet-serving", "server auth", "system:node:n1", "accepted"],
  [
    "kubernetes.io/kubelet-serving",
    "server auth",
    "system:node:n2",
    "can only create a node CSR with CN=system:node:n1",
  ],
  ["kubernetes.io/kube-apiserver-client-kubelet", "client auth", "system:node:n1", "accepted"],
  [
    "kubernetes.io/kube-apiserver-client-kubelet",
    "client auth",
    "system:node:n2",
    "can only create a node CSR with CN=system:node:n1",
  ],
  // Its signer says what may stand in it.
  ["example.com/own", "client auth", "system:node:n2", "accepted"],
])("NodeRestriction: what n1 asks %s for as %s in the name %s", async (signerName, usage, commonName, expected) => {
  const about = { commonName, organizations: ["system:nodes"], dnsNames: usage === "server auth" ? ["n1"] : [] };
  const request = Buffer.from(makeSigningRequest(about).request).toString("base64");
  const spec = { signerName, request, usages: ["digital signature", usage] };
  const asking = { metadata: { generateName: "csr-" }, spec } as unknown as CertificateSigningRequest;
  const n1 = kinds.as({ name: "system:node:n1", groups: ["system:nodes", "system:authenticated"] });
  const answer = await refusal(n1.create(resources.certificateSigningRequests, asking));
  if (expected === "accepted") expect(answer).toBe(expected);
  else expect(answer).toContain(expected);
});

describe("RBAC escalation", () => {
  const ann = { name: "ann", groups: ["system:authenticated"] };
  const role = (name: string, verbs: string[]): Role => ({
    metadata: { name, namespace: "default" },
    rules: [{ verbs, apiGroups: [""], resources: ["secrets"] }],
  });
  const binding = (name: string, kind: string, roleName: string): RoleBinding => ({
    metadata: { name, namespace: "default" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind, name: roleName },
    subjects: [{ kind: "User", name: "ann", apiGroup: "rbac.authorization.k8s.io" }],
  });
  test("nobody hands out more than they hold", async () => {
    await kinds.client.create(resources.roleBindings, binding("ann", "ClusterRole", "admin"));
    await kinds.syncRbac();
    const client = kinds.as(ann);
    expect(await refusal(client.create(resources.roles, role("held", ["get"])))).toBe("accepted");
    expect(await refusal(client.create(resources.roles, role("more", ["get", "approve"])))).toBe(
      'roles.rbac.authorization.k8s.io "more" is forbidden: user "ann" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["secrets"], Verbs:["approve"]}',
    );
    expect(await refusal(client.create(resources.roleBindings, binding("view", "ClusterRole", "view")))).toBe(
      "accepted",
    );
    expect(
      await refusal(client.create(resources.roleBindings, binding("root", "ClusterRole", "cluster-admin"))),
    ).toContain("is attempting to grant RBAC permissions not currently held");
    await kinds.client.create(resources.clusterRoles, {
      metadata: { name: "role-writer" },
      rules: [{ verbs: ["create"], apiGroups: ["rbac.authorization.k8s.io"], resources: ["clusterroles"] }],
    } as ClusterRole);
    await kinds.client.create(resources.clusterRoleBindings, {
      metadata: { name: "ann" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "role-writer" },
      subjects: [{ kind: "User", name: "ann", apiGroup: "rbac.authorization.k8s.io" }],
    } as ClusterRoleBinding);
    await kinds.syncRbac();
    const collector = {
      metadata: { name: "collector" },
      rules: [],
      aggregationRule: { clusterRoleSelectors: [{ matchLabels: { a: "b" } }] },
    } as ClusterRole;
    expect(await refusal(client.create(resources.clusterRoles, collector))).toContain(
      "must have cluster-admin privileges to use the aggregationRule",
    );
    expect(await refusal(client.create(resources.roleBindings, binding("ghost", "Role", "ghost")))).toContain(
      "not found",
    );
  });
});
