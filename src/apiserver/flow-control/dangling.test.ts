import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { runAll } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import { openDatastore } from "#datastore/open.ts";
import type { FlowSchema, PriorityLevelConfiguration } from "#model/gen/flowcontrol-v1.ts";
import * as resources from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { loopback } from "../authn/user.ts";
import { columnsFor } from "../printers/tables.ts";
import { createStrategies } from "../registry/strategies.ts";
import { createApiServer } from "../server.ts";
import { createDanglingController, danglingCondition } from "./dangling.ts";

const schema: FlowSchema = {
  metadata: { name: "mine" },
  spec: { priorityLevelConfiguration: { name: "mine" }, matchingPrecedence: 50 },
};

test("the condition is told once, and its time is that of the change", () => {
  const found = danglingCondition(schema, true, Date.UTC(2026, 0, 1))!;
  expect(found).toEqual({
    type: "Dangling",
    status: "False",
    reason: "Found",
    message: 'This FlowSchema references the PriorityLevelConfiguration object named "mine" and it exists',
    lastTransitionTime: "2026-01-01T00:00:00Z",
  });
  const told = { ...schema, status: { conditions: [found] } };
  expect(danglingCondition(told, true, Date.UTC(2026, 0, 2))).toBeUndefined();
  const renamed = { ...told, spec: { ...told.spec, priorityLevelConfiguration: { name: "other" } } };
  expect(danglingCondition(renamed, true, Date.UTC(2026, 0, 2))?.lastTransitionTime).toBe("2026-01-01T00:00:00Z");
  expect(danglingCondition(told, false, Date.UTC(2026, 0, 2))).toMatchObject({
    ...{ status: "True", reason: "NotFound", lastTransitionTime: "2026-01-02T00:00:00Z" },
    message:
      'This FlowSchema references the PriorityLevelConfiguration object named "mine" but there is no such object',
  });
});

test("flow schemas say whether their level exists", async () => {
  const [clock, random, log] = [systemClock, systemRandom, silentLogger];
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log });
  const server = createApiServer(
    { freezeShared: true },
    {
      ...{ backend, clock, random, log, metrics: new Metrics(), authenticators: [], admission: [], columnsFor },
      authorizer: { authorize: () => ({ verdict: "allow", reason: "" }) },
      strategies: createStrategies({ clock, random }),
    },
  );
  const client = new Client(server.transport(loopback));
  const informers = new InformerFactory({ verify: true }, { client, clock, random, log });
  const stop = new AbortController();
  const services = [informers, createDanglingController({ client, informers, clock, log })];
  const running = runAll(services, { clock, log, stopTimeoutMs: 5000 }, stop.signal);
  await client.create(resources.flowSchemas, { ...schema, spec: { ...schema.spec, rules: [] } });
  const reason = async () => {
    const found = await client.get(resources.flowSchemas, "mine");
    return found.status?.conditions?.map((condition) => condition.reason);
  };
  await expect.poll(reason).toEqual(["NotFound"]);
  const limited = { nominalConcurrencyShares: 1, limitResponse: { type: "Reject" } };
  const level: PriorityLevelConfiguration = { metadata: { name: "mine" }, spec: { type: "Limited", limited } };
  await client.create(resources.priorityLevelConfigurations, level);
  await expect.poll(reason).toEqual(["Found"]);
  await client.delete(resources.priorityLevelConfigurations, { name: "mine" });
  await expect.poll(reason).toEqual(["NotFound"]);
  stop.abort();
  await running;
  await backend.close();
});
