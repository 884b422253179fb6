// The proxy's loop under a simulated clock, with nft replaced by a record of what it was told.
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import { services } from "#model/resources.ts";
import type { Commands } from "#platform/processes.ts";
import type { Sysctl } from "#platform/sysctl.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createServiceProxy } from "../service-proxy.ts";

async function start(failures = 0, clusterCidrs: readonly string[] = ["10.42.0.0/16"]) {
  const scripts: string[] = [];
  const state = { isTableThere: false, failures, failed: [] as string[] };
  const commands: Commands = {
    async run(program, args, options) {
      if (program === "nft" && args[0] === "-f") {
        if (state.failures > 0) {
          state.failures--;
          state.failed.push(String(options?.input).slice(0, 14));
          return { code: 1, stdout: "", stderr: "busy" };
        }
        scripts.push(String(options?.input));
        state.isTableThere = true;
      }
      if (program === "nft" && args.includes("list")) {
        const where = args.slice(-3).join(" ");
        const last = scripts.find((s) => s.startsWith(`add table ${args.at(-3)} `)) ?? "";
        const count = last.split("\n").filter((l) => l.startsWith(`add rule ${where} `)).length;
        const document = { nftables: Array.from({ length: count }, () => ({ rule: {} })) };
        return state.isTableThere
          ? { code: 0, stdout: JSON.stringify(document), stderr: "" }
          : { code: 1, stdout: "", stderr: "No such file or directory" };
      }
      return { code: 0, stdout: "", stderr: "" };
    },
  };
  const written: string[] = [];
  const sysctl: Sysctl = {
    read: async (name) => (/forward(ing)?$/.test(name) ? "0" : "1"),
    write: async (name, value) => void written.push(`${name}=${value}`),
  };
  const client = new Client(new FakeTransport());
  const clock = new FakeClock();
  const informers = new InformerFactory({}, { client, clock, random: seededRandom(1), log: silentLogger });
  const stop = new AbortController();
  let isReady = false;
  const proxy = createServiceProxy(
    { nodeName: "n1", clusterCidrs, localServiceIps: [] },
    { informers, commands, sysctl, clock, log: silentLogger },
  );
  const ready = () => {
    isReady = true;
  };
  const running = [proxy.run(stop.signal, ready), informers.run(stop.signal, () => {})];
  const finish = async () => {
    stop.abort();
    await Promise.all(running);
    expect(clock.pending).toBe(0);
  };
  await settle();
  return { scripts, state, written, client, clock, finish, isReady: () => isReady };
}

test("writes once, sets only what differs in the kernel, and is quiet while nothing changes", async () => {
  const t = await start();
  expect(t.isReady()).toBe(true);
  expect(t.written).toEqual(["net.ipv4.ip_forward=1"]);
  await t.clock.advance(300_000);
  expect(t.scripts).toHaveLength(1);
  await t.finish();
});

test("a table that vanished is written again within half a minute", async () => {
  const t = await start();
  t.state.isTableThere = false;
  await t.clock.advance(30_000);
  expect(t.scripts).toHaveLength(2);
  expect(t.scripts[1]).toBe(t.scripts[0]);
  await t.finish();
});

test("changes are gathered; a failed transaction is followed by a full one", async () => {
  const t = await start();
  const put = (name: string, ip: string) =>
    t.client.create(services, {
      metadata: { name, namespace: "default" },
      spec: { clusterIP: ip, ports: [{ port: 80 }] },
    });
  await put("a", "10.43.0.1");
  await put("b", "10.43.0.2");
  await t.clock.advance(1000);
  expect(t.scripts).toHaveLength(2);
  expect(t.scripts[1]).not.toContain("add table");
  t.state.failures = 2;
  await put("c", "10.43.0.3");
  await t.clock.advance(5000);
  expect(t.scripts).toHaveLength(3);
  expect(t.scripts[2]).toMatch(/^add table.*10\.43\.0\.1.*10\.43\.0\.3/s);
  await t.finish();
});

test("is ready after the first attempt even if it failed, and goes on trying", async () => {
  const t = await start(3);
  expect([t.isReady(), t.scripts.length]).toEqual([true, 0]);
  await t.clock.advance(10_000);
  expect(t.scripts).toHaveLength(1);
  await t.finish();
});

test("two families have a table each, and one that fails holds up no other", async () => {
  const t = await start(1, ["10.42.0.0/16", "fd00:42::/56"]);
  // Not net.ipv6.conf.all.forwarding: before the overlay has looked after routers' advertisements nobody may.
  expect(t.written).toEqual(["net.ipv4.ip_forward=1"]);
  // The first of IPv4 failed, and that of IPv6 is there at once.
  expect(t.state.failed).toEqual(["add table ip m"]);
  expect(t.scripts.map((script) => script.slice(0, 14))).toEqual(["add table ip6 "]);
  await t.clock.advance(10_000);
  expect(t.scripts.map((script) => script.slice(0, 14))).toEqual(["add table ip6 ", "add table ip m"]);
  await t.clock.advance(300_000);
  expect(t.scripts).toHaveLength(2);
  await t.finish();
});
