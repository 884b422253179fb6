// Which columns `kubectl get` shows of a kind. Names, order and priorities are upstream's
// (pkg/printers/internalversion/printers.go of 1.32); other kinds get name and creation time.
import type { ResourceInfo } from "#model/resource-info.ts";
import * as administration from "./administration.ts";
import * as cluster from "./cluster.ts";
import type { Column } from "./columns.ts";
import { nodeMetricsColumns, podMetricsColumns } from "./metrics.ts";
import { podColumns } from "./pods.ts";
import * as workloads from "./workloads.ts";

export function columnsFor(info: Pick<ResourceInfo, "group" | "kind">): readonly Column[] {
  return (tables[`${info.group}/${info.kind}`] ?? cluster.defaultColumns) as readonly Column[];
}

// Each list is of its own kind; the cast above is where they meet.
const tables: Readonly<Record<string, readonly Column<never>[] | undefined>> = {
  "/ComponentStatus": administration.componentStatusColumns,
  "/ConfigMap": cluster.configMapColumns,
  "/Endpoints": cluster.endpointsColumns,
  "/Event": cluster.eventColumns,
  "/Namespace": cluster.namespaceColumns,
  "/Node": cluster.nodeColumns,
  "/PersistentVolume": cluster.persistentVolumeColumns,
  "/PersistentVolumeClaim": cluster.persistentVolumeClaimColumns,
  "/Pod": podColumns,
  "/PodTemplate": workloads.podTemplateColumns,
  "/ReplicationController": workloads.replicationControllerColumns,
  "/ResourceQuota": cluster.resourceQuotaColumns,
  "/Secret": cluster.secretColumns,
  "/Service": cluster.serviceColumns,
  "/ServiceAccount": cluster.serviceAccountColumns,
  "admissionregistration.k8s.io/MutatingWebhookConfiguration": cluster.webhookColumns,
  "admissionregistration.k8s.io/ValidatingAdmissionPolicy": administration.admissionPolicyColumns,
  "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding": administration.admissionPolicyBindingColumns,
  "admissionregistration.k8s.io/ValidatingWebhookConfiguration": cluster.webhookColumns,
  "apiregistration.k8s.io/APIService": administration.apiServiceColumns,
  "apps/ControllerRevision": workloads.controllerRevisionColumns,
  "apps/DaemonSet": workloads.daemonSetColumns,
  "apps/Deployment": workloads.deploymentColumns,
  "apps/ReplicaSet": workloads.replicaSetColumns,
  "apps/StatefulSet": workloads.statefulSetColumns,
  "autoscaling/HorizontalPodAutoscaler": workloads.autoscalerColumns,
  "batch/CronJob": workloads.cronJobColumns,
  "batch/Job": workloads.jobColumns,
  "certificates.k8s.io/CertificateSigningRequest": cluster.signingRequestColumns,
  "coordination.k8s.io/Lease": cluster.leaseColumns,
  "discovery.k8s.io/EndpointSlice": cluster.endpointSliceColumns,
  "events.k8s.io/Event": cluster.eventColumns,
  "flowcontrol.apiserver.k8s.io/FlowSchema": administration.flowSchemaColumns,
  "flowcontrol.apiserver.k8s.io/PriorityLevelConfiguration": administration.priorityLevelColumns,
  "metrics.k8s.io/NodeMetrics": nodeMetricsColumns,
  "metrics.k8s.io/PodMetrics": podMetricsColumns,
  "networking.k8s.io/Ingress": cluster.ingressColumns,
  "networking.k8s.io/IPAddress": administration.ipAddressColumns,
  "networking.k8s.io/IngressClass": cluster.ingressClassColumns,
  "networking.k8s.io/NetworkPolicy": cluster.networkPolicyColumns,
  "networking.k8s.io/ServiceCIDR": administration.serviceCidrColumns,
  "node.k8s.io/RuntimeClass": cluster.runtimeClassColumns,
  "policy/PodDisruptionBudget": workloads.podDisruptionBudgetColumns,
  "rbac.authorization.k8s.io/ClusterRoleBinding": cluster.roleBindingColumns,
  "rbac.authorization.k8s.io/RoleBinding": cluster.roleBindingColumns,
  "scheduling.k8s.io/PriorityClass": cluster.priorityClassColumns,
  "storage.k8s.io/CSIDriver": cluster.csiDriverColumns,
  "storage.k8s.io/CSINode": cluster.csiNodeColumns,
  "storage.k8s.io/CSIStorageCapacity": administration.storageCapacityColumns,
  "storage.k8s.io/StorageClass": cluster.storageClassColumns,
  "storage.k8s.io/VolumeAttachment": cluster.volumeAttachmentColumns,
};
