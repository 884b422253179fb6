// This machine as a Node object: registered once, its status told when something changed and else once a day, its
// lease every ten seconds. That the lease costs no flash is the datastore's doing. Pure builders first, then the loops.
// Counterpart: the kubelet's node status setters and lease controller; reasons and messages are what people search for.
import { isDeepStrictEqual } from "node:util";
import { type Clock, pause, rfc3339, rfc3339Micro } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { Lease } from "#model/gen/coordination-v1.ts";
import type { Node, NodeCondition, NodeStatus, Taint } from "#model/gen/core-v1.ts";
import { uidOf } from "#model/object.ts";
import { leases, nodes } from "#model/resources.ts";
import { isAlreadyExists, isConflict, isNotFound } from "#model/status.ts";
import type { Machine } from "#platform/machine.ts";
import type { Image } from "#wire/gen/cri.ts";
import { type Amounts, amountsText } from "./capacity.ts";
import { statusReportMs } from "./configuration.ts";
import type { Cri } from "./cri.ts";
import type { PressureCondition } from "./eviction/signals.ts";
import { markedMetadata, type NodeMark, nodeMarks, planMarks } from "./node-marks.ts";
import type { RuntimeCache } from "./runtime-cache.ts";

export interface NodeObjectOptions {
  readonly nodeName: string;
  readonly nodeIps: readonly string[];
  /** Where the node is reached from outside; none: others may say. */
  readonly externalIps?: readonly string[];
  /** None: the control plane chooses. */
  readonly podCidrs: readonly string[];
  readonly port: number;
  /** Those that were asked for. */
  readonly labels: Readonly<Record<string, string>>;
  /** By which others know what this node does: kept as they are here, null: not there. */
  readonly ownLabels?: Readonly<Record<string, string | null>>;
  /** Set when the node registers for the first time. */
  readonly taints: readonly Taint[];
  readonly version: string;
}

export interface NodeObjectDeps {
  readonly client: Client;
  readonly clock: Clock;
  readonly log: Logger;
  readonly events: EventSink;
  readonly cri: Cri;
  readonly runtime: RuntimeCache;
  readonly machine: Machine;
  /** What the node has and gives, and what it is short of: asked at every report. */
  readonly resources: () => NodeResources;
  /** The Node as the API has it, at every report. */
  readonly onNode: (node: Node) => void;
  /** What the machine lacks without which no pod can run: said before all else. Default: nothing. */
  readonly problem?: () => Promise<string | undefined>;
  /** Resolves when there is somebody to tell; rejects when the signal aborts. Default: there always is. */
  readonly whenReachable?: (signal: AbortSignal) => Promise<void>;
}

export interface NodeResources {
  readonly capacity: Amounts;
  readonly allocatable: Amounts;
  readonly pressure: ReadonlySet<PressureCondition>;
  /** The machine is being shut down: no pod may come. */
  readonly isShuttingDown: boolean;
}

const leaseNamespace = "kube-node-lease";
const leaseSeconds = 40;
const renewMs = 10_000;
/** How often the status is looked at; while the node is not ready its network may come any moment. */
const checkMs = 10_000;
const unreadyCheckMs = 500;
/** How often the images of an unchanged node are counted. */
const imagesMs = 5 * 60_000;
const maxImages = 50;
/** containerd that has not answered for so long makes the node NotReady. */
const runtimeSilenceMs = 3 * 60_000;

export interface NodeFacts {
  readonly machine: Machine;
  readonly resources: NodeResources;
  readonly images: readonly Image[];
  readonly containerRuntimeVersion: string;
  /** Why pods cannot run; undefined when they can. */
  readonly notReady: string | undefined;
}

export function nodeStatus(
  options: NodeObjectOptions,
  facts: NodeFacts,
  old: NodeStatus | undefined,
  nowMs: number,
): NodeStatus {
  const { machine, resources } = facts;
  const { externalIps = [] } = options;
  const now = rfc3339(nowMs);
  const condition = (type: string, bad: boolean, texts: readonly [string, string, string, string]): NodeCondition => {
    const before = old?.conditions?.find((c) => c.type === type);
    const status = type === "Ready" ? (bad ? "False" : "True") : bad ? "True" : "False";
    return {
      type,
      status,
      lastHeartbeatTime: now,
      lastTransitionTime: before?.status === status ? (before.lastTransitionTime ?? now) : now,
      reason: bad ? texts[0] : texts[2],
      message: bad ? texts[1] : texts[3],
    };
  };
  // What others have added to the node (extended resources) stays, and pods may have all of it.
  const foreignAmounts = Object.fromEntries(
    Object.entries(old?.capacity ?? {}).filter(([name]) => isExtended(name) && resources.capacity[name] === undefined),
  );
  const own = [
    condition("MemoryPressure", resources.pressure.has("MemoryPressure"), [
      "KubeletHasInsufficientMemory",
      "kubelet has insufficient memory available",
      "KubeletHasSufficientMemory",
      "kubelet has sufficient memory available",
    ]),
    condition("DiskPressure", resources.pressure.has("DiskPressure"), [
      "KubeletHasDiskPressure",
      "kubelet has disk pressure",
      "KubeletHasNoDiskPressure",
      "kubelet has no disk pressure",
    ]),
    condition("PIDPressure", resources.pressure.has("PIDPressure"), [
      "KubeletHasInsufficientPID",
      "kubelet has insufficient PID available",
      "KubeletHasSufficientPID",
      "kubelet has sufficient PID available",
    ]),
    condition("Ready", facts.notReady !== undefined, [
      "KubeletNotReady",
      facts.notReady ?? "",
      "KubeletReady",
      "kubelet is posting ready status",
    ]),
  ];
  const foreign = (old?.conditions ?? []).filter((c) => !own.some((o) => o.type === c.type));
  return {
    capacity: { ...foreignAmounts, ...amountsText(resources.capacity) },
    allocatable: { ...foreignAmounts, ...amountsText(resources.allocatable) },
    conditions: [...foreign, ...own],
    addresses: [
      ...options.nodeIps.map((address) => ({ type: "InternalIP", address })),
      ...externalIps.map((address) => ({ type: "ExternalIP", address })),
      { type: "Hostname", address: options.nodeName },
      // Where nothing else was said others know at which address a node is reached from outside.
      ...(old?.addresses ?? []).filter(
        ({ type }) => !ownAddressTypes.has(type) && (type !== "ExternalIP" || externalIps.length === 0),
      ),
    ],
    daemonEndpoints: { kubeletEndpoint: { Port: options.port } },
    nodeInfo: {
      machineID: machine.machineId,
      systemUUID: machine.systemUuid,
      bootID: machine.bootId,
      kernelVersion: machine.kernelVersion,
      osImage: machine.osImage,
      containerRuntimeVersion: facts.containerRuntimeVersion,
      kubeletVersion: options.version,
      kubeProxyVersion: options.version,
      operatingSystem: "linux",
      architecture: machine.architecture,
    },
    images: [...facts.images]
      .sort((a, b) => Number(b.size) - Number(a.size))
      .slice(0, maxImages)
      .map((image) => ({
        names: [...image.repoDigests, ...image.repoTags].slice(0, 5),
        sizeBytes: Number(image.size),
      })),
  };
}

const ownAddressTypes = new Set(["InternalIP", "Hostname"]);

/** Names with a domain that is not Kubernetes' own. */
const isExtended = (name: string): boolean => name.includes("/") && !name.split("/")[0]!.endsWith("kubernetes.io");

/** Everything but heartbeats: what must be told at once when it differs. */
const essence = (status: NodeStatus | undefined) => ({
  ...status,
  conditions: (status?.conditions ?? []).map(({ lastHeartbeatTime: _, lastTransitionTime: __, ...rest }) => rest),
});

/** What a change of a condition is called in events: when it became true, and when false. */
const conditionEvents: Readonly<Record<string, readonly [string, string]>> = {
  MemoryPressure: ["NodeHasInsufficientMemory", "NodeHasSufficientMemory"],
  DiskPressure: ["NodeHasDiskPressure", "NodeHasNoDiskPressure"],
  PIDPressure: ["NodeHasInsufficientPID", "NodeHasSufficientPID"],
  Ready: ["NodeReady", "NodeNotReady"],
};

const conditionStates = (status: NodeStatus | undefined) =>
  Object.fromEntries(
    (status?.conditions ?? []).filter((c) => ownConditions.has(c.type)).map((c) => [c.type, `${c.status} ${c.reason}`]),
  );
const ownConditions = new Set(["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);

export class NodeObject {
  readonly #options: NodeObjectOptions;
  readonly #deps: NodeObjectDeps;
  readonly #marks: readonly NodeMark[];
  /** Of the Node that has been given all of them. */
  #markedUid: string | undefined;
  #saidOfMarks: string | undefined;
  #told: NodeStatus | undefined;
  #toldAtMs = 0;
  #seenPodCidrs: readonly string[] = [];
  #version = "containerd://unknown";
  #images: readonly Image[] = [];
  #imagesAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: NodeObjectOptions, deps: NodeObjectDeps) {
    this.#options = options;
    this.#deps = deps;
    const { nodeName, labels, ownLabels = {} } = options;
    this.#marks = nodeMarks({ nodeName, architecture: deps.machine.architecture, labels, ownLabels });
  }

  /** What images take, as last listed. */
  get imageBytes(): number {
    return this.#images.reduce((sum, image) => sum + Number(image.size), 0);
  }

  /** Creates the Node, or brings the existing one up to date. True where it was not there. */
  async register(signal: AbortSignal): Promise<boolean> {
    const { client, clock, log } = this.#deps;
    try {
      const version = await this.#deps.cri.version();
      this.#version = `${version.runtimeName}://${version.runtimeVersion}`;
    } catch (error) {
      // Where it is not installed, that is what the Node is to say.
      if ((await this.#deps.problem?.()) === undefined) throw error;
    }
    for (let pauseMs = 200; ; pauseMs = Math.min(pauseMs * 2, 7_000)) {
      signal.throwIfAborted();
      try {
        await this.#deps.whenReachable?.(signal);
        const status = nodeStatus(this.#options, await this.#facts(), undefined, clock.now());
        let isNew = true;
        try {
          await client.create(nodes, this.#made(status));
        } catch (error) {
          if (!isAlreadyExists(error)) throw error;
          isNew = false;
        }
        await this.report();
        this.#event("Starting", "Starting kubelet.");
        return isNew;
      } catch (error) {
        signal.throwIfAborted();
        log.warn("cannot register the node, retrying", { error: messageOf(error) });
        await clock.sleep(pauseMs, signal);
      }
    }
  }

  /** Keeps status and lease fresh until `signal` aborts. */
  async keep(signal: AbortSignal): Promise<void> {
    await Promise.all([
      this.#every(
        () => (this.#isReady ? checkMs : unreadyCheckMs),
        "node status",
        () => this.report(),
        signal,
      ),
      this.#every(
        () => renewMs,
        "node lease",
        () => this.#renew(),
        signal,
      ),
    ]);
  }

  async report(): Promise<void> {
    const { client, clock } = this.#deps;
    const node = await this.#existing();
    if (node) await this.#mark(node);
    const existing = node?.status;
    const status = nodeStatus(this.#options, await this.#facts(), existing, clock.now());
    const isSame =
      isDeepStrictEqual(essence(status), essence(this.#told)) &&
      // Others may have written what is ours.
      isDeepStrictEqual(conditionStates(status), conditionStates(existing));
    if (isSame && this.#toldAtMs > 0 && clock.monotonicMs() - this.#toldAtMs < statusReportMs) return;
    const before = this.#told ?? existing;
    try {
      await this.#patch(status);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      // Somebody deleted the Node while the machine is alive: it registers anew.
      await client.create(nodes, this.#made(status));
      await this.#patch(status);
    }
    const { nodeName } = this.#options;
    for (const [type, [whenTrue, whenFalse]] of Object.entries(conditionEvents)) {
      const now = status.conditions?.find((c) => c.type === type)?.status;
      if (before?.conditions?.find((c) => c.type === type)?.status === now) continue;
      const reason = now === "True" ? whenTrue : whenFalse;
      this.#event(reason, `Node ${nodeName} status is now: ${reason}`);
    }
    const [bootBefore, bootNow] = [before?.nodeInfo?.bootID, status.nodeInfo?.bootID];
    if (bootBefore && bootNow && bootBefore !== bootNow) {
      this.#event("Rebooted", `Node ${nodeName} has been rebooted, boot id: ${bootNow}`, "Warning");
    }
    this.#told = status;
    this.#toldAtMs = clock.monotonicMs();
  }

  #made(status: NodeStatus): Node {
    const { nodeName, taints } = this.#options;
    return {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name: nodeName, ...markedMetadata(this.#marks) },
      spec: { ...this.#range(), ...(taints.length > 0 ? { taints: [...taints] } : {}) },
      status,
    };
  }

  /** What the Node carries, where it is seen without. That it cannot be written keeps nothing else from being told. */
  async #mark(node: Node): Promise<void> {
    const uid = uidOf(node);
    const metadata = planMarks(this.#marks, node, uid !== this.#markedUid);
    try {
      if (metadata) await this.#deps.client.patch(nodes, { name: this.#options.nodeName }, { metadata });
      this.#markedUid = uid;
      this.#saidOfMarks = undefined;
    } catch (error) {
      // Deleted this moment: the next one is made with all of them.
      if (isNotFound(error)) return;
      const text = messageOf(error);
      const level = text === this.#saidOfMarks ? "debug" : "warn";
      this.#saidOfMarks = text;
      this.#deps.log[level]("labels and annotations of the node cannot be written, retrying", { error: text });
    }
  }

  /** The one it was given, or the one that a Node of its name had when it was last seen. */
  #range(): Pick<NonNullable<Node["spec"]>, "podCIDR" | "podCIDRs"> {
    const podCIDRs = this.#options.podCidrs.length > 0 ? this.#options.podCidrs : this.#seenPodCidrs;
    return podCIDRs[0] === undefined ? {} : { podCIDR: podCIDRs[0], podCIDRs: [...podCIDRs] };
  }

  get #isReady(): boolean {
    return this.#told?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ?? false;
  }

  /** Reads the Node, and tells `onNode` of it. */
  async look(): Promise<void> {
    await this.#existing();
  }

  async #existing(): Promise<Node | undefined> {
    try {
      const node = await this.#deps.client.get(nodes, this.#options.nodeName);
      if (node.spec?.podCIDR) this.#seenPodCidrs = node.spec.podCIDRs ?? [node.spec.podCIDR];
      this.#deps.onNode(node);
      return node;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** An event of type Warning on the Node. */
  warn(reason: string, message: string): void {
    this.#event(reason, message, "Warning");
  }

  async #patch(status: NodeStatus): Promise<void> {
    // Conditions merge by type. Addresses would too, and of two of one type only one would stay: they are replaced.
    const body = {
      status: {
        ...status,
        conditions: status.conditions?.filter((c) => c.type !== "NetworkUnavailable"),
        addresses: [...(status.addresses ?? []), { $patch: "replace" }],
      },
    };
    await this.#deps.client.patch(nodes, { name: this.#options.nodeName }, body, {
      subresource: "status",
      type: "application/strategic-merge-patch+json",
    });
  }

  async #facts(): Promise<NodeFacts> {
    const { clock, cri, runtime, machine } = this.#deps;
    let notReady: string | undefined;
    const silentMs = runtime.lastRelistMs === undefined ? 0 : clock.monotonicMs() - runtime.lastRelistMs;
    try {
      for (const condition of await cri.status()) {
        if (condition.status) continue;
        const text = `${condition.type}=false reason:${condition.reason} message:${condition.message}`;
        notReady =
          condition.type === "NetworkReady"
            ? `container runtime network not ready: ${text}`
            : `container runtime not ready: ${text}`;
      }
      if (clock.monotonicMs() - this.#imagesAtMs > imagesMs) {
        this.#images = await cri.listImages();
        this.#imagesAtMs = clock.monotonicMs();
      }
      if (this.#deps.resources().isShuttingDown) notReady = "node is shutting down";
    } catch (error) {
      // A restart of containerd takes a moment; only a long silence is a state of the node.
      if (silentMs > runtimeSilenceMs || runtime.lastRelistMs === undefined) {
        notReady = `container runtime is down: ${messageOf(error)}`;
      }
    }
    notReady = (await this.#deps.problem?.()) ?? notReady;
    return {
      machine,
      resources: this.#deps.resources(),
      images: this.#images,
      containerRuntimeVersion: this.#version,
      notReady,
    };
  }

  async #renew(): Promise<void> {
    const { client, clock } = this.#deps;
    const { nodeName } = this.#options;
    const renewTime = rfc3339Micro(clock.now());
    try {
      await client.patch(leases, { name: nodeName, namespace: leaseNamespace }, { spec: { renewTime } });
    } catch (error) {
      if (!isNotFound(error)) throw error;
      const node = await client.get(nodes, nodeName);
      const lease: Lease = {
        apiVersion: "coordination.k8s.io/v1",
        kind: "Lease",
        metadata: {
          name: nodeName,
          namespace: leaseNamespace,
          ownerReferences: [{ apiVersion: "v1", kind: "Node", name: nodeName, uid: node.metadata.uid ?? "" }],
        },
        spec: { holderIdentity: nodeName, leaseDurationSeconds: leaseSeconds, renewTime },
      };
      await client.create(leases, lease);
    }
  }

  async #every(periodMs: () => number, what: string, work: () => Promise<void>, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#deps.whenReachable?.(signal);
        await work();
      } catch (error) {
        if (signal.aborted) return;
        // Conflicts and outages of the API pass; the next round tells everything again.
        if (!isConflict(error)) this.#deps.log.warn(`cannot write ${what}, retrying`, { error: messageOf(error) });
      }
      await pause(this.#deps.clock, periodMs(), signal);
    }
  }

  #event(reason: string, message: string, type: "Normal" | "Warning" = "Normal"): void {
    const { nodeName } = this.#options;
    // Upstream's node events carry the name as uid, and people filter by that.
    this.#deps.events.record({
      resource: nodes,
      object: { metadata: { name: nodeName, uid: nodeName } },
      ...{ type, reason, message },
    });
  }
}
