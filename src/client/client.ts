// The typed client over a Transport: what controllers, scheduler, node agent and CLI use. One method per verb.
import type { ApiList, ApiObject } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import type { ApiRequest, ClientWatchEvent, Transport } from "./transport.ts";

export interface ListOptions {
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly limit?: number;
  readonly continue?: string;
  readonly resourceVersion?: string;
}
export interface WatchOptions extends ListOptions {
  readonly allowWatchBookmarks?: boolean;
  readonly timeoutSeconds?: number;
  readonly sendInitialEvents?: boolean;
}
export interface WriteOptions {
  readonly dryRun?: boolean;
  readonly fieldManager?: string;
  readonly subresource?: string;
}
export interface DeleteOptions {
  readonly gracePeriodSeconds?: number;
  readonly propagationPolicy?: "Orphan" | "Background" | "Foreground";
  readonly preconditions?: { uid?: string; resourceVersion?: string };
}
export type PatchType =
  | "application/json-patch+json"
  | "application/merge-patch+json"
  | "application/strategic-merge-patch+json"
  | "application/apply-patch+yaml";

export class Client {
  readonly transport: Transport;
  constructor(transport: Transport) {
    this.transport = transport;
  }

  get<T extends ApiObject>(resource: ResourceInfo<T>, name: string, namespace?: string): Promise<T> {
    return this.#object({ method: "GET", path: pathOf(resource, namespace, name) });
  }

  async list<T extends ApiObject>(
    resource: ResourceInfo<T>,
    options: ListOptions = {},
    signal?: AbortSignal,
  ): Promise<ApiList<T>> {
    const { namespace, ...query } = options;
    const request: ApiRequest = { method: "GET", path: pathOf(resource, namespace), query: stringify(query) };
    const body = await this.transport.request(request, signal);
    return body as unknown as ApiList<T>;
  }

  watch<T extends ApiObject>(
    resource: ResourceInfo<T>,
    options: WatchOptions,
    signal: AbortSignal,
    onOpen?: () => void,
  ): AsyncIterable<ClientWatchEvent<T>> {
    const { namespace, ...query } = options;
    const request: ApiRequest = {
      method: "GET",
      path: pathOf(resource, namespace),
      query: { ...stringify(query), watch: "true" },
    };
    return this.transport.watch(request, signal, onOpen) as AsyncIterable<ClientWatchEvent<T>>;
  }

  /** Posts to the collection, or with `subresource` and a name to e.g. pods/x/binding. */
  create<T extends ApiObject, R extends ApiObject = T>(
    resource: ResourceInfo<R>,
    object: T,
    options: WriteOptions & { name?: string } = {},
  ): Promise<T> {
    const path = pathOf(resource, object.metadata.namespace, options.name, options.subresource);
    return this.#object({ method: "POST", path, query: writeQuery(options), body: object });
  }

  update<T extends ApiObject>(resource: ResourceInfo<T>, object: T, options: WriteOptions = {}): Promise<T> {
    const path = pathOf(resource, object.metadata.namespace, object.metadata.name, options.subresource);
    return this.#object({ method: "PUT", path, query: writeQuery(options), body: object });
  }

  updateStatus<T extends ApiObject>(resource: ResourceInfo<T>, object: T): Promise<T> {
    return this.update(resource, object, { subresource: "status" });
  }

  patch<T extends ApiObject>(
    resource: ResourceInfo<T>,
    target: { readonly name: string; readonly namespace?: string | undefined },
    patch: unknown,
    options: WriteOptions & { readonly type?: PatchType } = {},
  ): Promise<T> {
    return this.#object({
      method: "PATCH",
      path: pathOf(resource, target.namespace, target.name, options.subresource),
      query: writeQuery(options),
      body: patch,
      contentType: options.type ?? "application/merge-patch+json",
    });
  }

  /** The object as it was, or as it is now that it is only marked for deletion. */
  delete<T extends ApiObject>(
    resource: ResourceInfo<T>,
    target: { readonly name: string; readonly namespace?: string | undefined },
    options: DeleteOptions = {},
  ): Promise<ApiObject> {
    return this.transport.request({
      method: "DELETE",
      path: pathOf(resource, target.namespace, target.name),
      body: { kind: "DeleteOptions", apiVersion: "v1", ...options },
    });
  }

  deleteCollection<T extends ApiObject>(
    resource: ResourceInfo<T>,
    options: ListOptions,
    how: DeleteOptions = {},
  ): Promise<ApiObject> {
    const { namespace, ...query } = options;
    return this.transport.request({
      method: "DELETE",
      path: pathOf(resource, namespace),
      query: stringify(query),
      body: { kind: "DeleteOptions", apiVersion: "v1", ...how },
    });
  }

  async #object<T extends ApiObject>(request: ApiRequest): Promise<T> {
    return (await this.transport.request(request)) as unknown as T;
  }
}

/** The URL path of a collection, an object or a subresource. */
export function pathOf(
  resource: ResourceInfo<ApiObject>,
  namespace: string | undefined,
  name?: string,
  subresource?: string,
): string {
  let path = resource.group === "" ? `/api/${resource.version}` : `/apis/${groupVersion(resource)}`;
  if (resource.namespaced && namespace) path += `/namespaces/${encodeURIComponent(namespace)}`;
  path += `/${resource.plural}`;
  if (name) path += `/${encodeURIComponent(name)}`;
  if (subresource) path += `/${subresource}`;
  return path;
}

function writeQuery(options: WriteOptions): Record<string, string | undefined> {
  return { dryRun: options.dryRun ? "All" : undefined, fieldManager: options.fieldManager };
}

function stringify(values: Readonly<Record<string, string | number | boolean | undefined>>): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [key, value] of Object.entries(values)) if (value !== undefined) out[key] = String(value);
  return out;
}
