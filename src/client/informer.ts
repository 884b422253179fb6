// A local, always nearly current copy of one resource, shared by everything in the process that reads it.
//
//   list (pages of 500) ──► store ◄── watch from that revision (bookmarks move the resume point)
//                             │              │ broken: resume from the last revision    410: list again, deliver the
//                             ▼              ▼                                          difference as events
//                          indexes        handlers: add / update / delete (they only mark keys, synchronously)
//
// Objects are shared by reference and must never be changed; with `verify` they are deep-frozen so that a test fails
// where one is. An object replaced by another of the same name is reported as delete, then add.
// Upstream counterpart: client-go reflector, shared informer, thread-safe store.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { type ApiObject, keyOf, namespaceOf, uidOf } from "#model/object.ts";
import { groupVersion, qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import { ApiError } from "#model/status.ts";
import { Backoff } from "./backoff.ts";
import type { Client } from "./client.ts";
import { type Deferred, deferred } from "./deferred.ts";

export interface InformerScope {
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** Keep only metadata of each object (and of that not managedFields): for readers that look at owners and names. */
  readonly metadataOnly?: boolean;
}

export interface InformerHandler<T extends ApiObject> {
  add?(object: T): void;
  update?(object: T, old: T): void;
  delete?(object: T): void;
}

export type IndexFn<T> = (object: T) => readonly string[];

/** What readers see; the part of Informer that tests may fake. */
export interface Store<T extends ApiObject> {
  /** By `namespace/name`, or `name` for cluster-scoped resources. */
  get(key: string): T | undefined;
  /** All objects, or those of one namespace. A fresh array; its objects are shared. */
  list(namespace?: string): T[];
  byIndex(name: string, value: string): T[];
}

/** What was known when the process last ran, for a start without a server. */
export interface Recall {
  /** A first list is waited for so long. */
  readonly afterMs: number;
  /** Objects without a revision: whatever the API says counts as newer. Undefined: nothing is known. */
  readonly load: (
    resource: ResourceInfo<never> | ResourceInfo,
    scope: InformerScope,
  ) => Promise<readonly ApiObject[] | undefined>;
}

export interface InformerDeps {
  readonly client: Client;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly recall?: Recall;
}

export interface InformerOptions {
  /** Freeze what is stored, so that a change of a shared object throws. For tests: it walks every object. */
  readonly verify?: boolean;
}

/** Objects per list request, as client-go's pager. */
const pageSize = 500;
/** client-go's reflector: 800 ms growing to 30 s, fresh after two quiet minutes. */
const retry = { minMs: 800, maxMs: 30_000, resetMs: 120_000 } as const;
/** A watch that ends sooner than this without an event counts as a failure, so that it cannot spin. */
const shortWatchMs = 1000;
/**
 * One that was open so long is broken by the network or a restart, which may be over: the first try comes soon, whatever was
 * before. How long a list or a connection took before it failed says nothing of the kind.
 */
const steadyMs = 2000;
const soonMs = 300;
const namespaceIndex = "namespace";

export class Informer<T extends ApiObject> implements Store<T> {
  readonly resource: ResourceInfo<T>;
  readonly #scope: InformerScope;
  readonly #options: InformerOptions;
  readonly #deps: InformerDeps;
  readonly #items = new Map<string, T>();
  readonly #indexes = new Map<string, { readonly fn: IndexFn<T>; readonly values: Map<string, Map<string, T>> }>();
  readonly #handlers = new Set<InformerHandler<T>>();
  readonly #synced = deferred<void>();
  readonly #current = deferred<void>();
  /** Until what the API had when `refresh` was called has come. */
  #fresh: Deferred<void> | undefined;
  /** Gives up what is under way, and lists again. */
  #begin: () => void = () => {};
  #hasSynced = false;
  #isCurrent = false;
  #resourceVersion: string | undefined;

  constructor(resource: ResourceInfo<T>, scope: InformerScope, options: InformerOptions, deps: InformerDeps) {
    this.resource = resource;
    this.#scope = scope;
    this.#options = options;
    this.#deps = deps;
  }

  /** The first list, or what was known before, has been stored and handed to all handlers. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }
  /** The API itself has given a list: not only what was known before. */
  get isCurrent(): boolean {
    return this.#isCurrent;
  }
  /**
   * Resolves once `hasSynced`, and what `refresh` has asked for is there; rejects with the signal's reason, or that for which
   * it was ended before.
   */
  async whenSynced(signal: AbortSignal): Promise<void> {
    if (!this.#hasSynced) await this.#until(this.#synced.promise, signal);
    while (this.#fresh) await this.#until(this.#fresh.promise, signal);
  }
  /** The same once `isCurrent`. */
  async whenCurrent(signal: AbortSignal): Promise<void> {
    if (!this.#isCurrent) await this.#until(this.#current.promise, signal);
  }
  async #until(promise: Promise<void>, signal: AbortSignal): Promise<void> {
    const aborted = deferred<never>();
    const onAbort = () => aborted.reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.race([promise, aborted.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }
  /** The revision up to which the store is current; for tests and metrics. */
  get resourceVersion(): string | undefined {
    return this.#resourceVersion;
  }
  get size(): number {
    return this.#items.size;
  }

  get(key: string): T | undefined {
    return this.#items.get(key);
  }
  list(namespace?: string): T[] {
    if (namespace === undefined) return [...this.#items.values()];
    this.addIndex(namespaceIndex, (object) => [namespaceOf(object)]);
    return this.byIndex(namespaceIndex, namespace);
  }
  byIndex(name: string, value: string): T[] {
    const index = this.#indexes.get(name);
    if (!index) throw new Error(`informer for ${this.resource.plural} has no index ${name}`);
    const found = index.values.get(value);
    return found ? [...found.values()] : [];
  }

  /** Adds an index over what is and what will be there. The name decides: a second one of the same name is the first. */
  addIndex(name: string, fn: IndexFn<T>): void {
    if (this.#indexes.has(name)) return;
    const index = { fn, values: new Map<string, Map<string, T>>() };
    this.#indexes.set(name, index);
    for (const [key, object] of this.#items) place(index, key, undefined, object);
  }

  /** Handlers run synchronously and must not throw. Present objects are reported as added at once. */
  addHandler(handler: InformerHandler<T>): () => void {
    this.#handlers.add(handler);
    for (const object of this.#items.values()) handler.add?.(object);
    return () => this.#handlers.delete(handler);
  }

  /**
   * Lists again, so that `whenSynced` waits for what the API has now: a watch may be behind with what others wrote until a
   * moment ago, and whoever is to decide alone from now on must know it.
   */
  refresh(): void {
    this.#fresh ??= deferred<void>();
    this.#resourceVersion = undefined;
    this.#begin();
  }

  /** Keeps the copy current until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#keepCurrent(signal), this.#recall(signal)]);
    // Who waits for the first list waits for nothing.
    if (!this.#hasSynced) this.#synced.reject(signal.reason);
    if (!this.#isCurrent) this.#current.reject(signal.reason);
    this.#fresh?.reject(signal.reason);
    this.#fresh = undefined;
  }

  /** Begins with what was known before, where the first list is late. */
  async #recall(signal: AbortSignal): Promise<void> {
    const { clock, log, recall } = this.#deps;
    if (!recall) return;
    try {
      const late = new AbortController();
      const stop = () => late.abort();
      signal.addEventListener("abort", stop, { once: true });
      this.#current.promise.then(stop, stop);
      await pause(clock, recall.afterMs, late.signal);
      signal.removeEventListener("abort", stop);
      if (late.signal.aborted) return;
      const known = await recall.load(this.resource as ResourceInfo, this.#scope);
      if (!known || this.#isCurrent || signal.aborted) return;
      for (const object of known) this.#put(object as T);
      this.#markSynced();
    } catch (error) {
      // As if nothing were known: the list is waited for.
      log.warn("cannot recall what was known", { resource: qualifiedResource(this.resource), error: messageOf(error) });
    }
  }

  /** What somebody here knows better than what was known before; nothing once the API itself has spoken. */
  suppose(object: T): void {
    if (this.#hasSynced && !this.#isCurrent) this.#put(object);
  }

  #markSynced(): void {
    if (this.#hasSynced) return;
    this.#hasSynced = true;
    this.#synced.resolve();
  }

  async #keepCurrent(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(retry, this.#deps);
    while (!signal.aborted) {
      const turn = new AbortController();
      const stop = () => turn.abort(signal.reason);
      signal.addEventListener("abort", stop, { once: true });
      this.#begin = () => turn.abort();
      await this.#once(backoff, turn.signal);
      signal.removeEventListener("abort", stop);
    }
    this.#begin = () => {};
  }

  /** Follows from where it is until that ends, and waits before the next time where that is due. Never rejects. */
  async #once(backoff: Backoff, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    let openedAtMs: number | undefined;
    const openMs = () => (openedAtMs === undefined ? 0 : clock.monotonicMs() - openedAtMs);
    const hasLasted = () => openMs() >= steadyMs;
    let reason = "watch ended at once";
    try {
      if (this.#resourceVersion === undefined) await this.#relist(signal);
      const seen = await this.#follow(this.#resourceVersion!, signal, () => {
        openedAtMs = clock.monotonicMs();
      });
      if (hasLasted()) backoff.reset();
      if (seen > 0 || openMs() >= shortWatchMs) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.code === 410) this.#resourceVersion = undefined;
      reason = messageOf(error);
    }
    if (signal.aborted) return;
    log.debug("informer interrupted", { resource: qualifiedResource(this.resource), reason });
    if (hasLasted()) backoff.reset();
    await pause(clock, hasLasted() ? this.#deps.random.float() * soonMs : backoff.next(), signal);
  }

  async #relist(signal: AbortSignal): Promise<void> {
    const { client } = this.#deps;
    const { metadataOnly: _, ...selectors } = this.#scope;
    // A first list may be a moment old, as the watch brings the rest: servers have that one ready. One that comes after a gap
    // must not be older than what was there.
    const from = this.#isCurrent || this.#fresh ? {} : { resourceVersion: "0" };
    const fresh = new Map<string, T>();
    let resourceVersion: string | undefined;
    let next: string | undefined;
    do {
      const page = await client.list(
        this.resource,
        { ...selectors, limit: pageSize, ...(next ? { continue: next } : from) },
        signal,
      );
      // The answer came all the same, and is older than what is asked for now.
      signal.throwIfAborted();
      for (const object of page.items) fresh.set(keyOf(object), object);
      resourceVersion = page.metadata.resourceVersion;
      next = page.metadata.continue;
    } while (next);
    for (const key of [...this.#items.keys()]) if (!fresh.has(key)) this.#remove(key, undefined);
    for (const object of fresh.values()) this.#put(object);
    this.#resourceVersion = resourceVersion;
    this.#isCurrent = true;
    this.#current.resolve();
    this.#markSynced();
    this.#fresh?.resolve();
    this.#fresh = undefined;
  }

  /** Applies a watch until it ends; the number of events it brought. */
  async #follow(resourceVersion: string, signal: AbortSignal, onOpen: () => void): Promise<number> {
    const { client, random } = this.#deps;
    const { metadataOnly: _, ...selectors } = this.#scope;
    // 5 to 10 minutes, as client-go: watches move away from a server that was restarted, and not all at once.
    const timeoutSeconds = Math.floor(300 * (1 + random.float()));
    const options = { ...selectors, resourceVersion, allowWatchBookmarks: true, timeoutSeconds };
    let seen = 0;
    for await (const event of client.watch(this.resource, options, signal, onOpen)) {
      if (signal.aborted) break;
      if (event.type === "ERROR") throw ApiError.from(event.object);
      seen++;
      const { object } = event;
      if (event.type === "DELETED") this.#remove(keyOf(object), object);
      else if (event.type !== "BOOKMARK") this.#put(object);
      this.#resourceVersion = object.metadata.resourceVersion ?? this.#resourceVersion;
    }
    return seen;
  }

  #put(received: T): void {
    const key = keyOf(received);
    const old = this.#items.get(key);
    const { resourceVersion } = received.metadata;
    const isKnown = resourceVersion !== undefined && old?.metadata.resourceVersion === resourceVersion;
    if (isKnown && old && uidOf(old) === uidOf(received)) return;
    if (old && uidOf(old) !== uidOf(received)) {
      this.#remove(key, old);
      this.#put(received);
      return;
    }
    const object = this.#keep(received);
    this.#items.set(key, object);
    for (const index of this.#indexes.values()) place(index, key, old, object);
    for (const handler of this.#handlers) {
      if (old) handler.update?.(object, old);
      else handler.add?.(object);
    }
  }

  #remove(key: string, last: T | undefined): void {
    const old = this.#items.get(key);
    if (!old) return;
    this.#items.delete(key);
    for (const index of this.#indexes.values()) place(index, key, old, undefined);
    const final = last ? this.#keep(last) : old;
    for (const handler of this.#handlers) handler.delete?.(final);
  }

  #keep(object: T): T {
    let kept = object;
    if (this.#scope.metadataOnly) {
      const { managedFields: _, ...metadata } = object.metadata;
      kept = { apiVersion: groupVersion(this.resource), kind: this.resource.kind, metadata } as T;
    }
    return this.#options.verify ? deepFreeze(kept) : kept;
  }
}

/** The informers of a process: one per resource and scope, however many readers. Runs those asked for, also later ones. */
export class InformerFactory implements Service {
  readonly name = "informers";
  readonly #options: InformerOptions;
  readonly #deps: InformerDeps;
  readonly #informers = new Map<string, Informer<ApiObject>>();
  readonly #stops = new Map<Informer<ApiObject>, () => void>();
  #start: ((informer: Informer<ApiObject>) => void) | undefined;

  constructor(options: InformerOptions, deps: InformerDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  informer<T extends ApiObject>(resource: ResourceInfo<T>, scope: InformerScope = {}): Informer<T> {
    const { namespace = "", labelSelector = "", fieldSelector = "", metadataOnly = false } = scope;
    const full = [resource.group, resource.version, resource.plural, namespace, labelSelector, fieldSelector].join("|");
    const key = metadataOnly && !this.#informers.has(full) ? `${full}|metadata` : full;
    let informer = this.#informers.get(key);
    if (!informer) {
      informer = new Informer(resource, scope, this.#options, this.#deps) as unknown as Informer<ApiObject>;
      this.#informers.set(key, informer);
      this.#start?.(informer);
    }
    return informer as unknown as Informer<T>;
  }

  /** Ends it and forgets it: its resource is gone. Whoever asks for that resource again gets a new one. */
  stop(informer: Informer<ApiObject>): void {
    for (const [key, known] of this.#informers) if (known === informer) this.#informers.delete(key);
    this.#stops.get(informer)?.();
    this.#stops.delete(informer);
  }

  /** All of them list again: see Informer. */
  refresh(): void {
    for (const informer of this.#informers.values()) informer.refresh();
  }

  get informers(): readonly Informer<ApiObject>[] {
    return [...this.#informers.values()];
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    // A signal per informer, so that none carries the listeners of all.
    const children = new Set<AbortController>();
    const tasks = new Set<Promise<void>>();
    const ended = deferred<void>();
    let failure: { readonly error: unknown } | undefined;
    const stop = (reason: unknown) => {
      for (const child of children) child.abort(reason);
      ended.resolve();
    };
    const onAbort = () => stop(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#start = (informer) => {
      const child = new AbortController();
      children.add(child);
      this.#stops.set(informer, () => {
        children.delete(child);
        child.abort(new AppError("CLIENT_INFORMER_STOPPED", "the informer was stopped"));
      });
      const task = informer.run(child.signal).catch((error: unknown) => {
        failure ??= { error };
        stop(error);
      });
      tasks.add(task);
      void task.then(() => tasks.delete(task));
    };
    const synced = async () => {
      for (const informer of this.#informers.values()) {
        try {
          await informer.whenSynced(signal);
        } catch (error) {
          // One whose resource went meanwhile keeps nobody from being ready.
          if (!hasCode(error, "CLIENT_INFORMER_STOPPED")) throw error;
        }
      }
      ready();
    };
    try {
      for (const informer of this.#informers.values()) this.#start(informer);
      if (signal.aborted) onAbort();
      const first = synced().catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
      await Promise.race([ended.promise, first]);
      await ended.promise;
    } finally {
      this.#start = undefined;
      this.#stops.clear();
      signal.removeEventListener("abort", onAbort);
      await Promise.all(tasks);
    }
    if (failure) throw failure.error;
  }
}

/** Moves `key` between the values an object is indexed under. */
function place<T>(
  index: { readonly fn: IndexFn<T>; readonly values: Map<string, Map<string, T>> },
  key: string,
  old: T | undefined,
  object: T | undefined,
): void {
  if (old !== undefined) {
    for (const value of index.fn(old)) {
      const members = index.values.get(value);
      members?.delete(key);
      if (members?.size === 0) index.values.delete(value);
    }
  }
  if (object !== undefined) {
    for (const value of index.fn(object)) {
      const members = index.values.get(value);
      if (members) members.set(key, object);
      else index.values.set(value, new Map([[key, object]]));
    }
  }
}

export function deepFreeze<V>(value: V): V {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  Object.freeze(value);
  for (const inner of Object.values(value)) deepFreeze(inner);
  return value;
}
