import { describe, expect, test } from "vitest";
import { messageOf } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { nodeMetrics, podMetrics } from "#model/metrics.ts";
import { type ApiObject, keyOf, namespaceOf } from "#model/object.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { loopback } from "../authn/user.ts";
import { Encoder } from "../endpoints/encode.ts";
import { columnsFor } from "../printers/tables.ts";
import { createApiServer } from "../server.ts";
import { MetricsCollector } from "./collector.ts";
import { createMetricsGroup } from "./group.ts";
import { parseResourceMetrics, usageBetween } from "./samples.ts";

const text = (cpu: number, atMs: number, start = 1) => `# HELP node_cpu_usage_seconds_total x
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total ${cpu * 10} ${atMs}
node_memory_working_set_bytes 1.048576e+06 ${atMs}
container_cpu_usage_seconds_total{container="c\\"x",namespace="n",pod="p"} ${cpu} ${atMs}
container_memory_working_set_bytes{container="c\\"x",namespace="n",pod="p"} 4097 ${atMs}
container_start_time_seconds{container="c\\"x",namespace="n",pod="p"} ${start} ${atMs}
scrape_error 0
something else
`;

describe("samples", () => {
  test("what is read", () => {
    const sample = parseResourceMetrics(text(1.5, 20_000), 99);
    expect(sample).toMatchObject({ atMs: 20_000, node: { cpuSeconds: 15, memoryBytes: 1_048_576 } });
    expect([...sample.containers]).toEqual([['n/p/c"x', { cpuSeconds: 1.5, memoryBytes: 4097, startedAtMs: 1000 }]]);
  });
  test.each([
    ["used over the window", 1, 20_000, 1, 2.5, 35_000, 1, { cpu: "100m", memory: "4097" }, 15_000],
    [
      "nanocores where they do not fit more",
      1,
      20_000,
      1,
      1.000000015,
      35_000,
      1,
      { cpu: "1n", memory: "4097" },
      15_000,
    ],
    ["a new life counts from its start", 9, 20_000, 1, 2, 40_000, 20.5, { cpu: "102564103n", memory: "4097" }, 19_500],
    ["but not a young one", 9, 20_000, 1, 2, 29_000, 20.5, undefined, 0],
    ["nothing without time between", 1, 20_000, 1, 1, 20_000, 1, undefined, 0],
  ])("%s", (_, cpu, atMs, start, nextCpu, nextMs, nextStart, usage, windowMs) => {
    const base = parseResourceMetrics(text(cpu, atMs, start), 0);
    const last = parseResourceMetrics(text(nextCpu, nextMs, nextStart), 0);
    const found = usageBetween(base, last, nextMs - atMs).containers.get('n/p/c"x');
    expect(found).toEqual(usage && { atMs: nextMs, windowMs, usage });
  });
  test("a clock that was set between two samples is not taken for time that passed", () => {
    const base = parseResourceMetrics(text(1, 20_000), 0);
    const last = parseResourceMetrics(text(2.5, 1_800_000_000_000), 0);
    expect(usageBetween(base, last, 15_000).containers.get('n/p/c"x')).toMatchObject({
      windowMs: 15_000,
      usage: { cpu: "100m" },
    });
  });
});

function collectorOf(clock: FakeClock, options: { readonly fails?: () => boolean } = {}) {
  const asked: number[] = [];
  const collector = new MetricsCollector({
    clock,
    log: silentLogger,
    async scrape() {
      asked.push(clock.monotonicMs());
      if (options.fails?.()) throw new Error("no route");
      return text(clock.monotonicMs() / 2000, clock.now());
    },
  });
  const all = new Set(["a"]);
  const ask = async () => {
    const answer = collector.usage(["a"], all);
    await clock.advance(2_500);
    return (await answer).get("a")?.node;
  };
  return { asked, ask, collector, all };
}

describe("collector", () => {
  test("asks only when asked, twice at first, and measures since the last question", async () => {
    const clock = new FakeClock();
    const { asked, ask } = collectorOf(clock);
    expect(await ask()).toMatchObject({ windowMs: 2_000, usage: { cpu: "5" } });
    expect(asked).toEqual([0, 2_000]);
    // Within seconds the same answers.
    await ask();
    expect(asked).toEqual([0, 2_000]);
    await clock.advance(10_000);
    expect((await ask())?.windowMs).toBe(13_000);
    await clock.advance(60_000);
    expect((await ask())?.windowMs).toBe(62_500);
    expect(asked).toHaveLength(4);
    await clock.advance(3_600_000);
    expect(asked).toHaveLength(4);
    expect((await ask())?.windowMs).toBe(2_000);
    expect(asked).toHaveLength(6);
  });
  test("many questions at once are one", async () => {
    const clock = new FakeClock();
    const { asked, collector, all } = collectorOf(clock);
    const answers = Promise.all(Array.from({ length: 20 }, () => collector.usage(["a"], all)));
    await clock.advance(2_500);
    expect((await answers).every((answer) => answer.get("a")?.node)).toBe(true);
    expect(asked).toHaveLength(2);
  });
  test("nodes that hang do not keep back those that answer", async () => {
    const clock = new FakeClock();
    const names = Array.from({ length: 60 }, (_, i) => (i === 0 ? "good" : `bad-${i}`));
    let open = 0;
    let most = 0;
    const collector = new MetricsCollector({
      clock,
      log: silentLogger,
      async scrape(node, signal) {
        if (node === "good") return text(clock.monotonicMs() / 2000, clock.now());
        most = Math.max(most, ++open);
        await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        throw new Error("unreachable");
      },
    });
    const answer = collector.usage(names, new Set(names));
    await clock.advance(10_100);
    expect([...(await answer).keys()]).toEqual(["good"]);
    expect(most).toBeLessThanOrEqual(48);
    await clock.advance(60_000);
    expect(clock.pending).toBe(0);
  });
  test("a node that does not answer is left alone for a while, and told of no more when it is long ago", async () => {
    const clock = new FakeClock();
    let fails = false;
    const { asked, ask } = collectorOf(clock, { fails: () => fails });
    await ask();
    fails = true;
    await clock.advance(10_000);
    // What was last heard is still something.
    expect((await ask())?.windowMs).toBe(2_000);
    const count = asked.length;
    await ask();
    await ask();
    expect(asked).toHaveLength(count);
    await clock.advance(120_000);
    expect(await ask()).toBeUndefined();
    expect(asked).toHaveLength(count + 1);
  });
});

const node: Node = { metadata: { name: "a", labels: { zone: "z" } }, spec: {} } as never;
const podOf = (name: string, more: object = {}): Pod =>
  ({
    metadata: { name, namespace: "n", labels: { app: name } },
    spec: { nodeName: "a", containers: [{ name: 'c"x' }] },
    status: { phase: "Running" },
    ...more,
  }) as never;

async function serverOf(pods: readonly Pod[], withGroup = true) {
  const clock = new FakeClock();
  const log = silentLogger;
  const backend = await openDatastore(
    { endpoint: "memory://", maximumMemoryBytes: 16 * 2 ** 20 },
    { clock, log, metrics: new Metrics() },
  );
  const { collector } = collectorOf(clock);
  const group = createMetricsGroup({
    ...{ clock, collector },
    nodes: { get: (key) => (key === "a" ? node : undefined), list: () => [node] },
    pods: {
      get: (key) => pods.find((pod) => keyOf(pod) === key),
      list: (namespace) => pods.filter((pod) => namespace === undefined || namespaceOf(pod) === namespace),
    },
  });
  const server = createApiServer(
    {},
    {
      ...{ backend, clock, log, columnsFor, random: seededRandom(1), metrics: new Metrics() },
      authenticators: [],
      authorizer: { authorize: ({ user }) => ({ verdict: user.name === "nobody" ? "deny" : "allow", reason: "" }) },
      strategies: new Map(),
      admission: [],
      ...(withGroup ? { virtualGroups: [group] } : {}),
    },
  );
  const within = async <T>(work: Promise<T>): Promise<T> => {
    const settled = work.catch(() => {});
    await clock.advance(2_500);
    await settled;
    return work;
  };
  const client = new Client(server.transport(loopback));
  return { clock, server, client, within };
}

describe("metrics.k8s.io", () => {
  test("pods and nodes as metrics-server tells them", async () => {
    const { client, within } = await serverOf([
      podOf("p"),
      podOf("done", { status: { phase: "Succeeded" } }),
      podOf("unheard"),
    ]);
    const list = await within(client.list(podMetrics, { namespace: "n" }));
    expect(list).toEqual({
      kind: "PodMetricsList",
      apiVersion: "metrics.k8s.io/v1beta1",
      metadata: {},
      items: [
        {
          kind: "PodMetrics",
          apiVersion: "metrics.k8s.io/v1beta1",
          metadata: { name: "p", namespace: "n", creationTimestamp: "2026-01-01T00:00:02Z", labels: { app: "p" } },
          timestamp: "2026-01-01T00:00:02Z",
          window: "2s",
          containers: [{ name: 'c"x', usage: { cpu: "500m", memory: "4097" } }],
        },
      ],
    });
    expect((await client.list(podMetrics, { labelSelector: "app=q" })).items).toEqual([]);
    expect((await client.list(podMetrics, { fieldSelector: "metadata.name=p" })).items).toHaveLength(1);
    expect((await client.list(podMetrics, { namespace: "other" })).items).toEqual([]);
    expect(await client.get(podMetrics, "p", "n")).toEqual(list.items[0]);
    expect((await client.list(nodeMetrics, { labelSelector: "zone in (z)" })).items).toMatchObject([
      { metadata: { name: "a" }, usage: { cpu: "5", memory: "1Mi" } },
    ]);
  });
  test.each([
    ["a pod that does not run", podMetrics, "done", "n", 'podmetrics.metrics.k8s.io "n/done" not found'],
    ["a pod that is not there", podMetrics, "x", "n", 'pods "n/x" not found'],
    ["a node that is not there", nodeMetrics, "x", undefined, 'nodes "x" not found'],
  ] as const)("%s", async (_, resource, name, namespace, message) => {
    const { client, within } = await serverOf([podOf("done", { status: { phase: "Failed" } })]);
    await expect(within(client.get<ApiObject>(resource, name, namespace))).rejects.toThrow(message);
  });
  test("only reads, in the right scope, and only for who may", async () => {
    const { client, server } = await serverOf([podOf("p")]);
    const path = "/apis/metrics.k8s.io/v1beta1";
    const code = async (method: "GET" | "DELETE", at: string, user = loopback) => {
      try {
        await server.transport(user).request({ method, path: `${path}/${at}` });
        return 200;
      } catch (error) {
        return (error as { code?: number }).code ?? messageOf(error);
      }
    };
    expect(await code("DELETE", "namespaces/n/pods/p")).toBe(405);
    expect(await code("GET", "namespaces/n/nodes")).toBe(404);
    expect(await code("GET", "namespaces/n/pods/p/status")).toBe(404);
    expect(await code("GET", "things")).toBe(404);
    expect(await code("GET", "nodes", { name: "nobody", groups: [] })).toBe(403);
    const group = await client.transport.request({ method: "GET", path: "/apis/metrics.k8s.io" });
    expect(group).toMatchObject({ preferredVersion: { version: "v1beta1" } });
    const { resources } = await client.transport.request({ method: "GET", path });
    expect(resources).toEqual([
      { name: "nodes", singularName: "", namespaced: false, kind: "NodeMetrics", verbs: ["get", "list"] },
      { name: "pods", singularName: "", namespaced: true, kind: "PodMetrics", verbs: ["get", "list"] },
    ]);
  });
  test("without it there is no such group", async () => {
    const { client } = await serverOf([], false);
    await expect(client.list(podMetrics)).rejects.toMatchObject({ code: 404 });
  });
  test("its table sums up containers", () => {
    const usage = { cpu: "1500u", memory: "3Mi" };
    const object = { metadata: { name: "p" }, window: "15s", containers: [{ usage }, { usage }] } as never;
    const encoder = new Encoder({
      clock: new FakeClock(),
      columnsFor,
      protobuf: { has: () => false } as never,
      cbor: {} as never,
    });
    const as = { format: "json", shape: "table", metaVersion: "v1", pretty: false } as const;
    const table = JSON.parse(Buffer.from(encoder.objects(podMetrics, [object], true, as, "None")).toString()) as never;
    expect(table).toMatchObject({
      kind: "Table",
      columnDefinitions: [{ name: "Name" }, { name: "cpu" }, { name: "memory" }, { name: "Window" }],
      rows: [{ cells: ["p", "3m", "6Mi", "15s"] }],
    });
  });
});
