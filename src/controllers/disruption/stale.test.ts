import { expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { staleInMs } from "./stale.ts";

const nowMs = Date.parse("2026-01-01T00:10:00Z");
const pod = (time: string, more: { status?: string; reason?: string; phase?: string } = {}): Pod =>
  ({
    metadata: { name: "p" },
    spec: { containers: [] },
    status: {
      phase: more.phase ?? "Running",
      conditions: [
        {
          type: "DisruptionTarget",
          status: more.status ?? "True",
          reason: more.reason ?? "EvictionByEvictionAPI",
          lastTransitionTime: `2026-01-01T${time}Z`,
        },
      ],
    },
  }) as Pod;

test.each([
  ["said a minute ago", pod("00:09:00"), 60_000],
  ["said two minutes ago", pod("00:08:00"), 0],
  ["taken back already", pod("00:01:00", { status: "False" }), undefined],
  ["said by its node", pod("00:01:00", { reason: "TerminationByKubelet" }), undefined],
  ["finished", pod("00:01:00", { phase: "Failed" }), undefined],
  ["never said", { metadata: {}, spec: { containers: [] } } as Pod, undefined],
])("%s", (_, object, expected) => {
  expect(staleInMs(object, nowMs)).toBe(expected);
});
