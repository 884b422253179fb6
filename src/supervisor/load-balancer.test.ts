// Over real sockets: two servers that answer their names, connections that move when one is lost and stay when it is not, and
// what is left of the list after a restart.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import * as net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemClock as clock } from "#platform/clock.ts";
import type { TcpSocket } from "#platform/http-dial.ts";
import { connectPatiently } from "#platform/patient-connect.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { createBalancerPort, type LoadBalancer, type LoadBalancerDeps, openLoadBalancer } from "./load-balancer.ts";

type Dial = NonNullable<LoadBalancerDeps["dial"]>;

let folder = "";
const ends: (() => void | Promise<void>)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-servers-"));
});
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  rmSync(folder, { recursive: true, force: true });
});

interface Server {
  readonly address: string;
  /** It refuses until it is started again; its port stays its own. */
  stop(): void;
  again(): void;
}

/** Those that refuse. */
const stopped = new Set<string>();

async function server(name: string): Promise<Server> {
  const sockets = new Set<net.Socket>();
  const listener = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.write(name);
    socket.resume();
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const address = `127.0.0.1:${(listener.address() as net.AddressInfo).port}`;
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  ends.push(() => {
    cut();
    listener.close();
  });
  return {
    address,
    stop() {
      stopped.add(address);
      cut();
    },
    again: () => void stopped.delete(address),
  };
}

const dial = async (address: string, timeoutMs: number, signal?: AbortSignal): Promise<TcpSocket> => {
  if (stopped.has(address)) throw new Error(`${address}: refused`);
  const [host = "", port] = address.split(":");
  return connectPatiently({ host, port: Number(port), timeoutMs }, signal);
};

const open = (given: Server) =>
  openLoadBalancer({ server: `https://${given.address}`, folder }, { clock, dial, log: silentLogger });

/** A connection, and who answers. */
async function use(balancer: LoadBalancer): Promise<{ socket: TcpSocket; name: string; ended: Promise<void> }> {
  const socket = await balancer.connect();
  ends.push(() => void socket.destroy());
  socket.on("error", () => {});
  const ended = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  const name = await new Promise<string>((resolve) => socket.once("data", (data) => resolve(String(data))));
  return { socket, name, ended };
}
const states = ({ servers }: LoadBalancer) => servers.map(({ state }) => state);
const isWell = (balancer: LoadBalancer, ...all: Server[]) => {
  for (const { address } of all) for (const _ of [1, 2]) balancer.report(address, true);
};

test("connections go to one server, and to the other when it is lost", async () => {
  const [a, b] = [await server("a"), await server("b")];
  const balancer = await open(a);
  await balancer.setServers([a.address, b.address]);
  const first = await use(balancer);
  expect(first.name).toBe("a");
  isWell(balancer, a, b);
  expect(states(balancer)).toEqual(["active", "preferred"]);
  a.stop();
  await first.ended;
  const second = await use(balancer);
  expect([second.name, states(balancer)]).toEqual(["b", ["failed", "active"]]);

  // Back again: nothing moves.
  a.again();
  isWell(balancer, a, b);
  expect((await use(balancer)).name).toBe("b");
  expect(states(balancer)).toEqual(["preferred", "active"]);
  expect(second.socket.destroyed).toBe(false);

  // One that is silent, but whose tunnel says so.
  balancer.report(b.address, false);
  await second.ended;
  expect((await use(balancer)).name).toBe("a");
});

test("one that gets through begins another attempt for those that wait", async () => {
  const a = await server("a");
  let isBack = false;
  let attempts = 0;
  const pending: (() => void)[] = [];
  const patient: Dial = async (address, timeoutMs, signal, how) => {
    if (isBack) return dial(address, timeoutMs, signal);
    await new Promise<void>((resolve) => {
      const forget = how?.onHint?.(() => {
        attempts++;
        forget?.();
        resolve();
      });
      pending.push(resolve);
    });
    return dial(address, timeoutMs, signal);
  };
  const deps = { clock, dial: patient, log: silentLogger };
  const balancer = await openLoadBalancer({ server: `https://${a.address}`, folder }, deps);
  const waiting = [balancer.connect(), balancer.connect()];
  await expect.poll(() => pending.length, { timeout: 30_000 }).toBe(2);
  isBack = true;
  const sockets = [await balancer.connect(), ...(await Promise.all(waiting))];
  expect(attempts).toBe(2);
  for (const socket of sockets) socket.destroy();

  // And so does what its tunnel says.
  isBack = false;
  const another = balancer.connect();
  await expect.poll(() => pending.length, { timeout: 30_000 }).toBe(3);
  balancer.report(a.address, true);
  (await another).destroy();
  expect(attempts).toBe(3);
});

test("who has been away for long is tried more rarely, until somebody gets through", async () => {
  const a = await server("a");
  const fake = new FakeClock();
  let isAway = true;
  const asked: (number | undefined)[] = [];
  const remote: Dial = async (address, timeoutMs, signal, how) => {
    asked.push(how?.againMs);
    if (isAway) throw new Error("nobody answers");
    return dial(address, timeoutMs, signal);
  };
  const deps = { clock: fake, dial: remote, log: silentLogger };
  const balancer = await openLoadBalancer({ server: `https://${a.address}`, folder }, deps);
  const tryIt = () =>
    balancer.connect().then(
      (socket) => void socket.destroy(),
      () => {},
    );
  await tryIt();
  await tryIt();
  await fake.advance(60_000);
  await tryIt();
  isAway = false;
  await tryIt();
  await tryIt();
  expect(asked).toEqual([undefined, undefined, 2000, 2000, undefined]);
});

test("nobody is there", async () => {
  const a = await server("a");
  a.stop();
  const balancer = await open(a);
  await expect(balancer.connect()).rejects.toMatchObject({ code: "SERVERS_UNREACHABLE" });
  a.again();
  expect((await use(balancer)).name).toBe("a");
});

test("the list survives, for the server that it belongs to", async () => {
  const [a, b] = [await server("a"), await server("b")];
  const before = await open(a);
  let changes = 0;
  before.onChange(() => changes++);
  await before.setServers([b.address]);
  await before.setServers([b.address]);
  await before.setServers([]);
  expect(changes).toBe(1);
  const file = join(folder, "k3s-agent-load-balancer.json");
  expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({
    ServerURL: `https://${a.address}`,
    ServerAddresses: [b.address],
  });
  a.stop();
  const after = await open(a);
  expect(after.servers.map(({ address, state }) => [address, state])).toEqual([
    [b.address, "unchecked"],
    [a.address, "standby"],
  ]);
  expect((await use(after)).name).toBe("b");
  expect((await open(b)).servers.map(({ address }) => address)).toEqual([b.address]);
  writeFileSync(file, "{");
  expect((await open(a)).servers.map(({ address }) => address)).toEqual([a.address]);
});

test("other programs have a port, and wait until it is free", async () => {
  const a = await server("a");
  const balancer = await open(a);
  const taken = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  const { port } = taken.address() as net.AddressInfo;
  const stop = new AbortController();
  const running = createBalancerPort(
    { port },
    { balancer, log: silentLogger, clock: { ...clock, sleep: (_ms, signal) => clock.sleep(20, signal) } },
  ).run(stop.signal, () => {});
  ends.push(async () => {
    stop.abort();
    await running;
  });
  await new Promise<void>((resolve) => taken.close(() => resolve()));
  const answer = await new Promise<string>((resolve) => {
    const ask = () => {
      const socket = net.connect(port, "127.0.0.1");
      socket.once("error", () => setTimeout(ask, 20));
      socket.once("data", (data) => {
        socket.destroy();
        resolve(String(data));
      });
    };
    ask();
  });
  expect(answer).toBe("a");
});

test("lists that come at once are written one after the other, and the last one stays", async () => {
  const options = { server: "https://192.0.2.1:6443", folder };
  const balancer = await openLoadBalancer(options, { clock, log: silentLogger });
  const lists = [["192.0.2.1:6443"], ["192.0.2.2:6443"], ["192.0.2.1:6443", "192.0.2.3:6443"], ["192.0.2.4:6443"]];
  await Promise.all(lists.map((list) => balancer.setServers(list)));
  const kept = JSON.parse(readFileSync(join(folder, "k3s-agent-load-balancer.json"), "utf8"));
  expect(kept).toEqual({ ServerURL: options.server, ServerAddresses: ["192.0.2.4:6443"] });
});

test("a list that could not be written is written with the next one", async () => {
  const etc = join(folder, "etc");
  const balancer = await openLoadBalancer(
    { server: "https://192.0.2.1:6443", folder: etc },
    { clock, log: silentLogger },
  );
  writeFileSync(etc, "in its place");
  await expect(balancer.setServers(["192.0.2.2:6443"])).rejects.toThrow();
  rmSync(etc);
  await balancer.setServers(["192.0.2.2:6443"]);
  const kept = JSON.parse(readFileSync(join(etc, "k3s-agent-load-balancer.json"), "utf8"));
  expect(kept.ServerAddresses).toEqual(["192.0.2.2:6443"]);
});
