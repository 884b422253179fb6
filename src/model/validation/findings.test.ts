// A body may hold as many mistakes as fit into it: the answer does not, and neither does the time (the runner's limit says so).
import { expect, test } from "vitest";
import type { ApiObject } from "../object.ts";
import { resourceOfKind } from "../resources.ts";
import { fieldInvalid, invalid, maxCauses } from "../status.ts";
import { validateObject, validateObjectUpdate } from "../validate.ts";

/** More than fit into the arguments of one call. */
const many = <T>(element: T): T[] => Array.from({ length: 150_000 }, () => element);
const manyKeys = (value: unknown): object => Object.fromEntries(many(0).map((_, at) => [`-${at}`, value]));
const container = { name: "c", image: "x" };
const template = (spec: object) => ({ metadata: {}, spec: { containers: [container], ...spec } });
const pod = (spec: object) => ({ spec: { containers: [container], ...spec } });

test.each<[string, string, string, object]>([
  ["labels", "", "ConfigMap", { metadata: { labels: manyKeys("-") } }],
  ["owners", "", "ConfigMap", { metadata: { ownerReferences: many({}) } }],
  ["finalizers", "", "ConfigMap", { metadata: { finalizers: many("-") } }],
  ["data", "", "ConfigMap", { data: Object.fromEntries(many(0).map((_, at) => [`${at}/`, ""])) }],
  ["data", "", "Secret", { type: "Opaque", data: Object.fromEntries(many(0).map((_, at) => [`${at}/`, ""])) }],
  ["containers", "", "Pod", pod({ containers: many({}) })],
  ["init containers", "", "Pod", pod({ initContainers: many({}) })],
  ["volumes", "", "Pod", pod({ volumes: many({}) })],
  ["volumes of one name", "", "Pod", pod({ volumes: many({ name: "v", emptyDir: {} }) })],
  ["tolerations", "", "Pod", pod({ tolerations: many({}) })],
  ["pull secrets", "", "Pod", pod({ imagePullSecrets: many({}) })],
  ["host aliases", "", "Pod", pod({ hostAliases: many({}) })],
  ["gates", "", "Pod", pod({ schedulingGates: many({}) })],
  ["spread", "", "Pod", pod({ topologySpreadConstraints: many({}) })],
  ["name servers", "", "Pod", pod({ dnsPolicy: "None", dnsConfig: { nameservers: many("x"), searches: many("-") } })],
  ["environment", "", "Pod", pod({ containers: [{ ...container, env: many({}), envFrom: many({}) }] })],
  ["ports", "", "Pod", pod({ containers: [{ ...container, ports: many({}) }] })],
  ["mounts", "", "Pod", pod({ containers: [{ ...container, volumeMounts: many({}) }] })],
  ["sources", "", "Pod", pod({ volumes: [{ name: "v", projected: { sources: many({ secret: {} }) } }] })],
  ["items", "", "Pod", pod({ volumes: [{ name: "v", configMap: { name: "a", items: many({}) } }] })],
  ["groups", "", "Pod", pod({ securityContext: { supplementalGroups: many(-1), sysctls: many({}) } })],
  [
    "terms",
    "",
    "Pod",
    pod({
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: many({ matchExpressions: [{}] }) },
        },
        podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: many({}) },
      },
    }),
  ],
  ["ports", "", "Service", { spec: { type: "ClusterIP", ports: many({}), externalIPs: many("x") } }],
  ["subsets", "", "Endpoints", { subsets: many({}) }],
  ["addresses", "", "Endpoints", { subsets: [{ addresses: many({}), ports: many({}) }] }],
  ["modes", "", "PersistentVolumeClaim", { spec: { accessModes: many("x") } }],
  ["modes", "", "PersistentVolume", { spec: { accessModes: many("x") } }],
  ["limits", "", "LimitRange", { spec: { limits: many({ type: "Pod", max: { cpu: "x" } }) } }],
  ["hard", "", "ResourceQuota", { spec: { hard: manyKeys("x"), scopes: many("x") } }],
  ["taints", "", "Node", { spec: { taints: many({}) } }],
  ["expressions", "apps", "Deployment", { spec: { selector: { matchExpressions: many({}) }, template: template({}) } }],
  ["containers", "apps", "Deployment", { spec: { selector: {}, template: template({ containers: many({}) }) } }],
  ["claims", "apps", "StatefulSet", { spec: { selector: {}, template: template({}), volumeClaimTemplates: many({}) } }],
  ["rules", "batch", "Job", { spec: { template: template({}), podFailurePolicy: { rules: many({}) } } }],
  ["metrics", "autoscaling", "HorizontalPodAutoscaler", { spec: { scaleTargetRef: {}, metrics: many({}) } }],
  ["rules", "rbac.authorization.k8s.io", "ClusterRole", { rules: many({}) }],
  ["subjects", "rbac.authorization.k8s.io", "ClusterRoleBinding", { roleRef: {}, subjects: many({}) }],
  ["rules", "networking.k8s.io", "Ingress", { spec: { rules: many({ host: "-" }), tls: many({ hosts: ["-"] }) } }],
  ["rules", "networking.k8s.io", "NetworkPolicy", { spec: { podSelector: {}, ingress: many({ from: [{}] }) } }],
  [
    "endpoints",
    "discovery.k8s.io",
    "EndpointSlice",
    { addressType: "IPv4", endpoints: many({ addresses: ["x"] }), ports: many({ name: "-" }) },
  ],
  ["webhooks", "admissionregistration.k8s.io", "ValidatingWebhookConfiguration", { webhooks: many({}) }],
  ["validations", "admissionregistration.k8s.io", "ValidatingAdmissionPolicy", { spec: { validations: many({}) } }],
  ["rules", "flowcontrol.apiserver.k8s.io", "FlowSchema", { spec: { rules: many({}) } }],
  ["drivers", "storage.k8s.io", "CSINode", { spec: { drivers: many({}) } }],
])("%s of a %s/%s", (_what, group, kind, fields) => {
  const info = (resourceOfKind(group, "v2", kind) ?? resourceOfKind(group, "v1", kind))!;
  const namespace = info.namespaced ? { namespace: "default" } : {};
  const made = { ...fields, metadata: { name: "x", ...namespace, ...(fields as Partial<ApiObject>).metadata } };
  const object = made as unknown as ApiObject;
  const found = validateObject(info, object);
  expect(found.length).toBeGreaterThan(0);
  expect(found.length).toBeLessThanOrEqual(3 * maxCauses);
  validateObjectUpdate(info, object, object);
});

test("an answer has no more than so many causes and letters, and says how many it leaves out", () => {
  const big = "x".repeat(100_000);
  const { message = "", details } = invalid("", "Pod", "a", many(fieldInvalid("spec", big, "no"))).status;
  expect(details?.causes).toHaveLength(maxCauses);
  expect(message).toMatch(
    /^Pod "a" is invalid: \[spec: Invalid value: "x+\.\.\. \(\d+ characters more\), .*errors more\)\]$/,
  );
  expect([message.length < 400_000, JSON.stringify(details).length < 20_000_000]).toEqual([true, true]);
});
