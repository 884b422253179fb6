import { expect, test } from "vitest";
import type { Pod, PodStatus } from "#model/gen/core-v1.ts";
import { isAhead, keptPod, pathsOf, vitalFacts } from "./kept-pod.ts";

const running = { running: { startedAt: "2026-01-01T00:00:00Z" } };
const terminated = { terminated: { exitCode: 0, finishedAt: "2026-01-01T00:00:00Z" } };
const waiting = { waiting: { reason: "CrashLoopBackOff", message: "back-off 10s" } };
const main = (state: object, restartCount = 0, more: object = {}) => ({
  ...{ name: "main", state, restartCount, ready: true, image: "i", imageID: "id", ...more },
});
const status = (phase: string, ...containerStatuses: object[]) => ({ phase, containerStatuses }) as PodStatus;
const pod = (more: Partial<PodStatus> = {}, spec: object = {}): Pod =>
  ({
    metadata: { name: "p", namespace: "ns", uid: "u", resourceVersion: "7", managedFields: [{ manager: "m" }] },
    spec: { containers: [{ name: "main" }], ...spec },
    status: { phase: "Running", podIP: "10.42.0.2", conditions: [{ type: "Ready", status: "True" }], ...more },
  }) as unknown as Pod;

test("of a pod its spec stays, and of its status how far it has come", () => {
  const kept = keptPod(pod({ containerStatuses: [main(waiting, 3, { lastState: terminated })] as never }));
  expect(kept.metadata).toEqual({ name: "p", namespace: "ns", uid: "u" });
  expect(kept.spec).toEqual({ containers: [{ name: "main" }] });
  expect(kept.status).toEqual({
    phase: "Running",
    containerStatuses: [
      {
        ...{ name: "main", state: { waiting: {} }, lastState: terminated, restartCount: 3 },
        ...{ image: "i", imageID: "id", ready: false },
      },
    ],
  });
});

test.each<[string, Pod, Pod, boolean]>([
  ["a restart", pod(status("Running", main(running, 3))), pod(status("Running", main(running, 4))), false],
  ["a pause", pod(status("Running", main(terminated, 3))), pod(status("Running", main(waiting, 3))), false],
  ["a first start", pod(status("Pending", main(waiting))), pod(status("Pending", main(running))), true],
  ["a phase", pod(status("Running", main(terminated))), pod(status("Succeeded", main(terminated))), true],
  [
    "an end of what runs once",
    pod(status("Running", main(running)), { restartPolicy: "OnFailure" }),
    pod(status("Running", main(terminated)), { restartPolicy: "OnFailure" }),
    true,
  ],
  ["another image", pod(), pod({}, { containers: [{ name: "main", image: "other" }] }), true],
])("%s: vital %#", (_, before, after, isVital) => {
  const always = (of: Pod): Pod => ({ ...of, spec: { restartPolicy: "Always", ...of.spec } });
  expect(vitalFacts(always(before)) !== vitalFacts(always(after))).toBe(isVital);
});

test.each<[string, PodStatus, PodStatus | undefined, boolean]>([
  ["the API has nothing", status("Pending"), undefined, true],
  ["the same", status("Running", main(running)), status("Running", main(running)), false],
  ["it ended here", status("Succeeded", main(terminated)), status("Running", main(running)), true],
  ["it was given up there", status("Succeeded", main(terminated)), status("Failed"), false],
  ["more restarts here", status("Running", main(running, 2)), status("Running", main(running, 1)), true],
  ["more restarts there", status("Running", main(running, 1)), status("Running", main(running, 2)), false],
  ["it began here", status("Running", main(running)), status("Pending"), true],
])("ahead of the API: %s", (_, kept, known, expected) => {
  expect(isAhead(kept, known)).toBe(expected);
});

test("all that a pod is made of has a path", () => {
  const spec = {
    runtimeClassName: "kata",
    imagePullSecrets: [{ name: "pull" }],
    volumes: [
      { name: "a", configMap: { name: "map-a" } },
      { name: "b", secret: { secretName: "secret-b" } },
      { name: "c", projected: { sources: [{ configMap: { name: "map-c" } }, { secret: { name: "secret-c" } }] } },
      { name: "d", persistentVolumeClaim: { claimName: "claim-d" } },
      { name: "e", ephemeral: {} },
      { name: "f", csi: { driver: "x", nodePublishSecretRef: { name: "secret-f" } } },
    ],
    initContainers: [
      { name: "i", envFrom: [{ configMapRef: { name: "map-i" } }, { secretRef: { name: "secret-i" } }] },
    ],
    containers: [
      {
        name: "main",
        env: [
          { name: "A", valueFrom: { configMapKeyRef: { name: "map-m", key: "k" } } },
          { name: "B", valueFrom: { secretKeyRef: { name: "secret-m", key: "k" } } },
          { name: "C", value: "plain" },
        ],
      },
    ],
  };
  const ns = "/api/v1/namespaces/ns";
  expect([...pathsOf(pod({}, spec))].sort()).toEqual(
    [
      "/api/v1/namespaces/default/services/kubernetes",
      "/apis/node.k8s.io/v1/runtimeclasses/kata",
      ...["a", "c", "i", "m"].map((name) => `${ns}/configmaps/map-${name}`),
      ...["claim-d", "p-e"].map((name) => `${ns}/persistentvolumeclaims/${name}`),
      ...["pull", "secret-b", "secret-c", "secret-f", "secret-i", "secret-m"].map((name) => `${ns}/secrets/${name}`),
      `${ns}/services`,
    ].sort(),
  );
});
