// Why parts of one pod are not started just now: a container that ends again and again, an image that does not come, a setting
// that is missing, a sandbox that failed. Until when each waits, what the API shows meanwhile, and what events say of it, once per
// pause. Bounded by the pod's containers. Counterpart: the kubelet's backOff and its reasonCache.
import type { Pod } from "#model/gen/core-v1.ts";
import type { StartFailure } from "./apply.ts";
import { BackOff } from "./back-off.ts";
import { createPullBackOff, pullWaiting } from "./images.ts";
import { containerOf, type Plan, podLabel, sandboxHold } from "./plan.ts";
import { toldStatuses } from "./status.ts";

const crashMs = { initialMs: 10_000, maxMs: 300_000 } as const;
/** A network that is not up yet is up within seconds. */
const sandboxRetryMs = 1_000;

/** Of a container. */
export type SayOf = (name: string, type: "Normal" | "Warning", reason: string, message: string) => void;

export class Holds {
  /** Of pulls of this pod. */
  readonly pulls = createPullBackOff();
  readonly #failures = new Map<string, StartFailure>();
  readonly #crashes = new BackOff(crashMs);
  readonly #said = new Map<string, number>();
  #sandboxUntilMs = 0;

  /** The container is about to be started again after it ended at `exitMs`. */
  restarts(name: string, exitMs: number, nowMs: number): void {
    this.#crashes.next(name, exitMs, nowMs);
  }

  crashDelayMs(name: string, finishedAtMs: number): number {
    return this.#crashes.delayMs(name, finishedAtMs);
  }

  /** What came of a start; undefined: it runs. */
  started(name: string, failure: StartFailure | undefined): void {
    if (failure) this.#failures.set(name, failure);
    else this.#failures.delete(name);
  }

  /** It is another container from here on, against which nothing is held. */
  forget(name: string): void {
    this.#crashes.forget(name);
    this.#failures.delete(name);
  }

  sandboxFailed(nowMs: number): void {
    this.#sandboxUntilMs = nowMs + sandboxRetryMs;
  }

  sandboxMade(): void {
    this.#sandboxUntilMs = 0;
  }

  /** Of a container, or of the sandbox under its name in plans. */
  untilMs(name: string): number {
    return name === sandboxHold ? this.#sandboxUntilMs : (this.#failures.get(name)?.retryAtMs ?? 0);
  }

  /** Events for waiting that is not an action; said once per pause. */
  say(pod: Pod, plan: Plan, event: SayOf): void {
    for (const [name, failure] of this.#failures) {
      if (!failure.isPull || failure.waiting.reason !== "ErrImagePull" || this.#said.get(name) === failure.retryAtMs)
        continue;
      this.#said.set(name, failure.retryAtMs);
      event(name, "Normal", "BackOff", `Back-off pulling image "${containerOf(pod, name)?.image ?? ""}"`);
      event(name, "Warning", "Failed", "Error: ImagePullBackOff");
    }
    for (const [name, waiting] of plan.waiting) {
      if (waiting.reason !== "CrashLoopBackOff") continue;
      const until = plan.wakeAtMs ?? 0;
      if (this.#said.get(name) === until) continue;
      this.#said.set(name, until);
      event(name, "Warning", "BackOff", `Back-off restarting failed container ${name} in pod ${podLabel(pod)}`);
    }
  }

  /** Waiting reasons as the API shows them: the plan's, and those of failed starts. `pod` has the status told last. */
  waiting(pod: Pod, plan: Plan): Plan["waiting"] {
    const out = new Map(plan.waiting);
    if (plan.finished) return out;
    for (const [name, failure] of this.#failures) {
      const spec = containerOf(pod, name);
      if (!spec || out.get(name)?.reason === "CrashLoopBackOff") continue;
      // A pull that failed a moment ago shows its error first and the pause after.
      const isPause =
        failure.isPull && failure.waiting.reason === "ErrImagePull" && toldWaiting(pod, name) === "ErrImagePull";
      out.set(name, isPause ? pullWaiting(spec) : failure.waiting);
    }
    return out;
  }
}

function toldWaiting(pod: Pod, name: string): string | undefined {
  const reason = toldStatuses(pod).find((s) => s.name === name)?.state?.waiting?.reason;
  return reason === "ImagePullBackOff" ? "ErrImagePull" : reason;
}
