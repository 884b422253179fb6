// The cluster's certificates while the process runs: what is near its end is issued anew, and whoever serves or presents
// it is told, so that a device that is never restarted is never locked out. Looked at soon after the start, because a board
// without a battery gets its time then, and twice a day. Authorities and the key for tokens stay as they are.
// Counterpart: the kubelet's certificate manager; k3s renews at starts only.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { ensurePki, type Pki, type PkiDependencies, type PkiOptions } from "./pki.ts";

type Listener = (pki: Pki) => void | Promise<void>;

export interface LivePki {
  readonly current: Pki;
  /** Called after each renewal until the returned function is. A failure is logged and keeps nobody else from hearing. */
  onRenewal(listener: Listener): () => void;
  readonly service: Service;
}

const firstCheckMs = 10 * 60_000;
const checkMs = 12 * 3600_000;
/** Devices that were switched on together do not work together. */
const jitter = 0.2;
const retryMs = 10 * 60_000;

export async function openLivePki(options: PkiOptions, deps: PkiDependencies): Promise<LivePki> {
  let current = await ensurePki(options, deps);
  const listeners = new Set<Listener>();

  async function renew(): Promise<void> {
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

  return {
    get current() {
      return current;
    },
    onRenewal(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    service: { name: "certificates", run: (signal, ready) => watch(renew, deps, signal, ready) },
  };
}

async function watch(
  renew: () => Promise<void>,
  { clock, random, log }: { readonly clock: Clock; readonly random: Random; readonly log: Logger },
  signal: AbortSignal,
  ready: () => void,
): Promise<void> {
  ready();
  let pauseMs: number = firstCheckMs;
  while (!signal.aborted) {
    await pause(clock, pauseMs * (1 + (random.float() * 2 - 1) * jitter), signal);
    if (signal.aborted) return;
    try {
      await renew();
      pauseMs = checkMs;
    } catch (error) {
      pauseMs = retryMs;
      log.warn("cannot renew certificates, trying again", { error: messageOf(error) });
    }
  }
}

/** Tells two states apart: every pair has a new certificate when it is renewed. */
function fingerprint(pki: Pki): string {
  return Object.values(pki)
    .map((part: object) => ("certificate" in part ? part.certificate : ""))
    .join();
}
