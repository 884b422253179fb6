// One watch on one collection: what the client has not seen yet, then what happens, in the client's terms. A change
// that makes an object enter or leave the selection is ADDED or DELETED for this client. Every change is looked into
// once, however many watch: see WatchedChange. Upstream counterpart: the cacher's watchers and the etcd3 watcher.
import type { Clock } from "#base/clock.ts";
import { hasCode } from "#base/errors.ts";
import {
  revision as asRevision,
  type Backend,
  prefixRange,
  type Revision,
  type WatchEvent,
} from "#datastore/backend.ts";
import type { UnknownObject } from "#model/object.ts";
import { type ApiError, expired, type Status } from "#model/status.ts";
import { nextTurn } from "#platform/turns.ts";
import type { Item } from "../registry/codec.ts";
import { toApiError } from "../registry/errors.ts";
import { collectionPrefix } from "../registry/keys.ts";
import type { ResourceStorage } from "../registry/storage.ts";
import { Listener, type Relay } from "./relay.ts";

export type ChangeType = "ADDED" | "MODIFIED" | "DELETED";

export interface FeedEvent {
  readonly type: ChangeType;
  readonly item: Item;
  /** What encodings are cached by; shared by all watchers of the change. Absent for initial events. */
  readonly change: WatchedChange | undefined;
}

/** A change and what was made of it: encodings by representation and type. */
export class WatchedChange {
  readonly now: Item | undefined;
  /** The state before, at the revision of the change; undefined for a creation or where history is gone. */
  readonly before: Item | undefined;
  readonly created: boolean;
  readonly encodings = new Map<string, Uint8Array>();

  constructor(event: WatchEvent, storage: Pick<ResourceStorage, "reveal">) {
    const { kv, prevKv } = event;
    this.created = event.type === "put" && kv.version === 1;
    this.now = event.type === "put" ? storage.reveal(kv) : undefined;
    this.before = prevKv && {
      key: kv.key,
      value: storage.reveal(prevKv).value,
      modRevision: kv.modRevision,
      gone: true,
    };
  }
}

/** What was made of changes: once, however many watch. One per server. */
export class Changes {
  readonly #known = new WeakMap<WatchEvent, WatchedChange>();
  readonly #whole = new WeakMap<readonly WatchEvent[], readonly FeedEvent[] | "lost">();

  of(event: WatchEvent, storage: ResourceStorage): WatchedChange {
    let change = this.#known.get(event);
    if (!change) {
      try {
        change = new WatchedChange(event, storage);
      } catch {
        // Written with a key that is gone. A list shows what there is, or names the key that cannot be read.
        throw expired("a change can no longer be decrypted; list again");
      }
      this.#known.set(event, change);
    }
    return change;
  }

  /** A batch as everybody sees it who selects nothing; "lost": it has a deletion whose object is gone. */
  whole(events: readonly WatchEvent[], storage: ResourceStorage): readonly FeedEvent[] | "lost" {
    let seen = this.#whole.get(events);
    if (seen) return seen;
    const out: FeedEvent[] = [];
    for (const event of events) {
      const change = this.of(event, storage);
      const item = change.now ?? change.before;
      if (item) out.push({ type: change.now ? (change.created ? "ADDED" : "MODIFIED") : "DELETED", item, change });
    }
    seen = out.length === events.length ? out : "lost";
    this.#whole.set(events, seen);
    return seen;
  }
}

export interface FeedPlan {
  readonly storage: ResourceStorage;
  readonly namespace: string;
  /** Of metadata.name=x, so that only one key is watched. */
  readonly name: string | undefined;
  /** Undefined: everything matches. */
  readonly matches: ((object: UnknownObject) => boolean) | undefined;
  /** Deliver what is after this revision; undefined: begin with what there is. */
  readonly after: number | undefined;
  /** The initial state ends with an annotated bookmark (sendInitialEvents). */
  readonly markInitialEnd: boolean;
  readonly bookmarks: boolean;
  readonly timeoutMs: number;
  /** Of resources whose objects are not served as they are stored. */
  readonly live?: LiveResource | undefined;
}

/** A resource that is defined at run time. */
export interface LiveResource {
  /** The change in the version of the watch; must not be changed. */
  present(change: WatchedChange): Promise<WatchedChange>;
  /** Calls `end` when the resource changes or goes: its watches then end, and their clients come back. Takes it back. */
  onRetired(end: () => void): () => void;
}

/** Takes a feed. Nothing may throw. After `error` or `end` nothing comes. */
export interface FeedSink {
  /** Resolves when more may come: for the initial state only, which may be large. */
  initial(events: readonly FeedEvent[]): Promise<void>;
  events(events: readonly FeedEvent[]): void;
  bookmark(revision: number, initialEnd: boolean): void;
  error(status: Status): void;
  end(): void;
}

export interface FeedDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly changes: Changes;
  readonly relay: Relay;
}

/** As upstream: about once a minute. */
const bookmarkMs = 60_000;
/** Batches of changes that may wait for their turn, or for a conversion; a watch that owes more ends. */
const maxPendingBatches = 1000;
/** Initial events handed over at a time. */
const initialSlice = 500;

/** Runs until the sink has been told the end or `signal` aborts. Never rejects. */
export async function runFeed(plan: FeedPlan, deps: FeedDeps, sink: FeedSink, signal: AbortSignal): Promise<void> {
  try {
    let after = plan.after;
    if (after === undefined) {
      after = await sendInitial(plan, sink, signal);
      if (signal.aborted) return;
      if (plan.markInitialEnd) sink.bookmark(after, true);
    }
    await follow(plan, deps, sink, after, signal);
  } catch (error) {
    if (!signal.aborted) sink.error(toApiError(error).status);
  }
}

/** What there is at one revision, page by page; answers the revision. */
async function sendInitial(plan: FeedPlan, sink: FeedSink, signal: AbortSignal): Promise<number> {
  const { storage, matches } = plan;
  let revision = 0;
  let after: string | undefined;
  for (;;) {
    const from = after === undefined ? {} : { after };
    const page = await storage.list(plan.namespace, { limit: initialSlice, revision, ...from });
    revision = page.revision;
    const events: FeedEvent[] = [];
    for (const item of page.items) {
      after = item.key;
      if (plan.name !== undefined && !item.key.endsWith(`/${plan.name}`)) continue;
      if (!matches || matches(storage.decode(item))) events.push({ type: "ADDED", item, change: undefined });
    }
    if (events.length > 0 && !signal.aborted) await sink.initial(events);
    if (page.remaining <= 0 || page.items.length === 0 || signal.aborted) return revision;
    await nextTurn();
  }
}

function follow(plan: FeedPlan, deps: FeedDeps, sink: FeedSink, after: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    let stopTimers = () => {};
    let forgetRetired = () => {};
    let over = false;
    const finish = () => {
      over = true;
      ear.clear();
      stopTimers();
      forgetRetired();
      signal.removeEventListener("abort", onAbort);
      watch?.cancel();
      resolve();
    };
    const onAbort = () => {
      if (!over) finish();
    };
    const fail = (error: ApiError) => {
      sink.error(error.status);
      finish();
    };
    const selectsNothing = plan.matches === undefined && plan.name === undefined;
    const deliver = (events: readonly WatchEvent[]) => {
      const seen = selectsNothing ? deps.changes.whole(events, plan.storage) : "lost";
      if (seen === "lost") send(events.map(changeOf));
      else sink.events(seen);
    };
    const changeOf = (event: WatchEvent): WatchedChange => deps.changes.of(event, plan.storage);
    const send = (changes: readonly WatchedChange[]) => {
      const out: FeedEvent[] = [];
      let lost = false;
      for (const change of changes) {
        const seen = select(plan, change);
        lost = seen === "lost";
        if (lost) break;
        if (seen && seen !== "lost") out.push(seen);
      }
      if (out.length > 0) sink.events(out);
      if (lost) fail(expired("the state before a deletion is no longer known; list again"));
    };
    // Conversions take their time; what comes behind one waits for it.
    let pendingBatches = 0;
    let tail: Promise<void> = Promise.resolve();
    const later = (work: () => Promise<void> | void) => {
      pendingBatches++;
      tail = tail.then(async () => {
        pendingBatches--;
        if (over) return;
        try {
          await work();
        } catch (error) {
          if (!over) fail(toApiError(error));
        }
      });
      if (pendingBatches > maxPendingBatches && !over) {
        sink.end();
        finish();
      }
    };
    const { live } = plan;
    let watch: ReturnType<Backend["watch"]> | undefined;
    // Exactly one object: its key; else the folder.
    const folder = collectionPrefix(plan.storage.info, plan.namespace);
    const single = plan.name !== undefined && (!plan.storage.info.namespaced || plan.namespace !== "");
    const range = single ? { key: folder + plan.name } : prefixRange(folder);
    const ear = new Listener((events) => {
      if (over) return;
      if (live) {
        later(async () => {
          const changes = await Promise.all(events.map((event) => live.present(changeOf(event))));
          if (!over) send(changes);
        });
        return;
      }
      try {
        deliver(events);
      } catch (error) {
        // A value nobody can read: the client lists again and meets the same error there, with its text.
        fail(toApiError(error));
      }
    });
    watch = deps.backend.watch(
      { ...range, startRevision: asRevision(after + 1) },
      {
        onEvents(events) {
          if (over) return;
          deps.relay.tell(ear, events);
          if (ear.owed > maxPendingBatches) {
            sink.end();
            finish();
          }
        },
        onEnd(error) {
          if (over) return;
          if (error && hasCode(error, "DATASTORE_COMPACTED")) {
            fail(expired(`too old resource version: ${after} (${deps.backend.compactedRevision()})`));
          } else {
            // A slow or a closed watch: the client comes back with the last revision it has.
            sink.end();
            finish();
          }
        },
      },
    );
    if (over) {
      watch.cancel();
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) {
      onAbort();
      return;
    }
    const bookmark = () => {
      // What it is still to hear would be behind the bookmark; the next one comes.
      if (ear.owed > 0) return;
      const progress = watch?.progress ?? (0 as Revision);
      const say = () => {
        if (progress > 0) sink.bookmark(Math.max(progress, after), false);
      };
      if (pendingBatches > 0) later(say);
      else say();
    };
    if (live) {
      forgetRetired = live.onRetired(() => {
        if (over) return;
        sink.end();
        finish();
      });
      if (over) return;
    }
    let cancelBookmark = () => {};
    const scheduleBookmark = () => {
      cancelBookmark = deps.clock.after(bookmarkMs, () => {
        bookmark();
        if (!over) scheduleBookmark();
      });
    };
    if (plan.bookmarks) scheduleBookmark();
    const cancelTimeout = deps.clock.after(plan.timeoutMs, () => {
      if (plan.bookmarks) bookmark();
      sink.end();
      finish();
    });
    stopTimers = () => {
      cancelBookmark();
      cancelTimeout();
    };
  });
}

/** What this client sees of a change; undefined: nothing; "lost": it should see a deletion whose object is gone. */
function select(plan: FeedPlan, change: WatchedChange): FeedEvent | "lost" | undefined {
  const { now, before } = change;
  if (plan.name !== undefined && !(now ?? before)?.key.endsWith(`/${plan.name}`)) return undefined;
  const { matches, storage } = plan;
  const nowMatches = now !== undefined && (!matches || matches(storage.decode(now)));
  const beforeMatches = change.created ? false : before ? !matches || matches(storage.decode(before)) : true;
  if (nowMatches) return { type: beforeMatches ? "MODIFIED" : "ADDED", item: now, change };
  if (!beforeMatches) return undefined;
  return before ? { type: "DELETED", item: before, change } : "lost";
}
