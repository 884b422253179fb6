// The Watch service: many watches on one stream. Nothing is queued here: while a client is behind, a watch that would
// have something to tell is let go and taken up again, from the revision it owes, when the client has caught up.
//
//   create -> watching --client behind, events--> paused --drained--> watching from what it owes
//                \ cancel request, compacted: told so, gone
//
// Upstream counterpart: etcd server/etcdserver/api/v3rpc/watch.go, mvcc/watchable_store.go ("victims").
import { Buffer } from "node:buffer";
import type { Clock } from "#base/clock.ts";
import { hasCode } from "#base/errors.ts";
import { untilAborted } from "#base/service.ts";
import type { GrpcStream } from "#platform/grpc-server.ts";
import type { WatchCreateRequest, WatchRequest } from "#wire/gen/etcd.ts";
import { GrpcError } from "#wire/grpc.ts";
import { revision as asRevision, type Backend, type KeyRange, type Watch, type WatchEvent } from "../backend.ts";
import { etcdError, toGrpcError } from "./errors.ts";
import { rangeOf, toNumber } from "./kv.ts";
import {
  eventFieldSize,
  eventPart,
  frameOf,
  headerPart,
  type Identity,
  type Part,
  type SharedAnswer,
  sharedAnswer,
  type WatchAnswer,
  watchPart,
  writeWatchHead,
} from "./messages.ts";

export interface WatchDeps {
  readonly backend: Backend;
  readonly identity: Identity;
  readonly clock: Clock;
  /** A watch that asked for it hears of the revision after so long without an event. */
  readonly progressIntervalMs: number;
  /** Fragments are cut at this size. */
  readonly maxRequestBytes: number;
  /** Of all streams of the store. */
  readonly encodedEvents: EncodedEvents;
  decode(message: Uint8Array): WatchRequest;
}

/** Answers one stream until its client leaves. */
export async function serveWatch(stream: GrpcStream, deps: WatchDeps): Promise<void> {
  const watches = new WatchStream(stream, deps);
  try {
    await watches.run();
  } finally {
    watches.end();
  }
}

/**
 * Watches of the same range are handed the same list of events, one after the other: it is encoded once, and each answer is
 * that with another id. Only the last list is kept, and that no longer than one turn.
 */
export class EncodedEvents {
  readonly #identity: Identity;
  /** A prefix, a header and an id. */
  readonly #head = Buffer.alloc(128);
  #last: { events: readonly WatchEvent[]; withPrevious: boolean; revision: number; shared: SharedAnswer } | undefined;

  constructor(identity: Identity) {
    this.#identity = identity;
  }

  /** Sends the answer to one watch. */
  send(
    stream: GrpcStream,
    watchId: number,
    { events, withPrevious, revision }: { events: readonly WatchEvent[]; withPrevious: boolean; revision: number },
  ): boolean {
    let last = this.#last;
    if (last?.events !== events || last.withPrevious !== withPrevious || last.revision !== revision) {
      if (!last) {
        queueMicrotask(() => {
          this.#last = undefined;
        });
      }
      const parts = events.map((event) => eventPart(event, withPrevious));
      last = { events, withPrevious, revision, shared: sharedAnswer(headerPart(revision, this.#identity), parts) };
      this.#last = last;
    }
    const head = this.#head.subarray(0, writeWatchHead(this.#head, watchId, last.shared));
    return stream.writeOf(head, last.shared.after);
  }
}

/** etcd's "no watch" and "all watches of the stream". */
const noWatch = -1;
/** A Kubernetes API server has one watch for each resource and client; beyond this a client is at fault. */
const maxWatches = 50_000;
/** How long until what could not be done at once is tried again. */
const retryMs = 20;
const noPut = 0;
const noDelete = 1;

interface Entry {
  readonly id: number;
  readonly range: KeyRange;
  readonly request: WatchCreateRequest;
  /** Absent while paused. */
  watch: Watch | undefined;
  /** First revision still owed; 0: whatever comes next. */
  from: number;
  /** Without an event since the last progress notice was due. */
  quiet: boolean;
}

class WatchStream {
  readonly #stream: GrpcStream;
  readonly #deps: WatchDeps;
  readonly #watches = new Map<number, Entry>();
  #nextId = 0;
  #behind = false;
  #progressOwed = false;
  #progressScheduled = false;
  #cancelProgress = (): void => {};
  #cancelRetry: (() => void) | undefined;
  #fail: (error: GrpcError) => void = () => {};
  readonly #failed: Promise<never>;

  constructor(stream: GrpcStream, deps: WatchDeps) {
    this.#stream = stream;
    this.#deps = deps;
    this.#failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
  }

  async run(): Promise<void> {
    await Promise.race([this.#receive(), this.#failed]);
  }

  end(): void {
    for (const entry of this.#watches.values()) entry.watch?.cancel();
    this.#watches.clear();
    this.#cancelProgress();
    this.#cancelRetry?.();
  }

  async #receive(): Promise<void> {
    const { signal } = this.#stream;
    for await (const message of this.#stream.messages) {
      const { createRequest, cancelRequest, progressRequest } = this.#deps.decode(message);
      if (createRequest) this.#create(createRequest);
      else if (cancelRequest) this.#cancel(toNumber(cancelRequest.watchId));
      else if (progressRequest) {
        this.#progressOwed = true;
        this.#tellProgress();
      }
      // A client that does not read is not listened to either.
      if (this.#behind) await this.#stream.drained();
    }
    // A client that has nothing more to ask still wants its events.
    await untilAborted(signal);
  }

  #create(request: WatchCreateRequest): void {
    const { backend } = this.#deps;
    const now = backend.revision();
    const refuse = (cancelReason: string) =>
      this.#send(now, { watchId: noWatch, created: true, canceled: true, cancelReason });
    const range = rangeOf({ ...request, key: request.key.length === 0 ? Uint8Array.of(0) : request.key });
    if (range.end !== undefined && range.end !== "\0" && range.key >= range.end) {
      refuse("mvcc: watcher range is empty");
      return;
    }
    let id = toNumber(request.watchId);
    if (id === 0) {
      while (this.#watches.has(this.#nextId)) this.#nextId++;
      id = this.#nextId++;
    } else if (this.#watches.has(id)) {
      refuse("mvcc: duplicate watch ID provided on the WatchStream");
      return;
    }
    if (this.#watches.size >= maxWatches) {
      refuse("etcdserver: too many watches on the stream");
      return;
    }
    const asked = toNumber(request.startRevision);
    const from = asked === 0 ? now + 1 : Math.max(1, asked);
    const entry: Entry = { id, range, request, watch: undefined, from, quiet: true };
    this.#watches.set(id, entry);
    this.#send(now, { watchId: id, created: true });
    this.#start(entry);
    if (request.progressNotify) this.#scheduleProgress();
  }

  #cancel(id: number): void {
    const entry = this.#watches.get(id);
    if (!entry) return;
    entry.watch?.cancel();
    this.#watches.delete(id);
    this.#send(this.#deps.backend.revision(), { watchId: id, canceled: true });
  }

  #start(entry: Entry): void {
    const { backend } = this.#deps;
    try {
      entry.watch = backend.watch(
        { ...entry.range, startRevision: asRevision(entry.from) },
        {
          onEvents: (events, through) => this.#deliver(entry, events, through),
          onEnd: (error) => this.#ended(entry, error),
        },
      );
    } catch (error) {
      this.#ended(entry, error as Error);
    }
  }

  #deliver(entry: Entry, events: readonly WatchEvent[], through: number): void {
    const { request } = entry;
    if (this.#behind) {
      entry.watch?.cancel();
      entry.watch = undefined;
      entry.from = events[0]!.kv.modRevision;
      return;
    }
    entry.from = through + 1;
    const unwanted = (event: WatchEvent) => request.filters.includes(event.type === "put" ? noPut : noDelete);
    const wanted = request.filters.length > 0 ? events.filter((event) => !unwanted(event)) : events;
    if (wanted.length === 0) return;
    entry.quiet = false;
    if (!request.fragment) {
      const answer = { events: wanted, withPrevious: request.prevKv, revision: through };
      this.#note(this.#deps.encodedEvents.send(this.#stream, entry.id, answer));
      return;
    }
    const parts = wanted.map((event) => eventPart(event, request.prevKv));
    this.#sendFragments(entry, parts, through);
  }

  #sendFragments(entry: Entry, events: readonly Part[], revision: number): void {
    let start = 0;
    while (start < events.length) {
      let size = headerPart(revision, this.#deps.identity).size + 16;
      let end = start;
      while (end < events.length) {
        size += eventFieldSize(events[end]!);
        if (end > start && size >= this.#deps.maxRequestBytes) break;
        end++;
      }
      this.#send(revision, { watchId: entry.id, events: events.slice(start, end), fragment: end < events.length });
      start = end;
    }
  }

  #ended(entry: Entry, error: Error | undefined): void {
    entry.watch = undefined;
    if (this.#watches.get(entry.id) !== entry) return;
    const { backend } = this.#deps;
    if (hasCode(error, "DATASTORE_COMPACTED")) {
      this.#watches.delete(entry.id);
      // Never 0, which would mean that nothing was compacted.
      const compactRevision = Math.max(1, backend.compactedRevision());
      this.#send(backend.revision(), { watchId: entry.id, canceled: true, compactRevision });
    } else if (hasCode(error, "DATASTORE_CLOSED")) this.#fail(etcdError("stopped"));
    else if (hasCode(error, "DATASTORE_TOO_LARGE") || hasCode(error, "DATASTORE_BAD_REQUEST")) {
      this.#watches.delete(entry.id);
      this.#send(backend.revision(), { watchId: entry.id, canceled: true, cancelReason: toGrpcError(error).message });
    } else this.#retryLater();
  }

  #send(revision: number, answer: WatchAnswer): void {
    this.#write(frameOf(watchPart(headerPart(revision, this.#deps.identity), answer)));
  }

  #write(frame: Uint8Array): void {
    this.#note(this.#stream.write(frame));
  }

  /** Whether the client keeps up. */
  #note(keepsUp: boolean): void {
    if (keepsUp || this.#behind) return;
    this.#behind = true;
    this.#stream.drained().then(
      () => {
        this.#behind = false;
        this.#resume();
      },
      () => this.#fail(new GrpcError("CANCELLED", "etcdserver: watch canceled")),
    );
  }

  /** Takes up again what was let go. */
  #resume(): void {
    for (const entry of this.#watches.values()) {
      if (this.#behind) return;
      if (!entry.watch) this.#start(entry);
    }
    if (this.#progressOwed) this.#tellProgress();
  }

  #retryLater(): void {
    this.#cancelRetry ??= this.#deps.clock.after(retryMs, () => {
      this.#cancelRetry = undefined;
      if (!this.#behind) this.#resume();
    });
  }

  // Progress

  #isSynced(entry: Entry, revision: number): boolean {
    return entry.watch !== undefined && entry.watch.progress >= revision;
  }

  /** Once every watch has all there is: one answer for the whole stream. */
  #tellProgress(): void {
    if (this.#watches.size === 0) {
      this.#progressOwed = false;
      return;
    }
    const revision = this.#deps.backend.revision();
    for (const entry of this.#watches.values()) {
      if (this.#isSynced(entry, revision)) continue;
      this.#retryLater();
      return;
    }
    this.#progressOwed = false;
    this.#send(revision, { watchId: noWatch });
  }

  #scheduleProgress(): void {
    if (this.#progressScheduled) return;
    this.#progressScheduled = true;
    this.#cancelProgress = this.#deps.clock.after(this.#deps.progressIntervalMs, () => {
      this.#progressScheduled = false;
      const revision = this.#deps.backend.revision();
      for (const entry of this.#watches.values()) {
        if (!entry.request.progressNotify) continue;
        if (entry.quiet && !this.#behind && this.#isSynced(entry, revision))
          this.#send(revision, { watchId: entry.id });
        entry.quiet = true;
      }
      this.#scheduleProgress();
    });
  }
}
