// The node's side of joining: `openMembership` trusts a server by the hash in the token, asks it for settings and
// certificates, keeps them, and has them renewed while the node runs. A node that has joined before starts with what it
// kept, whether or not a server answers. However long it was away: the server is known by the keys of its authorities, not by
// dates, and by the name that only servers are certified for, not by its address, which nodes are certified for as well; and
// the node shows the key of its device where neither its certificate nor the token counts any more. How old a certificate is
// the server's clock says. What is asked for is in join/pass.ts, and who is believed in server-trust.ts.
// Upstream counterpart: k3s pkg/clientaccess and pkg/agent/config.
import { pause, type Random } from "#base/clock.ts";
import { withEither } from "#base/either-signal.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import { ClientFiles } from "./join/client-files.ts";
import { clockProblem, isLasting } from "./join/failures.ts";
import { type Credentials, type JoinDeps, type JoinOptions, join, readCredentials } from "./join/pass.ts";
import { createRepeatedProblem } from "./repeated-problem.ts";
import { keysIn } from "./server-trust.ts";
import { namedAuthority, parseToken, type Token } from "./tokens.ts";

export type { Credentials, JoinOptions } from "./join/pass.ts";

export interface Membership {
  readonly current: Credentials;
  /** What the cluster is known by, whoever else its authorities have come to be: two of its bundles have one of them. */
  readonly clusterKeys: readonly string[];
  /** Called with every change until the returned function is. */
  onChange(listener: () => void): () => void;
  /** Somebody was turned away, or turned away a server: asks soon for what counts now. */
  check(): void;
  /**
   * This machine has another address, by which servers know its node API from now on: the certificate that names it is asked for
   * at once, and soon again.
   */
  moved(): void;
  /** The Node is a new one: asks at once for a certificate, with which the name is this device's again. */
  claim(): void;
  /** Whether it began with what an earlier run had kept. */
  readonly hasJoinedBefore: boolean;
  /**
   * For a start, before anything is made of the settings: resolves when a server has said what counts now, or has been waited
   * for long enough. Nothing to wait for where the node has just joined.
   */
  catchUp(): Promise<void>;
  /** The time as the server had it when it was asked last: this machine's clock may be wrong. */
  nowMs(): number;
  readonly service: Service;
}

/** So long a start waits for what may have changed while the node was away: less than pods wait for a server at a boot. */
const catchUpMs = 2_000;
/** The same where the token names another cluster: somebody moves this node, and sees that the other one answers. */
const moveMs = 20_000;
/** Whoever turns a thousand nodes away is not asked by all of them at once, and by none all the time. */
const checkPause = { minMs: 500, maxMs: 5000, gapMs: 2000, longestGapMs: 120_000 } as const;
const retry = { minMs: 1000, maxMs: 5000, jitter: 0.3 } as const;
/** After a change of the machine's address: many may get another at the same time. */
const movedMaxMs = 300;
/** Some five minutes, each with a line in the log: a device may have moved to where there is no server at all. */
const movedTries = 60;
/** While the node runs anyway. */
const renewal = { minMs: 5000, maxMs: 300_000, checkMs: 12 * 3600_000, jitter: 0.2 } as const;

/**
 * At once where the node has joined before; else it tries until it has. Rejects with JOIN_* where trying again cannot help,
 * and with the signal's reason.
 */
export async function openMembership(options: JoinOptions, deps: JoinDeps, signal: AbortSignal): Promise<Membership> {
  const { clock, random, log } = deps;
  const store = new ClientFiles(options.folder);
  const listeners = new Set<() => void>();
  const kept = await readCredentials(store).catch((error: unknown) => {
    log.warn("what this node kept of its cluster is spoilt: it joins as if it were for the first time", {
      error: messageOf(error),
    });
    return undefined;
  });
  const token = tokenIn(options.token, kept !== undefined, log);
  /** What the server's clock said, and when. */
  let told: { readonly serverMs: number; readonly atMs: number } | undefined;
  let wake = () => {};
  /** There may be no certificate for this machine's address yet. */
  let hasMoved = false;
  /** And it has not been asked for since. */
  let isNew = false;
  let mustClaim = false;
  let askedMs = Number.NEGATIVE_INFINITY;
  let current = kept ?? (await joinFirst());
  let isStarting = false;
  /** Under way since the start: the service goes on with it. */
  let first: Promise<void> | undefined;

  async function joinOnce(): Promise<Credentials> {
    askedMs = clock.monotonicMs();
    const claims = mustClaim;
    mustClaim = false;
    const { credentials, serverMs } = await join({ ...options, claims }, token, store, deps, signal).catch((error) => {
      mustClaim ||= claims;
      throw error;
    });
    if (serverMs !== undefined) {
      told = { serverMs, atMs: clock.monotonicMs() };
      const problem = clockProblem(clock.now(), serverMs);
      if (problem !== undefined) log.warn(problem);
    }
    return credentials;
  }

  function isMoving({ serverCa }: Credentials): boolean {
    const hash = token?.caHash ?? "";
    return hash !== "" && namedAuthority(serverCa, hash) === undefined;
  }

  async function joinFirst(): Promise<Credentials> {
    const problem = createRepeatedProblem(clock);
    for (let attempt = 0; ; attempt++) {
      try {
        return await joinOnce();
      } catch (error) {
        if (isAbort(error, signal)) throw error;
        if (isLasting(error)) throw error;
        const fields = { error: messageOf(error) };
        if (problem.isNews(fields.error)) log.warn("cannot join yet, trying again", fields);
        else log.debug("cannot join yet, trying again", fields);
        deps.onProblem?.(messageOf(error));
        await clock.sleep(
          spread(Math.min(retry.minMs * 2 ** Math.min(attempt, 8), retry.maxMs), retry.jitter, random),
          signal,
        );
      }
    }
  }

  async function renew(): Promise<void> {
    const fresh = await joinOnce();
    const before = current;
    if (JSON.stringify(fresh) === JSON.stringify(before)) return;
    current = fresh;
    if (JSON.stringify(fresh.settings) !== JSON.stringify(before.settings)) {
      if (isStarting) log.info("the cluster's settings have changed since this agent ran");
      else log.warn("the cluster's settings have changed; they count from the next start of this agent");
    }
    for (const listener of listeners) listener();
  }

  return {
    get current() {
      return current;
    },
    get clusterKeys() {
      return keysIn(current.serverCa);
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    check: () => wake(),
    moved() {
      [hasMoved, isNew] = [true, true];
      wake();
    },
    claim() {
      [mustClaim, isNew] = [true, true];
      wake();
    },
    hasJoinedBefore: kept !== undefined,
    async catchUp() {
      if (!kept) return;
      isStarting = true;
      first = renew();
      const answered = new AbortController();
      // The service tells why not.
      const asked = first.catch(() => {}).finally(() => answered.abort());
      const patienceMs = isMoving(kept) ? moveMs : catchUpMs;
      const patience = withEither([answered.signal, signal], (over) => pause(clock, patienceMs, over));
      await Promise.race([asked, patience]);
      isStarting = false;
    },
    // From then on by the clock that nobody sets.
    nowMs: () => (told ? told.serverMs + clock.monotonicMs() - told.atMs : clock.now()),
    service: {
      name: "membership",
      async run(stop, ready) {
        ready();
        // Who has just joined has nothing to ask for.
        let waitMs: number = kept ? 0 : renewal.checkMs;
        let failures = 0;
        let gapMs: number = checkPause.gapMs;
        let woken = new AbortController();
        wake = () => woken.abort(new Error("somebody was turned away"));
        stop.addEventListener("abort", () => woken.abort(stop.reason), { once: true });
        while (!stop.aborted) {
          await pause(clock, spread(waitMs, renewal.jitter, random), woken.signal);
          if (woken.signal.aborted) {
            const leftMs = Math.max(checkPause.minMs, askedMs + gapMs - clock.monotonicMs());
            const chanceMs = random.float() * (checkPause.maxMs - checkPause.minMs);
            await pause(clock, isNew ? random.float() * movedMaxMs : leftMs + chanceMs, stop);
            if (!isNew) gapMs = Math.min(gapMs * 2, checkPause.longestGapMs);
          } else gapMs = checkPause.gapMs;
          if (stop.aborted) return;
          // Who is turned away from here on has it asked once more: what is under way may be too old for that.
          woken = new AbortController();
          const isOfMove = hasMoved;
          try {
            const asking = first ?? renew();
            first = undefined;
            [hasMoved, isNew] = [false, false];
            await asking;
            [waitMs, failures] = [renewal.checkMs, 0];
          } catch (error) {
            if (stop.aborted) return;
            hasMoved ||= isOfMove;
            const { minMs, maxMs } = hasMoved && failures < movedTries ? retry : renewal;
            waitMs = Math.min(minMs * 2 ** Math.min(failures++, 8), maxMs);
            log.warn("the server cannot be asked for certificates; going on with those there are", {
              error: messageOf(error),
            });
          }
        }
      },
    },
  };
}

const spread = (ms: number, jitter: number, random: Random): number => ms * (1 + (random.float() * 2 - 1) * jitter);

/** Who has joined needs no token: one that is none, such as an empty one, does not keep its pods from starting. */
function tokenIn(text: string | undefined, hasJoined: boolean, log: JoinDeps["log"]): Token | undefined {
  if (text === undefined) return undefined;
  try {
    return parseToken(text);
  } catch (error) {
    if (!hasJoined) throw error;
    log.warn("this node has joined before and goes on without the token that it was given", {
      error: messageOf(error),
    });
    return undefined;
  }
}
