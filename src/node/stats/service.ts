// The three forms in which the node API shows what is used, over one sampler. Counterpart: the kubelet's stats and metrics
// handlers.
import type { Clock } from "#base/clock.ts";
import { fileSystemSize } from "#platform/folders.ts";
import { type Machine, processCounts } from "#platform/machine.ts";
import type { PodLookup } from "../lookup.ts";
import { containerLimits, podCgroup } from "../pods/resources.ts";
import { cadvisorMetrics, type PodDescription, resourceMetrics } from "./prometheus.ts";
import type { Sampler } from "./sampler.ts";
import { summaryOf } from "./summary.ts";

export interface NodeStats {
  summary(): Promise<object>;
  resource(): Promise<string>;
  cadvisor(): Promise<string>;
}

export interface NodeStatsDeps {
  readonly nodeName: string;
  readonly clock: Clock;
  readonly sampler: Sampler;
  readonly machine: Machine;
  readonly pods: PodLookup["pods"];
  readonly nodeFolder: string;
  readonly imageFolder: string;
  /** Bytes that images take. */
  readonly imageBytes: () => number;
}

export function createNodeStats(deps: NodeStatsDeps): NodeStats {
  const { clock, sampler, machine } = deps;
  return {
    async summary() {
      const sample = await sampler.sample();
      const [nodeFs, imageFs, pids] = await Promise.all([
        fileSystemSize(deps.nodeFolder),
        fileSystemSize(deps.imageFolder),
        processCounts(),
      ]);
      return summaryOf({
        ...{ nodeName: deps.nodeName, nowMs: clock.now(), sample, nodeFs, pids },
        imageFs: { ...imageFs, usedBytes: deps.imageBytes() },
      });
    },
    async resource() {
      return resourceMetrics(await sampler.sample(), clock.now());
    },
    async cadvisor() {
      const pods = new Map(deps.pods().map((pod) => [pod.metadata.uid ?? "", pod]));
      const describe = ({ uid }: { readonly uid: string }): PodDescription | undefined => {
        const pod = pods.get(uid);
        if (!pod) return undefined;
        const containers = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
        return {
          namespace: pod.metadata.namespace ?? "",
          name: pod.metadata.name ?? "",
          images: new Map(containers.map((c) => [c.name, c.image ?? ""])),
          specs: new Map(containers.map((c) => [c.name, containerLimits(c)])),
          cgroup: podCgroup(pod),
        };
      };
      return cadvisorMetrics(await sampler.sample(), describe, machine, clock.now());
    },
  };
}
