// Every built-in resource, one row each: what discovery announces and what routing, storage and the clients go by. Those
// that upstream has off by default are rows of `optionalApis`, served where they are turned on.
// Invariant: a row's `type` names a message of the facts table (resources.test.ts holds them against each other).
// Upstream counterpart: the discovery documents of kube-apiserver 1.32 with default feature gates.

import type { ApiService } from "./api-services.ts";
import type { CustomResourceDefinition } from "./custom-resources.ts";
import type * as admissionregistration from "./gen/admissionregistration-v1.ts";
import type * as apps from "./gen/apps-v1.ts";
import type * as authentication from "./gen/authentication-v1.ts";
import type * as authorization from "./gen/authorization-v1.ts";
import type * as autoscaling from "./gen/autoscaling-v1.ts";
import type * as autoscalingV2 from "./gen/autoscaling-v2.ts";
import type * as batch from "./gen/batch-v1.ts";
import type * as certificates from "./gen/certificates-v1.ts";
import type * as coordination from "./gen/coordination-v1.ts";
import type * as core from "./gen/core-v1.ts";
import type * as discovery from "./gen/discovery-v1.ts";
import type * as eventsGroup from "./gen/events-v1.ts";
import type * as flowcontrol from "./gen/flowcontrol-v1.ts";
import type * as networking from "./gen/networking-v1.ts";
import type * as networkingBeta from "./gen/networking-v1beta1.ts";
import type * as nodeGroup from "./gen/node-v1.ts";
import type * as policy from "./gen/policy-v1.ts";
import type * as rbac from "./gen/rbac-v1.ts";
import type * as scheduling from "./gen/scheduling-v1.ts";
import type * as storage from "./gen/storage-v1.ts";
import type { ApiObject } from "./object.ts";
import type { ResourceInfo, SubresourceInfo, Verb } from "./resource-info.ts";

type Scope = "Namespaced" | "Cluster";
interface RowOptions {
  readonly short?: readonly string[];
  readonly categories?: readonly string[];
  readonly verbs?: readonly Verb[];
  readonly subresources?: Readonly<Record<string, SubresourceInfo>>;
  /** Defaults to the row's own group-version. */
  readonly storageVersion?: string;
  readonly storageGroup?: string;
}
type AddRow = <T extends ApiObject>(
  kind: string,
  plural: string,
  scope: Scope,
  options?: RowOptions,
) => ResourceInfo<T>;

const allVerbs: readonly Verb[] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const createOnly: readonly Verb[] = ["create"];
const status = { status: { verbs: ["get", "patch", "update"] } } as const;
const scale = {
  scale: { group: "autoscaling", version: "v1", kind: "Scale", verbs: ["get", "patch", "update"] },
} as const;
/** Verbs of subresources that hand the connection on, as discovery lists their HTTP methods. */
const stream = ["create", "get"] as const;
const proxy = ["create", "delete", "get", "patch", "update"] as const;

/** Rows of one group-version; `folder` is the facts package (`rbac/v1`). */
function rowsOf(group: string, version: string, folder: string): AddRow {
  const own = group === "" ? version : `${group}/${version}`;
  return (kind, plural, scope, options = {}) => ({
    group,
    version,
    kind,
    plural,
    singular: kind.toLowerCase(),
    shortNames: options.short ?? [],
    categories: options.categories ?? [],
    namespaced: scope === "Namespaced",
    verbs: options.verbs ?? allVerbs,
    subresources: options.subresources ?? {},
    storageVersion: options.storageVersion ?? own,
    storageGroup: options.storageGroup ?? group,
    type: `${folder}.${kind}`,
  });
}

const core1 = rowsOf("", "v1", "core/v1");
export const bindings = core1<core.Binding>("Binding", "bindings", "Namespaced", { verbs: createOnly });
export const componentStatuses = core1<core.ComponentStatus>("ComponentStatus", "componentstatuses", "Cluster", {
  short: ["cs"],
  verbs: ["get", "list"],
});
export const configMaps = core1<core.ConfigMap>("ConfigMap", "configmaps", "Namespaced", { short: ["cm"] });
export const endpoints = core1<core.Endpoints>("Endpoints", "endpoints", "Namespaced", { short: ["ep"] });
export const events = core1<core.Event>("Event", "events", "Namespaced", { short: ["ev"] });
export const limitRanges = core1<core.LimitRange>("LimitRange", "limitranges", "Namespaced", { short: ["limits"] });
export const namespaces = core1<core.Namespace>("Namespace", "namespaces", "Cluster", {
  short: ["ns"],
  verbs: ["create", "delete", "get", "list", "patch", "update", "watch"],
  subresources: { finalize: { verbs: ["update"] }, ...status },
});
export const nodes = core1<core.Node>("Node", "nodes", "Cluster", {
  short: ["no"],
  subresources: { proxy: { kind: "NodeProxyOptions", verbs: proxy }, ...status },
});
export const persistentVolumeClaims = core1<core.PersistentVolumeClaim>(
  "PersistentVolumeClaim",
  "persistentvolumeclaims",
  "Namespaced",
  { short: ["pvc"], subresources: status },
);
export const persistentVolumes = core1<core.PersistentVolume>("PersistentVolume", "persistentvolumes", "Cluster", {
  short: ["pv"],
  subresources: status,
});
export const pods = core1<core.Pod>("Pod", "pods", "Namespaced", {
  short: ["po"],
  categories: ["all"],
  subresources: {
    attach: { kind: "PodAttachOptions", verbs: stream },
    binding: { kind: "Binding", verbs: createOnly },
    ephemeralcontainers: { verbs: ["get", "patch", "update"] },
    eviction: { group: "policy", version: "v1", kind: "Eviction", verbs: createOnly },
    exec: { kind: "PodExecOptions", verbs: stream },
    log: { verbs: ["get"] },
    portforward: { kind: "PodPortForwardOptions", verbs: stream },
    proxy: { kind: "PodProxyOptions", verbs: proxy },
    ...status,
  },
});
export const podTemplates = core1<core.PodTemplate>("PodTemplate", "podtemplates", "Namespaced");
export const replicationControllers = core1<core.ReplicationController>(
  "ReplicationController",
  "replicationcontrollers",
  "Namespaced",
  { short: ["rc"], categories: ["all"], subresources: { ...scale, ...status } },
);
export const resourceQuotas = core1<core.ResourceQuota>("ResourceQuota", "resourcequotas", "Namespaced", {
  short: ["quota"],
  subresources: status,
});
export const secrets = core1<core.Secret>("Secret", "secrets", "Namespaced");
export const serviceAccounts = core1<core.ServiceAccount>("ServiceAccount", "serviceaccounts", "Namespaced", {
  short: ["sa"],
  subresources: {
    token: { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest", verbs: createOnly },
  },
});
export const services = core1<core.Service>("Service", "services", "Namespaced", {
  short: ["svc"],
  categories: ["all"],
  subresources: { proxy: { kind: "ServiceProxyOptions", verbs: proxy }, ...status },
});

const admission1 = rowsOf("admissionregistration.k8s.io", "v1", "admissionregistration/v1");
const extensions = { categories: ["api-extensions"] };
export const mutatingWebhookConfigurations = admission1<admissionregistration.MutatingWebhookConfiguration>(
  "MutatingWebhookConfiguration",
  "mutatingwebhookconfigurations",
  "Cluster",
  extensions,
);
export const validatingAdmissionPolicies = admission1<admissionregistration.ValidatingAdmissionPolicy>(
  "ValidatingAdmissionPolicy",
  "validatingadmissionpolicies",
  "Cluster",
  { ...extensions, subresources: status },
);
export const validatingAdmissionPolicyBindings = admission1<admissionregistration.ValidatingAdmissionPolicyBinding>(
  "ValidatingAdmissionPolicyBinding",
  "validatingadmissionpolicybindings",
  "Cluster",
  extensions,
);
export const validatingWebhookConfigurations = admission1<admissionregistration.ValidatingWebhookConfiguration>(
  "ValidatingWebhookConfiguration",
  "validatingwebhookconfigurations",
  "Cluster",
  extensions,
);

const apps1 = rowsOf("apps", "v1", "apps/v1");
export const controllerRevisions = apps1<apps.ControllerRevision>(
  "ControllerRevision",
  "controllerrevisions",
  "Namespaced",
);
export const daemonSets = apps1<apps.DaemonSet>("DaemonSet", "daemonsets", "Namespaced", {
  short: ["ds"],
  categories: ["all"],
  subresources: status,
});
export const deployments = apps1<apps.Deployment>("Deployment", "deployments", "Namespaced", {
  short: ["deploy"],
  categories: ["all"],
  subresources: { ...scale, ...status },
});
export const replicaSets = apps1<apps.ReplicaSet>("ReplicaSet", "replicasets", "Namespaced", {
  short: ["rs"],
  categories: ["all"],
  subresources: { ...scale, ...status },
});
export const statefulSets = apps1<apps.StatefulSet>("StatefulSet", "statefulsets", "Namespaced", {
  short: ["sts"],
  categories: ["all"],
  subresources: { ...scale, ...status },
});

// Reviews are answered and never stored. SelfSubjectReview and the access reviews have a spec that upstream names.
const authentication1 = rowsOf("authentication.k8s.io", "v1", "authentication/v1");
const review = { verbs: createOnly };
export const selfSubjectReviews = authentication1<authentication.SelfSubjectReview>(
  "SelfSubjectReview",
  "selfsubjectreviews",
  "Cluster",
  review,
);
export const tokenReviews = authentication1<authentication.TokenReview>(
  "TokenReview",
  "tokenreviews",
  "Cluster",
  review,
);

const authorization1 = rowsOf("authorization.k8s.io", "v1", "authorization/v1");
export const localSubjectAccessReviews = authorization1<authorization.LocalSubjectAccessReview>(
  "LocalSubjectAccessReview",
  "localsubjectaccessreviews",
  "Namespaced",
  review,
);
export const selfSubjectAccessReviews = authorization1<authorization.SelfSubjectAccessReview>(
  "SelfSubjectAccessReview",
  "selfsubjectaccessreviews",
  "Cluster",
  review,
);
export const selfSubjectRulesReviews = authorization1<authorization.SelfSubjectRulesReview>(
  "SelfSubjectRulesReview",
  "selfsubjectrulesreviews",
  "Cluster",
  review,
);
export const subjectAccessReviews = authorization1<authorization.SubjectAccessReview>(
  "SubjectAccessReview",
  "subjectaccessreviews",
  "Cluster",
  review,
);

const scaler = { short: ["hpa"], categories: ["all"], subresources: status, storageVersion: "autoscaling/v2" };
export const horizontalPodAutoscalers = rowsOf(
  "autoscaling",
  "v2",
  "autoscaling/v2",
)<autoscalingV2.HorizontalPodAutoscaler>("HorizontalPodAutoscaler", "horizontalpodautoscalers", "Namespaced", scaler);
export const horizontalPodAutoscalersV1 = rowsOf(
  "autoscaling",
  "v1",
  "autoscaling/v1",
)<autoscaling.HorizontalPodAutoscaler>("HorizontalPodAutoscaler", "horizontalpodautoscalers", "Namespaced", scaler);

const batch1 = rowsOf("batch", "v1", "batch/v1");
export const cronJobs = batch1<batch.CronJob>("CronJob", "cronjobs", "Namespaced", {
  short: ["cj"],
  categories: ["all"],
  subresources: status,
});
export const jobs = batch1<batch.Job>("Job", "jobs", "Namespaced", { categories: ["all"], subresources: status });

export const certificateSigningRequests = rowsOf(
  "certificates.k8s.io",
  "v1",
  "certificates/v1",
)<certificates.CertificateSigningRequest>("CertificateSigningRequest", "certificatesigningrequests", "Cluster", {
  short: ["csr"],
  subresources: { approval: { verbs: ["get", "patch", "update"] }, ...status },
});

export const leases = rowsOf("coordination.k8s.io", "v1", "coordination/v1")<coordination.Lease>(
  "Lease",
  "leases",
  "Namespaced",
);

export const endpointSlices = rowsOf("discovery.k8s.io", "v1", "discovery/v1")<discovery.EndpointSlice>(
  "EndpointSlice",
  "endpointslices",
  "Namespaced",
);

export const eventsV1 = rowsOf("events.k8s.io", "v1", "events/v1")<eventsGroup.Event>("Event", "events", "Namespaced", {
  short: ["ev"],
  storageVersion: "v1",
  storageGroup: "",
});

const flowcontrol1 = rowsOf("flowcontrol.apiserver.k8s.io", "v1", "flowcontrol/v1");
export const flowSchemas = flowcontrol1<flowcontrol.FlowSchema>("FlowSchema", "flowschemas", "Cluster", {
  subresources: status,
});
export const priorityLevelConfigurations = flowcontrol1<flowcontrol.PriorityLevelConfiguration>(
  "PriorityLevelConfiguration",
  "prioritylevelconfigurations",
  "Cluster",
  { subresources: status },
);

const networking1 = rowsOf("networking.k8s.io", "v1", "networking/v1");
export const ingressClasses = networking1<networking.IngressClass>("IngressClass", "ingressclasses", "Cluster");
export const ingresses = networking1<networking.Ingress>("Ingress", "ingresses", "Namespaced", {
  short: ["ing"],
  subresources: status,
});
export const networkPolicies = networking1<networking.NetworkPolicy>("NetworkPolicy", "networkpolicies", "Namespaced", {
  short: ["netpol"],
});

const networkingBeta1 = rowsOf("networking.k8s.io", "v1beta1", "networking/v1beta1");
export const ipAddresses = networkingBeta1<networkingBeta.IPAddress>("IPAddress", "ipaddresses", "Cluster", {
  short: ["ip"],
});
export const serviceCidrs = networkingBeta1<networkingBeta.ServiceCIDR>("ServiceCIDR", "servicecidrs", "Cluster", {
  subresources: status,
});

export const runtimeClasses = rowsOf("node.k8s.io", "v1", "node/v1")<nodeGroup.RuntimeClass>(
  "RuntimeClass",
  "runtimeclasses",
  "Cluster",
);

export const podDisruptionBudgets = rowsOf("policy", "v1", "policy/v1")<policy.PodDisruptionBudget>(
  "PodDisruptionBudget",
  "poddisruptionbudgets",
  "Namespaced",
  { short: ["pdb"], subresources: status },
);

const rbac1 = rowsOf("rbac.authorization.k8s.io", "v1", "rbac/v1");
export const clusterRoleBindings = rbac1<rbac.ClusterRoleBinding>(
  "ClusterRoleBinding",
  "clusterrolebindings",
  "Cluster",
);
export const clusterRoles = rbac1<rbac.ClusterRole>("ClusterRole", "clusterroles", "Cluster");
export const roleBindings = rbac1<rbac.RoleBinding>("RoleBinding", "rolebindings", "Namespaced");
export const roles = rbac1<rbac.Role>("Role", "roles", "Namespaced");

export const priorityClasses = rowsOf("scheduling.k8s.io", "v1", "scheduling/v1")<scheduling.PriorityClass>(
  "PriorityClass",
  "priorityclasses",
  "Cluster",
  { short: ["pc"] },
);

const storage1 = rowsOf("storage.k8s.io", "v1", "storage/v1");
export const csiDrivers = storage1<storage.CSIDriver>("CSIDriver", "csidrivers", "Cluster");
export const csiNodes = storage1<storage.CSINode>("CSINode", "csinodes", "Cluster");
export const csiStorageCapacities = storage1<storage.CSIStorageCapacity>(
  "CSIStorageCapacity",
  "csistoragecapacities",
  "Namespaced",
);
export const storageClasses = storage1<storage.StorageClass>("StorageClass", "storageclasses", "Cluster", {
  short: ["sc"],
});
export const volumeAttachments = storage1<storage.VolumeAttachment>(
  "VolumeAttachment",
  "volumeattachments",
  "Cluster",
  {
    subresources: status,
  },
);

export const apiServices = rowsOf("apiregistration.k8s.io", "v1", "apiregistration/v1")<ApiService>(
  "APIService",
  "apiservices",
  "Cluster",
  { categories: ["api-extensions"], subresources: status },
);

const extensions1 = rowsOf("apiextensions.k8s.io", "v1", "apiextensions/v1");
export const customResourceDefinitions = extensions1<CustomResourceDefinition>(
  "CustomResourceDefinition",
  "customresourcedefinitions",
  "Cluster",
  { short: ["crd", "crds"], categories: ["api-extensions"], subresources: status },
);

/** In the order in which discovery lists groups and, within them, versions by preference. */
export const allResources: readonly ResourceInfo[] = [
  bindings,
  componentStatuses,
  configMaps,
  endpoints,
  events,
  limitRanges,
  namespaces,
  nodes,
  persistentVolumeClaims,
  persistentVolumes,
  pods,
  podTemplates,
  replicationControllers,
  resourceQuotas,
  secrets,
  serviceAccounts,
  services,
  controllerRevisions,
  daemonSets,
  deployments,
  replicaSets,
  statefulSets,
  eventsV1,
  selfSubjectReviews,
  tokenReviews,
  localSubjectAccessReviews,
  selfSubjectAccessReviews,
  selfSubjectRulesReviews,
  subjectAccessReviews,
  horizontalPodAutoscalers,
  horizontalPodAutoscalersV1,
  cronJobs,
  jobs,
  certificateSigningRequests,
  ingressClasses,
  ingresses,
  networkPolicies,
  podDisruptionBudgets,
  clusterRoleBindings,
  clusterRoles,
  roleBindings,
  roles,
  csiDrivers,
  csiNodes,
  csiStorageCapacities,
  storageClasses,
  volumeAttachments,
  mutatingWebhookConfigurations,
  validatingAdmissionPolicies,
  validatingAdmissionPolicyBindings,
  validatingWebhookConfigurations,
  priorityClasses,
  leases,
  runtimeClasses,
  endpointSlices,
  flowSchemas,
  priorityLevelConfigurations,
  customResourceDefinitions,
  apiServices,
];

/** By group version: APIs that upstream has off by default and `runtime-config` turns on. */
export const optionalApis: Readonly<Record<string, readonly ResourceInfo[]>> = {
  "networking.k8s.io/v1beta1": [ipAddresses, serviceCidrs],
};

/** What is served where these group versions are on beside the default ones. */
export const resourcesWith = (groupVersions: readonly string[] = []): readonly ResourceInfo[] => [
  ...allResources,
  ...groupVersions.flatMap((name) => (Object.hasOwn(optionalApis, name) ? optionalApis[name]! : [])),
];

/** Whether served or not. */
export const knownResources: readonly ResourceInfo[] = resourcesWith(Object.keys(optionalApis));

const byPlural: ReadonlyMap<string, ResourceInfo> = new Map(
  knownResources.map((info) => [`${info.group}/${info.version}/${info.plural}`, info]),
);
const byKind: ReadonlyMap<string, ResourceInfo> = new Map(
  knownResources.map((info) => [`${info.group}/${info.version}/${info.kind}`, info]),
);

export const findResource = (group: string, version: string, plural: string): ResourceInfo | undefined =>
  byPlural.get(`${group}/${version}/${plural}`);
export const resourceOfKind = (group: string, version: string, kind: string): ResourceInfo | undefined =>
  byKind.get(`${group}/${version}/${kind}`);
