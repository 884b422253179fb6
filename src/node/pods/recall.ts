// What the runtime has forgotten and the API still knows: containers that ran according to the pod's status and are in no list
// any more (the runtime's folder was lost, or a reboot came between). They are added to the observation as ended, so that
// plan and status see that they have run: a pod that runs once is not run twice, restart counts go on, and a container whose
// end nobody saw counts as killed. Pure. Counterpart: the kubelet's convertStatusToAPIStatus for lost containers.
import type { ContainerStatus, Pod } from "#model/gen/core-v1.ts";
import { newestContainer, type ObservedContainer, type PodObservation } from "./observation.ts";
import { containerOf } from "./plan.ts";
import { toldStatuses } from "./status.ts";

/** Exit code of what was killed, which is the best guess. */
const lostExitCode = 137;

export function recall(pod: Pod, observed: PodObservation, nowMs: number): PodObservation {
  const lost = toldStatuses(pod).flatMap((status) => {
    if (newestContainer(observed, status.name) || !containerOf(pod, status.name)) return [];
    const stand = standIn(status, nowMs);
    return stand ? [stand] : [];
  });
  return lost.length === 0 ? observed : { ...observed, containers: [...observed.containers, ...lost] };
}

function standIn(status: ContainerStatus, nowMs: number): ObservedContainer | undefined {
  const ended = status.state?.terminated ?? (status.state?.waiting ? status.lastState?.terminated : undefined);
  const running = status.state?.running;
  if (!ended && !running) return undefined;
  const timeOf = (text: string | undefined) => (text ? Date.parse(text) || 0 : 0);
  return {
    id: (ended?.containerID ?? status.containerID ?? "").replace(/^[a-z]+:\/\//, ""),
    name: status.name,
    // Of no sandbox that there is: it counts nowhere as started.
    sandboxId: "",
    attempt: status.restartCount ?? 0,
    state: "exited",
    createdAtMs: 0,
    startedAtMs: timeOf((ended ?? running)?.startedAt),
    finishedAtMs: ended ? timeOf(ended.finishedAt) : nowMs,
    exitCode: ended ? ended.exitCode : lostExitCode,
    reason: ended ? (ended.reason ?? "") : "ContainerStatusUnknown",
    message: ended
      ? (ended.message ?? "")
      : "The container could not be located when the pod was looked at. The container used to be Running",
    image: status.image ?? "",
    imageId: status.imageID ?? "",
    hash: "",
    logPath: "",
  };
}
