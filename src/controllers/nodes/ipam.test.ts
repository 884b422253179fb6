import { expect, test } from "vitest";
import type { Node } from "#model/gen/core-v1.ts";
import { planRanges } from "./ipam.ts";

const node = (name: string, podCIDR?: string): Node =>
  ({ metadata: { name }, spec: podCIDR ? { podCIDR, podCIDRs: [podCIDR] } : {} }) as Node;

test.each([
  ["one that is new", [node("a", "10.42.0.0/24"), node("b")], { b: "10.42.1.0/24" }],
  ["the server's is left alone before it is there", [node("b")], { b: "10.42.1.0/24" }],
  [
    "a hole is filled",
    [node("a", "10.42.1.0/24"), node("b", "10.42.3.0/24"), node("c"), node("d")],
    { c: "10.42.2.0/24", d: "10.42.4.0/24" },
  ],
  ["nothing to do", [node("a", "10.42.0.0/24")], {}],
])("%s", (_name, nodes, wanted) => {
  expect(Object.fromEntries(planRanges("10.42.0.0/16", nodes).ranges)).toEqual(wanted);
});

test("there is an end", () => {
  const { ranges, without } = planRanges("10.42.0.0/23", [node("a"), node("b")]);
  expect([Object.fromEntries(ranges), without]).toEqual([{ a: "10.42.1.0/24" }, ["b"]]);
});
