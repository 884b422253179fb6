// The scheduling loop: informers fill cache and queue, pods are decided one at a time, bindings are written while the
// next pod is decided. A pod that fits nowhere may push out less important ones; the room that they leave is promised to it
// (status.nominatedNodeName) against all that matter less. Pods that are being deleted or belong to another scheduler are
// never bound. Upstream counterpart: pkg/scheduler/schedule_one.go, eventhandlers.go.
import type { Clock, Random } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Binding, Node, Pod } from "#model/gen/core-v1.ts";
import { type ApiObject, isDeleting, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
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
  volumeAttachments,
} from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { nextTurn } from "#platform/turns.ts";
import { SchedulerCache } from "./cache.ts";
import { assignedPodChanges, nodeChanges, sameJson } from "./changes.ts";
import { defaultSchedulerConfiguration, type SchedulerConfiguration } from "./configuration.ts";
import { scheduleExtended } from "./extended.ts";
import { Extender } from "./extender.ts";
import { type AttemptResult, SchedulerMetrics, type SchedulerState } from "./metrics.ts";
import { Nominator } from "./nominator.ts";
import type { Change, ClusterEvent } from "./plugins/framework.ts";
import { createPodGroups, groupResources } from "./pod-groups.ts";
import { type PodInfo, podInfoOf, podInfoOrLess, priorityOf } from "./pod-info.ts";
import { PodWriter } from "./pod-writer.ts";
import { defaultSchedulerName, type Profile } from "./profile.ts";
import { noNodes, type Popped, SchedulingQueue } from "./queue.ts";
import { type Decision, type ScheduleOptions, schedule } from "./schedule.ts";
import { occupiesNode, type Snapshot } from "./snapshot.ts";
import { VolumeBinder } from "./volume-binder.ts";
import { claimsOf, planVolumes, type VolumePlan } from "./volumes.ts";

export interface SchedulerDeps {
  readonly client: Client;
  readonly informers: InformerFactory;
  /** Each profile speaks under its own name. */
  readonly events: { as(component: string): EventSink };
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics?: Metrics;
  readonly configuration?: SchedulerConfiguration;
}

/** A bound pod that the informer does not show within this time was lost on the way. */
const assumeTtlMs = 30_000;
const expiryCheckMs = 10_000;
/** Bindings written at once: enough for one flush of the datastore to take many, few enough to stop soon. */
const maxBindings = 64;
/** Decisions are made in a row for so long before others in the process have their turn. */
const maxTurnMs = 10;

export function createScheduler(deps: SchedulerDeps): Service {
  // Each run starts with an empty cache and queue; the gauges read whichever runs.
  let current: Scheduler | undefined;
  const metrics = new SchedulerMetrics(deps.metrics, () => current?.state);
  return {
    name: "scheduler",
    async run(signal, ready) {
      current = new Scheduler(deps, metrics);
      await current.run(signal, ready);
    },
  };
}

/** One try for one pod. */
interface Attempt {
  readonly popped: Popped;
  readonly info: PodInfo;
  readonly profile: Profile;
  readonly events: EventSink;
  readonly finish: (result: AttemptResult) => void;
}

class Scheduler {
  readonly #deps: SchedulerDeps;
  readonly #metrics: SchedulerMetrics;
  readonly #profiles: ReadonlyMap<string, Profile>;
  readonly #events: ReadonlyMap<string, EventSink>;
  readonly #extenders: readonly Extender[];
  readonly #cache: SchedulerCache;
  readonly #queue: SchedulingQueue;
  readonly #volumes: VolumeBinder;
  readonly #writer: PodWriter;
  readonly #groupOf: NonNullable<Snapshot["groupOf"]>;
  readonly #nominator = new Nominator();
  /** Writes under way. At most maxBindings, but for pods that wait for volumes: no more than there are pending pods. */
  readonly #tasks = new Set<Promise<void>>();
  #bindings = 0;
  #bindingEnded: () => void = () => {};
  /** Where the next pod begins to look for a node. */
  #start = 0;

  constructor(deps: SchedulerDeps, metrics: SchedulerMetrics) {
    const { profiles, extenders, podInitialBackoffMs, podMaxBackoffMs } =
      deps.configuration ?? defaultSchedulerConfiguration;
    this.#deps = deps;
    this.#metrics = metrics;
    this.#profiles = new Map(profiles.map((profile) => [profile.name, profile]));
    this.#events = new Map(profiles.map(({ name }) => [name, deps.events.as(name)]));
    this.#extenders = extenders.map((settings) => new Extender(settings));
    this.#cache = new SchedulerCache({ assumeTtlMs }, deps);
    this.#volumes = new VolumeBinder(deps);
    this.#writer = new PodWriter(deps);
    this.#groupOf = createPodGroups(deps.informers);
    this.#queue = new SchedulingQueue(
      { initialBackoffMs: podInitialBackoffMs, maxBackoffMs: podMaxBackoffMs },
      {
        clock: deps.clock,
        plugins: profiles.flatMap(({ plugins }) => plugins),
        isGated: (pod) => (pod.spec.schedulingGates ?? []).length > 0 && this.#profileOf(pod)?.holdsGatedPods === true,
        view: () => ({ namespaceLabels: this.#cache.namespaceLabels, volumes: this.#volumes.view }),
        onMove: (place, event) => metrics.arrived(place, event),
      },
    );
  }

  get state(): SchedulerState {
    return { pending: this.#queue.sizes, cached: this.#cache.sizes, rejectedBy: this.#queue.parkedBy() };
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    const { informers } = this.#deps;
    const podInformer = informers.informer(pods);
    const nodeInformer = informers.informer(nodes);
    const namespaceInformer = informers.informer(namespaces);
    const all = [
      ...[podInformer, nodeInformer, namespaceInformer, informers.informer(podDisruptionBudgets)],
      ...groupResources.map((resource) => informers.informer(resource as ResourceInfo<ApiObject>)),
      informers.informer(volumeAttachments),
      ...this.#volumes.informers,
    ];
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
        delete: (node) => {
          this.#cache.removeNode(nameOf(node));
          this.#queue.moved({ event: "NodeDelete", old: node });
        },
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
      let turnMs = this.#deps.clock.monotonicMs();
      for (;;) {
        const popped = await this.#queue.pop(signal);
        await this.#scheduleOne(popped, signal);
        while (this.#bindings >= maxBindings) {
          await new Promise<void>((resolve) => {
            this.#bindingEnded = resolve;
          });
        }
        if (this.#deps.clock.monotonicMs() - turnMs < maxTurnMs) continue;
        await nextTurn();
        turnMs = this.#deps.clock.monotonicMs();
      }
    } catch (error) {
      if (!isAbort(error, signal)) throw error;
    } finally {
      for (const remove of removers) remove();
      await Promise.all(this.#tasks);
      await expiring;
      for (const extender of this.#extenders) extender.close();
    }
  }

  #watchStorage(): (() => void)[] {
    const { informers } = this.#deps;
    const watch = <T extends ApiObject>(resource: ResourceInfo<T>, added: ClusterEvent, updated: ClusterEvent) =>
      informers.informer(resource).addHandler({
        add: (next) => this.#queue.moved({ event: added, next }),
        update: (next, old) => this.#queue.moved({ event: updated, next, old }),
      });
    return [
      watch(persistentVolumeClaims, "PersistentVolumeClaimAdd", "PersistentVolumeClaimUpdate"),
      watch(persistentVolumes, "PersistentVolumeAdd", "PersistentVolumeUpdate"),
      watch(storageClasses, "StorageClassAdd", "StorageClassUpdate"),
      watch(csiNodes, "CSINodeAdd", "CSINodeUpdate"),
      watch(csiDrivers, "CSIDriverAdd", "CSIDriverUpdate"),
      watch(csiStorageCapacities, "CSIStorageCapacityAdd", "CSIStorageCapacityUpdate"),
      informers
        .informer(volumeAttachments)
        .addHandler({ delete: (old) => this.#queue.moved({ event: "VolumeAttachmentDelete", old }) }),
    ];
  }

  #onNamespace(name: string, labels: Readonly<Record<string, string>> | undefined): void {
    this.#cache.setNamespace(name, labels);
    this.#queue.moved({ event: "NamespaceUpdate" });
  }

  #onNode(node: Node, old: Node | undefined): void {
    this.#cache.setNode(node);
    this.#tell(() => nodeChanges(node, old));
  }

  #onPod(pod: Pod, old: Pod | undefined): void {
    const key = keyOf(pod);
    this.#cache.setPod(pod);
    const isOurs = this.#isOurs(pod);
    const nominated = pod.status?.nominatedNodeName;
    if (!isOurs) this.#nominator.delete(key);
    else if (nominated) this.#nominator.add(podInfoOrLess(pod), nominated);
    else if (old?.status?.nominatedNodeName) this.#nominator.delete(key);
    if (occupiesNode(pod)) {
      this.#queue.remove(key);
      this.#tell(() => assignedPodChanges(pod, old));
      return;
    }
    if (old && occupiesNode(old)) this.#tell(() => [{ event: "AssignedPodDelete", old }]);
    if (!isOurs) this.#queue.remove(key);
    else if (!this.#cache.isAssumed(key)) this.#queue.put(pod, old);
  }

  #onPodGone(pod: Pod): void {
    const key = keyOf(pod);
    const wasPromised = this.#nominator.delete(key);
    this.#queue.remove(key);
    this.#cache.removePod(key);
    const change: Change = { event: "AssignedPodDelete", old: pod };
    if (pod.spec.nodeName) this.#tell(() => [change]);
    // The room that was kept for it is for those again that matter no more than it did.
    else if (wasPromised) this.#queue.moved(change, (other) => priorityOf(other) <= priorityOf(pod));
  }

  /** Changes are worked out only where somebody waits for some. */
  #tell(changes: () => readonly Change[]): void {
    if (!this.#queue.isListening) return;
    for (const change of changes()) this.#queue.moved(change);
  }

  #profileOf(pod: Pod): Profile | undefined {
    return this.#profiles.get(pod.spec.schedulerName ?? defaultSchedulerName);
  }

  /** Waits for a node from this scheduler. */
  #isOurs(pod: Pod): boolean {
    const phase = pod.status?.phase;
    return (
      !pod.spec.nodeName &&
      !isDeleting(pod) &&
      phase !== "Succeeded" &&
      phase !== "Failed" &&
      this.#profileOf(pod) !== undefined
    );
  }

  /**
   * Decides in this turn of the event loop, so that the shared snapshot cannot change underneath; only where extenders
   * have a say it takes longer.
   */
  #scheduleOne(popped: Popped, signal: AbortSignal): Promise<void> | undefined {
    const { clock, informers, random } = this.#deps;
    const pod = informers.informer(pods).get(keyOf(popped.pod));
    const profile = pod && this.#profileOf(pod);
    if (!pod || !profile || uidOf(pod) !== uidOf(popped.pod) || !this.#isOurs(pod)) {
      this.#queue.done(popped.pod);
      return undefined;
    }
    const startedMs = clock.monotonicMs();
    const events = this.#events.get(profile.name)!;
    const finish = (result: AttemptResult): void =>
      this.#metrics.attempted(result, profile.name, (clock.monotonicMs() - startedMs) / 1000);
    let info: PodInfo;
    try {
      info = podInfoOf(pod);
    } catch (error) {
      // A pod whose spec cannot be read (a quantity written by an older version) must not stop the others.
      this.#track(this.#onError(pod, error, events, finish), signal);
      return undefined;
    }
    const attempt: Attempt = { popped, info, profile, events, finish };
    let lapMs = startedMs;
    const options: ScheduleOptions = {
      profile,
      budgets: informers.informer(podDisruptionBudgets).list(),
      pick: (count) => Math.floor(random.float() * count),
      nominated: (node) => this.#nominator.on(node),
      start: this.#start,
      lap: (point, status) => {
        const nowMs = clock.monotonicMs();
        this.#metrics.point(point, status, profile.name, (nowMs - lapMs) / 1000);
        lapMs = nowMs;
      },
    };
    const act = (decision: Decision) => {
      this.#metrics.decided((clock.monotonicMs() - startedMs) / 1000);
      this.#act(attempt, decision, signal);
    };
    const onError = (error: unknown) => this.#track(this.#onError(pod, error, events, finish), signal);
    const asked = this.#extenders.filter((extender) => extender.isInterestedIn(pod));
    if (asked.length === 0) {
      try {
        act(schedule(info, this.#snapshot(), options));
      } catch (error) {
        onError(error);
      }
      return undefined;
    }
    const deps = { snapshot: () => this.#snapshot(), extenders: asked, log: this.#deps.log };
    return scheduleExtended(info, options, deps, signal)
      .then(act)
      .catch((error: unknown) => {
        if (!signal.aborted) onError(error);
      });
  }

  #act(attempt: Attempt, decision: Decision, signal: AbortSignal): void {
    const { info, profile, events, finish } = attempt;
    const { pod, key } = info;
    const count = this.#cache.sizes.nodes;
    if (count > 0) this.#start = (this.#start + decision.examined) % count;
    if (decision.kind === "bind") {
      if (!this.#cache.assume(info, decision.node)) {
        this.#queue.done(pod);
        return;
      }
      this.#queue.decided(pod);
      const plan = profile.bindsVolumes ? this.#volumePlan(info, decision.node) : undefined;
      if (plan) {
        this.#volumes.promise(plan, decision.node);
        this.#track(this.#bindVolumes(attempt, plan, decision.node, signal), signal, { isUnbounded: true });
      } else this.#track(this.#bind(attempt, decision.node, signal), signal);
      return;
    }
    const { message, plugins, preemption, nominatedNode } = decision;
    this.#queue.failed(pod, plugins.size === 0 ? new Set([noNodes]) : plugins);
    events.record({ resource: pods, object: pod, type: "Warning", reason: "FailedScheduling", message });
    finish("unschedulable");
    // Promised in this turn, so that the next pod to be decided does not take the room.
    if (preemption) this.#nominator.add(info, preemption.node);
    else if (nominatedNode === "") this.#nominator.delete(key);
    const told = this.#writer.setUnscheduled(pod, "Unschedulable", message, nominatedNode);
    this.#track(
      told.then(async () => {
        if (!preemption) return;
        this.#metrics.preempted(preemption.victims.length);
        await this.#writer.preempt(pod, preemption, events);
        // Less important ones that were promised this node look again, and elsewhere.
        for (const other of this.#nominator.on(preemption.node)) {
          if (other.priority >= info.priority) continue;
          this.#nominator.delete(other.key);
          await this.#writer.clearNomination(other.pod);
        }
      }),
      signal,
    );
  }

  /** Lets work go on beside the loop, which waits while there is too much of it. */
  #track(work: Promise<void>, signal: AbortSignal, { isUnbounded = false } = {}): void {
    if (!isUnbounded) this.#bindings++;
    const task: Promise<void> = work
      .catch((error: unknown) => {
        if (!signal.aborted) this.#deps.log.warn("scheduling failed", { error: messageOf(error) });
      })
      .then(() => {
        this.#tasks.delete(task);
        if (isUnbounded) return;
        this.#bindings--;
        this.#bindingEnded();
      });
    this.#tasks.add(task);
  }

  /** What has to be written about the pod's claims before it may be bound; undefined when nothing. */
  #volumePlan({ pod, hasClaims }: PodInfo, nodeName: string): VolumePlan | undefined {
    const node = this.#cache.snapshot().byName.get(nodeName);
    if (!hasClaims || !node) return undefined;
    const claims = claimsOf(pod, this.#volumes.view);
    if ("refusal" in claims || claims.delayed.length === 0) return undefined;
    const plan = planVolumes(claims, node, this.#volumes.view);
    return "refusals" in plan ? undefined : plan;
  }

  async #bindVolumes(attempt: Attempt, plan: VolumePlan, nodeName: string, signal: AbortSignal): Promise<void> {
    const { info, profile, events, finish } = attempt;
    const { pod } = info;
    const store = this.#deps.informers.informer(pods);
    const isWanted = () => {
      const current = store.get(info.key);
      return current !== undefined && uidOf(current) === info.uid && !isDeleting(current);
    };
    const known = this.#deps.informers.informer(nodes).get(nodeName);
    const node = { name: nodeName, labels: known?.metadata.labels ?? {} };
    try {
      await this.#volumes.bind(plan, { node, isWanted, timeoutMs: profile.volumeBindTimeoutMs }, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      this.#forget(pod);
      if (!isWanted()) {
        this.#queue.done(pod);
        finish("error");
        return;
      }
      const message = `running PreBind plugin "VolumeBinding": ${messageOf(error)}`;
      await this.#onError(pod, new Error(message), events, finish);
      return;
    }
    await this.#bind(attempt, node.name, signal);
  }

  /** What is there now. */
  #snapshot(): Snapshot {
    return { ...this.#cache.snapshot(), volumes: this.#volumes.view, groupOf: this.#groupOf };
  }

  async #bind({ info, popped, events, finish }: Attempt, node: string, signal: AbortSignal): Promise<void> {
    const { pod, key } = info;
    const { client, clock } = this.#deps;
    const binding: Binding = {
      apiVersion: "v1",
      kind: "Binding",
      metadata: { name: nameOf(pod), namespace: namespaceOf(pod), uid: uidOf(pod) },
      target: { kind: "Node", name: node },
    };
    const extender = this.#extenders.find((one) => one.settings.bindVerb !== "" && one.isInterestedIn(pod));
    try {
      if (extender) await extender.bind(pod, node, signal);
      else await client.create(pods, binding, { name: nameOf(pod), subresource: "binding" });
    } catch (error) {
      if (signal.aborted) throw error;
      this.#forget(pod);
      // Deleted in the meantime: the informer tells the rest. A conflict is tried again from what the informer then says.
      if (isNotFound(error)) {
        this.#queue.done(pod);
        finish("error");
        return;
      }
      await this.#onError(pod, error, events, finish);
      return;
    }
    this.#queue.done(pod);
    this.#cache.finishBinding(pod);
    const message = `Successfully assigned ${key} to ${node}`;
    events.record({ resource: pods, object: pod, type: "Normal", reason: "Scheduled", message });
    finish("scheduled");
    this.#metrics.bound(popped.attempts, (clock.monotonicMs() - popped.addedMs) / 1000);
  }

  /** The room that a pod was given is free again. */
  #forget(pod: Pod): void {
    this.#cache.forget(pod);
    this.#queue.moved({ event: "AssignedPodDelete", old: pod });
  }

  async #onError(pod: Pod, error: unknown, events: EventSink, finish: Attempt["finish"]): Promise<void> {
    const message = messageOf(error);
    this.#deps.log.warn("pod could not be scheduled", { pod: keyOf(pod), error: message });
    this.#queue.failed(pod, new Set());
    finish("error");
    events.record({ resource: pods, object: pod, type: "Warning", reason: "FailedScheduling", message });
    this.#nominator.delete(keyOf(pod));
    await this.#writer.setUnscheduled(pod, "SchedulerError", message, "");
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
