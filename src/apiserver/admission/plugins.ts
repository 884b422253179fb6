// The admission plugins of this server, in upstream's order of application. Not there yet, and therefore not
// advertised: webhooks, which will stand before ResourceQuota.
import type { Random } from "#base/clock.ts";
import type { Authorizer } from "../authz/authorizer.ts";
import type { RbacAuthorizer } from "../authz/rbac.ts";
import { createCertificatePlugins } from "./certificates.ts";
import { createDefaultStorageClass } from "./default-storage-class.ts";
import { createDefaultTolerationSeconds } from "./default-toleration-seconds.ts";
import { createLimitRanger } from "./limit-ranger.ts";
import { createMountableSecrets } from "./mountable-secrets.ts";
import { createNamespaceLifecycle } from "./namespace-lifecycle.ts";
import { createNodeRestriction } from "./node-restriction.ts";
import { createObjectWarnings } from "./object-warnings.ts";
import type { AdmissionPlugin } from "./plugin.ts";
import { createPodSecurity } from "./pod-security/plugin.ts";
import { createValidatingPolicies } from "./policies/plugin.ts";
import { createPriority } from "./priority.ts";
import { createRbacEscalation } from "./rbac-escalation.ts";
import { createResourceQuota } from "./resource-quota.ts";
import { createRuntimeClass } from "./runtime-class.ts";
import { createServiceAccount } from "./service-account.ts";
import {
  createClaimResize,
  createDefaultIngressClass,
  createNodeTaint,
  createStorageProtection,
} from "./small-plugins.ts";

export interface AdmissionDependencies {
  readonly random: Random;
  /** For escalation and signer checks; without it roles, bindings and approvals may be written by whoever is authorised to. */
  readonly rbac?: RbacAuthorizer;
  /** What policies ask; by default `rbac`. */
  readonly authorizer?: Authorizer;
}

/** Existence of namespaces is part of NamespaceLifecycle, as upstream's NamespaceExists is off by default. */
export function createAdmissionPlugins(dependencies: AdmissionDependencies): readonly AdmissionPlugin[] {
  return [
    createNamespaceLifecycle(),
    createLimitRanger(),
    createServiceAccount(dependencies),
    createMountableSecrets(),
    createNodeRestriction(),
    createNodeTaint(),
    createPodSecurity(),
    createPriority(),
    createDefaultTolerationSeconds(),
    createDefaultStorageClass(),
    createStorageProtection(),
    createClaimResize(),
    createRuntimeClass(),
    createDefaultIngressClass(),
    ...(dependencies.rbac
      ? [
          ...createCertificatePlugins({ authorizer: dependencies.rbac }),
          createRbacEscalation({ rbac: dependencies.rbac }),
        ]
      : []),
    createObjectWarnings(),
    createValidatingPolicies({ authorizer: dependencies.authorizer ?? dependencies.rbac }),
    // Last, so that it charges for what is really written.
    createResourceQuota(),
  ];
}
