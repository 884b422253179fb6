// Whatever comes and goes, the columns say what a fresh count over nodes and pods says.
import { describe, expect, test } from "vitest";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { SchedulerCache } from "./cache.ts";
import { podInfoOf } from "./pod-info.ts";
import type { Snapshot } from "./snapshot.ts";

const zone = "topology.kubernetes.io/zone";
const app = [{ key: "app", operator: "=" as const, values: ["a0"] }];

const nodeOf = (name: string, zoneName: string | undefined, gpus: number): Node => ({
  metadata: { name, labels: zoneName === undefined ? {} : { [zone]: zoneName } },
  spec: {},
  status: { allocatable: { cpu: "64", memory: "64Gi", pods: "110", ...(gpus > 0 ? { "x/gpu": String(gpus) } : {}) } },
});
function podOf(i: number, random: ReturnType<typeof seededRandom>, nodeName: string): Pod {
  const upTo = (n: number) => Math.floor(random.float() * n);
  const far = { labelSelector: { matchLabels: { app: `a${upTo(3)}` } }, topologyKey: zone };
  return {
    metadata: {
      name: `p${i}`,
      namespace: "ns",
      uid: `p${i}-${upTo(1000)}`,
      labels: { app: `a${upTo(3)}` },
      ...(random.float() < 0.2 ? { deletionTimestamp: "2026-01-01T00:00:00Z" } : {}),
    },
    spec: {
      nodeName,
      priority: upTo(5),
      containers: [{ name: "c", resources: { requests: { cpu: `${upTo(500)}m`, "x/gpu": String(upTo(3)) } } }],
      ...(random.float() < 0.3 && {
        affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [far] } },
      }),
    },
  };
}

function expectRight({ table, nodes }: Snapshot): void {
  const counts = table.matching("ns", app, { skipsDeleting: true });
  const { ids, values } = table.domains(zone);
  const holders = new Map<string, number>();
  for (const node of nodes) {
    const pods = [...node.pods.values()];
    const sum = (name: string) => pods.reduce((total, { requests }) => total + (requests.get(name) ?? 0), 0);
    expect(node.requestedOf("cpu"), node.name).toBe(sum("cpu"));
    if (table.columnOf("x/gpu") !== undefined) expect(node.requestedOf("x/gpu"), node.name).toBe(sum("x/gpu"));
    expect(node.requestedOf("pods")).toBe(pods.length);
    expect(node.lowestPriority).toBe(Math.min(...pods.map(({ priority }) => priority)));
    expect(counts[node.slot]).toBe(pods.filter((p) => p.labels["app"] === "a0" && !p.isDeleting).length);
    const domain = ids[node.slot]!;
    expect(domain < 0 ? undefined : values[domain]).toBe(node.labels[zone]);
    for (const { far } of pods) for (const { text } of far) holders.set(text, (holders.get(text) ?? 0) + 1);
  }
  const held = [...table.terms.far].map(([text, entry]) => [
    text,
    [...entry.holders.values()].reduce((a, b) => a + b, 0),
  ]);
  expect(new Map(held as [string, number][])).toEqual(holders);
}

describe("columns", () => {
  test.each([1, 2, 3])("seed %i", (seed) => {
    const random = seededRandom(seed);
    const upTo = (n: number) => Math.floor(random.float() * n);
    const cache = new SchedulerCache({ assumeTtlMs: 1000 }, { clock: new FakeClock() });
    const zoneNames = ["x", "y", undefined];
    for (let step = 0; step < 600; step++) {
      const name = `n${upTo(40)}`;
      const dice = random.float();
      // Nobody offers the extended resource at first: pods that ask for it are there before its column.
      if (dice < 0.15) cache.setNode(nodeOf(name, zoneNames[upTo(3)], step > 200 ? upTo(4) : 0));
      else if (dice < 0.2) cache.removeNode(name);
      else if (dice < 0.75) cache.setPod(podOf(upTo(200), random, name));
      else if (dice < 0.85) {
        const { nodeName: _, ...spec } = podOf(1000 + step, random, name).spec;
        cache.assume(podInfoOf({ ...podOf(1000 + step, random, name), spec }), name);
      } else cache.removePod(`ns/p${upTo(200)}`);
      if (step % 10 === 0) expectRight(cache.snapshot());
    }
    const { nodes, table } = cache.snapshot();
    expect(nodes.length).toBeGreaterThan(5);
    expect(table.columnOf("x/gpu")).toBeDefined();
  });

  test("more selectors than are kept: each is right whenever it is asked", () => {
    const cache = new SchedulerCache({ assumeTtlMs: 1000 }, { clock: new FakeClock() });
    const random = seededRandom(9);
    for (let i = 0; i < 5; i++) cache.setNode(nodeOf(`n${i}`, "x", 0));
    for (let i = 0; i < 100; i++) cache.setPod(podOf(i, random, `n${i % 5}`));
    const { table, nodes } = cache.snapshot();
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 300; i++) {
        const requirements = [{ key: "app", operator: "notin" as const, values: [`a${i % 3}`, String(i)] }];
        const counts = table.matching("ns", requirements, { skipsDeleting: false });
        const [node] = nodes;
        const expected = [...node!.pods.values()].filter((p) => p.labels["app"] !== `a${i % 3}`).length;
        expect(counts[node!.slot]).toBe(expected);
      }
    }
  });
});
