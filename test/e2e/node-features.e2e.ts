// What a node does beyond starting and stopping pods, against real containerd and a real kernel: ephemeral containers, local
// storage limits, numbers for scrapers, lost containers.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import type { RuntimeClass } from "#model/gen/node-v1.ts";
import * as resources from "#model/resources.ts";
import { parseConfiguration } from "#node/configuration.ts";
import { createCri } from "#node/cri.ts";
import { codec, registerPath } from "#node/hardware/plugin-protocol.ts";
import { parseList as parseProcessors } from "#node/hardware/topology.ts";
import { assetFolder } from "#platform/assets.ts";
import { systemClock } from "#platform/clock.ts";
import { findProcesses } from "#platform/daemons.ts";
import { createGrpcClient } from "#platform/grpc-client.ts";
import { type GrpcHandler, openGrpcServer } from "#platform/grpc-server.ts";
import { ociArchitecture } from "#platform/host.ts";
import { encodeFrame } from "#wire/grpc.ts";
import { image, TestNode } from "./node-fixture.ts";
import { openSmallRegistry } from "./small-registry.ts";

const node = new TestNode(21);
beforeAll(
  () => node.open({ configuration: parseConfiguration(["pod-max-pids=64", "system-reserved=memory=64Mi,cpu=100m"]) }),
  120_000,
);
afterAll(() => node.close(), 60_000);

const sleeper = (script = "sleep 1000"): Pod["spec"]["containers"][number] => ({
  name: "main",
  image,
  command: ["sh", "-c", `trap 'exit 0' TERM; ${script} & wait`],
});

test("an ephemeral container joins a running pod and sees the processes of its target", async () => {
  await node.run("debugged", { containers: [sleeper()] });
  await node.whenReady("debugged");
  const debug = { name: "debug", image, command: ["sh", "-c", "ps; sleep 1000"], targetContainerName: "main" };
  await node.client.patch(
    resources.pods,
    { name: "debugged", namespace: "default" },
    { spec: { ephemeralContainers: [debug] } },
    { subresource: "ephemeralcontainers", type: "application/strategic-merge-patch+json" },
  );
  await node.when("debugged", (pod) => pod.status?.ephemeralContainerStatuses?.[0]?.state?.running);
  expect(await node.exec("debugged", ["ps"], "debug")).toMatch(/1 root\s+sh -c trap/);
  expect((await node.get("debugged")).status?.containerStatuses?.[0]?.restartCount).toBe(0);
  await node.delete("debugged");
}, 60_000);

test("processes of a pod are bounded, and its downward API shows what the node gives", async () => {
  const containers = [
    {
      ...sleeper(),
      env: [{ name: "MEMORY", valueFrom: { resourceFieldRef: { resource: "limits.memory", divisor: "1Mi" } } }],
    },
  ];
  await node.run("bounded", { containers } as Partial<Pod["spec"]>);
  await node.whenReady("bounded");
  const pids = await node.exec("bounded", [
    "sh",
    "-c",
    "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo $i",
  ]);
  expect(pids).toMatch(/can't fork|Resource temporarily unavailable/);
  const allocatable = (await node.client.get(resources.nodes, "node-a")).status?.allocatable?.["memory"] ?? "";
  const shown = Number((await node.exec("bounded", ["sh", "-c", "echo $MEMORY"])).trim());
  expect(shown).toBe(Math.ceil(Number.parseInt(allocatable, 10) / 1024));
  await node.delete("bounded");
}, 60_000);

test("a pod that writes more than its emptyDir may hold is evicted, and says so", async () => {
  await node.run("greedy", {
    restartPolicy: "Never",
    volumes: [{ name: "v", emptyDir: { sizeLimit: "1Mi" } }],
    containers: [
      {
        ...sleeper("dd if=/dev/zero of=/v/file bs=1M count=5; sleep 1000"),
        volumeMounts: [{ name: "v", mountPath: "/v" }],
      },
    ],
  });
  const pod = await node.when("greedy", (p) => (p.status?.phase === "Failed" ? p : undefined), 100_000);
  expect(pod.status).toMatchObject({
    reason: "Evicted",
    message: 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
  });
  expect(pod.status?.conditions?.find((c) => c.type === "DisruptionTarget")).toMatchObject({
    status: "True",
    reason: "TerminationByKubelet",
  });
  expect(pod.status?.containerStatuses?.[0]?.state?.terminated).toBeDefined();
  await node.delete("greedy");
}, 120_000);

test("a pod that does not fit is refused and never started", async () => {
  const containers = [{ ...sleeper(), resources: { requests: { memory: "4000Gi" } } }];
  await node.run("huge", { containers } as Partial<Pod["spec"]>);
  const pod = await node.when("huge", (p) => (p.status?.phase === "Failed" ? p : undefined));
  expect(pod.status?.reason).toBe("OutOfmemory");
  await node.delete("huge");
  await node.run("sysctl", {
    containers: [sleeper()],
    securityContext: { sysctls: [{ name: "kernel.msgmax", value: "100" }] },
  });
  expect((await node.when("sysctl", (p) => (p.status?.phase === "Failed" ? p : undefined))).status?.reason).toBe(
    "SysctlForbidden",
  );
  await node.delete("sysctl");
}, 60_000);

test("use of CPU, memory, disk and network can be read", async () => {
  await node.run("busy", {
    containers: [sleeper("dd if=/dev/zero of=/file bs=1M count=3; while true; do :; done")],
  });
  await node.whenReady("busy");
  const summary = (await node.agent.stats()!.summary(false)) as {
    node: { cpu: { usageNanoCores: number }; memory: { workingSetBytes: number } };
    pods: {
      podRef: { name: string };
      containers: { cpu: { usageNanoCores: number }; memory: { workingSetBytes: number } }[];
      network: { name: string };
    }[];
  };
  const pod = summary.pods.find((p) => p.podRef.name === "busy")!;
  expect(pod.containers[0]!.cpu.usageNanoCores).toBeGreaterThan(10_000_000);
  expect(pod.containers[0]!.memory.workingSetBytes).toBeGreaterThan(0);
  expect(pod.network.name).toBe("eth0");
  expect(summary.node.memory.workingSetBytes).toBeGreaterThan(2 ** 20);
  expect(await node.agent.stats()!.resource()).toMatch(
    /pod_cpu_usage_seconds_total\{namespace="default",pod="busy"\} 0?[.\d]+/,
  );
  expect(await node.agent.stats()!.cadvisor()).toMatch(
    /container_network_receive_bytes_total\{.*pod="busy",interface="eth0"\} \d+/,
  );
  await node.delete("busy");
}, 60_000);

test("a pod that runs once is not run again when its containers are lost", async () => {
  await node.run("once", { restartPolicy: "Never", containers: [sleeper()] });
  await node.whenReady("once");
  await node.run("always", { containers: [sleeper()] });
  await node.whenReady("always");
  await node.stop();
  // As after a reboot whose runtime lost its records.
  const cri = createCri({ socketPath: `${node.containerd.state}/containerd.sock` });
  for (const sandbox of await cri.listSandboxes()) {
    await cri.stopSandbox(sandbox.id);
    await cri.removeSandbox(sandbox.id);
  }
  cri.close();
  await node.start();
  const once = await node.when("once", (p) => (p.status?.phase === "Failed" ? p : undefined));
  expect(once.status?.containerStatuses?.[0]?.state?.terminated).toMatchObject({
    exitCode: 137,
    reason: "ContainerStatusUnknown",
  });
  const always = await node.when("always", (p) =>
    p.status?.containerStatuses?.[0]?.state?.running && p.status.containerStatuses[0].restartCount === 1
      ? p
      : undefined,
  );
  expect(always.status?.containerStatuses?.[0]?.lastState?.terminated?.reason).toBe("ContainerStatusUnknown");
  expect(once.status?.containerStatuses?.[0]?.restartCount).toBe(0);
}, 60_000);

test("a pod from a file runs, is shown in the API, comes back when deleted there, and goes with its file", async () => {
  const path = `${node.folder}/manifests/web.yaml`;
  const manifest = (seconds: number) => `apiVersion: v1
kind: Pod
metadata: {name: fromfile}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "${image}", command: [sleep, "${seconds}"]}]
`;
  mkdirSync(`${node.folder}/manifests`, { recursive: true });
  writeFileSync(path, manifest(1001));
  await node.stop();
  await node.start({ staticPodFolder: `${node.folder}/manifests` });
  const name = "fromfile-node-a";
  const first = await node.whenReady(name);
  expect(first.metadata.annotations?.["kubernetes.io/config.mirror"]).toBe(
    first.metadata.annotations?.["kubernetes.io/config.hash"],
  );
  expect(first.metadata.ownerReferences?.[0]?.kind).toBe("Node");
  const containerId = first.status?.containerStatuses?.[0]?.containerID;

  await node.client.delete(resources.pods, { name, namespace: "default" }, { gracePeriodSeconds: 0 });
  const second = await node.when(name, (pod) =>
    pod.metadata.uid !== first.metadata.uid && pod.status?.phase === "Running" ? pod : undefined,
  );
  expect(second.status?.containerStatuses?.[0]?.containerID).toBe(containerId);

  writeFileSync(path, manifest(1002));
  await node.until("the changed pod", async () =>
    (await node.exec(name, ["ps"]).catch(() => "")).includes("sleep 1002"),
  );
  await node.when(name, (pod) => pod.spec.containers[0]?.command?.[1] === "1002" && pod.status?.phase === "Running");

  rmSync(path);
  await node.until("mirror gone", async () => {
    const all = (await node.client.list(resources.pods)).items;
    return all.every((pod) => pod.metadata.name !== name);
  });
  await node.until("pod gone", async () => node.agent.lookup.pods().every((pod) => pod.metadata.name !== name));
}, 90_000);

test("a runtime class that does not exist keeps a pod waiting; one that does runs it", async () => {
  await node.run("classy", { containers: [sleeper()], runtimeClassName: "plain" });
  await node.until("a refusal", async () =>
    (await node.client.list(resources.events)).items.some(
      (e) => e.involvedObject.name === "classy" && /RuntimeClass.*"plain" not found/.test(e.message ?? ""),
    ),
  );
  await node.client.create(resources.runtimeClasses, {
    apiVersion: "node.k8s.io/v1",
    kind: "RuntimeClass",
    metadata: { name: "plain" },
    handler: "runc",
  } as RuntimeClass);
  await node.whenReady("classy");
  await node.delete("classy");
}, 60_000);

test("when the machine goes down, pods end in order and say why", async () => {
  await node.stop();
  const times = ["shutdown-grace-period=6s", "shutdown-grace-period-critical-pods=3s"];
  await node.start({ configuration: parseConfiguration(times) }, { isMachineStopping: async () => true });
  await node.run("ordinary", { containers: [sleeper()] });
  await node.whenReady("ordinary");
  await node.stop();
  const pod = await node.get("ordinary");
  expect(pod.status).toMatchObject({ phase: "Failed", reason: "Terminated" });
  expect(pod.status?.containerStatuses?.[0]?.state?.terminated?.exitCode).toBe(0);
  const ready = (await node.client.get(resources.nodes, "node-a")).status?.conditions?.find((c) => c.type === "Ready");
  expect(ready).toMatchObject({ status: "False", message: "node is shutting down" });
  await node.start();
}, 60_000);

test("whole processors of a guaranteed pod are its own; others move away and come back", async () => {
  const twoOrMore = cpus().length >= 2;
  await node.stop();
  await node.start({ configuration: parseConfiguration(["cpu-manager-policy=static", "reserved-cpus=0"]) });
  await node.run("sharing", { containers: [sleeper()] });
  await node.whenReady("sharing");
  const allowed = async (name: string) => {
    const status = await node.exec(name, ["sh", "-c", "grep Cpus_allowed_list /proc/1/status"]);
    return status.split(":")[1]?.trim();
  };
  const before = await allowed("sharing");
  const resourceLimits = { limits: { cpu: "1", memory: "64Mi" }, requests: { cpu: "1", memory: "64Mi" } };
  await node.run("pinned", { containers: [{ ...sleeper(), resources: resourceLimits }] } as Partial<Pod["spec"]>);
  if (twoOrMore) {
    await node.whenReady("pinned");
    const own = await allowed("pinned");
    expect(own).toMatch(/^\d+$/);
    await node.until(
      "the other to move",
      async () => !parseProcessors((await allowed("sharing")) ?? "").has(Number(own)),
    );
    await node.delete("pinned");
    await node.until("the other to come back", async () => (await allowed("sharing")) === before);
  } else {
    await node.when("pinned", (pod) => pod.status?.phase === "Failed");
    await node.delete("pinned");
  }
  await node.delete("sharing");
}, 60_000);

test("a device plugin's device is given to one container, with its environment", async () => {
  const folder = `${node.folder}/kubelet/device-plugins`;
  const plugin = await openGrpcServer(
    { listen: { socketPath: `${folder}/test.sock` }, maxMessageBytes: 65536, log: node.log },
    new Map<string, GrpcHandler>([
      [
        "/v1beta1.DevicePlugin/ListAndWatch",
        {
          kind: "stream",
          async handle(stream) {
            stream.write(
              encodeFrame(codec.encode("ListAndWatchResponse", { devices: [{ ID: "d0", health: "Healthy" }] })),
            );
            await new Promise<void>((resolve) =>
              stream.signal.addEventListener("abort", () => resolve(), { once: true }),
            );
          },
        },
      ],
      [
        "/v1beta1.DevicePlugin/Allocate",
        {
          kind: "unary",
          handle: async () =>
            encodeFrame(
              codec.encode("AllocateResponse", {
                containerResponses: [
                  {
                    envs: { DEVICE: "d0" },
                    devices: [{ containerPath: "/dev/mine", hostPath: "/dev/null", permissions: "rw" }],
                  },
                ],
              }),
            ),
        },
      ],
    ]),
  );
  const client = createGrpcClient({ target: { socketPath: `${folder}/kubelet.sock` } });
  const request = { version: "v1beta1", endpoint: "test.sock", resourceName: "example.com/thing" };
  await client.unary(registerPath, codec.encode("RegisterRequest", request), { timeoutMs: 5000 });
  client.close();
  await node.until("the node to have it", async () => {
    const found = await node.client.get(resources.nodes, "node-a");
    return found.status?.allocatable?.["example.com/thing"] === "1";
  });
  const limits = { limits: { "example.com/thing": "1" }, requests: { "example.com/thing": "1" } };
  const containers = [{ ...sleeper(), resources: limits }];
  await node.run("withdevice", { containers } as Partial<Pod["spec"]>);
  await node.whenReady("withdevice");
  expect(await node.exec("withdevice", ["sh", "-c", "echo $DEVICE; ls -l /dev/mine"])).toMatch(
    /^d0\nc.*1, +3.*\/dev\/mine/,
  );
  await node.run("without", { containers } as Partial<Pod["spec"]>);
  const refused = await node.when("without", (pod) => (pod.status?.phase === "Failed" ? pod : undefined));
  expect(refused.status?.reason).toBe("OutOfexample.com/thing");
  await node.delete("without");
  await node.delete("withdevice");
  await plugin.close(100);
}, 60_000);

test("a container that takes more memory than its limit is killed, and says why", async () => {
  const limits = { limits: { memory: "20Mi" }, requests: { memory: "20Mi" } };
  const containers = [{ name: "main", image, command: ["tail", "-c", "100000000", "/dev/zero"], resources: limits }];
  await node.run("hungry", { restartPolicy: "Never", containers } as Partial<Pod["spec"]>);
  const pod = await node.when("hungry", (p) => (p.status?.phase === "Failed" ? p : undefined));
  expect(pod.status?.containerStatuses?.[0]?.state?.terminated).toMatchObject({ reason: "OOMKilled", exitCode: 137 });
  await node.delete("hungry");
}, 60_000);

test("short of memory: the node says so, refuses what asks for nothing, and evicts", async () => {
  await node.stop();
  await node.start({ configuration: parseConfiguration(["eviction-hard=memory.available<1000Ti"]) });
  await node.until("pressure", async () =>
    (await node.client.get(resources.nodes, "node-a")).status?.conditions?.some(
      (c) => c.type === "MemoryPressure" && c.status === "True" && c.reason === "KubeletHasInsufficientMemory",
    ),
  );
  await node.run("nothing-asked", { containers: [sleeper()] });
  const refused = await node.when("nothing-asked", (p) => (p.status?.phase === "Failed" ? p : undefined));
  expect(refused.status).toMatchObject({ reason: "Evicted", message: expect.stringContaining("[MemoryPressure]") });
  const asking = { requests: { cpu: "1m" } };
  await node.run("asked", { containers: [{ ...sleeper(), resources: asking }] } as Partial<Pod["spec"]>);
  const evicted = await node.when("asked", (p) => (p.status?.phase === "Failed" ? p : undefined));
  expect(evicted.status).toMatchObject({
    reason: "Evicted",
    message: expect.stringMatching(
      /^The node was low on resource: memory\. Threshold quantity: \S+, available: \S+\. /,
    ),
  });
  await node.stop();
  await node.start();
}, 60_000);

test("what others write into a pod's status is put right, and nothing is written without need", async () => {
  await node.run("steady", { containers: [sleeper()] });
  await node.whenReady("steady");
  const target = { name: "steady", namespace: "default" };
  await node.client.patch(
    resources.pods,
    target,
    { status: { conditions: [{ type: "Ready", status: "False", reason: "NodeNotReady" }] } },
    { subresource: "status", type: "application/strategic-merge-patch+json" },
  );
  const pod = await node.when("steady", (p) =>
    p.status?.conditions?.find((c) => c.type === "Ready")?.status === "True" ? p : undefined,
  );
  expect(pod.status?.conditions?.find((c) => c.type === "Ready")?.reason).toBeUndefined();
  const labelled = await node.client.patch(resources.pods, target, { metadata: { labels: { new: "one" } } });
  await systemClock.sleep(1500);
  expect((await node.get("steady")).metadata.resourceVersion).toBe(labelled.metadata.resourceVersion);
  await node.delete("steady");
}, 60_000);

test("a label that the node got a moment ago counts for the pod that asks for it", async () => {
  await node.client.patch(resources.nodes, { name: node.nodeName }, { metadata: { labels: { fresh: "yes" } } });
  await node.run("choosy", { nodeSelector: { fresh: "yes" }, containers: [sleeper()] });
  await node.whenReady("choosy");
  await node.delete("choosy");
  // The control: a label that it does not have.
  await node.run("wrong", { nodeSelector: { fresh: "no" }, containers: [sleeper()] });
  const pod = await node.when("wrong", (p) => (p.status?.phase === "Failed" ? p : undefined));
  expect(pod.status?.reason).toBe("NodeAffinity");
  await node.delete("wrong");
}, 60_000);

test("a pod that somebody else has counted as ended is taken down, and stays ended", async () => {
  await node.run("condemned", { containers: [sleeper()] });
  await node.whenReady("condemned");
  await node.client.patch(
    resources.pods,
    { name: "condemned", namespace: "default" },
    { status: { phase: "Failed", reason: "Elsewhere" } },
    { subresource: "status", type: "application/merge-patch+json" },
  );
  const pod = await node.when("condemned", (p) =>
    p.status?.containerStatuses?.[0]?.state?.terminated ? p : undefined,
  );
  expect(pod.status).toMatchObject({ phase: "Failed", reason: "Elsewhere" });
  await systemClock.sleep(1500);
  expect((await node.get("condemned")).status?.phase).toBe("Failed");
  await node.delete("condemned");
}, 60_000);

test("an image comes through a mirror that asks for a password; unused, it goes again, and the system's stay", async () => {
  const archive = `${assetFolder()}/images/busybox-${ociArchitecture()}.tar`;
  const registry = await openSmallRegistry(archive, "me", "secret");
  const server = `127.0.0.1:${registry.port}`;
  const registriesFile = `${node.folder}/registries.yaml`;
  const mirror = `mirrors: {"far.example.com": {endpoint: ["http://${server}"]}}\n`;
  writeFileSync(registriesFile, `${mirror}configs: {"${server}": {auth: {username: me, password: secret}}}\n`);
  await node.stop();
  await node.start({ registriesFile });
  const containers = [{ ...sleeper(), image: "far.example.com/tools/box:1" }];
  await node.run("pulled", { containers } as Partial<Pod["spec"]>);
  await node.whenReady("pulled");
  expect(registry.served.some((path) => path.startsWith("/v2/tools/box/manifests/"))).toBe(true);
  // Nobody is let in without it.
  expect(registry.refused()).toBeGreaterThan(0);
  await node.delete("pulled");

  await node.stop();
  await registry.close();
  // The disk is always too full for this node.
  await node.start({ configuration: parseConfiguration(["eviction-hard=imagefs.available<1000Ti"]) });
  const cri = createCri({ socketPath: `${node.containerd.state}/containerd.sock` });
  const tags = async () => (await cri.listImages()).flatMap((i) => [...i.repoTags]);
  await node.until("the unused image to go", async () => !(await tags()).includes("far.example.com/tools/box:1"));
  expect(await tags()).toEqual(expect.arrayContaining(["mote.local/busybox:1", "mote.local/pause:1"]));
  cri.close();
  await node.stop();
  await node.start();
}, 90_000);

test("a hook that hangs keeps neither the agent nor its pod from ending", async () => {
  const lifecycle = { postStart: { exec: { command: ["sleep", "9123"] } } };
  const hangs = () =>
    node.until("the hook", async () => (await findProcesses(({ args }) => args[1] === "9123")).length > 0);
  await node.run("hooked", { containers: [{ ...sleeper(), lifecycle }] });
  await hangs();
  const startMs = systemClock.monotonicMs();
  await node.stop();
  expect(systemClock.monotonicMs() - startMs).toBeLessThan(10_000);
  await node.start();
  await node.whenReady("hooked");
  await node.delete("hooked");
  await node.run("hooked", { containers: [{ ...sleeper(), lifecycle }] });
  await hangs();
  await node.delete("hooked");
}, 90_000);
