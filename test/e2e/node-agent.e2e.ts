// The node agent against real containerd, with the real API server over a datastore in memory: a pod runs, is probed,
// restarts, outlives the agent, is taken over, and leaves nothing behind. Needs root, containerd, runc and CNI plugins.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { loopback } from "#apiserver/authn/user.ts";
import { columnsFor } from "#apiserver/printers/tables.ts";
import { createStrategies } from "#apiserver/registry/strategies.ts";
import { type ApiServer, createApiServer } from "#apiserver/server.ts";
import { createLogger, formatLine } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { ConfigMap, Namespace, Pod, Secret } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { createPodNetwork, removePodNetwork } from "#network/pod-network.ts";
import { createNodeAgent, type NodeAgent } from "#node/agent.ts";
import { stopAllPods } from "#node/containerd.ts";
import { createCri } from "#node/cri.ts";
import { ensureImages } from "#node/shipped-images.ts";
import { assetFolder } from "#platform/assets.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { ociArchitecture } from "#platform/host.ts";
import { systemCommands as commands } from "#platform/processes.ts";
import { systemRandom as random } from "#platform/random.ts";

const folder = mkdtempSync("/tmp/mote-node-");
const log = createLogger(
  (level, message, fields) => process.stderr.write(`${formatLine(Date.now(), level, message, fields)}\n`),
  "info",
);
const image = "mote.local/busybox:1";
const podCidr = "10.199.7.0/24";
const network = { podCidr, mtu: 1500, cniConfDir: `${folder}/cni`, bridge: "motetest0", ipamDir: `${folder}/ipam` };
const containerd = {
  root: `${folder}/containerd`,
  state: `${folder}/run`,
  configDir: `${folder}/etc`,
  cniBinDir: "/usr/lib/cni",
  cniConfDir: network.cniConfDir,
  pauseImage: "mote.local/pause:1",
};

let backend: Backend;
let server: ApiServer;
let client: Client;
const running: { abort: AbortController; done: Promise<void>; agent: NodeAgent }[] = [];
const background = new AbortController();
const backgroundTasks: Promise<void>[] = [];

async function startAgent(): Promise<NodeAgent> {
  const abort = new AbortController();
  const events = new EventRecorder({ component: "kubelet", host: "node-a" }, { client, clock, random, log });
  const agent = createNodeAgent(
    {
      nodeName: "node-a",
      nodeIp: "127.0.0.1",
      dataFolder: `${folder}/agent`,
      kubeletFolder: `${folder}/kubelet`,
      podLogFolder: `${folder}/logs`,
      podCidr,
      clusterDns: "10.43.0.10",
      clusterDomain: "cluster.local",
      containerd,
      version: "v1.32.3+mote0",
    },
    {
      client,
      ...{ clock, random, log, metrics: new Metrics(), commands, events },
      ensureImages: (containerdSocket) =>
        ensureImages(
          { containerdSocket, folder: `${assetFolder()}/images`, architecture: ociArchitecture() },
          { commands, log },
        ),
    },
  );
  const eventsDone = events.run(abort.signal, () => {});
  let ready = () => {};
  const isReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  const done = agent.run(abort.signal, ready).then(() => eventsDone);
  running.push({ abort, done, agent });
  await Promise.race([isReady, done]);
  return agent;
}

async function stopAgent(): Promise<void> {
  const last = running.pop();
  last?.abort.abort(new Error("test ends the agent"));
  await last?.done;
}

beforeAll(async () => {
  backend = await openDatastore({ endpoint: "memory://" }, { clock, log });
  server = createApiServer(
    { freezeShared: true },
    {
      backend,
      clock,
      random,
      log,
      metrics: new Metrics(),
      authenticators: [],
      authorizer: { authorize: () => ({ verdict: "no-opinion", reason: "" }) },
      strategies: createStrategies({ clock, random }),
      admission: [],
      columnsFor,
    },
  );
  client = new Client(server.transport(loopback));
  for (const name of ["default", "kube-node-lease"]) {
    await client.create(resources.namespaces, { metadata: { name } } as Namespace);
  }
  let ready = () => {};
  const isReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  backgroundTasks.push(createPodNetwork(network, { commands, log }).run(background.signal, ready));
  await isReady;
  await startAgent();
}, 120_000);

afterAll(async () => {
  while (running.length > 0) await stopAgent();
  await stopAllPods({ ...containerd, podsDir: `${folder}/agent/pods`, graceSeconds: 1 }, { clock, log, commands });
  background.abort(new Error("end"));
  await Promise.allSettled(backgroundTasks);
  await removePodNetwork(network, { commands, log });
  await backend?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

const get = (name: string) => client.get(resources.pods, name, "default");

async function until<T>(what: string, ask: () => Promise<T | undefined | false>, timeoutMs = 30_000): Promise<T> {
  const endMs = clock.monotonicMs() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    if (clock.monotonicMs() > endMs) {
      // What the pods looked like explains most failures.
      for (const pod of (await client.list(resources.pods)).items)
        log.error("pod", { pod: pod.metadata.name, status: pod.status });
      for (const event of (await client.list(resources.events)).items.slice(-20))
        log.error("event", { about: event.involvedObject.name, reason: event.reason, message: event.message });
    }
    if (clock.monotonicMs() > endMs) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last });
    await clock.sleep(100);
  }
}

const runPod = (name: string, spec: Partial<Pod["spec"]>) =>
  client.create(resources.pods, {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "default", labels: { app: name } },
    spec: { nodeName: "node-a", automountServiceAccountToken: false, terminationGracePeriodSeconds: 2, ...spec },
  } as Pod);

const isReady = async (name: string) => {
  const pod = await get(name);
  return pod.status?.conditions?.some((c) => c.type === "Ready" && c.status === "True") ? pod : undefined;
};
const isGone = async (name: string) => {
  try {
    await get(name);
    return false;
  } catch (error) {
    return isNotFound(error);
  }
};
const exec = async (name: string, command: string[]) => {
  const agent = running.at(-1)!.agent;
  const container = agent.lookup.container("default", name)!;
  const result = await agent.lookup.runtime.execSync(container.containerId, command, 10);
  return Buffer.from(result.stdout).toString("utf8") + Buffer.from(result.stderr).toString("utf8");
};

test("the node registers and is ready", async () => {
  const node = await until("node ready", async () => {
    const found = await client.get(resources.nodes, "node-a");
    return found.status?.conditions?.some((c) => c.type === "Ready" && c.status === "True") ? found : undefined;
  });
  expect(node.status?.nodeInfo?.containerRuntimeVersion).toMatch(/^containerd:\/\//);
  expect(node.spec.podCIDR).toBe(podCidr);
  await until("lease", () => client.get(resources.leases, "node-a", "kube-node-lease"));
});

test("a pod with volumes, environment and probes runs", async () => {
  await client.create(resources.configMaps, {
    metadata: { name: "settings", namespace: "default" },
    data: { colour: "blue" },
  } as ConfigMap);
  await client.create(resources.secrets, {
    metadata: { name: "keys", namespace: "default" },
    data: { key: Buffer.from("secret").toString("base64") },
  } as Secret);
  await runPod("web", {
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
  const pod = await until("web ready", () => isReady("web"));
  expect(pod.status?.phase).toBe("Running");
  expect(pod.status?.podIP).toMatch(/^10\.199\.7\./);
  expect(pod.status?.qosClass).toBe("Burstable");
  expect(await exec("web", ["cat", "/settings/colour", "/keys/key"])).toBe("bluesecret");
  expect(await exec("web", ["cat", "/info/labels"])).toBe('app="web"');
  expect(await exec("web", ["sh", "-c", "echo $BOTH"])).toBe(`blue-${pod.status?.podIP}\n`);
  expect(await exec("web", ["cat", "/etc/hosts"])).toContain(`${pod.status?.podIP}\tweb`);
  expect(await exec("web", ["cat", "/etc/resolv.conf"])).toContain("default.svc.cluster.local");
  const logPath = running.at(-1)!.agent.lookup.container("default", "web")?.logPath();
  expect(readFileSync(logPath!, "utf8")).toContain("started");
}, 60_000);

test("the agent ends and another takes the pod over without a restart", async () => {
  const before = await get("web");
  await stopAgent();
  await startAgent();
  await clock.sleep(2_000);
  const after = await until("ready", () => isReady("web"));
  expect(after.status?.containerStatuses?.[0]?.containerID).toBe(before.status?.containerStatuses?.[0]?.containerID);
  expect(after.status?.containerStatuses?.[0]?.restartCount).toBe(0);
}, 60_000);

test("a failed liveness probe restarts the container", async () => {
  await exec("web", ["touch", "/scratch/broken"]);
  const pod = await until("restarted", async () => {
    const found = await get("web");
    return (found.status?.containerStatuses?.[0]?.restartCount ?? 0) > 0 ? found : undefined;
  });
  expect(pod.status?.containerStatuses?.[0]?.lastState?.terminated).toBeDefined();
}, 60_000);

test("deletion ends the pod within its grace and leaves nothing", async () => {
  await client.delete(resources.pods, { name: "web", namespace: "default" });
  await until("web gone", () => isGone("web"));
  const cri = createCri({ socketPath: `${containerd.state}/containerd.sock` });
  try {
    expect(await cri.listSandboxes()).toEqual([]);
    expect(await cri.listContainers()).toEqual([]);
  } finally {
    cri.close();
  }
}, 60_000);

test("init containers run in order and a pod that ends succeeds", async () => {
  await runPod("job", {
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
  const pod = await until("job done", async () => {
    const found = await get("job");
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
  await runPod("crash", { containers: [{ name: "main", image, command: ["sh", "-c", "exit 3"] }] });
  const pod = await until("crash loop", async () => {
    const found = await get("crash");
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
  await runPod("hooks", {
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
  const pod = await until("hooks ready", () => isReady("hooks"));
  expect(pod.status?.podIP).toBe("127.0.0.1");
  expect(pod.status?.initContainerStatuses?.[0]).toMatchObject({ ready: true, started: true });
  expect(await exec("hooks", ["cat", "/sub/after-start"])).toBe("hello\n");
  const startedMs = clock.monotonicMs();
  await client.delete(resources.pods, { name: "hooks", namespace: "default" });
  await until("hooks gone", () => isGone("hooks"));
  expect(clock.monotonicMs() - startedMs).toBeLessThan(9_000);
}, 60_000);

test("a container that must not be root says why it does not start", async () => {
  await runPod("root", {
    securityContext: { runAsNonRoot: true },
    containers: [{ name: "main", image, command: ["id", "-u"] }],
  });
  const waiting = await until("refused", async () => {
    const found = (await get("root")).status?.containerStatuses?.[0]?.state?.waiting;
    return found?.reason === "CreateContainerConfigError" ? found : undefined;
  });
  expect(waiting.message).toContain("container has runAsNonRoot and image will run as root");
  await client.delete(resources.pods, { name: "root", namespace: "default" }, { gracePeriodSeconds: 0 });
}, 60_000);

test("a pod outlives containerd, which comes back by itself", async () => {
  await runPod("steady", { containers: [{ name: "main", image, command: ["sleep", "3600"] }] });
  const before = await until("steady ready", () => isReady("steady"));
  process.kill(Number(readFileSync(`${containerd.state}/containerd.pid`, "utf8")), "SIGKILL");
  await clock.sleep(500);
  await until("containerd answers", async () => (await exec("steady", ["echo", "here"])) === "here\n");
  const after = await get("steady");
  expect(after.status?.containerStatuses?.[0]?.containerID).toBe(before.status?.containerStatuses?.[0]?.containerID);
  expect(after.status?.containerStatuses?.[0]?.restartCount).toBe(0);
}, 60_000);

test("a second delete with less patience hastens the end", async () => {
  await runPod("stubborn", {
    terminationGracePeriodSeconds: 60,
    containers: [{ name: "main", image, command: ["sh", "-c", "trap '' TERM; while true; do sleep 1; done"] }],
  });
  await until("stubborn ready", () => isReady("stubborn"));
  const startedMs = clock.monotonicMs();
  await client.delete(resources.pods, { name: "stubborn", namespace: "default" });
  await clock.sleep(1_500);
  expect(await isGone("stubborn")).toBe(false);
  await client.delete(resources.pods, { name: "stubborn", namespace: "default" }, { gracePeriodSeconds: 1 });
  await until("stubborn gone", () => isGone("stubborn"));
  expect(clock.monotonicMs() - startedMs).toBeLessThan(15_000);
}, 60_000);

test("an image that cannot be pulled is an answer, not a hang", async () => {
  await runPod("missing", { containers: [{ name: "main", image: "mote.local/missing:1", imagePullPolicy: "Never" }] });
  await until("ErrImageNeverPull", async () => {
    const found = await get("missing");
    return found.status?.containerStatuses?.[0]?.state?.waiting?.reason === "ErrImageNeverPull";
  });
}, 60_000);

test("a pod that left the API while nobody looked is ended", async () => {
  await stopAgent();
  for (const name of ["crash", "missing", "job", "steady"]) {
    await client.delete(resources.pods, { name, namespace: "default" }, { gracePeriodSeconds: 0 });
  }
  await startAgent();
  const cri = createCri({ socketPath: `${containerd.state}/containerd.sock` });
  try {
    await until("orphans gone", async () => (await cri.listSandboxes()).length === 0);
  } finally {
    cri.close();
  }
}, 60_000);

test("taking down works although containerd has died, and leaves no process or mount", async () => {
  await runPod("last", { containers: [{ name: "main", image, command: ["sleep", "3600"] }] });
  await until("last ready", () => isReady("last"));
  await stopAgent();
  process.kill(Number(readFileSync(`${containerd.state}/containerd.pid`, "utf8")), "SIGKILL");
  await stopAllPods({ ...containerd, podsDir: `${folder}/agent/pods`, graceSeconds: 1 }, { clock, log, commands });
  expect(readFileSync("/proc/self/mounts", "utf8")).not.toContain(folder);
  const processes = (await commands.run("ps", ["-eo", "args"])).stdout.split("\n");
  expect(processes.filter((line) => line.includes(folder))).toEqual([]);
}, 60_000);
