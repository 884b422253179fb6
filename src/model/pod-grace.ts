// How long a pod has to end by itself when nobody says otherwise.
import type { Pod } from "./gen/core-v1.ts";

const defaultSeconds = 30;

/** `asked`, else what the pod says of itself. A negative one is allowed for old objects' sake and means a second. */
export function graceSecondsOf(pod: Pod, asked?: number): number {
  const seconds = asked ?? pod.spec.terminationGracePeriodSeconds ?? defaultSeconds;
  return seconds < 0 ? 1 : seconds;
}
