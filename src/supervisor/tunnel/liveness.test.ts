// How long an end is waited for: longer where answers are slow or the machine is there all the same, and not where it was quick.
import { expect, test } from "vitest";
import type { Reach } from "#platform/raw-websocket.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { type Keepalive, keepalives, type Verdict } from "./keepalive.ts";
import { Liveness, type LivenessOptions, type Way } from "./liveness.ts";
import { encodeNumber } from "./messages.ts";
import { Patience } from "./patience.ts";

const least = 1000;

test.each<[string, readonly number[], number]>([
  ["nothing known", [], least],
  ["quick answers", [1, 5, 200], least],
  ["one that was late", [1, 600, 1], 1580],
  ["a satellite", [1200, 1250, 1210], 2920],
  ["a machine that is starved", [4000, 5000, 3000], 6000],
  ["one that was, twenty-five answers ago", [5000, ...Array<number>(25).fill(10)], least],
])("patience with %s", (_, answersMs, wantedMs) => {
  const patience = new Patience(least);
  for (const ms of answersMs) patience.answered(ms);
  expect(Math.round(patience.ms)).toBe(wantedMs);
});

interface Setting extends Partial<Omit<LivenessOptions, "nowMs">> {
  readonly way?: Way;
}

/** One end, looked at every quarter of a second. */
class Watched {
  readonly clock = new FakeClock();
  readonly liveness: Liveness;
  heardMs = 0;
  readonly asked: Uint8Array[] = [];

  constructor({ way = {}, ...setting }: Setting = {}) {
    const options = { keepalive: keepalives.swift, isDialer: true, isMote: true, ...setting };
    this.liveness = new Liveness({ ...options, nowMs: () => this.clock.monotonicMs() });
    this.liveness.attached(way);
    if (options.isDialer && options.isMote) this.asked.push(this.liveness.asks(false));
  }

  hears(): void {
    this.heardMs = this.clock.monotonicMs();
    this.liveness.heard();
    this.liveness.ponged();
  }

  async look(lateMs = 0): Promise<Verdict> {
    await this.clock.advance(250 + lateMs);
    const verdict = this.liveness.look(this.clock.monotonicMs(), lateMs, this.heardMs, undefined);
    if (verdict === "ping" || verdict === "probe") this.asked.push(this.liveness.asks(verdict === "probe"));
    return verdict;
  }

  /** How long it takes from now on until the other end is given up. */
  async deadAfterMs(mostMs = 100_000): Promise<number> {
    const fromMs = this.clock.monotonicMs();
    for (;;) {
      if ((await this.look()) === "dead") return this.clock.monotonicMs() - fromMs;
      if (this.clock.monotonicMs() - fromMs > mostMs) return Number.POSITIVE_INFINITY;
    }
  }

  /** Every ping has its answer after so long. */
  async answers(tookMs: number, times: number): Promise<void> {
    this.hears();
    for (let i = 0; i < times; ) {
      const verdict = await this.look();
      expect(verdict).not.toBe("dead");
      if (verdict !== "ping") continue;
      for (let ms = 250; ms <= tookMs; ms += 250) expect(await this.look()).not.toBe("dead");
      this.hears();
      i++;
    }
  }
}

test("who answered at once is given up within two seconds of the last that came, whichever end it is", async () => {
  const dialer = new Watched();
  await dialer.answers(0, 5);
  expect(await dialer.deadAfterMs()).toBe(2000);
  const acceptor = new Watched({ isDialer: false });
  acceptor.hears();
  expect(await acceptor.deadAfterMs()).toBe(1750);
});

test("where handshakes are slow the first answer has its time, and so has whoever just came", async () => {
  expect(await new Watched().deadAfterMs()).toBe(2000);
  expect(await new Watched({ way: { handshakeMs: 20 } }).deadAfterMs()).toBe(2000);
  expect(await new Watched({ way: { handshakeMs: 4000 } }).deadAfterMs()).toBe(4500);
  expect(await new Watched({ way: { handshakeMs: 60_000 } }).deadAfterMs()).toBe(6000);
});

test("a server that becomes slower is followed, and is given up in time again when it was quick for half a minute", async () => {
  const dialer = new Watched();
  for (const tookMs of [0, 750, 1500, 2500, 2500]) await dialer.answers(tookMs, 2);
  expect(await dialer.deadAfterMs()).toBeGreaterThan(5000);
  const again = new Watched();
  for (const tookMs of [750, 1500, 2500]) await again.answers(tookMs, 2);
  await again.answers(0, 30);
  expect(await again.deadAfterMs()).toBe(2000);
});

test("a machine that can be reached is waited for twelve seconds, and one that cannot is not", async () => {
  let reaches = 0;
  let isThere = true;
  const reach: Reach = (_signal, connected) => {
    reaches++;
    if (isThere) connected();
    return isThere ? new Promise<void>(() => {}) : Promise.reject(new Error("nobody there"));
  };
  const dialer = new Watched({ way: { reach } });
  dialer.hears();
  await dialer.answers(0, 3);
  expect(reaches).toBe(0);
  expect(await dialer.deadAfterMs()).toBe(13_000);
  expect(reaches).toBe(1);
  const cut = new Watched({ way: { reach } });
  await cut.answers(0, 3);
  isThere = false;
  expect(await cut.deadAfterMs()).toBe(2000);
});

test("a server that runs and does not answer over this connection is given up within three seconds", async () => {
  const reach: Reach = async (_signal, connected) => connected();
  const dialer = new Watched({ way: { reach } });
  await dialer.answers(0, 3);
  expect(await dialer.deadAfterMs()).toBe(3000);
});

test("who is asked whether it can be reached is not when it speaks, or when the connection is gone", async () => {
  for (const end of ["heard", "detached"] as const) {
    const signals: AbortSignal[] = [];
    const dialer = new Watched({ way: { reach: (signal) => new Promise(() => void signals.push(signal)) } });
    await dialer.answers(0, 1);
    await dialer.deadAfterMs(1750);
    expect(signals.map(({ aborted }) => aborted)).toEqual([false]);
    dialer.liveness[end]();
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
  }
});

test("a dialing end that is slow says so, and the other waits for it", async () => {
  const dialer = new Watched();
  await dialer.answers(0, 3);
  expect(dialer.asked.every(({ length }) => length === 0)).toBe(true);
  // It has not run for a while.
  expect(await dialer.look(1500)).toBe("ping");
  const said = dialer.asked.at(-1)!;
  expect(said).toEqual(encodeNumber(3500));
  const acceptor = new Watched({ isDialer: false });
  acceptor.hears();
  acceptor.liveness.told(said);
  expect(await acceptor.deadAfterMs()).toBe(3750);
  // It is as quick as before, or says what is none of it.
  for (const payload of [new Uint8Array(0), encodeNumber(1), Uint8Array.of(0xff)]) {
    const other = new Watched({ isDialer: false });
    other.hears();
    other.liveness.told(payload);
    expect(await other.deadAfterMs()).toBe(1750);
  }
  const bounded = new Watched({ isDialer: false });
  bounded.hears();
  bounded.liveness.told(encodeNumber(2 ** 40));
  expect(await bounded.deadAfterMs()).toBe(5500);
});

test("stalls of our own are not taken for silence, even where there is nothing else", async () => {
  for (const isDialer of [true, false]) {
    const one = new Watched({ isDialer });
    one.hears();
    for (let i = 0; i < 20; i++) {
      // What has come meanwhile is read after the tick.
      expect(await one.look(3000)).not.toBe("dead");
      one.hears();
    }
    let looks = 1;
    while ((await one.look(700)) !== "dead") looks++;
    expect(looks * 950).toBeLessThan(10_000);
  }
});

test.each<[string, Keepalive, number]>([
  ["k3s", keepalives.k3s, 60_000],
  ["meteredK3s", keepalives.meteredK3s, 100_000],
])("towards %s nothing of it is used", async (_, keepalive, wantedMs) => {
  let reaches = 0;
  const reach = async () => void reaches++;
  const dialer = new Watched({ keepalive, isMote: false, way: { handshakeMs: 60_000, reach } });
  dialer.hears();
  expect(await dialer.deadAfterMs(200_000)).toBe(wantedMs);
  expect([reaches, dialer.asked.length]).toEqual([0, 1]);
  expect(dialer.asked[0]!.length).toBe(0);
});
