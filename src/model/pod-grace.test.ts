import { expect, test } from "vitest";
import type { Pod } from "./gen/core-v1.ts";
import { graceSecondsOf } from "./pod-grace.ts";

test.each([
  [undefined, undefined, 30],
  [5, undefined, 5],
  [0, undefined, 0],
  [-3, undefined, 1],
  [5, 7, 7],
  [5, -1, 1],
  [-3, 0, 0],
])("of a pod that says %s, asked for %s: %s", (own, asked, seconds) => {
  const pod = { spec: { containers: [], ...(own === undefined ? {} : { terminationGracePeriodSeconds: own }) } };
  expect(graceSecondsOf(pod as unknown as Pod, asked)).toBe(seconds);
});
