import { describe, expect, test } from "vitest";
import { pullPolicyOf } from "./defaults/pod.ts";
import { applyDefaults } from "./defaults.ts";
import type { ApiObject } from "./object.ts";
import { resourceOfKind } from "./resources.ts";

function defaulted(group: string, kind: string, object: object, version = "v1"): Record<string, unknown> {
  const info = resourceOfKind(group, version, kind);
  if (!info) throw new Error(`no resource for ${kind}`);
  const copy = structuredClone({ metadata: {}, ...object }) as ApiObject;
  applyDefaults(info, copy);
  const once = structuredClone(copy);
  applyDefaults(info, copy);
  expect(copy, "a second run changes nothing").toEqual(once);
  return copy as unknown as Record<string, unknown>;
}

const container = { name: "c", image: "nginx" };

test.each([
  ["nginx", "Always"],
  ["nginx:latest", "Always"],
  ["nginx:1.27", "IfNotPresent"],
  ["host:5000/nginx", "Always"],
  ["host:5000/nginx:1", "IfNotPresent"],
  ["nginx@sha256:0123", "IfNotPresent"],
  ["nginx:latest@sha256:0123", "Always"],
])("pull policy of %s is %s", (image, policy) => expect(pullPolicyOf(image)).toBe(policy));

describe("pods", () => {
  test("a minimal pod becomes what kubectl shows", () => {
    const pod = defaulted("", "Pod", { spec: { containers: [container] } });
    expect(pod["spec"]).toEqual({
      containers: [
        {
          ...container,
          imagePullPolicy: "Always",
          resources: {},
          terminationMessagePath: "/dev/termination-log",
          terminationMessagePolicy: "File",
        },
      ],
      dnsPolicy: "ClusterFirst",
      enableServiceLinks: true,
      restartPolicy: "Always",
      schedulerName: "default-scheduler",
      securityContext: {},
      terminationGracePeriodSeconds: 30,
    });
  });

  test.each([
    [
      "requests come from limits",
      { containers: [{ ...container, resources: { limits: { cpu: "1", memory: "1Gi" }, requests: { cpu: "500m" } } }] },
      { containers: [{ resources: { requests: { cpu: "500m", memory: "1Gi" } } }] },
    ],
    [
      "probes",
      { containers: [{ ...container, readinessProbe: { httpGet: { port: 80 }, timeoutSeconds: 0 } }] },
      {
        containers: [
          {
            readinessProbe: {
              httpGet: { port: 80, path: "/", scheme: "HTTP" },
              timeoutSeconds: 1,
              periodSeconds: 10,
              successThreshold: 1,
              failureThreshold: 3,
            },
          },
        ],
      },
    ],
    [
      "host ports",
      { hostNetwork: true, containers: [{ ...container, ports: [{ containerPort: 80 }] }] },
      { containers: [{ ports: [{ containerPort: 80, hostPort: 80, protocol: "TCP" }] }] },
    ],
    [
      "volumes",
      { volumes: [{ name: "a" }, { name: "b", secret: { secretName: "s" } }, { name: "c", hostPath: { path: "/" } }] },
      { volumes: [{ emptyDir: {} }, { secret: { defaultMode: 420 } }, { hostPath: { type: "" } }] },
    ],
    [
      "the old name of the account",
      { serviceAccount: "robot" },
      { serviceAccount: "robot", serviceAccountName: "robot" },
    ],
    [
      "what is set stays",
      { restartPolicy: "Never", terminationGracePeriodSeconds: 0 },
      { restartPolicy: "Never", terminationGracePeriodSeconds: 0 },
    ],
  ])("%s", (_name, spec, expected) => {
    expect(defaulted("", "Pod", { spec })["spec"]).toMatchObject(expected);
  });

  test("templates get less than pods", () => {
    const template = {
      spec: {
        hostNetwork: true,
        containers: [{ ...container, ports: [{ containerPort: 1 }], resources: { limits: { cpu: "1" } } }],
      },
    };
    const spec = defaulted("apps", "Deployment", { spec: { template } })["spec"] as { template: { spec: object } };
    expect(spec.template.spec).not.toHaveProperty("enableServiceLinks");
    expect(spec.template.spec).toHaveProperty("containers.0.resources", { limits: { cpu: "1" } });
    expect(spec.template.spec).not.toHaveProperty("containers.0.ports.0.hostPort");
  });
});

test.each([
  [
    "apps",
    "Deployment",
    {},
    {
      progressDeadlineSeconds: 600,
      replicas: 1,
      revisionHistoryLimit: 10,
      strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: "25%", maxUnavailable: "25%" } },
    },
  ],
  [
    "apps",
    "Deployment",
    { replicas: 0, strategy: { type: "Recreate" } },
    { replicas: 0, strategy: { type: "Recreate" } },
  ],
  [
    "apps",
    "StatefulSet",
    {},
    {
      podManagementPolicy: "OrderedReady",
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { partition: 0 } },
      persistentVolumeClaimRetentionPolicy: { whenDeleted: "Retain", whenScaled: "Retain" },
    },
  ],
  [
    "apps",
    "DaemonSet",
    {},
    { revisionHistoryLimit: 10, updateStrategy: { rollingUpdate: { maxSurge: 0, maxUnavailable: 1 } } },
  ],
  [
    "batch",
    "Job",
    {},
    {
      backoffLimit: 6,
      completionMode: "NonIndexed",
      completions: 1,
      parallelism: 1,
      podReplacementPolicy: "TerminatingOrFailed",
      suspend: false,
    },
  ],
  [
    "batch",
    "CronJob",
    { schedule: "* * * * *" },
    { concurrencyPolicy: "Allow", failedJobsHistoryLimit: 1, successfulJobsHistoryLimit: 3, suspend: false },
  ],
  [
    "",
    "Service",
    { ports: [{ port: 80 }] },
    {
      type: "ClusterIP",
      sessionAffinity: "None",
      internalTrafficPolicy: "Cluster",
      ports: [{ port: 80, protocol: "TCP", targetPort: 80 }],
    },
  ],
  ["", "Service", { type: "LoadBalancer" }, { allocateLoadBalancerNodePorts: true, externalTrafficPolicy: "Cluster" }],
  ["", "Service", { sessionAffinity: "ClientIP" }, { sessionAffinityConfig: { clientIP: { timeoutSeconds: 10800 } } }],
  ["", "PersistentVolumeClaim", {}, { volumeMode: "Filesystem" }],
  ["networking.k8s.io", "NetworkPolicy", { egress: [{}] }, { policyTypes: ["Ingress", "Egress"] }],
])("%s %s %j", (group, kind, spec, expected) => {
  expect(defaulted(group, kind, { spec })["spec"]).toMatchObject(expected);
});

test("a work queue job keeps completions open", () => {
  expect(defaulted("batch", "Job", { spec: { parallelism: 3 } })["spec"]).not.toHaveProperty("completions");
});

test("stringData is folded into data, whatever its keys", () => {
  const stringData = JSON.parse('{"b":"x","__proto__":"y"}') as object;
  const secret = defaulted("", "Secret", { data: { a: "QQ==" }, stringData });
  expect(Object.entries(secret["data"] as object)).toEqual([
    ["a", "QQ=="],
    ["b", "eA=="],
    ["__proto__", "eQ=="],
  ]);
  expect(secret).not.toHaveProperty("stringData");
  expect(secret["type"]).toBe("Opaque");
});

test("subjects and role references get their group, accounts do not", () => {
  const binding = defaulted("rbac.authorization.k8s.io", "RoleBinding", {
    roleRef: { kind: "Role", name: "r" },
    subjects: [
      { kind: "User", name: "u" },
      { kind: "ServiceAccount", name: "s" },
    ],
  });
  expect(binding).toMatchObject({ roleRef: { apiGroup: "rbac.authorization.k8s.io" } });
  expect(binding["subjects"]).toEqual([
    { kind: "User", name: "u", apiGroup: "rbac.authorization.k8s.io" },
    { kind: "ServiceAccount", name: "s" },
  ]);
});
