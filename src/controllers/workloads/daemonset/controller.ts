// Daemon sets: one pod on every node that fits, exchanged node by node when the template changes.
// Upstream counterpart: pkg/controller/daemon.
import type { Service } from "#base/service.ts";
import type { DaemonSet } from "#model/gen/apps-v1.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { isDeleting, keyOf, nameOf, namespaceOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { controllerRevisions, daemonSets, nodes, pods } from "#model/resources.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../../runtime/controller.ts";
import { isEqual } from "../../runtime/equal.ts";
import { Expectations, lookAgainMs } from "../../runtime/expectations.ts";
import { claim, controllerKey, controllerReference, indexByController, onDependents } from "../../runtime/owners.ts";
import { createPodControl, maxBurst, podFromTemplate, slowStart } from "../../runtime/pod-control.ts";
import { isPodAvailable, isPodReady } from "../../runtime/pods.ts";
import { revisionHashLabel, syncRevision, trimRevisions } from "../../runtime/revisions.ts";
import { isEmptySelector, matcherOf } from "../../runtime/selector.ts";
import { nodeOf, planPlacement, planStatus, planUpdate, podSpecFor } from "./plan.ts";

const name = "daemonset-controller";
/** Upstream backs off from 1 s to 15 min per node; a pod that ends at once must not spin. */
const minReplaceMs = 1000;
const maxReplaceMs = 900_000;

export function createDaemonSetController(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const setStore = deps.informers.informer(daemonSets);
  const podStore = deps.informers.informer(pods);
  const nodeStore = deps.informers.informer(nodes);
  const revisionStore = deps.informers.informer(controllerRevisions);
  const events = deps.events.as(name);
  const resource = daemonSets as ResourceInfo;
  const podControl = createPodControl(client, events, resource);
  const expectations = new Expectations(clock, podStore);
  /** Per set and node: when the last ended pod was replaced, and how long to wait next time. */
  const replaced = new Map<string, { atMs: number; pauseMs: number }>();
  indexByController(podStore);
  indexByController(revisionStore);

  const remove = (key: string, set: DaemonSet, doomed: readonly Pod[]): Promise<void> =>
    podControl.deleteAll(doomed, set, (pod) => expectations.deleted(key, pod));

  async function create(key: string, set: DaemonSet, where: readonly string[], hash: string): Promise<void> {
    const wanted = where.slice(0, maxBurst);
    const generation = set.metadata.annotations?.["deprecated.daemonset.template.generation"];
    const { error } = await slowStart(wanted.length, async (i) => {
      const reference = controllerReference(resource, set);
      const options = { namespace: namespaceOf(set), generateName: `${nameOf(set)}-`, reference };
      const pod = podFromTemplate(set.spec.template, options);
      pod.metadata.labels = {
        ...pod.metadata.labels,
        [revisionHashLabel]: hash,
        ...(generation ? { "pod-template-generation": generation } : {}),
      };
      pod.spec = podSpecFor(pod.spec, wanted[i]!);
      expectations.created(key, await podControl.create(pod, set));
    });
    if (error !== undefined && !isNamespaceTerminating(error)) throw error;
  }

  /** Ended pods that may be replaced now; asks to look again for the others. */
  function due(key: string, set: DaemonSet, ended: readonly Pod[], again: (ms: number) => void): Pod[] {
    const nowMs = clock.monotonicMs();
    return ended.filter((pod) => {
      const id = `${key}/${nodeOf(pod)}`;
      const last = replaced.get(id);
      const waitMs = last ? last.atMs + last.pauseMs - nowMs : 0;
      if (waitMs > 0) {
        again(waitMs);
        return false;
      }
      const isQuiet = !last || nowMs - last.atMs > 2 * maxReplaceMs;
      replaced.set(id, { atMs: nowMs, pauseMs: isQuiet ? minReplaceMs : Math.min(maxReplaceMs, last.pauseMs * 2) });
      const isFailed = pod.status?.phase === "Failed";
      const reason = isFailed ? "FailedDaemonPod" : "SucceededDaemonPod";
      const what = isFailed ? "failed" : "succeeded";
      const message = `Found ${what} daemon pod ${keyOf(pod)} on node ${nodeOf(pod)}, will try to ${isFailed ? "kill" : "delete"} it`;
      events.record({ resource, object: set, type: isFailed ? "Warning" : "Normal", reason, message });
      return true;
    });
  }

  /** One step: first every pod where it belongs, then, when the store shows that, the next pods of a roll. */
  async function manage(
    key: string,
    set: DaemonSet,
    allNodes: readonly Node[],
    owned: readonly Pod[],
    hash: string,
    again: (ms: number) => void,
  ): Promise<void> {
    const input = { set, nodes: allNodes, pods: owned, hash, nowMs: clock.now() };
    const plan = planPlacement(input);
    const ready = due(key, set, plan.ended, again);
    const doomed = plan.remove.filter((pod) => !plan.ended.includes(pod) || ready.includes(pod));
    await remove(key, set, doomed);
    await create(key, set, plan.create, hash);
    if (!expectations.satisfied(key)) return;
    const roll = planUpdate(input);
    await remove(key, set, roll.remove);
    await create(key, set, roll.create, hash);
  }

  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const set = setStore.get(key);
    if (!set) {
      expectations.forget(key);
      for (const id of replaced.keys()) if (id.startsWith(`${key}/`)) replaced.delete(id);
      return;
    }
    if (isEmptySelector(set.spec.selector)) {
      const message = "This daemon set is selecting all pods. A non-empty selector is required.";
      events.record({ resource, object: set, type: "Warning", reason: "SelectingAll", message });
      return;
    }
    if (isDeleting(set)) return;
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
      const status = {
        ...planStatus({ set, nodes: [], pods: [], hash: "", nowMs: clock.now() }),
        ...set.status,
        collisionCount: (collisionCount ?? 0) + 1,
      };
      await client.updateStatus(daemonSets, { ...set, status });
      return;
    }
    const hash = revision.current.metadata.labels?.[revisionHashLabel] ?? "";
    const isCertain = expectations.satisfied(key);
    const owned = await claim(client, {
      owner: set,
      ownerResource: daemonSets,
      dependents: podStore,
      dependentResource: pods,
      matches: matcherOf(set.spec.selector),
    });
    const allNodes = nodeStore.list();
    let failure: unknown;
    if (isCertain) {
      try {
        await manage(key, set, allNodes, owned, hash, again);
        const inUse = new Set(owned.map((pod) => pod.metadata.labels?.[revisionHashLabel]));
        const isInUse = (r: (typeof revision.all)[number]) =>
          r.metadata.uid === revision.current.metadata.uid || inUse.has(r.metadata.labels?.[revisionHashLabel]);
        await trimRevisions(client, revision.all, isInUse, set.spec.revisionHistoryLimit ?? 10);
      } catch (error) {
        // What can be said of the pods there are is said all the same.
        failure = error;
      }
    }
    // What came and went while a watch was broken brings no event.
    if (!expectations.satisfied(key)) again(lookAgainMs);
    const status = planStatus({ set, nodes: allNodes, pods: owned, hash, nowMs: clock.now() });
    if (!isEqual(status, set.status)) await client.updateStatus(daemonSets, { ...set, status });
    if (failure) throw failure;
    const { minReadySeconds = 0 } = set.spec;
    const isYoung = (pod: Pod) => isPodReady(pod) && !isPodAvailable(pod, minReadySeconds, clock.now());
    if (minReadySeconds > 0 && owned.some(isYoung)) again(minReadySeconds * 1000);
  }

  return createController(
    {
      name,
      workers: 2,
      triggers: [
        on(setStore),
        onDependents(podStore, setStore, (set, pod) => matcherOf(set.spec.selector)(pod.metadata.labels ?? {})),
        on(nodeStore, () => setStore.list().map(keyOf)),
        on(revisionStore, (revision) => [controllerKey(revision, daemonSets)]),
      ],
      sync,
    },
    deps,
  );
}
