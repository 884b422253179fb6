// Controllers of one kind whose keys are its objects: most small ones are only a row of this and what to do about one
// object. One that lets objects live for a while and then deletes them is a row that says how long.
// Upstream counterpart: the informer, queue and worker that each of certificates, token cleaner, protection, expand
// and ttlafterfinished brings along.
import type { Service } from "#base/service.ts";
import type { DeleteOptions } from "#client/client.ts";
import type { Informer } from "#client/informer.ts";
import { type ApiObject, isDeleting } from "#model/object.ts";
import { type ControllerDeps, type ControllerSpec, createController, on, type Trigger } from "./controller.ts";
import { deleteIfThere } from "./writes.ts";

export interface ObjectControllerSpec<T extends ApiObject> extends Pick<ControllerSpec, "name" | "workers"> {
  readonly store: Informer<T>;
  /** What else marks keys of `store`. */
  readonly triggers?: readonly Trigger[];
  /** One that is there and not being deleted. */
  sync(object: T, again: (ms: number) => void): Promise<void>;
  /** One that is being deleted; absent: those are left alone. */
  end?(object: T): Promise<void>;
}

export function createObjectController<T extends ApiObject>(
  { name, workers, store, triggers = [], sync, end }: ObjectControllerSpec<T>,
  deps: ControllerDeps,
): Service {
  return createController(
    {
      name,
      workers,
      triggers: [on(store), ...triggers],
      async sync(key, again) {
        const object = store.get(key);
        if (!object) return;
        if (!isDeleting(object)) await sync(object, again);
        else await end?.(object);
      },
    },
    deps,
  );
}

export interface ExpirySpec<T extends ApiObject> extends Pick<DeleteOptions, "propagationPolicy"> {
  readonly name: string;
  readonly store: Informer<T>;
  /** Milliseconds until the object may go; undefined: it stays, as it is now. */
  leftMs(object: T, nowMs: number): number | undefined;
  /** It is deleted, so long after its time was over. */
  deleted?(lateMs: number): void;
}

/** Deletes objects when their time is over. */
export function createExpiryController<T extends ApiObject>(
  { name, store, leftMs, deleted, ...how }: ExpirySpec<T>,
  deps: ControllerDeps,
): Service {
  return createObjectController(
    {
      name,
      workers: 1,
      store,
      async sync(object, again) {
        const waitMs = leftMs(object, deps.clock.now());
        // A time that cannot be read is no reason to delete.
        if (waitMs === undefined || Number.isNaN(waitMs)) return;
        if (waitMs > 0) {
          again(waitMs);
          return;
        }
        // The store may be behind a change that gives it more time: what goes is the object as it was judged.
        const { resourceVersion } = object.metadata;
        const preconditions = resourceVersion === undefined ? {} : { resourceVersion };
        if (await deleteIfThere(deps.client, store.resource, object, { ...how, preconditions })) deleted?.(-waitMs);
      },
    },
    deps,
  );
}
