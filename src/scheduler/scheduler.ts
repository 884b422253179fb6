// The scheduling loop: informers fill cache and queue, pods are decided one at a time, bindings are written while the
// next pod is decided. A pod that fits nowhere may push out less important ones; the room that they leave is promised to it
// (status.nominatedNodeName) against all that matter less. Pods that are being deleted or belong to another scheduler are
// never bound. Upstream counterpart: pkg/scheduler/schedule_one.go, eventhandlers.go.
import { type Clock, type Random, rfc3339 } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Binding, Node, Pod } from "#model/gen/core-v1.ts";
import { isDeleting, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import {
  csiDrivers,
  csiNodes,
  csiStorageCapacities,
  namespaces,
  nodes,
  persistentVolumeClaims,
  persistentVolumes,
  podDisruptionBudgets,
  pods,
  storageClasses,
} from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import { SchedulerCache } from "./cache.ts";
import { defaultPlugins } from "./plugins/default-plugins.ts";
import type { ClusterEvent, Plugin } from "./plugins/framework.ts";
import { type Preemption, priorityOf } from "./preemption.ts";
import { noNodes, SchedulingQueue } from "./queue.ts";
import { schedule } from "./schedule.ts";
import { NodeInfo, occupiesNode, type Snapshot, withPromised } from "./snapshot.ts";
import { VolumeBinder } from "./volume-binder.ts";
import { claimsOf, planVolumes, type VolumePlan } from "./volumes.ts";

export const defaultSchedulerName = "default-scheduler";

export interface SchedulerDeps {
  readonly client: Client;
  readonly informers: InformerFactory;
  /** Records as component "default-scheduler" (`recorder.as("default-scheduler")`). */
  readonly events: EventSink;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics?: Metrics;
  /** Default: defaultPlugins. */
  readonly plugins?: readonly Plugin[];
}

/** A bound pod that the informer does not show within this time was lost on the way. */
const assumeTtlMs = 30_000;
const expiryCheckMs = 10_000;
/** Bindings written at once; more would only queue in the API server. */
const maxBindings = 16;

export function createScheduler(deps: SchedulerDeps): Service {
  // Each run starts with an empty cache and queue; the gauge reads whichever runs.
  let current: Scheduler | undefined;
  deps.metrics?.gaugeOf("scheduler_pending_pods", "Pods without a node.", () => current?.pendingCount ?? 0);
  return {
    name: "scheduler",
    async run(signal, ready) {
      current = new Scheduler(deps);
      await current.run(signal, ready);
    },
  };
}

class Scheduler {
  readonly #deps: SchedulerDeps;
  readonly #plugins: readonly Plugin[];
  readonly #cache: SchedulerCache;
  readonly #queue: SchedulingQueue;
  readonly #volumes: VolumeBinder;
  readonly #bindings = new Set<Promise<void>>();
  /** Pods that have a node and wait for their volumes; no more than there are pending pods. */
  readonly #awaitingVolumes = new Set<Promise<void>>();
  /** Nodes on which room is being made, by the key of the pod it is for. No more than there are pending pods. */
  readonly #promised = new Map<string, { readonly pod: Pod; readonly node: string }>();
  readonly #attempts;
  readonly #attemptSeconds;

  constructor(deps: SchedulerDeps) {
    this.#deps = deps;
    this.#plugins = deps.plugins ?? defaultPlugins;
    this.#cache = new SchedulerCache({ assumeTtlMs }, deps);
    this.#volumes = new VolumeBinder(deps);
    this.#queue = new SchedulingQueue(this.#plugins, deps);
    this.#attempts = deps.metrics?.counter(
      "scheduler_schedule_attempts_total",
      "Attempts to schedule pods, by result.",
    );
    this.#attemptSeconds = deps.metrics?.histogram(
      "scheduler_scheduling_attempt_duration_seconds",
      "Time from taking a pod off the queue to its binding.",
      [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10],
    );
  }

  get pendingCount(): number {
    return this.#queue.size;
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    const { informers } = this.#deps;
    const podInformer = informers.informer(pods);
    const nodeInformer = informers.informer(nodes);
    const namespaceInformer = informers.informer(namespaces);
    const budgetInformer = informers.informer(podDisruptionBudgets);
    const all = [podInformer, nodeInformer, namespaceInformer, budgetInformer, ...this.#volumes.informers];
    // Handlers only once everything is there: the first decision must know all that runs.
    try {
      // They fill side by side; one listener on the signal at a time.
      for (const informer of all) await informer.whenSynced(signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    const removers = [
      namespaceInformer.addHandler({
        add: (namespace) => this.#onNamespace(nameOf(namespace), namespace.metadata.labels ?? {}),
        update: (namespace, old) => {
          const { labels } = namespace.metadata;
          if (!sameJson(labels, old.metadata.labels)) this.#onNamespace(nameOf(namespace), labels ?? {});
        },
        delete: (namespace) => this.#onNamespace(nameOf(namespace), undefined),
      }),
      nodeInformer.addHandler({
        add: (node) => this.#onNode(node, undefined),
        update: (node, old) => this.#onNode(node, old),
        delete: (node) => this.#cache.removeNode(nameOf(node)),
      }),
      podInformer.addHandler({
        add: (pod) => this.#onPod(pod, undefined),
        update: (pod, old) => this.#onPod(pod, old),
        delete: (pod) => this.#onPodGone(pod),
      }),
      ...this.#watchStorage(),
    ];
    const expiring = this.#expireForever(signal);
    ready();
    try {
      for (;;) {
        const pod = await this.#queue.pop(signal);
        this.#scheduleOne(pod, signal);
        while (this.#bindings.size >= maxBindings) await Promise.race(this.#bindings);
      }
    } catch (error) {
      if (!isAbort(error, signal)) throw error;
    } finally {
      for (const remove of removers) remove();
      await Promise.all([...this.#bindings, ...this.#awaitingVolumes]);
      await expiring;
    }
  }

  #watchStorage(): (() => void)[] {
    const { informers } = this.#deps;
    const moved = (event: ClusterEvent) => {
      const move = () => this.#queue.moved(event);
      return { add: move, update: move, delete: move };
    };
    return [
      informers.informer(persistentVolumeClaims).addHandler(moved("claimChanged")),
      informers.informer(persistentVolumes).addHandler(moved("volumeChanged")),
      informers.informer(storageClasses).addHandler(moved("storageClassChanged")),
      informers.informer(csiNodes).addHandler(moved("csiChanged")),
      informers.informer(csiDrivers).addHandler(moved("csiChanged")),
      informers.informer(csiStorageCapacities).addHandler(moved("csiChanged")),
    ];
  }

  #onNamespace(name: string, labels: Readonly<Record<string, string>> | undefined): void {
    this.#cache.setNamespace(name, labels);
    this.#queue.moved("namespaceChanged");
  }

  #onNode(node: Node, old: Node | undefined): void {
    this.#cache.setNode(node);
    if (!old) {
      this.#queue.moved("nodeAdded");
      return;
    }
    if (!sameJson(node.spec, old.spec)) this.#queue.moved("nodeTaintsChanged");
    if (!sameJson(node.metadata.labels, old.metadata.labels)) this.#queue.moved("nodeLabelsChanged");
    if (!sameJson(node.status?.allocatable, old.status?.allocatable)) this.#queue.moved("nodeAllocatableChanged");
  }

  #onPod(pod: Pod, old: Pod | undefined): void {
    const key = keyOf(pod);
    this.#cache.setPod(pod);
    const nominated = pod.status?.nominatedNodeName;
    if (!isOurs(pod)) this.#promised.delete(key);
    else if (nominated) this.#promised.set(key, { pod, node: nominated });
    else if (old?.status?.nominatedNodeName) this.#promised.delete(key);
    if (occupiesNode(pod)) {
      this.#queue.remove(key);
      if (!old || !occupiesNode(old)) this.#queue.moved("assignedPodAdded");
      else if (
        !sameJson(pod.metadata.labels, old.metadata.labels) ||
        !sameJson(pod.spec, old.spec) ||
        pod.status?.resize !== old.status?.resize
      ) {
        this.#queue.moved("assignedPodChanged");
      }
      return;
    }
    if (old && occupiesNode(old)) this.#queue.moved("assignedPodRemoved");
    if (!isOurs(pod) || this.#cache.isAssumed(key)) {
      if (!isOurs(pod)) this.#queue.remove(key);
      return;
    }
    const isRelevant = !old || !sameJson(pod.spec, old.spec) || !sameJson(pod.metadata.labels, old.metadata.labels);
    this.#queue.put(pod, { isRelevant });
  }

  #onPodGone(pod: Pod): void {
    const key = keyOf(pod);
    this.#promised.delete(key);
    this.#queue.remove(key);
    this.#cache.removePod(key);
    if (pod.spec.nodeName) this.#queue.moved("assignedPodRemoved");
  }

  /** Decides in this turn of the event loop, so that the shared snapshot cannot change underneath. */
  #scheduleOne(popped: Pod, signal: AbortSignal): void {
    const { clock, informers, random, events } = this.#deps;
    const key = keyOf(popped);
    const pod = informers.informer(pods).get(key);
    if (!pod || uidOf(pod) !== uidOf(popped) || !isOurs(pod) || pod.spec.nodeName) {
      this.#queue.done(popped);
      return;
    }
    const startedMs = clock.monotonicMs();
    const finish = (result: string): void => {
      this.#attempts?.add(1, { result, profile: defaultSchedulerName });
      this.#attemptSeconds?.observe((clock.monotonicMs() - startedMs) / 1000);
    };
    let work: Promise<void>;
    let tasks = this.#bindings;
    try {
      const decision = schedule(pod, this.#snapshotFor(pod), {
        plugins: this.#plugins,
        budgets: informers.informer(podDisruptionBudgets).list(),
        pick: (count) => Math.floor(random.float() * count),
      });
      if (decision.kind === "bind") {
        if (!this.#cache.assume(pod, decision.node)) {
          this.#queue.done(pod);
          return;
        }
        const volumes = this.#volumePlan(pod, decision.node);
        if (volumes) {
          tasks = this.#awaitingVolumes;
          this.#volumes.promise(volumes.plan, decision.node);
          work = this.#bindVolumes(pod, volumes, finish, signal);
        } else work = this.#bind(pod, decision.node, finish);
      } else {
        const { message, plugins } = decision;
        this.#queue.failed(pod, plugins.size === 0 ? new Set([noNodes]) : plugins);
        events.record({ resource: pods, object: pod, type: "Warning", reason: "FailedScheduling", message });
        finish("unschedulable");
        const { preemption } = decision;
        // Promised in this turn, so that the next pod to be decided does not take the room.
        if (preemption) this.#promised.set(key, { pod, node: preemption.node });
        work = this.#setCondition(pod, "Unschedulable", message, preemption?.node).then(() =>
          preemption ? this.#preempt(pod, preemption) : undefined,
        );
      }
    } catch (error) {
      // A pod whose spec no plugin can read (a quantity written by an older version) must not stop the others.
      work = this.#onError(pod, error, finish);
    }
    const task = work
      .catch((error: unknown) => {
        if (!signal.aborted) this.#deps.log.warn("scheduling failed", { pod: key, error: messageOf(error) });
      })
      .then(() => void tasks.delete(task));
    tasks.add(task);
  }

  /** What has to be written about the pod's claims before it may be bound; undefined when nothing. */
  #volumePlan(pod: Pod, nodeName: string): { readonly plan: VolumePlan; readonly node: NodeInfo } | undefined {
    const claims = claimsOf(pod, this.#volumes.view);
    if ("refusal" in claims || claims.delayed.length === 0) return undefined;
    const known = this.#deps.informers.informer(nodes).get(nodeName);
    if (!known) return undefined;
    const node = new NodeInfo(known);
    const plan = planVolumes(claims, node, this.#volumes.view);
    return "refusals" in plan ? undefined : { plan, node };
  }

  async #bindVolumes(
    pod: Pod,
    { plan, node }: { readonly plan: VolumePlan; readonly node: NodeInfo },
    finish: (result: string) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const store = this.#deps.informers.informer(pods);
    const isWanted = () => {
      const current = store.get(keyOf(pod));
      return current !== undefined && uidOf(current) === uidOf(pod) && !isDeleting(current);
    };
    try {
      await this.#volumes.bind(plan, node, isWanted, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      this.#cache.forget(pod);
      this.#queue.moved("assignedPodRemoved");
      if (!isWanted()) {
        this.#queue.done(pod);
        finish("error");
        return;
      }
      const message = `running PreBind plugin "VolumeBinding": ${messageOf(error)}`;
      await this.#onError(pod, new Error(message), finish);
      return;
    }
    await this.#bind(pod, node.name, finish);
  }

  /** What is there for this pod: without the room that is promised to others who matter as much. */
  #snapshotFor(pod: Pod): Snapshot {
    const snapshot: Snapshot = { ...this.#cache.snapshot(), volumes: this.#volumes.view };
    if (this.#promised.size === 0) return snapshot;
    const key = keyOf(pod);
    const others = [...this.#promised].filter(
      ([other, promise]) => other !== key && priorityOf(promise.pod) >= priorityOf(pod),
    );
    return withPromised(
      snapshot,
      others.map(([, promise]) => promise),
    );
  }

  /** Ends the victims, each saying why; a later failure leaves the rest to the next attempt. */
  async #preempt(pod: Pod, { node, victims }: Preemption): Promise<void> {
    const { client, clock, events } = this.#deps;
    const condition = {
      type: "DisruptionTarget",
      status: "True",
      reason: "PreemptionByScheduler",
      message: `${defaultSchedulerName}: preempting to accommodate a higher priority pod`,
      lastTransitionTime: rfc3339(clock.now()),
    };
    for (const victim of victims) {
      if (isDeleting(victim)) continue;
      const target = { name: nameOf(victim), namespace: namespaceOf(victim) };
      try {
        await client.patch(
          pods,
          target,
          { metadata: { uid: uidOf(victim) }, status: { conditions: [condition] } },
          { type: "application/strategic-merge-patch+json", subresource: "status" },
        );
        await client.delete(pods, target, { preconditions: { uid: uidOf(victim) } });
      } catch (error) {
        // Gone or replaced already: what was wanted.
        if (!isNotFound(error) && !isConflict(error)) throw error;
        continue;
      }
      const message = `Preempted by pod ${uidOf(pod)} on node ${node}`;
      events.record({ resource: pods, object: victim, type: "Normal", reason: "Preempted", message });
    }
    // Less important ones that were promised this node look again, and elsewhere.
    for (const [key, promise] of this.#promised) {
      if (promise.node !== node || priorityOf(promise.pod) >= priorityOf(pod)) continue;
      this.#promised.delete(key);
      await this.#setCondition(
        promise.pod,
        "Unschedulable",
        "its nominated node was taken by a more important pod",
        "",
      );
    }
  }

  async #bind(pod: Pod, node: string, finish: (result: string) => void): Promise<void> {
    const key = keyOf(pod);
    const { client, events } = this.#deps;
    const binding: Binding = {
      apiVersion: "v1",
      kind: "Binding",
      metadata: { name: nameOf(pod), namespace: namespaceOf(pod), uid: uidOf(pod) },
      target: { kind: "Node", name: node },
    };
    try {
      await client.create(pods, binding, { name: nameOf(pod), subresource: "binding" });
    } catch (error) {
      this.#cache.forget(pod);
      this.#queue.moved("assignedPodRemoved");
      // Deleted in the meantime: the informer tells the rest. A conflict is tried again from what the informer then says.
      if (isNotFound(error)) {
        this.#queue.done(pod);
        finish("error");
        return;
      }
      await this.#onError(pod, error, finish);
      return;
    }
    this.#queue.done(pod);
    this.#cache.finishBinding(pod);
    const message = `Successfully assigned ${key} to ${node}`;
    events.record({ resource: pods, object: pod, type: "Normal", reason: "Scheduled", message });
    finish("scheduled");
  }

  async #onError(pod: Pod, error: unknown, finish: (result: string) => void): Promise<void> {
    const message = messageOf(error);
    this.#deps.log.warn("pod could not be scheduled", { pod: keyOf(pod), error: message });
    this.#queue.failed(pod, new Set());
    finish("error");
    this.#deps.events.record({ resource: pods, object: pod, type: "Warning", reason: "FailedScheduling", message });
    await this.#setCondition(pod, "SchedulerError", message);
  }

  /** `nominatedNode`: "" takes an earlier one back, undefined leaves it. */
  async #setCondition(pod: Pod, reason: string, message: string, nominatedNode?: string): Promise<void> {
    const { client, clock } = this.#deps;
    const old = pod.status?.conditions?.find((c) => c.type === "PodScheduled");
    const isNominated = nominatedNode === undefined || nominatedNode === (pod.status?.nominatedNodeName ?? "");
    if (isNominated && old?.status === "False" && old.reason === reason && old.message === message) return;
    const condition = {
      type: "PodScheduled",
      status: "False",
      reason,
      message,
      lastProbeTime: null,
      lastTransitionTime: old?.status === "False" ? old.lastTransitionTime : rfc3339(clock.now()),
    };
    try {
      await client.patch(
        pods,
        { name: nameOf(pod), namespace: namespaceOf(pod) },
        {
          metadata: { uid: uidOf(pod) },
          status: {
            conditions: [condition],
            ...(nominatedNode === undefined ? {} : { nominatedNodeName: nominatedNode === "" ? null : nominatedNode }),
          },
        },
        { type: "application/strategic-merge-patch+json", subresource: "status" },
      );
    } catch (error) {
      // Deleted or replaced in the meantime: nobody needs the condition.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }

  async #expireForever(signal: AbortSignal): Promise<void> {
    const { clock, informers, log } = this.#deps;
    while (!signal.aborted) {
      try {
        await clock.sleep(expiryCheckMs, signal);
      } catch (error) {
        if (isAbort(error, signal)) return;
        throw error;
      }
      for (const key of this.#cache.expire()) {
        log.warn("binding was never seen", { pod: key });
        const pod = informers.informer(pods).get(key);
        if (pod) this.#onPod(pod, undefined);
      }
    }
  }
}

/** Waits for a node from this scheduler, and nothing holds it back. */
function isOurs(pod: Pod): boolean {
  const phase = pod.status?.phase;
  return (
    !pod.spec.nodeName &&
    !isDeleting(pod) &&
    phase !== "Succeeded" &&
    phase !== "Failed" &&
    (pod.spec.schedulerName ?? defaultSchedulerName) === defaultSchedulerName &&
    (pod.spec.schedulingGates ?? []).length === 0
  );
}

/** For small parts of objects that came through the same decoder: key order is the same where nothing changed. */
const sameJson = (a: unknown, b: unknown): boolean => a === b || JSON.stringify(a) === JSON.stringify(b);
