// What to do next for one pod: desired spec + what runs + what probes say + the time → actions. Pure, so that the
// restart matrix, back-off and init order are tables of tests. The worker applies the actions, observes again and asks
// again, until there is nothing to do. Counterpart: the kubelet's computePodActions.
import type { Container, Pod } from "#model/gen/core-v1.ts";
import type { ContainerUpdate } from "./actuate.ts";
import { goSeconds } from "./back-off.ts";
import {
  newestContainer,
  type ObservedContainer,
  type PodObservation,
  type ProbeView,
  readySandbox,
} from "./observation.ts";
import { needsRestart, pendingChange } from "./resize.ts";

export interface PlanInput {
  readonly pod: Pod;
  readonly nowMs: number;
  readonly observed: PodObservation;
  readonly probe: (container: ObservedContainer) => ProbeView;
  /** Pause after an exit at `finishedAtMs` of the named container; 0 for none. */
  readonly backOffMs: (containerName: string, finishedAtMs: number) => number;
  /** The wall-clock time before which the named container must not be tried again (failed pull or creation). */
  readonly holdUntilMs: (containerName: string) => number;
  /** The cgroup of the pod may not have the limits that it has been allocated. */
  readonly cgroupIsStale?: boolean;
  /** The node ends the pod or refuses it (eviction, admission, shutdown): for good, with this word. */
  readonly ending?: { readonly failure: PodFailure } | undefined;
}

export type Action =
  | { readonly kind: "create-sandbox"; readonly attempt: number }
  /** Ends all containers and the sandbox, because the pod has run to its end or its sandbox is broken. */
  | { readonly kind: "stop-pod"; readonly why: "finished" | "sandbox-changed" | "deadline" | "ended" }
  | {
      readonly kind: "start";
      readonly container: Container;
      readonly role: ContainerRole;
      readonly attempt: number;
      /** When it is a restart: the exit that counts towards back-off. */
      readonly afterExitMs?: number;
    }
  | {
      readonly kind: "kill";
      readonly id: string;
      readonly name: string;
      readonly message: string;
      /** It is started again, to have other resources. */
      readonly restarts?: true;
      /** Of the probe that failed; default the pod's. */
      readonly graceSeconds?: number;
    }
  /** Gives cgroups what has been allocated: of the pod, and of these running containers. */
  | { readonly kind: "resize"; readonly updates: readonly ContainerUpdate[] }
  | { readonly kind: "remove"; readonly id: string };

export type ContainerRole = "init" | "sidecar" | "main" | "ephemeral";

export interface Waiting {
  readonly reason: string;
  readonly message?: string;
}

export interface Plan {
  readonly actions: readonly Action[];
  /** When to ask again although nothing has happened. */
  readonly wakeAtMs?: number;
  /** Why containers that are not running are not, by name. */
  readonly waiting: ReadonlyMap<string, Waiting>;
  /** The pod has reached its end: no container will be started again. */
  readonly finished: boolean;
  /** Running containers do not have yet what they have been allocated. */
  readonly resizing?: boolean;
  /** status.reason/message of a pod that was ended from above. */
  readonly failure?: PodFailure;
}

export interface PodFailure {
  readonly reason: string;
  readonly message: string;
  /** Why the node took the pod down although it was well: the DisruptionTarget condition's message. */
  readonly disruption?: string;
}

export function roleOf(pod: Pod, container: Container): ContainerRole {
  const isThis = (c: Container) => c.name === container.name;
  if (pod.spec.initContainers?.some(isThis)) return container.restartPolicy === "Always" ? "sidecar" : "init";
  return ephemeralContainers(pod).some(isThis) ? "ephemeral" : "main";
}

export function planPod(input: PlanInput): Plan {
  const { pod, observed, nowMs } = input;
  const waiting = new Map<string, Waiting>();
  let wakeAtMs: number | undefined;
  const wake = (atMs: number) => {
    wakeAtMs = wakeAtMs === undefined ? atMs : Math.min(wakeAtMs, atMs);
  };
  const updates: ContainerUpdate[] = [];
  let resizing = false;
  const done = (actions: Action[], finished = false, failure?: Plan["failure"]): Plan => ({
    actions,
    waiting,
    finished,
    ...(wakeAtMs === undefined ? {} : { wakeAtMs }),
    ...(failure ? { failure } : {}),
    ...(resizing ? { resizing } : {}),
  });

  // What controllers have counted as ended is never started again, even where its containers are no longer known.
  if (pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed") {
    return done(anythingUp(observed) ? [{ kind: "stop-pod", why: "finished" }] : [], true);
  }

  if (input.ending) {
    const { failure } = input.ending;
    return done(anythingUp(observed) ? [{ kind: "stop-pod", why: "ended" }] : [], true, failure);
  }

  const startedAtMs = pod.status?.startTime ? Date.parse(pod.status.startTime) : undefined;
  if (pod.spec.activeDeadlineSeconds !== undefined && startedAtMs !== undefined) {
    const deadlineMs = startedAtMs + pod.spec.activeDeadlineSeconds * 1000;
    if (nowMs >= deadlineMs) {
      const failure = {
        reason: "DeadlineExceeded",
        message: "Pod was active on the node longer than the specified deadline",
      };
      return done(anythingUp(observed) ? [{ kind: "stop-pod", why: "deadline" }] : [], true, failure);
    }
    wake(deadlineMs);
  }

  if (isFinished(pod, observed)) {
    return done(anythingUp(observed) ? [{ kind: "stop-pod", why: "finished" }] : [], true);
  }

  const sandbox = readySandbox(observed);
  if (!sandbox) {
    const newest = observed.sandboxes[0];
    for (const c of allContainers(pod)) waiting.set(c.name, defaultWaiting(pod));
    if (newest && observed.containers.some(mayBeUp)) {
      return done([{ kind: "stop-pod", why: "sandbox-changed" }]);
    }
    const holdMs = input.holdUntilMs(sandboxHold);
    if (holdMs > nowMs) {
      wake(holdMs);
      return done([]);
    }
    return done([{ kind: "create-sandbox", attempt: newest ? newest.attempt + 1 : 0 }]);
  }

  const actions: Action[] = garbage(observed);

  /** Handles a container that does not run: starts it, or says until when it must wait. */
  const start = (container: Container, previous: ObservedContainer | undefined) => {
    const role = roleOf(pod, container);
    const holdMs = input.holdUntilMs(container.name);
    if (holdMs > nowMs) {
      wake(holdMs);
      return;
    }
    if (previous?.state === "exited" && !previous.mustRestart) {
      const pauseMs = input.backOffMs(container.name, previous.finishedAtMs);
      if (nowMs < previous.finishedAtMs + pauseMs) {
        wake(previous.finishedAtMs + pauseMs);
        waiting.set(container.name, {
          reason: "CrashLoopBackOff",
          message: `back-off ${goSeconds(pauseMs)} restarting failed container=${container.name} pod=${podLabel(pod)}`,
        });
        return;
      }
    }
    // A container that was made but could not be started leaves a husk with the same attempt; count on from the newest.
    const attempt = previous ? previous.attempt + 1 : 0;
    actions.push({
      kind: "start",
      container,
      role,
      attempt,
      ...(previous?.state === "exited" && !previous.mustRestart ? { afterExitMs: previous.finishedAtMs } : {}),
    });
  };

  /** True when the running container must be ended; the next round starts it again if policy says so. */
  const mustEnd = (container: Container, running: ObservedContainer): boolean => {
    if (running.hash !== containerHash(container)) {
      actions.push(kill(running, `Container ${container.name} definition changed, will be restarted`));
      return true;
    }
    const { failed } = input.probe(running);
    if (!failed) return false;
    const again = pod.spec.restartPolicy === "Never" && roleOf(pod, container) === "main" ? "" : ", will be restarted";
    const probe = failed === "liveness" ? container.livenessProbe : container.startupProbe;
    const graceSeconds = probe?.terminationGracePeriodSeconds;
    actions.push({
      ...kill(running, `Container ${container.name} failed ${failed} probe${again}`),
      ...(graceSeconds === undefined ? {} : { graceSeconds }),
    });
    return true;
  };

  /** A running container that does not have what it has been allocated is changed, or ended to come back with it. */
  const resize = (container: Container, running: ObservedContainer): void => {
    const change = pendingChange(container, running.limits);
    if (!change || !running.limits) return;
    resizing = true;
    if (needsRestart(container, change)) {
      actions.push({ ...kill(running, `Container ${container.name} resize requires restart`), restarts: true });
    } else updates.push({ id: running.id, container, from: running.limits });
  };

  /** What the runtime has lost sight of may still run: it is ended before anything takes its place. */
  const endUnknown = (seen: ObservedContainer | undefined): boolean => {
    if (seen?.state !== "unknown") return false;
    actions.push(kill(seen, "Container is in unknown state, try killing it before restart"));
    return true;
  };

  // Asked for by people who look into the pod: at any time, once.
  for (const container of ephemeralContainers(pod)) {
    const seen = newestContainer(observed, container.name);
    if (!seen || seen.state === "created") start(container, seen);
    if (!seen && !waiting.has(container.name)) waiting.set(container.name, { reason: "ContainerCreating" });
  }

  const mainSeen = (pod.spec.containers ?? []).some((c) => newestContainer(observed, c.name, sandbox.id));
  let initialized = true;
  for (const container of pod.spec.initContainers ?? []) {
    const sidecar = container.restartPolicy === "Always";
    const newest = newestContainer(observed, container.name);
    const here = newestContainer(observed, container.name, sandbox.id);
    if (!sidecar) {
      if (mainSeen || (here?.state === "exited" && here.exitCode === 0)) continue;
      initialized = false;
      if (here?.state !== "running" && !endUnknown(here)) start(container, newest);
      break;
    }
    if (here?.state === "running") {
      if (mustEnd(container, here) || (!mainSeen && !input.probe(here).started)) {
        initialized = mainSeen;
        if (!mainSeen) break;
      }
      continue;
    }
    if (!endUnknown(here)) start(container, newest);
    if (!mainSeen) {
      initialized = false;
      break;
    }
  }

  for (const container of pod.spec.containers ?? []) {
    if (!initialized) {
      waiting.set(container.name, { reason: "PodInitializing" });
      continue;
    }
    const newest = newestContainer(observed, container.name);
    const here = newestContainer(observed, container.name, sandbox.id);
    if (here?.state === "running") {
      if (!mustEnd(container, here)) resize(container, here);
      continue;
    }
    if (newest && !mayRestart(pod.spec.restartPolicy, newest)) continue;
    if (endUnknown(here)) continue;
    if (!here) waiting.set(container.name, defaultWaiting(pod));
    start(container, newest);
  }
  for (const container of pod.spec.initContainers ?? []) {
    if (!newestContainer(observed, container.name, sandbox.id) && !waiting.has(container.name)) {
      waiting.set(container.name, { reason: "PodInitializing" });
    }
  }
  if (updates.length === 0 && !input.cgroupIsStale) return done(actions);
  const holdMs = input.holdUntilMs(resizeHold);
  if (holdMs > nowMs) {
    wake(holdMs);
    return done(actions);
  }
  // After what ends and before what starts: no container ever may more than its pod.
  const starts = actions.filter((action) => action.kind === "start");
  return done([...actions.filter((action) => action.kind !== "start"), { kind: "resize", updates }, ...starts]);
}

/** Key of `holdUntilMs` for the sandbox itself; no container can have this name. */
export const sandboxHold = "/sandbox";
/** And of a resize that could not be done. */
export const resizeHold = "/resize";

/** Whether policy starts the container again after it has ended (or never came up). */
export function mayRestart(policy: string | undefined, container: ObservedContainer): boolean {
  if (container.state === "created" || (container.state === "exited" && container.mustRestart)) return true;
  if (container.state === "running") return false;
  // It has run, and how it ended nobody knows any more: a pod that runs once is not run twice.
  if (container.state === "unknown") return policy !== "Never" || container.startedAtMs === 0;
  if (policy === "Never") return false;
  if (policy === "OnFailure") return container.exitCode !== 0;
  return true;
}

/** No container will ever run again: all main ones ended for good, or an init container failed for good. */
export function isFinished(pod: Pod, observed: PodObservation): boolean {
  const policy = pod.spec.restartPolicy ?? "Always";
  if (policy === "Always") return false;
  for (const init of pod.spec.initContainers ?? []) {
    const c = newestContainer(observed, init.name);
    if (init.restartPolicy !== "Always" && policy === "Never" && c?.state === "exited" && c.exitCode !== 0) return true;
  }
  const newest = (pod.spec.containers ?? []).map((c) => newestContainer(observed, c.name));
  // With Never, containers that were lost with their sandbox are not made again.
  const anyEnded = newest.some((c) => c !== undefined && c.state !== "running" && !mayRestart(policy, c));
  const sandboxLost = observed.sandboxes.length > 0 && !readySandbox(observed);
  return newest.every((c) =>
    c === undefined ? policy === "Never" && anyEnded && sandboxLost : !mayRestart(policy, c) && c.state !== "running",
  );
}

/** Identity of what a container runs; a change means: replace it. Name and image only, as upstream since 1.31. */
export function containerHash(container: Container): string {
  // FNV-1a over the two fields; collisions only delay a restart, they lose nothing.
  let hash = 0x811c9dc5;
  for (const char of `${container.name}\0${container.image ?? ""}`) {
    hash = Math.imul(hash ^ char.codePointAt(0)!, 0x01000193) >>> 0;
  }
  return hash.toString(16);
}

export const podLabel = (pod: Pod): string =>
  `${pod.metadata.name}_${pod.metadata.namespace}(${pod.metadata.uid ?? ""})`;

/** Containers that people add to a running pod; but for their target they are containers like others. */
export const ephemeralContainers = (pod: Pod): readonly Container[] =>
  (pod.spec.ephemeralContainers ?? []) as readonly Container[];

export const allContainers = (pod: Pod): readonly Container[] => [
  ...(pod.spec.initContainers ?? []),
  ...(pod.spec.containers ?? []),
  ...ephemeralContainers(pod),
];

export const containerOf = (pod: Pod, name: string): Container | undefined =>
  allContainers(pod).find((c) => c.name === name);

/** What a container waits with before its turn: all of a pod that has init containers wait for its initialization. */
function defaultWaiting(pod: Pod): Waiting {
  return { reason: (pod.spec.initContainers?.length ?? 0) > 0 ? "PodInitializing" : "ContainerCreating" };
}

export const mayBeUp = (c: ObservedContainer): boolean =>
  c.state === "running" || (c.state === "unknown" && c.sandboxId !== "");

const anythingUp = (observed: PodObservation): boolean =>
  observed.containers.some(mayBeUp) || observed.sandboxes.some((s) => s.ready);

const kill = (container: ObservedContainer, message: string): Extract<Action, { kind: "kill" }> => ({
  kind: "kill",
  id: container.id,
  name: container.name,
  message,
});

/** Dead instances beyond the one that `kubectl logs --previous` and lastState need. */
function garbage(observed: PodObservation): Action[] {
  const dead = new Map<string, number>();
  const seen = new Set<string>();
  const actions: Action[] = [];
  for (const c of observed.containers) {
    const isNewest = !seen.has(c.name);
    seen.add(c.name);
    if (mayBeUp(c) || c.sandboxId === "") continue;
    const count = (dead.get(c.name) ?? 0) + 1;
    dead.set(c.name, count);
    // The newest may be the state itself; one older stays as lastState.
    if (count > (isNewest || observed.containers.find((o) => o.name === c.name)?.state !== "running" ? 2 : 1)) {
      actions.push({ kind: "remove", id: c.id });
    }
  }
  return actions;
}
