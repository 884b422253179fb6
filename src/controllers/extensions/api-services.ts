// An APIService for every group and version that this server serves: its own from the start, those of custom resources
// as definitions come and go. Local ones are always available; those that name a service are somebody else's to judge.
// Upstream counterpart: kube-aggregator's autoregister controllers and the local part of its availability controller.
import { rfc3339 } from "#base/clock.ts";
import type { Service } from "#base/service.ts";
import {
  type ApiService,
  apiServiceName,
  automanagedLabel,
  localApiService,
  needsApiService,
} from "#model/api-services.ts";
import type { CustomResourceDefinition } from "#model/custom-resources.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { apiServices, customResourceDefinitions } from "#model/resources.ts";
import { isAlreadyExists, isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";

const local = {
  type: "Available",
  status: "True",
  reason: "Local",
  message: "Local APIServices are always available",
} as const;

/** `served`: what is built in and on. */
export function createApiServiceController(deps: ControllerDeps, served: readonly ResourceInfo[]): Service {
  const { client, clock } = deps;
  const store = deps.informers.informer(apiServices);
  const definitionStore = deps.informers.informer(customResourceDefinitions);
  const builtIn = new Map(
    served
      .filter(({ group }) => needsApiService(group))
      .map(({ group, version }) => [apiServiceName(group, version), localApiService(group, version, "onstart")]),
  );
  const namesOf = ({ spec }: CustomResourceDefinition): string[] =>
    (spec?.versions ?? []).map(({ name }) => apiServiceName(spec.group, name));

  function wantedOf(name: string): ApiService | undefined {
    const own = builtIn.get(name);
    if (own) return own;
    for (const definition of definitionStore.list()) {
      const version = definition.spec.versions.find(
        (each) => apiServiceName(definition.spec.group, each.name) === name,
      );
      if (version?.served && isEstablished(definition)) {
        return localApiService(definition.spec.group, version.name, "true");
      }
    }
    return undefined;
  }

  async function makeAvailable(service: ApiService): Promise<void> {
    const now = service.status?.conditions?.find(({ type }) => type === local.type);
    if (now?.status === "True") return;
    const others = service.status?.conditions?.filter(({ type }) => type !== local.type) ?? [];
    const condition = { ...local, lastTransitionTime: rfc3339(clock.now()) };
    await client.updateStatus(apiServices, { ...service, status: { conditions: [...others, condition] } });
  }

  return createController(
    {
      name: "autoregister-controller",
      // There may be no object at all yet that would mark them.
      firstKeys: builtIn.keys(),
      // At the first start all are made at once: together they share a few flushes.
      workers: 10,
      triggers: [on(store), on(definitionStore, namesOf)],
      async sync(name) {
        const found = store.get(name);
        const wanted = wantedOf(name);
        if (found && isDeleting(found)) return;
        try {
          if (!found && wanted) await makeAvailable(await client.create(apiServices, wanted));
          else if (found && !wanted && isOurs(found)) {
            await client.delete(apiServices, { name: nameOf(found) });
          } else if (found && !found.spec.service) await makeAvailable(found);
        } catch (error) {
          if (!isAlreadyExists(error) && !isNotFound(error)) throw error;
        }
      },
    },
    deps,
  );
}

/** Made for what was served then: of a definition that is gone, or of an API that is off now. */
const isOurs = ({ metadata }: ApiService): boolean =>
  ["true", "onstart"].includes(metadata.labels?.[automanagedLabel] ?? "");
const isEstablished = ({ status, metadata }: CustomResourceDefinition): boolean =>
  metadata.deletionTimestamp === undefined &&
  status?.conditions?.some(({ type, status: value }) => type === "Established" && value === "True") === true;
