// What is accepted but will not do what its writer thinks, said in Warning headers: labels and annotations that have
// become something else, definitions that hide each other, amounts that mean nothing. Upstream does this in the
// strategies of the kinds (pkg/api/pod/warnings.go and its siblings); here it is one plugin that refuses nothing.
import type {
  Container,
  PersistentVolume,
  PersistentVolumeClaim,
  Pod,
  PodTemplateSpec,
  Service,
} from "#model/gen/core-v1.ts";
import type { Ingress } from "#model/gen/networking-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import { isWhole, nanoOf } from "#model/validation/amount.ts";
import { same } from "#model/validation/checks.ts";
import { isUnqualifiedFinalizer } from "#model/validation/metadata.ts";
import { dns1123Label } from "#model/validation/names.ts";
import type { AdmissionPlugin } from "./plugin.ts";

type Warnings = (object: never, old: never) => string[];

const deprecatedLabels: Readonly<Record<string, string>> = {
  "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
  "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
  "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
  "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
  "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
};
const deprecatedVolumes: Readonly<Record<string, string>> = {
  gitRepo: "deprecated in v1.11",
  scaleIO: "deprecated in v1.16, non-functional in v1.22+",
  glusterfs: "deprecated in v1.25, non-functional in v1.26+",
  rbd: "deprecated in v1.28, non-functional in v1.31+",
  cephfs: "deprecated in v1.28, non-functional in v1.31+",
};
const oldStorageClass = "volume.beta.kubernetes.io/storage-class";
const oldIngressClass = "kubernetes.io/ingress.class";
const recycleWarning =
  "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";

const templateOf = (path: string) => (object: ApiObject) =>
  path.split(".").reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], object) as
    | PodTemplateSpec
    | undefined;

function ofTemplate(path: string): Warnings {
  const find = templateOf(path);
  return (object: ApiObject, old: ApiObject | undefined) => {
    const template = find(object);
    if (!template || (old && same(template, find(old)))) return [];
    return [
      ...nameWarnings(object, "Pod names and hostnames"),
      ...podWarnings(template, path === "" ? "" : `${path}.`),
    ];
  };
}

const byResource: Readonly<Record<string, Warnings>> = {
  pods: (pod: Pod, old: Pod | undefined) =>
    old && same(pod.spec, old.spec) ? [] : [...nameWarnings(pod, "the Pod's hostname"), ...podWarnings(pod, "")],
  podtemplates: ofTemplate("template"),
  replicationcontrollers: ofTemplate("spec.template"),
  "replicasets.apps": ofTemplate("spec.template"),
  "deployments.apps": ofTemplate("spec.template"),
  "statefulsets.apps": ofTemplate("spec.template"),
  "daemonsets.apps": ofTemplate("spec.template"),
  "jobs.batch": ofTemplate("spec.template"),
  "cronjobs.batch": ofTemplate("spec.jobTemplate.spec.template"),
  services: ({ spec }: Service) => {
    const out: string[] = [];
    const isHeadless = spec?.clusterIP === "None";
    if (isHeadless && spec.sessionAffinity && spec.sessionAffinity !== "None") {
      out.push("spec.SessionAffinity is ignored for headless services");
    }
    if (isHeadless && spec.loadBalancerIP) out.push("spec.loadBalancerIP is ignored for headless services");
    if (isHeadless && spec.externalTrafficPolicy)
      out.push("spec.externalTrafficPolicy is ignored for headless services");
    if (spec?.type !== "ExternalName" && spec?.externalName) {
      out.push(`spec.externalName is ignored when spec.type is not "ExternalName"`);
    }
    if (spec?.type === "ExternalName" && (spec.externalIPs ?? []).length > 0) {
      out.push(`spec.externalIPs is ignored when spec.type is "ExternalName"`);
    }
    return out;
  },
  persistentvolumeclaims: (claim: PersistentVolumeClaim) => [
    ...(claim.metadata.annotations?.[oldStorageClass] === undefined
      ? []
      : [`metadata.annotations[${oldStorageClass}]: deprecated since v1.8; use "storageClassName" attribute instead`]),
    ...fractions("spec.resources.requests", claim.spec?.resources?.requests, ["storage"]),
  ],
  persistentvolumes: ({ metadata, spec }: PersistentVolume) => [
    ...(metadata.annotations?.[oldStorageClass] === undefined
      ? []
      : [`metadata.annotations[${oldStorageClass}]: deprecated since v1.8; use "storageClassName" attribute instead`]),
    ...(spec?.nodeAffinity?.required?.nodeSelectorTerms ?? []).flatMap(({ matchExpressions = [] }, term) =>
      keyWarnings(`spec.nodeAffinity.required.nodeSelectorTerms[${term}].matchExpressions`, matchExpressions),
    ),
    ...(spec?.persistentVolumeReclaimPolicy === "Recycle" ? [recycleWarning] : []),
  ],
  "storageclasses.storage.k8s.io": ({ allowedTopologies }: StorageClass) =>
    (allowedTopologies ?? []).flatMap(({ matchLabelExpressions = [] }, term) =>
      keyWarnings(`allowedTopologies[${term}].matchLabelExpressions`, matchLabelExpressions),
    ),
  "ingresses.networking.k8s.io": (ingress: Ingress, old: Ingress | undefined) =>
    !old && ingress.metadata.annotations?.[oldIngressClass] !== undefined
      ? [`annotation "${oldIngressClass}" is deprecated, please use 'spec.ingressClassName' instead`]
      : [],
};

export const createObjectWarnings = (): AdmissionPlugin => ({
  name: "ObjectWarnings",
  handles: ({ operation, resource, subresource }) =>
    subresource === "" && (operation === "CREATE" || operation === "UPDATE") && warningsOf(resource) !== undefined,
  async validate({ resource, object, oldObject }, context) {
    for (const text of warningsOf(resource)!(object as never, oldObject as never)) context.warn(text);
  },
});

const warningsOf = (resource: ResourceInfo): Warnings | undefined => {
  if (resource.type === "") return finalizerWarnings;
  const name = qualifiedResource(resource);
  return Object.hasOwn(byResource, name) ? byResource[name] : undefined;
};

function keyWarnings(at: string, expressions: readonly { readonly key: string }[]): string[] {
  return expressions.flatMap(({ key }, index) =>
    Object.hasOwn(deprecatedLabels, key) ? [`${at}[${index}].key: ${key} is ${deprecatedLabels[key]}`] : [],
  );
}

/** Of custom resources: what built-in kinds refuse. */
function finalizerWarnings({ metadata }: ApiObject, old: ApiObject | undefined): string[] {
  const known = new Set(old?.metadata.finalizers ?? []);
  const why =
    "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers";
  return (metadata.finalizers ?? [])
    .filter((name) => !known.has(name) && isUnqualifiedFinalizer(name))
    .map((name) => `metadata.finalizers: ${JSON.stringify(name)}: ${why}`);
}

function nameWarnings({ metadata }: ApiObject, what: string): string[] {
  const wrong = metadata.name ? dns1123Label(metadata.name) : [];
  if (wrong.length === 0) return [];
  const why = "which can result in surprising behavior; a DNS label is recommended";
  return [`metadata.name: this is used in ${what}, ${why}: [${wrong.join(" ")}]`];
}

function podWarnings({ metadata, spec }: Pick<Partial<Pod>, "metadata" | "spec">, at: string): string[] {
  const out: string[] = [];
  if (!spec) return out;
  const deprecated = (path: string, key: string | undefined, isKey: boolean) => {
    const why = key !== undefined && Object.hasOwn(deprecatedLabels, key) ? deprecatedLabels[key] : undefined;
    if (why !== undefined) out.push(isKey ? `${path}[${key}]: ${why}` : `${path}: ${key} is ${why}`);
  };
  for (const key of Object.keys(spec.nodeSelector ?? {})) deprecated(`${at}spec.nodeSelector`, key, true);
  for (const [index, constraint] of (spec.topologySpreadConstraints ?? []).entries()) {
    deprecated(`${at}spec.topologySpreadConstraints[${index}].topologyKey`, constraint.topologyKey, false);
  }
  for (const [index, volume] of (spec.volumes ?? []).entries()) {
    for (const source of Object.keys(volume)) {
      const why = deprecatedVolumes[source];
      if (why !== undefined) out.push(`${at}spec.volumes[${index}].${source}: ${why}`);
    }
  }
  for (const [index, { name }] of (spec.imagePullSecrets ?? []).entries()) {
    if (!name) out.push(`${at}spec.imagePullSecrets[${index}].name: invalid empty name ""`);
  }
  for (const field of ["initContainers", "containers"] as const) {
    for (const [index, container] of (spec[field] ?? []).entries()) {
      out.push(...containerWarnings(container, `${at}spec.${field}[${index}]`));
    }
  }
  if ((spec.terminationGracePeriodSeconds ?? 0) < 0) {
    const why = "must be >= 0; negative values are invalid and will be treated as 1";
    out.push(`${at}spec.terminationGracePeriodSeconds: ${why}`);
  }
  for (const key of Object.keys(metadata?.annotations ?? {}).sort()) {
    const path = `${at}metadata.annotations[${key}]`;
    if (/^(container\.)?seccomp\.security\.alpha\.kubernetes\.io\//.test(key)) {
      out.push(`${path}: non-functional in v1.27+; use the "seccompProfile" field instead`);
    } else if (key.startsWith("container.apparmor.security.beta.kubernetes.io/")) {
      out.push(`${path}: deprecated since v1.30; use the "appArmorProfile" field instead`);
    }
  }
  return out;
}

function containerWarnings(container: Container, at: string): string[] {
  const sizes = ["ephemeral-storage", "memory"];
  const out = [
    ...fractions(`${at}.resources.limits`, container.resources?.limits, sizes),
    ...fractions(`${at}.resources.requests`, container.resources?.requests, sizes),
  ];
  const names = new Set<string>();
  for (const [index, { name }] of (container.env ?? []).entries()) {
    if (names.has(name)) {
      out.push(`${at}.env[${index}]: hides previous definition of "${name}", which may be dropped when using apply`);
    }
    names.add(name);
  }
  const ports = new Map<string, string>();
  for (const [index, port] of (container.ports ?? []).entries()) {
    const path = `${at}.ports[${index}]`;
    const key = `${port.containerPort}/${port.protocol ?? "TCP"}/${port.hostPort ?? 0}/${port.hostIP ?? ""}`;
    const before = ports.get(key);
    if (before !== undefined) out.push(`${path}: duplicate port definition with ${before}`);
    else ports.set(key, path);
  }
  return out;
}

/** Bytes come in whole. */
function fractions(
  path: string,
  amounts: Readonly<Record<string, string | number>> | undefined,
  names: readonly string[],
): string[] {
  return names.flatMap((name) => {
    const amount = amounts?.[name];
    const nano = amount === undefined ? undefined : nanoOf(amount);
    if (nano === undefined || isWhole(nano)) return [];
    return [`${path}[${name}]: fractional byte value "${amount}" is invalid, must be an integer`];
  });
}
