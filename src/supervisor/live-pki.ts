// The cluster's certificates while the process runs: what is near its end is issued anew, and whoever serves or presents
// it is told, so that a device that is never restarted is never locked out. Looked at soon after the start, twice a day,
// and when the clock was set: a board without a battery gets its time while it runs. Authorities and the key for tokens
// stay as they are; new ones that were accepted (authorities.ts) take their place at the next start.
// Counterpart: the kubelet's certificate manager and k3s's certificate monitor; k3s renews at starts only.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { applyStaged } from "./authorities.ts";
import { ensureEtcdPki } from "./etcd-pki.ts";
import { ensurePki, ensureSparePairs, type Pki, type PkiDependencies, type PkiOptions } from "./pki.ts";

type Listener = (pki: Pki) => void | Promise<void>;

export interface LivePki {
  readonly current: Pki;
  /** Called after each renewal until the returned function is. A failure is logged and keeps nobody else from hearing. */
  onRenewal(listener: Listener): () => void;
  /** Looks now. */
  renew(): Promise<void>;
  readonly service: Service;
}

/** Pairs that nobody here waits for are made when the start is over. */
const spareMs = 10_000;
const firstCheckMs = 10 * 60_000;
const checkMs = 12 * 3600_000;
/** Devices that were switched on together do not work together. */
const jitter = 0.2;
const retryMs = 10 * 60_000;
/** How soon it is seen that the clock was set, and by how much it must have been to matter to certificates. */
const clockCheckMs = 60_000;
const clockStepMs = 3600_000;

export async function openLivePki(options: PkiOptions, deps: PkiDependencies): Promise<LivePki> {
  await applyStaged(options.folder, deps);
  let current = await ensurePki(options, deps);
  const listeners = new Set<Listener>();
  /** One at a time: two would issue the same pair twice. */
  let turn: Promise<void> = Promise.resolve();

  async function renewInTurn(): Promise<void> {
    const fresh = await ensurePki(options, deps);
    if (fingerprint(fresh) === fingerprint(current)) return;
    current = fresh;
    for (const listener of listeners) {
      try {
        await listener(fresh);
      } catch (error) {
        deps.log.error("a renewed certificate cannot be used before the next start", { error: messageOf(error) });
      }
    }
  }
  function renew(): Promise<void> {
    const mine = turn.then(renewInTurn);
    // Whoever asked hears of a failure; the next in line does not care.
    turn = mine.catch(() => undefined);
    return mine;
  }
  async function makeSpares(): Promise<void> {
    await ensureSparePairs(options, current, deps);
    await ensureEtcdPki(options, deps);
  }

  return {
    get current() {
      return current;
    },
    onRenewal(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    renew,
    service: {
      name: "certificates",
      async run(signal, ready) {
        ready();
        await pause(deps.clock, spareMs, signal);
        if (signal.aborted) return;
        await watch([renew, makeSpares], deps, signal);
      },
    },
  };
}

async function watch(
  tasks: readonly (() => Promise<void>)[],
  { clock, random, log }: { readonly clock: Clock; readonly random: Random; readonly log: Logger },
  signal: AbortSignal,
): Promise<void> {
  const offset = () => clock.now() - clock.monotonicMs();
  let offsetMs = offset();
  /** Shorter when the clock was set meanwhile. */
  const wait = async (ms: number): Promise<void> => {
    for (let leftMs = ms; leftMs > 0 && !signal.aborted; leftMs -= clockCheckMs) {
      await pause(clock, Math.min(leftMs, clockCheckMs), signal);
      const movedMs = offset() - offsetMs;
      offsetMs += movedMs;
      if (Math.abs(movedMs) > clockStepMs) return;
    }
  };
  let pauseMs: number = firstCheckMs;
  while (!signal.aborted) {
    try {
      for (const task of tasks) await task();
    } catch (error) {
      pauseMs = retryMs;
      log.warn("cannot renew certificates, trying again", { error: messageOf(error) });
    }
    await wait(pauseMs * (1 + (random.float() * 2 - 1) * jitter));
    pauseMs = checkMs;
  }
}

/** Tells two states apart: every pair has a new certificate when it is renewed. */
function fingerprint(pki: Pki): string {
  return Object.values(pki)
    .map((part: object) => ("certificate" in part ? part.certificate : ""))
    .join();
}
