// Stateful sets: pods with lasting names and volumes, made and ended in order. The decisions are in plan.ts.
// Claims of volumeClaimTemplates are made, and owned as the retention policy says (claims.ts); maxUnavailable of rolling
// updates is 1. Upstream counterpart: pkg/controller/statefulset.
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import type { StatefulSet } from "#model/gen/apps-v1.ts";
import type { PersistentVolumeClaim, Pod, PodTemplateSpec, Volume } from "#model/gen/core-v1.ts";
import { isDeleting, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { controllerRevisions, persistentVolumeClaims, pods, statefulSets } from "#model/resources.ts";
import { isAlreadyExists, isConflict, isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../../runtime/controller.ts";
import { isEqual } from "../../runtime/equal.ts";
import { Expectations, lookAgainMs } from "../../runtime/expectations.ts";
import { claim, controllerKey, controllerReference, indexByController, onDependents } from "../../runtime/owners.ts";
import { podFromTemplate } from "../../runtime/pod-control.ts";
import { isPodFinished } from "../../runtime/pods.ts";
import { revisionHashLabel, syncRevision, templateOf, trimRevisions } from "../../runtime/revisions.ts";
import { isEmptySelector, matcherOf } from "../../runtime/selector.ts";
import { deleteIfThere } from "../../runtime/writes.ts";
import { claimOwners, isStaleClaim } from "./claims.ts";
import { identityLabels, ordinalOf, planSet, planStatus, replicasOf, revisionOf, type SetPlan } from "./plan.ts";

const name = "statefulset-controller";

/** What a pod is made of, and the revision it is labelled with. */
interface Template {
  readonly template: PodTemplateSpec;
  readonly revision: string;
}

export function createStatefulSetController(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const setStore = deps.informers.informer(statefulSets);
  const podStore = deps.informers.informer(pods);
  const revisionStore = deps.informers.informer(controllerRevisions);
  const claimStore = deps.informers.informer(persistentVolumeClaims);
  const resource = statefulSets as ResourceInfo;
  const events = deps.events.as(name);
  const expectations = new Expectations(clock, podStore);
  indexByController(podStore);
  indexByController(revisionStore);

  const say = (set: StatefulSet, isGood: boolean, verb: "Create" | "Delete" | "Update", message: string) => {
    const reason = `${isGood ? "Successful" : "Failed"}${verb}`;
    events.record({ resource, object: set, type: isGood ? "Normal" : "Warning", reason, message });
  };

  async function createClaims(set: StatefulSet, pod: Pod, { isNewPod }: { readonly isNewPod: boolean }): Promise<void> {
    for (const template of set.spec.volumeClaimTemplates ?? []) {
      const claimName = `${nameOf(template)}-${nameOf(pod)}`;
      const labels = { ...template.metadata.labels, ...set.spec.selector.matchLabels };
      const metadata = { ...template.metadata, name: claimName, namespace: namespaceOf(set), labels };
      const what = `create Claim ${claimName} Pod ${nameOf(pod)} in StatefulSet ${nameOf(set)}`;
      const known = claimStore.get(`${namespaceOf(set)}/${claimName}`);
      if (isNewPod && known && isStaleClaim(known, nameOf(pod))) throw new Error(`pvc ${claimName} is being deleted`);
      if (known) continue;
      const made: PersistentVolumeClaim = { metadata, spec: template.spec };
      const ownerReferences = claimOwners(set, undefined, false, made);
      try {
        await client.create(
          persistentVolumeClaims,
          ownerReferences ? { ...made, metadata: { ...metadata, ownerReferences } } : made,
        );
        say(set, true, "Create", `${what} success`);
      } catch (error) {
        if (isAlreadyExists(error) || isNamespaceTerminating(error)) continue;
        say(set, false, "Create", `${what} failed error: ${messageOf(error)}`);
        throw error;
      }
    }
  }

  /** Before a pod is scaled away its claims must know whether they go with it; so must those of the others. */
  async function ownClaims(set: StatefulSet, owned: readonly Pod[]): Promise<void> {
    const first = set.spec.ordinals?.start ?? 0;
    for (const pod of owned) {
      const ordinal = ordinalOf(set, pod);
      if (ordinal === undefined) continue;
      const isScaledAway = ordinal < first || ordinal >= first + replicasOf(set);
      for (const template of set.spec.volumeClaimTemplates ?? []) {
        const found = claimStore.get(`${namespaceOf(set)}/${nameOf(template)}-${nameOf(pod)}`);
        const ownerReferences = found && claimOwners(set, pod, isScaledAway, found);
        if (!found || !ownerReferences) continue;
        const { resourceVersion } = found.metadata;
        const patch = { metadata: { uid: uidOf(found), resourceVersion, ownerReferences } };
        try {
          await client.patch(persistentVolumeClaims, { name: nameOf(found), namespace: namespaceOf(set) }, patch);
        } catch (error) {
          if (!isNotFound(error)) throw error;
        }
      }
    }
  }

  async function createPod(set: StatefulSet, pod: Pod): Promise<void> {
    const what = `create Pod ${nameOf(pod)} in StatefulSet ${nameOf(set)}`;
    try {
      await createClaims(set, pod, { isNewPod: true });
      expectations.created(keyOf(set), await client.create(pods, pod));
      say(set, true, "Create", `${what} successful`);
    } catch (error) {
      // Names are fixed, so a store that is behind cannot make a second one.
      if (isAlreadyExists(error) || isNamespaceTerminating(error)) return;
      say(set, false, "Create", `${what} failed error: ${messageOf(error)}`);
      throw error;
    }
  }

  async function restoreIdentity(set: StatefulSet, pod: Pod): Promise<void> {
    const what = `update Pod ${nameOf(pod)} in StatefulSet ${nameOf(set)}`;
    const labels = identityLabels(nameOf(pod), ordinalOf(set, pod) ?? 0);
    const { uid, resourceVersion } = pod.metadata;
    try {
      const target = { name: nameOf(pod), namespace: namespaceOf(pod) };
      await client.patch(pods, target, { metadata: { uid, resourceVersion, labels } });
      say(set, true, "Update", `${what} successful`);
    } catch (error) {
      if (isNotFound(error)) return;
      if (!isConflict(error)) say(set, false, "Update", `${what} failed error: ${messageOf(error)}`);
      throw error;
    }
  }

  async function deletePod(set: StatefulSet, pod: Pod): Promise<void> {
    const what = `delete Pod ${nameOf(pod)} in StatefulSet ${nameOf(set)}`;
    if (isPodFinished(pod)) {
      const isFailed = pod.status?.phase === "Failed";
      const about = `StatefulSet ${keyOf(set)} is recreating ${isFailed ? "failed" : "terminated"} Pod ${nameOf(pod)}`;
      const [type, reason] = isFailed
        ? (["Warning", "RecreatingFailedPod"] as const)
        : (["Normal", "RecreatingTerminatedPod"] as const);
      events.record({ resource, object: set, type, reason, message: about });
    }
    try {
      if (await deleteIfThere(client, pods, pod)) say(set, true, "Delete", `${what} successful`);
    } catch (error) {
      say(set, false, "Delete", `${what} failed error: ${messageOf(error)}`);
      throw error;
    }
  }

  /** One step: claims first, since a pod cannot start without them. */
  async function manage(set: StatefulSet, plan: SetPlan, made: Record<"update" | "current", Template>): Promise<void> {
    for (const pod of plan.nameless) await restoreIdentity(set, pod);
    for (const pod of plan.pending) await createClaims(set, pod, { isNewPod: false });
    for (const { ordinal, isUpdated } of plan.create) {
      const { template, revision } = isUpdated ? made.update : made.current;
      await createPod(set, podOf(set, ordinal, template, revision));
    }
    for (const pod of plan.remove) await deletePod(set, pod);
  }

  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const set = setStore.get(key);
    if (!set) expectations.forget(key);
    if (!set || isEmptySelector(set.spec.selector)) return;
    const owned = await claim(client, {
      owner: set,
      ownerResource: statefulSets,
      dependents: podStore,
      dependentResource: pods,
      matches: matcherOf(set.spec.selector),
    });
    const collisionCount = set.status?.collisionCount;
    const { template } = set.spec;
    const revision = await syncRevision(client, {
      store: revisionStore,
      owner: set,
      resource,
      template,
      collisionCount,
    });
    if (!revision.ok) {
      const status = { replicas: 0, availableReplicas: 0, ...set.status, collisionCount: (collisionCount ?? 0) + 1 };
      await client.updateStatus(statefulSets, { ...set, status });
      return;
    }
    const updateRevision = nameOf(revision.current);
    const currentRevision = set.status?.currentRevision || updateRevision;
    const input = { set, pods: owned, updateRevision, nowMs: clock.now() };
    let failure: unknown;
    if (!isDeleting(set)) {
      const plan = planSet(input);
      const current = revision.all.find((r) => nameOf(r) === currentRevision);
      try {
        await ownClaims(set, owned);
        await manage(set, plan, {
          update: { template, revision: updateRevision },
          current: { template: (current && templateOf(current)) ?? template, revision: currentRevision },
        });
      } catch (error) {
        // What can be said of the pods there are is said all the same.
        failure = error;
      }
      // What came and went while a watch was broken brings no event.
      if (!expectations.satisfied(key)) again(lookAgainMs);
      if (plan.isWaitingForAge) again((set.spec.minReadySeconds ?? 0) * 1000);
    }
    const status = planStatus({ ...input, currentRevision });
    if (!isEqual(status, set.status)) await client.updateStatus(statefulSets, { ...set, status });
    if (failure) throw failure;
    const inUse = new Set([updateRevision, status.currentRevision, ...owned.map(revisionOf)]);
    await trimRevisions(client, revision.all, (r) => inUse.has(nameOf(r)), set.spec.revisionHistoryLimit ?? 10);
  }

  return createController(
    {
      name,
      workers: 5,
      triggers: [
        on(setStore),
        onDependents(
          podStore,
          setStore,
          (set, pod) => ordinalOf(set, pod) !== undefined && matcherOf(set.spec.selector)(pod.metadata.labels ?? {}),
        ),
        on(revisionStore, (revision) => [controllerKey(revision, statefulSets)]),
        // A pod may wait for the end of its predecessor's claim.
        on(claimStore, (object, how) =>
          how !== "delete"
            ? []
            : setStore
                .list(namespaceOf(object))
                .filter((set) =>
                  (set.spec.volumeClaimTemplates ?? []).some((t) => nameOf(object).startsWith(`${nameOf(t)}-`)),
                )
                .map(keyOf),
        ),
      ],
      sync,
    },
    deps,
  );
}

/** The pod of one ordinal: its name is its host name, under the governing service, and its claims are its own. */
function podOf(set: StatefulSet, ordinal: number, template: PodTemplateSpec, revision: string): Pod {
  const podName = `${nameOf(set)}-${ordinal}`;
  const reference = controllerReference(statefulSets as ResourceInfo, set);
  const pod = podFromTemplate(template, { namespace: namespaceOf(set), generateName: `${nameOf(set)}-`, reference });
  const claims = (set.spec.volumeClaimTemplates ?? []).map(
    (t): Volume => ({ name: nameOf(t), persistentVolumeClaim: { claimName: `${nameOf(t)}-${podName}` } }),
  );
  const others = (pod.spec.volumes ?? []).filter((v) => !claims.some((c) => c.name === v.name));
  const { generateName: _, ...metadata } = pod.metadata;
  return {
    ...pod,
    metadata: {
      ...metadata,
      name: podName,
      labels: {
        ...pod.metadata.labels,
        ...identityLabels(podName, ordinal),
        [revisionHashLabel]: revision,
      },
    },
    spec: {
      ...pod.spec,
      hostname: podName,
      ...(set.spec.serviceName ? { subdomain: set.spec.serviceName } : {}),
      ...(claims.length + others.length > 0 ? { volumes: [...claims, ...others] } : {}),
    },
  };
}
