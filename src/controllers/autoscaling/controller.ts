// Horizontal autoscalers: every 15 seconds, for each there is, what its metrics ask for goes into the scale of its target. Changes
// of the object wait for its next round, so that writing its status asks for nothing. The first sight of an autoscaler only
// has its pods measured: by the first round there is something to compare with.
// Upstream counterpart: pkg/controller/podautoscaler.
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import type { HorizontalPodAutoscaler, MetricStatus } from "#model/gen/autoscaling-v2.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { type LabelRequirement, matchesRequirements, parseLabelSelector } from "#model/label-selector.ts";
import { podMetrics } from "#model/metrics.ts";
import { isDeleting, keyOf, nameOf, namespaceOf, splitKey } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { horizontalPodAutoscalers, pods } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import type { AutoscalerSettings } from "../arguments.ts";
import { type ControllerDeps, createController, on, waitFor } from "../runtime/controller.ts";
import { isEqual } from "../runtime/equal.ts";
import { type FoundScale, mappingsOf, readScale, writeScale } from "../runtime/scale.ts";
import { type Memory, nothingRemembered, withScaleEvent } from "./behavior.ts";
import { readMetric } from "./metrics-client.ts";
import {
  Conditions,
  type Decision,
  type Note,
  planRound,
  type Reading,
  type SelectorFailure,
  wantsMetrics,
} from "./plan.ts";

const name = "horizontal-pod-autoscaler";
const secondsBuckets = [
  0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];

interface Known {
  memory: Memory;
  /** Of the target, as last seen. */
  selector: readonly LabelRequirement[] | undefined;
}

export function createHorizontalAutoscaler(
  deps: ControllerDeps,
  { periodMs, downWindowMs }: AutoscalerSettings,
): Service {
  const { client, clock, informers } = deps;
  const store = informers.informer(horizontalPodAutoscalers);
  const podStore = informers.informer(pods);
  const events = deps.events.as(name);
  const log = deps.log.child({ controller: name });
  /** By key; as many as there are autoscalers. */
  const known = new Map<string, Known>();
  const rounds = deps.metrics.counter(
    "horizontal_pod_autoscaler_controller_reconciliations_total",
    "Looks at an autoscaler, by outcome.",
  );
  const computations = deps.metrics.counter(
    "horizontal_pod_autoscaler_controller_metric_computation_total",
    "Values of metrics worked out, by outcome.",
  );
  const seconds = deps.metrics.histogram(
    "horizontal_pod_autoscaler_controller_reconciliation_duration_seconds",
    "How long a look at an autoscaler takes.",
    secondsBuckets,
  );

  const say = (autoscaler: HorizontalPodAutoscaler, { type, reason, message }: Note) =>
    events.record({ resource: horizontalPodAutoscalers as ResourceInfo, object: autoscaler, type, reason, message });

  async function writeStatus(
    autoscaler: HorizontalPodAutoscaler,
    change: {
      readonly currentReplicas: number;
      readonly desiredReplicas: number;
      readonly conditions: Decision["conditions"];
      readonly currentMetrics: readonly MetricStatus[];
      readonly scaled: boolean;
    },
  ): Promise<void> {
    const old = autoscaler.status;
    const lastScaleTime = change.scaled ? rfc3339(clock.now()) : old?.lastScaleTime;
    const status = {
      ...(lastScaleTime === undefined ? {} : { lastScaleTime }),
      currentReplicas: change.currentReplicas,
      desiredReplicas: change.desiredReplicas,
      currentMetrics: [...change.currentMetrics],
      conditions: [...change.conditions],
    };
    const isSame = isEqual(
      { ...old, currentReplicas: old?.currentReplicas ?? 0, currentMetrics: old?.currentMetrics ?? [] },
      status,
    );
    if (isSame) return;
    try {
      await client.updateStatus(horizontalPodAutoscalers, { ...autoscaler, status });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  async function unableToGetScale(autoscaler: HorizontalPodAutoscaler, error: unknown): Promise<void> {
    say(autoscaler, { type: "Warning", reason: "FailedGetScale", message: messageOf(error) });
    const conditions = new Conditions(autoscaler.status?.conditions ?? [], clock.now());
    const why = `the HPA controller was unable to get the target's current scale: ${messageOf(error)}`;
    conditions.set("AbleToScale", "False", "FailedGetScale", why);
    await writeStatus(autoscaler, {
      currentReplicas: autoscaler.status?.currentReplicas ?? 0,
      desiredReplicas: autoscaler.status?.desiredReplicas ?? 0,
      currentMetrics: autoscaler.status?.currentMetrics ?? [],
      conditions: conditions.list,
      scaled: false,
    });
  }

  /** Its target's pods; or why they cannot be named. */
  function podsOf(
    autoscaler: HorizontalPodAutoscaler,
    selector: string,
  ): { readonly pods: readonly Pod[]; readonly failure?: SelectorFailure } {
    const own = known.get(keyOf(autoscaler));
    if (selector === "") {
      const error = "selector is required";
      const message = "the HPA target's scale is missing a selector";
      return { pods: [], failure: { reason: "InvalidSelector", message, error, eventReason: "SelectorRequired" } };
    }
    let requirements: readonly LabelRequirement[];
    try {
      requirements = parseLabelSelector(selector);
    } catch (error) {
      const why = `couldn't convert selector into a corresponding internal selector object: ${messageOf(error)}`;
      return { pods: [], failure: { reason: "InvalidSelector", message: why, error: why } };
    }
    if (own) own.selector = requirements;
    const all = podStore.list(namespaceOf(autoscaler));
    const selected = all.filter((pod) => matchesRequirements(requirements, pod.metadata.labels));
    const claimants = [...known]
      .filter(
        ([key, other]) =>
          splitKey(key).namespace === namespaceOf(autoscaler) &&
          selected.some((pod) => other.selector && matchesRequirements(other.selector, pod.metadata.labels)),
      )
      .map(([key]) => splitKey(key))
      .map((key) => `{${key.name} ${key.namespace}}`);
    if (claimants.length > 1) {
      const why = `pods by selector ${selector} are controlled by multiple HPAs: [${claimants.join(" ")}]`;
      return { pods: [], failure: { reason: "AmbiguousSelector", message: why, error: why } };
    }
    return { pods: selected };
  }

  /** What was done with the scale, as upstream's metrics name it. */
  async function round(autoscaler: HorizontalPodAutoscaler, state: Known): Promise<"none" | "scale_up" | "scale_down"> {
    const { scaleTargetRef, metrics = [] } = autoscaler.spec;
    const namespace = namespaceOf(autoscaler);
    let found: FoundScale;
    try {
      const mappings = await mappingsOf(client, scaleTargetRef.apiVersion ?? "", scaleTargetRef.kind);
      found = await readScale(client, mappings, namespace, scaleTargetRef.name);
    } catch (error) {
      await unableToGetScale(autoscaler, error);
      throw error;
    }
    const specReplicas = found.scale.spec?.replicas ?? 0;
    const selector = found.scale.status?.selector ?? "";
    let selected: readonly Pod[] = [];
    let readings: readonly Reading[] | { readonly failure: SelectorFailure } = [];
    if (wantsMetrics(autoscaler, specReplicas)) {
      const named = podsOf(autoscaler, selector);
      selected = named.pods;
      readings = named.failure
        ? { failure: named.failure }
        : await Promise.all(metrics.map((spec) => readMetric(client, spec, { namespace, selector })));
    }
    const decision = planRound({
      autoscaler,
      scale: { specReplicas, statusReplicas: found.scale.status?.replicas ?? 0 },
      ...{ pods: selected, readings, memory: state.memory },
      ...{ nowMs: clock.now(), monotonicMs: clock.monotonicMs(), downWindowMs },
    });
    const { desiredReplicas: wanted, rescaleTo, rescaleReason } = decision;
    const action = rescaleTo === undefined ? "none" : wanted > specReplicas ? "scale_up" : "scale_down";
    for (const [index, spec] of (Array.isArray(readings) ? metrics : []).entries()) {
      const isFailure = (readings as readonly Reading[])[index]?.kind === "failure";
      computations.add(1, { action, error: isFailure ? "internal" : "none", metric_type: spec.type });
    }
    state.memory = decision.memory;
    for (const note of decision.notes) say(autoscaler, note);
    const status = { currentReplicas: specReplicas, currentMetrics: decision.currentMetrics };
    if (rescaleTo === undefined) {
      const { desiredReplicas, conditions } = decision;
      await writeStatus(autoscaler, { ...status, desiredReplicas, conditions, scaled: false });
      if (decision.failed) throw new Error("the metrics do not say how many replicas there should be");
      return action;
    }
    const conditions = new Conditions(decision.conditions, clock.now());
    try {
      await writeScale(client, found, rescaleTo);
    } catch (error) {
      const why = messageOf(error);
      const message = `New size: ${rescaleTo}; reason: ${rescaleReason}; error: ${why}`;
      say(autoscaler, { type: "Warning", reason: "FailedRescale", message });
      const about = `the HPA controller was unable to update the target scale: ${why}`;
      conditions.set("AbleToScale", "False", "FailedUpdateScale", about);
      const desiredReplicas = autoscaler.status?.desiredReplicas ?? 0;
      await writeStatus(autoscaler, { ...status, desiredReplicas, conditions: conditions.list, scaled: false });
      throw error;
    }
    const done = `the HPA controller was able to update the target scale to ${rescaleTo}`;
    conditions.set("AbleToScale", "True", "SucceededRescale", done);
    const message = `New size: ${rescaleTo}; reason: ${rescaleReason}`;
    say(autoscaler, { type: "Normal", reason: "SuccessfulRescale", message });
    state.memory = withScaleEvent(state.memory, autoscaler.spec, specReplicas, rescaleTo, clock.monotonicMs());
    await writeStatus(autoscaler, { ...status, desiredReplicas: rescaleTo, conditions: conditions.list, scaled: true });
    return action;
  }

  /** Has the pods measured, so that the first round has a while to compare with. What goes wrong shows there. */
  async function warmUp(autoscaler: HorizontalPodAutoscaler): Promise<void> {
    try {
      await client.list(podMetrics, { namespace: namespaceOf(autoscaler) });
    } catch (error) {
      log.debug("cannot measure pods yet", { autoscaler: nameOf(autoscaler), error: messageOf(error) });
    }
  }

  return createController(
    {
      name,
      workers: 5,
      triggers: [on(store, (autoscaler, how) => (how === "update" ? [] : [keyOf(autoscaler)])), waitFor(podStore)],
      async sync(key, again) {
        const autoscaler = store.get(key);
        if (!autoscaler) {
          known.delete(key);
          return;
        }
        if (isDeleting(autoscaler)) return;
        again(periodMs);
        const state = known.get(key);
        if (!state) {
          known.set(key, { memory: nothingRemembered, selector: undefined });
          await warmUp(autoscaler);
          return;
        }
        const startedMs = clock.monotonicMs();
        let error = "none";
        let action = "none";
        try {
          action = await round(autoscaler, state);
        } catch (failure) {
          // The next round comes in 15 seconds whatever happens; people read of it in conditions and events.
          error = "internal";
          log.debug("round failed", { key, error: messageOf(failure) });
        }
        rounds.add(1, { action, error });
        seconds.observe((clock.monotonicMs() - startedMs) / 1000, { action, error });
      },
    },
    deps,
  );
}
