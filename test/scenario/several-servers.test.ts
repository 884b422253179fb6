// Several servers on one datastore, of which one stands still at the worst moment (a paused machine, a datastore that answers
// late) and goes on as if nothing had been: nothing is given out twice, and what it was about to write as the leader is not
// written any more. Under a clock that moves when told to.
import { afterEach, beforeEach, expect, test } from "vitest";
import { loopback } from "#apiserver/authn/user.ts";
import { createNumberClaims } from "#apiserver/number-claims.ts";
import { columnsFor } from "#apiserver/printers/tables.ts";
import { createStrategies } from "#apiserver/registry/strategies.ts";
import { createApiServer } from "#apiserver/server.ts";
import { silentLogger as log } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Service as Process } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import { createNodeIpam } from "#controllers/nodes/ipam.ts";
import type { Backend, Op } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Namespace, Node, Service } from "#model/gen/core-v1.ts";
import { ipAddresses, namespaces, nodes, serviceCidrs, services } from "#model/resources.ts";
import { defaultServiceCidr } from "#model/service-addresses.ts";
import { createServerSession } from "#supervisor/server-session.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";

const clock = new FakeClock();
const leaderKey = "/mote/leader/test";
const ends: (() => Promise<void>)[] = [];
let store: Backend;

beforeEach(async () => {
  store = await openDatastore({ endpoint: "memory://" }, { clock, log });
});
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await store.close();
});

/** Writes to keys with `held` in them wait, and so do events while `isDeaf`. */
class Link {
  held: string | undefined;
  isDeaf = false;
  #waiting: (() => void)[] = [];
  readonly backend: Backend = new Proxy(store, {
    get: (target, key) => {
      if (key === "commit") return this.#commit;
      if (key === "watch") return this.#watch;
      const value = Reflect.get(target, key) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  readonly #commit: Backend["commit"] = async (txn) => {
    const keyOf = (op: Op) => (op.type === "put" || op.type === "delete" ? op.key : "");
    const isHeld = () => this.held !== undefined && txn.success.some((op) => keyOf(op).includes(this.held!));
    while (isHeld()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return store.commit(txn);
  };
  readonly #watch: Backend["watch"] = (options, sink) =>
    store.watch(options, {
      onEvents: (events, through) => {
        if (!this.isDeaf) sink.onEvents(events, through);
      },
      onEnd: (error) => sink.onEnd(error),
    });

  get waiting(): number {
    return this.#waiting.length;
  }
  /** From now on other keys wait. */
  hold(key: string | undefined): void {
    this.held = key;
    for (const go of this.#waiting.splice(0)) go();
  }
}

interface Options {
  readonly multiCidr?: boolean;
}

function server(name: string, seed: number, { multiCidr = false }: Options = {}) {
  const link = new Link();
  const { backend } = link;
  const random = seededRandom(seed);
  const metrics = new Metrics();
  const api = createApiServer(
    { optionalApis: multiCidr ? ["networking.k8s.io/v1beta1"] : [] },
    {
      ...{ backend, clock, random, log, metrics, columnsFor },
      authenticators: [],
      authorizer: { authorize: () => ({ verdict: "allow", reason: "" }) },
      strategies: createStrategies({
        ...{ clock, random },
        services: { multiCidr, claims: (kind) => createNumberClaims(kind, { backend, log }) },
      }),
      admission: [],
    },
  );
  const client = new Client(api.transport(loopback));
  const informers = new InformerFactory({}, { client, clock, random, log });
  const session = createServerSession({ holder: name }, { backend, clock, log });
  const leadership = session.leadership(leaderKey, { prepare: () => informers.refresh() });
  const ipam = createNodeIpam(
    {
      ...{ informers, clock, random, log, metrics },
      client: new Client(api.transport({ ...loopback, mustHold: leadership.mustHold })),
      events: new EventRecorder({ component: "test" }, { client, clock, random, log }),
    },
    { clusterCidr: "10.42.0.0/16", maskSizes: { IPv4: 24, IPv6: 64 } },
  );
  return {
    ...{ link, client, leadership, informers },
    start: () => run(session.service, informers, leadership.service, leadership.gate(ipam)),
  };
}

function run(...all: Process[]): void {
  const stop = new AbortController();
  const running = Promise.all(all.map((service) => service.run(stop.signal, () => {})));
  ends.push(async () => {
    stop.abort(new Error("stopped"));
    let isDone = false;
    void running.then(() => {
      isDone = true;
    });
    for (let i = 0; i < 300 && !isDone; i++) await clock.advance(100);
    await running;
  });
}

async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 400 && !(await what()); i++) await clock.advance(100);
  expect(await what()).toBe(true);
}

const ranges = async (client: Client) =>
  Object.fromEntries((await client.list(nodes)).items.map((node) => [node.metadata.name, node.spec?.podCIDR]));
const makeNode = (client: Client, name: string) => client.create(nodes, { metadata: { name } } as Node);
/** As if it had fallen silent long ago. */
async function endTerm(): Promise<void> {
  const { kvs } = await store.range({ key: leaderKey });
  await store.revokeLease(kvs[0]!.lease);
}

const service = (name: string, spec: Partial<NonNullable<Service["spec"]>>): Service =>
  ({
    ...{ apiVersion: "v1", kind: "Service", metadata: { name, namespace: "default" } },
    spec: { ports: [{ port: 80, protocol: "TCP", targetPort: 80 }], ...spec },
  }) as Service;
const portAt = (nodePort: number): Partial<NonNullable<Service["spec"]>> => ({
  type: "NodePort",
  ports: [{ port: 80, protocol: "TCP", targetPort: 80, nodePort }],
});
const inDefault = { apiVersion: "v1", kind: "Namespace", metadata: { name: "default" } } as Namespace;

test.each([
  ["an address", { clusterIP: "10.43.0.77" }],
  ["a port", portAt(30_777)],
])("%s that a server claimed before it stood still is not the service's any more", async (_, spec) => {
  const [a, b] = [server("a", 1), server("b", 2)];
  await a.client.create(namespaces, inDefault);
  a.link.hold("/services/specs/");
  const late = a.client.create(services, service("late", spec));
  const refused = expect(late).rejects.toMatchObject({ code: 503, message: expect.stringContaining("try again") });
  await until(() => a.link.waiting > 0);
  await expect(b.client.create(services, service("quick", spec))).rejects.toMatchObject({ code: 422 });
  // Longer than the claim lasts.
  await clock.advance(15_000);
  await b.client.create(services, service("quick", spec));
  a.link.hold(undefined);
  await refused;
  const found = await b.client.list(services, { namespace: "default" });
  expect(found.items.map(({ metadata }) => metadata.name)).toEqual(["quick"]);
  // Somebody else's claim was not taken back with it.
  await expect(a.client.create(services, service("late", spec))).rejects.toMatchObject({ code: 422 });
  // Trying again is all that is needed.
  expect((await a.client.create(services, service("late", { type: "NodePort" }))).spec?.clusterIP).toMatch(/^10\.43\./);
});

test("an update that gets a port too late is refused as well, and one in time is not", async () => {
  const [a, b] = [server("a", 1), server("b", 2)];
  await a.client.create(namespaces, inDefault);
  await a.client.create(services, service("slow", {}));
  a.link.hold("/services/specs/");
  const patched = (nodePort: number) =>
    a.client.patch(services, { name: "slow", namespace: "default" }, { spec: portAt(nodePort) });
  const refused = expect(patched(30_778)).rejects.toMatchObject({ code: 503 });
  await until(() => a.link.waiting > 0);
  await clock.advance(15_000);
  await b.client.create(services, service("quick", portAt(30_778)));
  a.link.hold(undefined);
  await refused;
  expect((await patched(30_779)).spec?.ports?.[0]?.nodePort).toBe(30_779);
});

test("an IPAddress that was taken for left over is not the service's any more", async () => {
  const a = server("a", 1, { multiCidr: true });
  await a.client.create(namespaces, inDefault);
  const cidr = await a.client.create(serviceCidrs, defaultServiceCidr(["10.43.0.0/16"]));
  const conditions = [{ type: "Ready", status: "True", lastTransitionTime: "2026-01-01T00:00:00Z" }];
  await a.client.updateStatus(serviceCidrs, { ...cidr, status: { conditions } } as typeof cidr);
  a.link.hold("/services/specs/");
  const late = a.client.create(services, service("late", { clusterIP: "10.43.0.77" }));
  const refused = expect(late).rejects.toMatchObject({ code: 503, message: expect.stringContaining("10.43.0.77") });
  await until(() => a.link.waiting > 0);
  await a.client.delete(ipAddresses, { name: "10.43.0.77" });
  a.link.hold(undefined);
  await refused;
  await a.client.create(services, service("late", { clusterIP: "10.43.0.77" }));
});

test("a server that led writes nothing any more, and leads again only when that is over", async () => {
  const [a, b] = [server("a", 1), server("b", 2)];
  a.start();
  await makeNode(b.client, "n1");
  await until(async () => (await ranges(b.client))["n1"] === "10.42.0.0/24");
  // A is about to give 10.42.1.0/24 to n2.
  a.link.hold("/minions/n2");
  await makeNode(b.client, "n2");
  await until(() => a.link.waiting > 0);
  // B comes to lead, gives that range to another, and has not got to n2 yet.
  b.link.hold("/minions/n2");
  await makeNode(b.client, "m");
  b.start();
  await clock.advance(1000);
  await endTerm();
  await until(async () => (await ranges(b.client))["m"] === "10.42.1.0/24" && b.link.waiting > 0);
  a.link.hold(undefined);
  await clock.advance(3000);
  expect(await ranges(b.client)).toEqual({ n1: "10.42.0.0/24", m: "10.42.1.0/24", n2: undefined });
  b.link.hold(undefined);
  await until(async () => (await ranges(b.client))["n2"] !== undefined);
  expect(await ranges(b.client)).toEqual({ n1: "10.42.0.0/24", m: "10.42.1.0/24", n2: "10.42.2.0/24" });
});

test("a new leader knows what the one before it wrote, however late it hears of it", async () => {
  const [a, b] = [server("a", 1), server("b", 2)];
  a.link.hold("/minions/");
  await makeNode(b.client, "z");
  a.start();
  await until(() => a.link.waiting > 0);
  await makeNode(b.client, "b");
  b.start();
  await until(() => b.informers.informer(nodes).size === 2);
  // From here on B hears nothing: a watch that is behind. A gives z the first range, and stands still before b gets one.
  b.link.isDeaf = true;
  a.link.hold("/minions/b");
  await until(async () => (await ranges(b.client))["z"] === "10.42.0.0/24");
  await until(() => a.link.waiting > 0);
  await settle();
  expect(b.informers.informer(nodes).get("z")?.spec?.podCIDR).toBeUndefined();
  await endTerm();
  await until(async () => (await ranges(b.client))["b"] !== undefined);
  expect(await ranges(b.client)).toEqual({ z: "10.42.0.0/24", b: "10.42.1.0/24" });
  a.link.hold(undefined);
});

test("a clock that is set changes nothing about who leads", async () => {
  const [a, b] = [server("a", 1), server("b", 2)];
  a.start();
  await until(async () => (await store.range({ key: leaderKey })).kvs.length > 0);
  b.start();
  await clock.advance(5000);
  const before = (await store.range({ key: leaderKey })).kvs;
  for (const jumpMs of [10 * 365 * 86_400_000, -30 * 365 * 86_400_000]) {
    clock.jump(jumpMs);
    await clock.advance(20_000);
    expect((await store.range({ key: leaderKey })).kvs).toEqual(before);
  }
});
