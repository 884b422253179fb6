// What one end of a tunnel knows of the other's life: pings and what became of them, how slow answers have been, and, where the
// dialing end can ask, whether the other's machine can be reached beside the connection. Between motes the dialing end says in
// its pings for how long it may be silent, when that is longer than usual: it knows how slow both and the way are, and a server
// keeps no figures of a thousand. Decides by `judge`; sends nothing itself.
import type { Reach } from "#platform/raw-websocket.ts";
import { judge, type Keepalive, type Verdict } from "./keepalive.ts";
import { decodeNumber, encodeNumber } from "./messages.ts";
import { Patience } from "./patience.ts";

/** Of a new connection, where that is known. */
export interface Way {
  /** TLS and HTTP: two round trips and the other end's work. */
  readonly handshakeMs?: number | undefined;
  readonly reach?: Reach | undefined;
}

export interface LivenessOptions {
  readonly keepalive: Keepalive;
  readonly isDialer: boolean;
  readonly isMote: boolean;
  readonly nowMs: () => number;
}

/**
 * Of an answer's time: what a ping may be late by. It goes one way, and what TCP repeats twice on a good path comes after 600 ms, what
 * it repeats thrice after more than anybody waits.
 */
const lateness = 0.75;
const nothing = new Uint8Array(0);

export class Liveness {
  readonly #options: LivenessOptions;
  readonly #patience: Patience;
  #pingedMs: number;
  #isPingOpen = false;
  /** The first ping that has had no pong. */
  #askedMs: number | undefined;
  #probedMs: number | undefined;
  #reachedMs: number | undefined;
  #answeredMs: number | undefined;
  #reach: Reach | undefined;
  #stopReaching: (() => void) | undefined;
  /** What the dialing end has said. */
  #toldMs = 0;
  /** Over the present connection. */
  #hasHeard = false;
  #isDead = false;

  constructor(options: LivenessOptions) {
    this.#options = options;
    this.#patience = new Patience(options.keepalive.deadMs);
    this.#pingedMs = options.nowMs();
  }

  /** The last connection was given up without a byte of the other end. */
  get wasMute(): boolean {
    return this.#isDead && !this.#hasHeard;
  }

  get patienceMs(): number {
    const { isMote, isDialer, keepalive } = this.#options;
    if (!isMote) return keepalive.deadMs;
    // Many may come at the same time, and each waits for the handshakes of all.
    const firstMs = this.#hasHeard ? 0 : 2 * keepalive.deadMs;
    return Math.max(this.#patience.ms, this.#toldMs, firstMs) * (isDialer ? 1 : lateness);
  }

  attached(way: Way): void {
    this.detached();
    this.#pingedMs = this.#options.nowMs();
    this.#isPingOpen = false;
    this.#askedMs = undefined;
    this.#hasHeard = false;
    this.#isDead = false;
    this.#reach = way.reach;
    if (way.handshakeMs !== undefined) this.#patience.expect(way.handshakeMs / 2);
  }

  detached(): void {
    this.#stopReaching?.();
    this.#stopReaching = undefined;
    this.#reach = undefined;
  }

  /** Whatever it was. */
  heard(): void {
    this.#hasHeard = true;
    this.#isPingOpen = false;
    if (this.#stopReaching === undefined) return;
    this.#stopReaching();
    this.#stopReaching = undefined;
  }

  /** The answer to our pings. One may answer several, so the first counts. */
  ponged(): void {
    if (this.#askedMs === undefined) return;
    this.#patience.answered(this.#options.nowMs() - this.#askedMs);
    this.#askedMs = undefined;
  }

  /** What came with a ping. */
  told(payload: Uint8Array): void {
    const { isMote, isDialer } = this.#options;
    if (!isMote || isDialer) return;
    const ms = payload.length === 0 ? 0 : decodeNumber(payload);
    if (ms >= 0) this.#toldMs = Math.min(ms, this.#patience.mostMs);
  }

  /** `lateMs`: so much later than it should have been this is called. */
  look(nowMs: number, lateMs: number, heardMs: number, unansweredMs: number | undefined): Verdict {
    const { keepalive, isDialer, isMote } = this.#options;
    if (isDialer) this.#patience.expect(lateMs);
    const verdict = judge(keepalive, {
      ...{ nowMs, sureMs: nowMs - lateMs, isDialer, heardMs, unansweredMs },
      ...{ pingedMs: this.#pingedMs, isPingOpen: this.#isPingOpen, patienceMs: this.patienceMs },
      ...{ probedMs: this.#probedMs, reachedMs: this.#reachedMs, answeredMs: this.#answeredMs },
    });
    this.#isDead = verdict === "dead";
    return verdict === "probe" && !isMote ? "wait" : verdict;
  }

  /** A ping goes out: what to say with it. */
  asks(isProbe: boolean): Uint8Array {
    const nowMs = this.#options.nowMs();
    this.#askedMs ??= nowMs;
    if (isProbe) this.#probe(nowMs);
    else {
      this.#pingedMs = nowMs;
      this.#isPingOpen = true;
      this.#probedMs = undefined;
      this.#reachedMs = undefined;
      this.#answeredMs = undefined;
    }
    const { isMote, isDialer } = this.#options;
    const { ms, leastMs } = this.#patience;
    return isMote && isDialer && ms > leastMs ? encodeNumber(ms) : nothing;
  }

  #probe(nowMs: number): void {
    this.#probedMs = nowMs;
    this.#answeredMs = undefined;
    this.#stopReaching?.();
    this.#stopReaching = undefined;
    if (!this.#reach) return;
    const stop = new AbortController();
    this.#stopReaching = () => stop.abort(new Error("it has spoken, or is gone"));
    const connected = () => {
      if (!stop.signal.aborted) this.#reachedMs = this.#options.nowMs();
    };
    this.#reach(stop.signal, connected).then(
      () => {
        if (!stop.signal.aborted) this.#answeredMs = this.#options.nowMs();
      },
      // That it is not reached is what there is to know.
      () => undefined,
    );
  }
}
