import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Event } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { events, pods } from "#model/resources.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { FakeTransport, unreachableServer } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { Client } from "./client.ts";
import { EventRecorder } from "./events.ts";

function start() {
  const transport = new FakeTransport();
  const client = new Client(transport);
  const clock = new FakeClock();
  const recorder = new EventRecorder(
    { component: "test" },
    { client, clock, random: seededRandom(1), log: silentLogger },
  );
  const stop = new AbortController();
  const done = recorder.run(stop.signal, () => {});
  const object: ApiObject = { metadata: { name: "web", namespace: "ns", uid: "u1", resourceVersion: "5" } };
  const say = (message: string, about = object) =>
    recorder.record({ resource: pods, object: about, type: "Normal", reason: "Tested", message });
  const end = () => {
    stop.abort();
    return done;
  };
  const written = async () => {
    await settle();
    return (await client.list(events, { namespace: "ns" })).items;
  };
  return { transport, client, clock, recorder, object, say, written, end };
}

test("an event says what, about whom, from whom and when", async () => {
  const t = start();
  t.say("hello");
  const [event] = await t.written();
  expect(event).toMatchObject({
    involvedObject: { kind: "Pod", apiVersion: "v1", name: "web", namespace: "ns", uid: "u1" },
    reason: "Tested",
    message: "hello",
    type: "Normal",
    count: 1,
    source: { component: "test" },
    firstTimestamp: "2026-01-01T00:00:00Z",
  });
  expect(event?.metadata.name).toMatch(/^web\.[0-9a-f]{16}$/);
  await t.end();
});

test("repeats are counted, also when the object has changed meanwhile", async () => {
  const t = start();
  t.say("hello");
  await t.written();
  await t.clock.advance(5000);
  t.say("hello", { metadata: { ...t.object.metadata, resourceVersion: "9" } });
  const all = await t.written();
  expect(all.map((e: Event) => [e.count, e.lastTimestamp])).toEqual([[2, "2026-01-01T00:00:05Z"]]);
  await t.end();
});

test("an event that has expired is written anew", async () => {
  const t = start();
  t.say("hello");
  const [first] = await t.written();
  await t.client.delete(events, { name: first!.metadata.name!, namespace: "ns" });
  t.say("hello");
  expect((await t.written()).map((e) => e.count)).toEqual([1]);
  await t.end();
});

test("many alike become one, and one object gets 25 at once", async () => {
  const t = start();
  for (let i = 0; i < 40; i++) t.say(`message ${i}`);
  const all = await t.written();
  expect(all).toHaveLength(11);
  const combined = all.find((e) => e.message?.startsWith("(combined from similar events): "));
  expect(combined?.count).toBe(15);
  await t.clock.advance(301_000);
  t.say("message 50");
  const later = (await t.written()).find((e) => e.metadata.name === combined?.metadata.name);
  expect(later?.count).toBe(16);
  await t.end();
});

test("a server that is away costs events, not the caller", async () => {
  const t = start();
  t.transport.fail = () => unreachableServer();
  t.say("lost");
  await settle();
  t.transport.fail = () => undefined;
  t.say("kept");
  expect((await t.written()).map((e) => e.message)).toEqual(["kept"]);
  await t.end();
});
