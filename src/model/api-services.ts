// APIService: a version of a group and who serves it. Those of this server name no service ("Local"). Upstream counterpart:
// kube-aggregator/pkg/apis/apiregistration/v1.
import type { Condition } from "./gen/meta-v1.ts";
import type { ApiObject } from "./object.ts";

export interface ApiService extends ApiObject {
  spec: {
    service?: { namespace?: string; name?: string; port?: number };
    group?: string;
    version?: string;
    insecureSkipTLSVerify?: boolean;
    caBundle?: string;
    groupPriorityMinimum: number;
    versionPriority: number;
  };
  status?: { conditions?: Condition[] };
}

/** Priorities of the built-in groups, highest first, and of versions that are not the usual 15. */
const groupPriorities: Readonly<Record<string, number>> = {
  "": 18_000,
  apps: 17_800,
  "events.k8s.io": 17_750,
  "authentication.k8s.io": 17_700,
  "authorization.k8s.io": 17_600,
  autoscaling: 17_500,
  batch: 17_400,
  "certificates.k8s.io": 17_300,
  "networking.k8s.io": 17_200,
  policy: 17_100,
  "rbac.authorization.k8s.io": 17_000,
  "storage.k8s.io": 16_800,
  "apiextensions.k8s.io": 16_700,
  "admissionregistration.k8s.io": 16_700,
  "scheduling.k8s.io": 16_600,
  "coordination.k8s.io": 16_500,
  "node.k8s.io": 16_300,
  "discovery.k8s.io": 16_200,
  "flowcontrol.apiserver.k8s.io": 16_100,
};
const versionPriorities: Readonly<Record<string, number>> = {
  "/v1": 1,
  "autoscaling/v2": 30,
  "flowcontrol.apiserver.k8s.io/v1": 21,
  "networking.k8s.io/v1beta1": 9,
};
const ownGroup = "apiregistration.k8s.io";

/** `v1.apps`, and `v1.` for the core group. */
export const apiServiceName = (group: string, version: string): string => `${version}.${group}`;

/** What says that this server serves a version: `onstart` for its own, `true` for what definitions bring. */
export function localApiService(group: string, version: string, managed: "onstart" | "true"): ApiService {
  const isBuiltIn = Object.hasOwn(groupPriorities, group);
  return {
    apiVersion: `${ownGroup}/v1`,
    kind: "APIService",
    metadata: { name: apiServiceName(group, version), labels: { [automanagedLabel]: managed } },
    spec: {
      ...(group === "" ? {} : { group }),
      version,
      groupPriorityMinimum: isBuiltIn ? groupPriorities[group]! : 1000,
      versionPriority: isBuiltIn ? (versionPriorities[`${group}/${version}`] ?? 15) : 100,
    },
  };
}

export const automanagedLabel = "kube-aggregator.kubernetes.io/automanaged";
/** The group that this kind itself is in is served without one, as upstream. */
export const needsApiService = (group: string): boolean => group !== ownGroup;
