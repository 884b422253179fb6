// How often the dialing end of a tunnel asks whether the other still lives, and how long both wait before they take it for
// gone. Pure: `Liveness` asks `judge` on every tick. Invariants: time that this process itself lost (a stall, a machine that
// slept) is not counted against the other end; and a machine that can be reached is not taken for gone because it is slow.

export interface Keepalive {
  /** The dialing end pings so often. */
  readonly pingMs: number;
  /** A ping that nothing follows for so long means that the connection is dead, where answers used to be quick. */
  readonly deadMs: number;
}

export const keepalives = {
  /** k3s's: it takes an end that sends no ping for 60 s for dead, whatever data it sends. */
  k3s: { pingMs: 5000, deadMs: 55_000 },
  /** Between motes: a cut is noticed within two seconds, and in three by whoever is slow himself. */
  swift: { pingMs: 1000, deadMs: 1000 },
  /** Where bytes cost money: below what mobile carriers forget a silent connection after; some 15 MiB a year. */
  metered: { pingMs: 240_000, deadMs: 10_000 },
  /** The same towards a k3s server, which would give us up. */
  meteredK3s: { pingMs: 45_000, deadMs: 55_000 },
} as const satisfies Record<string, Keepalive>;

/** Whoever has sent something and heard nothing for so long asks, whichever end it is. */
const probeAfterMs = 5000;
/**
 * Of `deadMs`: so long an end is waited for whose machine could be reached. It is starved, or hangs: then dialing is no help, and
 * neither is trying again whether it can be reached, which costs it more than the answer that is waited for.
 */
const mostWhileReachable = 12;

/** Often enough to be on time, and no more: a server has a thousand of these, and who dials has a few. */
export const tickMs = ({ pingMs, deadMs }: Keepalive): number =>
  Math.max(250, Math.min(5000, Math.min(pingMs, deadMs) / 4));

export interface Silence {
  readonly nowMs: number;
  /** Whatever had come until then has been read: earlier than now where this process has not run for a while. */
  readonly sureMs: number;
  readonly isDialer: boolean;
  /** The last bytes of the other end. */
  readonly heardMs: number;
  /** The first that we sent after those; undefined: none. */
  readonly unansweredMs: number | undefined;
  /** Our last ping, and whether anything has come since. */
  readonly pingedMs: number;
  readonly isPingOpen: boolean;
  /** Instead of `deadMs`, as answers have been lately. */
  readonly patienceMs: number;
  /** Since the ping: when we asked again; when the other end's machine was reached beside the connection, and its program answered. */
  readonly probedMs: number | undefined;
  readonly reachedMs: number | undefined;
  readonly answeredMs: number | undefined;
}

/** "probe": asks once more, which makes TCP find out sooner what was lost; and whether the machine can be reached at all. */
export type Verdict = "wait" | "ping" | "probe" | "dead";

/** For whoever is reachable beside the connection: from the ping on. */
function allowanceMs(keepalive: Keepalive, now: Silence): number {
  const { pingedMs, probedMs, reachedMs, answeredMs, patienceMs } = now;
  if (reachedMs === undefined || probedMs === undefined) return 0;
  if (answeredMs === undefined) return keepalive.deadMs * mostWhileReachable;
  // It runs, and our ping has not got there: TCP may still be repeating it, or the way has forgotten this one connection.
  return Math.max(2 * patienceMs, answeredMs - pingedMs + Math.max(patienceMs, answeredMs - probedMs));
}

export function judge(keepalive: Keepalive, now: Silence): Verdict {
  const { nowMs, sureMs, patienceMs } = now;
  if (now.isPingOpen) {
    if (sureMs >= now.pingedMs + Math.max(patienceMs, allowanceMs(keepalive, now))) return "dead";
    return now.probedMs === undefined && nowMs >= now.pingedMs + patienceMs / 2 ? "probe" : "wait";
  }
  if (now.isDialer && nowMs - now.pingedMs >= keepalive.pingMs) return "ping";
  // The accepting end hears pings as long as there is anybody.
  if (!now.isDialer && sureMs - now.heardMs >= keepalive.pingMs + patienceMs) return "dead";
  const isWaiting = now.unansweredMs !== undefined && nowMs - now.unansweredMs >= Math.max(probeAfterMs, patienceMs);
  return isWaiting ? "ping" : "wait";
}
