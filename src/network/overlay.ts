// The network of pods across nodes: waits for this node's pod range, writes the CNI configuration, tells the other nodes
// where this one is (flannel's annotations), and keeps device, routes and entries for each of them. The kernel is looked at
// again and again, and only differences are written; between two looks a node that comes or goes costs its own lines alone.
// Everything stays when mote ends, as the pods do.
// Upstream counterpart: flannel with the kube subnet manager, as k3s runs it.
import type { Clock } from "#base/clock.ts";
import { hasCode, isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service as Lifecycle } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nameOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { nodes } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import type { Commands } from "#platform/processes.ts";
import type { Sysctl } from "#platform/sysctl.ts";
import { kernelAfter, statesAfter } from "./cni/assumed.ts";
import { difference, overlayDevices } from "./cni/difference.ts";
import { type Kernel, readKernel, runScripts } from "./cni/kernel.ts";
import {
  type Backend,
  externalIpsOf,
  noAnnotations,
  overlayFacts,
  ownAnnotations,
  peersOf,
  rangesByFamily,
  rangesOf,
} from "./cni/peers.ts";
import { type Problem, planOverlay, podMtu, type Wanted } from "./cni/plan.ts";
import { outerDevices, underlayOf } from "./cni/underlay.ts";
import { vtepMac } from "./cni/vtep.ts";
import { endpointsOf, type OwnKey, type WireguardState, wireguardCalls } from "./cni/wireguard.ts";
import { explainWireguard, ownWireguardKey, readWireguard } from "./cni/wireguard-kernel.ts";
import { ensureForwarding } from "./forwarding.ts";
import { configurePodNetwork, type PodNetworkOptions } from "./pod-network.ts";

export interface OverlayOptions extends Omit<PodNetworkOptions, "podCidrs" | "mtu"> {
  readonly nodeName: string;
  /** Where others reach this node, one of each family, while the machine has them; else the default route's are taken. */
  readonly nodeIps: readonly string[];
  readonly clusterCidrs: readonly string[];
  readonly backend: Backend;
  /** Made where there is none and WireGuard wants it. */
  readonly wireguardKeyFile: string;
  /** `--flannel-iface` */
  readonly device?: string;
  /** `--flannel-external-ip`: others reach this node at the ExternalIP that its Node has. */
  readonly usesExternalIp?: boolean;
  /** This node's pods where that is known before the Node exists. What the Node says counts more. */
  readonly podCidrs?: readonly string[];
}

export interface OverlayDeps {
  /** May read all nodes and write annotations of the own one. */
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly events: EventSink;
  readonly commands: Commands;
  readonly sysctl: Sysctl;
  readonly clock: Clock;
  readonly log: Logger;
  /** Text that changes with the machine's addresses. Asked often, so it must cost nothing. */
  readonly addresses: () => string;
}

/** Nodes come in crowds after a power cut: one change for all. */
const gatherMs = 50;
/** When one follows the other all the time: a look is a few processes, and a thousand nodes join one by one. */
const busyGatherMs = 1_000;
/** How often the machine's addresses are compared: within so long peers learn of a new one. */
const addressMs = 3_000;
/** How often to look whether somebody has changed the kernel's side. As often as k3s. */
const checkMs = 60_000;
const retryMinMs = 500;
const retryMaxMs = 30_000;
/** Looks at what is left to take away. */
const maxRemovals = 3;
/** An agent without its server starts with what it wrote last time. */
const syncWaitMs = 2_000;

export function createOverlay(options: OverlayOptions, deps: OverlayDeps): Lifecycle {
  return { name: "overlay", run: (signal, ready) => new Overlay(options, deps).run(signal, ready) };
}

/** Takes devices and routes away. For when no pod runs any more. */
export async function removeOverlay(commands: Commands): Promise<void> {
  const nothing: Wanted = { devices: [], routes: [], neighbours: [], forwards: [], problems: [] };
  for (let attempt = 1; ; attempt++) {
    const scripts = difference(nothing, await readKernel(commands, { devices: [], hasIpv6: true }));
    if (scripts.devices.length === 0) return;
    try {
      await runScripts(commands, scripts);
    } catch (error) {
      // Somebody else may take it away this moment, which is as good.
      if (attempt === maxRemovals) throw error;
    }
    if (attempt === maxRemovals) return;
  }
}

/** What was found at the last look, and has been written since. */
interface Known {
  readonly kernel: Kernel;
  readonly states: readonly WireguardState[];
  /** Without, nothing is known of it. */
  readonly hasIpv6: boolean;
}

class Overlay {
  readonly #options: OverlayOptions;
  readonly #deps: OverlayDeps;
  readonly #facts = new Map<string, string>();
  #told: ReadonlySet<string> = new Set();
  /** Where WireGuard's peers said that they were at the last look. */
  #endpoints: ReadonlyMap<string, string> = new Map();
  /** Undefined: the kernel has to be asked. */
  #known: Known | undefined;
  #lookedAtMs = 0;
  #isDirty = true;
  #wake: () => void = () => {};

  constructor(options: OverlayOptions, deps: OverlayDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    const { clock, informers, log } = this.#deps;
    const store = informers.informer(nodes);
    const mark = () => {
      this.#isDirty = true;
      this.#wake();
    };
    const note = (node: Node) => {
      const facts = overlayFacts(node);
      if (this.#facts.get(nameOf(node)) === facts) return;
      this.#facts.set(nameOf(node), facts);
      mark();
    };
    const forget = (node: Node) => {
      this.#facts.delete(nameOf(node));
      mark();
    };
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort, { once: true });
    let removeHandler = () => {};
    let retryMs = retryMinMs;
    let isReady = false;
    try {
      // Peers that are not known yet would be taken for gone, and traffic to them cut.
      const isSynced = store.whenSynced(signal);
      const late = clock.sleep(syncWaitMs, signal).catch(() => {
        // Aborted: `isSynced` says so too.
      });
      await Promise.race([isSynced, late]);
      if (!store.hasSynced) {
        log.warn("no answer from the server: the pod network stays as it was");
        isReady = true;
        ready();
        await isSynced;
      }
      removeHandler = store.addHandler({ add: note, update: note, delete: forget });
      let syncedAtMs = Number.NEGATIVE_INFINITY;
      let knownAddresses = "";
      while (!signal.aborted) {
        const isBusy = clock.monotonicMs() - syncedAtMs < busyGatherMs;
        this.#isDirty = false;
        const addresses = this.#deps.addresses();
        if (addresses !== knownAddresses || this.#lookLeftMs() <= 0) this.#known = undefined;
        knownAddresses = addresses;
        let isDone = true;
        try {
          await this.#sync(store.list());
          retryMs = retryMinMs;
        } catch (error) {
          if (signal.aborted) break;
          log.error("the overlay could not be brought in step", { error: messageOf(error) });
          this.#known = undefined;
          isDone = false;
        }
        // Also after a failure: pods of this node reach each other, and the attempts go on.
        if (!isReady) ready();
        isReady = true;
        if (!isDone) {
          await clock.sleep(retryMs, signal);
          retryMs = Math.min(retryMs * 2, retryMaxMs);
        } else {
          syncedAtMs = clock.monotonicMs();
          if (await this.#changed(addresses, signal)) await clock.sleep(isBusy ? busyGatherMs : gatherMs, signal);
        }
      }
    } catch (error) {
      if (!isAbort(error, signal)) throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
      removeHandler();
    }
  }

  /** Waits for a change; false when it is merely time to look. */
  async #changed(addresses: string, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#deps;
    while (this.#lookLeftMs() > 0) {
      if (this.#isDirty || signal.aborted || this.#deps.addresses() !== addresses) return true;
      const timer = new AbortController();
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      const timed = clock.sleep(addressMs, timer.signal).catch(() => {
        // Woken before.
      });
      await Promise.race([woken, timed]);
      timer.abort();
      await timed;
    }
    return false;
  }

  /** Also where changes never end. */
  #lookLeftMs(): number {
    return this.#lookedAtMs + checkMs - this.#deps.clock.monotonicMs();
  }

  /** As it is known to be, or as it is. */
  async #kernel(hasIpv6: boolean): Promise<Kernel> {
    if (this.#known?.hasIpv6 === hasIpv6) return this.#known.kernel;
    this.#known = undefined;
    this.#lookedAtMs = this.#deps.clock.monotonicMs();
    return readKernel(this.#deps.commands, { devices: overlayDevices, hasIpv6 });
  }

  async #sync(all: readonly Node[]): Promise<void> {
    const { backend, nodeName, nodeIps, wireguardKeyFile } = this.#options;
    const { commands, log, sysctl } = this.#deps;
    const own = all.find((node) => nameOf(node) === nodeName);
    const isAssigned = Object.keys(rangesOf(own)).length > 0;
    const ranges = isAssigned ? rangesOf(own) : rangesByFamily(this.#options.podCidrs ?? []);
    const kernel = await this.#kernel(ranges[6] !== undefined);
    const underlay = underlayOf(kernel, { nodeIps, device: this.#options.device });
    const mac = vtepMac(nodeName);
    const wireguardKey = backend === "wireguard-native" ? await ownWireguardKey(wireguardKeyFile) : undefined;
    const ownFacts = { nodeName, vtepMac: mac, publicKey: wireguardKey?.publicKey };
    const wanted = planOverlay({
      ...{ backend, nodeName, ranges, underlay, kernel, vtepMac: mac, wireguardKey },
      isDeviceFixed: this.#options.device !== undefined,
      peers: peersOf(all, { ...ownFacts, clusterCidrs: this.#options.clusterCidrs }),
    });
    const mtu = podMtu(backend, underlay, ranges);
    const podCidrs = Object.values(ranges);
    if (podCidrs.length > 0) {
      await ensureForwarding(sysctl, { hasIpv6: ranges[6] !== undefined, devices: outerDevices(kernel) });
    }
    // The file before the way to others: it is all that the pods of this node need.
    if (backend !== "none" && podCidrs.length > 0) {
      await configurePodNetwork({ ...this.#options, podCidrs, mtu }, { commands, log });
    }
    if (backend !== "none" && !underlay && !this.#told.has("no-underlay")) {
      const { device } = this.#options;
      const what = device === undefined ? "network" : `device ${device} (--flannel-iface) with an address`;
      log.warn(`no ${what} that could carry the overlay: other nodes are not reached`, { nodeIps: nodeIps.join(",") });
    }
    // Without a range or a network nothing can be said about what is there: it stays until both are back.
    const isKnown = backend === "none" || (podCidrs.length > 0 && underlay !== undefined);
    const changes = isKnown ? await this.#bringInStep(own, wanted, kernel, ranges[6] !== undefined) : 0;
    if (changes > 0) {
      log.info("overlay in step", { backend, changes, peers: wanted.routes.length, address: underlay?.addresses[4] });
    }
    this.#tell(own, wanted.problems, backend !== "none" && !underlay);
    if (own && (isAssigned || backend === "none")) await this.#annotate(own, underlay?.addresses, mtu, wireguardKey);
  }

  /** The number of changes. */
  async #bringInStep(own: Node | undefined, wanted: Wanted, kernel: Kernel, hasIpv6: boolean): Promise<number> {
    const { backend, nodeName } = this.#options;
    const { clock, commands } = this.#deps;
    const before = this.#known;
    this.#known = undefined;
    const scripts = difference(wanted, kernel);
    const changes = scripts.devices.length + scripts.forwards.length + scripts.routes.length;
    const after = kernelAfter(kernel, wanted, scripts);
    const known = after && { kernel: after, states: statesAfter(wanted), hasIpv6 };
    if (backend !== "wireguard-native") {
      if (changes > 0) await runScripts(commands, scripts);
      this.#known = known;
      return changes;
    }
    try {
      const states = before?.states ?? (await readWireguard(commands, kernel));
      const nowSeconds = Math.floor(clock.now() / 1000);
      const wireguard = wireguardCalls(wanted, { states, endpoints: this.#endpoints, nowSeconds });
      if (changes + wireguard.length > 0) await runScripts(commands, { ...scripts, wireguard });
      this.#endpoints = endpointsOf(wanted);
      this.#known = known;
      return changes + wireguard.length;
    } catch (error) {
      const explained = explainWireguard(error);
      if (hasCode(explained, "NETWORK_WIREGUARD")) {
        const message = `Pods of other nodes cannot be reached: ${messageOf(explained)}`;
        this.#tell(own, [{ node: nodeName, reason: "OverlayWireguardMissing", message }], false);
      }
      throw explained;
    }
  }

  async #annotate(
    own: Node,
    publicIps: Readonly<Partial<Record<4 | 6, string>>> | undefined,
    mtu: number,
    wireguardKey: OwnKey | undefined,
  ): Promise<void> {
    const { backend, nodeName, usesExternalIp } = this.#options;
    if (backend !== "none" && !publicIps) return;
    const annotations =
      backend === "none"
        ? noAnnotations(own)
        : ownAnnotations(own, {
            ...{ backend, mtu, publicIps: publicIps ?? {}, vtepMac: vtepMac(nodeName) },
            publicKey: wireguardKey?.publicKey,
            externalIps: usesExternalIp ? externalIpsOf(own) : {},
          });
    if (!annotations) return;
    try {
      await this.#deps.client.patch(nodes, { name: nodeName }, { metadata: { annotations } });
    } catch (error) {
      // Deleted this moment: the node agent registers it anew, and its coming back is a change.
      if (!isNotFound(error)) throw error;
    }
  }

  /** Each problem once, for as long as it lasts. */
  #tell(own: Node | undefined, problems: readonly Problem[], lacksUnderlay: boolean): void {
    const { events, log } = this.#deps;
    for (const { node, reason, message } of problems) {
      if (this.#told.has(message)) continue;
      log.warn("a node's pods cannot be reached", { node, reason, message });
      if (own) events.record({ resource: nodes as ResourceInfo, object: own, type: "Warning", reason, message });
    }
    this.#told = new Set([...problems.map(({ message }) => message), ...(lacksUnderlay ? ["no-underlay"] : [])]);
  }
}
