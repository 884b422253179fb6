// Servers that take turns: what one of them knew of nodes when it led last says nothing of the time since. How nodes fall
// silent and come back is in test/scenario/node-lost.test.ts.
import { expect, test } from "vitest";
import { silentLogger as log } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { defaultSettings } from "../arguments.ts";
import { createNodeLifecycleController } from "./lifecycle.ts";

test("a node was not silent while nobody listened", async () => {
  const client = new Client(new FakeTransport());
  const conditions = [{ type: "Ready", status: "True", lastHeartbeatTime: "2026-01-01T00:00:00Z" }];
  await client.create(nodes, { metadata: { name: "n" }, spec: {}, status: { conditions } } as unknown as Node);
  const clock = new FakeClock();
  const deps = { client, clock, random: seededRandom(1), log };
  const informers = new InformerFactory({}, deps);
  const events = new EventRecorder({ component: "test" }, deps);
  const controller = createNodeLifecycleController(
    { ...deps, informers, events, metrics: new Metrics() },
    defaultSettings.nodes,
  );
  const stop = new AbortController();
  const watching = informers.run(stop.signal, () => {});
  const lead = async (ms: number) => {
    const term = new AbortController();
    const done = controller.run(term.signal, () => {});
    await clock.advance(ms);
    term.abort();
    await done;
    const node = await client.get(nodes, "n");
    return node.status?.conditions?.find(({ type }) => type === "Ready")?.status;
  };
  expect(await lead(30_000)).toBe("True");
  await clock.advance(60_000);
  expect(await lead(40_000)).toBe("True");
  // It is still listened to, and still says nothing.
  expect(await lead(40_000)).toBe("Unknown");
  stop.abort();
  await watching;
});
