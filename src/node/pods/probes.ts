// Probing of running containers: one loop per probe of a container instance, started and ended by `sync`. Results decide
// readiness and restarts (plan.ts, status.ts read them as ProbeView); each change of a result wakes the pod's worker.
// Loops are bounded by the containers of this node's pods. Counterpart: the kubelet's prober.
import type { Random } from "#base/clock.ts";
import type { Container, Pod, Probe } from "#model/gen/core-v1.ts";
import { type HandlerDeps, type HandlerTarget, runHandler } from "./handlers.ts";
import type { ObservedContainer, ProbeView } from "./observation.ts";
import type { ProbeCounts } from "./probe-counts.ts";

export type ProbeKind = "startup" | "liveness" | "readiness";

export interface ProbesDeps extends HandlerDeps {
  readonly random: Random;
  readonly counts?: ProbeCounts;
  /** Something about the pod's probes has changed. */
  readonly onChange: (podUid: string) => void;
  readonly onUnhealthy: (podUid: string, containerName: string, message: string) => void;
}

interface Watched {
  readonly podUid: string;
  readonly abort: AbortController;
  started: boolean;
  ready: boolean;
  failed?: "liveness" | "startup";
}

/** No program listens the moment it is started; a failure then would cost a whole period. */
const firstProbeMs = 500;

const kinds: readonly ProbeKind[] = ["startup", "liveness", "readiness"];
const titles: Readonly<Record<ProbeKind, string>> = {
  startup: "Startup",
  liveness: "Liveness",
  readiness: "Readiness",
};

const probeOf = (container: Container, kind: ProbeKind): Probe | undefined => container[`${kind}Probe`];

export class Probes {
  readonly #deps: ProbesDeps;
  readonly #containers = new Map<string, Watched>();
  readonly #loops = new Set<Promise<void>>();

  constructor(deps: ProbesDeps) {
    this.#deps = deps;
  }

  view(container: ObservedContainer, pod: Pod): ProbeView {
    return this.#containers.get(container.id) ?? viewBefore(container, specOf(pod, container.name), pod);
  }

  /** Probes exactly the running containers of the pod. `ip` is where its servers listen. */
  sync(pod: Pod, running: readonly ObservedContainer[], ip: string): void {
    const podUid = pod.metadata.uid ?? "";
    const ids = new Set(running.map((c) => c.id));
    for (const [id, watched] of this.#containers) if (watched.podUid === podUid && !ids.has(id)) this.#end(id, watched);
    for (const observed of running) {
      if (this.#containers.has(observed.id)) continue;
      const spec = specOf(pod, observed.name);
      if (!spec) continue;
      const before = viewBefore(observed, spec, pod);
      const watched: Watched = { podUid, abort: new AbortController(), ...before };
      this.#containers.set(observed.id, watched);
      for (const kind of kinds) {
        const probe = probeOf(spec, kind);
        if (!probe || (kind === "startup" && watched.started)) continue;
        const target = { containerId: observed.id, container: spec, ip };
        const loop = this.#loop(pod, watched, kind, probe, target, toldStatus(observed, pod) !== undefined);
        this.#loops.add(loop);
        // Every failure inside is a probe result; what is left is the abort that ends the loop.
        loop.catch(() => {}).finally(() => this.#loops.delete(loop));
      }
      if (!spec.readinessProbe && watched.started) watched.ready = true;
    }
  }

  /** No probes of this pod any more; before its containers are ended. */
  forget(podUid: string): void {
    for (const [id, watched] of this.#containers) if (watched.podUid === podUid) this.#end(id, watched);
    this.#deps.counts?.forget(podUid);
  }

  async close(): Promise<void> {
    for (const [id, watched] of this.#containers) this.#end(id, watched);
    await Promise.allSettled([...this.#loops]);
  }

  #end(id: string, watched: Watched): void {
    watched.abort.abort(new Error("no longer probed"));
    this.#containers.delete(id);
  }

  async #loop(
    pod: Pod,
    watched: Watched,
    kind: ProbeKind,
    probe: Probe,
    target: HandlerTarget,
    adopted: boolean,
  ): Promise<void> {
    const { clock, random, onChange, onUnhealthy } = this.#deps;
    const { signal } = watched.abort;
    const periodMs = (probe.periodSeconds || 10) * 1000;
    const failureThreshold = probe.failureThreshold || 3;
    const successThreshold = probe.successThreshold || 1;
    let successes = 0;
    let failures = 0;
    // After a restart of the agent all loops begin at once; spread them over a period.
    if (adopted) await clock.sleep(random.float() * periodMs, signal);
    else await clock.sleep(Math.max((probe.initialDelaySeconds ?? 0) * 1000, firstProbeMs), signal);
    for (;;) {
      // Liveness and readiness wait for the startup probe.
      if (kind === "startup" || watched.started) {
        const startedMs = clock.monotonicMs();
        const result = await runHandler(probe, target, probe.timeoutSeconds || 1, this.#deps, signal);
        signal.throwIfAborted();
        const outcome = result.ok ? "successful" : "failed";
        this.#deps.counts?.record(pod, target.container.name, kind, outcome, clock.monotonicMs() - startedMs);
        if (result.ok) {
          successes++;
          failures = 0;
        } else {
          failures++;
          successes = 0;
          onUnhealthy(watched.podUid, target.container.name, `${titles[kind]} probe failed: ${result.output}`);
        }
        if (successes >= successThreshold && this.#passed(watched, kind, target.container)) onChange(watched.podUid);
        if (failures >= failureThreshold && this.#failed(watched, kind)) onChange(watched.podUid);
        if (kind === "startup" && watched.started) return;
        if (kind !== "readiness" && watched.failed) return;
      }
      await clock.sleep(kind !== "startup" && !watched.started ? Math.min(periodMs, 1000) : periodMs, signal);
    }
  }

  /** True when it changed something. */
  #passed(watched: Watched, kind: ProbeKind, spec: Container): boolean {
    if (kind === "readiness") {
      if (watched.ready) return false;
      watched.ready = true;
      return true;
    }
    if (kind !== "startup" || watched.started) return false;
    watched.started = true;
    if (!spec.readinessProbe) watched.ready = true;
    return true;
  }

  #failed(watched: Watched, kind: ProbeKind): boolean {
    if (kind === "readiness") {
      if (!watched.ready) return false;
      watched.ready = false;
      return true;
    }
    if (watched.failed) return false;
    watched.failed = kind;
    return true;
  }
}

/** Ephemeral containers have no probes. */
const specOf = (pod: Pod, name: string): Container | undefined =>
  [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])].find((c) => c.name === name);

/** What the API was told about this very container, by this run or one before. */
const toldStatus = (container: ObservedContainer, pod: Pod) =>
  [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])].find(
    (s) => s.containerID === `containerd://${container.id}`,
  );

/**
 * Before the first probe: what has no probe of a kind passes it, and a container taken over from an earlier run keeps its
 * word until a probe says otherwise, so that no endpoint flaps.
 */
function viewBefore(container: ObservedContainer, spec: Container | undefined, pod: Pod): ProbeView {
  const told = toldStatus(container, pod);
  return {
    started: !spec?.startupProbe || told?.started === true,
    ready: (!spec?.readinessProbe && !spec?.startupProbe) || told?.ready === true,
  };
}
