// Defaults of everything that makes no pods: core resources, discovery, networking, rbac, scheduling, storage.
import type {
  Endpoints,
  LimitRange,
  Namespace,
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  Secret,
} from "../gen/core-v1.ts";
import type { EndpointSlice } from "../gen/discovery-v1.ts";
import type { IngressClass, NetworkPolicy } from "../gen/networking-v1.ts";
import type { RoleBinding } from "../gen/rbac-v1.ts";
import type { PriorityClass } from "../gen/scheduling-v1.ts";
import type { CSIDriver, StorageClass } from "../gen/storage-v1.ts";
import { fill } from "./fill.ts";

export function defaultNamespace({ metadata }: Namespace): void {
  if (metadata.name) metadata.labels = { ...metadata.labels, "kubernetes.io/metadata.name": metadata.name };
}

export function defaultNode({ status }: Node): void {
  if (status?.capacity) fill(status, { allocatable: { ...status.capacity } });
}

/** `stringData` is write-only: it is folded into `data`, over whatever stands there. */
export function defaultSecret(secret: Secret): void {
  fill(secret, { type: "Opaque" });
  if (!secret.stringData) return;
  const data: Record<string, string> = Object.create(null);
  Object.assign(data, secret.data);
  for (const [key, text] of Object.entries(secret.stringData)) data[key] = Buffer.from(text, "utf8").toString("base64");
  secret.data = { ...data };
  delete secret.stringData;
}

export function defaultEndpoints({ subsets }: Endpoints): void {
  for (const subset of subsets ?? []) for (const port of subset.ports ?? []) fill(port, { protocol: "TCP" });
}

export function defaultEndpointSlice({ ports }: EndpointSlice): void {
  for (const port of ports ?? []) fill(port, { name: "", protocol: "TCP" });
}

export function defaultPersistentVolume(volume: PersistentVolume): void {
  if (!volume.spec) return;
  fill(volume, { status: {} });
  fill(volume.status ?? {}, { phase: "Pending" });
  fill(volume.spec, { persistentVolumeReclaimPolicy: "Retain", volumeMode: "Filesystem" });
  if (volume.spec.hostPath) volume.spec.hostPath.type ??= "";
}

export function defaultPersistentVolumeClaim(claim: PersistentVolumeClaim): void {
  if (!claim.spec) return;
  fill(claim, { status: {} });
  fill(claim.status ?? {}, { phase: "Pending" });
  fill(claim.spec, { volumeMode: "Filesystem" });
  const { dataSource, dataSourceRef } = claim.spec;
  if (dataSource && !dataSourceRef) claim.spec.dataSourceRef = { ...dataSource };
}

export function defaultLimitRange({ spec }: LimitRange): void {
  for (const item of spec?.limits ?? []) {
    if (item.type !== "Container") continue;
    // What is not said is taken from the nearest bound: limit from max, request from limit or else min.
    item.default = { ...item.max, ...item.default };
    item.defaultRequest = { ...item.min, ...item.default, ...item.defaultRequest };
    if (Object.keys(item.default).length === 0) delete item.default;
    if (Object.keys(item.defaultRequest).length === 0) delete item.defaultRequest;
  }
}

const rbacGroup = "rbac.authorization.k8s.io";

/** Cluster role bindings too. */
export function defaultRoleBinding(binding: Pick<RoleBinding, "roleRef" | "subjects">): void {
  if (binding.roleRef) fill(binding.roleRef, { apiGroup: rbacGroup });
  for (const subject of binding.subjects ?? []) {
    if (subject.kind === "User" || subject.kind === "Group") fill(subject, { apiGroup: rbacGroup });
  }
}

export function defaultPriorityClass(priorityClass: PriorityClass): void {
  fill(priorityClass, { preemptionPolicy: "PreemptLowerPriority" });
}

export function defaultStorageClass(storageClass: StorageClass): void {
  fill(storageClass, { reclaimPolicy: "Delete", volumeBindingMode: "Immediate" });
}

export function defaultCsiDriver({ spec }: CSIDriver): void {
  if (!spec) return;
  fill(spec, {
    attachRequired: true,
    fsGroupPolicy: "ReadWriteOnceWithFSType",
    podInfoOnMount: false,
    requiresRepublish: false,
    seLinuxMount: false,
    storageCapacity: false,
    volumeLifecycleModes: ["Persistent"],
  });
}

export function defaultIngressClass({ spec }: IngressClass): void {
  if (spec?.parameters) fill(spec.parameters, { scope: "Cluster" });
}

export function defaultNetworkPolicy({ spec }: NetworkPolicy): void {
  if (!spec) return;
  for (const rule of [...(spec.ingress ?? []), ...(spec.egress ?? [])]) {
    for (const port of rule.ports ?? []) fill(port, { protocol: "TCP" });
  }
  if ((spec.policyTypes ?? []).length === 0) {
    spec.policyTypes = (spec.egress ?? []).length > 0 ? ["Ingress", "Egress"] : ["Ingress"];
  }
}
