// Pods bound per second by the whole scheduler (informers, queue, decision, bindings, events, metrics) on clusters of 100 and
// 5,000 nodes, over an API that only stores (test/harness/small-api.ts), in this process. Processor time per pod stands
// beside the rate, since neighbours on the machine disturb it less.
//   --pods N      per round (default 5000)
//   --rounds N    medians of so many (default 3)
//   --only NAME   may be repeated: plain, spread, affinity, full
//   --control     positive control: every binding costs 2 ms more of the event loop, which the rate must show
import { parseArgs } from "node:util";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Node, Pod, PodSpec } from "#model/gen/core-v1.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { createScheduler } from "#scheduler/scheduler.ts";
import { UserError } from "#scripts/stages.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { SmallApi } from "#test/harness/small-api.ts";

const hostname = "kubernetes.io/hostname";
const zone = "topology.kubernetes.io/zone";
const selector = { matchLabels: { app: "web" } };

/** Like upstream's scheduler_perf: SchedulingBasic, TopologySpreading, SchedulingPodAntiAffinity, Unschedulable. */
const workloads: Readonly<Record<string, Partial<PodSpec>>> = {
  plain: {},
  spread: {
    topologySpreadConstraints: [
      { maxSkew: 5, topologyKey: zone, whenUnsatisfiable: "DoNotSchedule", labelSelector: selector },
      { maxSkew: 5, topologyKey: hostname, whenUnsatisfiable: "ScheduleAnyway", labelSelector: selector },
    ],
  },
  affinity: {
    affinity: {
      podAntiAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          { weight: 1, podAffinityTerm: { labelSelector: selector, topologyKey: hostname } },
        ],
      },
    },
  },
  /** On a cluster where every second node is full. */
  full: {},
};

const parts: readonly {
  readonly name: string;
  readonly nodes: number;
  readonly workload: string;
  readonly goal?: number;
}[] = [
  { name: "binds_100", nodes: 100, workload: "plain", goal: 3000 },
  { name: "binds_5000", nodes: 5000, workload: "plain", goal: 800 },
  { name: "binds_5000_spread", nodes: 5000, workload: "spread" },
  { name: "binds_5000_affinity", nodes: 5000, workload: "affinity" },
  { name: "binds_5000_full", nodes: 5000, workload: "full" },
];

const node = (i: number): Node => ({
  metadata: { name: `node-${i}`, uid: `node-${i}`, labels: { [hostname]: `node-${i}`, [zone]: `zone-${i % 3}` } },
  spec: {},
  status: { allocatable: { cpu: "32", memory: "64Gi", pods: "110", "ephemeral-storage": "100Gi" } },
});
const pod = (name: string, spec: Partial<PodSpec>, cpu = "100m"): Pod => ({
  metadata: { name, namespace: "default", uid: name, labels: { app: "web" } },
  spec: {
    schedulerName: "default-scheduler",
    containers: [{ name: "c", image: "registry/image:1", resources: { requests: { cpu, memory: "100Mi" } } }],
    tolerations: [
      { key: "node.kubernetes.io/not-ready", operator: "Exists", effect: "NoExecute", tolerationSeconds: 300 },
      { key: "node.kubernetes.io/unreachable", operator: "Exists", effect: "NoExecute", tolerationSeconds: 300 },
    ],
    ...spec,
  },
  status: { phase: "Pending" },
});

interface Round {
  readonly perSecond: number;
  readonly cpuMicros: number;
}

async function round(nodeCount: number, workload: string, podCount: number, isControl: boolean): Promise<Round> {
  const api = new SmallApi();
  for (let i = 0; i < nodeCount; i++) {
    api.put("/api/v1/nodes", node(i));
    if (workload === "full" && i % 2 === 0) {
      api.put("/api/v1/pods", pod(`filler-${i}`, { nodeName: `node-${i}` }, "31950m"));
    }
  }
  const client = new Client(api);
  const random = seededRandom(1);
  const log = silentLogger;
  const informers = new InformerFactory({}, { client, clock, random, log });
  const events = new EventRecorder({ component: "bench" }, { client, clock, random, log });
  const scheduler = createScheduler({ client, informers, events, clock, random, log, metrics: new Metrics() });
  const stop = new AbortController();
  let markReady = () => {};
  const ready = new Promise<void>((resolve) => {
    markReady = resolve;
  });
  const running = [
    scheduler.run(stop.signal, markReady),
    informers.run(stop.signal, () => {}),
    events.run(stop.signal, () => {}),
  ];
  await ready;
  let bound = 0;
  const done = new Promise<void>((resolve) => {
    api.onBinding = () => {
      if (isControl) for (const endMs = performance.now() + 2; performance.now() < endMs; );
      if (++bound === podCount) resolve();
    };
  });
  const startedMs = performance.now();
  const cpu = process.cpuUsage();
  for (let i = 0; i < podCount; i++) api.put("/api/v1/pods", pod(`pod-${i}`, workloads[workload]!));
  await done;
  const seconds = (performance.now() - startedMs) / 1000;
  const used = process.cpuUsage(cpu);
  stop.abort();
  await Promise.all(running);
  return { perSecond: podCount / seconds, cpuMicros: (used.user + used.system) / podCount };
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

export async function scheduler(args: readonly string[]): Promise<Record<string, number>> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      pods: { type: "string", default: "5000" },
      rounds: { type: "string", default: "3" },
      only: { type: "string", multiple: true },
      control: { type: "boolean", default: false },
    },
  });
  const [podCount, rounds] = [Number(values.pods), Number(values.rounds)];
  if (!(podCount > 0 && podCount <= 10_000)) throw new UserError(`--pods ${values.pods}: a number from 1 to 10000`);
  if (!(rounds > 0)) throw new UserError(`--rounds ${values.rounds}: a number above 0`);
  const stranger = values.only?.find((name) => !Object.hasOwn(workloads, name));
  if (stranger) throw new UserError(`--only ${stranger}: one of ${Object.keys(workloads).join(", ")}`);
  const chosen = parts.filter(({ workload }) => !values.only || values.only.includes(workload));
  const results = new Map<string, Round[]>(chosen.map(({ name }) => [name, []]));
  // The first round of all warms the compiler up and does not count.
  await round(100, "plain", Math.min(podCount, 2000), false);
  for (let i = 0; i < rounds; i++) {
    for (const { name, nodes, workload } of chosen) {
      results.get(name)!.push(await round(nodes, workload, podCount, values.control));
    }
  }
  const figures: Record<string, number> = {};
  console.log("\nfigure                  binds/s   CPU per bind   goal");
  for (const { name, goal } of chosen) {
    const perSecond = Math.round(median(results.get(name)!.map((one) => one.perSecond)));
    const micros = Math.round(median(results.get(name)!.map((one) => one.cpuMicros)));
    figures[name] = perSecond;
    figures[name.replace("binds", "cpu_us_per_bind")] = micros;
    console.log(
      `${name.padEnd(22)}${String(perSecond).padStart(9)}${`${micros} us`.padStart(15)}${goal ? `   ${goal}` : ""}`,
    );
  }
  return figures;
}
