// The scheduler's side of binding: its view of storage with promises laid over it, and the writes that make them true
// before the pod itself is bound.
//
//   promise ──▶ volume.claimRef and claim selected-node written ──▶ binder, provisioner ──▶ claims bound ──▶ pod is bound
//      └────────────── a write fails, the provisioner gives the node back, ten minutes pass: all forgotten ──▶ tried again
//
// A promise about an object holds as long as the informer shows it as it was when promised.
// Upstream counterpart: volumebinding (AssumePodVolumes, BindPodVolumes), util/assumecache.
import type { Clock } from "#base/clock.ts";
import type { Client } from "#client/client.ts";
import type { Informer, InformerFactory } from "#client/informer.ts";
import type { PersistentVolume, PersistentVolumeClaim } from "#model/gen/core-v1.ts";
import type { NodeFeatures } from "#model/node-selector.ts";
import { type ApiObject, keyOf, nameOf, uidOf } from "#model/object.ts";
import {
  csiDrivers,
  csiNodes,
  csiStorageCapacities,
  persistentVolumeClaims,
  persistentVolumes,
  storageClasses,
} from "#model/resources.ts";
import { boundVolume, isFullyBound, volumeAnnotations } from "#model/volumes.ts";
import { reachesNode, type VolumePlan, type VolumeView } from "./volumes.ts";

const lookMs = 1000;

export interface VolumeBinderDeps {
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly clock: Clock;
}

export interface VolumeBinding {
  readonly node: NodeFeatures;
  /** Is the pod still there? */
  readonly isWanted: () => boolean;
  readonly timeoutMs: number;
}

/** Objects of one kind as promised. */
class Promised<T extends ApiObject> {
  readonly #store: Informer<T>;
  readonly #promises = new Map<string, { readonly base: string; readonly object: T }>();

  constructor(store: Informer<T>) {
    this.#store = store;
  }
  get(key: string): T | undefined {
    const stored = this.#store.get(key);
    const promise = this.#promises.get(key);
    if (!promise) return stored;
    if (stored && stored.metadata.resourceVersion === promise.base) return promise.object;
    this.#promises.delete(key);
    return stored;
  }
  list(): T[] {
    const all = this.#store.list();
    return this.#promises.size === 0 ? all : all.map((object) => this.get(keyOf(object)) ?? object);
  }
  promise(object: T): void {
    const base = this.#store.get(keyOf(object))?.metadata.resourceVersion ?? "";
    this.#promises.set(keyOf(object), { base, object });
  }
  forget(key: string): void {
    this.#promises.delete(key);
  }
}

export class VolumeBinder {
  readonly view: VolumeView;
  readonly informers: readonly Informer<never>[];
  readonly #deps: VolumeBinderDeps;
  readonly #claims: Promised<PersistentVolumeClaim>;
  readonly #volumes: Promised<PersistentVolume>;

  constructor(deps: VolumeBinderDeps) {
    this.#deps = deps;
    const store = deps.informers;
    const classes = store.informer(storageClasses);
    const nodes = store.informer(csiNodes);
    const drivers = store.informer(csiDrivers);
    const capacities = store.informer(csiStorageCapacities);
    this.#claims = new Promised(store.informer(persistentVolumeClaims));
    this.#volumes = new Promised(store.informer(persistentVolumes));
    this.view = {
      claim: (key) => this.#claims.get(key),
      volume: (name) => this.#volumes.get(name),
      volumes: () => this.#volumes.list(),
      storageClass: (name) => classes.get(name),
      csiNode: (name) => nodes.get(name),
      csiDriver: (name) => drivers.get(name),
      capacities: () => capacities.list(),
    };
    this.informers = [
      store.informer(persistentVolumeClaims),
      store.informer(persistentVolumes),
      classes,
      nodes,
      drivers,
      capacities,
    ] as unknown as Informer<never>[];
  }

  /** Counts the plan as done for all decisions that follow. */
  promise(plan: VolumePlan, node: string): void {
    for (const { claim, volume } of plan.bindings) this.#volumes.promise(boundVolume(volume, claim));
    for (const claim of plan.provisions) this.#claims.promise(withNode(claim, node));
  }

  forget(plan: VolumePlan): void {
    for (const { volume } of plan.bindings) this.#volumes.forget(nameOf(volume));
    for (const claim of plan.provisions) this.#claims.forget(keyOf(claim));
  }

  /** Writes the plan and waits until every claim is bound. */
  async bind(plan: VolumePlan, { node, isWanted, timeoutMs }: VolumeBinding, signal: AbortSignal): Promise<void> {
    const { client, clock } = this.#deps;
    try {
      for (const { claim, volume } of plan.bindings) {
        const wanted = boundVolume(volume, claim);
        if (wanted !== volume) await client.update(persistentVolumes, wanted);
      }
      for (const claim of plan.provisions) {
        const wanted = withNode(claim, node.name);
        if (wanted !== claim) await client.update(persistentVolumeClaims, wanted);
      }
      const untilMs = clock.monotonicMs() + timeoutMs;
      while (!this.#isBound(plan, node)) {
        if (!isWanted()) throw new Error("the pod is gone");
        if (clock.monotonicMs() >= untilMs) throw new Error("binding volumes: context deadline exceeded");
        await this.#nextChange(signal);
      }
    } catch (error) {
      this.forget(plan);
      throw error;
    }
  }

  #isBound(plan: VolumePlan, node: NodeFeatures): boolean {
    const claims = this.#deps.informers.informer(persistentVolumeClaims);
    const volumes = this.#deps.informers.informer(persistentVolumes);
    const current = (claim: PersistentVolumeClaim): PersistentVolumeClaim => {
      const found = claims.get(keyOf(claim));
      if (!found || uidOf(found) !== uidOf(claim)) {
        throw new Error(`binding volumes: persistentvolumeclaim "${nameOf(claim)}" not found`);
      }
      return found;
    };
    let isDone = true;
    for (const { claim, volume } of plan.bindings) {
      const found = volumes.get(nameOf(volume));
      if (!found) throw new Error(`binding volumes: persistentvolume "${nameOf(volume)}" not found`);
      if (found.spec.claimRef && found.spec.claimRef.uid !== uidOf(claim)) {
        throw new Error(`binding volumes: ClaimRef got reset for pv ${nameOf(volume)}`);
      }
      if (!isFullyBound(current(claim))) isDone = false;
    }
    for (const claim of plan.provisions) {
      const found = current(claim);
      if (isFullyBound(found)) {
        const volume = volumes.get(found.spec.volumeName ?? "");
        if (!volume) isDone = false;
        else if (!reachesNode(volume, node)) {
          throw new Error(`binding volumes: pv "${nameOf(volume)}" node affinity doesn't match node "${node.name}"`);
        }
        continue;
      }
      isDone = false;
      // The provisioner gives the node back where it cannot make the volume; until our write is seen it has none either.
      const base = claim.metadata.resourceVersion;
      const selected = found.metadata.annotations?.[volumeAnnotations.selectedNode];
      if (found.metadata.resourceVersion !== base && selected !== node.name) {
        throw new Error(`binding volumes: selectedNode annotation reset for PVC "${nameOf(claim)}"`);
      }
    }
    return isDone;
  }

  /** Until a claim or volume changes, or a second has passed. */
  async #nextChange(signal: AbortSignal): Promise<void> {
    const { clock, informers } = this.#deps;
    const wait = new AbortController();
    const wake = () => wait.abort(new Error("something changed"));
    const stops = [
      informers.informer(persistentVolumeClaims).addHandler({ update: wake, delete: wake }),
      informers.informer(persistentVolumes).addHandler({ update: wake, delete: wake }),
    ];
    signal.addEventListener("abort", wake, { once: true });
    try {
      await clock.sleep(lookMs, wait.signal);
    } catch (error) {
      // Woken, which is what it waits for.
      if (!wait.signal.aborted) throw error;
    } finally {
      for (const stop of stops) stop();
      signal.removeEventListener("abort", wake);
    }
    signal.throwIfAborted();
  }
}

function withNode(claim: PersistentVolumeClaim, node: string): PersistentVolumeClaim {
  if (claim.metadata.annotations?.[volumeAnnotations.selectedNode] === node) return claim;
  const annotations = { ...claim.metadata.annotations, [volumeAnnotations.selectedNode]: node };
  return { ...claim, metadata: { ...claim.metadata, annotations } };
}
