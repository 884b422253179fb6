// Servers that take turns: what one of them knew of nodes when it led last says nothing of the time since. How nodes fall
// silent and come back is in test/scenario/node-lost.test.ts.
import { expect, test } from "vitest";
import { createLogger, silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { nodes, pods } from "#model/resources.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { defaultSettings } from "../arguments.ts";
import type { ControllerDeps } from "../runtime/controller.ts";
import { createTaintEvictionController } from "./eviction.ts";
import { createNodeLifecycleController } from "./lifecycle.ts";

async function start(make: (deps: ControllerDeps) => Service, node: object, ...more: Pod[]) {
  const client = new Client(new FakeTransport());
  await client.create(nodes, { metadata: { name: "n" }, spec: {}, ...node } as unknown as Node);
  for (const pod of more) await client.create(pods, pod);
  const clock = new FakeClock();
  const told: string[] = [];
  const log = createLogger((_level, message) => void told.push(message), "info");
  const deps = { client, clock, random: seededRandom(1), log: silentLogger };
  const informers = new InformerFactory({}, deps);
  const events = new EventRecorder({ component: "test" }, deps);
  const controller = make({ ...deps, log, informers, events, metrics: new Metrics() });
  const stop = new AbortController();
  const watching = informers.run(stop.signal, () => {});
  return {
    ...{ client, clock, told },
    /** One term. */
    async lead(ms: number): Promise<void> {
      const term = new AbortController();
      const done = controller.run(term.signal, () => {});
      await clock.advance(ms);
      term.abort();
      await done;
    },
    async end(): Promise<void> {
      stop.abort();
      await watching;
    },
  };
}

test("a node was not silent while nobody listened", async () => {
  const conditions = [{ type: "Ready", status: "True", lastHeartbeatTime: "2026-01-01T00:00:00Z" }];
  const world = await start((deps) => createNodeLifecycleController(deps, defaultSettings.nodes), {
    status: { conditions },
  });
  const ready = async () =>
    (await world.client.get(nodes, "n")).status?.conditions?.find(({ type }) => type === "Ready")?.status;
  await world.lead(30_000);
  expect(await ready()).toBe("True");
  await world.clock.advance(60_000);
  await world.lead(40_000);
  expect(await ready()).toBe("True");
  // Who stays silent is found out.
  await world.lead(70_000);
  expect(await ready()).toBe("Unknown");
  await world.end();
});

test("that no node is ready is said when it lasts, and not of one that has just come", async () => {
  const conditions = [{ type: "Ready", status: "False", lastHeartbeatTime: "2026-01-01T00:00:00Z" }];
  const world = await start((deps) => createNodeLifecycleController(deps, defaultSettings.nodes), {
    status: { conditions },
  });
  const ofReadiness = () => world.told.filter((message) => /nodes? (is|are) ready/.test(message));
  const become = async (status: string) => {
    const node = await world.client.get(nodes, "n");
    const next = { ...conditions[0]!, status };
    await world.client.updateStatus(nodes, { ...node, status: { conditions: [next] } });
  };
  await world.lead(10_000);
  await become("True");
  await world.lead(10_000);
  expect(ofReadiness()).toEqual([]);
  await become("False");
  await world.lead(60_000);
  expect(ofReadiness()).toEqual(["no node is ready: nothing is evicted"]);
  await become("True");
  await world.lead(10_000);
  expect(ofReadiness()).toEqual(["no node is ready: nothing is evicted", "some nodes are ready again"]);
  await world.end();
});

test("a pod that had to go in an earlier term may stay as long as it tolerates its node now", async () => {
  const taint = { key: "node.kubernetes.io/unreachable", effect: "NoExecute" };
  const toleration = { ...taint, operator: "Exists", tolerationSeconds: 300 };
  const pod = {
    metadata: { name: "p", namespace: "default" },
    spec: { nodeName: "n", containers: [], tolerations: [toleration] },
  } as unknown as Pod;
  const world = await start(createTaintEvictionController, { spec: { taints: [taint] } }, pod);
  const isThere = async () => (await world.client.list(pods, { namespace: "default" })).items.length === 1;
  await world.lead(60_000);
  expect(await isThere()).toBe(true);
  await world.clock.advance(600_000);
  await world.lead(100_000);
  expect(await isThere()).toBe(true);
  await world.lead(310_000);
  expect(await isThere()).toBe(false);
  await world.end();
});
