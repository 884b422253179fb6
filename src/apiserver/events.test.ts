// One event, two groups: events.k8s.io asks more of those that are sent to it.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Event as CoreEvent, Namespace } from "#model/gen/core-v1.ts";
import type { Event } from "#model/gen/events-v1.ts";
import * as resources from "#model/resources.ts";
import { type Kinds, openKinds, refusal } from "./kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds();
  await kinds.client.create(resources.namespaces, { metadata: { name: "shop" }, spec: {} } as Namespace);
});
afterAll(() => kinds.close());

let count = 0;
const event = (more: object = {}): Event => ({
  metadata: { name: `e${++count}`, namespace: "shop" },
  regarding: { kind: "Pod", namespace: "shop", name: "p" },
  eventTime: "2026-01-01T00:00:00.000000Z",
  reportingController: "example.com/c",
  reportingInstance: "i",
  action: "Do",
  reason: "R",
  type: "Normal",
  ...more,
});

test.each<[string, object, string]>([
  ["as it should be", {}, "accepted"],
  ["a series", { series: { count: 2, lastObservedTime: "2026-01-01T00:00:01.000000Z" } }, "accepted"],
  ["of no time", { eventTime: undefined }, "eventTime: Required value"],
  ["of a type of its own", { type: "Odd" }, 'type: Invalid value: "": has invalid value: Odd'],
  ["with what is the older group's", { deprecatedCount: 3 }, 'count: Invalid value: "": needs to be unset'],
  ["a series of one", { series: { count: 1 } }, 'series.count: Invalid value: "": should be at least 2'],
])("%s", async (_what, more, wanted) => {
  expect(await refusal(kinds.client.create(resources.eventsV1, event(more)))).toContain(wanted);
});

test("of what is there only the series changes", async () => {
  const made = await kinds.client.create(resources.eventsV1, event());
  const series = { count: 2, lastObservedTime: "2026-01-01T00:00:01.000000Z" };
  const next = await kinds.client.update(resources.eventsV1, { ...made, series });
  expect(next.series).toEqual(series);
  expect(await refusal(kinds.client.update(resources.eventsV1, { ...next, note: "changed" }))).toContain(
    'message: Invalid value: "changed": field is immutable',
  );
  expect(
    await refusal(
      kinds.client.patch(resources.eventsV1, { name: made.metadata.name!, namespace: "shop" }, { reason: "Other" }),
    ),
  ).toContain('reason: Invalid value: "Other": field is immutable');
  // Whom the core group serves may do that.
  const old = await kinds.client.get(resources.events, made.metadata.name!, "shop");
  const changed = await kinds.client.update(resources.events, { ...old, message: "changed" } as CoreEvent);
  expect(changed.message).toBe("changed");
});
