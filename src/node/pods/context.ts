// What all pod workers share: options, the runtime, volumes, probes, and a bound on pods being brought up at once.
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { Cri } from "../cri.ts";
import type { RuntimeCache } from "../runtime-cache.ts";
import type { PodObjects } from "../volumes/objects.ts";
import type { Volumes } from "../volumes/volumes.ts";
import type { DnsSettings } from "./dns.ts";
import type { Probes } from "./probes.ts";

export interface PodContext {
  readonly nodeName: string;
  readonly nodeIp: string;
  readonly clusterDns: string;
  readonly clusterDomain: string;
  readonly hostDns: () => Promise<DnsSettings>;
  readonly podLogFolder: string;
  readonly seccompDefault: boolean;
  readonly capacity: { readonly milliCpu: number; readonly memoryBytes: number };
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
  readonly slots: Slots;
}

/** At most `size` at a time, first come first served. */
export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];
  constructor(size: number) {
    this.#free = size;
  }
  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}
