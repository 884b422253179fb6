// Counts what quotas are about and writes it to their status: at once for a new or changed quota, after something that
// counts came or went, and from time to time for whatever was missed. Admission charges what is created before it is
// there; this loop gives back what has gone, and what was charged but never written.
// Upstream counterpart: pkg/controller/resourcequota. Unlike there, additions are counted again too, so that a store
// that was behind when somebody deleted something cannot leave the status too low.
import type { Service } from "#base/service.ts";
import type { Informer } from "#client/informer.ts";
import { type CustomResourceDefinition, walkableResourceOf } from "#model/custom-resources.ts";
import type { Service as KubernetesService, Pod, ResourceQuota } from "#model/gen/core-v1.ts";
import { type ApiObject, isDeleting, keyOf, nameOf, namespaceOf } from "#model/object.ts";
import { countsTowards } from "#model/quota/resources.ts";
import { addUsage, countsAsRunning, quotaCovers, type Usage, usageOf } from "#model/quota/usage.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import {
  allResources,
  customResourceDefinitions,
  persistentVolumeClaims,
  pods,
  resourceQuotas,
  services,
} from "#model/resources.ts";
import { type ControllerDeps, createController, type Trigger } from "../runtime/controller.ts";
import { isEqual } from "../runtime/equal.ts";

const name = "resourcequota-controller";
/** A store that has not been filled yet is asked again after this. */
const soonMs = 1000;
/** Kinds of which more than the number counts. */
const wholeObjects: readonly ResourceInfo[] = [pods, services, persistentVolumeClaims];

interface Counted {
  readonly about: ResourceInfo;
  readonly informer: Informer<ApiObject>;
}

/** To be made after the controllers that want whole objects: of what is only counted it asks for metadata. */
export function createResourceQuotaController(
  deps: ControllerDeps,
  { resyncMs }: { readonly resyncMs: number },
): Service {
  const { client, clock, informers } = deps;
  const quotaStore = informers.informer(resourceQuotas);
  const definitions = informers.informer(customResourceDefinitions);
  const builtIn = countable().map(
    (about): Counted => ({
      about,
      informer:
        about === resourceQuotas
          ? (quotaStore as unknown as Informer<ApiObject>)
          : informers.informer(about, { metadataOnly: !wholeObjects.includes(about) }),
    }),
  );

  /** Custom resources come and go while this runs; each is followed under its newest row. */
  const custom = new Map<string, Counted>();

  function* quotasAbout(about: ResourceInfo, object: ApiObject) {
    for (const quota of quotaStore.list(namespaceOf(object))) {
      if (Object.keys(quota.spec?.hard ?? {}).some((each) => countsTowards(about, each))) yield keyOf(quota);
    }
  }

  /** What comes and goes changes usage; of what stays only a few changes do. */
  const changesOf = ({ about, informer }: Counted): Trigger => ({
    informer: informer as unknown as Trigger["informer"],
    connect(mark) {
      const markAll = (object: ApiObject) => {
        for (const key of quotasAbout(about, object)) mark(key);
      };
      const changes = changeMatters[about.plural];
      informer.addHandler({
        add: markAll,
        delete: markAll,
        ...(changes && about.group === ""
          ? {
              update(object, old) {
                if (changes(object, old, clock.now())) markAll(object);
              },
            }
          : {}),
      });
    },
  });

  /** Undefined: a kind that was just defined has not been listed yet. */
  function count(quota: ResourceQuota): Usage | undefined {
    const hard = quota.spec?.hard ?? {};
    const used: Usage = new Map();
    const nowMs = clock.now();
    for (const { about, informer } of [...builtIn, ...custom.values()]) {
      const names = Object.keys(hard).filter((each) => countsTowards(about, each));
      if (names.length === 0) continue;
      if (!informer.hasSynced) return undefined;
      addUsage(used, new Map(names.map((each) => [each, zero])), hard);
      for (const object of informer.list(namespaceOf(quota))) {
        if (quotaCovers(quota, hard, about, object)) addUsage(used, usageOf(about, object, nowMs), hard);
      }
    }
    return used;
  }

  const definitionTrigger: Trigger = {
    informer: definitions as unknown as Trigger["informer"],
    connect(mark) {
      const enter = (definition: CustomResourceDefinition) => {
        const about = walkableResourceOf(definition);
        const old = custom.get(nameOf(definition));
        if (old && about && groupVersion(old.about) === groupVersion(about)) return;
        custom.delete(nameOf(definition));
        if (!about?.namespaced) return;
        const counted = { about, informer: informers.informer(about, { metadataOnly: true }) };
        custom.set(nameOf(definition), counted);
        changesOf(counted).connect(mark);
        for (const quota of quotaStore.list()) {
          if (Object.keys(quota.spec?.hard ?? {}).some((each) => countsTowards(about, each))) mark(keyOf(quota));
        }
      };
      definitions.addHandler({
        add: enter,
        update: enter,
        delete: (definition) => custom.delete(nameOf(definition)),
      });
    },
  };

  return createController(
    {
      name,
      workers: 5,
      triggers: [specChanges(quotaStore), ...builtIn.map(changesOf), definitionTrigger],
      async sync(key, again) {
        const quota = quotaStore.get(key);
        if (!quota || isDeleting(quota)) return;
        const counted = count(quota);
        again(counted ? resyncMs : soonMs);
        if (!counted) return;
        const hard = quota.spec?.hard ?? {};
        const known = Object.entries(quota.status?.used ?? {}).filter(([each]) => Object.hasOwn(hard, each));
        const counts = [...counted].map(([each, amount]) => [each, amount.toString()] as const);
        const used = { ...Object.fromEntries(known), ...Object.fromEntries(counts) };
        const status = { hard, used };
        if (isEqual(status, { hard: quota.status?.hard ?? {}, used: quota.status?.used ?? {} })) return;
        await client.updateStatus(resourceQuotas, { ...quota, status });
      },
    },
    deps,
  );
}

const zero = { nano: 0n, format: "DecimalSI", value: () => 0n, milliValue: () => 0n, toString: () => "0" } as const;

/** A status is ours or admission's: only what is asked for needs counting. */
const specChanges = (store: Informer<ResourceQuota>): Trigger => ({
  informer: store as unknown as Trigger["informer"],
  connect(mark) {
    store.addHandler({
      add: (quota) => mark(keyOf(quota)),
      update(quota, old) {
        if (!isEqual(quota.spec ?? {}, old.spec ?? {})) mark(keyOf(quota));
      },
    });
  },
});

const changeMatters: Readonly<Record<string, (object: ApiObject, old: ApiObject, nowMs: number) => boolean>> = {
  pods: (object, old, nowMs) =>
    countsAsRunning(object as Pod, nowMs) !== countsAsRunning(old as Pod, nowMs) ||
    (object as Pod).status?.resize !== (old as Pod).status?.resize,
  services: (object, old) => !isEqual((object as KubernetesService).spec, (old as KubernetesService).spec),
  persistentvolumeclaims: (object, old) =>
    !isEqual(requestsOf(object), requestsOf(old)) || !isEqual(allocatedOf(object), allocatedOf(old)),
};
type Claim = { spec?: { resources?: object }; status?: { allocatedResources?: object } };
const requestsOf = (object: ApiObject): object => (object as Claim).spec?.resources ?? {};
const allocatedOf = (object: ApiObject): object => (object as Claim).status?.allocatedResources ?? {};

/** Kinds in namespaces that are stored, one version of each; not events, which expire. */
const countable = (): ResourceInfo[] =>
  allResources.filter(
    (resource) =>
      resource.namespaced &&
      resource.verbs.includes("watch") &&
      resource.storageGroup === resource.group &&
      resource.storageVersion === groupVersion(resource) &&
      resource.plural !== "events",
  );
