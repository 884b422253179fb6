// What a node remembers of its cluster, so that it can boot without any server: its pods and how far they have come, what they
// are made of, and the services, endpoints, namespaces and nodes that its network is made by. Everything is noted while a
// server is there; at a start that finds none within a few seconds, informers begin with what was known and go on as soon as
// there is one. Nothing here is the truth: what the API says counts from the moment it says it.
//
//   node's requests ─▶ transport.ts ─┐                 ┌─▶ transport.ts, when the server is away (reach.ts)
//   informers (lists) ───────────────┼─▶ store.ts ─────┼─▶ informers' first lists
//   workers (pods, status) ──────────┘   (timing.ts)   └─▶ workers: status, final phases
import { isDeepStrictEqual } from "node:util";
import { type Clock, pause, type Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Service as Lifecycle } from "#base/service.ts";
import { attachmentName } from "#client/attachment-name.ts";
import { pathOf } from "#client/client.ts";
import type { Informer, InformerFactory, Recall } from "#client/informer.ts";
import type { Transport } from "#client/transport.ts";
import type { PersistentVolume, PersistentVolumeClaim, Pod, PodStatus, Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { type ApiObject, isDeleting, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import {
  csiDrivers,
  endpointSlices,
  namespaces,
  nodes,
  persistentVolumes,
  secrets,
  services,
  volumeAttachments,
} from "#model/resources.ts";
import { defaultBounds, type StoreBounds } from "./remembered/allowance.ts";
import { aboutPod, isAhead, isFinal, keptPod, pathsOf, podKey, vitalFacts } from "./remembered/kept-pod.ts";
import { type LocalPod, type LocalView, localPodOf, withLocalPods } from "./remembered/local-endpoints.ts";
import { ServerReach } from "./remembered/reach.ts";
import { RememberedStore, type StoreFiles } from "./remembered/store.ts";
import { timingOf } from "./remembered/timing.ts";
import { createRememberingTransport, nodePath, reduce, tokenPrefix } from "./remembered/transport.ts";

export interface NodeMemoryOptions {
  /** Holds secrets: nobody else may read it. */
  readonly folder: string;
  readonly nodeName: string;
  readonly bounds?: StoreBounds;
  /** Monotonic; default now. From when on a server is waited for. */
  readonly sinceMs?: number;
}

export interface NodeMemoryDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Asks the server something small, with the node's own certificate. */
  readonly probe: (path: string, signal: AbortSignal) => Promise<unknown>;
  /** Default: the system's. */
  readonly files?: StoreFiles;
}

/** What is known of a pod of this node in this run of the agent. */
interface SeenPod {
  readonly pod: Pod;
  /** What was vital when it was last noted; undefined before. */
  readonly vital?: string;
  /** The server itself has said that it has ended. */
  readonly isTold: boolean;
}

/** The machine's network comes up at a boot as well: so long after the start a server is waited for, and then no longer. */
const patienceMs = 4_000;
/** Rules and names come first, as pods cannot do without; a server that answers late puts them right. */
const networkPatienceMs = 1_000;
/** So long what no pod is made of stays: the next pod of a CronJob or a Deployment is made of the same. */
const unusedMs = 3600_000;
/** Written when the node's pods were known: without it there is nothing to begin with. */
const markKey = "pods";
const listKey = (resource: ResourceInfo<never> | ResourceInfo): string => `list/${resource.plural}`;
/** By which the network of a node is made. */
const networkResources = [services, endpointSlices, namespaces, nodes] as readonly ResourceInfo[];

export class NodeMemory {
  readonly reach: ServerReach;
  readonly #store: RememberedStore;
  readonly #nodeName: string;
  readonly #deps: NodeMemoryDeps;
  readonly #sinceMs: number;
  /** By pod uid: as many as there are workers. */
  readonly #seen = new Map<string, SeenPod>();
  /** Keys that no pod is made of any more, and since when. */
  readonly #unusedSinceMs = new Map<string, number>();
  /** By pod uid: where the pods of this node are, for slices that nobody else puts right. Until the API has spoken. */
  readonly #local = new Map<string, LocalPod>();
  #network: { readonly slices: Informer<EndpointSlice>; readonly services: Informer<Service> } | undefined;
  /** Of the last run, until their workers have taken them. */
  readonly #statuses = new Map<string, PodStatus>();

  private constructor(options: NodeMemoryOptions, deps: NodeMemoryDeps) {
    this.#nodeName = options.nodeName;
    this.#deps = deps;
    this.#sinceMs = options.sinceMs ?? deps.clock.monotonicMs();
    this.#store = new RememberedStore({ folder: options.folder, bounds: options.bounds ?? defaultBounds }, deps);
    const path = nodePath(options.nodeName);
    this.reach = new ServerReach({ ...deps, probe: (signal) => deps.probe(path, signal) });
    // From now on only this node knows what becomes of them.
    this.reach.onAway(() => {
      for (const { pod, vital } of this.#seen.values()) if (vital !== undefined) this.#note(pod);
    });
  }

  static async open(options: NodeMemoryOptions, deps: NodeMemoryDeps): Promise<NodeMemory> {
    const memory = new NodeMemory(options, deps);
    await memory.#store.open();
    for (const { metadata, status } of await memory.#pods()) {
      if (status) memory.#statuses.set(metadata.uid ?? "", status);
    }
    return memory;
  }

  /** Before all that uses it, so that it ends last. */
  get services(): readonly Lifecycle[] {
    return [
      this.#store,
      { name: "server-reach", run: (signal, ready) => this.reach.run(signal, ready) },
      { name: "remembered-sweep", run: (signal, ready) => this.#keepSwept(signal, ready) },
    ];
  }

  transport(inner: Transport): Transport {
    const { clock } = this.#deps;
    return createRememberingTransport(inner, {
      ...{ clock, nodeName: this.#nodeName },
      store: this.#store,
      reach: this.reach,
      isWanted: (key) => this.#isWanted(key),
    });
  }

  /** Whether this node has had pods of an API before, be it none. */
  get hasPods(): boolean {
    return this.#store.has(markKey);
  }

  /** Resolves when a server has been waited for long enough. */
  async patience(signal: AbortSignal): Promise<void> {
    await pause(this.#deps.clock, this.#sinceMs + patienceMs - this.#deps.clock.monotonicMs(), signal);
  }

  /** First lists of what the network is made by. */
  get networkRecall(): Recall {
    return {
      afterMs: networkPatienceMs,
      load: async (resource, scope) => {
        if (Object.keys(scope).length > 0) return undefined;
        const kept = await this.#list(listKey(resource as ResourceInfo));
        // A list that was lost, or too long to be kept, must keep no pod waiting: they start after their network.
        const known = kept ?? (this.hasPods ? [] : undefined);
        if (resource.plural !== endpointSlices.plural) return known;
        return known?.map((slice) => withLocalPods(slice as EndpointSlice, this.#view()));
      },
    };
  }

  /** The node's pods as they were, each without its status, which `statusOf` gives. */
  podRecall(afterMs: number): Recall {
    return {
      afterMs,
      load: async () =>
        this.hasPods ? (await this.#pods()).map(({ status: _, ...pod }) => pod as unknown as ApiObject) : undefined,
    };
  }

  /** Notes what the network's informers know, whenever that changes. */
  watch(informers: InformerFactory): void {
    this.#network = { slices: informers.informer(endpointSlices), services: informers.informer(services) };
    for (const resource of networkResources) {
      const informer = informers.informer(resource);
      const note = () => {
        // Until the API itself has spoken, it is what was read from here.
        if (!informer.isCurrent) return;
        const list = () => informer.list().map((object) => reduce({ kind: resource.kind, ...object }));
        const key = listKey(resource);
        this.#store.note(key, list, { about: `${resource.plural} of the cluster`, kind: key });
      };
      informer.addHandler({ add: note, update: note, delete: note });
      // The first list is complete only after its last object has been told.
      informer.whenCurrent(new AbortController().signal).then(note, () => {
        // Ended before: what was known stays.
      });
    }
  }

  /** What this node knew of the pod when it last ran, where that is more than the API knows. Once per pod. */
  takeStatus(pod: Pod): PodStatus | undefined {
    const kept = this.#statuses.get(uidOf(pod));
    this.#statuses.delete(uidOf(pod));
    return kept && isAhead(kept, pod.status) ? kept : undefined;
  }

  /** `pod` with the status worked out last. */
  remember(pod: Pod): void {
    this.#locate(uidOf(pod), localPodOf(pod));
    this.#note(pod);
  }

  /** The pod as the API has it. */
  heard(pod: Pod): void {
    const uid = uidOf(pod);
    const seen = this.#seen.get(uid);
    const isTold = isFinal(pod.status ?? {});
    this.#seen.set(uid, seen ? { ...seen, isTold } : { pod, isTold });
    // What is on the disk may say that it runs, and must be put right.
    if (isTold && !this.#store.isKept(podKey(uid))) this.#store.drop(podKey(uid));
  }

  /** The pod is gone for good; `others` are those that stay. */
  async forget(uid: string, others: readonly Pod[]): Promise<void> {
    const key = podKey(uid);
    const written = this.#store.written(key) as Pod | undefined;
    // As it is on the disk a boot would not start it.
    const isIdle = written !== undefined && (isFinal(written.status ?? {}) || isDeleting(written));
    this.#seen.delete(uid);
    this.#statuses.delete(uid);
    this.#locate(uid, undefined);
    this.#store.forget(key, { isIdle });
    for (const token of this.#tokensOf(uid)) this.#store.forget(token, { isIdle: true });
    await this.#sweep(others);
  }

  /** These are the node's pods, as the API says. */
  async keep(known: readonly Pod[]): Promise<void> {
    const uids = new Set(known.map(uidOf));
    for (const each of [this.#statuses, this.#seen])
      for (const uid of each.keys()) if (!uids.has(uid)) each.delete(uid);
    for (const key of this.#store.keys()) {
      const uid = /^(?:pod|token)\/([^/]+)/.exec(key)?.[1];
      if (uid !== undefined && !uids.has(uid)) this.#store.forget(key);
    }
    const node = this.#nodeName;
    this.#store.note(markKey, () => ({ node }), { about: "that this node has joined", kind: "pods", urgency: "vital" });
    await this.#sweep(known);
  }

  #note(pod: Pod): void {
    const uid = uidOf(pod);
    const key = podKey(uid);
    const seen = this.#seen.get(uid);
    const vital = vitalFacts(pod);
    const isTold = seen?.isTold ?? false;
    this.#seen.set(uid, { pod, vital, isTold });
    const [isKept, isAway] = [this.#store.isKept(key), this.reach.isAway];
    const timing = timingOf(pod, { isKept, isAway, isTold, isVital: seen?.vital !== vital });
    if (!timing) {
      this.#store.drop(key);
      return;
    }
    const needs = () => [...pathsOf(pod), ...this.#tokensOf(uid)];
    this.#store.note(key, () => keptPod(pod), { about: aboutPod(pod), kind: "pods", needs, ...timing });
  }

  #tokensOf(uid: string): string[] {
    return this.#store.keys().filter((key) => key.startsWith(tokenPrefix(uid)));
  }

  /** What only pods are made of that are not written down is not written down either. */
  #isWanted(key: string): boolean {
    const owner = /^token\/([^/]+)/.exec(key)?.[1];
    if (owner !== undefined) return !this.#seen.has(owner) || this.#store.isKept(podKey(owner));
    let isUsed = false;
    for (const [uid, { pod }] of this.#seen) {
      if (!pathsOf(pod).has(key)) continue;
      if (this.#store.isKept(podKey(uid))) return true;
      isUsed = true;
    }
    return !isUsed;
  }

  async #keepSwept(signal: AbortSignal, ready: () => void): Promise<void> {
    ready();
    const { clock } = this.#deps;
    for (;;) {
      await pause(clock, unusedMs, signal);
      if (signal.aborted) return;
      await this.#sweep([...this.#seen.values()].map(({ pod }) => pod));
    }
  }

  /** Services lead to where the pod is now, as long as only this node knows. */
  #locate(uid: string, pod: LocalPod | undefined): void {
    const slices = this.#network?.slices;
    if (!slices || slices.isCurrent) {
      this.#local.clear();
      return;
    }
    if (isDeepStrictEqual(this.#local.get(uid), pod)) return;
    if (pod) this.#local.set(uid, pod);
    else this.#local.delete(uid);
    for (const slice of slices.list()) {
      if (!slice.endpoints?.some(({ targetRef }) => targetRef?.uid === uid)) continue;
      const now = withLocalPods(slice, this.#view());
      if (now !== slice) slices.suppose(now);
    }
  }

  #view(): LocalView {
    const known = this.#network?.services;
    return {
      nodeName: this.#nodeName,
      pod: (uid) => this.#local.get(uid),
      takesUnready(slice) {
        const name = slice.metadata.labels?.["kubernetes.io/service-name"] ?? "";
        return known?.get(`${namespaceOf(slice)}/${name}`)?.spec.publishNotReadyAddresses === true;
      },
    };
  }

  /** Takes away what no pod is made of any more. */
  async #sweep(known: readonly Pod[]): Promise<void> {
    // What comes while files are read below is of a pod that is not among the known ones.
    const before = this.#store.keys();
    const paths = new Set<string>([nodePath(this.#nodeName)]);
    for (const pod of known) for (const path of pathsOf(pod)) paths.add(path);
    for (const path of [...paths]) {
      if (!path.includes("/persistentvolumeclaims/")) continue;
      const claim = (await this.#store.get(path)) as PersistentVolumeClaim | null | undefined;
      const name = claim?.spec.volumeName;
      if (!name) continue;
      const volumePath = pathOf(persistentVolumes, undefined, name);
      paths.add(volumePath);
      const csi = ((await this.#store.get(volumePath)) as PersistentVolume | null | undefined)?.spec.csi;
      if (csi) {
        const attachment = attachmentName(csi.volumeHandle, csi.driver, this.#nodeName);
        paths.add(pathOf(volumeAttachments, undefined, attachment));
      }
      for (const ref of [csi?.nodeStageSecretRef, csi?.nodePublishSecretRef, csi?.nodeExpandSecretRef]) {
        if (ref?.name) paths.add(pathOf(secrets, ref.namespace, ref.name));
      }
    }
    // Of a driver there is one object, however many volumes.
    const drivers = pathOf(csiDrivers, undefined);
    const nowMs = this.#deps.clock.monotonicMs();
    const unused = new Set(
      before.filter((key) => key.startsWith("/api") && !paths.has(key) && !key.startsWith(drivers)),
    );
    for (const key of this.#unusedSinceMs.keys()) if (!unused.has(key)) this.#unusedSinceMs.delete(key);
    for (const key of unused) {
      const sinceMs = this.#unusedSinceMs.get(key) ?? nowMs;
      this.#unusedSinceMs.set(key, sinceMs);
      if (this.#store.isKept(key) && nowMs - sinceMs < unusedMs) continue;
      this.#unusedSinceMs.delete(key);
      this.#store.forget(key);
    }
  }

  async #pods(): Promise<Pod[]> {
    const found: Pod[] = [];
    for (const key of this.#store.keys()) {
      const pod = key.startsWith(podKey("")) ? ((await this.#store.get(key)) as Pod | undefined) : undefined;
      if (pod) found.push(pod);
    }
    return found;
  }

  async #list(key: string): Promise<readonly ApiObject[] | undefined> {
    const kept = await this.#store.get(key);
    // As if it were lost, where it is anything else.
    return Array.isArray(kept) && kept.every(isObject) ? kept : undefined;
  }
}

const isObject = (value: unknown): value is ApiObject => {
  const { metadata } = (value ?? {}) as Partial<ApiObject>;
  return typeof metadata === "object" && metadata !== null && typeof metadata.name === "string";
};
