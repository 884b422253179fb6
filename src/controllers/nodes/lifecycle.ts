// Watches over nodes: one that neither renews its lease nor posts its status for 50 seconds is not known to be ready;
// its conditions say so, it is tainted, its pods are marked not ready, and those that do not tolerate it are evicted
// (eviction.ts). Silence is measured from when a change was last seen here, on the monotonic clock, so that neither a
// wrong wall clock nor our own restart makes a node look dead.
// Upstream counterpart: pkg/controller/nodelifecycle/node_lifecycle_controller.go.
import { rfc3339 } from "#base/clock.ts";
import type { Service } from "#base/service.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { nameOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { leases, nodes, pods } from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import type { NodeSettings } from "../arguments.ts";
import { type ControllerDeps, on, waitFor } from "../runtime/controller.ts";
import { createPeriodicController, everything } from "../runtime/periodic-controller.ts";
import { isPodFinished, withPodCondition } from "../runtime/pods.ts";
import { nodeCondition, planTaints, planZones, silentConditions, type Zone, zoneOf } from "./plan.ts";

export const podsByNodeIndex = "node";

interface Probe {
  /** As last seen, for what is said when it is gone. */
  node: Node;
  seen: string;
  atMs: number;
}

/** Upstream's: from 10 ms, by four. */
const roundBuckets = Array.from({ length: 8 }, (_, i) => 0.01 * 4 ** i);

/** A cluster that starts has no node that is ready for a moment, and nobody has to hear of that. */
const tellDownMs = 20_000;

export function createNodeLifecycleController(deps: ControllerDeps, settings: NodeSettings): Service {
  const { client, clock } = deps;
  const nodeStore = deps.informers.informer(nodes);
  const leaseStore = deps.informers.informer(leases, { namespace: "kube-node-lease" });
  const podStore = deps.informers.informer(pods);
  podStore.addIndex(podsByNodeIndex, (pod) => (pod.spec.nodeName ? [pod.spec.nodeName] : []));
  const events = deps.events.as("node-controller");
  const probes = new Map<string, Probe>();
  const evicting = new Set<string>();
  const evictions = deps.metrics.counter(
    "node_collector_evictions_total",
    "Nodes that were given up, so that their pods have to leave.",
  );
  const zoneGauges = {
    size: deps.metrics.gauge("node_collector_zone_size", "Nodes of a zone."),
    health: deps.metrics.gauge("node_collector_zone_health", "Share of a zone's nodes that are ready, in percent."),
    unhealthy: deps.metrics.gauge("node_collector_unhealthy_nodes_in_zone", "Nodes of a zone that are not ready."),
  };
  const roundSeconds = deps.metrics.histogram(
    "node_collector_update_all_nodes_health_duration_seconds",
    "How long a look at all nodes takes.",
    roundBuckets,
  );
  /** By zone: when its last node was given up. */
  const evictedAtMs = new Map<string, number>();
  let wasAllDown = false;
  let downSinceMs = 0;
  let isDownTold = false;

  const say = (
    resource: ResourceInfo,
    object: Node | Pod,
    type: "Normal" | "Warning",
    reason: string,
    message: string,
  ) => events.record({ resource, object, type, reason, message });

  /** In the words in which upstream tells of nodes. */
  const sayOfNode = (node: Node, reason: string, event: string) =>
    say(nodes as ResourceInfo, node, "Normal", reason, `Node ${nameOf(node)} event: ${event}`);

  /** Remembers when the node last gave a sign of life; how long ago that is. */
  function silenceMs(node: Node): number {
    const nowMs = clock.monotonicMs();
    const lease = leaseStore.get(`kube-node-lease/${nameOf(node)}`);
    const seen = `${lease?.spec?.renewTime ?? ""} ${nodeCondition(node, "Ready")?.lastHeartbeatTime ?? ""} ${node.metadata.uid}`;
    const probe = probes.get(nameOf(node));
    if (!probe || probe.seen !== seen) {
      probes.set(nameOf(node), { node, seen, atMs: nowMs });
      return 0;
    }
    probe.node = node;
    return nowMs - probe.atMs;
  }

  async function markPods(node: Node): Promise<void> {
    for (const pod of podStore.byIndex(podsByNodeIndex, nameOf(node))) {
      const ready = pod.status?.conditions?.find((c) => c.type === "Ready");
      if (ready?.status !== "True") continue;
      const conditions = pod.status!.conditions!.map((c) =>
        c === ready ? { ...c, status: "False", lastTransitionTime: rfc3339(clock.now()) } : c,
      );
      try {
        await client.updateStatus(pods, { ...pod, status: { ...pod.status, conditions } });
        say(pods as ResourceInfo, pod, "Warning", "NodeNotReady", "Node is not ready");
      } catch (error) {
        // The next round looks again at what is still marked ready.
        if (!isNotFound(error) && !isConflict(error)) throw error;
      }
    }
  }

  async function checkNode(seen: Node): Promise<Node> {
    const hasSpoken = nodeCondition(seen, "Ready") !== undefined;
    if (silenceMs(seen) <= (hasSpoken ? settings.graceMs : settings.startupGraceMs)) return seen;
    const conditions = silentConditions(seen, rfc3339(clock.now()));
    if (conditions === seen.status?.conditions) return seen;
    const was = nodeCondition(seen, "Ready")?.status;
    const node = await client.updateStatus(nodes, { ...seen, status: { ...seen.status, conditions: [...conditions] } });
    if (was === "True") {
      const message = `Node ${nameOf(node)} status is now: NodeNotReady`;
      say(nodes as ResourceInfo, node, "Normal", "NodeNotReady", message);
    }
    return node;
  }

  /** Whether this node may be emptied: one after the other in each zone, and none while every zone is down. */
  function mayEvict(node: Node, zone: Zone, isAllDown: boolean): boolean {
    const name = nameOf(node);
    if (nodeCondition(node, "Ready")?.status === "True" || isAllDown) {
      evicting.delete(name);
      return false;
    }
    if (evicting.has(name)) return true;
    const lastMs = evictedAtMs.get(zoneOf(node)) ?? Number.NEGATIVE_INFINITY;
    if (zone.pauseMs === undefined || clock.monotonicMs() < lastMs + zone.pauseMs) return false;
    evictedAtMs.set(zoneOf(node), clock.monotonicMs());
    evicting.add(name);
    evictions.add(1, { zone: zoneOf(node) });
    return true;
  }

  function noteZones(zones: ReadonlyMap<string, Zone>, isAllDown: boolean): void {
    for (const [zone, { size, notReadyCount }] of zones) {
      zoneGauges.size.set(size, { zone });
      zoneGauges.health.set((100 * (size - notReadyCount)) / size, { zone });
      zoneGauges.unhealthy.set(notReadyCount, { zone });
    }
    // A zone whose last node has gone has none; its name stays known as long as this process.
    for (const zone of evictedAtMs.keys()) if (!zones.has(zone)) evictedAtMs.delete(zone);
    if (isAllDown !== wasAllDown) {
      evictedAtMs.clear();
      wasAllDown = isAllDown;
      downSinceMs = clock.monotonicMs();
    }
    if (isAllDown && !isDownTold && clock.monotonicMs() - downSinceMs >= tellDownMs) {
      deps.log.warn("no node is ready: nothing is evicted", { nodes: nodeStore.size });
      isDownTold = true;
    } else if (!isAllDown && isDownTold) {
      deps.log.info("some nodes are ready again", { nodes: nodeStore.size });
      isDownTold = false;
    }
  }

  async function round(): Promise<void> {
    const startedMs = clock.monotonicMs();
    const all = nodeStore.list();
    for (const [name, probe] of [...probes]) {
      if (nodeStore.get(name)) continue;
      sayOfNode(probe.node, "RemovingNode", `Removing Node ${name} from Controller`);
      probes.delete(name);
      evicting.delete(name);
    }
    for (const node of all) {
      const name = nameOf(node);
      if (!probes.has(name)) sayOfNode(node, "RegisteredNode", `Registered Node ${name} in Controller`);
    }
    const checked: Node[] = [];
    for (const node of all) {
      try {
        checked.push(await checkNode(node));
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error;
        checked.push(node);
      }
    }
    roundSeconds.observe((clock.monotonicMs() - startedMs) / 1000);
    const { zones, isAllDown } = planZones(checked, settings);
    noteZones(zones, isAllDown);
    for (const node of checked) {
      try {
        await settleNode(node, mayEvict(node, zones.get(zoneOf(node))!, isAllDown));
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error;
      }
    }
  }

  async function settleNode(node: Node, isEvicting: boolean): Promise<void> {
    const taints = planTaints(node, isEvicting, rfc3339(clock.now()));
    if (taints !== node.spec.taints && taints.length + (node.spec.taints?.length ?? 0) > 0) {
      const { resourceVersion } = node.metadata;
      const patch = { metadata: { resourceVersion }, spec: { taints: taints.length > 0 ? taints : null } };
      await client.patch(nodes, { name: nameOf(node) }, patch);
    }
    if (nodeCondition(node, "Ready") && nodeCondition(node, "Ready")?.status !== "True") await markPods(node);
  }

  return createPeriodicController(
    {
      name: "node-lifecycle-controller",
      periodMs: settings.monitorPeriodMs,
      begin() {
        for (const probe of probes.values()) probe.atMs = clock.monotonicMs();
      },
      triggers: [
        // So that taints follow conditions within moments.
        on(nodeStore, (_, how) => (how === "delete" ? [] : [everything])),
        waitFor(leaseStore),
        waitFor(podStore),
      ],
      round,
    },
    deps,
  );
}

/** Before the control plane takes a pod away: says why (DisruptionTarget), and that it has failed where nobody else will. */
export async function markPod(
  deps: ControllerDeps,
  pod: Pod,
  marks: { readonly disruption?: { readonly reason: string; readonly message: string }; readonly isFailed?: true },
): Promise<Pod> {
  const { disruption } = marks;
  const old = pod.status?.conditions ?? [];
  const conditions = disruption
    ? withPodCondition(old, { type: "DisruptionTarget", status: "True", ...disruption }, rfc3339(deps.clock.now()))
    : old;
  const phase = marks.isFailed && !isPodFinished(pod) ? "Failed" : pod.status?.phase;
  if (conditions === old && phase === pod.status?.phase) return pod;
  const status = { ...pod.status, conditions: [...conditions], ...(phase ? { phase } : {}) };
  return deps.client.updateStatus(pods, { ...pod, status });
}
