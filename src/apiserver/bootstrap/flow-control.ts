// Priority levels and flow schemas that every cluster starts with, as tables: made as objects at every start, and what
// flow control (flow-control/) goes by until it has been told of objects. Names and numbers are upstream's. Upstream counterpart: staging/src/k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap of 1.32.
import type { FlowSchema, PriorityLevelConfiguration, Subject } from "#model/gen/flowcontrol-v1.ts";

const apiVersion = "flowcontrol.apiserver.k8s.io/v1";
/** The server keeps the spec as it is here, unless an administrator turns this to "false". */
export const autoUpdateSpec = "apf.kubernetes.io/autoupdate-spec";
const metadata = (name: string) => ({ name, annotations: { [autoUpdateSpec]: "true" } });

interface Level {
  readonly shares: number;
  readonly lendable: number;
  /** Queues, hand size, length; absent: refuses what is too much. */
  readonly queuing?: readonly [number, number, number];
}

const levels: Readonly<Record<string, Level>> = {
  "catch-all": { shares: 5, lendable: 0 },
  system: { shares: 30, lendable: 33, queuing: [64, 6, 50] },
  "node-high": { shares: 40, lendable: 25, queuing: [64, 6, 50] },
  "leader-election": { shares: 10, lendable: 0, queuing: [16, 4, 50] },
  "workload-high": { shares: 40, lendable: 50, queuing: [128, 6, 50] },
  "workload-low": { shares: 100, lendable: 90, queuing: [128, 6, 50] },
  "global-default": { shares: 20, lendable: 50, queuing: [128, 6, 50] },
};

interface Flow {
  readonly level: string;
  readonly precedence: number;
  readonly by?: "ByUser" | "ByNamespace";
  /** `Kind:name`; for service accounts `ServiceAccount:namespace/name`. */
  readonly subjects: readonly string[];
  /** Verbs, group (`core`), resources, namespace (`cluster`: without one); absent: everything. */
  readonly resources?: readonly string[];
  /** Paths that may be got. */
  readonly paths?: readonly string[];
}

const everybody = ["Group:system:unauthenticated", "Group:system:authenticated"];
const locking = "get,create,update coordination.k8s.io leases";

const flows: Readonly<Record<string, Flow>> = {
  exempt: { level: "exempt", precedence: 1, subjects: ["Group:system:masters"] },
  probes: {
    level: "exempt",
    precedence: 2,
    subjects: everybody,
    resources: [],
    paths: ["/healthz", "/readyz", "/livez"],
  },
  "system-leader-election": {
    level: "leader-election",
    precedence: 100,
    by: "ByUser",
    subjects: ["User:system:kube-controller-manager", "User:system:kube-scheduler", "ServiceAccount:kube-system/*"],
    resources: [`${locking} kube-system`],
  },
  "endpoint-controller": {
    level: "workload-high",
    precedence: 150,
    by: "ByUser",
    subjects: ["User:system:kube-controller-manager", "ServiceAccount:kube-system/endpoint-controller"],
    resources: ["get,create,update core endpoints *"],
  },
  "workload-leader-election": {
    level: "leader-election",
    precedence: 200,
    by: "ByUser",
    subjects: ["ServiceAccount:kube-system/*"],
    resources: ["get,create,update core endpoints,configmaps *", `${locking} *`],
  },
  "system-node-high": {
    level: "node-high",
    precedence: 400,
    by: "ByUser",
    subjects: ["Group:system:nodes"],
    resources: ["* core nodes,nodes/status cluster", "* coordination.k8s.io leases *"],
  },
  "system-nodes": { level: "system", precedence: 500, by: "ByUser", subjects: ["Group:system:nodes"] },
  "kube-controller-manager": {
    level: "workload-high",
    precedence: 800,
    by: "ByNamespace",
    subjects: ["User:system:kube-controller-manager"],
  },
  "kube-scheduler": {
    level: "workload-high",
    precedence: 800,
    by: "ByNamespace",
    subjects: ["User:system:kube-scheduler"],
  },
  "kube-system-service-accounts": {
    level: "workload-high",
    precedence: 900,
    by: "ByNamespace",
    subjects: ["ServiceAccount:kube-system/*"],
  },
  "service-accounts": {
    level: "workload-low",
    precedence: 9000,
    by: "ByUser",
    subjects: ["Group:system:serviceaccounts"],
  },
  "global-default": { level: "global-default", precedence: 9900, by: "ByUser", subjects: everybody },
  "catch-all": { level: "catch-all", precedence: 10_000, by: "ByUser", subjects: everybody },
};

export const priorityLevels = (): PriorityLevelConfiguration[] => [
  {
    apiVersion,
    kind: "PriorityLevelConfiguration",
    metadata: metadata("exempt"),
    spec: { type: "Exempt", exempt: { nominalConcurrencyShares: 0, lendablePercent: 0 } },
  },
  ...Object.entries(levels).map(([name, { shares, lendable, queuing }]): PriorityLevelConfiguration => {
    const [queues = 0, handSize = 0, queueLengthLimit = 0] = queuing ?? [];
    const limitResponse = queuing
      ? { type: "Queue", queuing: { queues, handSize, queueLengthLimit } }
      : { type: "Reject" };
    const limited = { nominalConcurrencyShares: shares, lendablePercent: lendable, limitResponse };
    return {
      apiVersion,
      kind: "PriorityLevelConfiguration",
      metadata: metadata(name),
      spec: { type: "Limited", limited },
    };
  }),
];

export const flowSchemas = (): FlowSchema[] =>
  Object.entries(flows).map(([name, flow]) => ({
    apiVersion,
    kind: "FlowSchema",
    metadata: metadata(name),
    spec: {
      priorityLevelConfiguration: { name: flow.level },
      matchingPrecedence: flow.precedence,
      ...(flow.by ? { distinguisherMethod: { type: flow.by } } : {}),
      rules: [ruleOf(flow)],
    },
  }));

function ruleOf({ subjects, resources, paths }: Flow) {
  const isAll = resources === undefined;
  const resourceRules = (resources ?? ["* * * *"]).map((line) => {
    const [verbs = "", group = "", names = "", namespace = ""] = line.split(" ");
    const list = (text: string) => text.split(",");
    const isCluster = namespace === "cluster" || isAll;
    return {
      verbs: list(verbs),
      apiGroups: [group === "core" ? "" : group],
      resources: list(names),
      ...(isCluster ? { clusterScope: true } : {}),
      namespaces: [namespace === "cluster" ? "*" : namespace],
    };
  });
  const nonResourceRules = isAll
    ? [{ verbs: ["*"], nonResourceURLs: ["*"] }]
    : paths
      ? [{ verbs: ["get"], nonResourceURLs: [...paths] }]
      : [];
  return {
    subjects: subjects.map(subjectOf),
    ...(resourceRules.length > 0 ? { resourceRules } : {}),
    ...(nonResourceRules.length > 0 ? { nonResourceRules } : {}),
  };
}

function subjectOf(text: string): Subject {
  const colon = text.indexOf(":");
  const kind = text.slice(0, colon);
  const name = text.slice(colon + 1);
  if (kind === "User") return { kind, user: { name } };
  if (kind === "Group") return { kind, group: { name } };
  const slash = name.indexOf("/");
  return { kind, serviceAccount: { namespace: name.slice(0, slash), name: name.slice(slash + 1) } };
}
