// What a watch hears when it has to wait for its turn: everything, in order, and nothing that was behind it before it.
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { type Backend, revision, type WatchEvent, type WatchSink } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { configMaps } from "#model/resources.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { DecodeCache } from "../registry/codec.ts";
import { ResourceStorage } from "../registry/storage.ts";
import { Changes, type FeedPlan, type FeedSink, runFeed } from "./feed.ts";
import type { Listener, Relay } from "./relay.ts";

let store: Backend;
let clock: FakeClock;
/** What the datastore tells the watch through. */
let source: WatchSink;
const waiting: Listener[] = [];
let isLate = false;
/** One that tells what waits when it is told to. */
const relay = {
  tell(listener: Listener, events: readonly WatchEvent[]) {
    if (!isLate && listener.owed === 0) {
      listener.hear(events);
      return;
    }
    listener.append({ events, next: undefined });
    waiting.push(listener);
  },
} as unknown as Relay;
const tellAll = () => {
  for (const listener of waiting.splice(0)) {
    const events = listener.take();
    if (events) listener.hear(events);
  }
};
let told: string[];
let ended: Promise<void>;
const stop = { now: () => {} };

beforeEach(async () => {
  clock = new FakeClock();
  store = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  told = [];
  isLate = false;
  waiting.length = 0;
  const backend = {
    watch(_options: unknown, sink: WatchSink) {
      source = sink;
      return { progress: revision(99), cancel() {} };
    },
  } as unknown as Backend;
  const storage = new ResourceStorage(configMaps, {
    backend: store,
    cache: new DecodeCache(false),
    classOf: () => "durable",
  } as ConstructorParameters<typeof ResourceStorage>[1]);
  const plan: FeedPlan = {
    ...{ storage, namespace: "", name: undefined, matches: undefined, after: 1 },
    ...{ markInitialEnd: false, bookmarks: true, timeoutMs: 600_000 },
  };
  const sink: FeedSink = {
    async initial() {},
    events: (events) => void told.push(...events.map(({ type, item }) => `${type} ${item.modRevision}`)),
    bookmark: (at) => void told.push(`bookmark ${at}`),
    error: (status) => void told.push(`error ${status.message}`),
    end: () => void told.push("end"),
  };
  const abort = new AbortController();
  stop.now = () => abort.abort();
  ended = runFeed(plan, { backend, clock, changes: new Changes(), relay }, sink, abort.signal);
});
afterEach(async () => {
  stop.now();
  await ended;
  await store.close();
});

const change = (at: number): readonly WatchEvent[] => {
  const value = Buffer.from('{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b"}}');
  const kv = { key: "/registry/configmaps/b/a", value, modRevision: at, createRevision: at, version: 1, lease: 0 };
  return [{ type: "put", kv, prevKv: undefined } as unknown as WatchEvent];
};
const happens = (at: number): void => source.onEvents(change(at), revision(at));

test("what comes while something waits waits behind it", () => {
  happens(2);
  isLate = true;
  happens(3);
  // There is time again, but not for what would overtake.
  isLate = false;
  happens(4);
  expect(told).toEqual(["ADDED 2"]);
  tellAll();
  happens(5);
  expect(told).toEqual(["ADDED 2", "ADDED 3", "ADDED 4", "ADDED 5"]);
});

test("no bookmark says that something was heard which still waits", async () => {
  await clock.advance(60_000);
  expect(told).toEqual(["bookmark 99"]);
  isLate = true;
  happens(2);
  await clock.advance(60_000);
  expect(told).toEqual(["bookmark 99"]);
  tellAll();
  await clock.advance(60_000);
  expect(told).toEqual(["bookmark 99", "ADDED 2", "bookmark 99"]);
});

test("a watch that is a thousand changes behind ends, and hears nothing more", async () => {
  isLate = true;
  for (let at = 2; at <= 1003; at++) happens(at);
  expect(told).toEqual(["end"]);
  tellAll();
  await ended;
  expect(told).toEqual(["end"]);
});
