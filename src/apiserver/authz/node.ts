// The node authoriser: what a node may read follows from the pods that are bound to it. Secrets, config maps, claims and
// tokens of accounts by name and only where one of its pods uses them; its own lease and CSINode; everything else is
// what the role system:node lists. Pods are looked at in the informers' copy first and in the store before anything is
// refused, so that a node never waits for a cache. Upstream counterpart: plugin/pkg/auth/authorizer/node.
import type { Container, PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import type { PolicyRule } from "#model/gen/rbac-v1.ts";
import type { VolumeAttachment } from "#model/gen/storage-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { qualifiedResource } from "#model/resource-info.ts";
import { nodeOf } from "../admission/node-restriction.ts";
import type { Attributes, Authorizer, Decision } from "./authorizer.ts";
import { ruleAllows } from "./rbac.ts";

export interface NodeAuthorizerDependencies {
  /** Of the role system:node. */
  readonly rules: readonly PolicyRule[];
  /** Pods of a node that are known in memory; may be behind. */
  podsOn(node: string): readonly Pod[];
  /** From the store. */
  read(resource: string, namespace: string, name: string): Promise<ApiObject | undefined>;
  list(resource: string, namespace: string): Promise<readonly ApiObject[]>;
}

const refuse = (reason: string): Decision => ({ verdict: "no-opinion", reason });
const allow: Decision = { verdict: "allow", reason: "" };
const reading = new Set(["get", "list", "watch"]);
const leaseNamespace = "kube-node-lease";
const ownVerbs = new Set(["get", "create", "update", "patch", "delete"]);

/** Asked before `next`, and `next` for what a node may not do as a node. */
export function createNodeAuthorizer(dependencies: NodeAuthorizerDependencies, next: Authorizer): Authorizer {
  return {
    async authorize(attributes) {
      const node = attributes.resourceRequest ? nodeOf(attributes.user) : undefined;
      if (node === undefined) return next.authorize(attributes);
      const own = await decide(dependencies, attributes, node);
      if (own.verdict === "allow") return own;
      const other = await next.authorize(attributes);
      return other.verdict === "allow" || other.reason !== "" ? other : own;
    },
  };
}

async function decide(deps: NodeAuthorizerDependencies, attributes: Attributes, node: string): Promise<Decision> {
  const { verb, subresource, namespace, name } = attributes;
  const resource = qualifiedResource({ group: attributes.group, plural: attributes.resource });
  const notOurs = refuse(`no relationship found between node '${node}' and this object`);
  switch (resource) {
    case "secrets":
    case "configmaps": {
      if (subresource !== "" || !reading.has(verb)) return refuse("can only read resources of this type");
      if (name === "") return refuse("can only read resources of this type by name");
      const uses = (pod: Pod) => namespaceOf(pod) === namespace && usesOf(pod)[resource].has(name);
      if (await somePod(deps, node, namespace, uses)) return allow;
      if (resource === "configmaps") return notOurs;
      // A volume's driver may need a secret of another namespace.
      return (await volumeNeeds(deps, node, namespace, name)) ? allow : notOurs;
    }
    case "persistentvolumeclaims": {
      const isStatus = subresource === "status" && (verb === "get" || verb === "update" || verb === "patch");
      if (!isStatus && (subresource !== "" || verb !== "get"))
        return refuse("can only get individual resources of this type");
      const uses = (pod: Pod) => namespaceOf(pod) === namespace && usesOf(pod).claims.has(name);
      return (await somePod(deps, node, namespace, uses)) ? allow : notOurs;
    }
    case "serviceaccounts": {
      if (subresource !== "token") break;
      if (verb !== "create") return refuse("only create is allowed for this subresource");
      const uses = (pod: Pod) => namespaceOf(pod) === namespace && usesOf(pod).account === name;
      return (await somePod(deps, node, namespace, uses)) ? allow : notOurs;
    }
    case "volumeattachments.storage.k8s.io": {
      if (verb !== "get" || subresource !== "") return refuse("can only get individual resources of this type");
      const found = (await deps.read(resource, "", name)) as VolumeAttachment | undefined;
      return found?.spec.nodeName === node ? allow : notOurs;
    }
    case "leases.coordination.k8s.io":
      if (!ownVerbs.has(verb)) return refuse("can only get, create, update, patch, or delete a node lease");
      if (namespace !== leaseNamespace)
        return refuse(`can only access leases in the ${JSON.stringify(leaseNamespace)} system namespace`);
      // The name of what is created stands in the body; admission looks at it.
      return name === node || verb === "create"
        ? allow
        : refuse("can only access node lease with the same name as the requesting node");
    case "csinodes.storage.k8s.io":
      if (!ownVerbs.has(verb)) return refuse("can only get, create, update, patch, or delete a CSINode");
      return name === node || verb === "create"
        ? allow
        : refuse("can only access CSINode with the same name as the requesting node");
    default:
      break;
  }
  return deps.rules.some((rule) => ruleAllows(rule, attributes)) ? allow : refuse("");
}

const namespaceOf = (pod: Pod): string => pod.metadata.namespace ?? "";

async function somePod(
  deps: NodeAuthorizerDependencies,
  node: string,
  namespace: string,
  uses: (pod: Pod) => boolean,
): Promise<boolean> {
  if (deps.podsOn(node).some(uses)) return true;
  const stored = (await deps.list("pods", namespace)) as readonly Pod[];
  return stored.some((pod) => pod.spec.nodeName === node && uses(pod));
}

async function volumeNeeds(
  deps: NodeAuthorizerDependencies,
  node: string,
  namespace: string,
  name: string,
): Promise<boolean> {
  const volumes = (await deps.list("persistentvolumes", "")) as readonly PersistentVolume[];
  for (const { metadata, spec } of volumes) {
    const claim = spec?.claimRef;
    if (!claim || !secretsOfVolume(spec, claim.namespace ?? "").has(`${namespace}/${name}`)) continue;
    const bound = (await deps.read("persistentvolumeclaims", claim.namespace ?? "", claim.name ?? "")) as
      | PersistentVolumeClaim
      | undefined;
    if (bound?.spec?.volumeName !== metadata.name) continue;
    const uses = (pod: Pod) => namespaceOf(pod) === claim.namespace && usesOf(pod).claims.has(claim.name ?? "");
    if (await somePod(deps, node, claim.namespace ?? "", uses)) return true;
  }
  return false;
}

/** By `namespace/name`. Every reference to a secret that a source of any kind may have. */
function secretsOfVolume(spec: PersistentVolume["spec"], claimNamespace: string): ReadonlySet<string> {
  const out = new Set<string>();
  for (const source of Object.values(spec ?? {})) {
    if (typeof source !== "object" || source === null || Array.isArray(source)) continue;
    for (const [field, value] of Object.entries(source as Record<string, unknown>)) {
      if (!field.endsWith("SecretRef") && field !== "secretRef") continue;
      const reference = value as { name?: string; namespace?: string } | undefined;
      if (reference?.name) out.add(`${reference.namespace || claimNamespace}/${reference.name}`);
    }
  }
  return out;
}

interface Uses {
  readonly secrets: ReadonlySet<string>;
  readonly configmaps: ReadonlySet<string>;
  readonly claims: ReadonlySet<string>;
  readonly account: string;
}

const mirrorAnnotation = "kubernetes.io/config.mirror";
const nothing: Uses = { secrets: new Set(), configmaps: new Set(), claims: new Set(), account: "" };

/** Names in the pod's namespace. A mirror pod is made by the node itself: what it names proves nothing. */
function usesOf(pod: Pod): Uses {
  if (pod.metadata.annotations?.[mirrorAnnotation] !== undefined) return nothing;
  const secrets = new Set<string>();
  const configmaps = new Set<string>();
  const claims = new Set<string>();
  const add = (into: Set<string>, name: string | undefined) => {
    if (name) into.add(name);
  };
  for (const { name } of pod.spec.imagePullSecrets ?? []) add(secrets, name);
  const containers: readonly Pick<Container, "env" | "envFrom">[] = [
    ...(pod.spec.initContainers ?? []),
    ...(pod.spec.containers ?? []),
    ...(pod.spec.ephemeralContainers ?? []),
  ];
  for (const { env, envFrom } of containers) {
    for (const { valueFrom } of env ?? []) {
      add(secrets, valueFrom?.secretKeyRef?.name);
      add(configmaps, valueFrom?.configMapKeyRef?.name);
    }
    for (const source of envFrom ?? []) {
      add(secrets, source.secretRef?.name);
      add(configmaps, source.configMapRef?.name);
    }
  }
  for (const volume of pod.spec.volumes ?? []) {
    add(secrets, volume.secret?.secretName);
    add(configmaps, volume.configMap?.name);
    add(claims, volume.persistentVolumeClaim?.claimName);
    if (volume.ephemeral) add(claims, `${pod.metadata.name}-${volume.name}`);
    for (const source of volume.projected?.sources ?? []) {
      add(secrets, source.secret?.name);
      add(configmaps, source.configMap?.name);
    }
    add(secrets, volume.azureFile?.secretName);
    for (const source of [volume.csi?.nodePublishSecretRef, volume.cephfs?.secretRef, volume.flexVolume?.secretRef]) {
      add(secrets, source?.name);
    }
    for (const source of [volume.iscsi, volume.rbd, volume.scaleIO, volume.storageos])
      add(secrets, source?.secretRef?.name);
  }
  return { secrets, configmaps, claims, account: pod.spec.serviceAccountName ?? "" };
}
