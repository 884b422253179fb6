// All watches of a store. A watch that starts in the past first catches up from the engine's history, in slices that
// leave the event loop room, and joins the live ones when there is nothing left to catch up with. So a watch never
// queues anything here: its backlog is the history itself, bounded by compaction, which ends it when it overtakes.
//
//   add(from) --from > durable--> live <--caught up-- replaying --history compacted--> ended
//
// Upstream counterpart: etcd mvcc watchable_store (synced and unsynced groups).
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { nextTurn } from "#platform/turns.ts";
import {
  revision as asRevision,
  type Key,
  prefixRange,
  type Revision,
  type Watch,
  type WatchEvent,
  type WatchOptions,
  type WatchSink,
} from "../backend.ts";
import { datastoreError } from "../errors.ts";
import type { Engine } from "./engine.ts";
import type { WatchKind } from "./module.ts";

/** Events of one replay slice. */
const sliceEvents = 1000;

export interface WatchHubDeps {
  /** Asked for at each use: after a fault there is another one. */
  readonly engine: () => Engine;
  readonly log: Logger;
  /** Told of what the engine throws; answers what to tell the watch. */
  readonly noticed: (error: unknown) => unknown;
  readonly state: { durable(): number; compacted(): number };
}

/** Watches of the same range: the engine knows them as one. */
interface Group {
  readonly id: number;
  readonly name: string;
  readonly kind: WatchKind;
  readonly key: Key;
  readonly end: Key;
  readonly watches: Set<Entry>;
}

interface Entry {
  readonly group: Group;
  readonly sink: WatchSink;
  /** First revision still to deliver. */
  from: number;
  live: boolean;
  ended: boolean;
  progress: number;
}

export class WatchHub {
  readonly #deps: WatchHubDeps;
  readonly #byName = new Map<string, Group>();
  readonly #byId = new Map<number, Group>();
  #nextId = 1;
  /** All live watches have everything up to here. */
  #published: number;

  constructor(deps: WatchHubDeps) {
    this.#deps = deps;
    this.#published = deps.state.durable();
  }

  /** Number of watches. */
  get size(): number {
    let n = 0;
    for (const group of this.#byId.values()) n += group.watches.size;
    return n;
  }

  add(options: WatchOptions, sink: WatchSink): Watch {
    const { state } = this.#deps;
    const from = options.startRevision ? options.startRevision : state.durable() + 1;
    const live = from > state.durable();
    const group = this.#groupFor(options);
    const entry: Entry = { group, sink, from, live, ended: false, progress: Math.min(from - 1, state.durable()) };
    group.watches.add(entry);
    if (!live) this.#replay(entry).catch((error: unknown) => this.#end(entry, this.#deps.noticed(error) as Error));
    const hub = this;
    return {
      get progress(): Revision {
        return asRevision(entry.live ? Math.max(entry.progress, hub.#published) : entry.progress);
      },
      cancel: () => this.#remove(entry),
    };
  }

  /** Delivers what has just become durable. */
  publish(group: readonly { readonly revision: number; readonly events: readonly WatchEvent[] }[]): void {
    const through = group[group.length - 1]!.revision;
    if (this.#byId.size > 0) {
      const owed = new Map<Group, WatchEvent[]>();
      for (const { events } of group) for (const event of events) this.#sort(event, owed);
      for (const [target, events] of owed) {
        for (const entry of [...target.watches]) {
          if (!entry.live || entry.ended) continue;
          const late = entry.from > events[0]!.kv.modRevision;
          const wanted = late ? events.filter((e) => e.kv.modRevision >= entry.from) : events;
          if (wanted.length > 0) this.#deliver(entry, wanted, through);
        }
      }
    }
    this.#published = Math.max(this.#published, through);
  }

  /** Ends every watch without a word to the engine, which is going away. */
  endAll(error: Error): void {
    const entries = [...this.#byId.values()].flatMap((group) => [...group.watches]);
    this.#byId.clear();
    this.#byName.clear();
    for (const entry of entries) this.#end(entry, error);
  }

  #sort(event: WatchEvent, owed: Map<Group, WatchEvent[]>): void {
    let wanted = false;
    this.#deps.engine().match(event.kv.key, (id) => {
      const group = this.#byId.get(id);
      if (!group) return;
      wanted = true;
      const events = owed.get(group);
      if (events) events.push(event);
      else owed.set(group, [event]);
    });
    // Read while it is certainly there, for watchers keep events; but not while the engine tells what matches.
    if (wanted) void event.prevKv?.value;
  }

  async #replay(entry: Entry): Promise<void> {
    const { state } = this.#deps;
    const { key, end } = entry.group;
    // Not within `add`: its caller does not have the watch yet.
    await Promise.resolve();
    while (!entry.ended) {
      if (entry.from <= state.compacted()) {
        const compacted = state.compacted();
        throw datastoreError(
          "DATASTORE_COMPACTED",
          `revision ${entry.from} has been compacted; oldest is ${compacted}`,
          {
            compacted,
          },
        );
      }
      const durable = state.durable();
      const { records, through } = this.#deps.engine().history(key, end, entry.from, durable, sliceEvents);
      const events = records.map((r): WatchEvent => {
        if (!r.deleted) return { type: "put", kv: r.kv, prevKv: r.previous };
        const kv = { ...r.kv, createRevision: asRevision(0), version: 0, lease: 0 };
        return { type: "delete", kv, prevKv: r.previous };
      });
      entry.from = through + 1;
      if (events.length > 0) this.#deliver(entry, events, through);
      entry.progress = Math.max(entry.progress, through);
      if (through === state.durable()) {
        entry.live = true;
        return;
      }
      await nextTurn();
    }
  }

  #deliver(entry: Entry, events: readonly WatchEvent[], through: number): void {
    try {
      entry.sink.onEvents(events, asRevision(through));
      entry.progress = Math.max(entry.progress, through);
    } catch (error) {
      this.#deps.log.error("a watch failed to take its events", { key: entry.group.key, error: messageOf(error) });
      this.#remove(entry);
    }
  }

  #end(entry: Entry, error: Error): void {
    if (entry.ended) return;
    this.#remove(entry);
    try {
      entry.sink.onEnd(error);
    } catch (thrown) {
      this.#deps.log.error("a watch failed to end", { key: entry.group.key, error: messageOf(thrown) });
    }
  }

  #remove(entry: Entry): void {
    if (entry.ended) return;
    entry.ended = true;
    const { group } = entry;
    group.watches.delete(entry);
    if (group.watches.size > 0 || this.#byId.get(group.id) !== group) return;
    this.#byId.delete(group.id);
    this.#byName.delete(group.name);
    this.#deps.engine().watchRemove(group.id, group.kind, group.key);
  }

  #groupFor(options: WatchOptions): Group {
    const kind = kindOf(options);
    const end = options.end ?? `${options.key}\0`;
    const name = `${kind} ${options.key.length} ${options.key}${end}`;
    const known = this.#byName.get(name);
    if (known) return known;
    const group: Group = { id: this.#nextId++, name, kind, key: options.key, end, watches: new Set() };
    if (!this.#deps.engine().watchAdd(group.id, kind, group.key, end)) {
      throw datastoreError("DATASTORE_TOO_LARGE", "too many watches of ranges that are neither a key nor a folder");
    }
    this.#byId.set(group.id, group);
    this.#byName.set(name, group);
    return group;
  }
}

function kindOf(options: WatchOptions): WatchKind {
  if (options.end === undefined) return "exact";
  return options.key.endsWith("/") && options.end === prefixRange(options.key).end ? "prefix" : "listed";
}
