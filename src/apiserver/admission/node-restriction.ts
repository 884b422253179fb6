// NodeRestriction: a node's identity (system:node:NAME) may change only its own Node, its own Lease and the pods bound
// to it, its own CSINode, the status of claims, and the one finalizer of its local volumes; certificates of nodes it asks for
// in its own name alone. The limits on labels and taints are part of it; dynamic resources are not here.
// Upstream: plugin/pkg/admission/noderestriction.
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import type { Node, PersistentVolume, Pod } from "#model/gen/core-v1.ts";
import { forbidden } from "#model/status.ts";
import { localPathProvisioner, volumeAnnotations, volumeFinalizers } from "#model/volumes.ts";
import { parseSigningRequest } from "#wire/pkcs10.ts";
import type { StrategyContext } from "../strategy.ts";
import type { AdmissionPlugin, AdmissionRequest } from "./plugin.ts";

const userPrefix = "system:node:";

/** The node a user is, if it is one. */
export function nodeOf(user: StrategyContext["user"]): string | undefined {
  return user.name.startsWith(userPrefix) && user.groups.includes("system:nodes")
    ? user.name.slice(userPrefix.length)
    : undefined;
}

const guarded = new Set([
  "certificatesigningrequests",
  "nodes",
  "pods",
  "leases",
  "serviceaccounts",
  "csinodes",
  "persistentvolumes",
  "persistentvolumeclaims",
]);
const guardedGroups = ["", "certificates.k8s.io", "coordination.k8s.io", "storage.k8s.io"];
/** Whose certificates say who a node is. */
const nodeSigners = new Set(["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"]);

export function createNodeRestriction(): AdmissionPlugin {
  return {
    name: "NodeRestriction",
    handles: ({ resource }) => guarded.has(resource.plural) && guardedGroups.includes(resource.group),
    async validate(request, context) {
      const node = nodeOf(context.user);
      if (node === undefined) return;
      const refusal = await refusalFor(request, context, node);
      if (refusal === undefined) return;
      throw forbidden({ group: request.resource.group, resource: request.resource.plural }, request.name, refusal);
    },
  };
}

async function refusalFor(
  request: AdmissionRequest,
  context: StrategyContext,
  node: string,
): Promise<string | undefined> {
  const { resource, subresource, operation, name, namespace } = request;
  switch (resource.plural) {
    case "nodes": {
      if (name !== node) return `node "${node}" is not allowed to modify node "${name}"`;
      return subresource === "" ? nodeChange(request, node) : undefined;
    }
    case "leases":
      return namespace === "kube-node-lease" && name !== node
        ? `node "${node}" can only access node lease with the same name as the requesting node`
        : undefined;
    case "csinodes":
      return name === node || request.object?.metadata.name === node
        ? undefined
        : `node "${node}" is not allowed to modify CSINode "${name}"`;
    case "certificatesigningrequests":
      return operation === "CREATE" ? certificateRequest(request.object as CertificateSigningRequest, node) : undefined;
    case "persistentvolumes":
      return volumeChange(request, node);
    case "persistentvolumeclaims":
      return claimChange(request, node);
    case "serviceaccounts":
      return subresource === "token" ? await tokenRequest(request, context, node) : undefined;
    default:
      break;
  }
  if (subresource === "eviction") {
    const evicted = await context.get<Pod>("pods", namespace, name);
    return !evicted || evicted.spec.nodeName === node
      ? undefined
      : `node "${node}" can only evict pods with spec.nodeName set to itself`;
  }
  const pod = (request.oldObject ?? request.object ?? (await context.get("pods", namespace, name))) as Pod | undefined;
  if (operation === "CREATE" && subresource === "") {
    if (pod?.metadata.annotations?.["kubernetes.io/config.mirror"] === undefined) {
      return `pod does not have "kubernetes.io/config.mirror" annotation, node "${node}" can only create mirror pods`;
    }
    return pod.spec.nodeName === node
      ? undefined
      : `node "${node}" can only create pods with spec.nodeName set to itself`;
  }
  if (operation === "UPDATE" && subresource === "") return `node "${node}" can only update pod status`;
  if (operation === "UPDATE" || operation === "DELETE") {
    const bound = pod ?? (await context.get<Pod>("pods", namespace, name));
    if (bound && bound.spec.nodeName !== node) {
      const what = operation === "DELETE" ? "delete pods" : "update pod status for pods";
      return `node "${node}" can only ${what} with spec.nodeName set to itself`;
    }
  }
  return undefined;
}

/** Whoever approves requests by hand sees a name, and not that another node has asked for it. */
function certificateRequest({ spec }: CertificateSigningRequest, node: string): string | undefined {
  if (!nodeSigners.has(spec.signerName)) return undefined;
  const parsed = parseSigningRequest(Buffer.from(spec.request, "base64").toString("latin1"));
  if (!parsed) return "unable to parse csr";
  const own = `${userPrefix}${node}`;
  return parsed.commonName === own ? undefined : `can only create a node CSR with CN=${own}`;
}

const localPathNode = "local.path.provisioner/selected-node";

/** That the folder of a local volume of its own is gone is all that a node may say of volumes. */
function volumeChange({ operation, object, oldObject }: AdmissionRequest, node: string): string | undefined {
  const refusal = `node "${node}" can only let go of its own local volumes`;
  const next = object as PersistentVolume | undefined;
  const old = oldObject as PersistentVolume | undefined;
  if (operation !== "UPDATE" || !next || !old) return refusal;
  const isOwn =
    old.metadata.deletionTimestamp !== undefined &&
    old.metadata.annotations?.[volumeAnnotations.provisionedBy] === localPathProvisioner &&
    old.metadata.annotations[localPathNode] === node;
  const rest = ({ metadata, ...fields }: PersistentVolume) => {
    const { managedFields: _, finalizers, ...others } = metadata;
    const kept = (finalizers ?? []).filter((one) => one !== volumeFinalizers.provisioner);
    return JSON.stringify(canonical({ ...fields, metadata: { ...others, finalizers: kept } }));
  };
  return isOwn && rest(next) === rest(old) ? undefined : refusal;
}

/** A node that has grown a file system says so in the claim's status, and nowhere else. */
function claimChange({ subresource, operation }: AdmissionRequest, node: string): string | undefined {
  return operation === "UPDATE" && subresource === "status"
    ? undefined
    : `node "${node}" can only update the status of persistent volume claims`;
}

const canonical = (value: unknown): unknown => {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(canonical);
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(
    entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, inner]) => [key, canonical(inner)]),
  );
};

/** A token for a pod's account: only for a pod that runs here. */
async function tokenRequest(
  request: AdmissionRequest,
  context: StrategyContext,
  node: string,
): Promise<string | undefined> {
  const spec = (request.object as { spec?: { boundObjectRef?: { kind?: string; name?: string; uid?: string } } })?.spec;
  const bound = spec?.boundObjectRef;
  if (bound?.kind !== "Pod" || !bound.name || !bound.uid) {
    return `node requested token not bound to a pod`;
  }
  const pod = await context.get<Pod>("pods", request.namespace, bound.name);
  if (!pod) return `pod "${bound.name}" not found`;
  if (pod.metadata.uid !== bound.uid) return "the UID in the bound object reference does not match the UID in record";
  return pod.spec.nodeName === node ? undefined : "node requested token bound to a pod scheduled on a different node";
}

const ownLabels = new Set([
  "kubernetes.io/hostname",
  "kubernetes.io/arch",
  "kubernetes.io/os",
  "beta.kubernetes.io/instance-type",
  "node.kubernetes.io/instance-type",
  "failure-domain.beta.kubernetes.io/region",
  "failure-domain.beta.kubernetes.io/zone",
  "topology.kubernetes.io/region",
  "topology.kubernetes.io/zone",
  "beta.kubernetes.io/arch",
  "beta.kubernetes.io/os",
]);

function nodeChange(request: AdmissionRequest, node: string): string | undefined {
  const next = request.object as Node | undefined;
  const old = request.oldObject as Node | undefined;
  if (!next) return undefined;
  const labels = { ...next.metadata.labels };
  const before = { ...old?.metadata.labels };
  const changed = [...new Set([...Object.keys(labels), ...Object.keys(before)])].filter(
    (key) => labels[key] !== before[key],
  );
  const refused = changed.filter((key) => !mayLabel(key)).sort();
  if (refused.length > 0 && request.operation === "UPDATE") {
    return `is not allowed to modify labels: ${refused.join(", ")}`;
  }
  const restricted = changed.filter((key) => prefixOf(key) === restrictedPrefix);
  if (restricted.length > 0) {
    return `node "${node}" is not allowed to set the following labels: ${restricted.sort().join(", ")}`;
  }
  if (old && JSON.stringify(next.spec?.taints ?? []) !== JSON.stringify(old.spec?.taints ?? [])) {
    return `node "${node}" is not allowed to modify taints`;
  }
  return undefined;
}

const restrictedPrefix = "node-restriction.kubernetes.io";
const prefixOf = (key: string): string => (key.includes("/") ? key.slice(0, key.indexOf("/")) : "");

function mayLabel(key: string): boolean {
  if (ownLabels.has(key)) return true;
  const prefix = prefixOf(key);
  if (prefix === restrictedPrefix || prefix.endsWith(`.${restrictedPrefix}`)) return false;
  const isOf = (domain: string) => prefix === domain || prefix.endsWith(`.${domain}`);
  if (isOf("kubelet.kubernetes.io") || isOf("node.kubernetes.io")) return true;
  return !isOf("kubernetes.io") && !isOf("k8s.io");
}
