// The table of strategies: what each kind adds to the generic registry. Kinds that are not listed get shared handling
// only. Upstream counterpart: the strategy.go files below pkg/registry.
import type { Clock, Random } from "#base/clock.ts";
import { customResourceDefinitions } from "../custom-resources/definition-strategy.ts";
import type { Strategy } from "../strategy.ts";
import { certificateSigningRequests } from "./strategies/certificate-signing-requests.ts";
import { coreEvents } from "./strategies/events.ts";
import { jobs } from "./strategies/jobs.ts";
import { namespaces } from "./strategies/namespaces.ts";
import { plain, withStatus } from "./strategies/plain.ts";
import { createPodStrategy } from "./strategies/pods.ts";
import { clusterRoles, roleBindings, roles } from "./strategies/rbac.ts";
import { secrets } from "./strategies/secrets.ts";
import { createServiceStrategy, type ServiceStrategyOptions } from "./strategies/services.ts";
import { persistentVolumeClaims, persistentVolumes } from "./strategies/volumes.ts";

export interface StrategyDependencies {
  readonly clock: Clock;
  readonly random: Random;
  /** The feature gate InPlacePodVerticalScaling. Default false. */
  readonly podResize?: boolean;
  /** Default 10.43.0.0/16 and 30000-32767. */
  readonly services?: ServiceStrategyOptions;
}

/** What steers the API server itself: nobody may overwrite what he has not seen. */
const registered = { hasGeneration: true, requireResourceVersion: true };
const registration = plain(registered);

/** By qualified resource, e.g. `pods` or `deployments.apps`. */
export function createStrategies(dependencies: StrategyDependencies): ReadonlyMap<string, Strategy> {
  const table: Record<string, Strategy> = {
    configmaps: plain({}),
    endpoints: plain({ allowCreateOnUpdate: true }),
    events: coreEvents,
    limitranges: plain({ allowCreateOnUpdate: true }),
    namespaces,
    nodes: plain({ keepsStatusOnUpdate: true, selectable: { "spec.unschedulable": false } }),
    persistentvolumeclaims: persistentVolumeClaims as Strategy,
    persistentvolumes: persistentVolumes as Strategy,
    pods: createPodStrategy({ canResize: dependencies.podResize ?? false }),
    podtemplates: plain({ hasGeneration: true }),
    replicationcontrollers: withStatus({ hasGeneration: true, selectable: { "status.replicas": 0 } }),
    resourcequotas: withStatus({}),
    secrets,
    serviceaccounts: plain({}),
    services: createServiceStrategy(dependencies.services ?? {}, dependencies),

    "mutatingwebhookconfigurations.admissionregistration.k8s.io": registration,
    "validatingadmissionpolicies.admissionregistration.k8s.io": withStatus(registered),
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": registration,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": registration,

    "apiservices.apiregistration.k8s.io": withStatus({ requireResourceVersion: true }),
    "controllerrevisions.apps": plain({}),
    "daemonsets.apps": withStatus({ hasGeneration: true }),
    "deployments.apps": withStatus({ hasGeneration: true }),
    "replicasets.apps": withStatus({ hasGeneration: true, selectable: { "status.replicas": 0 } }),
    "statefulsets.apps": withStatus({ hasGeneration: true }),

    "customresourcedefinitions.apiextensions.k8s.io": customResourceDefinitions,

    "cronjobs.batch": withStatus({ hasGeneration: true }),
    "jobs.batch": jobs,

    "certificatesigningrequests.certificates.k8s.io": certificateSigningRequests,
    "endpointslices.discovery.k8s.io": plain({ hasGeneration: true }),
    "events.events.k8s.io": coreEvents,
    "flowschemas.flowcontrol.apiserver.k8s.io": withStatus(registered),
    "horizontalpodautoscalers.autoscaling": withStatus({}),
    "ingresses.networking.k8s.io": withStatus({ hasGeneration: true }),
    "ipaddresses.networking.k8s.io": plain({}),
    "ingressclasses.networking.k8s.io": plain({ hasGeneration: true }),
    "leases.coordination.k8s.io": plain({ allowCreateOnUpdate: true, requireResourceVersion: true }),
    "networkpolicies.networking.k8s.io": plain({ hasGeneration: true }),
    "servicecidrs.networking.k8s.io": withStatus({}),
    "poddisruptionbudgets.policy": withStatus({ hasGeneration: true, requireResourceVersion: true }),
    "priorityclasses.scheduling.k8s.io": plain({ hasGeneration: true, keepsGeneration: true }),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": withStatus(registered),
    "runtimeclasses.node.k8s.io": plain({ requireResourceVersion: true }),

    "clusterroles.rbac.authorization.k8s.io": clusterRoles,
    "clusterrolebindings.rbac.authorization.k8s.io": roleBindings,
    "roles.rbac.authorization.k8s.io": roles,
    "rolebindings.rbac.authorization.k8s.io": roleBindings,

    "csidrivers.storage.k8s.io": plain({ hasGeneration: true, requireResourceVersion: true }),
    "csinodes.storage.k8s.io": plain({ requireResourceVersion: true }),
    "csistoragecapacities.storage.k8s.io": plain({ requireResourceVersion: true }),
    "storageclasses.storage.k8s.io": plain({}),
    "volumeattachments.storage.k8s.io": withStatus({ requireResourceVersion: true }),
  };
  return new Map(Object.entries(table));
}
