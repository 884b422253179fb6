// The node agent against real containerd, with the real API server over a datastore in memory: a pod runs, is probed,
// restarts, outlives the agent, is taken over, and leaves nothing behind. Needs root, containerd, runc and CNI plugins.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ConfigMap, Secret } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { stopAllPods } from "#node/containerd.ts";
import { createCri } from "#node/cri.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { systemCommands as commands } from "#platform/processes.ts";
import { image, TestNode } from "./node-fixture.ts";

const node = new TestNode(7);
const { folder, containerd, log } = node;
beforeAll(() => node.open(), 120_000);
afterAll(() => node.close(), 60_000);

test("the node registers and is ready", async () => {
  const registered = await node.until("node ready", async () => {
    const found = await node.client.get(resources.nodes, "node-a");
    return found.status?.conditions?.some((c) => c.type === "Ready" && c.status === "True") ? found : undefined;
  });
  expect(registered.status?.nodeInfo?.containerRuntimeVersion).toMatch(/^containerd:\/\//);
  expect(registered.spec.podCIDR).toBe("10.199.7.0/24");
  await node.until("lease", () => node.client.get(resources.leases, "node-a", "kube-node-lease"));
});

test("a pod with volumes, environment and probes runs", async () => {
  await node.client.create(resources.configMaps, {
    metadata: { name: "settings", namespace: "default" },
    data: { colour: "blue" },
  } as ConfigMap);
  await node.client.create(resources.secrets, {
    metadata: { name: "keys", namespace: "default" },
    data: { key: Buffer.from("secret").toString("base64") },
  } as Secret);
  await node.run("web", {
    volumes: [
      { name: "settings", configMap: { name: "settings" } },
      { name: "keys", secret: { secretName: "keys" } },
      { name: "scratch", emptyDir: {} },
      { name: "info", downwardAPI: { items: [{ path: "labels", fieldRef: { fieldPath: "metadata.labels" } }] } },
    ],
    containers: [
      {
        name: "main",
        image,
        command: ["sh", "-c", "echo started; httpd -p 8080 -h /tmp; exec sleep 3600"],
        env: [
          { name: "IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
          { name: "COLOUR", valueFrom: { configMapKeyRef: { name: "settings", key: "colour" } } },
          { name: "BOTH", value: "$(COLOUR)-$(IP)" },
        ],
        resources: { limits: { cpu: "200m", memory: "64Mi" }, requests: { cpu: "100m", memory: "32Mi" } },
        volumeMounts: [
          { name: "settings", mountPath: "/settings" },
          { name: "keys", mountPath: "/keys", readOnly: true },
          { name: "scratch", mountPath: "/scratch" },
          { name: "info", mountPath: "/info" },
        ],
        startupProbe: { exec: { command: ["true"] }, periodSeconds: 1 },
        readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
        livenessProbe: {
          exec: { command: ["test", "!", "-e", "/scratch/broken"] },
          periodSeconds: 1,
          failureThreshold: 1,
        },
      },
    ],
  });
  const pod = await node.whenReady("web");
  expect(pod.status?.phase).toBe("Running");
  expect(pod.status?.podIP).toMatch(/^10\.199\.7\./);
  expect(pod.status?.qosClass).toBe("Burstable");
  expect(await node.exec("web", ["cat", "/settings/colour", "/keys/key"])).toBe("bluesecret");
  expect(await node.exec("web", ["cat", "/info/labels"])).toBe('app="web"');
  expect(await node.exec("web", ["sh", "-c", "echo $BOTH"])).toBe(`blue-${pod.status?.podIP}\n`);
  expect(await node.exec("web", ["cat", "/etc/hosts"])).toContain(`${pod.status?.podIP}\tweb`);
  expect(await node.exec("web", ["cat", "/etc/resolv.conf"])).toContain("default.svc.cluster.local");
  const logPath = node.agent.lookup.container("default", "web")?.logPath();
  expect(readFileSync(logPath!, "utf8")).toContain("started");
}, 60_000);

test("the agent ends and another takes the pod over without a restart", async () => {
  const before = await node.get("web");
  await node.stop();
  await node.start();
  await clock.sleep(2_000);
  const after = await node.whenReady("web");
  expect(after.status?.containerStatuses?.[0]?.containerID).toBe(before.status?.containerStatuses?.[0]?.containerID);
  expect(after.status?.containerStatuses?.[0]?.restartCount).toBe(0);
}, 60_000);

test("a failed liveness probe restarts the container", async () => {
  await node.exec("web", ["touch", "/scratch/broken"]);
  const pod = await node.until("restarted", async () => {
    const found = await node.get("web");
    return (found.status?.containerStatuses?.[0]?.restartCount ?? 0) > 0 ? found : undefined;
  });
  expect(pod.status?.containerStatuses?.[0]?.lastState?.terminated).toBeDefined();
}, 60_000);

test("deletion ends the pod within its grace and leaves nothing", async () => {
  await node.client.delete(resources.pods, { name: "web", namespace: "default" });
  await node.until("web gone", () => node.isGone("web"));
  const cri = createCri({ socketPath: `${containerd.state}/containerd.sock` });
  try {
    expect(await cri.listSandboxes()).toEqual([]);
    expect(await cri.listContainers()).toEqual([]);
  } finally {
    cri.close();
  }
}, 60_000);

test("init containers run in order and a pod that ends succeeds", async () => {
  await node.run("job", {
    restartPolicy: "Never",
    volumes: [{ name: "out", emptyDir: { medium: "Memory" } }],
    initContainers: [
      {
        name: "one",
        image,
        command: ["sh", "-c", "echo one > /out/log"],
        volumeMounts: [{ name: "out", mountPath: "/out" }],
      },
      {
        name: "two",
        image,
        command: ["sh", "-c", "echo two >> /out/log"],
        volumeMounts: [{ name: "out", mountPath: "/out" }],
      },
    ],
    containers: [
      {
        name: "main",
        image,
        command: ["sh", "-c", "cat /out/log > /dev/termination-log"],
        volumeMounts: [{ name: "out", mountPath: "/out" }],
      },
    ],
  });
  const pod = await node.until("job done", async () => {
    const found = await node.get("job");
    return found.status?.phase === "Succeeded" ? found : undefined;
  });
  expect(pod.status?.containerStatuses?.[0]?.state?.terminated).toMatchObject({
    exitCode: 0,
    reason: "Completed",
    message: "one\ntwo\n",
  });
  expect(pod.status?.initContainerStatuses?.map((s) => s.state?.terminated?.reason)).toEqual([
    "Completed",
    "Completed",
  ]);
}, 60_000);

test("a failing container is restarted, then held back", async () => {
  await node.run("crash", { containers: [{ name: "main", image, command: ["sh", "-c", "exit 3"] }] });
  const pod = await node.until("crash loop", async () => {
    const found = await node.get("crash");
    return found.status?.containerStatuses?.[0]?.state?.waiting?.reason === "CrashLoopBackOff" ? found : undefined;
  });
  expect(pod.status?.phase).toBe("Running");
  expect(pod.status?.containerStatuses?.[0]?.restartCount).toBe(1);
  expect(pod.status?.containerStatuses?.[0]?.lastState?.terminated).toMatchObject({ exitCode: 3, reason: "Error" });
  expect(pod.status?.containerStatuses?.[0]?.state?.waiting?.message).toMatch(
    /^back-off 10s restarting failed container=main/,
  );
}, 60_000);

test("hooks, subPath, host network and a sidecar", async () => {
  await node.run("hooks", {
    hostNetwork: true,
    terminationGracePeriodSeconds: 10,
    volumes: [{ name: "scratch", emptyDir: {} }],
    initContainers: [
      {
        name: "side",
        image,
        restartPolicy: "Always",
        command: ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"],
        volumeMounts: [{ name: "scratch", mountPath: "/scratch" }],
      },
    ],
    containers: [
      {
        name: "main",
        image,
        command: ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"],
        lifecycle: {
          postStart: { exec: { command: ["sh", "-c", "echo hello > /sub/after-start"] } },
          preStop: { exec: { command: ["sh", "-c", "echo bye > /sub/before-stop"] } },
        },
        volumeMounts: [{ name: "scratch", mountPath: "/sub", subPath: "deep/er" }],
      },
    ],
  });
  const pod = await node.whenReady("hooks");
  expect(pod.status?.podIP).toBe("127.0.0.1");
  expect(pod.status?.initContainerStatuses?.[0]).toMatchObject({ ready: true, started: true });
  expect(await node.exec("hooks", ["cat", "/sub/after-start"])).toBe("hello\n");
  const startedMs = clock.monotonicMs();
  await node.client.delete(resources.pods, { name: "hooks", namespace: "default" });
  await node.until("hooks gone", () => node.isGone("hooks"));
  expect(clock.monotonicMs() - startedMs).toBeLessThan(9_000);
}, 60_000);

test("a container that must not be root says why it does not start", async () => {
  await node.run("root", {
    securityContext: { runAsNonRoot: true },
    containers: [{ name: "main", image, command: ["id", "-u"] }],
  });
  const waiting = await node.until("refused", async () => {
    const found = (await node.get("root")).status?.containerStatuses?.[0]?.state?.waiting;
    return found?.reason === "CreateContainerConfigError" ? found : undefined;
  });
  expect(waiting.message).toContain("container has runAsNonRoot and image will run as root");
  await node.client.delete(resources.pods, { name: "root", namespace: "default" }, { gracePeriodSeconds: 0 });
}, 60_000);

test("a pod outlives containerd, which comes back by itself", async () => {
  await node.run("steady", { containers: [{ name: "main", image, command: ["sleep", "3600"] }] });
  const before = await node.whenReady("steady");
  process.kill(Number(readFileSync(`${containerd.state}/containerd.pid`, "utf8")), "SIGKILL");
  await clock.sleep(500);
  await node.until("containerd answers", async () => (await node.exec("steady", ["echo", "here"])) === "here\n");
  const after = await node.get("steady");
  expect(after.status?.containerStatuses?.[0]?.containerID).toBe(before.status?.containerStatuses?.[0]?.containerID);
  expect(after.status?.containerStatuses?.[0]?.restartCount).toBe(0);
}, 60_000);

test("a second delete with less patience hastens the end", async () => {
  await node.run("stubborn", {
    terminationGracePeriodSeconds: 60,
    containers: [{ name: "main", image, command: ["sh", "-c", "trap '' TERM; while true; do sleep 1; done"] }],
  });
  await node.whenReady("stubborn");
  const startedMs = clock.monotonicMs();
  await node.client.delete(resources.pods, { name: "stubborn", namespace: "default" });
  await clock.sleep(1_500);
  expect(await node.isGone("stubborn")).toBe(false);
  await node.client.delete(resources.pods, { name: "stubborn", namespace: "default" }, { gracePeriodSeconds: 1 });
  await node.until("stubborn gone", () => node.isGone("stubborn"));
  expect(clock.monotonicMs() - startedMs).toBeLessThan(15_000);
}, 60_000);

test("an image that cannot be pulled is an answer, not a hang", async () => {
  await node.run("missing", {
    containers: [{ name: "main", image: "mote.local/missing:1", imagePullPolicy: "Never" }],
  });
  await node.until("ErrImageNeverPull", async () => {
    const found = await node.get("missing");
    return found.status?.containerStatuses?.[0]?.state?.waiting?.reason === "ErrImageNeverPull";
  });
}, 60_000);

test("a pod that left the API while nobody looked is ended", async () => {
  await node.stop();
  for (const name of ["crash", "missing", "job", "steady"]) {
    await node.client.delete(resources.pods, { name, namespace: "default" }, { gracePeriodSeconds: 0 });
  }
  await node.start();
  const cri = createCri({ socketPath: `${containerd.state}/containerd.sock` });
  try {
    await node.until("orphans gone", async () => (await cri.listSandboxes()).length === 0);
  } finally {
    cri.close();
  }
}, 60_000);

test("taking down works although containerd has died, and leaves no process or mount", async () => {
  await node.run("last", { containers: [{ name: "main", image, command: ["sleep", "3600"] }] });
  await node.whenReady("last");
  await node.stop();
  process.kill(Number(readFileSync(`${containerd.state}/containerd.pid`, "utf8")), "SIGKILL");
  await stopAllPods({ ...containerd, podsDir: `${folder}/agent/pods`, graceSeconds: 1 }, { clock, log, commands });
  expect(readFileSync("/proc/self/mounts", "utf8")).not.toContain(folder);
  const processes = (await commands.run("ps", ["-eo", "args"])).stdout.split("\n");
  expect(processes.filter((line) => line.includes(folder))).toEqual([]);
}, 60_000);
