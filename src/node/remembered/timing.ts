// How soon what has changed about a pod must be on the disk, and whether at all. Most pods that come and go were known to the
// server all their life, and cost nothing: what a boot without a server needs is what ran and was to go on, and what has
// ended without the server having heard. Pure.
//
//   not on disk                                        on disk
//   ended, the server knows        never               ended, or being deleted   a second, whatever else was written
//   ended, it does not             a second, whatever  else vital                a second, if pods have bytes left
//   the server is away             a second            the rest                  what a day leaves
//   runs to an end, or is deleted  a minute
//   nothing of it has run yet      ten seconds
//   else                           a second
import type { Pod } from "#model/gen/core-v1.ts";
import { hasBegun, isFinal } from "./kept-pod.ts";
import type { Urgency } from "./notes.ts";

export interface PodMoment {
  /** A record of it is on the disk, or on its way there. */
  readonly isKept: boolean;
  /** Something that a boot needs differs from what was noted last. */
  readonly isVital: boolean;
  readonly isAway: boolean;
  /** The server itself has said that the pod has ended. */
  readonly isTold: boolean;
}

export interface Timing {
  readonly urgency: Urgency;
  readonly withinMs: number;
}

/** Changes come in groups. */
const gatherMs = 1_000;
/**
 * What runs to an end has often ended by then. Until then, if the server and the node lose their power together, such a pod
 * is started by the server's word, after that by the node's own.
 */
const passingMs = 60_000;
/** So that what a pod is made from and that it runs are one write. */
const settlingMs = 10_000;

export function timingOf(pod: Pod, moment: PodMoment): Timing | undefined {
  const { isKept, isVital, isAway, isTold } = moment;
  const soon = (urgency: Urgency): Timing => ({ urgency, withinMs: gatherMs });
  const isDeleted = pod.metadata.deletionTimestamp !== undefined;
  if (isFinal(pod.status ?? {})) return isTold && !isKept ? undefined : soon("must");
  if (isKept) return soon(!isVital ? "spare" : isDeleted ? "must" : "vital");
  if (isAway) return soon("vital");
  if (isDeleted || (pod.spec.restartPolicy ?? "Always") !== "Always") return { urgency: "vital", withinMs: passingMs };
  return hasBegun(pod.status ?? {}) ? soon("vital") : { urgency: "vital", withinMs: settlingMs };
}
