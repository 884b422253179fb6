// Every field of an object of many kinds, replaced in turn by what does not belong there: the answer is a refusal or an
// object, never a failure of the server.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ApiObject } from "#model/object.ts";
import { ApiError } from "#model/status.ts";
import { makeSigningRequest } from "#wire/pkcs10.fixture.ts";
import { type Kinds, openKinds } from "./kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds();
  const account = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } };
  await post("/api/v1/namespaces/default/serviceaccounts", account, false);
});
afterAll(() => kinds.close());

const wrong: readonly unknown[] = [undefined, null, {}, [], "", 0, -1, "x", "__proto__", true, [null], [{}], [""]];

test.each<[string, object]>([
  [
    "/api/v1/namespaces/default/pods",
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        generateName: "f-",
        labels: { a: "b" },
        ownerReferences: [{ apiVersion: "v1", kind: "X", name: "n", uid: "u" }],
        finalizers: ["a/b"],
      },
      spec: {
        containers: [
          {
            name: "c",
            image: "x",
            env: [{ name: "A", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } }],
            ports: [{ containerPort: 1 }],
            resources: { limits: { cpu: "1" }, requests: { cpu: "1" } },
            volumeMounts: [{ name: "v", mountPath: "/x" }],
            livenessProbe: { httpGet: { port: 1 } },
            securityContext: { capabilities: { add: ["A"] } },
            lifecycle: { preStop: { exec: { command: ["a"] } } },
          },
        ],
        volumes: [
          { name: "v", projected: { sources: [{ configMap: { name: "a", items: [{ key: "k", path: "p" }] } }] } },
        ],
        tolerations: [{ key: "a", operator: "Exists" }],
        affinity: {
          nodeAffinity: {
            requiredDuringSchedulingIgnoredDuringExecution: {
              nodeSelectorTerms: [{ matchExpressions: [{ key: "a", operator: "In", values: ["b"] }] }],
            },
          },
          podAffinity: {
            preferredDuringSchedulingIgnoredDuringExecution: [
              { weight: 1, podAffinityTerm: { topologyKey: "a", labelSelector: { matchLabels: { a: "b" } } } },
            ],
          },
        },
        topologySpreadConstraints: [{ maxSkew: 1, topologyKey: "a", whenUnsatisfiable: "DoNotSchedule" }],
        dnsConfig: { nameservers: ["1.1.1.1"], options: [{ name: "a" }] },
        initContainers: [{ name: "i", image: "x" }],
      },
    },
  ],
  [
    "/api/v1/namespaces/default/services",
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { generateName: "f-" },
      spec: {
        type: "NodePort",
        selector: { a: "b" },
        ports: [
          { port: 80, targetPort: "x", name: "a" },
          { port: 81, name: "b" },
        ],
        sessionAffinityConfig: { clientIP: { timeoutSeconds: 5 } },
        sessionAffinity: "ClientIP",
        externalIPs: ["1.2.3.4"],
      },
    },
  ],
  [
    "/apis/apps/v1/namespaces/default/deployments",
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { generateName: "f-" },
      spec: {
        selector: { matchLabels: { a: "b" } },
        strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1 } },
        template: { metadata: { labels: { a: "b" } }, spec: { containers: [{ name: "c", image: "x" }] } },
      },
    },
  ],
  [
    "/apis/apps/v1/namespaces/default/statefulsets",
    {
      apiVersion: "apps/v1",
      kind: "StatefulSet",
      metadata: { generateName: "f-" },
      spec: {
        serviceName: "a",
        selector: { matchLabels: { a: "b" } },
        updateStrategy: { rollingUpdate: { partition: 1 } },
        volumeClaimTemplates: [
          {
            metadata: { name: "v" },
            spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1" } } },
          },
        ],
        template: { metadata: { labels: { a: "b" } }, spec: { containers: [{ name: "c", image: "x" }] } },
      },
    },
  ],
  [
    "/apis/batch/v1/namespaces/default/jobs",
    {
      apiVersion: "batch/v1",
      kind: "Job",
      metadata: { generateName: "f-" },
      spec: {
        podFailurePolicy: { rules: [{ action: "Ignore", onPodConditions: [{ type: "A" }] }] },
        template: { spec: { restartPolicy: "Never", containers: [{ name: "c", image: "x" }] } },
      },
    },
  ],
  [
    "/apis/batch/v1/namespaces/default/cronjobs",
    {
      apiVersion: "batch/v1",
      kind: "CronJob",
      metadata: { generateName: "f-" },
      spec: {
        schedule: "* * * * *",
        timeZone: "UTC",
        jobTemplate: {
          spec: { template: { spec: { restartPolicy: "Never", containers: [{ name: "c", image: "x" }] } } },
        },
      },
    },
  ],
  [
    "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
    {
      apiVersion: "networking.k8s.io/v1",
      kind: "Ingress",
      metadata: { generateName: "f-" },
      spec: {
        rules: [
          {
            host: "a.b",
            http: {
              paths: [{ path: "/", pathType: "Prefix", backend: { service: { name: "a", port: { number: 1 } } } }],
            },
          },
        ],
      },
    },
  ],
  [
    "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
    {
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata: { generateName: "f-" },
      spec: {
        podSelector: { matchLabels: { a: "b" } },
        ingress: [{ from: [{ ipBlock: { cidr: "1.0.0.0/8", except: ["1.1.0.0/16"] } }], ports: [{ port: 1 }] }],
      },
    },
  ],
  [
    "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "RoleBinding",
      metadata: { generateName: "f-" },
      roleRef: { kind: "ClusterRole", name: "view", apiGroup: "rbac.authorization.k8s.io" },
      subjects: [{ kind: "User", name: "a" }],
    },
  ],
  [
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: { generateName: "f-" },
      rules: [{ verbs: ["get"], apiGroups: [""], resources: ["pods"] }],
      aggregationRule: { clusterRoleSelectors: [{ matchLabels: { a: "b" } }] },
    },
  ],
  [
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { generateName: "f-" },
      addressType: "IPv4",
      endpoints: [{ addresses: ["10.0.0.1"] }],
      ports: [{ port: 1 }],
    },
  ],
  [
    "/api/v1/namespaces/default/endpoints",
    {
      apiVersion: "v1",
      kind: "Endpoints",
      metadata: { generateName: "f-" },
      subsets: [{ addresses: [{ ip: "10.0.0.1" }], ports: [{ port: 1 }] }],
    },
  ],
  [
    "/api/v1/persistentvolumes",
    {
      apiVersion: "v1",
      kind: "PersistentVolume",
      metadata: { generateName: "f-" },
      spec: {
        capacity: { storage: "1" },
        accessModes: ["ReadWriteOnce"],
        hostPath: { path: "/a" },
        nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [{ key: "a", operator: "Exists" }] }] } },
      },
    },
  ],
  [
    "/api/v1/namespaces/default/limitranges",
    {
      apiVersion: "v1",
      kind: "LimitRange",
      metadata: { generateName: "f-" },
      spec: { limits: [{ type: "Container", max: { cpu: "1" }, min: { cpu: "1" } }] },
    },
  ],
  [
    "/api/v1/nodes",
    {
      apiVersion: "v1",
      kind: "Node",
      metadata: { generateName: "f-" },
      spec: { taints: [{ key: "a", effect: "NoSchedule" }], podCIDRs: ["1.0.0.0/8"] },
      status: { capacity: { cpu: "1" } },
    },
  ],
  [
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
    {
      apiVersion: "policy/v1",
      kind: "PodDisruptionBudget",
      metadata: { generateName: "f-" },
      spec: { minAvailable: 1, selector: { matchLabels: { a: "b" } } },
    },
  ],
  [
    "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
    {
      apiVersion: "autoscaling/v2",
      kind: "HorizontalPodAutoscaler",
      metadata: { generateName: "f-" },
      spec: { scaleTargetRef: { kind: "a", name: "b" }, maxReplicas: 2, behavior: { scaleUp: {} } },
    },
  ],
  [
    "/api/v1/namespaces/default/events",
    { apiVersion: "v1", kind: "Event", metadata: { generateName: "f-" }, involvedObject: { namespace: "default" } },
  ],
  [
    "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    {
      apiVersion: "certificates.k8s.io/v1",
      kind: "CertificateSigningRequest",
      metadata: { generateName: "f-" },
      spec: {
        request: Buffer.from(makeSigningRequest({ commonName: "f" }).request).toString("base64"),
        signerName: "a.example/b",
        usages: ["client auth"],
      },
    },
  ],
])("%s", async (path, seed) => {
  expect(await post(path, seed, true), "the object itself is good").toBe(201);
  const answers = new Map<number, number>();
  for (const field of fieldsOf(seed)) {
    if (field.length === 1 && (field[0] === "apiVersion" || field[0] === "kind")) continue;
    for (const value of wrong) {
      const code = await post(path, replaced(seed, field, value), true);
      answers.set(code, (answers.get(code) ?? 0) + 1);
      expect(code, `${field.join(".")} = ${JSON.stringify(value)}`).toBeLessThan(500);
    }
  }
  expect(answers.get(400), "wrong types").toBeGreaterThan(0);
});

/** More than the arguments of one call. */
const many = Array.from({ length: 200_000 }, () => ({}));
const deep = (levels: number): object => JSON.parse(`${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`) as object;
const definition = (spec: object): object => ({
  metadata: { name: "as.b.c" },
  spec: {
    group: "b.c",
    scope: "Cluster",
    names: { plural: "as", kind: "A" },
    versions: [{ name: "v1", served: true, storage: true, schema: { openAPIV3Schema: { type: "object" } } }],
    ...spec,
  },
});
test.each<[string, string, object, number]>([
  ["containers", "/api/v1/namespaces/default/pods", { metadata: { name: "a" }, spec: { containers: many } }, 422],
  ["ports", "/api/v1/namespaces/default/services", { metadata: { name: "a" }, spec: { ports: many } }, 422],
  ["versions", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition({ versions: many }), 422],
  [
    "what is deep",
    "/apis/apps/v1/namespaces/default/controllerrevisions",
    { metadata: { name: "a" }, revision: 1, data: deep(3000) },
    400,
  ],
])("many mistakes are told of in part: %s", async (_what, path, body, code) => {
  let size = 0;
  try {
    await kinds.client.transport.request({ method: "POST", path, body: body as ApiObject });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    size = JSON.stringify(error.status).length;
    expect([error.code, error.status.details?.causes?.length ?? 0]).toEqual([
      code,
      code === 422 ? expect.any(Number) : 0,
    ]);
  }
  expect([size > 50, size < 4_000_000]).toEqual([true, true]);
});

/** The code of the answer. */
async function post(path: string, body: object, dryRun: boolean): Promise<number> {
  try {
    const query = dryRun ? { dryRun: "All" } : {};
    await kinds.client.transport.request({ method: "POST", path, query, body: body as ApiObject });
    return 201;
  } catch (error) {
    if (error instanceof ApiError) return error.code;
    throw error;
  }
}

type Field = readonly (string | number)[];

function* fieldsOf(value: unknown, at: Field = []): Generator<Field> {
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    const field = [...at, key];
    yield field;
    yield* fieldsOf(inner, field);
  }
}

function replaced(object: object, field: Field, value: unknown): object {
  const copy = structuredClone(object) as Record<string | number, unknown>;
  let owner = copy;
  for (const key of field.slice(0, -1)) owner = owner[key] as typeof copy;
  const last = field.at(-1) ?? "";
  if (value === undefined) delete owner[last];
  else owner[last] = value;
  return copy;
}
