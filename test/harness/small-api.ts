// Just enough of an API for the scheduler alone, quick enough that it and not the API is measured: collections in maps,
// watches as queues, pods with binding and status. Objects are shared and never changed. Writes take a turn of the event
// loop, as a flush would, so that several are under way at once. No validation, no conflicts but of names and bindings.
import type { ApiRequest, ClientWatchEvent, Transport } from "#client/transport.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import type { ApiObject, UnknownObject } from "#model/object.ts";
import { alreadyExists, conflict, notFound } from "#model/status.ts";
import { nextTurn } from "#platform/turns.ts";

interface Watcher {
  events: ClientWatchEvent[];
  wake: () => void;
}
interface Collection {
  readonly objects: Map<string, UnknownObject>;
  readonly watchers: Set<Watcher>;
}
interface Place {
  readonly collection: string;
  readonly key: string;
  readonly name: string;
  readonly namespace: string;
  readonly plural: string;
  readonly subresource: string;
}

export class SmallApi implements Transport {
  /** Called for every binding, in order. */
  onBinding: (pod: string, node: string) => void = () => {};
  readonly #collections = new Map<string, Collection>();
  #revision = 1;

  /** Puts an object in, or changes it; whoever watches is told. */
  put(collection: string, object: ApiObject): void {
    const { namespace, name } = object.metadata;
    const key = namespace ? `${namespace}/${name}` : (name ?? "");
    const { objects } = this.#of(collection);
    const isNew = !objects.has(key);
    const metadata = { ...object.metadata, uid: object.metadata.uid ?? key, resourceVersion: String(++this.#revision) };
    const stored = { ...object, metadata } as UnknownObject;
    objects.set(key, stored);
    this.#tell(collection, { type: isNew ? "ADDED" : "MODIFIED", object: stored });
  }

  delete(collection: string, key: string): boolean {
    const { objects } = this.#of(collection);
    const old = objects.get(key);
    if (!old) return false;
    objects.delete(key);
    const metadata = { ...old.metadata, resourceVersion: String(++this.#revision) };
    this.#tell(collection, { type: "DELETED", object: { ...old, metadata } });
    return true;
  }

  get<T extends ApiObject>(collection: string, key: string): T | undefined {
    return this.#of(collection).objects.get(key) as T | undefined;
  }
  list<T extends ApiObject>(collection: string): T[] {
    return [...this.#of(collection).objects.values()] as unknown as T[];
  }

  async request(request: ApiRequest): Promise<UnknownObject> {
    const at = placeOf(request.path);
    if (request.method === "GET") {
      if (at.name !== "") return this.#found(at);
      const items = [...this.#of(at.collection).objects.values()];
      return { kind: "List", apiVersion: "v1", metadata: { resourceVersion: String(this.#revision) }, items } as never;
    }
    await nextTurn();
    const body = request.body as UnknownObject;
    if (request.method === "POST" && at.subresource === "binding") return this.#bind(at, body);
    if (request.method === "POST") {
      const key = at.namespace ? `${at.namespace}/${body.metadata.name}` : (body.metadata.name ?? "");
      if (this.get(at.collection, key))
        throw alreadyExists({ group: "", resource: at.plural }, body.metadata.name ?? "");
      this.put(at.collection, body);
      return this.#found({ ...at, key });
    }
    const old = this.#found(at);
    if (request.method === "DELETE") {
      this.delete(at.collection, at.key);
      return old;
    }
    this.put(
      at.collection,
      request.method === "PUT" ? body : withStatus(old as unknown as Pod, body as unknown as Pod),
    );
    return this.#found(at);
  }

  async *watch(request: ApiRequest, signal: AbortSignal, onOpen?: () => void): AsyncIterable<ClientWatchEvent> {
    const { watchers } = this.#of(placeOf(request.path).collection);
    const watcher: Watcher = { events: [], wake: () => {} };
    // Nothing is put in between a list and the watch that follows it: both are of the same turn or before all starts.
    watchers.add(watcher);
    onOpen?.();
    const onAbort = () => watcher.wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const { events } = watcher;
        watcher.events = [];
        for (const event of events) yield event;
        if (watcher.events.length > 0 || signal.aborted) continue;
        await new Promise<void>((resolve) => {
          watcher.wake = resolve;
        });
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      watchers.delete(watcher);
    }
  }

  #bind(at: Place, body: UnknownObject): UnknownObject {
    const pod = this.#found(at) as unknown as Pod;
    if (pod.spec.nodeName) throw conflict({ group: "", resource: "pods/binding" }, at.name, "is assigned already");
    const node = (body as unknown as { target: { name: string } }).target.name;
    const scheduled = { type: "PodScheduled", status: "True" };
    const { nominatedNodeName: _, ...status } = pod.status ?? {};
    this.put(at.collection, {
      ...pod,
      spec: { ...pod.spec, nodeName: node },
      status: { ...status, conditions: [scheduled] },
    } as Pod);
    this.onBinding(at.key, node);
    return body;
  }

  #found(at: Place): UnknownObject {
    const found = this.#of(at.collection).objects.get(at.key);
    if (!found) throw notFound({ group: "", resource: at.plural }, at.name);
    return found;
  }
  #of(collection: string): Collection {
    let found = this.#collections.get(collection);
    if (!found) {
      found = { objects: new Map(), watchers: new Set() };
      this.#collections.set(collection, found);
    }
    return found;
  }
  #tell(collection: string, event: ClientWatchEvent): void {
    for (const watcher of this.#of(collection).watchers) {
      watcher.events.push(event);
      watcher.wake();
    }
  }
}

/** `/api/v1/namespaces/NS/pods/NAME/binding` → collection `/api/v1/pods`. */
function placeOf(path: string): Place {
  const parts = path.split("/").slice(1);
  const groupLength = parts[0] === "api" ? 2 : 3;
  const group = parts.slice(0, groupLength).join("/");
  let rest = parts.slice(groupLength);
  let namespace = "";
  if (rest[0] === "namespaces" && rest.length > 2) {
    namespace = rest[1]!;
    rest = rest.slice(2);
  }
  const [plural = "", name = "", subresource = ""] = rest;
  return {
    collection: `/${group}/${plural}`,
    key: namespace ? `${namespace}/${name}` : name,
    name,
    namespace,
    plural,
    subresource,
  };
}

/** What the scheduler patches: conditions by type, the nominated node. */
function withStatus(pod: Pod, patch: Pod): Pod {
  const { conditions = [], ...others } = patch.status ?? {};
  const types = new Set(conditions.map(({ type }) => type));
  const status: Record<string, unknown> = { ...pod.status, ...others };
  for (const [key, value] of Object.entries(status)) if (value === null) delete status[key];
  status["conditions"] = [...(pod.status?.conditions ?? []).filter(({ type }) => !types.has(type)), ...conditions];
  return { ...pod, status } as Pod;
}
