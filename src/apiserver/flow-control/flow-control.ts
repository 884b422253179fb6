// API priority and fairness: every request that is no stream is classified, and holds seats of its priority level while it
// is worked on. The configuration is that of the FlowSchema and PriorityLevelConfiguration objects it is told of, on top of
// upstream's default objects, so that it works from the first request on. Seats that a level does not ask for are lent to
// those that do; nothing of that costs anything while nobody has to wait.
// Upstream counterpart: util/flowcontrol (apf_controller, apf_filter).
import type { Clock } from "#base/clock.ts";
import type { Histogram, Metrics } from "#base/metrics.ts";
import type { FlowSchema, PriorityLevelConfiguration } from "#model/gen/flowcontrol-v1.ts";
import { tooManyRequests } from "#model/status.ts";
import type { UserInfo } from "../authn/user.ts";
import { flowSchemas, priorityLevels } from "../bootstrap/flow-control.ts";
import {
  type Asked,
  byPrecedence,
  type CompiledSchema,
  classify,
  compileSchema,
  distinguish,
} from "./classification.ts";
import { type Held, type LevelSettings, PriorityLevel, type Rejection, type Tally } from "./priority-level.ts";
import { type LevelShares, type SeatLimits, seatLimits, shareSeats } from "./seats.ts";
import { flowHash } from "./shuffle-shard.ts";

export interface FlowControlOptions {
  /** Seats of the whole server. */
  readonly totalSeats: number;
  /** How long a request may wait in a queue. */
  readonly waitLimitMs: number;
}

/** The right to be worked on. */
export interface Seat {
  /** May be called again, to no effect. */
  release(): void;
}

export interface Admission {
  readonly width: number;
  readonly signal: AbortSignal;
  /** Told before anything is decided, for the headers of refusals too. */
  readonly onClassified: (schemaUid: string, levelUid: string) => void;
}

/** Seats are shared out anew at most this often: upstream's period. */
const sharingMs = 10_000;
/** Without these two nothing could be classified or mended: they cannot be deleted away. */
const lastResort = "catch-all";
const noSeats: SeatLimits = { nominal: 0, lower: 0, upper: 0 };
const rejections: readonly Rejection[] = ["concurrency-limit", "queue-full", "time-out", "cancelled"];

interface Level {
  readonly config: PriorityLevelConfiguration;
  readonly work: PriorityLevel;
  limits: SeatLimits;
}

/** Of one schema on one level, since the process began. */
interface Flow extends Tally {
  readonly labels: { readonly priority_level: string; readonly flow_schema: string };
  dispatched: number;
  readonly rejected: Record<Rejection, number>;
  /** What the counters have been told. */
  reportedDispatched: number;
  readonly reportedRejected: Record<Rejection, number>;
}

export class FlowControl {
  readonly #options: FlowControlOptions;
  readonly #clock: Clock;
  readonly #waited: Histogram;
  readonly #schemaObjects = new Map<string, FlowSchema>();
  readonly #levelObjects = new Map<string, PriorityLevelConfiguration>();
  #schemas: readonly CompiledSchema[] = [];
  #levels = new Map<string, Level>();
  readonly #flows = new Map<string, Flow>();
  #sharedAtMs: number | undefined;
  #isSharing = false;
  #stopSharing: () => void = () => {};
  #reportFlow: (flow: Flow) => void = () => {};
  #reportLevel: (name: string, seats: number, limits: SeatLimits) => void = () => {};

  constructor(options: FlowControlOptions, deps: { readonly clock: Clock; readonly metrics: Metrics }) {
    this.#options = options;
    this.#clock = deps.clock;
    for (const level of priorityLevels()) this.#levelObjects.set(level.metadata.name!, level);
    for (const schema of flowSchemas()) this.#schemaObjects.set(schema.metadata.name!, schema);
    this.#waited = deps.metrics.histogram(
      "apiserver_flowcontrol_request_wait_duration_seconds",
      "Time that requests which had to wait spent in their queue.",
      [0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30],
    );
    this.#declareMetrics(deps.metrics);
    this.#configure();
  }

  /** Leaves no timer behind; it may be used again. */
  stop(): void {
    this.#stopSharing();
    this.#isSharing = false;
  }

  setSchema(schema: FlowSchema): void {
    this.#schemaObjects.set(schema.metadata.name ?? "", schema);
    this.#configure();
  }

  removeSchema(name: string): void {
    const mandatory = flowSchemas().find(({ metadata }) => metadata.name === name && isMandatory(name));
    if (mandatory) this.#schemaObjects.set(name, mandatory);
    else this.#schemaObjects.delete(name);
    this.#configure();
  }

  setLevel(level: PriorityLevelConfiguration): void {
    this.#levelObjects.set(level.metadata.name ?? "", level);
    this.#configure();
  }

  removeLevel(name: string): void {
    const mandatory = priorityLevels().find(({ metadata }) => metadata.name === name && isMandatory(name));
    if (mandatory) this.#levelObjects.set(name, mandatory);
    else this.#levelObjects.delete(name);
    this.#configure();
  }

  /** Rejects with 429. At once where nobody has to wait. */
  admit(user: UserInfo, asked: Asked, admission: Admission): Seat | Promise<Seat> {
    const schema = classify(this.#schemas, user, asked) ?? this.#schemas.find(({ name }) => name === lastResort)!;
    const { work } = this.#levels.get(schema.level)!;
    const flow = this.#flowOf(schema);
    admission.onClassified(schema.uid, work.uid);
    const got = work.acquire({
      width: admission.width,
      tally: flow,
      hash: () => flowHash(schema.name, distinguish(schema, user, asked)),
      get signal() {
        return admission.signal;
      },
    });
    if (!(got instanceof Promise)) return seatOf(got, work, flow);
    const sinceMs = this.#clock.monotonicMs();
    return got.then((held) => {
      const execute = typeof held === "string" ? "false" : "true";
      this.#waited.observe((this.#clock.monotonicMs() - sinceMs) / 1000, { ...flow.labels, execute });
      return seatOf(held, work, flow);
    });
  }

  #flowOf(schema: CompiledSchema): Flow {
    const key = `${schema.name} ${schema.level}`;
    let flow = this.#flows.get(key);
    if (!flow) {
      const none = () => Object.fromEntries(rejections.map((why) => [why, 0])) as Record<Rejection, number>;
      flow = {
        labels: { priority_level: schema.level, flow_schema: schema.name },
        ...{ executing: 0, executingSeats: 0, waiting: 0, dispatched: 0, reportedDispatched: 0 },
        ...{ rejected: none(), reportedRejected: none() },
      };
      this.#flows.set(key, flow);
    }
    return flow;
  }

  /** Schemas of levels that are not there count for nothing; requests of levels that went end where they are. */
  #configure(): void {
    const levels = new Map<string, Level>();
    const configs = [...this.#levelObjects.values()];
    const limits = seatLimits(this.#options.totalSeats, configs.map(sharesOf));
    for (const [i, config] of configs.entries()) {
      const name = config.metadata.name ?? "";
      const options = { waitLimitMs: this.#options.waitLimitMs, onPressure: () => this.#share() };
      const work = this.#levels.get(name)?.work ?? new PriorityLevel(name, options, { clock: this.#clock });
      work.uid = config.metadata.uid ?? "";
      levels.set(name, { config, work, limits: limits[i]! });
    }
    for (const name of this.#levels.keys()) if (!levels.has(name)) this.#reportLevel(name, 0, noSeats);
    this.#levels = levels;
    for (const { config, work, limits: own } of levels.values()) {
      work.configure(settingsOf(config));
      work.setSeats(own.nominal);
    }
    this.#schemas = [...this.#schemaObjects.values()]
      .map(compileSchema)
      .filter(({ level }) => levels.has(level))
      .sort(byPrecedence);
    const used = new Set(this.#schemas.map(({ name, level }) => `${name} ${level}`));
    for (const [key, flow] of this.#flows) {
      if (used.has(key) || flow.executing + flow.waiting > 0) continue;
      this.#reportFlow(flow);
      this.#flows.delete(key);
    }
  }

  /** Lends what is not asked for; goes on by itself until every level has what is its own. */
  #share(): void {
    const nowMs = this.#clock.monotonicMs();
    const sinceMs = nowMs - (this.#sharedAtMs ?? Number.NEGATIVE_INFINITY);
    if (this.#isSharing) return;
    this.#isSharing = true;
    if (sinceMs < sharingMs) {
      this.#shareAfter(sharingMs - sinceMs);
      return;
    }
    this.#sharedAtMs = nowMs;
    const limited = [...this.#levels.values()].filter(({ work }) => !work.isExempt);
    const seats = shareSeats(limited.map(({ limits, work }) => ({ ...limits, demand: work.takeDemand() })));
    for (const [i, { work }] of limited.entries()) work.setSeats(seats[i]!);
    const isSettled = limited.every(({ work, limits }) => work.seats === limits.nominal && !work.hasWaiting);
    if (isSettled) this.#isSharing = false;
    else this.#shareAfter(sharingMs);
  }

  #shareAfter(ms: number): void {
    this.#stopSharing = this.#clock.after(ms, () => {
      this.#isSharing = false;
      this.#share();
    });
  }

  /** Told when somebody asks, or when a flow or level goes: a request only counts in its flow. */
  #declareMetrics(metrics: Metrics): void {
    const prefix = "apiserver_flowcontrol_";
    const dispatched = metrics.counter(`${prefix}dispatched_requests_total`, "Requests that were begun.");
    const rejected = metrics.counter(`${prefix}rejected_requests_total`, "Requests that were turned away.");
    const perFlow = [
      [metrics.gauge(`${prefix}current_executing_requests`, "Requests being handled."), "executing"],
      [metrics.gauge(`${prefix}current_executing_seats`, "Seats of requests being handled."), "executingSeats"],
      [metrics.gauge(`${prefix}current_inqueue_requests`, "Requests that wait."), "waiting"],
    ] as const;
    this.#reportFlow = (flow) => {
      dispatched.add(flow.dispatched - flow.reportedDispatched, flow.labels);
      flow.reportedDispatched = flow.dispatched;
      for (const reason of rejections) {
        const more = flow.rejected[reason] - flow.reportedRejected[reason];
        flow.reportedRejected[reason] = flow.rejected[reason];
        if (more > 0) rejected.add(more, { ...flow.labels, reason });
      }
      for (const [gauge, what] of perFlow) gauge.set(flow[what], flow.labels);
    };
    const current = metrics.gauge(`${prefix}current_limit_seats`, "Seats that a level may use now.");
    const perLevel = [
      [metrics.gauge(`${prefix}nominal_limit_seats`, "Seats that are a level's own."), "nominal"],
      [metrics.gauge(`${prefix}lower_limit_seats`, "Seats that a level does not lend."), "lower"],
      [metrics.gauge(`${prefix}upper_limit_seats`, "Seats that a level may have with lent ones."), "upper"],
    ] as const;
    this.#reportLevel = (name, seats, limits) => {
      const labels = { priority_level: name };
      current.set(seats, labels);
      for (const [gauge, what] of perLevel) gauge.set(limits[what], labels);
    };
    metrics.beforeRender(() => {
      for (const flow of this.#flows.values()) this.#reportFlow(flow);
      for (const [name, { work, limits }] of this.#levels) this.#reportLevel(name, work.seats, limits);
    });
  }
}

function seatOf(got: Held | Rejection, work: PriorityLevel, flow: Flow): Seat {
  if (typeof got === "string") {
    flow.rejected[got]++;
    throw tooManyRequests("Too many requests, please try again later.", 1);
  }
  flow.dispatched++;
  let isHeld = true;
  return {
    release() {
      if (!isHeld) return;
      isHeld = false;
      work.release(got);
    },
  };
}

const isMandatory = (name: string): boolean => name === "exempt" || name === lastResort;

function sharesOf({ spec, metadata }: PriorityLevelConfiguration): LevelShares {
  const { limited, exempt } = spec;
  return {
    name: metadata.name ?? "",
    // Defaults of the API; objects in the store have them filled in.
    shares: limited ? limited.nominalConcurrencyShares : (exempt?.nominalConcurrencyShares ?? 0),
    lendablePercent: (limited ?? exempt)?.lendablePercent ?? 0,
    borrowingLimitPercent: limited?.borrowingLimitPercent,
  };
}

function settingsOf({ spec }: PriorityLevelConfiguration): LevelSettings {
  const response = spec.limited?.limitResponse;
  if (response?.type !== "Queue") return { isExempt: spec.type === "Exempt" };
  const { queues = 64, handSize = 8, queueLengthLimit = 50 } = response.queuing ?? {};
  return { isExempt: spec.type === "Exempt", queuing: { queues, handSize, queueLengthLimit } };
}
