// Nodes that are not there, in real time and over the network: they register, keep their lease, and report pods that are
// bound to them as running. A container of image `exit-N` ends at once with that code. What kubectl shows of workloads
// comes true without a container runtime. The simulated clusters' kubelet is in test/harness/in-memory-cluster.ts.
import { rfc3339, rfc3339Micro } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import { WorkQueue } from "#client/workqueue.ts";
import type { Lease } from "#model/gen/coordination-v1.ts";
import type { ContainerStatus, Node, Pod, PodStatus } from "#model/gen/core-v1.ts";
import { keyOf } from "#model/object.ts";
import { leases, nodes, pods } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";

export interface FakeNode {
  readonly name: string;
  /** Second and third number of its pods' addresses: `42.0`. */
  readonly subnet: string;
  /** Kept free of pods that do not name it. */
  readonly isReserved?: boolean;
}

const clock = systemClock;
const renewMs = 10_000;

/** Runs until the signal; resolves `ready` when all nodes are there. */
export async function runFakeNodes(
  wanted: readonly FakeNode[],
  client: Client,
  signal: AbortSignal,
  ready: () => void,
): Promise<void> {
  const informers = new InformerFactory({}, { client, clock, random: systemRandom, log: silentLogger });
  const store = informers.informer(pods);
  const queue = new WorkQueue({ name: "fake-nodes" }, { clock });
  const byName = new Map(wanted.map((node) => [node.name, node]));
  const mark = (pod: Pod) => {
    if (byName.has(pod.spec.nodeName ?? "")) queue.add(keyOf(pod));
  };
  store.addHandler({ add: mark, update: mark });
  for (const node of wanted) await register(node, client);
  let last = 1;
  const work = async (key: string) => {
    const pod = store.get(key);
    const node = byName.get(pod?.spec.nodeName ?? "");
    if (!pod || !node) return;
    try {
      await step(pod, node, client, () => ++last);
    } catch (error) {
      // Whatever it is, a lost connection or a conflict: nodes go on.
      if (!isNotFound(error) && !signal.aborted) queue.retry(key);
    }
  };
  await Promise.all([
    informers.run(signal, ready),
    queue.run({ workers: 2 }, work, signal),
    ...wanted.map((node) => renew(node, client, signal)),
  ]);
}

const condition = (type: string, status: string, reason: string, message: string) => {
  const now = rfc3339(clock.now());
  return { type, status, reason, message, lastHeartbeatTime: now, lastTransitionTime: now };
};

async function register({ name, isReserved }: FakeNode, client: Client): Promise<void> {
  const resources = { cpu: "4", memory: "4Gi", pods: "110", "ephemeral-storage": "10Gi" };
  const labels = {
    "kubernetes.io/hostname": name,
    "kubernetes.io/os": "linux",
    "kubernetes.io/arch": "amd64",
  };
  const made = await client.create(nodes, {
    metadata: { name, labels },
    spec: isReserved ? { taints: [{ key: "reserved", value: "yes", effect: "NoSchedule" }] } : {},
  } as Node);
  const status = {
    capacity: resources,
    allocatable: resources,
    addresses: [
      { type: "InternalIP", address: `192.0.2.${name.at(-1)}` },
      { type: "Hostname", address: name },
    ],
    conditions: [
      condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
      condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ],
    nodeInfo: {
      ...{ machineID: "m", systemUUID: "s", bootID: "b", kernelVersion: "6.12.0", osImage: "Debian GNU/Linux 13" },
      ...{ containerRuntimeVersion: "containerd://1.7.24", kubeletVersion: "v1.32.3", kubeProxyVersion: "" },
      ...{ operatingSystem: "linux", architecture: "amd64" },
    },
  };
  await client.patch(nodes, { name: made.metadata.name! }, { status }, { subresource: "status" });
  const spec = { holderIdentity: name, leaseDurationSeconds: 40, renewTime: rfc3339Micro(clock.now()) };
  await client.create(leases, { metadata: { name, namespace: "kube-node-lease" }, spec } as Lease);
}

async function renew({ name }: FakeNode, client: Client, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await clock.sleep(renewMs, signal);
      const spec = { renewTime: rfc3339Micro(clock.now()) };
      await client.patch(leases, { name, namespace: "kube-node-lease" }, { spec });
    } catch {
      // Once more in ten seconds: a lease is good for forty.
    }
  }
}

async function step(pod: Pod, node: FakeNode, client: Client, nextAddress: () => number): Promise<void> {
  const { name = "", namespace = "" } = pod.metadata;
  if (pod.metadata.deletionTimestamp) {
    await client.delete(pods, { name, namespace }, { gracePeriodSeconds: 0 });
    return;
  }
  const status = pod.status ?? {};
  const debugging = pod.spec.ephemeralContainers ?? [];
  const isDebugged = debugging.length > (status.ephemeralContainerStatuses ?? []).length;
  if ((status.phase ?? "Pending") !== "Pending" && !isDebugged) return;
  const next = isDebugged
    ? { ...status, ephemeralContainerStatuses: debugging.map((one) => containerStatus(one.name, one.image ?? "")) }
    : startedStatus(pod, node, nextAddress);
  await client.updateStatus(pods, { ...pod, status: next });
}

function startedStatus(pod: Pod, node: FakeNode, nextAddress: () => number): PodStatus {
  const now = rfc3339(clock.now());
  const containers = pod.spec.containers.map((one) => containerStatus(one.name, one.image ?? ""));
  const codes = containers.map(({ state }) => state?.terminated?.exitCode);
  const isOver = codes.every((code) => code !== undefined);
  const isGood = codes.every((code) => code === 0);
  const ready = containers.every((one) => one.ready) ? "True" : "False";
  const types: Readonly<Record<string, string>> = {
    PodReadyToStartContainers: isOver ? "False" : "True",
    ...{ Initialized: "True", Ready: ready, ContainersReady: ready },
  };
  const own = Object.entries(types).map(([type, state]) => ({
    ...{ type, status: state, lastTransitionTime: now },
    ...(state === "False" ? { reason: "PodCompleted" } : {}),
  }));
  const podIP = `10.${node.subnet}.${nextAddress()}`;
  return {
    ...pod.status,
    phase: isOver ? (isGood ? "Succeeded" : "Failed") : "Running",
    conditions: [...own, ...(pod.status?.conditions ?? []).filter(({ type }) => !Object.hasOwn(types, type))],
    startTime: now,
    hostIP: `192.0.2.${node.name.at(-1)}`,
    podIP,
    podIPs: [{ ip: podIP }],
    initContainerStatuses: (pod.spec.initContainers ?? []).map(({ name }) => containerStatus(name, "exit-0")),
    containerStatuses: containers,
  };
}

function containerStatus(name: string, image: string): ContainerStatus {
  const now = rfc3339(clock.now());
  const code = /^exit-(\d+)/.exec(image)?.[1];
  const ended =
    code === undefined
      ? undefined
      : { exitCode: Number(code), reason: code === "0" ? "Completed" : "Error", startedAt: now, finishedAt: now };
  return {
    ...{ name, image, imageID: `${image}@sha256:0`, containerID: `containerd://${name}`, restartCount: 0 },
    ...{ ready: !ended, started: !ended },
    state: ended ? { terminated: ended } : { running: { startedAt: now } },
  } as ContainerStatus;
}
