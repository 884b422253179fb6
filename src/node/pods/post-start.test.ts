// A postStart hook may take minutes. The container is there all the while, for kubectl exec, attach, logs and port-forward.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import * as wire from "#wire/gen/cri.ts";
import type { Cri } from "../cri.ts";
import { createPodLookup } from "../pod-lookup.ts";
import { labels, RuntimeCache } from "../runtime-cache.ts";
import { startContainer } from "./apply.ts";
import { type PodContext, Slots } from "./context.ts";
import { createPullBackOff } from "./images.ts";
import type { PodWorker } from "./worker.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-post-start-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each([
  ["is found while its postStart runs", false, "running"],
  // The start itself went well: the next list finds it.
  ["starts all the same when the runtime does not answer", true, undefined],
])("a container %s", async (_, isSilent, found) => {
  const clock = new FakeClock();
  const container = {
    ...{ name: "main", image: "r.io/app:1", imagePullPolicy: "Never" },
    lifecycle: { postStart: { exec: { command: ["sleep", "60"] } } },
  } as unknown as Container;
  const pod = {
    metadata: { uid: "u", name: "p", namespace: "ns" },
    spec: { containers: [container] },
  } as unknown as Pod;
  const of = { [labels.podUid]: "u", [labels.podName]: "p", [labels.podNamespace]: "ns" };
  let isStarted = false;
  let duringHook: string | undefined;
  const cri = {
    imageStatus: async () => ({ id: "sha256:1", size: 1, repoTags: [], repoDigests: [], username: "" }),
    createContainer: async () => "c1",
    async startContainer() {
      isStarted = true;
    },
    async listSandboxes() {
      if (isSilent) throw new Error("no answer");
      return [{ id: "s1", labels: of, state: wire.PodSandboxState.SANDBOX_READY, createdAt: 1 }];
    },
    sandboxStatus: async () => ({ id: "s1", state: wire.PodSandboxState.SANDBOX_READY }),
    listContainers: async () => [
      {
        ...{ id: "c1", podSandboxId: "s1", annotations: {}, metadata: { name: "main", attempt: 0 } },
        labels: { ...of, [labels.containerName]: "main" },
        state: isStarted ? wire.ContainerState.CONTAINER_RUNNING : wire.ContainerState.CONTAINER_CREATED,
      },
    ],
    containerStatus: async () => ({ id: "c1", state: wire.ContainerState.CONTAINER_RUNNING, logPath: "/log" }),
    async execSync() {
      duringHook = lookup.container("ns", "p", "main")?.state;
      return { stdout: new Uint8Array(), stderr: new Uint8Array(), exitCode: 0 };
    },
  } as unknown as Cri;
  const runtime = new RuntimeCache({ cri, clock, log: silentLogger, oomKills: () => undefined });
  const lookup = createPodLookup(cri, runtime, new Map([["u", { uid: "u", pod } as unknown as PodWorker]]));
  const context = {
    ...{
      cri,
      clock,
      runtime,
      log: silentLogger,
      nodeName: "n",
      nodeIp: "10.0.0.1",
      nodeIps: ["10.0.0.1"],
      podLogFolder: folder,
    },
    ...{ clusterDns: ["10.43.0.10"], clusterDomain: "cluster.local", machineMemoryBytes: 2 ** 30, hugePageSizes: [] },
    capacity: { milliCpu: 1000, memoryBytes: 2 ** 30, ephemeralBytes: 2 ** 30 },
    hostDns: async () => ({ servers: [], searches: [], options: [] }),
    credentials: async () => [],
    volumes: { podFolder: () => folder },
    objects: { services: async () => [], forget: () => {} },
    events: { record: () => {} },
    ...{ slots: new Slots(1), pullSlots: new Slots(1) },
    hardware: { extras: async () => ({ cpusetCpus: "", cpusetMems: "", allocations: [] }) },
  } as unknown as PodContext;
  const sandbox = { id: "s1", attempt: 0, ready: true, createdAtMs: 1, ips: ["10.42.0.2"] };
  const failure = await startContainer({
    ...{ context, pod, volumes: new Map(), pullBackOff: createPullBackOff(), signal: new AbortController().signal },
    observed: { uid: "u", name: "p", namespace: "ns", sandboxes: [sandbox], containers: [] },
    action: { kind: "start", container, attempt: 0 } as never,
  });
  expect(failure).toBeUndefined();
  expect(duringHook).toBe(found);
});
