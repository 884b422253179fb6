// A thousand nodes and ten thousand pods under the simulated clock: pods of all kinds come faster than there is room, run
// and end, nodes come, go and are cordoned. Nothing is ever given out twice, no rule is broken, everybody gets a turn in
// the end; and the same seed gives the same history, bit for bit. The API is a small one (harness/small-api.ts); the whole
// control plane under faults is in convergence.test.ts.
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import type { EventInput } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Node, Pod, PodSpec } from "#model/gen/core-v1.ts";
import { createScheduler } from "#scheduler/scheduler.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { SmallApi } from "#test/harness/small-api.ts";

const podsPath = "/api/v1/pods";
const nodesPath = "/api/v1/nodes";
const hostname = "kubernetes.io/hostname";
const zone = "topology.kubernetes.io/zone";
const stepMs = 1000;

interface Size {
  readonly nodes: number;
  readonly pods: number;
}
interface Outcome {
  /** Of every binding, refusal and eviction in order. */
  readonly history: string;
  readonly bound: number;
  readonly refused: number;
  readonly preempted: number;
  readonly pending: number;
}

type Random = ReturnType<typeof seededRandom>;
const upTo = (random: Random, n: number): number => Math.floor(random.float() * n);

const nodeOf = (i: number, random: Random): Node => ({
  metadata: { name: `n${i}`, uid: `n${i}`, labels: { [hostname]: `n${i}`, [zone]: `z${i % 3}` } },
  spec: {},
  status: { allocatable: { cpu: `${2 + upTo(random, 4)}`, memory: "16Gi", pods: "110" } },
});

function podOf(i: number, random: Random): Pod {
  const dice = random.float();
  const app = `app-${upTo(random, 20)}`;
  const same = { labelSelector: { matchLabels: { app } }, topologyKey: hostname };
  const cpu = dice > 0.95 ? 1500 : 50 + upTo(random, 900);
  const container = { name: "c", image: "i", resources: { requests: { cpu: `${cpu}m`, memory: "64Mi" } } };
  const spec: Partial<PodSpec> =
    dice < 0.1
      ? {
          topologySpreadConstraints: [
            { maxSkew: 2, topologyKey: zone, whenUnsatisfiable: "DoNotSchedule", labelSelector: same.labelSelector },
          ],
        }
      : dice < 0.2
        ? { affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [same] } } }
        : dice < 0.25
          ? {
              affinity: {
                podAffinity: {
                  preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 5, podAffinityTerm: same }],
                },
              },
            }
          : dice < 0.35
            ? { nodeSelector: { [zone]: `z${upTo(random, 3)}` } }
            : dice < 0.38
              ? { containers: [{ ...container, ports: [{ containerPort: 80, hostPort: 8000 + upTo(random, 3) }] }] }
              : {};
  return {
    metadata: {
      name: `p${i}`,
      namespace: "default",
      uid: `p${i}`,
      labels: { app, kind: dice < 0.2 && dice >= 0.1 ? "apart" : "any" },
    },
    spec: { schedulerName: "default-scheduler", priority: dice > 0.95 ? 1000 : 0, containers: [container], ...spec },
    status: { phase: "Pending" },
  };
}

async function simulate(seed: number, size: Size): Promise<Outcome> {
  const api = new SmallApi();
  const clock = new FakeClock();
  const random = seededRandom(seed);
  const client = new Client(api);
  const log = silentLogger;
  const informers = new InformerFactory({}, { client, clock, random: seededRandom(seed + 1), log });
  const hash = createHash("sha256");
  const outcome = { bound: 0, refused: 0, preempted: 0 };
  const record = ({ reason, object, message }: EventInput) => {
    hash.update(`${clock.monotonicMs()} ${reason} ${object.metadata.name} ${message}\n`);
    if (reason === "FailedScheduling") outcome.refused++;
    if (reason === "Preempted") outcome.preempted++;
  };
  /** Pods by the step in which they end. */
  const ends = new Map<number, string[]>();
  let step = 0;
  api.onBinding = (key) => {
    outcome.bound++;
    const at = step + 10 + upTo(random, 60);
    ends.set(at, [...(ends.get(at) ?? []), key]);
  };
  for (let i = 0; i < size.nodes; i++) api.put(nodesPath, nodeOf(i, random));
  const stop = new AbortController();
  const scheduler = createScheduler({
    ...{ client, informers, clock, log, random: seededRandom(seed + 2) },
    events: { as: () => ({ record }) },
  });
  const running = [scheduler.run(stop.signal, () => {}), informers.run(stop.signal, () => {})];
  await settle();
  const perStep = Math.ceil(size.pods / 50);
  const away: Node[] = [];
  let created = 0;
  for (; step < 400; step++) {
    for (let i = 0; i < perStep && created < size.pods; i++) api.put(podsPath, podOf(created++, random));
    for (const key of ends.get(step) ?? []) api.delete(podsPath, key);
    ends.delete(step);
    if (created < size.pods) churn(api, away, size, random);
    else while (away.length > 0) api.put(nodesPath, away.pop()!);
    await clock.advance(stepMs);
    if (step % 10 === 0) expectRulesKept(api);
    if (created === size.pods && api.list(podsPath).length === 0) break;
  }
  stop.abort();
  await Promise.all(running);
  return { ...outcome, history: hash.digest("hex"), pending: api.list(podsPath).length };
}

/** A node goes with its pods, one comes back, one is cordoned or freed. */
function churn(api: SmallApi, away: Node[], size: Size, random: Random): void {
  const name = `n${upTo(random, size.nodes)}`;
  const node = api.get<Node>(nodesPath, name);
  const dice = random.float();
  if (dice < 0.3 && node) {
    for (const pod of api.list<Pod>(podsPath)) {
      if (pod.spec.nodeName === name) api.delete(podsPath, `default/${pod.metadata.name}`);
    }
    api.delete(nodesPath, name);
    away.push({ ...node, spec: {} });
  } else if (dice < 0.6) {
    const back = away.shift();
    if (back) api.put(nodesPath, back);
  } else if (node) api.put(nodesPath, { ...node, spec: { unschedulable: !node.spec.unschedulable } } as Node);
}

function expectRulesKept(api: SmallApi): void {
  const byNode = new Map<string, Pod[]>();
  for (const pod of api.list<Pod>(podsPath)) {
    const { nodeName } = pod.spec;
    if (nodeName) byNode.set(nodeName, [...(byNode.get(nodeName) ?? []), pod]);
  }
  for (const [name, pods] of byNode) {
    const node = api.get<Node>(nodesPath, name);
    if (!node) continue;
    let milliCpu = 0;
    const ports: number[] = [];
    for (const pod of pods) {
      const [container] = pod.spec.containers;
      milliCpu += Number.parseInt(container!.resources!.requests!["cpu"]!, 10);
      ports.push(...(container!.ports ?? []).map((port) => port.hostPort!));
      const { app, kind } = pod.metadata.labels!;
      if (kind === "apart") {
        const beside = pods.filter((other) => other !== pod && other.metadata.labels?.["app"] === app);
        expect(
          beside.map((other) => other.metadata.name),
          `apart from ${pod.metadata.name} on ${name}`,
        ).toEqual([]);
      }
      const wanted = pod.spec.nodeSelector?.[zone];
      if (wanted) expect(node.metadata.labels?.[zone]).toBe(wanted);
    }
    expect(milliCpu, `cpu of ${name}`).toBeLessThanOrEqual(Number(node.status!.allocatable!["cpu"]) * 1000);
    expect(new Set(ports).size, `host ports of ${name}`).toBe(ports.length);
  }
}

test("a thousand nodes, ten thousand pods, twice the same", async () => {
  const size = { nodes: 1000, pods: 10_000 };
  const first = await simulate(7, size);
  // The run has to have met all of it to mean anything.
  expect(first.bound).toBeGreaterThan(9000);
  expect(first.refused).toBeGreaterThan(100);
  expect(first.preempted).toBeGreaterThan(10);
  expect(first.pending).toBe(0);
  expect(await simulate(7, size)).toEqual(first);
}, 600_000);

test("another seed, another history", async () => {
  const size = { nodes: 20, pods: 200 };
  expect((await simulate(1, size)).history).not.toBe((await simulate(2, size)).history);
});
