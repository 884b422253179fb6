// What strategies and admission plugins may look at and write beside the object that they are asked about: straight from
// the store, as the server itself, and still bound to what the writer must hold (guard.ts). A dry run writes nothing.
import { assert } from "#base/assert.ts";
import type { Clock, Random } from "#base/clock.ts";
import type { UnknownObject } from "#model/object.ts";
import { isAlreadyExists, isConflict, isNotFound } from "#model/status.ts";
import { loopback } from "../authn/user.ts";
import type { StrategyContext } from "../strategy.ts";
import { guardsOf } from "./guard.ts";
import { cloneTop } from "./object-rules.ts";
import type { Registry, Resource, WriteContext } from "./registry.ts";

export interface StrategyContextDeps {
  readonly clock: Clock;
  readonly random: Random;
  /** By qualified resource, e.g. deployments.apps. */
  readonly resources: ReadonlyMap<string, Resource>;
}

/** Who writes further objects for them. */
type Writer = Pick<Registry, "create" | "delete">;

/** What the server writes for itself. */
const serverWrite: WriteContext = { user: loopback, dryRun: false, warn() {} };

/** What strategies and plugins may look at. */
export function strategyContext(deps: StrategyContextDeps, writer: Writer, write: WriteContext): StrategyContext {
  const find = (resource: string): Resource => {
    const found = deps.resources.get(resource);
    assert(found, `a strategy asked for the unknown resource ${resource}`);
    return found;
  };
  const { mustHold } = write.user;
  const asServer = mustHold ? { ...serverWrite, user: { ...loopback, mustHold } } : serverWrite;
  return {
    user: write.user,
    clock: deps.clock,
    random: deps.random,
    dryRun: write.dryRun,
    warn: write.warn,
    ...(write.annotate ? { annotate: write.annotate } : {}),
    async get<T>(resource: string, namespace: string, name: string) {
      const { storage } = find(resource);
      const item = await storage.get(namespace, name);
      return item && (storage.decode(item) as T);
    },
    async list<T>(resource: string, namespace = "") {
      const { storage } = find(resource);
      return (await storage.list(namespace)).items.map((item) => storage.decode(item) as T);
    },
    async replace(resource, from, to) {
      assert(!write.dryRun, "a dry run writes nothing");
      const { storage } = find(resource);
      const { namespace = "", name = "", resourceVersion } = from.metadata;
      const item = await storage.get(namespace, name);
      if (!item || storage.decode(item).metadata.resourceVersion !== resourceVersion) return false;
      const object = cloneTop(to as unknown as UnknownObject);
      return (await storage.update(item, object, guardsOf(write.user))) !== undefined;
    },
    create: async (resource, object) => {
      assert(!write.dryRun, "a dry run writes nothing");
      const found = find(resource);
      try {
        const { namespace = "" } = object.metadata;
        const item = await writer.create(found, namespace, object as unknown as UnknownObject, asServer);
        return found.storage.decode(item) as unknown as typeof object;
      } catch (error) {
        if (isAlreadyExists(error)) return undefined;
        throw error;
      }
    },
    remove: async (resource, object) => {
      assert(!write.dryRun, "a dry run writes nothing");
      const { namespace = "", name = "", uid = "" } = object.metadata;
      try {
        await writer.delete(find(resource), namespace, name, { preconditions: { uid } }, asServer);
      } catch (error) {
        // Gone already, or it is another one by now.
        if (!isNotFound(error) && !isConflict(error)) throw error;
      }
    },
  };
}
