// Everything that changes in an etcd, by one stream: one watch of all keys feeds every watcher of this process; a watcher
// that begins further back than the history kept here gets a watch of its own on the same stream until it has caught up.
//
//   add(from) --from > followed------------------------------> live
//       \--in the history--> replaying --caught up-----------> live
//        \--older--> catching up (own etcd watch) --> replaying
//                         \ compacted: ended with DATASTORE_COMPACTED
//
// A broken stream is opened again, on the next endpoint, from the first revision that is owed: nothing is lost, and what
// comes twice is dropped. Invariants: `followed` only grows; a live watcher has everything up to it.
// Upstream counterpart: clientv3's watcher and the API server's watch cache.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { nextTurn } from "#platform/turns.ts";
import type { Event, WatchRequest, WatchResponse } from "#wire/gen/etcd.ts";
import type { WireInput } from "#wire/protobuf.ts";
import {
  revision as asRevision,
  type KeyRange,
  type Revision,
  type Watch,
  type WatchEvent,
  type WatchOptions,
  type WatchSink,
} from "../../backend.ts";
import { compactedRevision, datastoreError } from "../../errors.ts";
import { type EtcdClient, etcdCodec } from "./client.ts";
import { History } from "./history.ts";
import { rangeFields, watchEvent } from "./messages.ts";

export interface FollowerDeps {
  readonly client: EtcdClient;
  readonly clock: Clock;
  readonly log: Logger;
  /** Bound of the history; default 16 MiB. */
  readonly historyBytes?: number | undefined;
}

/** The watch of everything. Catch-ups have the ids behind it. */
const mainId = 1;
const everything = { key: "\0", end: "\0" } as const;
/** While somebody catches up, etcd is asked so often whether it has told everything. */
const progressMs = 50;
const minPauseMs = 50;
const maxPauseMs = 1000;
/** Events handed over in one go. */
const sliceEvents = 1000;
/** A watch that was asked for must be confirmed in this time, or the endpoint is left. */
const createTimeoutMs = 10_000;
/** How often it is said that there is still no stream. */
const sayEveryMs = 10_000;
/** A write waits so long for its own event at most: longer, and the stream is broken. */
const maxBehindMs = 1000;
/** etcd keeps each of them; beyond it a client is at fault. */
const maxCatchUps = 10_000;

interface Entry {
  readonly range: KeyRange;
  readonly sink: WatchSink;
  /** First revision still owed. */
  from: number;
  state: "live" | "replaying" | "catching" | "ended";
  progress: number;
  /** Of its own watch while catching up. */
  watchId: number;
  /** While live. */
  group: Group | undefined;
}

/** Live watchers of the same range. */
interface Group {
  readonly name: string;
  readonly range: KeyRange;
  readonly entries: Set<Entry>;
}

interface Waiter {
  readonly revision: number;
  readonly done: () => void;
}

/** Events of one etcd watch whose last revision may still be incomplete. */
type Partial = Map<number, Event[]>;

export class Follower {
  readonly #deps: FollowerDeps;
  readonly #history: History;
  /** Of single keys by key, of ranges by what they are. */
  readonly #exact = new Map<string, Group>();
  readonly #ranges = new Map<string, Group>();
  readonly #entries = new Set<Entry>();
  readonly #catching = new Map<number, Entry>();
  readonly #partial: Partial = new Map();
  readonly #ended = new AbortController();
  #waiters: Waiter[] = [];
  #followed: number;
  #compacted: number;
  #nextId = mainId + 1;
  /** Absent while there is no stream. */
  #send: ((request: WireInput<WatchRequest>) => void) | undefined;
  #connected = false;
  #progressDue: (() => void) | undefined;
  #abortStream: (reason: Error) => void = () => {};
  readonly #running: Promise<void>;
  /** Resolves when changes are followed for the first time. */
  readonly ready: Promise<void>;
  #isReady: () => void = () => {};

  /** `followed`: a revision that etcd has reached. */
  constructor(followed: number, compacted: number, deps: FollowerDeps) {
    this.#deps = deps;
    this.#followed = followed;
    this.#compacted = compacted;
    this.#history = new History(followed + 1, deps.historyBytes);
    this.ready = new Promise((resolve) => {
      this.#isReady = resolve;
    });
    this.#running = this.#run();
  }

  get followed(): number {
    return this.#followed;
  }

  get compacted(): number {
    return this.#compacted;
  }

  get connected(): boolean {
    return this.#connected;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** History up to here is known to be gone. */
  noteCompacted(revision: number): void {
    this.#compacted = Math.max(this.#compacted, revision);
  }

  /** Resolves when every watcher has been told of `revision`; without a stream, at once. */
  caughtUp(revision: number): Promise<void> {
    if (revision <= this.#followed || !this.#connected) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.#deps.clock.after(maxBehindMs, () => {
        this.#waiters = this.#waiters.filter((w) => w !== waiter);
        resolve();
      });
      const waiter: Waiter = {
        revision,
        done: () => {
          cancel();
          resolve();
        },
      };
      this.#waiters.push(waiter);
    });
  }

  /** `now`: the newest revision that this process has seen. */
  add(options: WatchOptions, now: number, sink: WatchSink): Watch {
    const range: KeyRange = options.end === undefined ? { key: options.key } : { key: options.key, end: options.end };
    const from = options.startRevision ? options.startRevision : now + 1;
    const isLive = from > this.#followed;
    const progress = Math.min(from - 1, this.#followed);
    const entry: Entry = {
      range,
      sink,
      from,
      state: isLive ? "live" : "replaying",
      progress,
      watchId: 0,
      group: undefined,
    };
    this.#entries.add(entry);
    if (isLive) this.#join(entry);
    else this.#replay(entry).catch((error: unknown) => this.#end(entry, error as Error));
    const follower = this;
    return {
      get progress(): Revision {
        return asRevision(entry.state === "live" ? Math.max(entry.progress, follower.#followed) : entry.progress);
      },
      cancel: () => this.#remove(entry),
    };
  }

  /** What etcd has is not what it had: its data was replaced. Every watcher lists again. */
  restart(revision: number, reason: string): void {
    this.#deps.log.error("history of etcd is broken off; watches begin anew", { revision, reason });
    const error = datastoreError("DATASTORE_COMPACTED", reason);
    this.#followed = revision;
    this.#compacted = Math.min(this.#compacted, revision);
    this.#history.restart(revision + 1);
    for (const entry of [...this.#entries]) this.#end(entry, error);
    this.#release();
    this.#abortStream(error);
  }

  async close(error: Error): Promise<void> {
    this.#ended.abort(error);
    this.#abortStream(error);
    for (const entry of [...this.#entries]) this.#end(entry, error);
    await this.#running;
  }

  // The stream

  async #run(): Promise<void> {
    const { clock, client, log } = this.#deps;
    let pauseMs = minPauseMs;
    let saidMs = Number.NEGATIVE_INFINITY;
    while (!this.#ended.signal.aborted) {
      const startedMs = clock.monotonicMs();
      const url = client.url;
      try {
        await this.#follow();
      } catch (error) {
        if (this.#ended.signal.aborted) return;
        const isNews = clock.monotonicMs() - saidMs >= sayEveryMs;
        if (isNews) saidMs = clock.monotonicMs();
        log[isNews ? "warn" : "debug"]("watching etcd is interrupted", { endpoint: url, error: messageOf(error) });
        client.leave(url, messageOf(error));
      }
      if (clock.monotonicMs() - startedMs > maxPauseMs) pauseMs = minPauseMs;
      await pause(clock, pauseMs, this.#ended.signal);
      pauseMs = Math.min(pauseMs * 2, maxPauseMs);
    }
  }

  /** One stream, until it breaks. */
  async #follow(): Promise<void> {
    const abort = new AbortController();
    this.#abortStream = (reason) => abort.abort(reason);
    this.#partial.clear();
    const cancelTimeout = this.#deps.clock.after(createTimeoutMs, () =>
      abort.abort(datastoreError("DATASTORE_UNAVAILABLE", "etcd does not confirm a watch")),
    );
    try {
      const duplex = await this.#deps.client.duplex("Watch/Watch", abort.signal);
      const send = (request: WireInput<WatchRequest>) =>
        duplex.send(etcdCodec.encode("WatchRequest", request as object));
      this.#send = send;
      send(createRequest(mainId, everything, this.#followed + 1));
      for (const entry of this.#catching.values()) send(createRequest(entry.watchId, entry.range, entry.from));
      for await (const message of duplex.messages) {
        const response = etcdCodec.decode<WatchResponse>("WatchResponse", message);
        if (!this.#connected && response.created && Number(response.watchId) === mainId && !response.canceled) {
          cancelTimeout();
          this.#connected = true;
          this.#isReady();
          this.#deps.log.debug("etcd is followed", { endpoint: duplex.url, from: this.#followed + 1 });
          this.#askProgress();
        }
        this.#receive(response);
      }
      throw datastoreError("DATASTORE_UNAVAILABLE", "etcd ended the watch");
    } finally {
      cancelTimeout();
      abort.abort(datastoreError("DATASTORE_CLOSED", "the stream is over"));
      this.#send = undefined;
      this.#connected = false;
      this.#release();
    }
  }

  #receive(response: WatchResponse): void {
    const id = Number(response.watchId);
    const header = Number(response.header?.revision ?? 0);
    if (response.canceled) this.#canceled(id, response, header);
    else if (response.events.length > 0) this.#receiveEvents(id, response);
    else if (!response.created && (id === -1 || id === mainId)) this.#receiveProgress(header);
  }

  #canceled(id: number, response: WatchResponse, header: number): void {
    const compacted = Number(response.compactRevision);
    if (compacted > 0) this.noteCompacted(compacted);
    const entry = this.#catching.get(id);
    if (entry) {
      this.#end(
        entry,
        compacted > 0
          ? compactedRevision(entry.from, compacted)
          : datastoreError("DATASTORE_UNAVAILABLE", `etcd ended the watch: ${response.cancelReason}`),
      );
    } else if (id === mainId && compacted > 0) {
      this.restart(Math.max(header, compacted), `revision ${this.#followed + 1} has been compacted meanwhile`);
    } else if (id === mainId) {
      throw datastoreError("DATASTORE_UNAVAILABLE", `etcd ended the watch: ${response.cancelReason}`);
    }
  }

  #receiveEvents(id: number, response: WatchResponse): void {
    const entry = id === mainId ? undefined : this.#catching.get(id);
    if (id !== mainId && !entry) return;
    let events = response.events;
    const before = this.#partial.get(id);
    if (before) events = [...before, ...events];
    if (response.fragment) {
      // All but the last revision are whole.
      const last = revisionOf(events[events.length - 1]!);
      let whole = events.length;
      while (whole > 0 && revisionOf(events[whole - 1]!) === last) whole--;
      this.#partial.set(id, events.slice(whole));
      events = events.slice(0, whole);
      if (events.length === 0) return;
    } else this.#partial.delete(id);
    if (entry) this.#catchUpOn(entry, events);
    else this.#publish(events);
  }

  #publish(received: readonly Event[]): void {
    const owed = new Map<Group, WatchEvent[]>();
    let through = this.#followed;
    let change: WatchEvent[] = [];
    const finish = () => {
      if (change.length > 0) this.#history.push(through, change);
      change = [];
    };
    for (const message of received) {
      const revision = revisionOf(message);
      // Told before the stream broke.
      if (revision <= this.#followed) continue;
      if (revision !== through) {
        finish();
        through = revision;
      }
      const event = watchEvent(message);
      change.push(event);
      const owe = (group: Group) => {
        const events = owed.get(group);
        if (events) events.push(event);
        else owed.set(group, [event]);
      };
      const exact = this.#exact.get(event.kv.key);
      if (exact) owe(exact);
      for (const group of this.#ranges.values()) if (inRange(group.range, event.kv.key)) owe(group);
    }
    finish();
    if (through === this.#followed) return;
    for (const [group, events] of owed) {
      for (const entry of [...group.entries]) {
        const late = entry.from > events[0]!.kv.modRevision;
        const wanted = late ? events.filter((e) => e.kv.modRevision >= entry.from) : events;
        if (wanted.length > 0) this.#deliver(entry, wanted, through);
      }
    }
    this.#advance(through);
  }

  /** Everything up to here has been told to all watches of the stream. */
  #receiveProgress(revision: number): void {
    if (revision < this.#followed) return;
    this.#advance(revision);
    for (const entry of [...this.#catching.values()]) {
      entry.from = Math.max(entry.from, revision + 1);
      entry.progress = Math.max(entry.progress, revision);
      this.#stopCatchingUp(entry);
    }
  }

  #advance(revision: number): void {
    this.#followed = Math.max(this.#followed, revision);
    if (this.#waiters.length === 0) return;
    const due = this.#waiters.filter((w) => w.revision <= this.#followed);
    if (due.length === 0) return;
    this.#waiters = this.#waiters.filter((w) => w.revision > this.#followed);
    for (const { done } of due) done();
  }

  /** Nobody waits for a stream that is gone. */
  #release(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { done } of waiters) done();
  }

  // Catching up

  async #replay(entry: Entry): Promise<void> {
    // Not within `add`: its caller does not have the watch yet.
    await Promise.resolve();
    while (entry.state === "replaying") {
      if (entry.from <= this.#compacted) throw compactedRevision(entry.from, this.#compacted);
      if (entry.from < this.#history.from) {
        this.#catchUp(entry);
        return;
      }
      const followed = this.#followed;
      const { events, through } = this.#history.read(entry.from, sliceEvents, followed, (key) =>
        inRange(entry.range, key),
      );
      entry.from = through + 1;
      if (events.length > 0) this.#deliver(entry, events, through);
      entry.progress = Math.max(entry.progress, through);
      if (through >= this.#followed) {
        if (entry.state === "replaying") this.#join(entry);
        return;
      }
      await nextTurn();
    }
  }

  #catchUp(entry: Entry): void {
    if (this.#catching.size >= maxCatchUps) {
      throw datastoreError("DATASTORE_WATCH_SLOW", "too many watches begin in the past at once");
    }
    entry.state = "catching";
    entry.watchId = this.#nextId++;
    this.#catching.set(entry.watchId, entry);
    this.#send?.(createRequest(entry.watchId, entry.range, entry.from));
    this.#askProgress();
  }

  #catchUpOn(entry: Entry, received: readonly Event[]): void {
    const events = received.filter((event) => revisionOf(event) >= entry.from).map(watchEvent);
    const last = events[events.length - 1];
    if (!last) return;
    const through = last.kv.modRevision;
    entry.from = through + 1;
    this.#deliver(entry, events, through);
    if (entry.state === "catching" && entry.from >= this.#history.from) this.#stopCatchingUp(entry);
  }

  /** The rest is in the history. */
  #stopCatchingUp(entry: Entry): void {
    this.#forget(entry);
    entry.state = "replaying";
    this.#replay(entry).catch((error: unknown) => this.#end(entry, error as Error));
  }

  #forget(entry: Entry): void {
    if (!this.#catching.delete(entry.watchId)) return;
    this.#partial.delete(entry.watchId);
    this.#send?.({ cancelRequest: { watchId: entry.watchId } });
  }

  #askProgress(): void {
    if (this.#progressDue || this.#catching.size === 0 || !this.#send) return;
    this.#send({ progressRequest: {} });
    this.#progressDue = this.#deps.clock.after(progressMs, () => {
      this.#progressDue = undefined;
      this.#askProgress();
    });
  }

  // Watchers

  #join(entry: Entry): void {
    entry.state = "live";
    const { key, end } = entry.range;
    const groups = this.#groupsOf(entry.range);
    const name = end === undefined ? key : `${key.length} ${key}${end}`;
    let group = groups.get(name);
    if (!group) {
      group = { name, range: entry.range, entries: new Set() };
      groups.set(name, group);
    }
    entry.group = group;
    group.entries.add(entry);
  }

  #groupsOf(range: KeyRange): Map<string, Group> {
    return range.end === undefined ? this.#exact : this.#ranges;
  }

  #deliver(entry: Entry, events: readonly WatchEvent[], through: number): void {
    if (entry.state === "ended") return;
    try {
      entry.sink.onEvents(events, asRevision(through));
      entry.progress = Math.max(entry.progress, through);
    } catch (error) {
      this.#deps.log.error("a watch failed to take its events", { key: entry.range.key, error: messageOf(error) });
      this.#remove(entry);
    }
  }

  #end(entry: Entry, error: Error): void {
    if (entry.state === "ended") return;
    this.#remove(entry);
    try {
      entry.sink.onEnd(error);
    } catch (thrown) {
      this.#deps.log.error("a watch failed to end", { key: entry.range.key, error: messageOf(thrown) });
    }
  }

  #remove(entry: Entry): void {
    if (entry.state === "ended") return;
    if (entry.state === "catching") this.#forget(entry);
    entry.state = "ended";
    this.#entries.delete(entry);
    const { group } = entry;
    if (!group) return;
    group.entries.delete(entry);
    if (group.entries.size === 0) this.#groupsOf(entry.range).delete(group.name);
  }
}

const revisionOf = (event: Event): number => Number(event.kv?.modRevision ?? 0);

function inRange({ key: start, end }: KeyRange, key: string): boolean {
  if (end === undefined) return key === start;
  return key >= start && (end === "\0" || key < end);
}

const createRequest = (watchId: number, range: KeyRange, startRevision: number): WireInput<WatchRequest> => ({
  createRequest: { ...rangeFields(range), watchId, startRevision, prevKv: true, fragment: true },
});
