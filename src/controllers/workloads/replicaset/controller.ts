// Replica sets and replication controllers: as many pods as asked for, no more, no fewer. One loop for both kinds; what
// differs is in the `Kind` rows below.
// Upstream counterpart: pkg/controller/replicaset, pkg/controller/replication.
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import type { ReplicaSet } from "#model/gen/apps-v1.ts";
import type { Pod, ReplicationController } from "#model/gen/core-v1.ts";
import { controllerOf, isDeleting, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { pods, replicaSets, replicationControllers } from "#model/resources.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../../runtime/controller.ts";
import { Expectations, lookAgainMs } from "../../runtime/expectations.ts";
import { claim, controllerReference, indexByController, onDependents } from "../../runtime/owners.ts";
import { createPodControl, podFromTemplate, slowStart } from "../../runtime/pod-control.ts";
import { isPodActive } from "../../runtime/pods.ts";
import { type LabelMatcher, matcherOf } from "../../runtime/selector.ts";
import { ageRatios, planScale, planStatus } from "./plan.ts";

/** Both kinds have the shape of a replica set but for the selector. */
type Owner = ReplicaSet;
interface Kind {
  readonly controllerName: string;
  readonly resource: ResourceInfo<Owner>;
  readonly matcher: (owner: Owner) => LabelMatcher;
}

export const createReplicaSetController = (deps: ControllerDeps): Service =>
  create(
    {
      controllerName: "replicaset-controller",
      resource: replicaSets,
      matcher: (owner) => matcherOf(owner.spec.selector),
    },
    deps,
  );

export const createReplicationControllerController = (deps: ControllerDeps): Service =>
  create(
    {
      controllerName: "replication-controller",
      resource: replicationControllers as ResourceInfo<
        unknown & ReplicationController
      > as unknown as ResourceInfo<Owner>,
      matcher: (owner) => {
        const matchLabels = owner.spec.selector as unknown as Record<string, string> | undefined;
        return matcherOf(matchLabels && Object.keys(matchLabels).length > 0 ? { matchLabels } : undefined);
      },
    },
    deps,
  );

function create(kind: Kind, deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const owners = deps.informers.informer(kind.resource);
  const podStore = deps.informers.informer(pods);
  const events = deps.events.as(kind.controllerName);
  const podControl = createPodControl(client, events, kind.resource as ResourceInfo);
  const expectations = new Expectations(clock, podStore);
  indexByController(podStore);
  indexByController(owners);
  const ratios = deps.metrics.histogram(
    "replicaset_controller_sorting_deletion_age_ratio",
    "Age of a pod that was chosen to go, by that of the youngest.",
    [0.25, 0.5, 1, 2, 4, 8],
  );

  /** Counts the active pods per node of all owners that share this one's own owner. */
  function neighbourCounts(owner: Owner): Map<string, number> {
    const parent = controllerOf(owner)?.uid;
    const related = parent ? owners.byIndex("controller", parent) : [owner];
    const counts = new Map<string, number>();
    for (const one of related) {
      for (const pod of podStore.byIndex("controller", uidOf(one))) {
        const node = pod.spec.nodeName;
        if (node && isPodActive(pod)) counts.set(node, (counts.get(node) ?? 0) + 1);
      }
    }
    return counts;
  }

  async function manage(key: string, owner: Owner, active: readonly Pod[]): Promise<void> {
    const counts = neighbourCounts(owner);
    const plan = planScale({
      active,
      replicas: owner.spec.replicas ?? 1,
      neighbours: (pod) => counts.get(pod.spec.nodeName ?? "") ?? 0,
      nowMs: clock.now(),
    });
    if ("create" in plan) {
      const pod = podFromTemplate(owner.spec.template!, {
        namespace: namespaceOf(owner),
        generateName: `${nameOf(owner)}-`,
        reference: controllerReference(kind.resource as ResourceInfo, owner),
      });
      const { error } = await slowStart(plan.create, async () => {
        expectations.created(key, await podControl.create(pod, owner));
      });
      if (error !== undefined && !isNamespaceTerminating(error)) throw error;
      return;
    }
    for (const ratio of ageRatios(active, plan.remove, clock.now())) ratios.observe(ratio);
    await podControl.deleteAll(plan.remove, owner, (pod) => expectations.deleted(key, pod));
  }

  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const owner = owners.get(key);
    if (!owner) {
      expectations.forget(key);
      return;
    }
    // Asked before the pods are read: what is seen from here on may only make the count more right.
    const isCertain = expectations.satisfied(key);
    const claimed = await claim(client, {
      owner,
      ownerResource: kind.resource,
      dependents: podStore,
      dependentResource: pods,
      matches: kind.matcher(owner),
    });
    const active = claimed.filter(isPodActive);
    let failure: unknown;
    if (isCertain && !isDeleting(owner)) {
      try {
        await manage(key, owner, active);
      } catch (error) {
        failure = error;
      }
    }
    // What came and went while a watch was broken brings no event.
    if (!expectations.satisfied(key)) again(lookAgainMs);
    const old = owner.status ?? { replicas: 0 };
    const minReadySeconds = owner.spec.minReadySeconds ?? 0;
    const isShort = active.length < (owner.spec.replicas ?? 1);
    const status = planStatus({
      old,
      active,
      templateLabels: owner.spec.template?.metadata?.labels ?? {},
      minReadySeconds,
      generation: owner.metadata.generation ?? 0,
      failure: failure ? { reason: isShort ? "FailedCreate" : "FailedDelete", message: messageOf(failure) } : undefined,
      nowMs: clock.now(),
      now: rfc3339(clock.now()),
    });
    if (status !== owner.status) await client.updateStatus(kind.resource, { ...owner, status });
    if (failure) throw failure;
    if (minReadySeconds > 0 && (status.readyReplicas ?? 0) > (status.availableReplicas ?? 0)) {
      again(minReadySeconds * 1000);
    }
  }

  return createController(
    {
      name: kind.controllerName,
      workers: 5,
      triggers: [
        on(owners),
        onDependents(podStore, owners, (owner, pod) => kind.matcher(owner)(pod.metadata.labels ?? {})),
      ],
      sync,
    },
    deps,
  );
}
