import { expect, test } from "vitest";
import type { ContainerStatus, Pod } from "#model/gen/core-v1.ts";
import { logRefusal } from "./log-refusal.ts";

const pod = (status: Partial<ContainerStatus> | undefined): Pod =>
  ({
    metadata: { name: "p", namespace: "default" },
    spec: { containers: [] },
    status: { containerStatuses: status ? [{ name: "c", ...status }] : [] },
  }) as unknown as Pod;
const ended = { terminated: { exitCode: 1, containerID: "containerd://1" } };

test.each<[string, Partial<ContainerStatus> | undefined, boolean, string | undefined]>([
  ["no status", undefined, false, 'container "c" in pod "p" is not available'],
  [
    "creating",
    { state: { waiting: { reason: "ContainerCreating" } } },
    false,
    'container "c" in pod "p" is waiting to start: ContainerCreating',
  ],
  [
    "pulling failed",
    { state: { waiting: { reason: "ErrImagePull" } } },
    false,
    'container "c" in pod "p" is waiting to start: image can\'t be pulled',
  ],
  [
    "back-off",
    { state: { waiting: { reason: "ImagePullBackOff" } } },
    false,
    'container "c" in pod "p" is waiting to start: trying and failing to pull image',
  ],
  ["running", { state: { running: {} } }, false, undefined],
  ["ended", { state: ended }, false, undefined],
  [
    "ended without a container",
    { state: { terminated: { exitCode: 1 } } },
    false,
    'container "c" in pod "p" is terminated',
  ],
  ["between restarts", { state: { waiting: { reason: "CrashLoopBackOff" } }, lastState: ended }, false, undefined],
  [
    "previous, never restarted",
    { state: { running: {} } },
    true,
    'previous terminated container "c" in pod "p" not found',
  ],
  ["previous", { state: { running: {} }, lastState: ended }, true, undefined],
])("%s", (_name, status, isPrevious, refusal) => {
  expect(logRefusal(pod(status), "c", isPrevious)).toBe(refusal);
});
