// Makes, at every start, what a cluster cannot do without: the system namespaces, default roles and bindings, the two
// system priority classes, the objects of flow control, the `kubernetes` service with its endpoints, and the authorities that extension servers trust.
// Works through the API like any client, so it may be run again at any time; then it is ready and waits for the end.
// Upstream counterpart: kube-apiserver's post-start hooks and the controlplane controllers.
import type { Clock } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Service as Process, untilAborted } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import * as resources from "#model/resources.ts";
import { defaultServiceCidr } from "#model/service-addresses.ts";
import { isAlreadyExists, isConflict, isNotFound } from "#model/status.ts";
import { autoUpdateSpec, flowSchemas, priorityLevels } from "./flow-control.ts";
import { rbacPolicy } from "./rbac-policy.ts";
import { reconcileBinding, reconcileRole, type Step } from "./reconcile.ts";
import {
  type ApiAddress,
  authenticationConfig,
  kubernetesService,
  priorityClasses,
  systemNamespaces,
} from "./system-objects.ts";

export interface BootstrapOptions {
  /** Where pods reach this API server; not a loopback address. */
  readonly advertiseAddress: string;
  /** Others tell their addresses at the same place (publishServers): what stands there already stays. */
  readonly hasOtherServers?: boolean;
  /** Default 6443. */
  readonly apiPort?: number;
  /** Default 10.43.0.1. */
  readonly serviceIp?: string;
  /** With the feature gate MultiCIDRServiceAllocator: what the default ServiceCIDR is made of. */
  readonly serviceCidrs?: readonly string[];
  /** PEM; published in kube-system/extension-apiserver-authentication when given. */
  readonly clientCa?: string;
  readonly requestHeaderCa?: string;
}

export interface BootstrapDependencies {
  /** With the identity of the server itself. */
  readonly client: Client;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Pause between attempts while the API is not able to take writes yet. */
const retryMs = 500;

export function createBootstrapper(options: BootstrapOptions, dependencies: BootstrapDependencies): Process {
  return {
    name: "bootstrap",
    async run(signal, ready) {
      while (!signal.aborted) {
        try {
          await bootstrap(options, dependencies.client);
          break;
        } catch (error) {
          dependencies.log.warn("bootstrap failed, trying again", { error: messageOf(error) });
          await dependencies.clock.sleep(retryMs, signal).catch((reason: unknown) => {
            if (!isAbort(reason, signal)) throw reason;
          });
        }
      }
      if (signal.aborted) return;
      ready();
      await untilAborted(signal);
    },
  };
}

/** One pass; changes nothing where all is as it should be. */
export async function bootstrap(options: BootstrapOptions, client: Client): Promise<void> {
  const ensure = <T extends ApiObject>(resource: ResourceInfo<T>, wanted: T, plan: (found: T) => Step<T>) =>
    ensureObject(client, resource, wanted, plan);
  const keep = <T extends ApiObject>(): Step<T> => ({ do: "keep" });

  await together(systemNamespaces().map((namespace) => ensure(resources.namespaces, namespace, keep)));
  const { serviceCidrs = [] } = options;
  const policy = rbacPolicy({ serviceCidrs: serviceCidrs.length > 0 });
  // Addresses of services come from it. It stays as it is, whatever the flags say now.
  if (serviceCidrs.length > 0) await ensure(resources.serviceCidrs, defaultServiceCidr(serviceCidrs), keep);
  const { service, endpoints, slice } = kubernetesService({
    addresses: [options.advertiseAddress],
    apiPort: options.apiPort ?? 6443,
    serviceIp: options.serviceIp ?? "10.43.0.1",
  });
  const trust = authenticationConfig(options);
  await together([
    ...policy.clusterRoles.map((role) => ensure(resources.clusterRoles, role, (found) => reconcileRole(role, found))),
    ...policy.clusterRoleBindings.map((binding) =>
      ensure(resources.clusterRoleBindings, binding, (found) => reconcileBinding(binding, found)),
    ),
    ...policy.roles.map((role) => ensure(resources.roles, role, (found) => reconcileRole(role, found))),
    ...policy.roleBindings.map((binding) =>
      ensure(resources.roleBindings, binding, (found) => reconcileBinding(binding, found)),
    ),
    ...priorityClasses().map((entry) => ensure(resources.priorityClasses, entry, keep)),
    ...priorityLevels().map((level) => ensure(resources.priorityLevelConfigurations, level, respec(level))),
    ...flowSchemas().map((schema) => ensure(resources.flowSchemas, schema, respec(schema))),
    ensure(resources.services, service, (found) =>
      covers(found.spec, { ports: service.spec?.ports, type: "ClusterIP" })
        ? keep()
        : { do: "update", object: { ...found, spec: { ...found.spec, ...service.spec } } },
    ),
    ...(options.hasOtherServers
      ? [ensure(resources.endpoints, endpoints, keep), ensure(resources.endpointSlices, slice, keep)]
      : endpointsTasks({ endpoints, slice }, client)),
  ]);
  if (!trust) return;
  await ensure(resources.configMaps, trust, (found) =>
    covers(found.data, trust.data)
      ? keep()
      : { do: "update", object: { ...found, data: { ...found.data, ...trust.data } } },
  );
}

/** Makes the endpoints of the service `kubernetes` name these servers and no others. */
export async function publishServers(api: ApiAddress, client: Client): Promise<void> {
  await together(endpointsTasks(kubernetesService(api), client));
}

const endpointsTasks = (
  { endpoints, slice }: Pick<ReturnType<typeof kubernetesService>, "endpoints" | "slice">,
  client: Client,
): Promise<void>[] => [
  ensureObject(client, resources.endpoints, endpoints, (found) =>
    covers(found.subsets, endpoints.subsets)
      ? { do: "keep" }
      : { do: "update", object: { ...found, subsets: endpoints.subsets ?? [] } },
  ),
  ensureObject(client, resources.endpointSlices, slice, (found) =>
    covers([found.endpoints, found.ports], [slice.endpoints, slice.ports])
      ? { do: "keep" }
      : { do: "update", object: { ...found, endpoints: slice.endpoints, ports: slice.ports ?? [] } },
  ),
];

/** Back to the spec it should have, unless an administrator has taken it over. */
const respec =
  <T extends ApiObject & { spec: unknown }>(wanted: T) =>
  (found: T): Step<T> =>
    found.metadata.annotations?.[autoUpdateSpec] === "false" || covers(found.spec, wanted.spec)
      ? { do: "keep" }
      : { do: "update", object: { ...found, spec: wanted.spec } };

/** All at once, some ninety writes: they share a few flushes instead of waiting for one each. Ends when all have ended. */
async function together(tasks: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(tasks)) if (result.status === "rejected") throw result.reason;
}

/** Somebody else writing the same object is the only reason to try again; two servers can meet a few times at most. */
const attempts = 5;

/** What is made here belongs to the server, whoever's client it is made with. */
const asServer = { fieldManager: "kube-apiserver" } as const;

async function ensureObject<T extends ApiObject>(
  client: Client,
  resource: ResourceInfo<T>,
  wanted: T,
  plan: (found: T) => Step<T>,
): Promise<void> {
  const name = wanted.metadata.name ?? "";
  const { namespace } = wanted.metadata;
  for (let attempt = 1; ; attempt++) {
    try {
      const found = await client.get(resource, name, namespace).catch((error: unknown) => {
        if (isNotFound(error)) return undefined;
        throw error;
      });
      if (!found) {
        await client.create(resource, wanted, asServer);
        return;
      }
      const step = plan(found);
      if (step.do === "keep") return;
      if (step.do === "update") {
        await client.update(resource, step.object, asServer);
        return;
      }
      await client.delete(resource, { name, namespace });
      await client.create(resource, step.object, asServer);
      return;
    } catch (error) {
      if (attempt >= attempts || !(isConflict(error) || isAlreadyExists(error))) throw error;
    }
  }
}

/** Does `found` say all that `wanted` says? Lists must have the same length; objects may have more fields. */
function covers(found: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted)) {
    return Array.isArray(found) && found.length === wanted.length && wanted.every((item, i) => covers(found[i], item));
  }
  if (typeof wanted === "object" && wanted !== null) {
    if (typeof found !== "object" || found === null) return false;
    return Object.entries(wanted).every(([key, value]) => covers((found as Record<string, unknown>)[key], value));
  }
  return found === wanted;
}
