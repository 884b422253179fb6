import { describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { FakeTransport, unreachableServer } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { Client } from "./client.ts";
import { type Informer, InformerFactory } from "./informer.ts";
import type { Transport } from "./transport.ts";

type Thing = ApiObject & { data?: Record<string, string> };
const things = {
  group: "",
  version: "v1",
  kind: "ConfigMap",
  plural: "configmaps",
  namespaced: true,
} as ResourceInfo<Thing>;
const thing = (name: string, data: Record<string, string> = {}): Thing => ({
  metadata: { name, namespace: "ns" },
  data,
});

async function start(through: (inner: Transport, clock: FakeClock) => Transport = (inner) => inner) {
  const transport = new FakeTransport();
  const clock = new FakeClock();
  const client = new Client(through(transport, clock));
  const factory = new InformerFactory({ verify: true }, { client, clock, random: seededRandom(1), log: silentLogger });
  const informer = factory.informer(things);
  const seen: string[] = [];
  informer.addHandler({
    add: (o) => seen.push(`add ${o.metadata.name}`),
    update: (o, old) => seen.push(`update ${o.metadata.name} ${old.data?.["v"]}->${o.data?.["v"]}`),
    delete: (o) => seen.push(`delete ${o.metadata.name}`),
  });
  const stop = new AbortController();
  let isReady = false;
  const run = () =>
    factory.run(stop.signal, () => {
      isReady = true;
    });
  return { transport, client, clock, factory, informer, seen, stop, run, isReady: () => isReady };
}

describe("informer", () => {
  test("lists, then follows", async () => {
    const t = await start();
    await t.client.create(things, thing("a", { v: "1" }));
    const done = t.run();
    await settle();
    expect([t.informer.hasSynced, t.isReady()]).toEqual([true, true]);
    await t.client.create(things, thing("b"));
    await t.client.patch(things, { name: "a", namespace: "ns" }, { data: { v: "2" } });
    await t.client.delete(things, { name: "b", namespace: "ns" });
    await settle();
    expect(t.seen).toEqual(["add a", "add b", "update a 1->2", "delete b"]);
    expect(t.informer.list("ns").map((o) => o.metadata.name)).toEqual(["a"]);
    expect(t.informer.list("other")).toEqual([]);
    t.stop.abort();
    await done;
    expect(t.clock.pending).toBe(0);
  });

  test("resumes a broken watch from where it was, without listing again", async () => {
    const t = await start();
    const done = t.run();
    await settle();
    t.transport.disconnect();
    await t.client.create(things, thing("a"));
    await t.clock.advance(5000);
    expect(t.seen).toEqual(["add a"]);
    expect(t.transport.log.filter((l) => l.startsWith("GET"))).toHaveLength(1);
    t.stop.abort();
    await done;
  });

  test("lists again after compaction and reports only the difference", async () => {
    const t = await start();
    for (const name of ["kept", "gone", "changed"]) await t.client.create(things, thing(name, { v: "1" }));
    const done = t.run();
    await settle();
    t.seen.length = 0;
    t.transport.fail = () => unreachableServer();
    t.transport.disconnect();
    await settle();
    t.transport.fail = () => undefined;
    await t.client.delete(things, { name: "gone", namespace: "ns" });
    await t.client.patch(things, { name: "changed", namespace: "ns" }, { data: { v: "2" } });
    await t.client.create(things, thing("new"));
    t.transport.compact();
    await t.client.create(things, thing("newer"));
    await t.clock.advance(10_000);
    expect(t.seen.sort()).toEqual(["add new", "add newer", "delete gone", "update changed 1->2"]);
    t.stop.abort();
    await done;
  });

  test("an object replaced by another of the same name is a delete and an add", async () => {
    const t = await start();
    await t.client.create(things, thing("a"));
    const done = t.run();
    await settle();
    t.transport.fail = () => unreachableServer();
    t.transport.disconnect();
    await settle();
    t.transport.fail = () => undefined;
    await t.client.delete(things, { name: "a", namespace: "ns" });
    await t.client.create(things, thing("a"));
    t.transport.compact();
    await t.client.create(things, thing("b"));
    await t.clock.advance(10_000);
    expect(t.seen).toEqual(["add a", "delete a", "add a", "add b"]);
    t.stop.abort();
    await done;
  });

  test("keeps trying a server that is not there, with growing pauses", async () => {
    const t = await start();
    t.transport.fail = () => unreachableServer();
    const done = t.run();
    await t.clock.advance(100_000);
    const attempts = t.transport.log.length;
    expect(attempts).toBeGreaterThan(4);
    expect(attempts).toBeLessThan(12);
    t.transport.fail = () => undefined;
    await t.clock.advance(60_000);
    expect(t.isReady()).toBe(true);
    t.stop.abort();
    await done;
  });

  test.each(["a list", "a watch"])("%s that fails slowly is no sign of life", async (what) => {
    let attempts = 0;
    const t = await start((inner, clock) => {
      const failSlowly = async (signal?: AbortSignal): Promise<never> => {
        attempts++;
        await clock.sleep(3000, signal);
        throw unreachableServer();
      };
      return {
        request: (request, signal) => (what === "a list" ? failSlowly(signal) : inner.request(request, signal)),
        async *watch(request, signal) {
          await failSlowly(signal);
          yield* inner.watch(request, signal);
        },
      };
    });
    const done = t.run();
    await t.clock.advance(120_000);
    expect(attempts).toBeGreaterThan(4);
    expect(attempts).toBeLessThan(12);
    t.stop.abort();
    await done;
  });

  test("after a watch that was open for a while pauses are short again", async () => {
    const t = await start();
    t.transport.fail = () => unreachableServer();
    const done = t.run();
    await t.clock.advance(60_000);
    t.transport.fail = () => undefined;
    await t.clock.advance(60_000);
    t.transport.log.length = 0;
    t.transport.fail = () => unreachableServer();
    t.transport.disconnect();
    await t.clock.advance(4000);
    expect(t.transport.log.length).toBeGreaterThan(1);
    t.stop.abort();
    await done;
  });

  test("what is asked for anew is waited for, and an answer from before does not count", async () => {
    let answer = () => {};
    let isSlow = false;
    const t = await start((inner) => ({
      async request(request, signal) {
        const found = await inner.request(request, signal);
        if (isSlow && request.method === "GET") {
          await new Promise<void>((resolve) => {
            answer = resolve;
          });
        }
        return found;
      },
      watch: (request, signal, onOpen) => inner.watch(request, signal, onOpen),
    }));
    const done = t.run();
    await settle();
    const whenFresh = () => {
      const state = { isFresh: false };
      void t.informer.whenSynced(t.stop.signal).then(() => {
        state.isFresh = true;
      });
      return state;
    };
    const before = whenFresh();
    await settle();
    expect(before.isFresh).toBe(true);
    isSlow = true;
    t.factory.refresh();
    const first = whenFresh();
    await settle();
    const late = answer;
    await t.client.create(things, thing("a"));
    t.factory.refresh();
    await settle();
    // What was read before the second time.
    late();
    await settle();
    expect([first.isFresh, t.informer.size]).toEqual([false, 0]);
    answer();
    await settle();
    expect([first.isFresh, t.informer.size, t.informer.hasSynced]).toEqual([true, 1, true]);
    await t.client.create(things, thing("b"));
    await settle();
    expect(t.seen).toEqual(["add a", "add b"]);
    t.stop.abort();
    await done;
  });

  test("indexes follow the objects", async () => {
    const t = await start();
    t.informer.addIndex("v", (o) => (o.data?.["v"] ? [o.data["v"]] : []));
    const done = t.run();
    await t.client.create(things, thing("a", { v: "1" }));
    await t.client.create(things, thing("b", { v: "1" }));
    await settle();
    const names = (v: string) => t.informer.byIndex("v", v).map((o) => o.metadata.name);
    expect(names("1")).toEqual(["a", "b"]);
    await t.client.patch(things, { name: "a", namespace: "ns" }, { data: { v: "2" } });
    await t.client.delete(things, { name: "b", namespace: "ns" });
    await settle();
    expect([names("1"), names("2")]).toEqual([[], ["a"]]);
    t.stop.abort();
    await done;
  });

  test("verify makes a change of a shared object throw", async () => {
    const t = await start();
    await t.client.create(things, thing("a", { v: "1" }));
    const done = t.run();
    await settle();
    const object = t.informer.get("ns/a")!;
    expect(() => {
      object.data!["v"] = "2";
    }).toThrow(TypeError);
    t.stop.abort();
    await done;
  });

  test("one that is stopped before it has listed keeps nobody waiting", async () => {
    const t = await start();
    const other = { ...things, plural: "secrets" } as ResourceInfo<Thing>;
    const gone = t.factory.informer(other);
    t.transport.fail = ({ path }) => (path.includes("secrets") ? unreachableServer() : undefined);
    const done = t.run();
    await settle();
    expect([t.informer.hasSynced, t.isReady()]).toEqual([true, false]);
    const waiting = expect(gone.whenSynced(t.stop.signal)).rejects.toMatchObject({ code: "CLIENT_INFORMER_STOPPED" });
    t.factory.stop(gone as unknown as Informer<ApiObject>);
    await settle();
    await waiting;
    expect(t.isReady()).toBe(true);
    t.stop.abort();
    await done;
  });

  test("the factory shares informers, and keeps metadata only where nobody wants more", async () => {
    const t = await start();
    expect(t.factory.informer(things)).toBe(t.informer);
    expect(t.factory.informer(things, { metadataOnly: true })).toBe(t.informer);
    const other = { ...things, plural: "secrets" } as ResourceInfo<Thing>;
    const light = t.factory.informer(other, { metadataOnly: true });
    await t.client.create(other, thing("a", { v: "1" }));
    const done = t.run();
    await settle();
    expect(light.get("ns/a")?.data).toBeUndefined();
    expect(light.get("ns/a")?.metadata.uid).toBeDefined();
    t.stop.abort();
    await done;
  });

  test.each([
    ["a list in time", 500, ["add known", "add new"]],
    ["a list that comes late", 8_000, ["add known", "add old", "delete old", "update known 1->2", "add new"]],
  ])("begins with what was known before without %s", async (_, answersMs, expected) => {
    const t = await start();
    const known = (v: string) => ({ ...thing("known", { v }), metadata: { name: "known", namespace: "ns", uid: "k" } });
    const recall = {
      afterMs: 5_000,
      load: async () => [known("1"), thing("old")],
    };
    const { client, clock } = t;
    const factory = new InformerFactory({}, { client, clock, random: seededRandom(1), log: silentLogger, recall });
    const informer = factory.informer(things);
    const seen: string[] = [];
    informer.addHandler({
      add: (o) => seen.push(`add ${o.metadata.name}`),
      update: (o, old) => seen.push(`update ${o.metadata.name} ${old.data?.["v"]}->${o.data?.["v"]}`),
      delete: (o) => seen.push(`delete ${o.metadata.name}`),
    });
    await client.create(things, known("2"));
    await client.create(things, thing("new"));
    t.transport.fail = () => (clock.monotonicMs() < answersMs ? unreachableServer() : undefined);
    const done = factory.run(t.stop.signal, () => {});
    await clock.advance(5_500);
    expect([informer.hasSynced, informer.isCurrent]).toEqual([true, answersMs < 5_000]);
    const current = informer.whenCurrent(t.stop.signal);
    await clock.advance(20_000);
    await current;
    expect(seen).toEqual(expected);
    t.stop.abort();
    await done;
    expect(clock.pending).toBe(0);
  });
});
