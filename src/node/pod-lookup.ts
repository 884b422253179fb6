// What the node API may ask about pods and containers, answered from the agent's workers and the runtime's cache.
import type { ContainerLookup, PodLookup } from "./lookup.ts";
import { newestContainer, type ObservedContainer, type PodObservation, readySandbox } from "./pods/observation.ts";
import type { PodWorker } from "./pods/worker.ts";
import type { RuntimeCache } from "./runtime-cache.ts";

export function createPodLookup(
  cri: PodLookup["runtime"],
  runtime: RuntimeCache,
  workers: ReadonlyMap<string, PodWorker>,
): PodLookup {
  const find = (namespace: string, name: string): { worker: PodWorker; observed: PodObservation } | undefined => {
    for (const worker of workers.values()) {
      const { metadata } = worker.pod;
      if (metadata.name !== name || metadata.namespace !== namespace) continue;
      return { worker, observed: runtime.get(worker.uid, namespace, name) };
    }
    return undefined;
  };
  return {
    runtime: cri,
    pods: () => [...workers.values()].map((w) => w.pod),
    sandbox(namespace, name) {
      const found = find(namespace, name);
      const sandbox = found && readySandbox(found.observed);
      return sandbox ? { sandboxId: sandbox.id, podUid: found.worker.uid } : undefined;
    },
    container(namespace, name, container) {
      const found = find(namespace, name);
      if (!found) return undefined;
      const wanted = container ?? found.worker.pod.spec.containers?.[0]?.name ?? "";
      const newest = newestContainer(found.observed, wanted);
      return newest ? containerLookup(found.worker.uid, newest, found.observed) : undefined;
    },
  };
}

function containerLookup(podUid: string, newest: ObservedContainer, observed: PodObservation): ContainerLookup {
  const before = observed.containers.find((c) => c.name === newest.name && c.id !== newest.id);
  return {
    containerId: newest.id,
    podUid,
    containerName: newest.name,
    state: newest.state === "unknown" ? "exited" : newest.state,
    attempt: newest.attempt,
    logPath: (previous = false) => (previous ? before?.logPath : newest.logPath) || undefined,
  };
}
