import { describe, expect, test } from "vitest";
import type { ApiObject } from "#model/object.ts";
import { knownResources, resourceOfKind } from "#model/resources.ts";
import { humanDuration } from "./human-duration.ts";
import { columnsFor } from "./tables.ts";

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;
const nowMs = Date.UTC(2026, 0, 11);
const ago = (ms: number): string => new Date(nowMs - ms).toISOString();

test.each([
  [-2 * second, "<invalid>"],
  [-0.5 * second, "0s"],
  [0, "0s"],
  [119 * second, "119s"],
  [120 * second, "2m"],
  [125 * second, "2m5s"],
  [10 * minute + 30 * second, "10m"],
  [179 * minute, "179m"],
  [3 * hour, "3h"],
  [7 * hour + 5 * minute, "7h5m"],
  [8 * hour + 5 * minute, "8h"],
  [47 * hour, "47h"],
  [2 * day, "2d"],
  [2 * day + hour, "2d1h"],
  [8 * day + hour, "8d"],
  [729 * day, "729d"],
  [730 * day, "2y"],
  [731 * day, "2y1d"],
  [9 * 365 * day, "9y"],
])("%d ms is %s", (ms, text) => expect(humanDuration(ms)).toBe(text));

function row(group: string, kind: string, object: object, version = "v1"): string {
  const info = resourceOfKind(group, version, kind) ?? resourceOfKind(group, "v1beta1", kind);
  if (!info) throw new Error(kind);
  const merged = {
    ...object,
    metadata: { name: "x", creationTimestamp: ago(5 * day), ...(object as ApiObject).metadata },
  };
  return columnsFor(info)
    .map((column) => `${column.priority === 0 ? "" : "~"}${column.value(merged as ApiObject, nowMs)}`)
    .join("|");
}
const header = (group: string, kind: string, version = "v1"): string =>
  columnsFor(resourceOfKind(group, version, kind)!)
    .map((column) => (column.priority === 0 ? column.name : `~${column.name}`))
    .join("|");

test.each([
  ["", "Pod", "Name|Ready|Status|Restarts|Age|~IP|~Node|~Nominated Node|~Readiness Gates"],
  ["apps", "Deployment", "Name|Ready|Up-to-date|Available|Age|~Containers|~Images|~Selector"],
  ["apps", "ReplicaSet", "Name|Desired|Current|Ready|Age|~Containers|~Images|~Selector"],
  [
    "apps",
    "DaemonSet",
    "Name|Desired|Current|Ready|Up-to-date|Available|Node Selector|Age|~Containers|~Images|~Selector",
  ],
  ["batch", "Job", "Name|Status|Completions|Duration|Age|~Containers|~Images|~Selector"],
  ["batch", "CronJob", "Name|Schedule|Timezone|Suspend|Active|Last Schedule|Age|~Containers|~Images|~Selector"],
  ["", "Service", "Name|Type|Cluster-IP|External-IP|Port(s)|Age|~Selector"],
  ["", "Node", "Name|Status|Roles|Age|Version|~Internal-IP|~External-IP|~OS-Image|~Kernel-Version|~Container-Runtime"],
  ["", "Event", "Last Seen|Type|Reason|Object|~Subobject|~Source|Message|~First Seen|~Count|~Name"],
  ["", "LimitRange", "Name|Created At"],
])("columns of %s/%s", (group, kind, expected) => expect(header(group, kind)).toBe(expected));

describe("pods", () => {
  const spec = { containers: [{ name: "a" }, { name: "b" }], nodeName: "n1" };
  const running = { ready: true, restartCount: 0, state: { running: {} } };
  const cell = (status: object, more: { spec?: object; metadata?: object } = {}): string =>
    row("", "Pod", { spec: { ...spec, ...more.spec }, status, ...(more.metadata ? { metadata: more.metadata } : {}) })
      .split("|")
      .slice(1, 4)
      .join("|");

  test.each<[string, string]>([
    [cell({ phase: "Pending" }), "0/2|Pending|0"],
    [cell({ phase: "Running", containerStatuses: [running, running] }), "2/2|Running|0"],
    [
      cell({
        phase: "Running",
        containerStatuses: [
          running,
          {
            ready: false,
            restartCount: 3,
            state: { waiting: { reason: "CrashLoopBackOff" } },
            lastState: { terminated: { exitCode: 1, finishedAt: ago(5 * minute) } },
          },
        ],
      }),
      "1/2|CrashLoopBackOff|3 (5m ago)",
    ],
    [
      cell({
        phase: "Pending",
        containerStatuses: [{ restartCount: 0, state: { waiting: { reason: "ContainerCreating" } } }],
      }),
      "0/2|ContainerCreating|0",
    ],
    [
      cell({
        phase: "Succeeded",
        containerStatuses: [{ restartCount: 0, state: { terminated: { exitCode: 0, reason: "Completed" } } }],
      }),
      "0/2|Completed|0",
    ],
    [
      cell({ phase: "Failed", containerStatuses: [{ restartCount: 0, state: { terminated: { exitCode: 3 } } }] }),
      "0/2|ExitCode:3|0",
    ],
    [
      cell(
        { phase: "Pending", initContainerStatuses: [{ name: "i", restartCount: 0, state: { running: {} } }] },
        { spec: { initContainers: [{ name: "i" }] } },
      ),
      "0/2|Init:0/1|0",
    ],
    [
      cell(
        {
          phase: "Pending",
          initContainerStatuses: [
            { name: "i", restartCount: 2, state: { terminated: { exitCode: 1, reason: "Error" } } },
          ],
        },
        { spec: { initContainers: [{ name: "i" }] } },
      ),
      "0/2|Init:Error|2",
    ],
    [
      cell(
        {
          phase: "Running",
          containerStatuses: [running, running],
          initContainerStatuses: [{ name: "s", started: true, ...running }],
        },
        { spec: { initContainers: [{ name: "s", restartPolicy: "Always" }] } },
      ),
      "3/3|Running|0",
    ],
    [
      cell({ phase: "Running", containerStatuses: [running, running] }, { metadata: { deletionTimestamp: ago(0) } }),
      "2/2|Terminating|0",
    ],
    [cell({ phase: "Succeeded" }, { metadata: { deletionTimestamp: ago(0) } }), "0/2|Succeeded|0"],
    [cell({ phase: "Failed", reason: "Evicted" }), "0/2|Evicted|0"],
    [
      cell({ phase: "Pending", conditions: [{ type: "PodScheduled", status: "False", reason: "SchedulingGated" }] }),
      "0/2|SchedulingGated|0",
    ],
    [
      cell({
        phase: "Running",
        conditions: [{ type: "Ready", status: "False" }],
        containerStatuses: [{ restartCount: 0, state: { terminated: { exitCode: 0, reason: "Completed" } } }, running],
      }),
      "1/2|NotReady|0",
    ],
  ])("%s", (shown, expected) => expect(shown).toBe(expected));
});

test.each<[string, string, object, string]>([
  [
    "apps",
    "Deployment",
    {
      spec: {
        replicas: 3,
        selector: { matchLabels: { b: "2", a: "1" } },
        template: { spec: { containers: [{ name: "c", image: "i" }] } },
      },
      status: { readyReplicas: 1, updatedReplicas: 2 },
    },
    "x|1/3|2|0|5d|~c|~i|~a=1,b=2",
  ],
  [
    "batch",
    "Job",
    {
      spec: { completions: 1, template: { spec: {} } },
      status: {
        succeeded: 1,
        startTime: ago(hour),
        completionTime: ago(hour - 90 * second),
        conditions: [{ type: "Complete", status: "True" }],
      },
    },
    "x|Complete|1/1|90s|5d|~|~|~<none>",
  ],
  [
    "batch",
    "Job",
    { spec: { parallelism: 2, template: { spec: {} } }, status: { startTime: ago(hour) } },
    "x|Running|0/1 of 2|60m|5d|~|~|~<none>",
  ],
  [
    "",
    "Service",
    {
      spec: {
        type: "NodePort",
        clusterIP: "10.43.0.5",
        clusterIPs: ["10.43.0.5"],
        ports: [
          { port: 80, nodePort: 30080, protocol: "TCP" },
          { port: 53, protocol: "UDP" },
        ],
      },
    },
    "x|NodePort|10.43.0.5|<none>|80:30080/TCP,53/UDP|5d|~<none>",
  ],
  [
    "",
    "Service",
    { spec: { type: "LoadBalancer", clusterIPs: ["10.43.0.5"] } },
    "x|LoadBalancer|10.43.0.5|<pending>|<none>|5d|~<none>",
  ],
  [
    "",
    "Service",
    { spec: { type: "ExternalName", externalName: "a.example" } },
    "x|ExternalName|<none>|a.example|<none>|5d|~<none>",
  ],
  [
    "",
    "Endpoints",
    { subsets: [{ addresses: ["1", "2", "3", "4"].map((n) => ({ ip: `10.0.0.${n}` })), ports: [{ port: 80 }] }] },
    "x|10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...|5d",
  ],
  ["", "Endpoints", {}, "x|<none>|5d"],
  [
    "discovery.k8s.io",
    "EndpointSlice",
    { addressType: "IPv4", ports: [{ port: 80 }, {}], endpoints: [{ addresses: ["10.0.0.1"] }] },
    "x|IPv4|80,*|10.0.0.1|5d",
  ],
  [
    "",
    "Node",
    {
      metadata: { labels: { "node-role.kubernetes.io/master": "", "node-role.kubernetes.io/control-plane": "" } },
      spec: { unschedulable: true },
      status: { conditions: [{ type: "Ready", status: "True" }], nodeInfo: { kubeletVersion: "v1" } },
    },
    "x|Ready,SchedulingDisabled|control-plane,master|5d|v1|~<none>|~<none>|~<unknown>|~<unknown>|~<unknown>",
  ],
  [
    "",
    "Event",
    {
      involvedObject: { kind: "Pod", name: "p" },
      type: "Normal",
      reason: "Pulled",
      message: "m\n",
      count: 2,
      firstTimestamp: ago(hour),
      lastTimestamp: ago(minute),
      source: { component: "kubelet", host: "n" },
    },
    "60s|Normal|Pulled|pod/p|~|~kubelet, n|m|~60m|~2|~x",
  ],
  ["", "Secret", { type: "Opaque", data: { a: "", b: "" } }, "x|Opaque|2|5d"],
  [
    "rbac.authorization.k8s.io",
    "ClusterRoleBinding",
    {
      roleRef: { kind: "ClusterRole", name: "r" },
      subjects: [
        { kind: "User", name: "u" },
        { kind: "ServiceAccount", namespace: "n", name: "s" },
      ],
    },
    "x|ClusterRole/r|5d|~u|~|~n/s",
  ],
  [
    "apps",
    "ControllerRevision",
    {
      metadata: { ownerReferences: [{ apiVersion: "apps/v1", kind: "StatefulSet", name: "db", controller: true }] },
      revision: 4,
    },
    "x|statefulset.apps/db|4|5d",
  ],
  [
    "networking.k8s.io",
    "Ingress",
    { spec: { tls: [{}], rules: [{ host: "a" }, { host: "b" }, { host: "c" }, { host: "d" }] } },
    "x|<none>|a,b,c + 1 more...||80, 443|5d",
  ],
  [
    "networking.k8s.io",
    "ServiceCIDR",
    { spec: { cidrs: ["10.43.0.0/16", "fd00:43::/112"] } },
    "x|10.43.0.0/16,fd00:43::/112|5d",
  ],
  [
    "networking.k8s.io",
    "IPAddress",
    { spec: { parentRef: { resource: "services", namespace: "shop", name: "web" } } },
    "x|services/shop/web",
  ],
  [
    "networking.k8s.io",
    "IPAddress",
    { spec: { parentRef: { group: "example.com", resource: "gateways", name: "front" } } },
    "x|gateways.example.com/front",
  ],
])("%s/%s %#", (group, kind, object, expected) => expect(row(group, kind, object)).toBe(expected));

test.each(knownResources.map((info) => [`${info.group}/${info.kind}`, info] as const))(
  "a sparse %s prints: one odd object must not take the list with it",
  (_name, info) => {
    for (const object of [{}, { spec: {} }, { spec: {}, status: {} }]) {
      const sparse = { metadata: {}, ...object } as ApiObject;
      for (const column of columnsFor(info)) {
        expect(() => column.value(sparse, nowMs), column.name).not.toThrow();
        expect(String(column.value(sparse, nowMs)), column.name).not.toMatch(/undefined|NaN/);
      }
    }
  },
);
