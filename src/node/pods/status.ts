// The status the API shows of a pod, from spec, runtime and probes. Pure. Conditions keep their transition times while
// they do not change, and conditions of others (scheduler, readiness gates) pass through untouched.
// Counterpart: the kubelet's generateAPIPodStatus; texts are the ones users and controllers match on.
import { rfc3339 } from "#base/clock.ts";
import type {
  Container,
  ContainerState,
  ContainerStateTerminated,
  ContainerStatus,
  Pod,
  PodCondition,
  PodStatus,
  VolumeMount,
  VolumeMountStatus,
} from "#model/gen/core-v1.ts";
import {
  newestContainer,
  type ObservedContainer,
  type PodObservation,
  type ProbeView,
  readySandbox,
} from "./observation.ts";
import { ephemeralContainers, mayBeUp, mayRestart, type Plan, roleOf } from "./plan.ts";
import { shownResources } from "./resize.ts";
import { qosClass } from "./resources.ts";

export interface StatusInput {
  /** With the resources that it has been allocated. */
  readonly pod: Pod;
  readonly observed: PodObservation;
  readonly plan: Pick<Plan, "waiting" | "finished" | "failure">;
  readonly probe: (container: ObservedContainer) => ProbeView;
  /** One of each address family, the cluster's first before the other. */
  readonly hostIps: readonly string[];
  readonly nowMs: number;
  /** Whether pods can be resized here: what a container has is shown. */
  readonly showsResources?: boolean;
  /** What has become of a change of resources: status.resize; undefined where all is as asked for. */
  readonly resize?: string | undefined;
  /** Text an ended container left in its termination message file. */
  readonly terminationMessage: (container: ObservedContainer) => string;
  /** The agent has ended every container of a deleted or finished pod. */
  readonly ended?: boolean;
}

export function podStatus(input: StatusInput): PodStatus {
  const { pod, observed } = input;
  const old = pod.status ?? {};
  const sandbox = readySandbox(observed);
  const initStatuses = (pod.spec.initContainers ?? []).map((c) => containerStatus(input, c));
  const statuses = (pod.spec.containers ?? []).map((c) => containerStatus(input, c));
  const ephemeralStatuses = ephemeralContainers(pod).map((c) => containerStatus(input, c));
  // A final phase is told when nothing runs any more: whoever waits for it may take what the pod used.
  const isLast = !input.plan.finished || !observed.containers.some(mayBeUp);
  const phase = !isLast
    ? (old.phase ?? "Running")
    : input.plan.failure
      ? "Failed"
      : podPhase(input, initStatuses, statuses);
  const ips = pod.spec.hostNetwork ? (sandbox ? input.hostIps : []) : (sandbox?.ips ?? []);
  // A finished pod keeps the address it had, as upstream does until it is deleted.
  const shownIps = ips.length > 0 ? ips : (old.podIPs ?? []).map((p) => p.ip ?? "").filter((ip) => ip !== "");
  const conditions = podConditions(input, phase, initStatuses, statuses, sandbox !== undefined);
  return {
    phase,
    conditions,
    ...(input.hostIps[0] === undefined ? {} : { hostIP: input.hostIps[0] }),
    hostIPs: input.hostIps.map((ip) => ({ ip })),
    ...(shownIps.length > 0 ? { podIP: shownIps[0]!, podIPs: shownIps.map((ip) => ({ ip })) } : {}),
    startTime: old.startTime ?? rfc3339(input.nowMs),
    ...(initStatuses.length > 0 ? { initContainerStatuses: initStatuses } : {}),
    containerStatuses: statuses,
    ...(ephemeralStatuses.length > 0 ? { ephemeralContainerStatuses: ephemeralStatuses } : {}),
    qosClass: old.qosClass ?? qosClass(pod),
    ...(input.resize === undefined ? {} : { resize: input.resize }),
    ...terminalReason((isLast ? input.plan.failure : undefined) ?? old),
  };
}

const terminalReason = (old: Pick<PodStatus, "reason" | "message">): { reason?: string; message?: string } => ({
  ...(old.reason === undefined ? {} : { reason: old.reason }),
  ...(old.message === undefined ? {} : { message: old.message }),
});

export function containerStatus(input: StatusInput, container: Container): ContainerStatus {
  const { pod, observed } = input;
  const old = toldStatuses(pod).find((s) => s.name === container.name);
  const newest = newestContainer(observed, container.name);
  const before = newest && observed.containers.find((c) => c.name === container.name && c.id !== newest.id);
  const waiting = input.plan.waiting.get(container.name);
  const role = roleOf(pod, container);
  const probe = newest?.state === "running" ? input.probe(newest) : undefined;

  let state: ContainerState;
  let lastState: ContainerState | undefined;
  const lastOf = (c: ObservedContainer | undefined) =>
    c && c.state !== "running" && c.state !== "created" ? terminated(input, c) : undefined;
  if (!newest) {
    state = old?.state?.terminated && input.plan.finished ? old.state : { waiting: waiting ?? fallbackWaiting(input) };
    lastState = old?.lastState;
  } else if (newest.state === "running") {
    state = { running: { startedAt: rfc3339(newest.startedAtMs) } };
    lastState = lastOf(before) ?? old?.lastState;
  } else if (newest.state === "created") {
    state = { waiting: waiting ?? { reason: "ContainerCreating" } };
    lastState = lastOf(before) ?? old?.lastState;
  } else if (waiting && waiting.reason !== "PodInitializing" && !input.ended) {
    state = { waiting };
    lastState = terminated(input, newest);
  } else {
    state = terminated(input, newest);
    lastState = lastOf(before) ?? old?.lastState;
  }

  const initDone = role === "init" && newest?.state === "exited" && newest.exitCode === 0;
  const hasLast = lastState && Object.keys(lastState).length > 0;
  return {
    name: container.name,
    state,
    lastState: hasLast ? lastState! : {},
    ready: role === "init" ? initDone : role !== "ephemeral" && (probe?.ready ?? false),
    restartCount: Math.max(newest?.attempt ?? 0, old?.restartCount ?? 0),
    image: newest?.image || (container.image ?? ""),
    imageID: newest?.imageId ?? old?.imageID ?? "",
    ...(newest
      ? { containerID: `containerd://${newest.id}` }
      : old?.containerID
        ? { containerID: old.containerID }
        : {}),
    started: probe ? probe.started : false,
    ...(input.showsResources && (role === "main" || role === "sidecar") ? resourcesOf(container, newest) : {}),
    ...(container.volumeMounts && container.volumeMounts.length > 0
      ? { volumeMounts: container.volumeMounts.map(mountStatus) }
      : {}),
  };
}

/** `container` is as it was allocated. */
function resourcesOf(
  container: Container,
  newest: ObservedContainer | undefined,
): Pick<ContainerStatus, "allocatedResources" | "resources"> {
  const requests = container.resources?.requests ?? {};
  return {
    ...(Object.keys(requests).length === 0 ? {} : { allocatedResources: requests }),
    // Present even where it is empty: it tells that this node can resize.
    resources: shownResources(container, newest?.state === "running" ? newest.limits : undefined),
  };
}

/** What the API was told last of each container. */
export const toldStatuses = (pod: Pod): readonly ContainerStatus[] => [
  ...(pod.status?.initContainerStatuses ?? []),
  ...(pod.status?.containerStatuses ?? []),
  ...(pod.status?.ephemeralContainerStatuses ?? []),
];

const mountStatus = (mount: VolumeMount): VolumeMountStatus => ({
  name: mount.name,
  mountPath: mount.mountPath,
  ...(mount.readOnly ? { readOnly: true, recursiveReadOnly: "Disabled" } : {}),
});

const fallbackWaiting = (input: StatusInput) => ({
  reason: (input.pod.spec.initContainers?.length ?? 0) > 0 ? "PodInitializing" : "ContainerCreating",
});

function terminated(input: StatusInput, c: ObservedContainer): ContainerState {
  const known = c.state === "exited";
  const reason = c.reason || (known ? (c.exitCode === 0 ? "Completed" : "Error") : "ContainerStatusUnknown");
  const message = input.terminationMessage(c) || (c.reason === "OOMKilled" ? "" : c.message);
  return {
    terminated: {
      exitCode: exitCodeOf(c),
      reason,
      ...(message ? { message } : {}),
      startedAt: c.startedAtMs > 0 ? rfc3339(c.startedAtMs) : null,
      finishedAt: c.finishedAtMs > 0 ? rfc3339(c.finishedAtMs) : null,
      containerID: `containerd://${c.id}`,
    } as unknown as ContainerStateTerminated,
  };
}

/** What became of a container that nobody can tell about counts as killed. */
const exitCodeOf = (c: ObservedContainer): number => (c.state === "exited" ? c.exitCode : 137);

function podPhase(input: StatusInput, init: ContainerStatus[], main: ContainerStatus[]): string {
  const { pod, observed } = input;
  const oldPhase = pod.status?.phase;
  // Final phases never change back: controllers have counted them already.
  if (oldPhase === "Succeeded" || oldPhase === "Failed") return oldPhase;
  const policy = pod.spec.restartPolicy ?? "Always";
  const newest = (name: string) => newestContainer(observed, name);
  for (const [i, container] of (pod.spec.initContainers ?? []).entries()) {
    if (container.restartPolicy === "Always") {
      if (!init[i]?.started && !main.some((s) => s.state?.running || s.state?.terminated)) return "Pending";
      continue;
    }
    const c = newest(container.name);
    if (c?.state === "exited" && c.exitCode === 0) continue;
    if (c?.state === "exited" && policy === "Never") return "Failed";
    if (!main.some((s) => s.state?.running || s.state?.terminated)) return "Pending";
  }
  let running = 0;
  let ended = 0;
  let failed = 0;
  let waiting = 0;
  for (const status of main) {
    const c = newest(status.name);
    if (status.state?.running) running++;
    else if (c?.state === "exited" || status.state?.terminated) {
      const exitCode = (c && exitCodeOf(c)) ?? status.state?.terminated?.exitCode ?? 137;
      if (c && mayRestart(policy, c) && !input.ended) {
        // Between two runs: it has run, so the pod counts as running.
        running++;
      } else {
        ended++;
        if (exitCode !== 0) failed++;
      }
    } else waiting++;
  }
  if (waiting > 0) return "Pending";
  if (running > 0) return "Running";
  if (ended === 0) return "Pending";
  // A pod that is restarted always has no end of its own; when it is taken down its phase stays as it was.
  if (policy === "Always") return input.ended ? (failed > 0 ? "Failed" : "Succeeded") : "Running";
  return failed > 0 ? "Failed" : "Succeeded";
}

function closedGate(type: string, conditions: readonly PodCondition[]): string {
  const condition = conditions.find((c) => c.type === type);
  return condition
    ? `the status of pod readiness gate "${type}" is not "True", but ${condition.status}`
    : `corresponding condition of pod readiness gate "${type}" does not exist.`;
}

function podConditions(
  input: StatusInput,
  phase: string,
  init: readonly ContainerStatus[],
  main: readonly ContainerStatus[],
  hasSandbox: boolean,
): PodCondition[] {
  const { pod } = input;
  const old = pod.status?.conditions ?? [];
  const now = rfc3339(input.nowMs);
  const set = (type: string, ok: boolean, reason?: string, message?: string): PodCondition => {
    const before = old.find((c) => c.type === type);
    const status = ok ? "True" : "False";
    return {
      type,
      status,
      // Present and empty, as every reader of pod status has always seen it.
      lastProbeTime: null,
      lastTransitionTime: before?.status === status && before.lastTransitionTime ? before.lastTransitionTime : now,
      ...(reason ? { reason } : {}),
      ...(message ? { message } : {}),
    } as unknown as PodCondition;
  };
  const names = (list: readonly string[]) => `[${list.join(" ")}]`;

  const pendingInit = (pod.spec.initContainers ?? []).filter((c, i) =>
    c.restartPolicy === "Always" ? !init[i]?.started : !init[i]?.ready,
  );
  const mainStarted = main.some((s) => s.state?.running || s.state?.terminated || s.lastState?.terminated);
  const initialized = phase === "Succeeded" || pendingInit.length === 0 || mainStarted;
  const unready = [
    ...(pod.spec.initContainers ?? []).filter((c, i) => c.restartPolicy === "Always" && !init[i]?.ready),
    ...(pod.spec.containers ?? []).filter((_, i) => !main[i]?.ready),
  ].map((c) => c.name);
  const gates = (pod.spec.readinessGates ?? []).filter(
    (g) => old.find((c) => c.type === g.conditionType)?.status !== "True",
  );
  const finalReason = phase === "Succeeded" ? "PodCompleted" : phase === "Failed" ? "PodFailed" : undefined;
  const containersReady = finalReason === undefined && unready.length === 0 && main.length > 0;
  const unreadyText = `containers with unready status: ${names(unready)}`;
  const owned = [
    set("PodReadyToStartContainers", hasSandbox && finalReason === undefined && !input.ended),
    initialized
      ? set("Initialized", true, phase === "Succeeded" ? "PodCompleted" : undefined)
      : set(
          "Initialized",
          false,
          "ContainersNotInitialized",
          `containers with incomplete status: ${names(pendingInit.map((c) => c.name))}`,
        ),
    !containersReady || gates.length === 0
      ? containersReady
        ? set("Ready", true)
        : set("Ready", false, finalReason ?? "ContainersNotReady", finalReason ? undefined : unreadyText)
      : set(
          "Ready",
          false,
          "ReadinessGatesNotReady",
          gates.map(({ conditionType }) => closedGate(conditionType, old)).join(", "),
        ),
    containersReady
      ? set("ContainersReady", true)
      : set("ContainersReady", false, finalReason ?? "ContainersNotReady", finalReason ? undefined : unreadyText),
  ];
  const disruption = input.plan.failure?.disruption;
  if (disruption !== undefined) owned.push(set("DisruptionTarget", true, "TerminationByKubelet", disruption));
  const scheduled = old.find((c) => c.type === "PodScheduled") ?? set("PodScheduled", true);
  const ownTypes = new Set(["PodScheduled", ...owned.map((c) => c.type)]);
  return [...owned, scheduled, ...old.filter((c) => !ownTypes.has(c.type))];
}
