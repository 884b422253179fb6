// One priority level at work: seats in use, and queues of those that wait for one. A request that finds a seat takes it at
// once. Else it joins the shortest queue of its flow's hand, and when seats come free the queue that has been served least
// goes first: each is charged its seats times the time it held them. Bounded by queues, their length, and how long one waits.
// Upstream counterpart: util/flowcontrol/fairqueuing/queueset.
import type { Clock } from "#base/clock.ts";
import { dealHand } from "./shuffle-shard.ts";

export interface LevelSettings {
  readonly isExempt: boolean;
  /** Absent: what finds no seat is refused. */
  readonly queuing?: { readonly queues: number; readonly handSize: number; readonly queueLengthLimit: number };
}

/** Why a request was turned away; the words are those of upstream's metric. */
export type Rejection = "concurrency-limit" | "queue-full" | "time-out" | "cancelled";

/** Who watches: kept per flow schema, for metrics. */
export interface Tally {
  executing: number;
  executingSeats: number;
  waiting: number;
}

export interface SeatRequest {
  readonly width: number;
  readonly tally: Tally;
  /** Asked only when there is no free seat. */
  readonly hash: () => number;
  readonly signal: AbortSignal;
}

/** Seats that are held. */
export interface Held {
  readonly width: number;
  readonly tally: Tally;
  readonly sinceMs: number;
  /** Undefined: it never waited. */
  readonly queue: Queue | undefined;
}

interface Queue {
  readonly index: number;
  readonly waiting: Waiting[];
  executing: number;
  /** What it has been charged, in seat-milliseconds; comparable among the queues of a level. */
  charged: number;
}

interface Waiting {
  readonly request: SeatRequest;
  start(held: Held): void;
}

/** What a request is charged when it begins; corrected when it ends. */
const assumedMs = 5;
/** Queues that are remembered although nobody is in them, for what they were charged. */
const maxIdleQueues = 256;

export class PriorityLevel {
  readonly name: string;
  uid = "";
  readonly #clock: Clock;
  readonly #waitLimitMs: number;
  #settings: LevelSettings = { isExempt: false };
  #seats = 0;
  #inUse = 0;
  #seatsWaiting = 0;
  #mostDemand = 0;
  /** What the last request that was started had been charged before: who comes new begins there. */
  #virtualNow = 0;
  readonly #queues = new Map<number, Queue>();
  readonly #busy = new Set<Queue>();
  /** Called when somebody has to wait or go. */
  readonly #onPressure: () => void;

  constructor(
    name: string,
    options: { readonly waitLimitMs: number; readonly onPressure: () => void },
    deps: { readonly clock: Clock },
  ) {
    this.name = name;
    this.#waitLimitMs = options.waitLimitMs;
    this.#onPressure = options.onPressure;
    this.#clock = deps.clock;
  }

  /** Requests that wait stay where they are. */
  configure(settings: LevelSettings): void {
    this.#settings = settings;
    this.#dispatch();
  }

  /** How many seats may be in use; what is held already is not taken away. */
  setSeats(seats: number): void {
    this.#seats = seats;
    this.#dispatch();
  }

  get seats(): number {
    return this.#seats;
  }
  get isExempt(): boolean {
    return this.#settings.isExempt;
  }
  get inUse(): number {
    return this.#inUse;
  }
  get hasWaiting(): boolean {
    return this.#busy.size > 0;
  }

  /** The most seats that were in use or waited for since the last call. */
  takeDemand(): number {
    const demand = this.#mostDemand;
    this.#mostDemand = this.#inUse + this.#seatsWaiting;
    return demand;
  }

  /** At once where there is a seat: most requests never wait, and should not pay for a promise. */
  acquire(request: SeatRequest): Held | Rejection | Promise<Held | Rejection> {
    if (this.#settings.isExempt || (this.#busy.size === 0 && this.#fits(request.width))) {
      return this.#hold(request, undefined);
    }
    this.#noteDemand(this.#inUse + this.#seatsWaiting + request.width);
    // It may get more seats at once.
    this.#onPressure();
    if (this.#busy.size === 0 && this.#fits(request.width)) return this.#hold(request, undefined);
    const { queuing } = this.#settings;
    if (!queuing) return "concurrency-limit";
    const queue = this.#shortest(dealHand(request.hash(), queuing.queues, queuing.handSize));
    if (queue.waiting.length >= queuing.queueLengthLimit) return "queue-full";
    return this.#wait(request, queue);
  }

  release(held: Held): void {
    this.#inUse -= held.width;
    held.tally.executing--;
    held.tally.executingSeats -= held.width;
    const { queue } = held;
    if (queue) {
      queue.executing--;
      queue.charged += held.width * (this.#clock.monotonicMs() - held.sinceMs - assumedMs);
    }
    this.#dispatch();
  }

  /** What is wider than all seats together runs alone. */
  #fits(width: number): boolean {
    return this.#inUse + width <= this.#seats || (this.#inUse === 0 && this.#seats > 0);
  }

  #hold(request: SeatRequest, queue: Queue | undefined): Held {
    const { width, tally } = request;
    this.#inUse += width;
    tally.executing++;
    tally.executingSeats += width;
    if (queue) queue.executing++;
    else this.#noteDemand(this.#inUse + this.#seatsWaiting);
    return { width, tally, sinceMs: queue ? this.#clock.monotonicMs() : 0, queue };
  }

  #noteDemand(seats: number): void {
    if (seats > this.#mostDemand) this.#mostDemand = seats;
  }

  #shortest(hand: readonly number[]): Queue {
    let best: Queue | undefined;
    for (const index of hand) {
      const queue = this.#queues.get(index) ?? this.#newQueue(index);
      const isShorter =
        !best ||
        queue.waiting.length < best.waiting.length ||
        (queue.waiting.length === best.waiting.length && queue.executing < best.executing);
      if (isShorter) best = queue;
    }
    const chosen = best ?? this.#newQueue(0);
    this.#queues.set(chosen.index, chosen);
    return chosen;
  }

  #newQueue(index: number): Queue {
    return { index, waiting: [], executing: 0, charged: this.#virtualNow };
  }

  #wait(request: SeatRequest, queue: Queue): Promise<Held | Rejection> {
    return new Promise((resolve) => {
      const settle = () => {
        cancelTimer();
        request.signal.removeEventListener("abort", onAbort);
        request.tally.waiting--;
        this.#seatsWaiting -= request.width;
      };
      const waiting: Waiting = {
        request,
        start(held) {
          settle();
          resolve(held);
        },
      };
      const leave = (why: Rejection) => {
        queue.waiting.splice(queue.waiting.indexOf(waiting), 1);
        if (queue.waiting.length === 0) this.#busy.delete(queue);
        settle();
        resolve(why);
        // Who stood behind may fit where this one did not.
        this.#dispatch();
      };
      const onAbort = () => leave("cancelled");
      const cancelTimer = this.#clock.after(this.#waitLimitMs, () => leave("time-out"));
      request.signal.addEventListener("abort", onAbort, { once: true });
      // A queue that had nothing to do saved nothing up.
      if (queue.waiting.length === 0 && queue.executing === 0)
        queue.charged = Math.max(queue.charged, this.#virtualNow);
      queue.waiting.push(waiting);
      this.#seatsWaiting += request.width;
      request.tally.waiting++;
      this.#busy.add(queue);
      if (request.signal.aborted) onAbort();
    });
  }

  #dispatch(): void {
    while (this.#busy.size > 0) {
      let next: Queue | undefined;
      for (const queue of this.#busy) if (!next || queue.charged < next.charged) next = queue;
      const queue = next!;
      const first = queue.waiting[0]!;
      if (!this.#settings.isExempt && !this.#fits(first.request.width)) return;
      queue.waiting.shift();
      if (queue.waiting.length === 0) this.#busy.delete(queue);
      this.#virtualNow = Math.max(this.#virtualNow, queue.charged);
      queue.charged += first.request.width * assumedMs;
      first.start(this.#hold(first.request, queue));
    }
    if (this.#queues.size > maxIdleQueues) this.#forgetIdle();
  }

  #forgetIdle(): void {
    for (const [index, queue] of this.#queues) {
      if (queue.waiting.length === 0 && queue.executing === 0) this.#queues.delete(index);
    }
  }
}
