// Plugins of one rule each: the default ingress class, growth of claims, finalizers of volumes and claims in use, the
// taint of new nodes. Upstream: plugin/pkg/admission/{network/defaultingressclass, storage/persistentvolume/resize,
// storage/storageobjectinuseprotection, nodetaint}.
import type { Node, PersistentVolumeClaim } from "#model/gen/core-v1.ts";
import type { Ingress, IngressClass } from "#model/gen/networking-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import { compareQuantities } from "#model/quantity.ts";
import { forbidden, internalError } from "#model/status.ts";
import type { AdmissionPlugin, AdmissionRequest } from "./plugin.ts";

type Where = Pick<AdmissionRequest, "operation" | "resource" | "subresource">;
const isOf = (request: Where, operation: string, group: string, plural: string): boolean =>
  request.operation === operation &&
  request.subresource === "" &&
  request.resource.group === group &&
  request.resource.plural === plural;

const oldIngressClass = "kubernetes.io/ingress.class";
const isDefaultClass = "ingressclass.kubernetes.io/is-default-class";

/** An ingress that names no class gets the one marked as default. */
export const createDefaultIngressClass = (): AdmissionPlugin => ({
  name: "DefaultIngressClass",
  handles: (request) => isOf(request, "CREATE", "networking.k8s.io", "ingresses"),
  async mutate(request, context) {
    const ingress = request.object as Ingress | undefined;
    if (!ingress || ingress.spec?.ingressClassName != null) return;
    if (ingress.metadata.annotations?.[oldIngressClass] !== undefined) return;
    const classes = await context.list<IngressClass>("ingressclasses.networking.k8s.io");
    const defaults = classes.filter(({ metadata }) => metadata.annotations?.[isDefaultClass] === "true");
    const age = (entry: IngressClass) => entry.metadata.creationTimestamp ?? "";
    const name = (entry: IngressClass) => entry.metadata.name ?? "";
    defaults.sort((a, b) => age(b).localeCompare(age(a)) || name(a).localeCompare(name(b)));
    const chosen = defaults[0]?.metadata.name;
    if (chosen !== undefined) ingress.spec = { ...ingress.spec, ingressClassName: chosen };
  },
});

/** A bound claim may grow only where its class says that volumes can. */
export const createClaimResize = (): AdmissionPlugin => ({
  name: "PersistentVolumeClaimResize",
  handles: (request) => isOf(request, "UPDATE", "", "persistentvolumeclaims"),
  async validate(request, context) {
    const claim = request.object as PersistentVolumeClaim | undefined;
    const old = request.oldObject as PersistentVolumeClaim | undefined;
    const size = claim?.spec?.resources?.requests?.["storage"];
    const before = old?.spec?.resources?.requests?.["storage"];
    if (size === undefined || before === undefined || compareQuantities(size, before) <= 0) return;
    const refuse = (why: string) => forbidden({ group: "", resource: "persistentvolumeclaims" }, request.name, why);
    if (old?.status?.phase !== "Bound") throw refuse("Only bound persistent volume claims can be expanded");
    const name = claim?.spec?.storageClassName ?? "";
    const found = name === "" ? undefined : await context.get<StorageClass>("storageclasses.storage.k8s.io", "", name);
    if (found?.allowVolumeExpansion !== true) {
      throw refuse(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
      );
    }
  },
});

const notReady = "node.kubernetes.io/not-ready";

/** A node that has just registered takes no pods before it has said that it is ready. */
export const createNodeTaint = (): AdmissionPlugin => ({
  name: "TaintNodesByCondition",
  handles: (request) => isOf(request, "CREATE", "", "nodes"),
  async mutate(request) {
    const node = request.object as Node | undefined;
    if (!node) throw internalError("a node was expected");
    const taints = node.spec?.taints ?? [];
    if (taints.some(({ key, effect }) => key === notReady && effect === "NoSchedule")) return;
    node.spec = { ...node.spec, taints: [...taints, { key: notReady, effect: "NoSchedule" }] };
  },
});

const protectedKinds: Readonly<Record<string, string>> = {
  persistentvolumeclaims: "kubernetes.io/pvc-protection",
  persistentvolumes: "kubernetes.io/pv-protection",
};

/** What is in use stays until it is not; the finalizer is taken away by a controller. */
export const createStorageProtection = (): AdmissionPlugin => ({
  name: "StorageObjectInUseProtection",
  handles: (request) => Object.keys(protectedKinds).some((plural) => isOf(request, "CREATE", "", plural)),
  async mutate({ object, resource }) {
    const finalizer = protectedKinds[resource.plural];
    if (!object || finalizer === undefined || object.metadata.finalizers?.includes(finalizer)) return;
    object.metadata.finalizers = [...(object.metadata.finalizers ?? []), finalizer];
  },
});
