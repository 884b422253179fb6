// A server and its clients over real TLS: handshake, dialing, refusals, cuts, relays, and the pauses between attempts.
import { afterEach, expect, test, vi } from "vitest";
import { systemClock } from "#platform/clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { pauseBefore } from "./client.ts";
import { createRelay } from "./relay.ts";
import { type Host, reach, read, TunnelRig, testDeps, testTls, until } from "./rig.fixture.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const rig = new TunnelRig();
afterEach(() => rig.close());

test("a node is dialed through its tunnel; who is not there, is not", async () => {
  const { tunnels, door } = await rig.host();
  const port = await rig.echo("hello ");
  expect(() => tunnels.dial("n1", "tcp", "127.0.0.1:1")).toThrow("failed to find Session for client n1");
  const one = rig.client(door.port, "n1");
  await until(() => tunnels.has("n1"));
  const stream = tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  stream.write("world");
  expect(await read(stream, 11)).toBe("hello world");
  const closed = tunnels.dial("n1", "tcp", "127.0.0.1:1");
  await expect(read(closed, 1)).rejects.toThrow("connect ECONNREFUSED");
  await one.stop();
  await until(() => !tunnels.has("n1"));
  expect(stream.destroyed).toBe(true);
});

test("a node refuses what it does not let anybody dial, and keeps its tunnel", async () => {
  const { tunnels, door } = await rig.host();
  const port = await rig.echo("x");
  rig.client(door.port, "n1", { mayDial: (_proto, address) => address === `127.0.0.1:${port}` });
  await until(() => tunnels.has("n1"));
  await expect(read(tunnels.dial("n1", "tcp", "10.0.0.1:22"), 1)).rejects.toThrow("connect not allowed");
  expect(await read(tunnels.dial("n1", "tcp", `127.0.0.1:${port}`), 1)).toBe("x");
});

test("a stream goes on after its connection was cut, with every byte once", async () => {
  const { tunnels, door } = await rig.host();
  const port = await rig.echo();
  const between = await rig.wire(door.port);
  rig.client(between.port, "n1");
  await until(() => tunnels.has("n1"));
  const stream = tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  const sent = Buffer.from(seededRandom(1).bytes(3_000_000));
  const parts: Buffer[] = [];
  let have = 0;
  stream.on("data", (part: Buffer) => {
    parts.push(part);
    have += part.length;
  });
  stream.write(sent);
  for (let i = 1; i <= 4; i++) {
    await until(() => have > (i * sent.length) / 6);
    between.refuse(true);
    between.cut();
    await systemClock.sleep(120);
    between.refuse(false);
  }
  await until(() => have >= sent.length);
  expect(Buffer.concat(parts).equals(sent)).toBe(true);
});

test("another node cannot take a session over, whatever it says it is called", async () => {
  const { tunnels, door } = await rig.host();
  const names = new Set<string>();
  tunnels.onNode((node, isThere) => void (isThere ? names.add(node) : names.delete(node)));
  rig.client(door.port, "n1");
  rig.client(door.port, "n2");
  await until(() => names.size === 2);
  expect([...names].sort()).toEqual(["n1", "n2"]);
});

test("a node that begins anew is reached at once, and nothing hangs in what it has forgotten", async () => {
  const { tunnels, door } = await rig.host();
  const port = await rig.echo();
  const way = await rig.wire(door.port);
  rig.client(way.port, "n1");
  await until(() => tunnels.has("n1"));
  // The process is gone without a word: its tunnel waits for it.
  way.refuse(true);
  way.cut();
  const hanging = tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  const ended = expect(read(hanging, 1)).rejects.toThrow("the other end began anew");
  rig.client(door.port, "n1");
  await ended;
  const stream = tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  stream.write("here");
  expect(await read(stream, 4)).toBe("here");
});

test("servers relay: a node is reached through the server that holds its tunnel", async () => {
  const [a, b] = [await rig.host({ peerToken: "secret" }), await rig.host({ peerToken: "secret" })];
  const port = await rig.echo("hi");
  const relay = (to: Host, from: Host, token: string) =>
    rig.run(
      createRelay(
        { id: "b", peerToken: token, host: "127.0.0.1", port: to.door.port, tls: testTls },
        { ...testDeps, tunnels: from.tunnels },
      ),
    );
  rig.client(b.door.port, "n1");
  await until(() => b.tunnels.has("n1"));
  relay(a, b, "wrong");
  await systemClock.sleep(100);
  expect(() => a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`)).toThrow("failed to find Session");
  relay(a, b, "secret");
  const stream = await reach(() => a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`));
  expect(await read(stream, 2)).toBe("hi");
  // Not by way of a third.
  expect(() => a.tunnels.dialLocal("n1", "tcp", "127.0.0.1:1")).toThrow("failed to find Session");
  // A node that comes later is told of.
  rig.client(b.door.port, "n2");
  (await reach(() => a.tunnels.dial("n2", "tcp", "127.0.0.1:1"))).destroy();
});

test("pauses grow, are never none, and no two nodes keep step", () => {
  const random = seededRandom(5);
  for (const [why, least, most] of [
    ["waiting", 50, 500],
    ["absent", 125, 500],
    ["refused", 250, 15_000],
  ] as const) {
    const list = Array.from({ length: 12 }, (_, attempt) => pauseBefore(attempt, why, random));
    expect(Math.min(...list)).toBeGreaterThanOrEqual(least);
    expect(Math.max(...list)).toBeLessThanOrEqual(most);
    expect(list[11]).toBeGreaterThanOrEqual(most / 2);
  }
  const spread = Array.from({ length: 200 }, () => pauseBefore(8, "refused", random));
  expect(Math.max(...spread) - Math.min(...spread)).toBeGreaterThan(6000);
});
