// The list of all controllers. Each is one Service; entry/ runs them after the informers. They meet nothing but the API:
// no controller knows of another. Upstream counterpart: cmd/kube-controller-manager/app.
import type { Service } from "#base/service.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { allResources } from "#model/resources.ts";
import { createBootstrapTokenCleaner } from "./accounts/bootstrap-tokens.ts";
import { createRootCaController, createServiceAccountController } from "./accounts/controller.ts";
import { createLegacyTokenCleaner } from "./accounts/legacy-tokens.ts";
import { createTokenSecretController } from "./accounts/tokens.ts";
import { type ControllerSettings, defaultSettings } from "./arguments.ts";
import { createHorizontalAutoscaler } from "./autoscaling/controller.ts";
import {
  createCertificateApprover,
  createCertificateCleaner,
  createCertificateSigning,
  type SignCertificate,
} from "./certificates/controller.ts";
import { createDisruptionController } from "./disruption/controller.ts";
import { createStaleDisruptionController } from "./disruption/stale.ts";
import { createApiServiceController } from "./extensions/api-services.ts";
import { createGarbageCollector } from "./gc/controller.ts";
import { createNamespaceController } from "./namespaces/controller.ts";
import { createTaintEvictionController } from "./nodes/eviction.ts";
import { createNodeIpam } from "./nodes/ipam.ts";
import { createNodeLifecycleController } from "./nodes/lifecycle.ts";
import { createPodGcController } from "./nodes/pod-gc.ts";
import { createTtlController } from "./nodes/ttl.ts";
import { createPolicyStatusController } from "./policies/controller.ts";
import { createResourceQuotaController } from "./quota/controller.ts";
import { createClusterRoleAggregation } from "./rbac/aggregation.ts";
import type { ControllerDeps } from "./runtime/controller.ts";
import { createEndpointSliceController, createEndpointsController } from "./services/controller.ts";
import { createIpAddressRepair } from "./services/ip-addresses.ts";
import { createEndpointSliceMirroring } from "./services/mirror.ts";
import { createServiceRangeController, type ServiceRanges } from "./services/ranges.ts";
import { createServiceCidrController } from "./services/service-cidrs.ts";
import { createAttachDetach } from "./volumes/attacher.ts";
import { createVolumeBinder } from "./volumes/binder.ts";
import { createEphemeralVolumes } from "./volumes/ephemeral.ts";
import { createVolumeExpander } from "./volumes/expander.ts";
import { createLocalPathProvisioner, type LocalPathOptions } from "./volumes/local-path.ts";
import { createClaimProtection, createVolumeProtection } from "./volumes/protection.ts";
import { createCronJobController } from "./workloads/cronjob/controller.ts";
import { createDaemonSetController } from "./workloads/daemonset/controller.ts";
import { createDeploymentController } from "./workloads/deployment/controller.ts";
import { createJobController } from "./workloads/job/controller.ts";
import { createTtlAfterFinishedController } from "./workloads/job/ttl.ts";
import {
  createReplicaSetController,
  createReplicationControllerController,
} from "./workloads/replicaset/controller.ts";
import { createStatefulSetController } from "./workloads/statefulset/controller.ts";

/** `events` must be run by whoever made it (it is a Service), as must `informers`. */
export interface ControllersDeps extends ControllerDeps {
  /** PEM of the CA that signed the API server's certificate, for kube-root-ca.crt. */
  readonly rootCa: string;
  /** Without it requests for certificates are approved and kept, but not signed. */
  readonly signCertificate?: SignCertificate;
  /** Absent: no built-in provisioner (`--disable local-storage`). */
  readonly localPath?: LocalPathOptions;
  /** Of pods, one range or one of each family: nodes that bring none of their own are given some; absent: they are not. */
  readonly clusterCidr?: string;
  /** What the server serves of what is built in; default what is on by default. */
  readonly served?: readonly ResourceInfo[];
  /** Of cluster addresses and node ports; absent: nobody looks after them. */
  readonly serviceRanges?: ServiceRanges;
  /** Default upstream's. */
  readonly settings?: ControllerSettings;
}

/** In the order in which they become useful: accounts before pods, makers of pods before watchers of nodes. */
export function createControllers(deps: ControllersDeps): Service[] {
  const { settings = defaultSettings, served = allResources, serviceRanges } = deps;
  return [
    createServiceAccountController(deps),
    createRootCaController(deps, { rootCa: deps.rootCa }),
    createTokenSecretController(deps, { rootCa: deps.rootCa }),
    createLegacyTokenCleaner(deps, { unusedMs: settings.unusedTokenMs }),
    createApiServiceController(deps, served),
    createPolicyStatusController(deps),
    createClusterRoleAggregation(deps),
    createBootstrapTokenCleaner(deps),
    createCertificateApprover(deps),
    ...(deps.signCertificate ? [createCertificateSigning(deps, deps.signCertificate)] : []),
    createCertificateCleaner(deps),
    createDeploymentController(deps),
    createReplicaSetController(deps),
    createReplicationControllerController(deps),
    createDaemonSetController(deps),
    createStatefulSetController(deps),
    createJobController(deps),
    createCronJobController(deps),
    createTtlAfterFinishedController(deps),
    createHorizontalAutoscaler(deps, settings.autoscaler),
    createDisruptionController(deps),
    createStaleDisruptionController(deps),
    createEndpointsController(deps),
    createEndpointSliceController(deps),
    createEndpointSliceMirroring(deps),
    ...(serviceRanges ? [createServiceRangeController(deps, serviceRanges)] : []),
    ...(serviceRanges?.multiCidr
      ? [createServiceCidrController(deps, serviceRanges), ...createIpAddressRepair(deps)]
      : []),
    createNodeLifecycleController(deps, settings.nodes),
    ...(deps.clusterCidr === undefined
      ? []
      : [createNodeIpam(deps, { clusterCidr: deps.clusterCidr, maskSizes: settings.maskSizes })]),
    createTaintEvictionController(deps),
    createPodGcController(deps, { kept: settings.terminatedPods }),
    createTtlController(deps),
    createVolumeBinder(deps),
    createClaimProtection(deps),
    createVolumeProtection(deps),
    createEphemeralVolumes(deps),
    createVolumeExpander(deps),
    createAttachDetach(deps),
    ...(deps.localPath ? [createLocalPathProvisioner(deps, deps.localPath)] : []),
    createNamespaceController(deps),
    // These two come last: they watch everything, metadata only where no other controller has asked for more.
    createResourceQuotaController(deps, { resyncMs: settings.quotaResyncMs }),
    createGarbageCollector(deps, served),
  ];
}
