// Deployments: one replica set per pod template, grown and shrunk step by step from the old template to the new one.
// Each sync takes at most one step; the change of a replica set's status brings the next. The arithmetic is in plan.ts.
//
//   template changed ──► new replica set, size by surge ──► pods ready ──► old ones smaller ──► … ──► history trimmed
//
// Upstream counterpart: pkg/controller/deployment.
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import type { Deployment, DeploymentStatus, ReplicaSet } from "#model/gen/apps-v1.ts";
import { controllerOf, isDeleting, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { deployments, pods, replicaSets } from "#model/resources.ts";
import { isAlreadyExists } from "#model/status.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../../runtime/controller.ts";
import { isEqual } from "../../runtime/equal.ts";
import {
  claim,
  controlledBy,
  controllerKey,
  controllerReference,
  indexByController,
  onDependents,
} from "../../runtime/owners.ts";
import { isPodFinished } from "../../runtime/pods.ts";
import { isEmptySelector, matcherOf } from "../../runtime/selector.ts";
import { deleteIfThere } from "../../runtime/writes.ts";
import {
  annotationsOf,
  type ConditionInput,
  conditionOf,
  deadlineInMs,
  desiredReplicasAnnotation,
  hasDeadline,
  isComplete,
  isSameTemplate,
  isScaling,
  maxReplicasAnnotation,
  nextRevision,
  planCleanup,
  planCurrent,
  planOld,
  planProportional,
  planRolloutStatus,
  planStatus,
  podTemplateHashLabel,
  replicasOf,
  revisionAnnotation,
  sizeAnnotations,
  splitSets,
  templateHash,
  withCondition,
} from "./plan.ts";

const name = "deployment-controller";

export function createDeploymentController(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const deploymentStore = deps.informers.informer(deployments);
  const setStore = deps.informers.informer(replicaSets);
  const podStore = deps.informers.informer(pods);
  const events = deps.events.as(name);
  indexByController(setStore);
  indexByController(podStore);

  const say = (d: Deployment, type: "Normal" | "Warning", reason: string, message: string) =>
    events.record({ resource: deployments as ResourceInfo, object: d, type, reason, message });

  async function writeStatus(d: Deployment, status: DeploymentStatus): Promise<Deployment> {
    if (isEqual(status, d.status)) return d;
    return client.updateStatus(deployments, { ...d, status });
  }

  /** Writes size and size annotations of a replica set where they differ. */
  async function scale(d: Deployment, set: ReplicaSet, replicas: number): Promise<ReplicaSet> {
    const sizes = sizeAnnotations(d);
    const annotations = set.metadata.annotations ?? {};
    const isNoted = [desiredReplicasAnnotation, maxReplicasAnnotation].every((k) => annotations[k] === sizes[k]);
    const before = replicasOf(set);
    if (before === replicas && isNoted) return set;
    const next = { ...set, metadata: { ...set.metadata, annotations: { ...annotations, ...sizes } } };
    const written = await client.update(replicaSets, { ...next, spec: { ...set.spec, replicas } });
    if (before !== replicas) {
      const direction = replicas > before ? "up" : "down";
      const message = `Scaled ${direction} replica set ${nameOf(set)} from ${before} to ${replicas}`;
      say(d, "Normal", "ScalingReplicaSet", message);
    }
    return written;
  }

  /** Puts revision (and a condition, where it has none yet) on the deployment once its replica set is there. */
  async function noteRevision(
    d: Deployment,
    revision: string,
    condition: ConditionInput | undefined,
  ): Promise<Deployment> {
    let noted = d;
    if (d.metadata.annotations?.[revisionAnnotation] !== revision) {
      const patch = { metadata: { annotations: { [revisionAnnotation]: revision } } };
      noted = await client.patch(deployments, { name: nameOf(d), namespace: namespaceOf(d) }, patch);
    }
    if (!condition || !hasDeadline(d)) return noted;
    const conditions = withCondition(noted.status?.conditions ?? [], condition, rfc3339(clock.now()));
    return writeStatus(noted, { ...noted.status, conditions });
  }

  interface Sets {
    readonly d: Deployment;
    readonly current: ReplicaSet | undefined;
    readonly old: readonly ReplicaSet[];
  }

  async function refreshCurrent(d: Deployment, found: ReplicaSet, old: readonly ReplicaSet[]): Promise<Sets> {
    const revision = nextRevision(old);
    const annotations = annotationsOf(d, found, revision);
    const minReadySeconds = d.spec.minReadySeconds ?? 0;
    if (
      !isEqual(annotations, found.metadata.annotations ?? {}) ||
      (found.spec.minReadySeconds ?? 0) !== minReadySeconds
    ) {
      const metadata = { ...found.metadata, annotations };
      const spec = { ...found.spec, minReadySeconds };
      return { d, current: await client.update(replicaSets, { ...found, metadata, spec }), old };
    }
    const isNew = conditionOf(d.status, "Progressing") === undefined;
    const message = `Found new replica set "${nameOf(found)}"`;
    const condition = { type: "Progressing", status: "True", reason: "FoundNewReplicaSet", message };
    const noted = await noteRevision(d, annotations[revisionAnnotation]!, isNew ? condition : undefined);
    return { d: noted, current: found, old };
  }

  async function createCurrent(d: Deployment, old: readonly ReplicaSet[]): Promise<Sets> {
    const template = d.spec.template;
    const hash = templateHash(template, d.status?.collisionCount);
    const revision = nextRevision(old);
    const labels = { ...template.metadata?.labels, [podTemplateHashLabel]: hash };
    const selector = d.spec.selector;
    const replicas = planCurrent(d, old, 0);
    const set: ReplicaSet = {
      apiVersion: "apps/v1",
      kind: "ReplicaSet",
      metadata: {
        name: `${nameOf(d)}-${hash}`,
        namespace: namespaceOf(d),
        labels,
        annotations: { ...annotationsOf(d, undefined, revision) },
        ownerReferences: [controllerReference(deployments as ResourceInfo, d)],
      },
      spec: {
        replicas,
        ...(d.spec.minReadySeconds ? { minReadySeconds: d.spec.minReadySeconds } : {}),
        selector: { ...selector, matchLabels: { ...selector.matchLabels, [podTemplateHashLabel]: hash } },
        template: { ...template, metadata: { ...template.metadata, labels } },
      },
    };
    let created: ReplicaSet;
    let isOurs = false;
    try {
      created = await client.create(replicaSets, set);
    } catch (error) {
      if (isNamespaceTerminating(error)) throw error;
      if (!isAlreadyExists(error)) {
        const message = `Failed to create new replica set "${nameOf(set)}": ${messageOf(error)}`;
        const condition = { type: "Progressing", status: "False", reason: "ReplicaSetCreateError", message };
        if (hasDeadline(d)) {
          const conditions = withCondition(d.status?.conditions ?? [], condition, rfc3339(clock.now()));
          await writeStatus(d, { ...d.status, conditions });
        }
        say(d, "Warning", "ReplicaSetCreateError", message);
        throw error;
      }
      // Either our own write that the store does not show yet, or another template with the same hash.
      created = await client.get(replicaSets, nameOf(set), namespaceOf(set));
      isOurs = controllerOf(created)?.uid === uidOf(d) && isSameTemplate(created.spec.template, template);
      if (!isOurs) {
        await writeStatus(d, { ...d.status, collisionCount: (d.status?.collisionCount ?? 0) + 1 });
        throw error;
      }
    }
    if (!isOurs && replicas > 0) {
      say(d, "Normal", "ScalingReplicaSet", `Scaled up replica set ${nameOf(created)} from 0 to ${replicas}`);
    }
    const message = `Created new replica set "${nameOf(created)}"`;
    const condition = { type: "Progressing", status: "True", reason: "NewReplicaSetCreated", message };
    const noted = await noteRevision(d, String(revision), isOurs ? undefined : condition);
    return { d: noted, current: created, old };
  }

  async function resolveSets(d: Deployment, sets: readonly ReplicaSet[], isCreating: boolean): Promise<Sets> {
    const { current, old } = splitSets(d, sets);
    if (current) return refreshCurrent(d, current, old);
    return isCreating ? createCurrent(d, old) : { d, current, old };
  }

  async function cleanup(d: Deployment, old: readonly ReplicaSet[]): Promise<void> {
    for (const set of planCleanup(d, old)) await deleteIfThere(client, replicaSets, set);
  }

  const time = () => ({ nowMs: clock.now(), now: rfc3339(clock.now()) });

  async function rolling(sets: Sets): Promise<Sets> {
    const { d, old } = sets;
    const current = sets.current!;
    const wanted = planCurrent(d, [...old, current], replicasOf(current));
    const grown = await scale(d, current, wanted);
    if (wanted !== replicasOf(current)) return { ...sets, current: grown };
    const steps = planOld(d, grown, old);
    const shrunk = new Map<string, ReplicaSet>();
    for (const { set, replicas } of steps) shrunk.set(uidOf(set), await scale(d, set, replicas));
    if (steps.length > 0) return { d, current: grown, old: old.map((set) => shrunk.get(uidOf(set)) ?? set) };
    if (isComplete(d, d.status ?? {})) await cleanup(d, old);
    return { ...sets, current: grown };
  }

  async function recreate(d: Deployment, owned: readonly ReplicaSet[]): Promise<Sets> {
    const sets = await resolveSets(d, owned, false);
    const live = sets.old.filter((set) => replicasOf(set) > 0);
    if (live.length > 0) {
      const shrunk = new Map<string, ReplicaSet>();
      for (const set of live) shrunk.set(uidOf(set), await scale(sets.d, set, 0));
      return { ...sets, old: sets.old.map((set) => shrunk.get(uidOf(set)) ?? set) };
    }
    // Terminating pods count: two versions must never run side by side.
    const isOldRunning = sets.old.some((set) => controlledBy(podStore, uidOf(set)).some((pod) => !isPodFinished(pod)));
    if (isOldRunning) return sets;
    const ready = sets.current ? sets : await resolveSets(sets.d, owned, true);
    const current = await scale(ready.d, ready.current!, replicasOf(ready.d));
    if (isComplete(ready.d, ready.d.status ?? {})) await cleanup(ready.d, ready.old);
    return { ...ready, current };
  }

  /** Only sizes: for a paused deployment, and for one that was scaled in the middle of a rollout. */
  async function rescale(d: Deployment, owned: readonly ReplicaSet[]): Promise<void> {
    const sets = await resolveSets(d, owned, false);
    const scaled = new Map<string, ReplicaSet>();
    for (const { set, replicas } of planProportional(sets.d, sets.current, sets.old)) {
      scaled.set(uidOf(set), await scale(sets.d, set, replicas));
    }
    if (sets.d.spec.paused) await cleanup(sets.d, sets.old);
    const newest = (set: ReplicaSet) => scaled.get(uidOf(set)) ?? set;
    const current = sets.current && newest(sets.current);
    await writeStatus(sets.d, planStatus(sets.d, current, sets.old.map(newest), time().now));
  }

  async function notePause(d: Deployment): Promise<Deployment> {
    if (!hasDeadline(d)) return d;
    const condition = conditionOf(d.status, "Progressing");
    if (condition?.reason === "ProgressDeadlineExceeded") return d;
    const isNoted = condition?.reason === "DeploymentPaused";
    const isPaused = d.spec.paused === true;
    if (isPaused === isNoted) return d;
    const input: ConditionInput = isPaused
      ? { type: "Progressing", status: "Unknown", reason: "DeploymentPaused", message: "Deployment is paused" }
      : { type: "Progressing", status: "Unknown", reason: "DeploymentResumed", message: "Deployment is resumed" };
    const conditions = withCondition(d.status?.conditions ?? [], input, rfc3339(clock.now()));
    return writeStatus(d, { ...d.status, conditions });
  }

  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const found = deploymentStore.get(key);
    if (!found) return;
    if (isEmptySelector(found.spec.selector)) {
      say(found, "Warning", "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.");
      return;
    }
    const owned = await claim(client, {
      owner: found,
      ownerResource: deployments,
      dependents: setStore,
      dependentResource: replicaSets,
      matches: matcherOf(found.spec.selector),
    });
    if (isDeleting(found)) {
      const { current, old } = splitSets(found, owned);
      await writeStatus(found, planStatus(found, current, old, time().now));
      return;
    }
    const d = await notePause(found);
    if (d.spec.paused || isScaling(d, owned)) {
      await rescale(d, owned);
      return;
    }
    let sets: Sets;
    try {
      sets =
        d.spec.strategy?.type === "Recreate"
          ? await recreate(d, owned)
          : await rolling(await resolveSets(d, owned, true));
    } catch (error) {
      if (isNamespaceTerminating(error)) return;
      throw error;
    }
    const status = planRolloutStatus(sets.d, sets.current, sets.old, time());
    const written = await writeStatus(sets.d, status);
    const waitMs = deadlineInMs(written, status, clock.now());
    if (waitMs !== undefined) again(waitMs);
  }

  return createController(
    {
      name,
      workers: 5,
      triggers: [
        on(deploymentStore),
        onDependents(setStore, deploymentStore, (d, set) => matcherOf(d.spec.selector)(set.metadata.labels ?? {})),
        // Recreate waits for the last old pod to be gone.
        on(podStore, function* (pod, how) {
          const owner = how === "delete" ? controllerKey(pod, replicaSets) : undefined;
          const set = owner === undefined ? undefined : setStore.get(owner);
          if (set) yield controllerKey(set, deployments);
        }),
      ],
      sync,
    },
    deps,
  );
}
