// The decision where extenders have a say: the stages of `schedule` with questions to the outside between them. Time passes
// meanwhile, so each stage takes a fresh snapshot, and the chosen node is looked at once more before it is given out.
// Upstream counterpart: findNodesThatPassExtenders, prioritizeNodes, framework/preemption callExtenders.
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Extender } from "./extender.ts";
import { FilterRun, type NodeRejection } from "./filter-run.ts";
import type { PodInfo } from "./pod-info.ts";
import { cheapest } from "./preemption.ts";
import { extenderName } from "./queue.ts";
import {
  best,
  type Decision,
  type Found,
  failure,
  findFeasible,
  type ScheduleOptions,
  scoreNodes,
  tryPreemption,
} from "./schedule.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";

export interface ExtendedDeps {
  readonly snapshot: () => Snapshot;
  readonly extenders: readonly Extender[];
  readonly log: Logger;
}

export async function scheduleExtended(
  pod: PodInfo,
  options: ScheduleOptions,
  deps: ExtendedDeps,
  signal: AbortSignal,
): Promise<Decision> {
  const before = deps.snapshot();
  const found = findFeasible(pod, before, options);
  const nodes = await filter(pod, found, deps, signal);
  if (nodes.length === 0) return noNode(pod, { ...found, nodes }, options, deps, signal);

  const added = await prioritize(pod, nodes, deps, signal);
  const now = deps.snapshot();
  const left = nodes.map(({ name }) => now.byName.get(name)).filter((node) => node !== undefined);
  if (left.length === 0) throw changed();
  const totals = scoreNodes(pod, now, left, options.profile);
  for (const [i, { name }] of left.entries()) totals[i]! += added.get(name) ?? 0;
  options.lap?.("Score", "Success");
  const chosen = best(left, totals, options.pick);
  if (new FilterRun(pod, now, options.profile, options.nominated).rejectionOn(chosen)) throw changed();
  return { kind: "bind", node: chosen.name, examined: found.examined };
}

const changed = (): AppError =>
  new AppError("SCHEDULER_EXTENDER", "the nodes have changed while the extenders were asked");

async function filter(pod: PodInfo, found: Found, deps: ExtendedDeps, signal: AbortSignal): Promise<NodeInfo[]> {
  let nodes = [...found.nodes];
  for (const extender of deps.extenders) {
    if (nodes.length === 0) break;
    if (extender.settings.filterVerb === "" || !extender.isInterestedIn(pod.pod)) continue;
    const answer = await orSkip(extender, deps, () => extender.filter(pod.pod, nodes, signal));
    if (!answer) continue;
    const kept = new Set(answer.nodes);
    for (const { name } of nodes) {
      if (kept.has(name)) continue;
      const forGood = answer.failedForGood.get(name);
      const why = forGood ?? answer.failed.get(name);
      const rejection: NodeRejection = {
        plugin: extenderName,
        reasons: why === undefined ? [] : [why],
        isUnresolvable: forGood !== undefined || why === undefined,
      };
      found.rejections.set(name, rejection);
    }
    nodes = nodes.filter(({ name }) => kept.has(name));
  }
  return nodes;
}

async function noNode(
  pod: PodInfo,
  found: Found,
  options: ScheduleOptions,
  deps: ExtendedDeps,
  signal: AbortSignal,
): Promise<Decision> {
  // The run was prepared on what was known before the extenders answered.
  const now = deps.snapshot();
  const fresh = { ...found, run: new FilterRun(pod, now, options.profile, options.nominated) };
  const outcome = tryPreemption(pod, now, fresh, options);
  let { candidates } = outcome;
  for (const extender of deps.extenders) {
    if (candidates.length === 0) break;
    if (extender.settings.preemptVerb === "" || !extender.isInterestedIn(pod.pod)) continue;
    const asked = candidates;
    candidates =
      (await orSkip(extender, deps, () => extender.preempt(pod.pod, asked, deps.snapshot(), signal))) ?? asked;
  }
  options.lap?.("PostFilter", candidates.length > 0 ? "Success" : "Unschedulable");
  return failure(now, fresh, { ...outcome, candidates }, cheapest(candidates));
}

async function prioritize(
  pod: PodInfo,
  nodes: readonly NodeInfo[],
  deps: ExtendedDeps,
  signal: AbortSignal,
): Promise<Map<string, number>> {
  if (nodes.length === 1) return new Map();
  const answers = await Promise.all(
    deps.extenders
      .filter((extender) => extender.settings.prioritizeVerb !== "" && extender.isInterestedIn(pod.pod))
      .map(async (extender) => {
        try {
          return await extender.prioritize(pod.pod, nodes, signal);
        } catch (error) {
          if (signal.aborted) throw error;
          // A preference is no condition: as upstream, it is left out.
          deps.log.debug("extender gave no scores", { extender: extender.name, error: messageOf(error) });
          return new Map<string, number>();
        }
      }),
  );
  const sums = new Map<string, number>();
  for (const answer of answers) for (const [name, add] of answer) sums.set(name, (sums.get(name) ?? 0) + add);
  return sums;
}

/** Undefined where an extender that may be ignored does not answer. */
async function orSkip<T>(extender: Extender, { log }: ExtendedDeps, ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (!extender.settings.ignorable) throw error;
    log.warn("extender is left out", { extender: extender.name, error: messageOf(error) });
    return undefined;
  }
}
