// Is this object allowed to exist, and may it follow that one? Every failure with the path and the words that upstream
// uses. Runs after defaulting. One pair of functions per kind; metadata is checked for all. Pure. Upstream counterpart:
// pkg/apis/*/validation of 1.32.
import type { ApiObject } from "./object.ts";
import type { ResourceInfo } from "./resource-info.ts";
import type { FieldError } from "./status.ts";
import * as administration from "./validation/administration.ts";
import { validateAutoscaler } from "./validation/autoscaling.ts";
import * as cluster from "./validation/cluster.ts";
import * as csi from "./validation/csi.ts";
import { validateNewEvent, validateNewEventUpdate } from "./validation/events.ts";
import { enough } from "./validation/findings.ts";
import { validateMetadata, validateMetadataUpdate } from "./validation/metadata.ts";
import { type NameRule, nameRules } from "./validation/names.ts";
import { validatePod, validatePodUpdate } from "./validation/pod.ts";
import { validateResourceQuota, validateResourceQuotaUpdate } from "./validation/quota.ts";
import * as rbac from "./validation/rbac.ts";
import * as registration from "./validation/registration.ts";
import { validateService, validateServiceUpdate } from "./validation/service.ts";
import * as serviceCidrs from "./validation/service-cidrs.ts";
import * as storage from "./validation/storage.ts";
import * as workloads from "./validation/workloads.ts";

type Info = Pick<ResourceInfo, "group" | "kind" | "namespaced"> & Partial<Pick<ResourceInfo, "type">>;

/** What is wrong with a new object; empty when nothing is. `served`: the group it was sent to, where not its own. */
export function validateObject(info: Info, object: ApiObject, served: Info = info): FieldError[] {
  const rules = rulesOf(info);
  return [
    ...enough(() => validateMetadata(object.metadata, info, rules.name ?? nameRules.subdomain)),
    ...enough(() => rules.create?.(object) ?? []),
    ...enough(() => (served.group === info.group ? [] : (rulesOf(served).create?.(object) ?? []))),
  ];
}

/** What is wrong with `object` as the successor of `old`. */
export function validateObjectUpdate(info: Info, object: ApiObject, old: ApiObject, served: Info = info): FieldError[] {
  const rules = rulesOf(info);
  const own = enough(() => rules.update?.(object, old) ?? []);
  const asked = enough(() => (served.group === info.group ? [] : (rulesOf(served).update?.(object, old) ?? [])));
  // A kind whose update is checked by what may change does not need its whole object looked at again.
  const whole = enough(() => (rules.updateChecksAll === false ? [] : (rules.create?.(object) ?? [])));
  const metadata = enough(() => validateMetadataUpdate(object.metadata, old.metadata, info));
  const seen = new Set<string>();
  const all = rules.updateChecksAll === "first" ? [...whole, ...own, ...asked] : [...own, ...asked, ...whole];
  return [...metadata, ...all].filter((error) => {
    const key = `${error.field}: ${error.message}`;
    return !seen.has(key) && seen.add(key);
  });
}

type UpdateChecksAll = boolean | "first";
interface Rules {
  readonly name?: NameRule;
  readonly create?: (object: ApiObject) => FieldError[];
  readonly update?: (object: ApiObject, old: ApiObject) => FieldError[];
  /** Whether an update is checked as a new object too, and before or (the default) after what may not change. */
  readonly updateChecksAll?: UpdateChecksAll;
}

/** An entry for kind T; the table holds them all as rules over ApiObject, which decoding has made true. */
function rules<T extends ApiObject>(entry: {
  name?: NameRule;
  create?: (object: T) => FieldError[];
  update?: (object: T, old: T) => FieldError[];
  updateChecksAll?: UpdateChecksAll;
}): Rules {
  return entry as unknown as Rules;
}

const rulesOf = (info: Info): Rules => table[`${info.group}/${info.kind}`] ?? {};

const wholeFirst = { updateChecksAll: "first" } as const;

const table: Readonly<Record<string, Rules | undefined>> = {
  "/ConfigMap": rules({ create: cluster.validateConfigMap, update: cluster.validateConfigMapUpdate }),
  "/Endpoints": rules({ create: cluster.validateEndpoints }),
  "/Event": rules({ create: cluster.validateEvent }),
  "/LimitRange": rules({ create: cluster.validateLimitRange }),
  "/Namespace": rules({ name: nameRules.label }),
  "/Node": rules({ create: cluster.validateNode, update: cluster.validateNodeUpdate }),
  "/PersistentVolume": rules({ create: storage.validateVolume, update: storage.validateVolumeUpdate, ...wholeFirst }),
  "/PersistentVolumeClaim": rules({
    create: storage.validateClaim,
    update: storage.validateClaimUpdate,
    ...wholeFirst,
  }),
  "/Pod": rules({ create: validatePod, update: validatePodUpdate, updateChecksAll: false }),
  "/PodTemplate": rules({ create: workloads.validatePodTemplateObject }),
  "/ReplicationController": rules({ create: workloads.validateReplicationController }),
  "/ResourceQuota": rules({ create: validateResourceQuota, update: validateResourceQuotaUpdate, ...wholeFirst }),
  "/Secret": rules({ create: cluster.validateSecret, update: cluster.validateSecretUpdate }),
  "/Service": rules({ name: nameRules.service, create: validateService, update: validateServiceUpdate }),
  "admissionregistration.k8s.io/MutatingWebhookConfiguration": rules({
    create: registration.validateWebhookConfiguration,
  }),
  "admissionregistration.k8s.io/ValidatingAdmissionPolicy": rules({ create: registration.validatePolicy }),
  "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding": rules({
    create: registration.validatePolicyBinding,
  }),
  "admissionregistration.k8s.io/ValidatingWebhookConfiguration": rules({
    create: registration.validateWebhookConfiguration,
  }),
  "apiregistration.k8s.io/APIService": rules({ name: nameRules.pathSegment, create: registration.validateApiService }),
  "apps/ControllerRevision": rules({
    create: workloads.validateControllerRevision,
    update: workloads.validateControllerRevisionUpdate,
  }),
  "apps/DaemonSet": rules({
    create: workloads.validateDaemonSet,
    update: workloads.validateSelectorUpdate,
    ...wholeFirst,
  }),
  "apps/Deployment": rules({
    create: workloads.validateDeployment,
    update: workloads.validateSelectorUpdate,
    ...wholeFirst,
  }),
  "apps/ReplicaSet": rules({
    create: workloads.validateReplicaSet,
    update: workloads.validateSelectorUpdate,
    ...wholeFirst,
  }),
  "apps/StatefulSet": rules({
    create: workloads.validateStatefulSet,
    update: workloads.validateStatefulSetUpdate,
    ...wholeFirst,
  }),
  "autoscaling/HorizontalPodAutoscaler": rules({ create: validateAutoscaler }),
  "batch/CronJob": rules({ create: workloads.validateCronJob }),
  "batch/Job": rules({ create: workloads.validateJob, update: workloads.validateJobUpdate, ...wholeFirst }),
  "certificates.k8s.io/CertificateSigningRequest": rules({ create: administration.validateSigningRequest }),
  "coordination.k8s.io/Lease": rules({ create: cluster.validateLease }),
  "discovery.k8s.io/EndpointSlice": rules({
    create: cluster.validateEndpointSlice,
    update: cluster.validateEndpointSliceUpdate,
    ...wholeFirst,
  }),
  // Beside the rules of "/Event", of those that were sent to this group.
  "events.k8s.io/Event": rules({ create: validateNewEvent, update: validateNewEventUpdate }),
  "flowcontrol.apiserver.k8s.io/FlowSchema": rules({ create: administration.validateFlowSchema }),
  "flowcontrol.apiserver.k8s.io/PriorityLevelConfiguration": rules({ create: administration.validatePriorityLevel }),
  "networking.k8s.io/IPAddress": rules({
    name: nameRules.address,
    create: serviceCidrs.validateIpAddress,
    update: serviceCidrs.validateIpAddressUpdate,
    ...wholeFirst,
  }),
  "networking.k8s.io/IngressClass": rules({
    create: administration.validateIngressClass,
    update: administration.validateIngressClassUpdate,
  }),
  "networking.k8s.io/Ingress": rules({ create: cluster.validateIngress }),
  "networking.k8s.io/NetworkPolicy": rules({ create: cluster.validateNetworkPolicy }),
  "networking.k8s.io/ServiceCIDR": rules({
    create: serviceCidrs.validateServiceCidr,
    update: serviceCidrs.validateServiceCidrUpdate,
    updateChecksAll: false,
  }),
  "node.k8s.io/RuntimeClass": rules({
    create: administration.validateRuntimeClass,
    update: administration.validateRuntimeClassUpdate,
  }),
  "policy/PodDisruptionBudget": rules({ create: workloads.validateDisruptionBudget }),
  "rbac.authorization.k8s.io/ClusterRole": rules({ name: nameRules.pathSegment, create: rbac.validateClusterRole }),
  "rbac.authorization.k8s.io/ClusterRoleBinding": rules({
    name: nameRules.pathSegment,
    create: rbac.validateClusterRoleBinding,
    update: rbac.validateRoleBindingUpdate,
  }),
  "rbac.authorization.k8s.io/Role": rules({ name: nameRules.pathSegment, create: rbac.validateRole }),
  "rbac.authorization.k8s.io/RoleBinding": rules({
    name: nameRules.pathSegment,
    create: rbac.validateRoleBinding,
    update: rbac.validateRoleBindingUpdate,
  }),
  "scheduling.k8s.io/PriorityClass": rules({
    create: cluster.validatePriorityClass,
    update: cluster.validatePriorityClassUpdate,
  }),
  "storage.k8s.io/CSIDriver": rules({ create: csi.validateCsiDriver, update: csi.validateCsiDriverUpdate }),
  "storage.k8s.io/CSINode": rules({ create: csi.validateCsiNode, update: csi.validateCsiNodeUpdate }),
  "storage.k8s.io/CSIStorageCapacity": rules({
    create: csi.validateStorageCapacity,
    update: csi.validateStorageCapacityUpdate,
  }),
  "storage.k8s.io/VolumeAttachment": rules({
    create: csi.validateVolumeAttachment,
    update: csi.validateVolumeAttachmentUpdate,
  }),
  "storage.k8s.io/StorageClass": rules({
    create: storage.validateStorageClass,
    update: storage.validateStorageClassUpdate,
  }),
};
