// What all pod workers share: options, the runtime, volumes, probes, and a bound on pods being brought up at once.
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import type { Credentials } from "../credentials.ts";
import type { Cri } from "../cri.ts";
import type { Hardware } from "../hardware/manager.ts";
import type { RuntimeCache } from "../runtime-cache.ts";
import type { PodObjects } from "../volumes/objects.ts";
import type { Volumes } from "../volumes/volumes.ts";
import type { Refusal } from "./admission.ts";
import type { Allocations } from "./allocations.ts";
import type { DnsSettings } from "./dns.ts";
import type { ResourceDefaults } from "./env.ts";
import type { Probes } from "./probes.ts";
import type { Verdict } from "./resize.ts";

export interface PodContext {
  readonly nodeName: string;
  /** The first of `nodeIps`. */
  readonly nodeIp: string;
  readonly nodeIps: readonly string[];
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  readonly hostDns: () => Promise<DnsSettings>;
  readonly podLogFolder: string;
  readonly seccompDefault: boolean;
  /** What pods may have: what the downward API shows where a container has no limit. */
  readonly capacity: ResourceDefaults;
  readonly machineMemoryBytes: number;
  readonly maxPids: number;
  /** That of all pods. */
  readonly podsCgroup: string;
  readonly hasAppArmor: boolean;
  /** As the kernel writes them; empty where it cannot limit huge pages. */
  readonly hugePageSizes: readonly string[];
  /** Whether the kernel can be told that a container must not swap (cgroup v2 with its swap files). */
  readonly forbidsSwap: boolean;
  /** Of the node, for an image: beside the pod's own pull secrets. */
  readonly credentials: (image: string) => Promise<readonly Credentials[]>;
  readonly hardware: Hardware;
  /** Whether a pod that has not run here may start. */
  readonly admit: (pod: Pod) => Promise<Refusal | undefined>;
  /** The feature gate InPlacePodVerticalScaling. */
  readonly canResize: boolean;
  /** Whether a pod that runs here may have what it asks for now. */
  readonly judgeResize: (pod: Pod) => Verdict;
  /** Something has become free: pods that wait for more are asked about again. */
  readonly retryResizes: () => void;
  readonly allocations: Allocations;
  /** Notes a pod with the status that this node gives it, whether or not the API has heard. */
  readonly remember: (pod: Pod) => void;
  readonly version: string;
  readonly client: Client;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly events: EventSink;
  readonly cri: Cri;
  readonly runtime: RuntimeCache;
  readonly volumes: Volumes;
  readonly objects: PodObjects;
  readonly probes: Probes;
  /** Of pods that come up. */
  readonly slots: Slots;
  readonly pullSlots: Slots;
  /** Of what is left of pods after their containers have ended: sandboxes, networks. */
  readonly endSlots: Slots;
}

/** At most `size` at a time. Of those who wait the urgent ones come first, and else who came first. */
export class Slots {
  #free: number;
  readonly #urgent: (() => void)[] = [];
  readonly #waiting: (() => void)[] = [];
  constructor(size: number) {
    this.#free = size;
  }
  async use<T>(work: () => Promise<T>, how: { readonly isUrgent?: boolean } = {}): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => (how.isUrgent ? this.#urgent : this.#waiting).push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#urgent.shift() ?? this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}
