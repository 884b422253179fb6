// Two servers on one datastore, under a clock that moves when told to.
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger, silentLogger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { createServerList, formatAddress, holdServerName, parseAddress } from "./server-list.ts";
import { createServerSession } from "./server-session.ts";

const clock = new FakeClock();
const ends: (() => Promise<void>)[] = [];
let store: Backend;

beforeEach(async () => {
  store = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
});
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await store.close();
});

/** Lets time pass until it is so. */
async function until(what: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !what(); i++) await clock.advance(100);
  expect(what()).toBe(true);
}

function run(...services: Service[]): () => Promise<void> {
  const stop = new AbortController();
  const running = services.map((service) => service.run(stop.signal, () => {}));
  const end = async () => {
    stop.abort(new Error("stopped"));
    const done = Promise.all(running);
    await finished(done);
  };
  ends.push(end);
  return end;
}

/** What ends with the clock's help. */
async function finished(done: Promise<unknown>): Promise<void> {
  let isDone = false;
  void done.then(() => {
    isDone = true;
  });
  for (let i = 0; i < 300 && !isDone; i++) await clock.advance(100);
  await done;
}

/** A server whose datastore can be cut off. */
function server(name: string) {
  let isCut = false;
  const cutOff = new Proxy(store, {
    get(target, key) {
      const value = Reflect.get(target, key) as unknown;
      if (typeof value !== "function") return value;
      const isAsync = ["commit", "range", "grantLease", "keepAlive", "revokeLease"].includes(String(key));
      return (...args: unknown[]) => {
        if (isCut && isAsync) return clock.sleep(3000).then(() => Promise.reject(new Error("no answer")));
        return (value as (...all: unknown[]) => unknown).apply(target, args);
      };
    },
  });
  const warnings: string[] = [];
  const log = createLogger((_, message, fields) => warnings.push(`${message} ${JSON.stringify(fields)}`), "warn");
  const deps = { backend: cutOff, clock, log };
  const session = createServerSession({ holder: name }, deps);
  const leadership = session.leadership("/mote/leader/test");
  const list = createServerList({ ip: `10.0.0.${name.charCodeAt(0) - 96}`, port: 6443 }, { ...deps, session });
  let runs = 0;
  let isRunning = false;
  let lingers = false;
  const work = leadership.gate({
    name: "work",
    async run(signal, ready) {
      ready();
      runs++;
      isRunning = true;
      await untilAborted(signal);
      while (lingers) await clock.sleep(100);
      isRunning = false;
    },
  });
  return {
    list,
    start: () => run(session.service, list.service, leadership.service, work),
    cut: (is: boolean) => {
      isCut = is;
    },
    linger: (is: boolean) => {
      lingers = is;
    },
    mustHold: leadership.mustHold,
    lingering: leadership.lingering,
    /** Of what has not ended. */
    get lingers() {
      return warnings.filter((text) => text.includes("cannot lead again"));
    },
    get leads() {
      return isRunning;
    },
    get runs() {
      return runs;
    },
  };
}
const ips = (one: { list: { servers: readonly { ip: string }[] } }) => one.list.servers.map(({ ip }) => ip).join();

test("one leads; the other takes over at once when it says goodbye", async () => {
  const [a, b] = [server("a"), server("b")];
  const stop = a.start();
  await until(() => a.leads);
  b.start();
  await until(() => ips(a) === "10.0.0.1,10.0.0.2" && ips(b) === ips(a));
  await clock.advance(60_000);
  expect([a.leads, b.leads, a.runs, b.runs]).toEqual([true, false, 1, 0]);
  // A new address is told to all, and the old one to nobody.
  b.list.move({ ip: "10.0.0.7", port: 6443 });
  await until(() => ips(a) === "10.0.0.1,10.0.0.7" && ips(b) === ips(a));
  b.list.move({ ip: "10.0.0.2", port: 6443 });
  await until(() => ips(a) === "10.0.0.1,10.0.0.2" && ips(b) === ips(a));
  await stop();
  await until(() => b.leads && ips(b) === "10.0.0.2");
  expect(a.leads).toBe(false);
});

test("one that is cut off stops before the other begins, and comes back", async () => {
  const [a, b] = [server("a"), server("b")];
  a.start();
  await until(() => a.leads);
  b.start();
  await until(() => ips(b) === "10.0.0.1,10.0.0.2");
  a.cut(true);
  for (let i = 0; i < 300 && !b.leads; i++) {
    await clock.advance(100);
    expect([a.leads, b.leads]).not.toEqual([true, true]);
  }
  expect([a.leads, b.leads]).toEqual([false, true]);
  await until(() => ips(b) === "10.0.0.2");
  a.cut(false);
  await until(() => ips(b) === "10.0.0.1,10.0.0.2");
  await clock.advance(30_000);
  expect([a.leads, b.leads, b.runs]).toEqual([false, true, 1]);
});

test("one that was killed leads again at once when it is the only one", async () => {
  const first = server("a");
  first.start();
  await until(() => first.leads);
  first.cut(true);
  const again = server("a");
  again.start();
  const startedMs = clock.monotonicMs();
  await until(() => again.leads);
  // Not when the session of the first ends.
  expect(clock.monotonicMs() - startedMs).toBeLessThan(3000);
});

test("what holds while one leads does not for who led before, nor for who has not led yet", async () => {
  const [a, b] = [server("a"), server("b")];
  const mayWrite = async (one: typeof a) => {
    const { succeeded } = await store.commit({
      compares: [one.mustHold()],
      success: [{ type: "range", range: { key: "x" } }],
    });
    return succeeded;
  };
  expect(await mayWrite(a)).toBe(false);
  a.start();
  await until(() => a.leads);
  b.start();
  await until(() => ips(b) === "10.0.0.1,10.0.0.2");
  expect([await mayWrite(a), await mayWrite(b)]).toEqual([true, false]);
  // Stopped as a whole, and not told of anything.
  const { kvs } = await store.range({ key: "/mote/leader/test" });
  await store.revokeLease(kvs[0]!.lease);
  expect(a.leads).toBe(true);
  expect(await mayWrite(a)).toBe(false);
  await until(() => b.leads);
  expect([await mayWrite(a), await mayWrite(b)]).toEqual([false, true]);
});

test("it leads again only when all has ended that it did as the leader", async () => {
  const a = server("a");
  a.start();
  await until(() => a.leads);
  const first = a.mustHold();
  a.linger(true);
  const { kvs } = await store.range({ key: "/mote/leader/test" });
  await store.revokeLease(kvs[0]!.lease);
  await clock.advance(30_000);
  expect([a.runs, a.mustHold()]).toEqual([1, first]);
  expect((await store.range({ key: "/mote/leader/test" })).kvs).toEqual([]);
  a.linger(false);
  await until(() => a.runs === 2);
  expect(a.mustHold()).not.toEqual(first);
});

test("nothing is written while nothing changes", async () => {
  const a = server("a");
  a.start();
  await until(() => a.leads);
  await clock.advance(10_000);
  const before = store.revision();
  await clock.advance(600_000);
  expect([a.leads, store.revision()]).toEqual([true, before]);
});

test("two servers do not have one name; one that moves waits for its own", async () => {
  const deps = { backend: store, clock, log: silentLogger };
  const at = (ip: string) => ({ ip, port: 6443 });
  const first = createServerSession({ holder: "a 10.0.0.1" }, deps);
  const never = new AbortController().signal;
  const hold = async (ip: string, session: typeof first) => {
    const result = holdServerName("a", at(ip), { ...deps, session }, never).then(
      () => "held",
      (error: unknown) => error,
    );
    await finished(result);
    return result;
  };
  expect(await hold("10.0.0.1", first)).toBe("held");
  const stop = run(first.service);
  while ((await store.range({ key: "/mote/servers/a" })).count === 0) await clock.advance(100);
  const second = createServerSession({ holder: "a 10.0.0.2" }, deps);
  expect(await hold("10.0.0.1", second)).toBe("held");
  expect(await hold("10.0.0.2", second)).toMatchObject({ code: "SERVER_NAME" });
  const moved = hold("10.0.0.2", second);
  await stop();
  expect(await moved).toBe("held");
});

test("addresses of kube-apiservers are understood too", () => {
  const key = "/registry/masterleases/10.0.0.9";
  expect(parseAddress(key, Buffer.from("k8s\0\n\x02"))).toEqual({ ip: "10.0.0.9", port: 6443 });
  expect(parseAddress(key, Buffer.from(formatAddress({ ip: "10.0.0.9", port: 7443 })))).toEqual({
    ip: "10.0.0.9",
    port: 7443,
  });
  expect(parseAddress("/registry/masterleases/x", Buffer.from("{}"))).toBeUndefined();
});

test("who keeps a server from leading again is told, less and less often", async () => {
  const a = server("a");
  a.start();
  await until(() => a.leads);
  a.linger(true);
  const { kvs } = await store.range({ key: "/mote/leader/test" });
  await store.revokeLease(kvs[0]!.lease);
  await until(() => a.lingering() === 1);
  await clock.advance(25_000);
  expect(a.lingers).toEqual([]);
  await clock.advance(10_000);
  expect(a.lingers).toHaveLength(1);
  expect(a.lingers[0]).toContain('"waitsFor":"work"');
  // After 30 s, 90 s, 210 s.
  await clock.advance(200_000);
  expect(a.lingers).toHaveLength(3);
  a.linger(false);
  await until(() => a.runs === 2);
  expect(a.lingering()).toBe(0);
  await clock.advance(3600_000);
  expect(a.lingers).toHaveLength(3);
});
