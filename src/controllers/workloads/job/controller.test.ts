import { expect, test } from "vitest";
import { rfc3339 } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { runAll } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Job } from "#model/gen/batch-v1.ts";
import { jobs, pods } from "#model/resources.ts";
import { ApiError } from "#model/status.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createJobController } from "./controller.ts";

test.each([0, 4])("a failure is paused for once, though its status is written only after %i tries", async (lost) => {
  const transport = new FakeTransport();
  const client = new Client(transport);
  const clock = new FakeClock();
  const random = seededRandom(1);
  const informers = new InformerFactory({ verify: true }, { client, clock, random, log: silentLogger });
  const events = new EventRecorder({ component: "test" }, { client, clock, random, log: silentLogger });
  const deps = { client, informers, events, clock, random, log: silentLogger, metrics: new Metrics() };
  const labels = { job: "work" };
  await client.create(jobs, {
    metadata: { name: "work", namespace: "ns" },
    spec: {
      ...{ backoffLimit: 6, parallelism: 1, completions: 1, selector: { matchLabels: labels } },
      template: { metadata: { labels }, spec: { restartPolicy: "Never", containers: [] } },
    },
  } as Job);
  const stop = new AbortController();
  const running = runAll(
    [informers, createJobController(deps)],
    { clock, log: silentLogger, stopTimeoutMs: 1000 },
    stop.signal,
    () => {},
  );
  const podsNow = async () => (await client.list(pods, { namespace: "ns" })).items;
  await clock.advance(1000);
  const [pod] = await podsNow();
  let left = lost;
  transport.fail = ({ method, path }) =>
    method === "PUT" && path.endsWith("/jobs/work/status") && left-- > 0
      ? new ApiError(409, "Conflict", "somebody was faster")
      : undefined;
  const terminated = { exitCode: 1, finishedAt: rfc3339(clock.now()) };
  const containerStatuses = [{ name: "c", state: { terminated } }];
  await client.update(pods, { ...pod!, status: { phase: "Failed", containerStatuses } } as never);
  await clock.advance(8000);
  expect(left).toBeLessThanOrEqual(0);
  expect(await podsNow()).toHaveLength(1);
  await clock.advance(4000);
  await settle();
  expect(await podsNow()).toHaveLength(2);
  stop.abort(new Error("test is over"));
  await clock.advance(10);
  await running;
});
