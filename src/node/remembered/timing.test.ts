import { expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { type PodMoment, timingOf } from "./timing.ts";

const begun = { containerStatuses: [{ name: "c", restartCount: 0, state: { running: {} } }] };
const podOf = (restartPolicy: string, status: object, deletionTimestamp?: string) =>
  ({
    metadata: { name: "p", uid: "u", ...(deletionTimestamp ? { deletionTimestamp } : {}) },
    spec: { restartPolicy, containers: [] },
    status,
  }) as unknown as Pod;
const now = "2026-01-01T00:00:00Z";
const service = podOf("Always", { phase: "Running", ...begun });
const job = podOf("OnFailure", { phase: "Running", ...begun });
const ended = podOf("OnFailure", { phase: "Succeeded" });
const pending = podOf("Always", { phase: "Pending" });

test.each<[string, Pod, Partial<PodMoment>, string]>([
  ["a service that runs", service, {}, "vital 1"],
  ["a service that is about to", pending, {}, "vital 10"],
  ["a job that runs", job, {}, "vital 60"],
  ["one that is run once", podOf("Never", begun), {}, "vital 60"],
  ["a service that is being deleted", podOf("Always", begun, now), {}, "vital 60"],
  ["a job whose server goes", job, { isAway: true }, "vital 1"],
  ["a pod that has not begun when its server goes", pending, { isAway: true }, "vital 1"],
  ["an end that nobody knows", ended, {}, "must 1"],
  ["an end that the server knows", ended, { isTold: true }, "never"],
  ["that end, where the disk says that it runs", ended, { isTold: true, isKept: true }, "must 1"],
  ["an end that is told while the server is away", ended, { isAway: true }, "must 1"],
  ["a change of what is kept", service, { isKept: true }, "vital 1"],
  ["another restart of what is kept", service, { isKept: true, isVital: false }, "spare 1"],
  ["the deletion of what is kept", podOf("Always", begun, now), { isKept: true }, "must 1"],
  ["its way through that", podOf("Always", begun, now), { isKept: true, isVital: false }, "spare 1"],
])("%s", (_, pod, moment, expected) => {
  const timing = timingOf(pod, { isKept: false, isVital: true, isAway: false, isTold: false, ...moment });
  expect(timing ? `${timing.urgency} ${timing.withinMs / 1000}` : "never").toBe(expected);
});
