// A namespace with quotas through its life: what is created is charged before it is there, what goes is given back, and
// what does not fit is refused with the reason and the numbers.
import { afterEach, beforeEach, expect, test } from "vitest";
import { type CustomResourceDefinition, resourcesOf } from "#model/custom-resources.ts";
import type { ReplicaSet } from "#model/gen/apps-v1.ts";
import type {
  ConfigMap,
  PersistentVolumeClaim,
  Pod,
  ReplicationController,
  ResourceQuota,
  Secret,
  Service,
} from "#model/gen/core-v1.ts";
import type { PriorityClass } from "#model/gen/scheduling-v1.ts";
import {
  configMaps,
  customResourceDefinitions,
  persistentVolumeClaims,
  pods,
  priorityClasses,
  replicaSets,
  replicationControllers,
  resourceQuotas,
  secrets,
  services,
} from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster;
beforeEach(async () => {
  cluster = await InMemoryCluster.start();
});
afterEach(() => cluster.stop());

const namespace = "default";
type Amounts = Record<string, string>;

async function quota(hard: Amounts, spec: object = {}, name = "q"): Promise<void> {
  await cluster.client.create(resourceQuotas, {
    metadata: { name, namespace },
    spec: { hard, ...spec },
  } as ResourceQuota);
  await cluster.until(async () => (await used(name)) !== undefined, "quota is counted");
}
async function used(name = "q"): Promise<Amounts | undefined> {
  return (await cluster.find(resourceQuotas, name, namespace))?.status?.used as Amounts | undefined;
}
const reaches = (wanted: Amounts, name = "q") =>
  cluster.until(
    async () => {
      const now = await used(name);
      return Object.entries(wanted).every(([resource, amount]) => now?.[resource] === amount);
    },
    `usage of ${name} becomes ${JSON.stringify(wanted)}`,
  );
const refusal = (act: Promise<unknown>) =>
  act.then(
    () => "accepted",
    (error: unknown) => (error as Error).message,
  );

const pod = (name: string, requests?: Amounts, spec: object = {}): Pod =>
  ({
    metadata: { name, namespace },
    spec: {
      containers: [{ name: "c", image: "x", ...(requests ? { resources: { requests, limits: requests } } : {}) }],
      ...spec,
    },
  }) as Pod;
const make = (object: Pod) => cluster.client.create(pods, object);

test("pods are charged before they are there and given back when they are gone", async () => {
  await quota({ pods: "2", "requests.cpu": "1", "limits.memory": "1Gi", "requests.example.com/gpu": "1" });
  expect(await used()).toEqual({
    pods: "0",
    "requests.cpu": "0",
    "limits.memory": "0",
    "requests.example.com/gpu": "0",
  });
  const amounts = { cpu: "600m", memory: "256Mi" };
  await make(pod("a", { ...amounts, "example.com/gpu": "1" }));
  // At once: admission has written it.
  expect(await used()).toEqual({
    pods: "1",
    "requests.cpu": "600m",
    "limits.memory": "256Mi",
    "requests.example.com/gpu": "1",
  });
  expect(await refusal(make(pod("b", amounts)))).toBe(
    'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1',
  );
  expect(await refusal(make(pod("b", { cpu: "100m", memory: "1Mi", "example.com/gpu": "1" })))).toContain(
    "exceeded quota: q, requested: requests.example.com/gpu=1",
  );
  expect(await refusal(make(pod("b")))).toBe(
    'pods "b" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c',
  );
  await cluster.client.delete(pods, { name: "a", namespace }, { gracePeriodSeconds: 0 });
  await reaches({ pods: "0", "requests.cpu": "0", "limits.memory": "0" });
  expect(await refusal(make(pod("b", amounts)))).toBe("accepted");
});

test("no two writers get the last slot, and a failed write is given back", async () => {
  await quota({ "count/configmaps": "4" });
  const map = (name: string): ConfigMap => ({ metadata: { name, namespace } }) as ConfigMap;
  // kube-root-ca.crt is one of the four.
  await reaches({ "count/configmaps": "1" });
  const names = ["a", "b", "c", "d", "e", "f"];
  const answers = await Promise.all(names.map((name) => refusal(cluster.client.create(configMaps, map(name)))));
  expect(answers.filter((answer) => answer === "accepted")).toHaveLength(3);
  expect(await used()).toEqual({ "count/configmaps": "4" });
  await cluster.client.delete(configMaps, { name: names[answers.indexOf("accepted")]!, namespace });
  await reaches({ "count/configmaps": "3" });
  // Charged, and then refused for another reason: counted again at the next occasion.
  const taken = names[answers.lastIndexOf("accepted")]!;
  expect(await refusal(cluster.client.create(configMaps, map(taken)))).toContain("already exists");
  await cluster.advance(301_000);
  await reaches({ "count/configmaps": "3" });
});

test("a dry run asks without being charged", async () => {
  await quota({ "count/secrets": "1" });
  const secret: Secret = { metadata: { name: "s", namespace } } as Secret;
  await cluster.client.create(secrets, secret, { dryRun: true });
  expect(await used()).toEqual({ "count/secrets": "0" });
  await cluster.client.create(secrets, secret);
  expect(
    await refusal(cluster.client.create(secrets, { metadata: { name: "t", namespace } } as Secret, { dryRun: true })),
  ).toContain("exceeded quota: q, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1");
});

test("kinds are counted by name, services by ports, claims by size and class", async () => {
  await quota({
    "count/replicasets.apps": "1",
    replicationcontrollers: "1",
    services: "2",
    "services.nodeports": "1",
    "services.loadbalancers": "1",
    persistentvolumeclaims: "2",
    "requests.storage": "3Gi",
    "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
    "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
  });
  const template = { metadata: { labels: { a: "b" } }, spec: { containers: [{ name: "c", image: "x" }] } };
  const set = {
    metadata: { name: "rs", namespace },
    spec: { replicas: 0, selector: { matchLabels: { a: "b" } }, template },
  };
  await cluster.client.create(replicaSets, set as unknown as ReplicaSet);
  const rc = { metadata: { name: "rc", namespace }, spec: { replicas: 0, selector: { a: "b" }, template } };
  await cluster.client.create(replicationControllers, rc as unknown as ReplicationController);
  const service = (name: string, type: string): Service =>
    ({ metadata: { name, namespace }, spec: { type, ports: [{ port: 80 }] } }) as Service;
  const made = await cluster.client.create(services, service("s", "ClusterIP"));
  expect(await used()).toMatchObject({ services: "1", "services.nodeports": "0", "services.loadbalancers": "0" });
  await cluster.client.update(services, { ...made, spec: { ...made.spec, type: "NodePort" } });
  expect(await used()).toMatchObject({ services: "1", "services.nodeports": "1" });
  expect(await refusal(cluster.client.create(services, service("t", "LoadBalancer")))).toContain(
    "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1",
  );
  const claim = (name: string, storage: string, storageClassName = ""): PersistentVolumeClaim =>
    ({
      metadata: { name, namespace },
      spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage } }, storageClassName },
    }) as PersistentVolumeClaim;
  await cluster.client.create(persistentVolumeClaims, claim("one", "2Gi"));
  await cluster.client.create(persistentVolumeClaims, claim("two", "1Gi", "gold"));
  expect(await used()).toEqual({
    "count/replicasets.apps": "1",
    replicationcontrollers: "1",
    services: "1",
    "services.nodeports": "1",
    "services.loadbalancers": "0",
    persistentvolumeclaims: "2",
    "requests.storage": "3Gi",
    "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
    "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
  });
  await cluster.client.delete(services, { name: "s", namespace });
  await cluster.client.delete(replicaSets, { name: "rs", namespace });
  await reaches({ services: "0", "services.nodeports": "0", "count/replicasets.apps": "0" });
});

test("scopes choose the pods a quota is about", async () => {
  const deadline = { activeDeadlineSeconds: 3600 };
  await quota({ pods: "5" }, { scopes: ["BestEffort"] }, "best-effort");
  await quota({ pods: "5" }, { scopes: ["NotBestEffort"] }, "not-best-effort");
  await quota({ pods: "5" }, { scopes: ["Terminating"] }, "terminating");
  await quota({ pods: "5" }, { scopes: ["NotTerminating"] }, "not-terminating");
  const matchExpressions = [{ scopeName: "PriorityClass", operator: "In", values: ["gold"] }];
  await cluster.client.create(priorityClasses, { metadata: { name: "gold" }, value: 10 } as PriorityClass);
  await quota({ pods: "0" }, { scopeSelector: { matchExpressions } }, "critical");
  await make(pod("plain"));
  await make(pod("sized", { cpu: "1", memory: "1Mi" }, deadline));
  const counts = async () => {
    const names = ["best-effort", "not-best-effort", "terminating", "not-terminating", "critical"];
    return Promise.all(names.map(async (name) => (await used(name))?.["pods"]));
  };
  expect(await counts()).toEqual(["1", "1", "1", "1", "0"]);
  expect(await refusal(make(pod("other", undefined, { priorityClassName: "gold" })))).toContain(
    "exceeded quota: critical, requested: pods=1, used: pods=0, limited: pods=0",
  );
  await cluster.client.delete(pods, { name: "plain", namespace }, { gracePeriodSeconds: 0 });
  await reaches({ pods: "0" }, "best-effort");
  await reaches({ pods: "0" }, "not-terminating");
  expect((await used("terminating"))?.["pods"]).toBe("1");
});

test("a pod that has ended counts no longer, but its object does", async () => {
  await quota({ pods: "5", "count/pods": "5" });
  const made = await make(pod("a"));
  await cluster.until(async () => (await cluster.find(pods, "a", namespace))?.status?.phase === "Running", "runs");
  const now = (await cluster.find(pods, "a", namespace)) ?? made;
  await cluster.client.updateStatus(pods, { ...now, status: { ...now.status, phase: "Succeeded" } });
  await reaches({ pods: "0", "count/pods": "1" });
});

test("a replication controller says why it cannot have its pods", async () => {
  await quota({ pods: "1" });
  const rc = {
    metadata: { name: "rc", namespace },
    spec: {
      replicas: 2,
      selector: { a: "b" },
      template: { metadata: { labels: { a: "b" } }, spec: { containers: [{ name: "c", image: "x" }] } },
    },
  } as unknown as ReplicationController;
  await cluster.client.create(replicationControllers, rc);
  const failure = async () =>
    (await cluster.find(replicationControllers, "rc", namespace))?.status?.conditions?.find(
      ({ type }) => type === "ReplicaFailure",
    );
  await cluster.until(async () => (await failure()) !== undefined, "says that it failed");
  expect((await failure())?.message).toContain("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1");
  const now = (await cluster.find(replicationControllers, "rc", namespace))!;
  await cluster.client.update(replicationControllers, { ...now, spec: { ...now.spec, replicas: 1 } });
  await cluster.until(async () => (await failure()) === undefined, "has what it wants");
});

test("a changed quota is counted again; what somebody writes to its status stays until then", async () => {
  await quota({ pods: "5" });
  const found = (await cluster.find(resourceQuotas, "q", namespace))!;
  const status = { hard: { pods: "5", cpu: "1" }, used: { pods: "3" } };
  const written = await cluster.client.updateStatus(resourceQuotas, { ...found, status });
  await cluster.advance(1000);
  expect(await used()).toEqual({ pods: "3" });
  await cluster.client.update(resourceQuotas, { ...written, spec: { hard: { pods: "6", secrets: "9" } } });
  await reaches({ pods: "0", secrets: "0" });
  expect((await cluster.find(resourceQuotas, "q", namespace))?.status?.hard).toEqual({ pods: "6", secrets: "9" });
});

test("custom resources are counted like others", async () => {
  await quota({ pods: "1" }, {}, "other");
  await cluster.client.create(resourceQuotas, {
    metadata: { name: "q", namespace },
    spec: { hard: { "count/widgets.example.com": "1" } },
  } as unknown as ResourceQuota);
  const schema = { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } };
  await cluster.client.create(customResourceDefinitions, {
    metadata: { name: "widgets.example.com" },
    spec: {
      group: "example.com",
      names: { plural: "widgets", kind: "Widget" },
      scope: "Namespaced",
      versions: [{ name: "v1", served: true, storage: true, schema }],
    },
  } as CustomResourceDefinition);
  await reaches({ "count/widgets.example.com": "0" });
  const [definition] = await cluster.list(customResourceDefinitions);
  const [widgets] = resourcesOf(definition!);
  const widget = (name: string) => ({ metadata: { name, namespace } });
  await cluster.client.create(widgets!, widget("a"));
  expect(await refusal(cluster.client.create(widgets!, widget("b")))).toBe(
    'widgets.example.com "b" is forbidden: exceeded quota: q, requested: count/widgets.example.com=1, used: count/widgets.example.com=1, limited: count/widgets.example.com=1',
  );
  await cluster.client.delete(widgets!, { name: "a", namespace });
  await reaches({ "count/widgets.example.com": "0" });
});
