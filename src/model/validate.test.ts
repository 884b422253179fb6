import { describe, expect, test } from "vitest";
import { applyDefaults } from "./defaults.ts";
import type { ApiObject } from "./object.ts";
import { resourceOfKind } from "./resources.ts";
import { validateObject, validateObjectUpdate } from "./validate.ts";
import { validatePodUpdate } from "./validation/pod.ts";

const infoOf = (group: string, kind: string, version = "v1") => {
  const info = resourceOfKind(group, version, kind);
  if (!info) throw new Error(`no resource for ${kind}`);
  return info;
};

type Plain = { [field: string]: unknown };

function make(group: string, kind: string, object: Plain): ApiObject {
  const info = infoOf(group, kind);
  const metadata = {
    name: "x",
    ...(info.namespaced ? { namespace: "default" } : {}),
    ...(object["metadata"] as object),
  };
  const out = structuredClone({ ...object, metadata }) as ApiObject;
  applyDefaults(info, out);
  return out;
}

/** As the Status message lists them. */
const problems = (group: string, kind: string, object: Plain): string[] =>
  validateObject(infoOf(group, kind), make(group, kind, object)).map((e) => `${e.field}: ${e.message}`);

const changes = (group: string, kind: string, object: Plain, old: Plain): string[] =>
  validateObjectUpdate(infoOf(group, kind), make(group, kind, object), make(group, kind, old)).map(
    (e) => `${e.field}: ${e.message}`,
  );

const container = (more: Plain = {}) => ({ name: "c", image: "nginx", ...more });
const pod = (spec: Plain = {}, more: Plain = {}): Plain => ({ spec: { containers: [container()], ...spec }, ...more });
const inContainer = (more: Plain): Plain => pod({ containers: [container(more)] });

describe("metadata", () => {
  const labelText =
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
  test.each<[string, Plain, string[]]>([
    ["good", { labels: { "app.kubernetes.io/name": "x", a: "" }, annotations: { "A/b": "anything at all" } }, []],
    ["name", { name: "Bad_Name" }, [`metadata.name: Invalid value: "Bad_Name": ${labelText}`]],
    ["empty part", { name: "a..b" }, [`metadata.name: Invalid value: "a..b": ${labelText}`]],
    ["generateName may end in a dash", { name: "", generateName: "web-" }, []],
    ["no name", { name: "" }, ["metadata.name: Required value: name or generateName is required"]],
    [
      "label value",
      { labels: { a: "-" } },
      [
        "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
      ],
    ],
    [
      "finalizer",
      { finalizers: ["mine"] },
      [
        'metadata.finalizers: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified',
      ],
    ],
    [
      "owner without uid",
      { ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: "p" }] },
      ['metadata.ownerReferences.uid: Invalid value: "": must not be empty'],
    ],
  ])("%s", (_name, metadata, expected) => expect(problems("", "ConfigMap", { metadata })).toEqual(expected));

  test("annotations have room for 256 KiB in all", () => {
    const annotations = { a: "x".repeat(200_000), b: "x".repeat(70_000) };
    expect(problems("", "ConfigMap", { metadata: { annotations } })).toEqual([
      "metadata.annotations: Too long: may not be more than 262144 bytes",
    ]);
  });

  test("a name of a megabyte is refused quickly", () => {
    // By its square it would take hours.
    const started = performance.now();
    expect(problems("", "ConfigMap", { metadata: { name: `${"a-".repeat(500_000)}!` } }).length).toBeGreaterThan(0);
    expect(performance.now() - started).toBeLessThan(20_000);
  });

  test("uid and name stay", () => {
    const old = { metadata: { uid: "1" } };
    expect(changes("", "ConfigMap", { metadata: { uid: "2" } }, old)).toEqual([
      'metadata.uid: Invalid value: "2": field is immutable',
    ]);
  });
});

const sysctlRule =
  "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

describe("pods", () => {
  test.each<[string, Plain, string[]]>([
    ["good", pod(), []],
    ["no containers", pod({ containers: [] }), ["spec.containers: Required value"]],
    ["no image", pod({ containers: [{ name: "c" }] }), ["spec.containers[0].image: Required value"]],
    [
      "duplicate name",
      pod({ containers: [container(), container()] }),
      ['spec.containers[1].name: Duplicate value: "c"'],
    ],
    [
      "restart policy",
      pod({ restartPolicy: "Sometimes" }),
      ['spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'],
    ],
    [
      "requests above limits",
      inContainer({ resources: { limits: { cpu: "1" }, requests: { cpu: "1001m" } } }),
      ['spec.containers[0].resources.requests: Invalid value: "1001m": must be less than or equal to cpu limit of 1'],
    ],
    [
      "unknown resource",
      inContainer({ resources: { limits: { gold: "1" }, requests: { gold: "1" } } }),
      [
        'spec.containers[0].resources.limits: Invalid value: "gold": must be a standard resource for containers',
        'spec.containers[0].resources.requests: Invalid value: "gold": must be a standard resource for containers',
      ],
    ],
    [
      "port out of range",
      inContainer({ ports: [{ containerPort: 70000 }] }),
      ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    ],
    [
      "mount of no volume",
      inContainer({ volumeMounts: [{ name: "v", mountPath: "/v" }] }),
      ['spec.containers[0].volumeMounts[0].name: Not found: "v"'],
    ],
    [
      "probe without handler",
      inContainer({ livenessProbe: {} }),
      ["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    ],
    [
      "probe with two",
      inContainer({ readinessProbe: { exec: { command: ["a"] }, tcpSocket: { port: 1 } } }),
      ["spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
    ],
    [
      "liveness successes",
      inContainer({ livenessProbe: { tcpSocket: { port: 1 }, successThreshold: 2 } }),
      ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    ],
    [
      "variable with value and source",
      inContainer({ env: [{ name: "A", value: "1", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } }] }),
      ['spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty'],
    ],
    [
      "unknown field path",
      inContainer({ env: [{ name: "A", valueFrom: { fieldRef: { fieldPath: "spec.nope" } } }] }),
      [
        'spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nope": error converting fieldPath: field label not supported: spec.nope',
      ],
    ],
    [
      "label by subscript",
      inContainer({ env: [{ name: "A", valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } }] }),
      [],
    ],
    [
      "two volume sources",
      pod({ volumes: [{ name: "v", emptyDir: {}, hostPath: { path: "/a/../b" } }] }),
      [
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
      ],
    ],
    [
      "toleration",
      pod({ tolerations: [{ key: "a", operator: "Exists", effect: "NoSchedule", tolerationSeconds: 1 }] }),
      [
        "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
      ],
    ],
    [
      "init container with probe",
      pod({ initContainers: [{ name: "i", image: "x", readinessProbe: { tcpSocket: { port: 1 } } }] }),
      [
        "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
      ],
    ],
    [
      "dnsPolicy None",
      pod({ dnsPolicy: "None" }),
      ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    ],
    [
      "empty node affinity",
      pod({
        affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [] } } },
      }),
      [
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
      ],
    ],
    [
      "host port taken twice",
      pod({
        containers: [
          container({ ports: [{ containerPort: 1, hostPort: 9 }] }),
          container({ name: "d", ports: [{ containerPort: 2, hostPort: 9 }] }),
        ],
      }),
      ['spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//9"'],
    ],
    [
      "sysctls of every spelling",
      pod({ securityContext: { sysctls: [{ name: "kernel.shm_rmid_forced" }, { name: "net/ipv4/ip_forward" }] } }),
      [],
    ],
    [
      "names that are no sysctl's, or come twice",
      pod({ securityContext: { sysctls: ["foo-", "bar..", "", "a.b", "a.b"].map((name) => ({ name, value: "1" })) } }),
      [
        `spec.securityContext.sysctls[0].name: Invalid value: "foo-": ${sysctlRule}`,
        `spec.securityContext.sysctls[1].name: Invalid value: "bar..": ${sysctlRule}`,
        "spec.securityContext.sysctls[2].name: Required value",
        'spec.securityContext.sysctls[4].name: Duplicate value: "a.b"',
      ],
    ],
    [
      "a sysctl of the machine",
      pod({ hostNetwork: true, securityContext: { sysctls: [{ name: "net.core.somaxconn", value: "1" }] } }),
      [
        "spec.securityContext.sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified when 'hostNetwork' is true",
      ],
    ],
  ])("%s", (_name, object, expected) => expect(problems("", "Pod", object)).toEqual(expected));

  const fixed =
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
  test.each<[string, Plain, Plain, string[]]>([
    [
      "image",
      pod({ containers: [container({ image: "b" })] }),
      pod({ containers: [container({ image: "a", imagePullPolicy: "Always" })] }),
      [],
    ],
    ["command", inContainer({ command: ["a"] }), pod(), [fixed]],
    [
      "one more container",
      pod({ containers: [container(), container({ name: "d" })] }),
      pod(),
      ["spec.containers: Forbidden: pod updates may not add or remove containers"],
    ],
    ["more tolerations", pod({ tolerations: [{ key: "a", operator: "Exists" }] }), pod(), []],
    [
      "fewer tolerations",
      pod(),
      pod({ tolerations: [{ key: "a", operator: "Exists" }] }),
      ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    ],
    ["node", pod({ nodeName: "n" }), pod(), [fixed]],
    [
      "deadline raised",
      pod({ activeDeadlineSeconds: 9 }),
      pod({ activeDeadlineSeconds: 5 }),
      ["spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"],
    ],
  ])("update of %s", (_name, object, old, expected) => expect(changes("", "Pod", object, old)).toEqual(expected));
});

const template = (labels: Plain = { app: "a" }, spec: Plain = {}) => ({
  metadata: { labels },
  spec: { containers: [container()], ...spec },
});
const deployment = (more: Plain = {}): Plain => ({
  spec: { selector: { matchLabels: { app: "a" } }, template: template(), ...more },
});

test.each<[string, string, string, Plain, string[]]>([
  ["good", "apps", "Deployment", deployment(), []],
  ["selector missing", "apps", "Deployment", deployment({ selector: undefined }), ["spec.selector: Required value"]],
  [
    "selector empty",
    "apps",
    "Deployment",
    deployment({ selector: {} }),
    [
      "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string(nil), MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: empty selector is invalid for deployment",
    ],
  ],
  [
    "selector does not fit",
    "apps",
    "Deployment",
    deployment({ template: template({ app: "b" }) }),
    [
      'spec.template.metadata.labels: Invalid value: map[string]string{"app":"b"}: `selector` does not match template `labels`',
    ],
  ],
  [
    "template of a job",
    "apps",
    "Deployment",
    deployment({ template: template({ app: "a" }, { restartPolicy: "Never" }) }),
    ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
  ],
  [
    "no room to roll",
    "apps",
    "Deployment",
    deployment({ strategy: { rollingUpdate: { maxSurge: 0, maxUnavailable: 0 } } }),
    ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
  ],
  [
    "negative replicas",
    "apps",
    "ReplicaSet",
    deployment({ replicas: -1 }),
    ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
  ],
  [
    "job that restarts always",
    "batch",
    "Job",
    deployment(),
    ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'],
  ],
  [
    "cron schedule",
    "batch",
    "CronJob",
    { spec: { schedule: "* * *", jobTemplate: { spec: { template: template({}, { restartPolicy: "Never" }) } } } },
    ['spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]'],
  ],
  [
    "cron hour",
    "batch",
    "CronJob",
    {
      spec: {
        schedule: "0 25 * * mon-fri/2",
        jobTemplate: { spec: { template: template({}, { restartPolicy: "Never" }) } },
      },
    },
    ['spec.schedule: Invalid value: "0 25 * * mon-fri/2": end of range (25) above maximum (23): 25'],
  ],
  ["service without ports", "", "Service", { spec: {} }, ["spec.ports: Required value"]],
  ["headless without ports", "", "Service", { spec: { clusterIP: "None", clusterIPs: ["None"] } }, []],
  [
    "service name",
    "",
    "Service",
    { metadata: { name: "1a" }, spec: { ports: [{ port: 80 }] } },
    [
      "metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    ],
  ],
  [
    "two unnamed ports",
    "",
    "Service",
    { spec: { ports: [{ port: 80 }, { port: 81 }] } },
    ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
  ],
  [
    "node port without the type",
    "",
    "Service",
    { spec: { ports: [{ port: 80, nodePort: 30000 }] } },
    ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
  ],
  [
    "config map key",
    "",
    "ConfigMap",
    { data: { "a b": "" } },
    [
      "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    ],
  ],
  [
    "config map of 2 MiB",
    "",
    "ConfigMap",
    { data: { a: "x".repeat(2 ** 21) } },
    ["[]: Too long: may not be more than 1048576 bytes"],
  ],
  [
    "tls secret",
    "",
    "Secret",
    { type: "kubernetes.io/tls", data: { "tls.crt": "" } },
    ["data[tls.key]: Required value"],
  ],
  [
    "role without verbs",
    "rbac.authorization.k8s.io",
    "Role",
    { rules: [{ apiGroups: [""], resources: ["pods"] }] },
    ["rules[0].verbs: Required value: verbs must contain at least one value"],
  ],
  [
    "binding to nothing",
    "rbac.authorization.k8s.io",
    "ClusterRoleBinding",
    { roleRef: { kind: "Role", name: "" } },
    ['roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"', "roleRef.name: Required value"],
  ],
  ["role names may have colons", "rbac.authorization.k8s.io", "ClusterRole", { metadata: { name: "system:node" } }, []],
  [
    "claim without size",
    "",
    "PersistentVolumeClaim",
    { spec: { accessModes: ["ReadWriteOnce"] } },
    ["spec.resources[storage]: Required value"],
  ],
  [
    "priority too high",
    "scheduling.k8s.io",
    "PriorityClass",
    { value: 1_000_000_001 },
    ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
  ],
  [
    "system priority",
    "scheduling.k8s.io",
    "PriorityClass",
    { metadata: { name: "system-node-critical" }, value: 2_000_001_000 },
    [],
  ],
  [
    "slice on loopback",
    "discovery.k8s.io",
    "EndpointSlice",
    { addressType: "IPv4", endpoints: [{ addresses: ["127.0.0.1"] }] },
    ['endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'],
  ],
  [
    "event elsewhere",
    "",
    "Event",
    { involvedObject: { namespace: "other" } },
    ['involvedObject.namespace: Invalid value: "other": does not match event.namespace'],
  ],
  [
    "lease",
    "coordination.k8s.io",
    "Lease",
    { spec: { leaseDurationSeconds: 0 } },
    ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
  ],
  [
    "ingress without anything",
    "networking.k8s.io",
    "Ingress",
    { spec: {} },
    ["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
  ],
  [
    "budget with both",
    "policy",
    "PodDisruptionBudget",
    { spec: { minAvailable: 1, maxUnavailable: 1 } },
    ['spec: Invalid value: {"minAvailable":1,"maxUnavailable":1}: minAvailable and maxUnavailable cannot be both set'],
  ],
])("%s", (_name, group, kind, object, expected) => expect(problems(group, kind, object)).toEqual(expected));

const service = (spec: Plain) => ({ spec: { ports: [{ port: 80 }], ...spec } });
test.each<[string, string, string, Plain, Plain, string[]]>([
  [
    "deployment selector",
    "apps",
    "Deployment",
    deployment({ selector: { matchLabels: { app: "b" } }, template: template({ app: "b" }) }),
    deployment(),
    [
      'spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{"app":"b"}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable',
    ],
  ],
  ["deployment scale", "apps", "Deployment", deployment({ replicas: 3 }), deployment(), []],
  [
    "stateful set service",
    "apps",
    "StatefulSet",
    deployment({ serviceName: "b" }),
    deployment({ serviceName: "a" }),
    [
      "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
    ],
  ],
  [
    "cluster IP",
    "",
    "Service",
    service({ clusterIP: "10.43.0.9", clusterIPs: ["10.43.0.9"] }),
    service({ clusterIP: "10.43.0.8", clusterIPs: ["10.43.0.8"] }),
    ['spec.clusterIPs[0]: Invalid value: []string{"10.43.0.9"}: may not change once set'],
  ],
  [
    "immutable config map",
    "",
    "ConfigMap",
    { data: { a: "2" }, immutable: true },
    { data: { a: "1" }, immutable: true },
    ["data: Forbidden: field is immutable when `immutable` is set"],
  ],
  ["secret type", "", "Secret", { type: "b" }, { type: "a" }, ['type: Invalid value: "b": field is immutable']],
  [
    "role of a binding",
    "rbac.authorization.k8s.io",
    "RoleBinding",
    { roleRef: { kind: "Role", name: "b" } },
    { roleRef: { kind: "Role", name: "a" } },
    [
      'roleRef: Invalid value: rbac.RoleRef{APIGroup:"rbac.authorization.k8s.io", Kind:"Role", Name:"b"}: cannot change roleRef',
    ],
  ],
  [
    "job completions",
    "batch",
    "Job",
    {
      spec: {
        completions: 2,
        selector: { matchLabels: { app: "a" } },
        template: template({ app: "a" }, { restartPolicy: "Never" }),
      },
    },
    {
      spec: {
        completions: 1,
        selector: { matchLabels: { app: "a" } },
        template: template({ app: "a" }, { restartPolicy: "Never" }),
      },
    },
    ["spec.completions: Invalid value: 2: field is immutable"],
  ],
])("update of %s", (_name, group, kind, object, old, expected) => {
  expect(changes(group, kind, object, old)).toEqual(expected);
});

test("an update of a pod takes no time that grows with the square of its lists", () => {
  const names = Array.from({ length: 5000 }, (_, at) => `a.b/n${at}`);
  const spec = {
    containers: [{ name: "c", image: "x" }],
    tolerations: names.map((key) => ({ key, operator: "Exists" })),
    schedulingGates: names.map((name) => ({ name })),
  };
  const made = { metadata: { name: "p", namespace: "default" }, spec } as unknown as Parameters<
    typeof validatePodUpdate
  >[0];
  expect(validatePodUpdate(structuredClone(made), made)).toEqual([]);
});
