// How often the dialing end of a tunnel asks whether the other still lives, and how long both wait before they take it for
// gone. Pure: the session asks `judge` on every tick. Time that this process itself lost (a stall, a machine that slept) is
// not counted against the other end.

export interface Keepalive {
  /** The dialing end pings so often. */
  readonly pingMs: number;
  /** A ping that nothing follows for so long means that the connection is dead. */
  readonly deadMs: number;
}

export const keepalives = {
  /** k3s's: it takes an end that sends no ping for 60 s for dead, whatever data it sends. */
  k3s: { pingMs: 5000, deadMs: 55_000 },
  /** Between motes: a cut is noticed within three seconds. */
  swift: { pingMs: 1000, deadMs: 1500 },
  /** Where bytes cost money: below what mobile carriers forget a silent connection after; some 15 MiB a year. */
  metered: { pingMs: 240_000, deadMs: 10_000 },
  /** The same towards a k3s server, which would give us up. */
  meteredK3s: { pingMs: 45_000, deadMs: 55_000 },
} as const satisfies Record<string, Keepalive>;

/** Whoever has sent something and heard nothing for so long asks, whichever end it is. */
const probeAfterMs = 5000;

/** Often enough to be on time, and no more: a server has a thousand of these, and who dials has a few. */
export const tickMs = ({ pingMs, deadMs }: Keepalive, isDialer: boolean): number =>
  Math.max(250, Math.min(5000, Math.min(pingMs, deadMs) / (isDialer ? 4 : 2)));

export interface Silence {
  readonly nowMs: number;
  readonly isDialer: boolean;
  /** The last bytes of the other end. */
  readonly heardMs: number;
  /** The first that we sent after those; undefined: none. */
  readonly unansweredMs: number | undefined;
  /** Our last ping, and whether anything has come since. */
  readonly pingedMs: number;
  readonly isPingOpen: boolean;
}

export function judge(keepalive: Keepalive, now: Silence): "wait" | "ping" | "dead" {
  const { nowMs } = now;
  if (now.isPingOpen && nowMs - now.pingedMs >= keepalive.deadMs) return "dead";
  if (now.isPingOpen) return "wait";
  if (now.isDialer && nowMs - now.pingedMs >= keepalive.pingMs) return "ping";
  // The accepting end hears pings as long as there is anybody.
  if (!now.isDialer && nowMs - now.heardMs >= keepalive.pingMs + keepalive.deadMs) return "dead";
  const isWaiting =
    now.unansweredMs !== undefined && nowMs - now.unansweredMs >= Math.max(probeAfterMs, keepalive.deadMs);
  return isWaiting ? "ping" : "wait";
}
