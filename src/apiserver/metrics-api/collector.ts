// Asks nodes what they use, only when somebody asks this API. The last answers of each node are kept, so that what is used can
// be told over the time between two questions; after a long silence a node is asked twice in a row. A node that does not answer
// is left alone for a while, so that one dead node does not delay every question. Bounded: two samples per node.
// Upstream counterpart: metrics-server's scraper, which asks every 15 seconds whether anybody wants to know or not.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type NodeSample, type NodeUsage, parseResourceMetrics, usageBetween } from "./samples.ts";

export interface CollectorDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** The text of the node's /metrics/resource. */
  readonly scrape: (node: string, signal: AbortSignal) => Promise<string>;
}

/** Asked again within this, the same samples answer. */
const freshMs = 5_000;
/** Windows are at least this long where there is time for it, and the first after a silence this. */
const windowMs = 10_000;
const firstWindowMs = 2_000;
/** A sample older than this says nothing about now. */
const staleMs = 120_000;
const scrapeTimeoutMs = 5_000;
const afterFailureMs = 15_000;
/** Nodes asked at a time. */
const parallel = 16;
/** Where many nodes do not answer, those that did are told of after this; the others are still being asked. */
const longestWaitMs = 10_000;

interface Taken extends NodeSample {
  readonly monotonicMs: number;
}

interface NodeState {
  base?: Taken;
  last?: Taken;
  failedMs?: number;
  running?: Promise<void> | undefined;
}

export class MetricsCollector {
  readonly #deps: CollectorDeps;
  readonly #nodes = new Map<string, NodeState>();

  constructor(deps: CollectorDeps) {
    this.#deps = deps;
  }

  /** Of each of these nodes what is known; those that cannot be asked are missing. `all`: every node there is. */
  async usage(wanted: Iterable<string>, all: ReadonlySet<string>): Promise<ReadonlyMap<string, NodeUsage>> {
    for (const name of this.#nodes.keys()) if (!all.has(name)) this.#nodes.delete(name);
    const names = [...new Set(wanted)];
    const queue = names.values();
    const work = async (): Promise<void> => {
      for (const name of queue) await this.#refresh(name);
    };
    const workers = Array.from({ length: Math.min(parallel, names.length) }, work);
    await this.#within(longestWaitMs, Promise.all(workers));
    const out = new Map<string, NodeUsage>();
    for (const name of names) {
      const { base, last } = this.#nodes.get(name) ?? {};
      if (!base || !last || this.#ageOf(last) >= staleMs) continue;
      out.set(name, usageBetween(base, last, last.monotonicMs - base.monotonicMs));
    }
    return out;
  }

  async #refresh(name: string): Promise<void> {
    let state = this.#nodes.get(name);
    if (!state) {
      state = {};
      this.#nodes.set(name, state);
    }
    const known = state;
    known.running ??= this.#ask(name, known).finally(() => {
      known.running = undefined;
    });
    await known.running;
  }

  async #ask(name: string, state: NodeState): Promise<void> {
    const { clock, log } = this.#deps;
    if (state.last && this.#ageOf(state.last) < freshMs) return;
    if (state.failedMs !== undefined && clock.monotonicMs() - state.failedMs < afterFailureMs) return;
    try {
      const before = state.last;
      let last = await this.#scrape(name);
      if (before && this.#ageOf(before) >= windowMs && this.#ageOf(before) < staleMs) state.base = before;
      else if (!state.base || this.#ageOf(state.base) >= staleMs) {
        state.base = last;
        await clock.sleep(firstWindowMs);
        last = await this.#scrape(name);
      }
      state.last = last;
      delete state.failedMs;
    } catch (error) {
      const level = state.failedMs === undefined ? "warn" : "debug";
      state.failedMs = clock.monotonicMs();
      log[level]("cannot ask a node for its metrics", { node: name, error: messageOf(error) });
    }
  }

  async #scrape(name: string): Promise<Taken> {
    const { clock, scrape } = this.#deps;
    const limit = new AbortController();
    const cancel = clock.after(scrapeTimeoutMs, () => limit.abort(new Error("no answer in time")));
    try {
      const text = await scrape(name, limit.signal);
      return { ...parseResourceMetrics(text, clock.now()), monotonicMs: clock.monotonicMs() };
    } finally {
      cancel();
    }
  }

  async #within(ms: number, work: Promise<unknown>): Promise<void> {
    let cancel = () => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.#deps.clock.after(ms, resolve);
    });
    try {
      await Promise.race([work, late]);
    } finally {
      cancel();
    }
  }

  #ageOf(sample: Taken): number {
    return this.#deps.clock.monotonicMs() - sample.monotonicMs;
  }
}
