import { expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { rankForDeletion } from "./pod-ranking.ts";

const nowMs = Date.parse("2026-01-02T00:00:00Z");
interface Input {
  readonly node?: string;
  readonly phase?: string;
  readonly ready?: string;
  readonly cost?: string;
  readonly restarts?: number;
  readonly created?: string;
}
const pod = (name: string, input: Input = {}): Pod =>
  ({
    metadata: {
      name,
      uid: name,
      creationTimestamp: input.created ?? "2026-01-01T00:00:00Z",
      ...(input.cost ? { annotations: { "controller.kubernetes.io/pod-deletion-cost": input.cost } } : {}),
    },
    spec: { containers: [], ...(input.node === "" ? {} : { nodeName: input.node ?? "n1" }) },
    status: {
      phase: input.phase ?? "Running",
      conditions:
        input.ready === ""
          ? []
          : [{ type: "Ready", status: "True", lastTransitionTime: input.ready ?? "2026-01-01T00:00:00Z" }],
      containerStatuses: [{ name: "c", restartCount: input.restarts ?? 0 }],
    },
  }) as unknown as Pod;
const first = (pods: readonly Pod[], neighbours: (pod: Pod) => number = () => 0) =>
  rankForDeletion(pods, neighbours, nowMs)[0]?.metadata.name;

test.each<[string, Input, Input]>([
  ["not scheduled", { node: "" }, { cost: "-5" }],
  ["pending", { phase: "Pending", ready: "" }, { ready: "" }],
  ["not ready", { ready: "" }, { cost: "-5" }],
  ["cheaper", { cost: "-1" }, { ready: "2026-01-01T23:59:00Z" }],
  ["ready for a shorter time", { ready: "2026-01-01T23:59:00Z" }, { restarts: 9 }],
  ["restarted more often", { restarts: 3 }, { created: "2026-01-01T23:59:00Z" }],
  ["younger", { created: "2026-01-01T23:59:00Z" }, {}],
])("goes first: %s", (_, goes, stays) => {
  expect(first([pod("stays", stays), pod("goes", goes)])).toBe("goes");
  expect(first([pod("goes", goes), pod("stays", stays)])).toBe("goes");
});

test("crowded nodes are relieved first, and nearly equal ages do not decide", () => {
  const a = pod("a", { node: "crowded" });
  const b = pod("b", { node: "empty", ready: "2026-01-01T00:00:01Z" });
  expect(first([b, a], (p) => (p.spec.nodeName === "crowded" ? 3 : 1))).toBe("a");
  expect(first([pod("y", { ready: "2026-01-01T00:00:00Z" }), pod("x", { ready: "2026-01-01T00:00:01Z" })])).toBe("x");
});
