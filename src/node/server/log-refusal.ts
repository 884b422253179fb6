// Why a container's log cannot be read, from the pod's status; in the words of the kubelet, because people and scripts
// look for them. Upstream counterpart: kubelet.validateContainerLogStatus. Pure.
import type { ContainerStatus, Pod } from "#model/gen/core-v1.ts";

/** Undefined: it can be read, as far as the status knows. */
export function logRefusal(pod: Pod, container: string, isPrevious: boolean): string | undefined {
  const { name = "" } = pod.metadata;
  const of = `container "${container}" in pod "${name}"`;
  const statuses: readonly ContainerStatus[] = [
    ...(pod.status?.containerStatuses ?? []),
    ...(pod.status?.initContainerStatuses ?? []),
    ...(pod.status?.ephemeralContainerStatuses ?? []),
  ];
  const status = statuses.find((s) => s.name === container);
  if (!status) return `${of} is not available`;
  const last = status.lastState?.terminated;
  const { waiting, running, terminated } = status.state ?? {};
  if (isPrevious) {
    return last?.containerID ? undefined : `previous terminated ${of} not found`;
  }
  if (running) return undefined;
  if (terminated) {
    // A container whose sandbox was replaced has no log of its own any more; the one before may have.
    return terminated.containerID || last?.containerID ? undefined : `${of} is terminated`;
  }
  // Between restarts the log of the run before is what people want to see.
  if (last?.containerID) return undefined;
  if (!waiting) return `${of} is not available`;
  switch (waiting.reason) {
    case "ErrImagePull":
      return `${of} is waiting to start: image can't be pulled`;
    case "ImagePullBackOff":
      return `${of} is waiting to start: trying and failing to pull image`;
    case undefined:
      return `${of} is waiting to start: no reason`;
    default:
      return `${of} is waiting to start: ${waiting.reason}`;
  }
}
