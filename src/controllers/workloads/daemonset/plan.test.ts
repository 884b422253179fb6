import { describe, expect, test } from "vitest";
import type { DaemonSet } from "#model/gen/apps-v1.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { planPlacement, planUpdate } from "./plan.ts";

const nowMs = Date.parse("2026-01-01T01:00:00Z");
const nodes = (count: number): Node[] =>
  Array.from({ length: count }, (_, i) => ({ metadata: { name: `n${i}` }, spec: {} }) as Node);
const set = (rollingUpdate: object, minReadySeconds = 0): DaemonSet =>
  ({
    metadata: { name: "x", namespace: "ns" },
    spec: {
      minReadySeconds,
      updateStrategy: { type: "RollingUpdate", rollingUpdate },
      template: { spec: { containers: [] } },
    },
  }) as unknown as DaemonSet;
/** "0" a pod on node 0 that is ready and new; "0o" old; "0-" not ready; "0x" deleting; "0y" ready just now. */
const pod = (text: string, i: number): Pod => {
  const is = (mark: string) => text.includes(mark);
  return {
    metadata: {
      name: text,
      creationTimestamp: `2026-01-01T00:00:${String(i).padStart(2, "0")}Z`,
      labels: { "controller-revision-hash": is("o") ? "old" : "new" },
      ...(is("x") ? { deletionTimestamp: "2026-01-01T00:59:00Z" } : {}),
    },
    spec: { nodeName: `n${Number.parseInt(text, 10)}`, containers: [] },
    status: {
      phase: "Running",
      conditions: [
        {
          type: "Ready",
          status: is("-") ? "False" : "True",
          lastTransitionTime: is("y") ? "2026-01-01T00:59:59Z" : "2026-01-01T00:00:00Z",
        },
      ],
    },
  } as unknown as Pod;
};
const input = (of: DaemonSet, nodeCount: number, pods: string) => ({
  set: of,
  nodes: nodes(nodeCount),
  pods: pods.split(" ").filter(Boolean).map(pod),
  hash: "new",
  nowMs,
});
const text = ({ create, remove }: { create: readonly string[]; remove: readonly Pod[] }): string =>
  [...create.map((name) => `+${name.slice(1)}`), ...remove.map((one) => `-${one.metadata.name}`)].join(" ");

describe("exchanging in place", () => {
  test.each([
    ["one at a time", { maxUnavailable: 1 }, "0o 1o 2o", "-0o"],
    ["while one is missing none", { maxUnavailable: 1 }, "0o 1o", ""],
    ["what does not work anyway at once", { maxUnavailable: 1 }, "0o- 1o- 2o", "-0o- -1o-"],
    ["a share, rounded up", { maxUnavailable: "34%" }, "0o 1o 2o", "-0o -1o"],
  ])("%s", (_, rolling, pods, step) => {
    expect(text(planUpdate(input(set(rolling), 3, pods)))).toBe(step);
  });
});

describe("with a surge", () => {
  const rolling = { maxSurge: 1, maxUnavailable: 0 };
  test.each([
    ["a new one beside an old one", "0o 1o 2o", "+0"],
    ["the old one stays until the new one works", "0o 0- 1o 2o", ""],
    ["then it ends, and the next begins", "0o 0 1o 2o", "+1 -0o"],
    ["what does not work is replaced beyond the surge", "0o- 1o- 2o", "+0 +1 +2"],
    ["the new one is not better: the old one ends all the same", "0o- 0- 1 2", "-0o-"],
    ["what goes already is not counted", "0ox 0 1o 2", "+1"],
    ["all new", "0 1 2", ""],
  ])("%s", (_, pods, step) => {
    expect(text(planUpdate(input(set(rolling), 3, pods)))).toBe(step);
  });
  test("ready is not enough where an age is asked for", () => {
    expect(text(planUpdate(input(set(rolling, 10), 1, "0o 0y")))).toBe("");
    expect(text(planUpdate(input(set(rolling, 10), 1, "0o 0")))).toBe("-0o");
  });
});

describe("pods of one node", () => {
  test.each([
    ["the oldest stays", {}, "0o 0 0", "-0 -0"],
    ["in a surge one of each template", { maxSurge: 1, maxUnavailable: 0 }, "0o 0- 0-", "-0-"],
    ["none is missing", {}, "0", ""],
    ["one is missing", {}, "", "+0"],
    ["a deleted one holds its place", {}, "0x", ""],
  ])("%s", (_, rolling, pods, step) => {
    expect(text(planPlacement(input(set(rolling), 1, pods)))).toBe(step);
  });
});
