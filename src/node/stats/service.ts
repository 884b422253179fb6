// The forms in which the node API shows what is used, over one sampler. Counterpart: the kubelet's stats and metrics
// handlers.
import { fileSystemSize } from "#platform/folders.ts";
import { readKernelFile } from "#platform/kernel-files.ts";
import { type Machine, processCounts } from "#platform/machine.ts";
import type { PodLookup } from "../lookup.ts";
import { containerLimits, podCgroup } from "../pods/resources.ts";
import { deviceOf } from "./kernel.ts";
import { cadvisorMetrics, claimMetrics, type PodDescription, resourceMetrics } from "./prometheus.ts";
import type { Sampler } from "./sampler.ts";
import { summaryOf } from "./summary.ts";

export interface NodeStats {
  summary(onlyCpuAndMemory?: boolean): Promise<object>;
  resource(): Promise<string>;
  cadvisor(): Promise<string>;
  /** What /metrics says of claims. */
  claims(): Promise<string>;
  probes(): string;
}

export interface NodeStatsDeps {
  readonly nodeName: string;
  readonly sampler: Sampler;
  readonly machine: Machine;
  readonly pods: PodLookup["pods"];
  /** The cgroup of all pods. */
  readonly podsCgroup: string;
  readonly nodeFolder: string;
  readonly imageFolder: string;
  readonly pauseImage: string;
  /** Bytes that images take. */
  readonly imageBytes: () => number;
  /** Prometheus text of the results of probes. */
  readonly probes: () => string;
}

export function createNodeStats(deps: NodeStatsDeps): NodeStats {
  const { sampler, machine, pauseImage } = deps;
  return {
    async summary(onlyCpuAndMemory = false) {
      const sample = await sampler.sample();
      const [nodeFs, imageFs, pids] = await Promise.all([
        fileSystemSize(deps.nodeFolder),
        fileSystemSize(deps.imageFolder),
        processCounts(),
      ]);
      const mainInterface = defaultInterface();
      return summaryOf({
        ...{ nodeName: deps.nodeName, sample, nodeFs, pids, onlyCpuAndMemory },
        imageFs: { ...imageFs, usedBytes: deps.imageBytes() },
        ...(mainInterface === undefined ? {} : { mainInterface }),
      });
    },
    async resource() {
      return resourceMetrics(await sampler.counters());
    },
    async cadvisor() {
      const [sample, nodeFs] = await Promise.all([sampler.sample(), fileSystemSize(deps.nodeFolder)]);
      const device = deviceOf(deps.nodeFolder);
      const pods = new Map(deps.pods().map((pod) => [pod.metadata.uid ?? "", pod]));
      const describe = ({ uid }: { readonly uid: string }): PodDescription | undefined => {
        const pod = pods.get(uid);
        if (!pod) return undefined;
        const containers = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
        return {
          images: new Map(containers.map((c) => [c.name, c.image ?? ""])),
          specs: new Map(containers.map((c) => [c.name, containerLimits(c)])),
          cgroup: podCgroup(pod, deps.podsCgroup),
        };
      };
      return cadvisorMetrics({ sample, describe, machine, pauseImage, nodeFs: { ...nodeFs, device } });
    },
    async claims() {
      const isClaimed = deps
        .pods()
        .some((pod) => pod.spec.volumes?.some((v) => v.persistentVolumeClaim || v.ephemeral));
      // Nothing is measured for nobody.
      return isClaimed ? claimMetrics(await sampler.sample()) : "";
    },
    probes: () => deps.probes(),
  };
}

const defaultInterface = (): string | undefined => /^(\S+)\t0{8}\t/m.exec(readKernelFile("/proc/net/route"))?.[1];
