// What a server owns in a shared datastore only while it lives: keys under one lease of the datastore, which is kept alive in
// etcd's memory, so that a cluster of several servers writes nothing to say that all is well. When a server is gone its keys go
// with the lease; the others watch them. The datastore's clock counts, never one of the servers'.
// Invariants: a server takes its session for lost before the datastore does; one that was stopped in between, and goes on without
// having noticed, writes nothing, for what a leader writes is compared with the key by which it leads; and what it began while
// it led has ended before it leads again.
// Upstream counterparts: kube-apiserver's master leases, client-go's leaderelection (which writes every 2 s).
import { type Clock, pause } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { type Backend, type Compare, type Key, type KeyValue, revision } from "#datastore/backend.ts";

export interface SessionOptions {
  /** This server among the others; the same after a restart. */
  readonly holder: string;
}

export interface SessionDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface ServerSession {
  /** Keeps it alive, and begins another when it was lost. Ends it, so that nobody waits for its end. */
  readonly service: Service;
  /** The key is there while the session is. */
  hold(key: Key, value: string): void;
  /** Not any more. */
  drop(key: Key): void;
  /** What one server at a time does. */
  leadership(key: Key, hooks?: LeadershipHooks): Leadership;
}

export interface LeadershipHooks {
  /** This server leads, nobody else writes as a leader, and what is gated has not begun: what is known may be old. */
  prepare?(): void;
  /** What is gated begins. */
  onLead?(): void;
}

export interface Leadership {
  /** Takes part in the election. */
  readonly service: Service;
  /** The same service, run only while this server leads. */
  gate(service: Service): Service;
  /** How many gated services have been told to end and have not. */
  readonly lingering: () => number;
  /** Holds in the datastore as long as this server leads as it did when what is gated was begun: for all that it writes. */
  readonly mustHold: () => Compare;
}

/** Others take over so long after a server fell silent. */
const lifeSeconds = 8;
/** A server that has not been heard for so long acts as if it were already dead. */
const lostMs = 5500;
const renewMs = 2000;
const retryMs = 500;
/** Should a watch miss what it waits for. */
const lookMs = 5000;
/** What a former leader still does is told after the first, and again after pauses that double up to the second. */
const lingering = { firstMs: 30_000, maxMs: 3600_000 } as const;
/** Of the farewell: an etcd that does not answer must not hold up the end. */
const farewellMs = 2000;

interface Live {
  readonly lease: number;
  readonly ended: AbortSignal;
}

export function createServerSession(options: SessionOptions, deps: SessionDeps): ServerSession {
  const { backend, clock, log } = deps;
  const held = new Map<Key, Uint8Array>();
  let live: Live | undefined;
  const waiters = new Set<() => void>();

  const put = async (lease: number, keys: Iterable<readonly [Key, Uint8Array]>): Promise<void> => {
    for (const [key, value] of keys) {
      await backend.commit({ compares: [], success: [{ type: "put", key, value, lease }] });
    }
  };

  /** One session, from its grant to its end. */
  const runOnce = async (signal: AbortSignal): Promise<void> => {
    const over = new AbortController();
    const stop = () => over.abort(new Error("stopped"));
    let cancel = () => {};
    /** `sinceMs`: when it was asked, for an answer says nothing of how long it took. */
    const heard = (sinceMs: number) => {
      cancel();
      const leftMs = Math.max(0, sinceMs + lostMs - clock.monotonicMs());
      cancel = clock.after(leftMs, () => over.abort(new Error("the datastore has not been heard for too long")));
    };
    let lease: number | undefined;
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    try {
      const askedMs = clock.monotonicMs();
      // What comes too late ends by itself.
      const granted = await Promise.race([backend.grantLease(lifeSeconds, 0, true), untilAborted(over.signal)]);
      if (!granted) return;
      lease = granted.id;
      heard(askedMs);
      await Promise.race([put(lease, held), untilAborted(over.signal)]);
      if (over.signal.aborted) throw over.signal.reason;
      live = { lease, ended: over.signal };
      log.debug("session begun", { lease });
      for (const waiter of [...waiters]) waiter();
      await keepAlive(lease, over.signal, heard);
      if (!signal.aborted) throw over.signal.reason;
    } finally {
      live = undefined;
      cancel();
      over.abort(new Error("the session has ended"));
      signal.removeEventListener("abort", stop);
      if (lease !== undefined) await farewell(lease);
    }
  };

  const keepAlive = async (id: number, over: AbortSignal, heard: (sinceMs: number) => void): Promise<void> => {
    let waitMs: number = renewMs;
    while (!over.aborted) {
      await pause(clock, waitMs, over);
      if (over.aborted) return;
      const askedMs = clock.monotonicMs();
      const asked = backend.keepAlive(id).then(
        () => undefined,
        (error: unknown) => ({ error }),
      );
      const answer = await Promise.race([asked, pause(clock, lostMs, over)]);
      if (over.aborted) return;
      if (!answer) heard(askedMs);
      else if (hasCode(answer.error, "DATASTORE_LEASE_NOT_FOUND")) throw answer.error;
      else log.debug("the session is not renewed, trying again", { error: messageOf(answer.error) });
      waitMs = answer ? retryMs : renewMs;
    }
  };

  const farewell = async (lease: number): Promise<void> => {
    const timer = new AbortController();
    const revoked = backend.revokeLease(lease).catch((error: unknown) => {
      log.debug("a session ends by itself", { lease, error: messageOf(error) });
    });
    await Promise.race([revoked, pause(clock, farewellMs, timer.signal)]);
    timer.abort();
  };

  const whenLive = async (signal: AbortSignal): Promise<Live | undefined> => {
    while (!signal.aborted) {
      if (live && !live.ended.aborted) return live;
      await new Promise<void>((resolve) => {
        const done = () => {
          waiters.delete(done);
          signal.removeEventListener("abort", done);
          resolve();
        };
        waiters.add(done);
        signal.addEventListener("abort", done, { once: true });
      });
    }
    return undefined;
  };

  const service: Service = {
    name: "server-session",
    async run(signal, ready) {
      ready();
      while (!signal.aborted) {
        try {
          await runOnce(signal);
        } catch (error) {
          if (signal.aborted) return;
          log.warn("the session in the datastore was lost, beginning another", { error: messageOf(error) });
          await pause(clock, retryMs, signal);
        }
      }
    },
  };

  const holder = Buffer.from(options.holder);

  /** Waits until the key is ours; the session that it is ours with. */
  const acquire = async (key: Key, signal: AbortSignal): Promise<Live | undefined> => {
    while (!signal.aborted) {
      const mine = await whenLive(signal);
      if (!mine) return undefined;
      try {
        const other = await take(key, mine.lease);
        if (!other) return mine;
        await untilGone(key, other, [signal, mine.ended]);
      } catch (error) {
        if (signal.aborted) return undefined;
        log.debug("cannot ask who leads, trying again", { key, error: messageOf(error) });
        await pause(clock, retryMs, signal);
      }
    }
    return undefined;
  };

  /** Undefined: it is ours now. Else who has it. */
  const take = async (key: Key, lease: number): Promise<KeyValue | undefined> => {
    const mine = { type: "put", key, value: holder, lease } as const;
    const first = await backend.commit({
      compares: [{ key, target: "create", op: "=", value: 0 }],
      success: [mine],
      failure: [{ type: "range", range: { key } }],
    });
    if (first.succeeded) return undefined;
    const [answer] = first.results;
    const found = answer?.type === "range" ? answer.result.kvs[0] : undefined;
    if (!found) return take(key, lease);
    // Of an earlier run of this server, which was killed: there is no other of its name.
    if (!holder.equals(found.value)) return found;
    const again = await backend.commit({
      compares: [{ key, target: "mod", op: "=", value: found.modRevision }],
      success: [mine],
    });
    return again.succeeded ? undefined : found;
  };

  const untilGone = async (key: Key, found: KeyValue, signals: readonly AbortSignal[]): Promise<void> => {
    const gone = new AbortController();
    const over = () => gone.abort();
    for (const signal of signals) signal.addEventListener("abort", over, { once: true });
    if (signals.some((signal) => signal.aborted)) over();
    const watch = backend.watch(
      { key, startRevision: revision(found.modRevision + 1) },
      { onEvents: over, onEnd: over },
    );
    try {
      await pause(clock, lookMs, gone.signal);
    } finally {
      watch.cancel();
      for (const signal of signals) signal.removeEventListener("abort", over);
    }
  };

  return {
    service,
    hold(key, value) {
      const bytes = Buffer.from(value);
      held.set(key, bytes);
      if (live) {
        void put(live.lease, [[key, bytes]]).catch((error: unknown) => {
          log.debug("a key is put with the next session", { key, error: messageOf(error) });
        });
      }
    },
    drop(key) {
      held.delete(key);
      if (!live) return;
      backend.commit({ compares: [], success: [{ type: "delete", key }] }).catch((error: unknown) => {
        log.debug("a key goes with its session", { key, error: messageOf(error) });
      });
    },
    leadership(key, { prepare = () => {}, onLead = () => {} } = {}) {
      let leading: AbortSignal | undefined;
      // Of the last time; before the first none is 0, for which no key is.
      let lease = 0;
      const waiting = new Set<() => void>();
      /** Gated services that run, or have not ended yet. */
      const running = new Set<Service>();
      let allEnded = () => {};
      const whenAllEnded = async (signal: AbortSignal): Promise<void> => {
        const sinceMs = clock.monotonicMs();
        for (let waitMs: number = lingering.firstMs; running.size > 0 && !signal.aborted; ) {
          const wait = new AbortController();
          const done = () => wait.abort();
          allEnded = done;
          signal.addEventListener("abort", done, { once: true });
          await pause(clock, waitMs, wait.signal);
          signal.removeEventListener("abort", done);
          if (running.size === 0 || signal.aborted) return;
          log.warn("this server cannot lead again before what it did as the leader has ended; a restart helps", {
            ...{ of: key, waitsFor: [...running].map(({ name }) => name).join(", ") },
            seconds: Math.round((clock.monotonicMs() - sinceMs) / 1000),
          });
          waitMs = Math.min(waitMs * 2, lingering.maxMs);
        }
      };
      return {
        service: {
          name: `election ${key.slice(key.lastIndexOf("/") + 1)}`,
          async run(signal, ready) {
            ready();
            while (!signal.aborted) {
              const mine = await acquire(key, signal);
              if (!mine) return;
              log.info("this server leads", { of: key });
              lease = mine.lease;
              prepare();
              leading = mine.ended;
              onLead();
              for (const one of [...waiting]) one();
              await Promise.race([untilAborted(signal), untilAborted(mine.ended)]);
              leading = undefined;
              if (!signal.aborted) log.warn("this server does not lead any more", { of: key });
              await whenAllEnded(signal);
            }
          },
        },
        gate: (inner) => ({
          name: inner.name,
          async run(signal, ready) {
            // Whoever comes after it does not wait for an election.
            ready();
            while (!signal.aborted) {
              if (!leading || leading.aborted) {
                await new Promise<void>((resolve) => {
                  const done = () => {
                    waiting.delete(done);
                    signal.removeEventListener("abort", done);
                    resolve();
                  };
                  waiting.add(done);
                  signal.addEventListener("abort", done, { once: true });
                });
                continue;
              }
              const child = new AbortController();
              const stop = () => child.abort(new Error("stopped, or another server leads"));
              const sources = [signal, leading];
              for (const source of sources) source.addEventListener("abort", stop, { once: true });
              running.add(inner);
              try {
                await inner.run(child.signal, () => {});
                if (!child.signal.aborted) return;
              } catch (error) {
                if (!child.signal.aborted) throw error;
              } finally {
                running.delete(inner);
                if (running.size === 0) allEnded();
                for (const source of sources) source.removeEventListener("abort", stop);
              }
            }
          },
        }),
        lingering: () => (leading ? 0 : running.size),
        mustHold: () => ({ key, target: "lease", op: "=", value: lease === 0 ? -1 : lease }),
      };
    },
  };
}
