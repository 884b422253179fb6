// The label by which a node says what it takes through its tunnel: there or not, as the cluster's mode has it.
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createEgressLabel, planEgressLabel } from "./egress-label.ts";
import { type EgressMode, egressLabel } from "./tunnel/egress.ts";

const node = (value?: string): Node => ({
  metadata: { name: "n1", labels: value === undefined ? { other: "x" } : { [egressLabel]: value } },
  spec: {},
});

test.each<[EgressMode, string | undefined, "true" | null | undefined]>([
  ["agent", undefined, undefined],
  ["agent", "true", null],
  ["disabled", "true", null],
  ["disabled", undefined, undefined],
  ["pod", undefined, "true"],
  ["pod", "false", "true"],
  ["pod", "true", undefined],
  ["cluster", undefined, "true"],
])("mode %s, label %s: %s", (mode, found, wanted) => {
  expect(planEgressLabel(mode, node(found))).toBe(wanted);
});

test("waits for its node, and for a server that takes it; then it is written once", async () => {
  const clock = new FakeClock();
  const patches: unknown[] = [];
  let tries = 0;
  const client = {
    async get() {
      tries++;
      if (tries < 3) throw new Error("no such node");
      return node();
    },
    async patch(_resource: unknown, _name: unknown, patch: unknown) {
      if (tries < 4) throw new Error("the server is away");
      patches.push(patch);
    },
  } as unknown as Pick<Client, "get" | "patch">;
  const stop = new AbortController();
  const deps = { client, clock, random: seededRandom(1), log: silentLogger };
  const running = createEgressLabel({ mode: "cluster", nodeName: "n1" }, deps).run(stop.signal, () => {});
  await clock.advance(60_000);
  expect([tries, patches]).toEqual([4, [{ metadata: { labels: { [egressLabel]: "true" } } }]]);
  expect(clock.pending).toBe(0);
  stop.abort(new Error("over"));
  await running;
});
