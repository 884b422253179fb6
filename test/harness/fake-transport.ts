// A Transport over a plain map, for tests of machinery that does not need a whole API server: lists, watches from a
// revision, writes with conflict checks, deletes. No defaults, no validation, no finalizers beyond "not gone while any".
// Everything that does need an API server is tested on test/harness/in-memory-cluster.ts.
import type { ApiRequest, ClientWatchEvent, Transport } from "#client/transport.ts";
import type { ApiObject, UnknownObject } from "#model/object.ts";
import { ApiError, alreadyExists, conflict, expired, notFound, staleUpdate } from "#model/status.ts";

interface Change {
  readonly revision: number;
  readonly collection: string;
  readonly event: ClientWatchEvent;
}

export class FakeTransport implements Transport {
  /** Every request in order, as `VERB path`. */
  readonly log: string[] = [];
  /** Set to make requests fail: return an error for those that should. */
  fail: (request: ApiRequest) => Error | undefined = () => undefined;
  #revision = 1;
  #compacted = 0;
  #uid = 0;
  readonly #objects = new Map<string, UnknownObject>();
  #history: Change[] = [];
  readonly #listeners = new Set<() => void>();
  #generation = 0;

  /** Forgets history, so that resuming from an old revision is answered with 410. */
  compact(): void {
    this.#compacted = this.#revision;
    this.#history = [];
  }
  /** Ends all watches, as a restarting server does. */
  disconnect(): void {
    this.#generation++;
    for (const wake of this.#listeners) wake();
  }

  async request(request: ApiRequest): Promise<UnknownObject> {
    this.log.push(`${request.method} ${request.path}`);
    const failure = this.fail(request);
    if (failure) throw failure;
    const at = locate(request.path);
    const body = request.body as UnknownObject | undefined;
    if (request.method === "GET") {
      if (at.name) return this.#get(at.path, at);
      const items = [...this.#objects].filter(([path]) => inCollection(path, at)).map(([, object]) => object);
      return { kind: "List", apiVersion: "v1", metadata: { resourceVersion: String(this.#revision) }, items };
    }
    if (request.method === "POST") {
      const object = structuredClone(body!);
      object.metadata.name ??= `${object.metadata.generateName}${this.#uid}`;
      const path = `${at.path}/${object.metadata.name}`;
      if (this.#objects.has(path)) throw alreadyExists({ group: "", resource: at.plural }, object.metadata.name);
      object.metadata.uid ??= `uid-${++this.#uid}`;
      return this.#store(path, object, "ADDED");
    }
    const old = this.#get(at.path, at);
    if (request.method === "DELETE") {
      if (old.metadata.finalizers?.length) {
        const object = structuredClone(old);
        object.metadata.deletionTimestamp ??= "2026-01-01T00:00:00Z";
        return this.#store(at.path, object, "MODIFIED");
      }
      return this.#remove(at.path, old);
    }
    const object = request.method === "PUT" ? structuredClone(body!) : merge(old, body);
    if (request.method === "PUT") {
      const asked = object.metadata.resourceVersion;
      if (asked && asked !== old.metadata.resourceVersion) {
        throw conflict({ group: "", resource: at.plural }, at.name, staleUpdate);
      }
    }
    if (object.metadata.deletionTimestamp && !object.metadata.finalizers?.length) {
      return this.#remove(at.path, object);
    }
    return this.#store(at.path, object, "MODIFIED");
  }

  async *watch(request: ApiRequest, signal: AbortSignal, onOpen = () => {}): AsyncIterable<ClientWatchEvent> {
    this.log.push(`WATCH ${request.path}?resourceVersion=${request.query?.["resourceVersion"]}`);
    const failure = this.fail(request);
    if (failure) throw failure;
    const at = locate(request.path);
    let next = Number(request.query?.["resourceVersion"]) + 1;
    if (next <= this.#compacted) {
      yield { type: "ERROR", object: expired("too old resource version").status };
      return;
    }
    onOpen();
    const generation = this.#generation;
    while (!signal.aborted && generation === this.#generation) {
      const due = this.#history.filter((c) => c.revision >= next && inCollection(c.collection, at));
      next = this.#revision + 1;
      for (const change of due) yield change.event;
      if (this.#revision >= next) continue;
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#listeners.delete(wake);
          signal.removeEventListener("abort", wake);
          resolve();
        };
        this.#listeners.add(wake);
        signal.addEventListener("abort", wake, { once: true });
        if (signal.aborted) wake();
      });
    }
  }

  #get(path: string, at: { readonly name: string; readonly plural: string }): UnknownObject {
    const found = this.#objects.get(path);
    if (!found) throw notFound({ group: "", resource: at.plural }, at.name);
    return found;
  }
  #store(path: string, object: UnknownObject, type: "ADDED" | "MODIFIED"): UnknownObject {
    object.metadata.resourceVersion = String(++this.#revision);
    this.#objects.set(path, object);
    this.#emit(path, { type, object });
    return object;
  }
  #remove(path: string, last: UnknownObject): UnknownObject {
    this.#objects.delete(path);
    const object = structuredClone(last);
    object.metadata.resourceVersion = String(++this.#revision);
    this.#emit(path, { type: "DELETED", object });
    return object;
  }
  #emit(path: string, event: ClientWatchEvent): void {
    this.#history.push({ revision: this.#revision, collection: path, event });
    for (const wake of [...this.#listeners]) wake();
  }
}

interface Location {
  /** Of the object or the collection, without subresource. */
  readonly path: string;
  readonly group: string;
  readonly namespace: string;
  readonly plural: string;
  readonly name: string;
}

function locate(path: string): Location {
  const parts = path.split("/").filter((p) => p !== "");
  const groupLength = parts[0] === "api" ? 2 : 3;
  const group = `/${parts.slice(0, groupLength).join("/")}`;
  let rest = parts.slice(groupLength);
  let namespace = "";
  if (rest[0] === "namespaces" && rest.length > 2 && rest[2] !== "finalize" && rest[2] !== "status") {
    namespace = rest[1]!;
    rest = rest.slice(2);
  }
  const [plural = "", name = ""] = rest;
  const base = namespace ? `${group}/namespaces/${namespace}/${plural}` : `${group}/${plural}`;
  return { path: name ? `${base}/${name}` : base, group, namespace, plural, name };
}

function inCollection(path: string, at: Location): boolean {
  const found = locate(path);
  return (
    found.group === at.group && found.plural === at.plural && (at.namespace === "" || found.namespace === at.namespace)
  );
}

/** RFC 7396. */
function merge(target: ApiObject, patch: unknown): UnknownObject {
  const walk = (into: unknown, from: unknown): unknown => {
    if (typeof from !== "object" || from === null || Array.isArray(from)) return from;
    const out: Record<string, unknown> =
      typeof into === "object" && into !== null && !Array.isArray(into) ? { ...into } : {};
    for (const [key, value] of Object.entries(from)) {
      if (value === null) delete out[key];
      else out[key] = walk(out[key], value);
    }
    return out;
  };
  return walk(structuredClone(target), patch) as UnknownObject;
}

/** For `fail`: the server cannot be reached. */
export const unreachableServer = (): ApiError => new ApiError(503, "ServiceUnavailable", "the server is not there");
