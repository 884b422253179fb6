// What the API fills in where a client says nothing, one function per kind over shared parts in defaults/. Runs on create
// and update before admission and validation, and changes the object it is given. Upstream counterpart: the
// SetDefaults_* families in pkg/apis/*/v1/defaults.go of 1.32.
import * as administration from "./defaults/administration.ts";
import * as cluster from "./defaults/cluster.ts";
import { defaultCustomResourceDefinition } from "./defaults/extensions.ts";
import { defaultPod, defaultPodTemplate } from "./defaults/pod.ts";
import { defaultService } from "./defaults/service.ts";
import * as workloads from "./defaults/workloads.ts";
import type { ApiObject } from "./object.ts";
import type { ResourceInfo } from "./resource-info.ts";

/** Fills defaults in place; running it twice changes nothing more. */
export function applyDefaults(info: Pick<ResourceInfo, "group" | "version" | "kind">, object: ApiObject): void {
  // The table's functions take their own kinds; decoding has made sure that the object is one.
  const table = versioned[`${info.group}/${info.version}/${info.kind}`] ?? defaulters[`${info.group}/${info.kind}`];
  const apply = table as ((object: ApiObject) => void) | undefined;
  apply?.(object);
}

/** Where versions of one kind differ. */
const versioned: Readonly<Record<string, ((object: never) => void) | undefined>> = {
  "autoscaling/v1/HorizontalPodAutoscaler": workloads.defaultHorizontalPodAutoscalerV1,
};

const defaulters: Readonly<Record<string, ((object: never) => void) | undefined>> = {
  "/Endpoints": cluster.defaultEndpoints,
  "/LimitRange": cluster.defaultLimitRange,
  "/Namespace": cluster.defaultNamespace,
  "/Node": cluster.defaultNode,
  "/PersistentVolume": cluster.defaultPersistentVolume,
  "/PersistentVolumeClaim": cluster.defaultPersistentVolumeClaim,
  "/Pod": defaultPod,
  "/PodTemplate": (object: { template?: Parameters<typeof defaultPodTemplate>[0] }) =>
    defaultPodTemplate(object.template),
  "/ReplicationController": workloads.defaultReplicationController,
  "/Secret": cluster.defaultSecret,
  "/Service": defaultService,
  "apiextensions.k8s.io/CustomResourceDefinition": defaultCustomResourceDefinition,
  "admissionregistration.k8s.io/MutatingWebhookConfiguration": administration.defaultMutatingWebhooks,
  "admissionregistration.k8s.io/ValidatingAdmissionPolicy": administration.defaultAdmissionPolicy,
  "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding": administration.defaultAdmissionPolicyBinding,
  "admissionregistration.k8s.io/ValidatingWebhookConfiguration": administration.defaultValidatingWebhooks,
  "apiregistration.k8s.io/APIService": administration.defaultApiService,
  "apps/DaemonSet": workloads.defaultDaemonSet,
  "apps/Deployment": workloads.defaultDeployment,
  "apps/ReplicaSet": workloads.defaultReplicaSet,
  "apps/StatefulSet": workloads.defaultStatefulSet,
  "autoscaling/HorizontalPodAutoscaler": workloads.defaultHorizontalPodAutoscaler,
  "batch/CronJob": workloads.defaultCronJob,
  "batch/Job": workloads.defaultJob,
  "discovery.k8s.io/EndpointSlice": cluster.defaultEndpointSlice,
  "flowcontrol.apiserver.k8s.io/FlowSchema": administration.defaultFlowSchema,
  "flowcontrol.apiserver.k8s.io/PriorityLevelConfiguration": administration.defaultPriorityLevel,
  "networking.k8s.io/IngressClass": cluster.defaultIngressClass,
  "networking.k8s.io/NetworkPolicy": cluster.defaultNetworkPolicy,
  "rbac.authorization.k8s.io/ClusterRoleBinding": cluster.defaultRoleBinding,
  "rbac.authorization.k8s.io/RoleBinding": cluster.defaultRoleBinding,
  "scheduling.k8s.io/PriorityClass": cluster.defaultPriorityClass,
  "storage.k8s.io/CSIDriver": cluster.defaultCsiDriver,
  "storage.k8s.io/StorageClass": cluster.defaultStorageClass,
};
