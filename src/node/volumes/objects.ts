// Config maps, secrets and services as pods on this node need them: read when asked for, kept for a minute, so that a pod
// start costs no watch and a refresh of all volumes reads each object once. Bounded: the oldest entry goes first.
import type { Clock } from "#base/clock.ts";
import type { Client } from "#client/client.ts";
import type { ConfigMap, Secret, Service } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { configMaps, secrets, services } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";

/** Objects of up to 1 MiB each: an edge node must not keep many. */
const maxEntries = 64;
/** Upstream's volumes lag behind the API by up to a minute as well. */
const freshMs = 45_000;
/** Environments are made once: a service that was made a moment ago must be in them. */
const servicesFreshMs = 2_000;

export interface PodObjects {
  configMap(namespace: string, name: string): Promise<ConfigMap | undefined>;
  secret(namespace: string, name: string): Promise<Secret | undefined>;
  /** Of the namespace, and default/kubernetes. */
  services(namespace: string): Promise<readonly Service[]>;
  /** Forgets an object, so that a container that failed for want of it sees it at once. */
  forget(namespace: string): void;
}

export function createPodObjects(deps: { readonly client: Client; readonly clock: Clock }): PodObjects {
  const { client, clock } = deps;
  const cache = new Map<string, { readonly atMs: number; readonly value: unknown }>();

  async function cached<T>(key: string, maxAgeMs: number, read: () => Promise<T>): Promise<T> {
    const found = cache.get(key);
    if (found && clock.monotonicMs() - found.atMs < maxAgeMs) return found.value as T;
    const value = await read();
    cache.delete(key);
    // What is not there is asked for again: somebody is about to create it.
    if (value === undefined) return value;
    cache.set(key, { atMs: clock.monotonicMs(), value });
    for (const oldest of cache.keys()) {
      if (cache.size <= maxEntries) break;
      cache.delete(oldest);
    }
    return value;
  }

  const get = <T extends ApiObject>(resource: ResourceInfo<T>, namespace: string, name: string) =>
    cached(`${namespace}/${resource.plural}/${name}`, freshMs, async () => {
      try {
        return await client.get(resource, name, namespace);
      } catch (error) {
        if (isNotFound(error)) return undefined;
        throw error;
      }
    });

  return {
    configMap: (namespace, name) => get(configMaps, namespace, name),
    secret: (namespace, name) => get(secrets, namespace, name),
    async services(namespace) {
      const own = await cached(
        `${namespace}/services`,
        servicesFreshMs,
        async () => (await client.list(services, { namespace })).items,
      );
      if (namespace === "default") return own;
      const master = await get(services, "default", "kubernetes");
      return master ? [...own, master] : own;
    },
    forget(namespace) {
      for (const key of cache.keys()) if (key.startsWith(`${namespace}/`)) cache.delete(key);
    },
  };
}
