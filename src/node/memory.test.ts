// The memory of a node over a server that goes away and comes back, under the fake clock; files are real.
import { copyFileSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger as log } from "#base/log.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import type { ApiRequest, Transport } from "#client/transport.ts";
import type { ConfigMap, Node, Pod, Secret, Service } from "#model/gen/core-v1.ts";
import { configMaps, nodes, secrets, serviceAccounts, services } from "#model/resources.ts";
import { ApiError, isNotFound, notFound } from "#model/status.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { NodeMemory } from "./memory.ts";
import { RememberedStore } from "./remembered/store.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-memory-");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const random = seededRandom(5);
const clock = new FakeClock();
/** Disk and promises. */
const idle = async () => {
  for (let i = 0; i < 10; i++) {
    await settle();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
};

class Run {
  readonly stop = new AbortController();
  readonly memory: NodeMemory;
  readonly client: Client;
  readonly #tasks: Promise<void>[];

  private constructor(memory: NodeMemory, inner: Transport) {
    this.memory = memory;
    this.client = new Client(memory.transport(inner));
    this.#tasks = memory.services.map((service) => service.run(this.stop.signal, () => {}));
  }
  static async begin(inner: Transport, at = `${folder}/r`): Promise<Run> {
    const probe = (path: string, signal: AbortSignal) => inner.request({ method: "GET", path }, signal);
    const memory = await NodeMemory.open({ folder: at, nodeName: "n" }, { clock, random, log, probe });
    return new Run(memory, inner);
  }
  async end(): Promise<void> {
    this.stop.abort();
    await settle();
    await Promise.all(this.#tasks);
  }
}

const unreachable = () => new Error("connect EHOSTUNREACH");
const map = (value: string) =>
  ({ kind: "ConfigMap", metadata: { name: "m", namespace: "ns" }, data: { v: value } }) as unknown as ConfigMap;
const webPod = (uid = "u", more: object = {}) =>
  ({
    metadata: { name: "web", namespace: "ns", uid },
    spec: { containers: [{ name: "main", envFrom: [{ configMapRef: { name: "m" } }] }] },
    ...more,
  }) as unknown as Pod;

test("what was read is given again while the server is away, and anew when it is back", async () => {
  const server = new FakeTransport();
  const api = new Client(server);
  await api.create(nodes, { metadata: { name: "n", labels: { zone: "a" } } } as unknown as Node);
  await api.create(configMaps, map("1"));
  const first = await Run.begin(server);
  expect((await first.client.get(configMaps, "m", "ns")).data).toEqual({ v: "1" });
  expect((await first.client.get(nodes, "n")).metadata.labels).toEqual({ zone: "a" });
  await expect(first.client.get(secrets, "optional", "ns")).rejects.toSatisfy(isNotFound);
  first.memory.remember(webPod());
  await first.end();

  server.fail = unreachable;
  const second = await Run.begin(server);
  await idle();
  expect(second.memory.reach.isAway).toBe(true);
  const requests = server.log.length;
  expect((await second.client.get(configMaps, "m", "ns")).data).toEqual({ v: "1" });
  expect((await second.client.get(nodes, "n")).metadata).toMatchObject({ name: "n", labels: { zone: "a" } });
  // That it is not there is known as well.
  await expect(second.client.get(secrets, "optional", "ns")).rejects.toSatisfy(isNotFound);
  await expect(second.client.get(secrets, "never asked for", "ns")).rejects.toMatchObject({ code: "NODE_SERVER_AWAY" });
  await expect(second.client.patch(nodes, { name: "n" }, {})).rejects.toMatchObject({ code: "NODE_SERVER_AWAY" });
  expect(server.log.length).toBe(requests);
  server.fail = () => undefined;
  await api.patch(configMaps, { name: "m", namespace: "ns" }, { data: { v: "2" } });
  let told = 0;
  second.memory.reach.onBack(() => told++);
  const back = second.memory.reach.whenBack(second.stop.signal);
  await clock.advance(10_000);
  await back;
  expect(told).toBe(1);
  expect((await second.client.get(configMaps, "m", "ns")).data).toEqual({ v: "2" });
  await second.end();
});

test("a server that says nothing is not waited for where something is known", async () => {
  const server = new FakeTransport();
  await new Client(server).create(configMaps, map("1"));
  const silent = { is: false };
  const inner: Transport = {
    request: (request, signal) =>
      silent.is
        ? new Promise((_, reject) => {
            signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
          })
        : server.request(request),
    watch: (request, signal) => server.watch(request, signal),
  };
  const run = await Run.begin(inner);
  await idle();
  await run.client.get(configMaps, "m", "ns");
  silent.is = true;
  const answer = run.client.get(configMaps, "m", "ns");
  await clock.advance(3_000);
  await idle();
  expect((await answer).data).toEqual({ v: "1" });
  expect(run.memory.reach.isAway).toBe(true);
  silent.is = false;
  await clock.advance(20_000);
  expect(run.memory.reach.isAway).toBe(false);
  await run.end();
});

test.each<[string, () => Error, boolean]>([
  ["no connection", unreachable, true],
  ["an answer of what stands before it", () => new ApiError(503, "ServiceUnavailable", "starting"), true],
  ["that it does not know us", () => new ApiError(401, "Unauthorized", "Unauthorized"), true],
  ["that there is no such thing", () => notFound({ group: "", resource: "nodes" }, "n"), false],
  ["that something fails in it", () => new ApiError(500, "InternalError", "a webhook failed"), false],
])("the server is taken for gone after %s", async (_, fail, isAway) => {
  const server = new FakeTransport();
  const run = await Run.begin(server);
  await idle();
  expect(run.memory.reach.isAway).toBe(false);
  server.fail = fail;
  await run.client.patch(nodes, { name: "n" }, {}).catch(() => {});
  expect(run.memory.reach.isAway).toBe(isAway);
  await run.end();
});

test("a token outlives its server, and is not written every hour", async () => {
  let made = 0;
  let isGone = false;
  const inner: Transport = {
    async request({ method }: ApiRequest) {
      if (isGone) throw unreachable();
      if (method === "GET") throw notFound({ group: "", resource: "nodes" }, "n");
      return { metadata: {}, status: { token: `token ${++made}` } } as never;
    },
    watch: () => {
      throw unreachable();
    },
  };
  const body = {
    metadata: { namespace: "ns" },
    spec: { audiences: [], expirationSeconds: 3607, boundObjectRef: { uid: "u" } },
  };
  const ask = async ({ client }: Run) => {
    const answer = await client.create(serviceAccounts as never, body as never, { name: "sa", subresource: "token" });
    return (answer as { status?: { token?: string } }).status?.token;
  };
  const run = await Run.begin(inner);
  await idle();
  for (let hour = 1; hour <= 3; hour++) {
    expect(await ask(run)).toBe(`token ${hour}`);
    await clock.advance(3_600_000);
  }
  await run.end();
  isGone = true;
  const next = await Run.begin(inner);
  await idle();
  expect(await ask(next)).toBe("token 1");
  await next.end();
});

test("a server that is there is never taken for gone", async () => {
  const server = new FakeTransport();
  const run = await Run.begin(server);
  let told = 0;
  run.memory.reach.onBack(() => told++);
  await idle();
  expect([told, run.memory.reach.isAway, server.log.length]).toEqual([0, false, 1]);
  await run.end();
});

test("informers begin with what was known, and go on with what is", async () => {
  const service = (name: string) =>
    ({ metadata: { name, namespace: "ns" }, spec: { clusterIP: "10.43.0.9" } }) as Service;
  const server = new FakeTransport();
  const api = new Client(server);
  for (const name of ["a", "b"]) await api.create(services, service(name));
  const informersOf = (run: Run) => {
    const factory = new InformerFactory(
      {},
      { client: run.client, clock, random, log, recall: run.memory.networkRecall },
    );
    run.memory.watch(factory);
    return { informer: factory.informer(services), done: factory.run(run.stop.signal, () => {}) };
  };
  const names = (all: { list(): { metadata: { name?: string } }[] }) => all.list().map(({ metadata }) => metadata.name);
  const first = await Run.begin(server);
  const one = informersOf(first);
  await idle();
  await clock.advance(2_000);
  await idle();
  expect(names(one.informer)).toEqual(["a", "b"]);
  await first.end();
  await one.done;

  server.fail = unreachable;
  const second = await Run.begin(server);
  const two = informersOf(second);
  await idle();
  expect(two.informer.hasSynced).toBe(false);
  await clock.advance(1_500);
  // It comes from disk.
  await expect.poll(() => two.informer.hasSynced).toBe(true);
  expect([names(two.informer), two.informer.hasSynced, two.informer.isCurrent]).toEqual([["a", "b"], true, false]);
  server.fail = () => undefined;
  await api.delete(services, { name: "a", namespace: "ns" });
  await api.create(services, service("c"));
  await clock.advance(10_000);
  await idle();
  expect([names(two.informer), two.informer.isCurrent]).toEqual([["b", "c"], true]);
  await second.end();
  await two.done;
});

test("a list that was lost keeps nothing waiting, once the node has had pods", async () => {
  const server = new FakeTransport();
  const run = await Run.begin(server);
  const load = () => run.memory.networkRecall.load(services, {});
  expect(await load()).toBeUndefined();
  await run.memory.keep([]);
  expect([await load(), await run.memory.networkRecall.load(services, { namespace: "ns" })]).toEqual([[], undefined]);
  await run.end();
});

test("an idle node writes nothing: heartbeats, restarts of the agent, the same again", async () => {
  const server = new FakeTransport();
  const api = new Client(server);
  await api.create(configMaps, map("1"));
  for (const name of ["n", "peer"]) {
    await api.create(nodes, { kind: "Node", metadata: { name }, status: { conditions: [] } } as unknown as Node);
  }
  const files = () =>
    readdirSync(`${folder}/r`)
      .map((name) => `${name} ${statSync(`${folder}/r/${name}`).ino}`)
      .sort();
  let before: string[] = [];
  for (let round = 0; round < 3; round++) {
    const run = await Run.begin(server);
    const factory = new InformerFactory(
      {},
      { client: run.client, clock, random, log, recall: run.memory.networkRecall },
    );
    run.memory.watch(factory);
    const done = factory.run(run.stop.signal, () => {});
    await idle();
    for (let beat = 0; beat < 3; beat++) {
      for (const name of ["n", "peer"]) {
        const conditions = [{ type: "Ready", status: "True", lastHeartbeatTime: `${round} ${beat}` }];
        await api.patch(nodes, { name }, { status: { conditions } });
      }
      await run.client.get(nodes, "n");
      await run.client.get(configMaps, "m", "ns");
      run.memory.remember(webPod("u", { status: { phase: "Running", podIP: `10.42.0.${round}` } }));
      await clock.advance(600_000);
      await idle();
    }
    await run.end();
    await done;
    if (round === 0) before = files();
    else expect(files()).toEqual(before);
  }
  expect(before.length).toBeGreaterThan(5);
});

test("pods, and how far they have come, are known to the next run until the API says otherwise", async () => {
  const server = new FakeTransport();
  const api = new Client(server);
  await api.create(configMaps, map("1"));
  await api.create(secrets, { metadata: { name: "other", namespace: "ns" } } as Secret);
  const first = await Run.begin(server);
  expect(first.memory.hasPods).toBe(false);
  await first.client.get(configMaps, "m", "ns");
  await first.client.get(secrets, "other", "ns");
  const job = webPod("job", { status: { phase: "Succeeded" } });
  const pods = [webPod(), job, webPod("gone")];
  await first.memory.keep(pods);
  for (const pod of pods) first.memory.remember(pod);
  await first.memory.forget("gone", [webPod(), job]);
  await first.end();
  // The pods, the map, and that there are pods; no secret that no pod uses.
  expect(readdirSync(`${folder}/r`)).toHaveLength(3);

  const second = await Run.begin(server);
  expect(second.memory.hasPods).toBe(true);
  const known = (await second.memory.podRecall(0).load(services, {})) ?? [];
  expect(known.map(({ metadata }) => metadata.uid).sort()).toEqual(["job", "u"]);
  expect(known.some((pod) => "status" in pod)).toBe(false);
  const asKnown = webPod("job", { status: { phase: "Running" } });
  expect(second.memory.takeStatus(asKnown)).toEqual({ phase: "Succeeded" });
  expect(second.memory.takeStatus(asKnown)).toBeUndefined();
  await second.memory.keep([]);
  await idle();
  // What it was made of stays for an hour, for another one that is made of the same.
  expect(readdirSync(`${folder}/r`)).toHaveLength(3);
  await clock.advance(3_600_000);
  await idle();
  await second.end();
  expect(readdirSync(`${folder}/r`)).toHaveLength(2);
  const third = await Run.begin(server);
  expect([third.memory.hasPods, await third.memory.podRecall(0).load(services, {})]).toEqual([true, []]);
  await third.end();
});

test("what a new pod is made of stays, also when an old one goes at that moment", async () => {
  const server = new FakeTransport();
  const api = new Client(server);
  await api.create(configMaps, map("1"));
  const volumes = Array.from({ length: 500 }, (_, i) => {
    return { name: `v${i}`, persistentVolumeClaim: { claimName: `claim-${i}` } };
  });
  const run = await Run.begin(server);
  await idle();
  // Its many claims are looked up one after the other; meanwhile the map of a pod that is not named here is read.
  await Promise.all([
    run.memory.forget("gone", [webPod("old", { spec: { containers: [], volumes } })]),
    run.client.get(configMaps, "m", "ns"),
  ]);
  server.fail = unreachable;
  expect((await run.client.get(configMaps, "m", "ns")).data).toEqual({ v: "1" });
  await run.end();
});

const jobPod = (phase: string, state: object, more: object = {}) =>
  webPod("job", {
    spec: { restartPolicy: "OnFailure", containers: [{ name: "main" }] },
    status: { phase, containerStatuses: [{ name: "main", restartCount: 0, state }] },
    ...more,
  });
const running = () => jobPod("Running", { running: { startedAt: "2026-01-01T00:00:00Z" } });
const ended = () => jobPod("Succeeded", { terminated: { exitCode: 0 } });
/** What is on the disk at this moment, for another run: two at a time have no business in one folder. */
function snapshot(): string {
  const copy = mkdtempSync(`${folder}/copy-`);
  for (const name of readdirSync(`${folder}/r`)) {
    if (!name.includes(".tmp-")) copyFileSync(`${folder}/r/${name}`, `${copy}/${name}`);
  }
  return copy;
}
/** What a run after this moment's power cut would begin with. */
async function afterPowerCut(): Promise<string[]> {
  const probe = () => Promise.reject(unreachable());
  const memory = await NodeMemory.open({ folder: snapshot(), nodeName: "n" }, { clock, random, log, probe });
  const pods = (await memory.podRecall(0).load(services, {})) ?? [];
  return pods.map((pod) => `${pod.metadata.uid} ${memory.takeStatus(pod as unknown as Pod)?.phase}`);
}
/** The disk takes its time. */
const onDisk = (expected: readonly string[]) => expect.poll(afterPowerCut, { timeout: 30_000 }).toEqual(expected);
const pass = async (ms: number) => {
  await clock.advance(ms);
  await idle();
};

test("a job that has ended is not run by a boot, whenever the power goes, and one that runs goes on", async () => {
  const server = new FakeTransport();
  const run = await Run.begin(server);
  await run.memory.keep([]);
  await idle();
  run.memory.heard(jobPod("Pending", {}));
  run.memory.remember(running());
  await pass(30_000);
  // The server has it; until it has run for a minute it is the server's to have it run again.
  expect(await afterPowerCut()).toEqual([]);
  await pass(31_000);
  await onDisk(["job Running"]);
  run.memory.remember(ended());
  run.memory.heard(ended());
  await pass(2_000);
  await onDisk(["job Succeeded"]);
  await run.memory.forget("job", []);
  await pass(3_600_000);
  await onDisk([]);
  await run.end();
});

test("from when the server is away every job is known, and its end, which then nobody else knows", async () => {
  const server = new FakeTransport();
  const run = await Run.begin(server);
  await run.memory.keep([]);
  run.memory.heard(jobPod("Pending", {}));
  run.memory.remember(running());
  await pass(5_000);
  expect(await afterPowerCut()).toEqual([]);
  server.fail = unreachable;
  await run.client.get(nodes, "n").catch(() => {});
  await pass(2_000);
  await onDisk(["job Running"]);
  run.memory.remember(ended());
  await pass(2_000);
  await onDisk(["job Succeeded"]);
  await run.end();
});

test("an end that the server knows is not written, but where the disk is about to say that it runs", async () => {
  const server = new FakeTransport();
  const run = await Run.begin(server);
  await run.memory.keep([]);
  run.memory.heard(jobPod("Pending", {}));
  run.memory.remember(running());
  await pass(20_000);
  run.memory.remember(ended());
  run.memory.heard(ended());
  await pass(100_000);
  expect(await afterPowerCut()).toEqual([]);
  // Nor by an agent that ends in order.
  await run.end();
  expect(await afterPowerCut()).toEqual([]);
});

test("an orderly end of the agent writes down what it still waited with", async () => {
  const run = await Run.begin(new FakeTransport());
  await run.memory.keep([]);
  run.memory.remember(running());
  await run.end();
  await onDisk(["job Running"]);
});

test("what the server has heard run is known a second later, with all that it is made of", async () => {
  const server = new FakeTransport();
  const api = new Client(server);
  await api.create(configMaps, map("1"));
  const begin = async () => {
    const run = await Run.begin(server);
    await run.memory.keep([]);
    return run;
  };
  const known = async () => {
    server.fail = unreachable;
    const next = await Run.begin(server, snapshot());
    await idle();
    const found = await next.client.get(configMaps, "m", "ns").catch(() => undefined);
    const pods = await afterPowerCut();
    await next.end();
    server.fail = () => undefined;
    return [pods, found?.data];
  };
  const first = await begin();
  const started = (restartPolicy: string) =>
    webPod("u", {
      spec: { restartPolicy, containers: [{ name: "main", envFrom: [{ configMapRef: { name: "m" } }] }] },
      status: { phase: "Running", containerStatuses: [{ name: "main", restartCount: 0, state: { running: {} } }] },
    });
  first.memory.remember(started("OnFailure"));
  await first.client.get(configMaps, "m", "ns");
  await pass(2_000);
  // A job's map waits with it.
  expect(await known()).toEqual([[], undefined]);
  first.memory.remember(started("Always"));
  await pass(2_000);
  await expect.poll(known, { timeout: 30_000 }).toEqual([["u Running"], { v: "1" }]);
  await first.end();
});

test.each([
  ["no list", { items: [] }],
  ["nothing", null],
  ["a list of other things", [7]],
  ["objects without a name", [{ metadata: {} }]],
])("a remembered list that is %s keeps no pod waiting: it counts as lost", async (_, value) => {
  const server = new FakeTransport();
  server.fail = unreachable;
  const seed = new RememberedStore({ folder: `${folder}/r` }, { clock, log });
  await seed.open();
  seed.note("list/services", () => value, { about: "spoilt", kind: "k" });
  seed.note("pods", () => ({ node: "n" }), { about: "mark", kind: "k" });
  await seed.flush();
  const run = await Run.begin(server);
  expect(await run.memory.networkRecall.load(services as never, {})).toEqual([]);
  await run.end();
});
