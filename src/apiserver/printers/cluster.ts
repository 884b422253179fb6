// Tables of nodes, services, storage, access control and the rest of what is not a workload.
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import type { Lease } from "#model/gen/coordination-v1.ts";
import type {
  ConfigMap,
  Endpoints,
  Event,
  Namespace,
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  ResourceQuota,
  Secret,
  Service,
  ServiceAccount,
} from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import type { Ingress, IngressClass, NetworkPolicy } from "#model/gen/networking-v1.ts";
import type { RuntimeClass } from "#model/gen/node-v1.ts";
import type { RoleBinding } from "#model/gen/rbac-v1.ts";
import type { PriorityClass } from "#model/gen/scheduling-v1.ts";
import type { CSIDriver, CSINode, StorageClass, VolumeAttachment } from "#model/gen/storage-v1.ts";
import type { ApiObject } from "#model/object.ts";
import {
  ageColumn,
  count,
  firstThree,
  formatAccessModes,
  formatLabels,
  formatSelector,
  hasCondition,
  nameColumn,
  text,
  wide,
} from "./column-kit.ts";
import type { Column } from "./columns.ts";
import { humanDuration, since } from "./human-duration.ts";

const size = (map: object | undefined): number => Object.keys(map ?? {}).length;
const join = (hostname: string, port: number): string =>
  `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;

export const namespaceColumns: readonly Column<Namespace>[] = [
  nameColumn,
  text("Status", "Active, or Terminating.", (n) => n.status?.phase ?? ""),
  ageColumn,
];

const address = (node: Node, type: string): string =>
  node.status?.addresses?.find((entry) => entry.type === type)?.address ?? "<none>";

export const nodeColumns: readonly Column<Node>[] = [
  nameColumn,
  text("Status", "Whether it is ready and takes pods.", (node) => {
    const ready = node.status?.conditions?.find((condition) => condition.type === "Ready");
    const words = [ready ? (ready.status === "True" ? "Ready" : "NotReady") : "Unknown"];
    if (node.spec?.unschedulable) words.push("SchedulingDisabled");
    return words.join(",");
  }),
  text("Roles", "Roles from the node's labels.", (node) => {
    const roles = new Set<string>();
    for (const [key, value] of Object.entries(node.metadata.labels ?? {})) {
      if (key.startsWith(rolePrefix) && key.length > rolePrefix.length) roles.add(key.slice(rolePrefix.length));
      else if (key === "kubernetes.io/role" && value !== "") roles.add(value);
    }
    return roles.size === 0 ? "<none>" : [...roles].sort().join(",");
  }),
  ageColumn,
  text("Version", "Version of the node agent.", (node) => node.status?.nodeInfo?.kubeletVersion ?? ""),
  wide(text("Internal-IP", "Address inside the cluster.", (node) => address(node, "InternalIP"))),
  wide(text("External-IP", "Address outside.", (node) => address(node, "ExternalIP"))),
  wide(text("OS-Image", "Operating system.", (node) => node.status?.nodeInfo?.osImage || "<unknown>")),
  wide(text("Kernel-Version", "Kernel.", (node) => node.status?.nodeInfo?.kernelVersion || "<unknown>")),
  wide(text("Container-Runtime", "Runtime.", (n) => n.status?.nodeInfo?.containerRuntimeVersion || "<unknown>")),
];
const rolePrefix = "node-role.kubernetes.io/";

export const serviceColumns: readonly Column<Service>[] = [
  nameColumn,
  text("Type", "How it is exposed.", (service) => service.spec?.type ?? ""),
  text("Cluster-IP", "Address inside the cluster.", (s) => s.spec?.clusterIPs?.[0] || s.spec?.clusterIP || "<none>"),
  text("External-IP", "Addresses outside.", externalIp),
  text("Port(s)", "Ports, node ports and protocols.", (service) => {
    const ports = (service.spec?.ports ?? []).map(
      ({ port, nodePort, protocol }) => `${port}${nodePort ? `:${nodePort}` : ""}/${protocol ?? "TCP"}`,
    );
    return ports.length === 0 ? "<none>" : ports.join(",");
  }),
  ageColumn,
  wide(text("Selector", "Labels of its pods.", (service) => formatLabels(service.spec?.selector))),
];

function externalIp({ spec, status }: Service): string {
  const own = spec?.externalIPs ?? [];
  if (spec?.type === "ExternalName") return spec?.externalName ?? "<none>";
  if (spec?.type !== "LoadBalancer") return own.length === 0 ? "<none>" : own.join(",");
  const all = [...(status?.loadBalancer?.ingress ?? []).map((entry) => entry.ip || entry.hostname || ""), ...own];
  return all.length === 0 ? "<pending>" : all.join(",");
}

export const endpointsColumns: readonly Column<Endpoints>[] = [
  nameColumn,
  text("Endpoints", "Addresses and ports.", ({ subsets }) => {
    const list = (subsets ?? []).flatMap(({ addresses = [], ports = [] }) =>
      ports.length === 0
        ? addresses.map(({ ip }) => ip)
        : ports.flatMap(({ port }) => addresses.map(({ ip }) => join(ip, port))),
    );
    return firstThree(list, "<none>");
  }),
  ageColumn,
];

export const endpointSliceColumns: readonly Column<EndpointSlice>[] = [
  nameColumn,
  text("AddressType", "IPv4, IPv6 or FQDN.", (slice) => slice.addressType),
  text("Ports", "Ports of every endpoint.", (slice) =>
    firstThree(
      (slice.ports ?? []).map(({ port }) => (port === undefined ? "*" : String(port))),
      "<unset>",
    ),
  ),
  text("Endpoints", "Addresses.", (slice) =>
    firstThree(
      (slice.endpoints ?? []).flatMap((endpoint) => endpoint.addresses ?? []),
      "<unset>",
    ),
  ),
  ageColumn,
];

export const configMapColumns: readonly Column<ConfigMap>[] = [
  nameColumn,
  count("Data", "Number of keys.", (map) => size(map.data) + size(map.binaryData)),
  ageColumn,
];

export const secretColumns: readonly Column<Secret>[] = [
  nameColumn,
  text("Type", "What it is for.", (secret) => secret.type ?? ""),
  count("Data", "Number of keys.", (secret) => size(secret.data)),
  ageColumn,
];

export const serviceAccountColumns: readonly Column<ServiceAccount>[] = [
  nameColumn,
  count("Secrets", "Secrets its pods may use.", (account) => account.secrets?.length),
  ageColumn,
];

export const eventColumns: readonly Column<Event>[] = [
  text("Last Seen", "Time since it last happened.", (event, nowMs) => {
    if (event.series) return since(event.series.lastObservedTime, nowMs);
    return event.lastTimestamp ? since(event.lastTimestamp, nowMs) : firstSeen(event, nowMs);
  }),
  text("Type", "Normal or Warning.", (event) => event.type ?? ""),
  text("Reason", "Why, in one word.", (event) => event.reason ?? ""),
  text("Object", "What it is about.", (event) => {
    const { kind = "", name = "" } = about(event);
    return name === "" ? kind.toLowerCase() : `${kind.toLowerCase()}/${name}`;
  }),
  wide(text("Subobject", "Part of the object.", (event) => about(event).fieldPath ?? "")),
  wide(text("Source", "Who reported it.", eventSource)),
  text("Message", "What happened.", (event) => (event.message ?? (event as NewEvent).note ?? "").trim()),
  wide(text("First Seen", "Time since it first happened.", firstSeen)),
  wide(count("Count", "How often.", (event) => event.series?.count ?? (event.count || 1))),
  wide(text("Name", "Name of the event.", (event) => event.metadata.name ?? "")),
];

/** events.k8s.io/v1 names some fields differently. */
type NewEvent = Event & {
  note?: string;
  regarding?: Event["involvedObject"];
  reportingController?: string;
  deprecatedFirstTimestamp?: string;
};
const about = (event: Event): Partial<Event["involvedObject"]> =>
  event.involvedObject ?? (event as NewEvent).regarding ?? {};

function firstSeen(event: Event, nowMs: number): string {
  return since(event.firstTimestamp ?? (event as NewEvent).deprecatedFirstTimestamp ?? event.eventTime, nowMs);
}

function eventSource(event: Event): string {
  const component =
    event.source?.component || event.reportingComponent || (event as NewEvent).reportingController || "";
  const instance = event.source?.host || event.reportingInstance || "";
  return instance === "" ? component : `${component}, ${instance}`;
}

export const leaseColumns: readonly Column<Lease>[] = [
  nameColumn,
  text("Holder", "Who holds it.", (lease) => lease.spec?.holderIdentity ?? ""),
  ageColumn,
];

export const ingressColumns: readonly Column<Ingress>[] = [
  nameColumn,
  text("Class", "Controller's class.", (ingress) => ingress.spec?.ingressClassName ?? "<none>"),
  text("Hosts", "Host names.", (ingress) => {
    const hosts = (ingress.spec?.rules ?? []).map((rule) => rule.host ?? "").filter((host) => host !== "");
    return firstThree(hosts, "*");
  }),
  text("Address", "Where it can be reached.", (ingress) =>
    (ingress.status?.loadBalancer?.ingress ?? []).map((entry) => entry.ip || entry.hostname || "").join(","),
  ),
  text("Ports", "Ports it listens on.", (ingress) => ((ingress.spec?.tls ?? []).length > 0 ? "80, 443" : "80")),
  ageColumn,
];

export const ingressClassColumns: readonly Column<IngressClass>[] = [
  nameColumn,
  text("Controller", "Who serves it.", (entry) => entry.spec?.controller ?? ""),
  text("Parameters", "Where its settings are.", ({ spec }) => {
    if (!spec?.parameters) return "<none>";
    const { apiGroup, kind, name } = spec.parameters;
    return `${kind}${apiGroup ? `.${apiGroup}` : ""}/${name}`;
  }),
  ageColumn,
];

export const networkPolicyColumns: readonly Column<NetworkPolicy>[] = [
  nameColumn,
  text("Pod-Selector", "Pods it is about.", (policy) => formatSelector(policy.spec?.podSelector)),
  ageColumn,
];

/** Cluster role bindings too. */
export const roleBindingColumns: readonly Column<RoleBinding>[] = [
  nameColumn,
  text("Role", "The role that is granted.", ({ roleRef }) => `${roleRef?.kind ?? ""}/${roleRef?.name ?? ""}`),
  ageColumn,
  wide(text("Users", "Users it is granted to.", (binding) => subjects(binding, "User"))),
  wide(text("Groups", "Groups it is granted to.", (binding) => subjects(binding, "Group"))),
  wide(text("ServiceAccounts", "Accounts it is granted to.", (binding) => subjects(binding, "ServiceAccount"))),
];

function subjects(binding: RoleBinding, kind: string): string {
  const wanted = (binding.subjects ?? []).filter((subject) => subject.kind === kind);
  return wanted.map(({ namespace, name }) => (kind === "ServiceAccount" ? `${namespace}/${name}` : name)).join(", ");
}

/** Kinds without a table of their own, and roles. */
export const defaultColumns: readonly Column[] = [
  nameColumn,
  {
    name: "Created At",
    type: "date",
    description: "When the object was created.",
    priority: 0,
    value: (object: ApiObject) => object.metadata.creationTimestamp ?? "<unknown>",
  },
];

export const persistentVolumeColumns: readonly Column<PersistentVolume>[] = [
  nameColumn,
  text("Capacity", "Size.", ({ spec }) => String(spec?.capacity?.["storage"] ?? "0")),
  text("Access Modes", "How it may be mounted.", ({ spec }) => formatAccessModes(spec?.accessModes)),
  text("Reclaim Policy", "What happens after the claim.", ({ spec }) => spec?.persistentVolumeReclaimPolicy ?? ""),
  text("Status", "Phase.", (volume) =>
    volume.metadata.deletionTimestamp ? "Terminating" : (volume.status?.phase ?? ""),
  ),
  text("Claim", "Who has it.", ({ spec }) =>
    spec?.claimRef ? `${spec?.claimRef.namespace}/${spec?.claimRef.name}` : "",
  ),
  text("StorageClass", "Class.", ({ spec }) => spec?.storageClassName ?? ""),
  text("VolumeAttributesClass", "Attributes class.", ({ spec }) => spec?.volumeAttributesClassName ?? "<unset>"),
  text("Reason", "Why it is in this state.", ({ status }) => status?.reason ?? ""),
  ageColumn,
  wide(text("VolumeMode", "Filesystem or Block.", ({ spec }) => spec?.volumeMode ?? "<unset>")),
];

export const persistentVolumeClaimColumns: readonly Column<PersistentVolumeClaim>[] = [
  nameColumn,
  text("Status", "Phase.", (claim) => (claim.metadata.deletionTimestamp ? "Terminating" : (claim.status?.phase ?? ""))),
  text("Volume", "Volume it is bound to.", ({ spec }) => spec?.volumeName ?? ""),
  text("Capacity", "Size.", ({ spec, status }) =>
    spec?.volumeName ? String(status?.capacity?.["storage"] ?? "0") : "",
  ),
  text("Access Modes", "How it is mounted.", ({ spec, status }) =>
    spec?.volumeName ? formatAccessModes(status?.accessModes) : "",
  ),
  text(
    "StorageClass",
    "Class.",
    ({ metadata, spec }) =>
      metadata.annotations?.["volume.beta.kubernetes.io/storage-class"] ?? spec?.storageClassName ?? "",
  ),
  text("VolumeAttributesClass", "Attributes class.", ({ spec }) => spec?.volumeAttributesClassName ?? "<unset>"),
  ageColumn,
  wide(text("VolumeMode", "Filesystem or Block.", ({ spec }) => spec?.volumeMode ?? "<unset>")),
];

const defaultMark = "storageclass.kubernetes.io/is-default-class";

export const storageClassColumns: readonly Column<StorageClass>[] = [
  {
    ...nameColumn,
    value: ({ metadata }) =>
      `${metadata.name ?? ""}${metadata.annotations?.[defaultMark] === "true" ? " (default)" : ""}`,
  },
  text("Provisioner", "Who makes volumes.", (entry) => entry.provisioner),
  text("ReclaimPolicy", "What happens after the claim.", (entry) => entry.reclaimPolicy ?? "Delete"),
  text("VolumeBindingMode", "When a claim is bound.", (entry) => entry.volumeBindingMode ?? "Immediate"),
  text("AllowVolumeExpansion", "Whether claims may grow.", (entry) => String(entry.allowVolumeExpansion ?? false)),
  ageColumn,
];

export const volumeAttachmentColumns: readonly Column<VolumeAttachment>[] = [
  nameColumn,
  text("Attacher", "Driver.", ({ spec }) => spec?.attacher),
  text("PV", "Volume.", ({ spec }) => spec?.source?.persistentVolumeName ?? ""),
  text("Node", "Node.", ({ spec }) => spec?.nodeName),
  text("Attached", "Whether it is attached.", ({ status }) => String(status?.attached ?? false)),
  ageColumn,
];

export const csiNodeColumns: readonly Column<CSINode>[] = [
  nameColumn,
  count("Drivers", "Drivers on the node.", ({ spec }) => spec?.drivers?.length),
  ageColumn,
];

export const csiDriverColumns: readonly Column<CSIDriver>[] = [
  nameColumn,
  text("AttachRequired", "Whether volumes are attached.", ({ spec }) => String(spec?.attachRequired ?? true)),
  text("PodInfoOnMount", "Whether it is told of pods.", ({ spec }) => String(spec?.podInfoOnMount ?? false)),
  text("StorageCapacity", "Whether it reports capacity.", ({ spec }) => String(spec?.storageCapacity ?? false)),
  text("TokenRequests", "Audiences it needs tokens for.", ({ spec }) => {
    const audiences = (spec?.tokenRequests ?? []).map((request) => request.audience);
    return audiences.length === 0 ? "<unset>" : audiences.join(",");
  }),
  text("RequiresRepublish", "Whether it is called again.", ({ spec }) => String(spec?.requiresRepublish ?? false)),
  text("Modes", "Lifecycle modes.", ({ spec }) => (spec?.volumeLifecycleModes ?? []).join(",") || "<none>"),
  ageColumn,
];

export const priorityClassColumns: readonly Column<PriorityClass>[] = [
  nameColumn,
  count("Value", "The priority.", (entry) => entry.value),
  {
    ...text("Global-Default", "For pods that name none.", (entry: PriorityClass) => entry.globalDefault ?? false),
    type: "boolean",
  },
  ageColumn,
  text("PreemptionPolicy", "Whether it may push out others.", (e) => e.preemptionPolicy ?? "PreemptLowerPriority"),
];

export const runtimeClassColumns: readonly Column<RuntimeClass>[] = [
  nameColumn,
  text("Handler", "Handler in the runtime.", (entry) => entry.handler),
  ageColumn,
];

export const resourceQuotaColumns: readonly Column<ResourceQuota>[] = [
  nameColumn,
  text("Request", "Used and allowed requests.", (quota) => quotaText(quota, (name) => !name.startsWith("limits"))),
  text("Limit", "Used and allowed limits.", (quota) => quotaText(quota, (name) => name.startsWith("limits"))),
  ageColumn,
];

function quotaText({ status }: ResourceQuota, wanted: (name: string) => boolean): string {
  const names = Object.keys(status?.hard ?? {}).filter(wanted);
  return names
    .sort()
    .map((name) => `${name}: ${status?.used?.[name] ?? 0}/${status?.hard?.[name]}`)
    .join(", ");
}

export const signingRequestColumns: readonly Column<CertificateSigningRequest>[] = [
  nameColumn,
  ageColumn,
  text("SignerName", "Who should sign.", ({ spec }) => spec?.signerName || "<none>"),
  text("Requestor", "Who asks.", ({ spec }) => spec?.username ?? ""),
  text("RequestedDuration", "For how long.", ({ spec }) =>
    spec?.expirationSeconds === undefined ? "<none>" : humanDuration(spec.expirationSeconds * 1000),
  ),
  text("Condition", "What became of it.", ({ status }) => {
    const words: string[] = [];
    if (hasCondition(status?.conditions, "Approved")) words.push("Approved");
    else if (hasCondition(status?.conditions, "Denied")) words.push("Denied");
    else words.push("Pending");
    if (hasCondition(status?.conditions, "Failed")) words.push("Failed");
    if (status?.certificate) words.push("Issued");
    return words.join(",");
  }),
];

interface Webhooks extends ApiObject {
  webhooks?: unknown[];
}
export const webhookColumns: readonly Column<Webhooks>[] = [
  nameColumn,
  count("Webhooks", "How many.", (configuration) => configuration.webhooks?.length),
  ageColumn,
];
