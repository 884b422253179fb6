// The roles and bindings every cluster starts with, as a table. One line is one rule: verbs, groups and resources (and
// names) separated by spaces, `core` being the group without a name; a line whose second word starts with `/` is about
// paths. Names and rights are upstream's (plugin/pkg/auth/authorizer/rbac/bootstrappolicy of 1.32), with two
// differences: the roles of the single controllers are folded into system:kube-controller-manager, because they run in
// one place under one name; and the aggregated roles (admin, edit, view) carry their rules from the start.
import type { ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject } from "#model/gen/rbac-v1.ts";

export interface RbacPolicy {
  readonly clusterRoles: readonly ClusterRole[];
  readonly clusterRoleBindings: readonly ClusterRoleBinding[];
  readonly roles: readonly Role[];
  readonly roleBindings: readonly RoleBinding[];
}

/** What the node authorizer lets a node do without looking at its pods. */
export const nodeRules = (): readonly PolicyRule[] => clusterRoles["system:node"]!.rules.map(parseRule);

/** What is on beside the default. */
export interface PolicyGates {
  /** MultiCIDRServiceAllocator. */
  readonly serviceCidrs?: boolean;
}

export function rbacPolicy(gates: PolicyGates = {}): RbacPolicy {
  return {
    clusterRoles: Object.entries(clusterRoles).map(([name, entry]) => clusterRole(name, withGates(name, entry, gates))),
    clusterRoleBindings: Object.entries(clusterRoleBindings).map(([name, { role, subjects }]) => ({
      apiVersion,
      kind: "ClusterRoleBinding",
      metadata: metadata(name),
      roleRef: { apiGroup, kind: "ClusterRole", name: role ?? name },
      subjects: subjects.map(subject),
    })),
    roles: Object.entries(roles).map(([key, rules]) => {
      const { namespace, name } = splitName(key);
      return { apiVersion, kind: "Role", metadata: { ...metadata(name), namespace }, rules: rules.map(parseRule) };
    }),
    roleBindings: Object.entries(roleBindings).map(([key, { role, subjects }]) => {
      const { namespace, name } = splitName(key);
      return {
        apiVersion,
        kind: "RoleBinding",
        metadata: { ...metadata(name), namespace },
        roleRef: { apiGroup, kind: "Role", name: role },
        subjects: subjects.map(subject),
      };
    }),
  };
}

export const autoUpdateAnnotation = "rbac.authorization.kubernetes.io/autoupdate";
const apiGroup = "rbac.authorization.k8s.io";
const apiVersion = `${apiGroup}/v1`;

const read = "get,list,watch";
const write = "create,delete,deletecollection,patch,update";
const all = `${write},${read}`;

const toAdmin = ["create authorization.k8s.io localsubjectaccessreviews", `${all} ${apiGroup} roles,rolebindings`];
const toEdit = [
  `${read} core pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy`,
  "impersonate core serviceaccounts",
  `${write} core pods,pods/attach,pods/exec,pods/portforward,pods/proxy`,
  "create core pods/eviction",
  `${write} core configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy`,
  "create core serviceaccounts/token",
  `${write} apps daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale`,
  `${write} autoscaling horizontalpodautoscalers`,
  `${write} batch cronjobs,jobs`,
  `${write} policy poddisruptionbudgets`,
  `${write} networking.k8s.io ingresses,networkpolicies`,
  `${all} coordination.k8s.io leases`,
];
const metricsReader = `${read} metrics.k8s.io pods,nodes`;
const toView = [
  metricsReader,
  `${read} core configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status`,
  `${read} core bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status`,
  `${read} core namespaces`,
  `${read} discovery.k8s.io endpointslices`,
  `${read} apps controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status`,
  `${read} autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status`,
  `${read} batch cronjobs,cronjobs/status,jobs,jobs/status`,
  `${read} policy poddisruptionbudgets,poddisruptionbudgets/status`,
  `${read} networking.k8s.io ingresses,ingresses/status,networkpolicies`,
];

const events = "create,patch,update core,events.k8s.io events";
const reviews = ["create authentication.k8s.io tokenreviews", "create authorization.k8s.io subjectaccessreviews"];

interface RoleEntry {
  readonly rules: readonly string[];
  /** Which role collects this one. */
  readonly aggregateTo?: "admin" | "edit" | "view" | "all";
  /** Collects the roles marked so. */
  readonly collects?: "admin" | "edit" | "view";
}

const clusterRoles: Readonly<Record<string, RoleEntry>> = {
  "cluster-admin": { rules: ["* * *", "* /*"] },
  admin: { rules: [...toAdmin, ...toEdit, ...toView], collects: "admin" },
  edit: { rules: [...toEdit, ...toView], collects: "edit", aggregateTo: "admin" },
  view: { rules: toView, collects: "view", aggregateTo: "edit" },
  "system:aggregate-to-admin": { rules: toAdmin, aggregateTo: "admin" },
  "system:aggregate-to-edit": { rules: toEdit, aggregateTo: "edit" },
  "system:aggregate-to-view": { rules: toView.filter((rule) => rule !== metricsReader), aggregateTo: "view" },
  // metrics-server's own, since its API is served here.
  "system:aggregated-metrics-reader": { rules: [metricsReader], aggregateTo: "all" },

  "system:discovery": {
    rules: ["get /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/"],
  },
  "system:basic-user": {
    rules: [
      "create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews",
      "create authentication.k8s.io selfsubjectreviews",
    ],
  },
  "system:public-info-viewer": { rules: ["get /healthz,/livez,/readyz,/version,/version/"] },
  "system:monitoring": {
    rules: ["get /metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*"],
  },
  "system:service-account-issuer-discovery": {
    rules: [
      "get /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/",
    ],
  },
  "system:auth-delegator": { rules: reviews },
  "system:kube-aggregator": { rules: [`${read} core endpoints,services`] },
  "system:kube-dns": { rules: ["list,watch core endpoints,services"] },
  "system:kubelet-api-admin": {
    rules: [
      `${read},proxy core nodes`,
      "* core nodes/configz,nodes/healthz,nodes/log,nodes/metrics,nodes/pods,nodes/proxy,nodes/stats",
    ],
  },
  "system:node-bootstrapper": { rules: ["create,get,list,watch certificates.k8s.io certificatesigningrequests"] },
  "system:node-problem-detector": { rules: ["get core nodes", "patch core nodes/status", events] },
  "system:node-proxier": {
    rules: [
      "list,watch core endpoints,services",
      `${read} core nodes`,
      events,
      "list,watch discovery.k8s.io endpointslices",
    ],
  },
  "system:persistent-volume-provisioner": {
    rules: [
      "create,delete,get,list,watch core persistentvolumes",
      "get,list,update,watch core persistentvolumeclaims",
      `${read} storage.k8s.io storageclasses`,
      "watch core events",
      events,
    ],
  },
  "system:volume-scheduler": {
    rules: [
      "get,list,patch,update,watch core persistentvolumes",
      `${read} storage.k8s.io storageclasses`,
      "get,list,patch,update,watch core persistentvolumeclaims",
    ],
  },
  "system:certificates.k8s.io:kube-apiserver-client-approver": {
    rules: ["approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client"],
  },
  "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": {
    rules: ["approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client-kubelet"],
  },
  "system:certificates.k8s.io:kubelet-serving-approver": {
    rules: ["approve certificates.k8s.io signers kubernetes.io/kubelet-serving"],
  },
  "system:certificates.k8s.io:legacy-unknown-approver": {
    rules: ["approve certificates.k8s.io signers kubernetes.io/legacy-unknown"],
  },

  // k3s's: what a node needs to know of the rest, for names, addresses and policies.
  "system:k3s-controller": {
    rules: [
      `${read} core nodes,namespaces,pods,services,endpoints`,
      `${read} discovery.k8s.io endpointslices`,
      `${read} networking.k8s.io networkpolicies`,
    ],
  },
  "system:node": {
    rules: [
      "create authentication.k8s.io tokenreviews",
      "create authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews",
      `${read} core services`,
      // More than upstream: what its network reads of others, so that a node needs one connection. It holds the certificate of
      // system:k3s-controller, who may, in any case.
      `${read} core namespaces`,
      `${read} discovery.k8s.io endpointslices`,
      "create,get,list,watch core nodes",
      "patch,update core nodes/status",
      "patch,update core nodes",
      events,
      `${read} core pods`,
      "create,delete core pods",
      "patch,update core pods/status",
      "create core pods/eviction",
      `${read} core configmaps,secrets`,
      "get core persistentvolumeclaims",
      // More than upstream's "get": a node removes the folders of local volumes. Admission keeps it to that.
      `${read},patch core persistentvolumes`,
      "get,patch,update core persistentvolumeclaims/status",
      "get core endpoints",
      "create,get,list,watch certificates.k8s.io certificatesigningrequests",
      "create,delete,get,patch,update coordination.k8s.io leases",
      "get storage.k8s.io volumeattachments",
      "create core serviceaccounts/token",
      `${read} core serviceaccounts`,
      `${read} storage.k8s.io csidrivers`,
      "create,delete,get,patch,update storage.k8s.io csinodes",
      `${read} node.k8s.io runtimeclasses`,
      `${read} discovery.k8s.io endpointslices`,
    ],
  },
  "system:kube-scheduler": {
    rules: [
      events,
      "create coordination.k8s.io leases",
      "get,list,update,watch coordination.k8s.io leases kube-scheduler",
      `${read} core namespaces,nodes`,
      "delete,get,list,watch core pods",
      "create core bindings,pods/binding",
      "patch,update core pods/status",
      `${read} core replicationcontrollers,services`,
      `${read} apps replicasets,statefulsets`,
      `${read} policy poddisruptionbudgets`,
      `${read} core persistentvolumeclaims,persistentvolumes`,
      `${read} storage.k8s.io csidrivers,csinodes,csistoragecapacities,storageclasses,volumeattachments`,
      ...reviews,
    ],
  },
  "system:kube-controller-manager": {
    rules: [
      events,
      ...reviews,
      "create core serviceaccounts/token",
      "create,get,update coordination.k8s.io leases",
      // The garbage collector and the namespace controller may have to delete anything.
      "delete,deletecollection,get,list,patch,update,watch * *",
      "get /api,/api/*,/apis,/apis/*",
      "create core configmaps,endpoints,persistentvolumeclaims,persistentvolumes,pods,secrets,serviceaccounts",
      "create core pods/eviction",
      "create apps controllerrevisions,replicasets",
      "create batch jobs",
      "create discovery.k8s.io endpointslices",
      "approve,sign certificates.k8s.io signers",
    ],
  },
};

/** Rules that are there with a feature gate only. */
const gatedRules: Readonly<Record<keyof PolicyGates, Readonly<Record<string, string>>>> = {
  serviceCidrs: {
    "system:node-proxier": "list,watch networking.k8s.io servicecidrs",
    "system:kube-controller-manager": "create networking.k8s.io ipaddresses,servicecidrs",
  },
};

function withGates(name: string, entry: RoleEntry, gates: PolicyGates): RoleEntry {
  const added = (Object.keys(gatedRules) as (keyof PolicyGates)[]).flatMap((gate) => {
    const rule = gates[gate] ? gatedRules[gate][name] : undefined;
    return rule === undefined ? [] : [rule];
  });
  return added.length === 0 ? entry : { ...entry, rules: [...entry.rules, ...added] };
}

interface BindingEntry {
  /** Default: the role of the same name. */
  readonly role?: string;
  /** `Kind:name`; for service accounts `ServiceAccount:namespace/name`. */
  readonly subjects: readonly string[];
}

const clusterRoleBindings: Readonly<Record<string, BindingEntry>> = {
  "cluster-admin": { subjects: ["Group:system:masters"] },
  "system:basic-user": { subjects: ["Group:system:authenticated"] },
  "system:discovery": { subjects: ["Group:system:authenticated"] },
  "system:k3s-controller": { subjects: ["User:system:k3s-controller"] },
  "system:kube-controller-manager": { subjects: ["User:system:kube-controller-manager"] },
  "system:kube-dns": { subjects: ["ServiceAccount:kube-system/kube-dns"] },
  "system:kube-scheduler": { subjects: ["User:system:kube-scheduler"] },
  "system:monitoring": { subjects: ["Group:system:monitoring"] },
  // Nobody, as upstream: the node authorizer holds nodes to these rules.
  "system:node": { subjects: [] },
  "system:node-proxier": { subjects: ["User:system:kube-proxy"] },
  "system:public-info-viewer": { subjects: ["Group:system:authenticated", "Group:system:unauthenticated"] },
  "system:service-account-issuer-discovery": { subjects: ["Group:system:serviceaccounts"] },
  "system:volume-scheduler": { subjects: ["User:system:kube-scheduler"] },
};

const authenticationReader = "extension-apiserver-authentication-reader";

/** By `namespace/name`. */
const roles: Readonly<Record<string, readonly string[]>> = {
  [`kube-system/${authenticationReader}`]: [`${read} core configmaps extension-apiserver-authentication`],
  "kube-system/system::leader-locking-kube-controller-manager": [
    "watch core configmaps",
    "get,update core configmaps kube-controller-manager",
  ],
  "kube-system/system::leader-locking-kube-scheduler": [
    "watch core configmaps",
    "get,update core configmaps kube-scheduler",
  ],
};

const roleBindings: Readonly<Record<string, Required<BindingEntry>>> = {
  [`kube-system/system::${authenticationReader}`]: {
    role: authenticationReader,
    subjects: ["User:system:kube-controller-manager", "User:system:kube-scheduler"],
  },
  "kube-system/system::leader-locking-kube-controller-manager": {
    role: "system::leader-locking-kube-controller-manager",
    subjects: ["User:system:kube-controller-manager", "ServiceAccount:kube-system/kube-controller-manager"],
  },
  "kube-system/system::leader-locking-kube-scheduler": {
    role: "system::leader-locking-kube-scheduler",
    subjects: ["User:system:kube-scheduler", "ServiceAccount:kube-system/kube-scheduler"],
  },
};

function clusterRole(name: string, entry: RoleEntry): ClusterRole {
  const label = (role: string): Record<string, string> =>
    role === "all"
      ? { ...label("admin"), ...label("edit"), ...label("view") }
      : { [`rbac.authorization.k8s.io/aggregate-to-${role}`]: "true" };
  const role: ClusterRole = {
    apiVersion,
    kind: "ClusterRole",
    metadata: metadata(name, entry.aggregateTo ? label(entry.aggregateTo) : {}),
    rules: entry.rules.map(parseRule),
  };
  if (entry.collects) role.aggregationRule = { clusterRoleSelectors: [{ matchLabels: label(entry.collects) }] };
  return role;
}

function metadata(name: string, labels: Readonly<Record<string, string>> = {}) {
  return {
    name,
    labels: { "kubernetes.io/bootstrapping": "rbac-defaults", ...labels },
    annotations: { [autoUpdateAnnotation]: "true" },
  };
}

/** One line of the table. Exported for its test. */
export function parseRule(line: string): PolicyRule {
  const [verbs = "", second = "", third = "", names] = line.split(" ");
  const list = (text: string) => text.split(",");
  if (second.startsWith("/")) {
    return { verbs: list(verbs), nonResourceURLs: second === "/*" ? ["*"] : list(second) };
  }
  return {
    verbs: list(verbs),
    apiGroups: list(second).map((group) => (group === "core" ? "" : group)),
    resources: list(third),
    ...(names === undefined ? {} : { resourceNames: list(names) }),
  };
}

function subject(text: string): Subject {
  const colon = text.indexOf(":");
  const kind = text.slice(0, colon);
  const rest = text.slice(colon + 1);
  if (kind !== "ServiceAccount") return { kind, apiGroup, name: rest };
  return { kind, ...splitName(rest) };
}

function splitName(key: string): { namespace: string; name: string } {
  const slash = key.indexOf("/");
  return { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}
