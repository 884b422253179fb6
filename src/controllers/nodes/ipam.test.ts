import { expect, test } from "vitest";
import { silentLogger as log } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport, unreachableServer } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createNodeIpam, planRanges } from "./ipam.ts";

const node = (name: string, ...podCIDRs: string[]): Node =>
  ({ metadata: { name }, spec: podCIDRs.length > 0 ? { podCIDR: podCIDRs[0], podCIDRs } : {} }) as Node;
const maskSizes = { IPv4: 24, IPv6: 64 };
const plan = (clusterCidr: string, known: readonly Node[], sizes = maskSizes) => {
  const { ranges, without } = planRanges({ clusterCidr, maskSizes: sizes }, known);
  return [Object.fromEntries([...ranges].map(([name, mine]) => [name, mine.join()])), without];
};

test.each<[string, Node[], Record<string, string>]>([
  ["one that is new", [node("a", "10.42.0.0/24"), node("b")], { b: "10.42.1.0/24" }],
  ["the first of all", [node("b")], { b: "10.42.0.0/24" }],
  [
    "a hole is filled",
    [node("a", "10.42.1.0/24"), node("b", "10.42.3.0/24"), node("c"), node("d")],
    { c: "10.42.0.0/24", d: "10.42.2.0/24" },
  ],
  ["nothing to do", [node("a", "10.42.0.0/24")], {}],
  ["one of another size takes all that it covers", [node("a", "10.42.0.0/22"), node("b")], { b: "10.42.4.0/24" }],
  ["a smaller one takes the whole", [node("a", "10.42.0.128/25"), node("b")], { b: "10.42.1.0/24" }],
  ["one from elsewhere takes nothing", [node("a", "10.41.1.0/24", "fd00::/64"), node("b")], { b: "10.42.0.0/24" }],
])("%s", (_name, nodes, wanted) => {
  expect(plan("10.42.0.0/16", nodes)).toEqual([wanted, []]);
});

test.each<[string, string, Node[], Record<string, string>]>([
  [
    "both families, each with its own holes",
    "10.42.0.0/16,fd00:42::/56",
    [node("a", "10.42.0.0/24", "fd00:42::/64"), node("b", "10.42.1.0/24", "fd00:42:0:2::/64"), node("c"), node("d")],
    { c: "10.42.2.0/24,fd00:42:0:1::/64", d: "10.42.3.0/24,fd00:42:0:3::/64" },
  ],
  ["IPv6 first", "fd00:42::/56,10.42.0.0/16", [node("a")], { a: "fd00:42::/64,10.42.0.0/24" }],
  ["IPv6 alone", "fd00:42::/56", [node("a")], { a: "fd00:42::/64" }],
  [
    "another spelling is the same range",
    "fd00:42::/56",
    [node("a", "fd00:42:0:0000::/64"), node("b")],
    { b: "fd00:42:0:1::/64" },
  ],
])("%s", (_name, clusterCidr, nodes, wanted) => {
  expect(plan(clusterCidr, nodes)).toEqual([wanted, []]);
});

test("other sizes", () => {
  const sizes = { IPv4: 26, IPv6: 112 };
  expect(plan("10.42.0.0/16,fd00:42::/96", [node("a"), node("b")], sizes)).toEqual([
    { a: "10.42.0.0/26,fd00:42::/112", b: "10.42.0.64/26,fd00:42::1:0/112" },
    [],
  ]);
});

test.each([
  ["there is an end", "10.42.0.0/24", { a: "10.42.0.0/24" }],
  ["of both as soon as of one", "10.42.0.0/16,fd00:42::/64", { a: "10.42.0.0/24,fd00:42::/64" }],
])("%s", (_name, clusterCidr, wanted) => {
  expect(plan(clusterCidr, [node("a"), node("b")])).toEqual([wanted, ["b"]]);
});

test("what may have been written is nobody else's, and a node that is not to be had keeps none waiting", async () => {
  const transport = new FakeTransport();
  const client = new Client(transport);
  const clock = new FakeClock();
  const deps = { client, clock, random: seededRandom(1), log };
  const informers = new InformerFactory({}, deps);
  const events = new EventRecorder({ component: "test" }, deps);
  const ipam = createNodeIpam(
    { ...deps, informers, events, metrics: new Metrics() },
    { clusterCidr: "10.42.0.0/16", maskSizes },
  );
  for (const name of ["a", "b"]) await client.create(nodes, { metadata: { name } } as Node);
  // Nobody knows what became of it.
  transport.fail = ({ method, path }) => (method === "PATCH" && path.endsWith("/a") ? unreachableServer() : undefined);
  const stop = new AbortController();
  const running = [informers, ipam].map((one) => one.run(stop.signal, () => {}));
  await clock.advance(1000);
  await client.create(nodes, { metadata: { name: "c" } } as Node);
  await clock.advance(1000);
  const ranges = async () => (await client.list(nodes)).items.map(({ spec }) => spec?.podCIDR);
  expect(await ranges()).toEqual([undefined, "10.42.1.0/24", "10.42.2.0/24"]);
  transport.fail = () => undefined;
  await clock.advance(60_000);
  expect(await ranges()).toEqual(["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"]);
  stop.abort();
  await Promise.all(running);
});
