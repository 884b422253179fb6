// The pod table. STATUS folds phase, reasons of containers and deletion into one word, as kubectl users know it.
// Upstream: printPod in pkg/printers/internalversion.
import type { ContainerState, ContainerStatus, Pod } from "#model/gen/core-v1.ts";
import { ageColumn, hasCondition, nameColumn, text, wide } from "./column-kit.ts";
import type { Column } from "./columns.ts";
import { humanDuration } from "./human-duration.ts";

export const podColumns: readonly Column<Pod>[] = [
  nameColumn,
  text("Ready", "Containers that are ready, of all.", (pod) => {
    const { ready, total } = summarize(pod);
    return `${ready}/${total}`;
  }),
  text("Status", "What the pod's phase and its containers come down to.", (pod) => summarize(pod).reason),
  text("Restarts", "How often the containers were restarted, and when last.", (pod, nowMs) => {
    const { restarts, lastRestartMs } = summarize(pod);
    const when = restarts > 0 && lastRestartMs > 0 ? ` (${humanDuration(nowMs - lastRestartMs)} ago)` : "";
    return `${restarts}${when}`;
  }),
  ageColumn,
  wide(text("IP", "Address of the pod.", (pod) => pod.status?.podIPs?.[0]?.ip || pod.status?.podIP || "<none>")),
  wide(text("Node", "Node the pod is bound to.", (pod) => pod.spec?.nodeName || "<none>")),
  wide(text("Nominated Node", "Node that makes room.", (pod) => pod.status?.nominatedNodeName || "<none>")),
  wide(
    text("Readiness Gates", "Readiness gates that hold, of all.", (pod) => {
      const gates = pod.spec?.readinessGates ?? [];
      const holding = gates.filter((gate) => hasCondition(pod.status?.conditions, gate.conditionType));
      return gates.length === 0 ? "<none>" : `${holding.length}/${gates.length}`;
    }),
  ),
];

interface Summary {
  readonly ready: number;
  readonly total: number;
  readonly reason: string;
  readonly restarts: number;
  /** 0: never. */
  readonly lastRestartMs: number;
}

export function summarize(pod: Pod): Summary {
  const status = pod.status ?? {};
  const init = summarizeInit(pod);
  const initialized = hasCondition(status.conditions, "Initialized");
  let reason = init.reason ?? (status.reason || status.phase || "");
  const isGated = status.conditions?.some((c) => c.type === "PodScheduled" && c.reason === "SchedulingGated");
  if (init.reason === undefined && isGated) reason = "SchedulingGated";
  let ready = init.ready;
  let restarts = init.restarts;
  let lastRestartMs = init.lastRestartMs;
  if (init.reason === undefined || initialized) {
    // From here on only the init containers that keep running count.
    restarts = init.sidecarRestarts;
    lastRestartMs = init.lastSidecarRestartMs;
    let isAnyRunning = false;
    for (const container of [...(status.containerStatuses ?? [])].reverse()) {
      restarts += container.restartCount;
      lastRestartMs = Math.max(lastRestartMs, finishedMs(container.lastState));
      const { waiting, terminated, running } = container.state ?? {};
      if (waiting?.reason) reason = waiting.reason;
      else if (terminated) reason = terminated.reason || exitText(terminated);
      else if (container.ready && running) {
        isAnyRunning = true;
        ready++;
      }
    }
    if (reason === "Completed" && isAnyRunning) {
      reason = hasCondition(status.conditions, "Ready") ? "Running" : "NotReady";
    }
  }
  if (pod.metadata.deletionTimestamp) {
    if (status.reason === "NodeLost") reason = "Unknown";
    else if (status.phase !== "Succeeded" && status.phase !== "Failed") reason = "Terminating";
  }
  const sidecars = (pod.spec?.initContainers ?? []).filter((container) => container.restartPolicy === "Always");
  return { ready, total: (pod.spec?.containers ?? []).length + sidecars.length, reason, restarts, lastRestartMs };
}

function summarizeInit(pod: Pod) {
  const containers = pod.spec?.initContainers ?? [];
  const sidecars = new Set(containers.filter((c) => c.restartPolicy === "Always").map((c) => c.name));
  const out = {
    /** Undefined when initialisation is over, or has not begun to be reported. */
    reason: undefined as string | undefined,
    ready: 0,
    restarts: 0,
    lastRestartMs: 0,
    sidecarRestarts: 0,
    lastSidecarRestartMs: 0,
  };
  for (const [index, container] of (pod.status?.initContainerStatuses ?? []).entries()) {
    out.restarts += container.restartCount;
    out.lastRestartMs = Math.max(out.lastRestartMs, finishedMs(container.lastState));
    const isSidecar = sidecars.has(container.name);
    if (isSidecar) {
      out.sidecarRestarts += container.restartCount;
      out.lastSidecarRestartMs = Math.max(out.lastSidecarRestartMs, finishedMs(container.lastState));
    }
    if (container.state?.terminated?.exitCode === 0) continue;
    if (isSidecar && container.started) {
      if (container.ready) out.ready++;
      continue;
    }
    out.reason = initReason(container, index, containers.length);
    break;
  }
  return out;
}

function initReason(container: ContainerStatus, index: number, total: number): string {
  const { terminated, waiting } = container.state ?? {};
  if (terminated) return `Init:${terminated.reason || exitText(terminated)}`;
  if (waiting?.reason && waiting.reason !== "PodInitializing") return `Init:${waiting.reason}`;
  return `Init:${index}/${total}`;
}

const exitText = (ended: { readonly signal?: number; readonly exitCode: number }): string =>
  ended.signal ? `Signal:${ended.signal}` : `ExitCode:${ended.exitCode}`;

function finishedMs(state: ContainerState | undefined): number {
  const at = state?.terminated?.finishedAt;
  return at ? Date.parse(at) : 0;
}
