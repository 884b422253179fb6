// The shape of every control loop here: informers mark keys, a queue hands out each key once, `sync` brings the world
// one step closer to what the object under that key asks for. A controller is its sync function plus the table of which
// change marks which keys; everything else is in this file.
//
// `sync` reads the informers' stores, never changes what it finds there, and throws on any failure: the key comes back
// after a growing pause. It must be right when called at any time, twice, or after missing any number of changes.
// Upstream counterpart: the sample-controller's Run / processNextWorkItem / syncHandler.
import type { Clock, Random } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { EventRecorder } from "#client/events.ts";
import type { Informer, InformerFactory } from "#client/informer.ts";
import { WorkQueue } from "#client/workqueue.ts";
import { type ApiObject, keyOf } from "#model/object.ts";
import { isApiError, isConflict } from "#model/status.ts";

/** What all controllers are given. */
export interface ControllerDeps {
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
}

export interface Trigger {
  readonly informer: Informer<never>;
  readonly connect: (mark: (key: string) => void) => void;
}

/** Changes of `informer`'s objects mark the keys that `keys` names, by default the object's own; an update that `isNothing` none. */
export function on<T extends ApiObject>(
  informer: Informer<T>,
  keys: (object: T, how: "add" | "update" | "delete") => Iterable<string | undefined> = (object) => [keyOf(object)],
  isNothing: (object: T, old: T) => boolean = () => false,
): Trigger {
  return {
    informer: informer as unknown as Informer<never>,
    connect(mark) {
      const markAll = (object: T, how: "add" | "update" | "delete") => {
        for (const key of keys(object, how)) if (key !== undefined) mark(key);
      };
      informer.addHandler({
        add: (object) => markAll(object, "add"),
        // The old object counts too: what no longer belongs somewhere must be missed there.
        update: (object, old) => {
          if (isNothing(object, old)) return;
          markAll(old, "update");
          markAll(object, "update");
        },
        delete: (object) => markAll(object, "delete"),
      });
    },
  };
}

/** Waits until `informer` is filled; what changes there marks nothing. */
export const waitFor = <T extends ApiObject>(informer: Informer<T>): Trigger => ({
  informer: informer as unknown as Informer<never>,
  connect() {},
});

export interface ControllerSpec {
  /** As upstream names it in events and metrics, e.g. deployment-controller. */
  readonly name: string;
  /** Keys in work at a time. They share one event loop: more only hides waiting for writes. */
  readonly workers: number;
  readonly triggers: readonly Trigger[];
  /** Looked at once at the start, whatever is there. */
  readonly firstKeys?: Iterable<string>;
  /**
   * At the start of each run. Of several servers one runs this at a time, and perhaps again later: since when something has
   * been so must not be known from an earlier run, for nobody has seen here whether it stayed so.
   */
  begin?(): void;
  /** `again(ms)` asks to look at this key once more after a while, whatever happens meanwhile. */
  sync(key: string, again: (ms: number) => void, signal: AbortSignal): Promise<void>;
}

/** As dashboards know the queues; others lose `-controller`. */
const queueNames: Readonly<Record<string, string>> = {
  "replication-controller": "replicationmanager",
  "horizontal-pod-autoscaler": "horizontalpodautoscaler",
  "horizontal-pod-autoscaler-controller": "horizontalpodautoscaler",
  "clusterrole-aggregation-controller": "ClusterRoleAggregator",
  "persistentvolumeclaim-protection-controller": "pvcprotection",
  "persistentvolume-protection-controller": "pvprotection",
  "persistentvolume-expander-controller": "volume_expand",
  "root-ca-certificate-publisher-controller": "root_ca_cert_publisher",
  "ttl-after-finished-controller": "ttl_jobs_to_delete",
  "ttl-controller": "ttlcontroller",
  "endpointslicemirroring-controller": "endpoint_slice_mirroring",
};
const queueNameOf = (name: string): string => queueNames[name] ?? name.replace(/-controller$/, "").replaceAll("-", "_");

/** The service that runs `spec`; ready when its informers have synced. */
export function createController(spec: ControllerSpec, deps: ControllerDeps): Service {
  const queue = new WorkQueue({ name: queueNameOf(spec.name) }, deps);
  const log = deps.log.child({ controller: spec.name });
  for (const key of spec.firstKeys ?? []) queue.add(key);
  for (const trigger of spec.triggers) trigger.connect((key) => queue.add(key));
  const failures = deps.metrics.counter("mote_controllers_sync_failures_total", "Syncs of a key that failed.");

  const work = async (key: string, signal: AbortSignal): Promise<void> => {
    try {
      await spec.sync(key, (ms) => queue.addAfter(key, ms), signal);
      queue.forget(key);
    } catch (error) {
      if (isAbort(error, signal)) return;
      queue.retry(key);
      failures.add(1, { controller: spec.name });
      // Losing a race is how optimistic concurrency works; a key that keeps failing is worth a look.
      const isWorthALook = !isConflict(error) && queue.failures(key) === 8;
      log[isWorthALook ? "warn" : "debug"]("sync failed", { key, error: messageOf(error) });
    }
  };

  return {
    name: spec.name,
    async run(signal, ready) {
      try {
        for (const trigger of spec.triggers) await trigger.informer.whenSynced(signal);
      } catch (error) {
        if (isAbort(error, signal)) return;
        throw error;
      }
      spec.begin?.();
      ready();
      await queue.run({ workers: spec.workers }, (key) => work(key, signal), signal);
    },
  };
}

/** Writing into a namespace that is going away: nothing to report, the namespace controller finishes the job. */
export const isNamespaceTerminating = (error: unknown): boolean =>
  isApiError(error, "Forbidden") &&
  (error.status.details?.causes ?? []).some((cause) => cause.reason === "NamespaceTerminating");
