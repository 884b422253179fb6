// Nodes around a server that is starved, or does not run for a while: how often they dial it. All of it is simulated:
// the server has one thread, which takes what has come in turns, as an event loop does, and what was given up costs it as much.
import { setMaxListeners } from "node:events";
import { expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import type { Reach } from "#platform/raw-websocket.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createTunnelClient, type TunnelClientDeps } from "./client.ts";
import { loadCodec } from "./codec.ts";
import { keepalives } from "./keepalive.ts";
import { formatHello, moteHeader, parseHello } from "./messages.ts";
import { type End, socketPair } from "./socket-pair.fixture.ts";
import { Ticks } from "./ticks.ts";

const noHead = new Uint8Array(0);
const pong = Uint8Array.of(0x8a, 0);
/** Each stands for four, so that the server has the work of a thousand and this test has not. */
const nodes = 250;
/** Of its thread. */
const costsMs = { handshake: 4 * 3, ping: 4 * 0.05, reach: 4 * 0.25 } as const;

class Server {
  readonly #clock: FakeClock;
  /** Times as slow as it can be; infinite: stopped. */
  #slowness = 1;
  #work: { readonly costMs: number; readonly done: () => void }[] = [];
  #isRunning = false;
  dials = 0;
  /** All connections are lost, and nobody is told. */
  isCut = false;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  slowDown(slowness: number): void {
    this.#slowness = slowness;
    if (!this.#isRunning) this.#turn();
  }

  take(costMs: number, done: () => void): void {
    this.#work.push({ costMs, done });
    if (!this.#isRunning) this.#turn();
  }

  #turn(): void {
    this.#isRunning = this.#slowness < Number.POSITIVE_INFINITY && this.#work.length > 0;
    if (!this.#isRunning) return;
    const works = this.#work;
    this.#work = [];
    const tookMs = works.reduce((sum, { costMs }) => sum + costMs, 0) * this.#slowness;
    this.#clock.after(tookMs, () => {
      for (const { done } of works) done();
      this.#turn();
    });
  }

  dial: NonNullable<TunnelClientDeps["dial"]> = async ({ headers, timeoutMs }, signal) => {
    this.dials++;
    if (this.isCut) throw new AppError("WEBSOCKET_DIAL", "no route to host", { isConnected: false });
    const startedMs = this.#clock.monotonicMs();
    await new Promise<void>((resolve, reject) => {
      const late = () => reject(new AppError("WEBSOCKET_DIAL", "timeout", { isConnected: true }));
      const stop = this.#clock.after(timeoutMs, late);
      const onAbort = () => {
        stop();
        reject(signal.reason);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.take(costsMs.handshake, () => {
        stop();
        signal.removeEventListener("abort", onAbort);
        resolve();
      });
    });
    const [socket, ours] = socketPair();
    ours.on("data", () => this.take(costsMs.ping, () => this.#answer(ours)));
    const session = parseHello(headers[moteHeader])?.session ?? (this.dials + 2 ** 40).toString(16).padStart(32, "0");
    const answer = { [moteHeader]: formatHello({ from: 0, ...keepalives.swift, session }) };
    const handshakeMs = this.#clock.monotonicMs() - startedMs;
    // The kernel answers for a process that does not.
    return { socket, head: noHead, headers: answer, handshakeMs, reach: this.#reach };
  };

  #reach: Reach = (_signal, connected) => {
    if (this.isCut) return Promise.reject(new Error("no route to host"));
    connected();
    return new Promise((resolve) => this.take(costsMs.reach, resolve));
  };

  #answer(socket: End): void {
    if (!socket.destroyed && !this.isCut) socket.write(pong);
  }
}

class Fleet {
  readonly clock = new FakeClock();
  readonly server = new Server(this.clock);
  readonly #stop = new AbortController();
  readonly clients: readonly ReturnType<typeof createTunnelClient>[];
  readonly #running: Promise<void>[];

  constructor(count: number) {
    setMaxListeners(0, this.#stop.signal);
    const random = seededRandom(3);
    const deps = {
      ...{ clock: this.clock, random, log: silentLogger, codec: loadCodec((size) => random.bytes(size)) },
      ...{ mayDial: () => false, open: () => Promise.reject(new Error("nothing is dialed")) },
      // One timer in place of a thousand: otherwise only the test would be slower.
      ticks: new Ticks(this.clock),
      dial: this.server.dial,
    };
    this.clients = Array.from({ length: count }, () =>
      createTunnelClient({ host: "192.0.2.1", port: 6443, tls: () => ({}) }, deps),
    );
    this.#running = this.clients.map((client) => client.run(this.#stop.signal, () => {}));
  }

  get connected(): number {
    return this.clients.filter(({ isConnected }) => isConnected).length;
  }

  /** Dials meanwhile, of each. */
  async during(ms: number): Promise<number> {
    const before = this.server.dials;
    await this.clock.advance(ms);
    return (this.server.dials - before) / this.clients.length;
  }

  async close(): Promise<void> {
    this.server.slowDown(1);
    this.#stop.abort(new Error("over"));
    await this.clock.advance(3000);
    await Promise.all(this.#running);
  }
}

test.each<[string, number, number, number]>([
  // Pings alone take almost two seconds, in which the next have come, and all that ask whether it is there nine more.
  ["starved: thirty-five times as slow for 30 s", 35, 30_000, 0.1],
  ["stopped for 10 s", Number.POSITIVE_INFINITY, 10_000, 0],
  ["stopped for 60 s", Number.POSITIVE_INFINITY, 60_000, 3],
])("a server that is %s is not dialed again and again", async (_, slowness, forMs, mostDials) => {
  const fleet = new Fleet(nodes);
  // All at once: each waits for three seconds.
  await fleet.clock.advance(20_000);
  expect([fleet.server.dials, fleet.connected]).toEqual([nodes, nodes]);
  fleet.server.slowDown(slowness);
  expect(await fleet.during(forMs)).toBeLessThanOrEqual(mostDials);
  fleet.server.slowDown(1);
  await fleet.clock.advance(10_000);
  expect(await fleet.during(10_000)).toBe(0);
  expect(fleet.connected).toBe(nodes);
  await fleet.close();
});

test("control: a server that cannot be reached any more is given up within two seconds", async () => {
  const fleet = new Fleet(20);
  await fleet.clock.advance(20_000);
  fleet.server.isCut = true;
  await fleet.clock.advance(2250);
  expect(fleet.connected).toBe(0);
  fleet.server.isCut = false;
  await fleet.close();
});
