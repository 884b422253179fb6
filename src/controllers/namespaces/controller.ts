// Deletes what is in a namespace that is being deleted, says in its conditions what is left, and lets it go.
//
//   deletionTimestamp ──► phase Terminating ──► delete collections of every resource ──► nothing left? ──► PUT finalize
//                                  ▲                              │ something left
//                                  └──────── wait half a grace ───┘
//
// Upstream counterpart: pkg/controller/namespace.

import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import { walkableResourceOf } from "#model/custom-resources.ts";
import type { Namespace, Pod } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf } from "#model/object.ts";
import { graceSecondsOf } from "#model/pod-grace.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { allResources, customResourceDefinitions, namespaces, pods } from "#model/resources.ts";
import { isApiError, isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on, waitFor } from "../runtime/controller.ts";
import { lookAgainMs, planConditions, type Sweep } from "./plan.ts";

const finalizer = "kubernetes";
/** For what a finalizer holds back, upstream's guess of how long that takes. */
const finalizerEstimateSeconds = 15;

export function createNamespaceController(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const store = deps.informers.informer(namespaces);
  const builtIn = deletableResources();
  const definitions = deps.informers.informer(customResourceDefinitions);
  /** Custom resources first: those who work for them may make built-in ones. */
  const contents = (): ResourceInfo[] => [
    ...definitions
      .list()
      .flatMap((definition) => walkableResourceOf(definition) ?? [])
      .filter((r) => r.namespaced),
    ...builtIn,
  ];

  async function sweep(namespace: string): Promise<Sweep & { readonly graceSeconds: number }> {
    const remaining = new Map<string, number>();
    const finalizers = new Map<string, number>();
    const errors: string[] = [];
    let graceSeconds = 0;
    for (const resource of contents()) {
      try {
        // Asked first: most resources have nothing in a given namespace, and a list is cheaper than a write.
        const before = await client.list(resource, { namespace, limit: 1 });
        if (before.items.length === 0) continue;
        await client.deleteCollection(resource, { namespace }, { propagationPolicy: "Background" });
        const { items } = await client.list(resource, { namespace });
        if (items.length === 0) continue;
        remaining.set(`${resource.plural}.${resource.group}`, items.length);
        for (const item of items) {
          for (const name of item.metadata.finalizers ?? []) finalizers.set(name, (finalizers.get(name) ?? 0) + 1);
          if (item.metadata.finalizers?.length) graceSeconds = Math.max(graceSeconds, finalizerEstimateSeconds);
          const grace = resource.plural === "pods" ? graceOf(item as unknown as Pod) : 0;
          graceSeconds = Math.max(graceSeconds, grace);
        }
      } catch (error) {
        if (isNotFound(error) || isApiError(error, "MethodNotAllowed")) continue;
        errors.push(messageOf(error));
      }
    }
    return { remaining, finalizers, errors, graceSeconds };
  }

  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const seen = store.get(key);
    if (!seen || !isDeleting(seen)) return;
    let namespace: Namespace = await client.get(namespaces, key);
    if (namespace.metadata.uid !== seen.metadata.uid || !isDeleting(namespace)) return;
    if ((namespace.spec.finalizers ?? []).length === 0) return;
    if (namespace.status?.phase !== "Terminating") {
      namespace = await client.updateStatus(namespaces, {
        ...namespace,
        status: { ...namespace.status, phase: "Terminating" },
      });
    }
    const found = await sweep(key);
    const old = namespace.status?.conditions ?? [];
    const conditions = planConditions(old, found, rfc3339(clock.now()));
    if (conditions !== old) {
      const status = { ...namespace.status, conditions: [...conditions] };
      namespace = await client.updateStatus(namespaces, { ...namespace, status });
    }
    if (found.errors.length > 0) throw new Error(found.errors.join(", "));
    if (found.remaining.size > 0) {
      again(lookAgainMs(found.graceSeconds));
      return;
    }
    const finalizers = (namespace.spec.finalizers ?? []).filter((name) => name !== finalizer);
    try {
      await client.update(
        namespaces,
        { ...namespace, spec: { ...namespace.spec, finalizers } },
        { subresource: "finalize" },
      );
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  const podStore = deps.informers.informer(pods);
  return createController(
    {
      name: "namespace-controller",
      workers: 4,
      triggers: [
        on(store),
        // Waited for, not acted on: a namespace must not go before all that may be in it is known.
        waitFor(definitions),
        // The last pod going is what most deletions wait for; no need to sit out the estimate.
        on(podStore, (pod, how) => {
          if (how !== "delete") return [];
          const namespace = store.get(namespaceOf(pod));
          return namespace && isDeleting(namespace) ? [nameOf(namespace)] : [];
        }),
      ],
      sync,
    },
    deps,
  );
}

const graceOf = (pod: Pod): number => graceSecondsOf(pod, pod.metadata.deletionGracePeriodSeconds);

/** Namespaced resources that can be listed and deleted, each once however many versions serve it; pods last. */
function deletableResources(): ResourceInfo[] {
  const out = allResources.filter(
    (resource) =>
      resource.namespaced &&
      resource.verbs.includes("deletecollection") &&
      resource.verbs.includes("list") &&
      resource.storageVersion === groupVersion(resource) &&
      resource.storageGroup === resource.group,
  );
  // What makes pods goes first, so that they do not come back.
  return [...out.filter((r) => r.plural !== "pods"), ...out.filter((r) => r.plural === "pods" && r.group === "")];
}
