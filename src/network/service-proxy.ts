// Service addresses on this node: watches Services and EndpointSlices and keeps one nftables table of each address family in
// step. Changes are gathered for a moment and written as one transaction a table; a failed one is followed by a full rewrite
// of that table and holds up no other. Tables stay when mote ends, as the pods do; `removeServiceProxy` takes them away.
// Upstream counterpart: kube-proxy in nftables mode.
import type { Clock } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import { canonicalIp, familyOfIp, type IpFamily } from "#base/ip-range.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service as Lifecycle } from "#base/service.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { endpointSlices, nodes, services } from "#model/resources.ts";
import type { Commands } from "#platform/processes.ts";
import type { Sysctl } from "#platform/sysctl.ts";
import { applyScript, deleteFlows, isChainIntact, prepareKernel, removeTables } from "./proxy/apply.ts";
import { HealthPorts, healthChecksOf } from "./proxy/health.ts";
import { fewerFlows, planProxy, staleFlows } from "./proxy/plan.ts";
import { type Ruleset, transition } from "./proxy/ruleset.ts";
import { type ServicePort, servicePortsOf } from "./proxy/service-port.ts";

export interface ServiceProxyOptions {
  readonly nodeName: string;
  /** Pods of all nodes, one range of each family that there is. */
  readonly clusterCidrs: readonly string[];
  /** Pods reach what is outside of the cluster under their node's IPv6 address, as they do with IPv4. Default false. */
  readonly masqueradesIpv6?: boolean;
  /** Cluster addresses that are served on this node by mote itself, e.g. 10.43.0.10 for DNS. */
  readonly localServiceIps: readonly string[];
  /** Default "mote". */
  readonly table?: string;
  /** Where balancers ask for the proxy's own health; default: nowhere. */
  readonly healthPort?: number;
}

export interface ServiceProxyDeps {
  readonly informers: InformerFactory;
  readonly commands: Commands;
  readonly sysctl: Sysctl;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics?: Metrics;
}

const defaultTable = "mote";
/** A rollout changes many slices in a row: one transaction for all. */
const gatherMs = 50;
/** How often to look whether the table is still there. Reads the kernel only. */
const checkMs = 30_000;
const checkedChains = ["services", "postrouting", "prerouting", "output"] as const;
/** Whose node is taken away next, as its autoscaler says. */
const doomedTaint = "ToBeDeletedByClusterAutoscaler";
const retryMinMs = 500;
const retryMaxMs = 30_000;
/** conntrack runs one process for each: above the first number they are put together by endpoint, the second is the end of it. */
const maxFlowDeletions = { exact: 64, all: 1024 } as const;

export function createServiceProxy(options: ServiceProxyOptions, deps: ServiceProxyDeps): Lifecycle {
  return {
    name: "service-proxy",
    run: (signal, ready) => new ServiceProxy(options, deps).run(signal, ready),
  };
}

/** Removes every rule the proxy made; fine where there are none. */
export const removeServiceProxy = (commands: Commands, table = defaultTable): Promise<void> =>
  removeTables(commands, table);

/** What is kept of one address family. */
interface Lane {
  readonly family: IpFamily;
  readonly clusterCidr: string;
  applied: Ruleset | undefined;
  ports: readonly ServicePort[];
}

class ServiceProxy {
  readonly #options: ServiceProxyOptions;
  readonly #deps: ServiceProxyDeps;
  readonly #table: string;
  readonly #localServiceIps: ReadonlySet<string>;
  readonly #seconds;
  readonly #lanes: readonly Lane[];
  #hasBridgeNetfilter = false;
  #zone: string | undefined;
  /** A node that is about to go. */
  #isLeaving = false;
  readonly #health: HealthPorts;
  #updatedAtMs = 0;
  #waitsSinceMs: number | undefined;
  #isDirty = true;
  #checkCount = 0;
  #wake: () => void = () => {};

  constructor(options: ServiceProxyOptions, deps: ServiceProxyDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#table = options.table ?? defaultTable;
    this.#localServiceIps = new Set(options.localServiceIps.map((ip) => canonicalIp(ip) ?? ip));
    this.#lanes = options.clusterCidrs.map((clusterCidr) => {
      return { family: familyOfIp(clusterCidr), clusterCidr, applied: undefined, ports: [] };
    });
    this.#health = new HealthPorts(
      {
        proxyPort: options.healthPort,
        health: () => ({
          lastUpdatedMs: this.#updatedAtMs,
          waitedMs: this.#waitsSinceMs === undefined ? undefined : deps.clock.monotonicMs() - this.#waitsSinceMs,
          isEligible: !this.#isLeaving,
        }),
      },
      deps,
    );
    this.#seconds = deps.metrics?.histogram(
      "kubeproxy_sync_proxy_rules_duration_seconds",
      "Time to bring the rules in step.",
      [0.005, 0.02, 0.1, 0.5, 2, 10],
    );
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    const { clock, informers, log } = this.#deps;
    const serviceInformer = informers.informer(services);
    const sliceInformer = informers.informer(endpointSlices);
    const mark = () => {
      this.#isDirty = true;
      this.#waitsSinceMs ??= clock.monotonicMs();
      this.#wake();
    };
    const marking = { add: mark, update: mark, delete: mark };
    // Of the node only its zone matters, and whether it is to go, which every heartbeat tells again. Services do not wait for it.
    const noteZone = (node: Node) => {
      if (node.metadata.name !== this.#options.nodeName) return;
      const isDoomed = node.spec?.taints?.some(({ key }) => key === doomedTaint) ?? false;
      this.#isLeaving = node.metadata.deletionTimestamp !== undefined || isDoomed;
      const zone = node.metadata.labels?.["topology.kubernetes.io/zone"] || undefined;
      if (zone === this.#zone) return;
      this.#zone = zone;
      mark();
    };
    const removers: (() => void)[] = [];
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort, { once: true });
    let retryMs = retryMinMs;
    let isPrepared = false;
    let hasTried = false;
    try {
      await Promise.all([serviceInformer.whenSynced(signal), sliceInformer.whenSynced(signal)]);
      removers.push(serviceInformer.addHandler(marking), sliceInformer.addHandler(marking));
      removers.push(informers.informer(nodes).addHandler({ add: noteZone, update: noteZone }));
      while (!signal.aborted) {
        let isWritten = true;
        try {
          if (!isPrepared) await this.#prepare();
          isPrepared = true;
          if (this.#isDirty) await this.#sync();
          retryMs = retryMinMs;
        } catch (error) {
          if (signal.aborted) break;
          log.error("service rules could not be written", { error: messageOf(error) });
          this.#isDirty = true;
          isWritten = false;
        }
        // Also after a failure: a node without services is better than no node, and the attempts go on.
        if (!hasTried) ready();
        hasTried = true;
        if (!isWritten) {
          await clock.sleep(retryMs, signal);
          retryMs = Math.min(retryMs * 2, retryMaxMs);
        } else if (await this.#changed(signal)) await clock.sleep(gatherMs, signal);
        else await this.#check();
      }
    } catch (error) {
      if (!isAbort(error, signal)) throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
      for (const remove of removers) remove();
      await this.#health.close();
    }
  }

  async #prepare(): Promise<void> {
    const { commands, log, sysctl } = this.#deps;
    const families = this.#lanes.map(({ family }) => family);
    this.#hasBridgeNetfilter = (await prepareKernel(commands, sysctl, families)).hasBridgeNetfilter;
    if (!this.#hasBridgeNetfilter) log.warn("br_netfilter is missing: service traffic between pods is masqueraded");
  }

  async #sync(): Promise<void> {
    this.#isDirty = false;
    const failures: unknown[] = [];
    for (const lane of this.#lanes) {
      try {
        await this.#syncLane(lane);
      } catch (error) {
        // What the kernel holds is unknown: the next attempt replaces the table.
        lane.applied = undefined;
        failures.push(error);
      }
    }
    const { clock, informers } = this.#deps;
    const slices = informers.informer(endpointSlices).list();
    await this.#health.set(healthChecksOf(informers.informer(services).list(), slices, this.#options.nodeName));
    if (failures.length > 0) throw failures[0];
    this.#updatedAtMs = clock.now();
    this.#waitsSinceMs = this.#isDirty ? clock.monotonicMs() : undefined;
  }

  async #syncLane(lane: Lane): Promise<void> {
    const { clock, commands, informers, log } = this.#deps;
    const { family, clusterCidr } = lane;
    const startedMs = clock.monotonicMs();
    const ports = servicePortsOf(informers.informer(services).list(), informers.informer(endpointSlices).list(), {
      family,
      nodeName: this.#options.nodeName,
      localServiceIps: this.#localServiceIps,
      zone: this.#zone,
    });
    const next = planProxy(ports, {
      ...{ table: this.#table, clusterCidr, hasBridgeNetfilter: this.#hasBridgeNetfilter },
      masqueradesOutside: family === "IPv4" || this.#options.masqueradesIpv6 === true,
    });
    const script = transition(lane.applied, next);
    await applyScript(commands, script);
    const flows = fewerFlows(staleFlows(lane.ports, ports), maxFlowDeletions.exact).slice(0, maxFlowDeletions.all);
    lane.applied = next;
    lane.ports = ports;
    try {
      for (const flow of flows) await deleteFlows(commands, family, flow);
    } catch (error) {
      // The rules are right; old UDP flows fade within their timeout.
      log.warn("old flows could not be removed", { error: messageOf(error) });
    }
    if (script !== "") {
      const ms = clock.monotonicMs() - startedMs;
      this.#seconds?.observe(ms / 1000);
      log.debug("service rules written", { family, ports: ports.length, bytes: script.length, ms: Math.round(ms) });
    }
  }

  /** True when something changed, false when it is time to look after the table. */
  async #changed(signal: AbortSignal): Promise<boolean> {
    if (this.#isDirty) return true;
    const cancel = { timer: () => {} };
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      cancel.timer = this.#deps.clock.after(checkMs, resolve);
      if (signal.aborted) resolve();
    });
    cancel.timer();
    this.#wake = () => {};
    return this.#isDirty || signal.aborted;
  }

  /** One chain of a table each time: a table that is gone shows in any of them, and an idle node starts few processes. */
  async #check(): Promise<void> {
    const { commands, log } = this.#deps;
    await this.#health.again();
    const chain = checkedChains[this.#checkCount++ % checkedChains.length]!;
    for (const lane of this.#lanes) {
      if (!lane.applied) continue;
      const table = `${lane.applied.family} ${this.#table}`;
      try {
        if (await isChainIntact(commands, lane.applied, chain)) continue;
        log.warn("service rules were changed from outside, writing them again", { table, chain });
      } catch (error) {
        log.warn("service rules could not be read, writing them again", { table, error: messageOf(error) });
      }
      lane.applied = undefined;
      this.#isDirty = true;
    }
  }
}
