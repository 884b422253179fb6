// What an upstream Kubernetes API server 1.32 asks of its etcd, call for call: optimistic creates, guaranteed updates and
// deletes, paged lists at one revision, watch caches with progress requests and consistent reads, leases shared by events,
// the compactor's rounds, counts, health, status. Nothing here knows what is behind the address.
// Upstream counterpart: apiserver/pkg/storage/etcd3 (store, watcher, compact, lease_manager), storage/cacher.
import { Buffer } from "node:buffer";
import { setTimeout as sleep } from "node:timers/promises";
import { createGrpcClient, type GrpcClient } from "#platform/grpc-client.ts";
import { type EtcdMethods, etcdMethods, type KeyValue, type WatchRequest, type WatchResponse } from "#wire/gen/etcd.ts";
import { isGrpcError } from "#wire/grpc.ts";
import type { WireInput } from "#wire/protobuf.ts";
import { codec } from "./peers.ts";

type Method = keyof EtcdMethods;

/** `reads` are made again until they get an answer; writes fail with UNAVAILABLE where their outcome is unknown. */
export class Connection {
  readonly #unary: GrpcClient;
  readonly #streams: GrpcClient;
  calls = 0;
  retries = 0;

  constructor(port: number) {
    const target = { host: "127.0.0.1", port };
    this.#unary = createGrpcClient({ target });
    // clientv3.WithRequireLeader
    this.#streams = createGrpcClient({ target, headers: { hasleader: "true" } });
  }

  async call<K extends Method>(
    method: K,
    request: WireInput<EtcdMethods[K]["request"]>,
    reads = false,
  ): Promise<EtcdMethods[K]["response"]> {
    const { path, request: type, response } = etcdMethods[method];
    const message = codec.encode(type, request as object);
    for (;;) {
      this.calls++;
      try {
        return codec.decode(response, await this.#unary.unary(path, message, { timeoutMs: 10_000 }));
      } catch (error) {
        if (!reads || !isGrpcError(error, "UNAVAILABLE")) throw error;
        this.retries++;
        await sleep(25);
      }
    }
  }

  watchStream(signal: AbortSignal) {
    return this.#streams.duplex(etcdMethods["Watch/Watch"].path, signal);
  }

  close(): void {
    this.#unary.close();
    this.#streams.close();
  }
}

export const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const bytes = (value: string): Uint8Array => Buffer.from(value, "latin1");
const prefixEnd = (prefix: string): Uint8Array => {
  const end = Buffer.from(prefix, "latin1");
  end[end.length - 1]!++;
  return end;
};

/** What was asked for is no longer there: told to an API server's client as 410. */
const isCompacted = (error: unknown): boolean =>
  isGrpcError(error, "OUT_OF_RANGE") && error.message.endsWith("has been compacted");

export class Conflict extends Error {
  readonly current: KeyValue | undefined;
  constructor(current: KeyValue | undefined) {
    super("conflict");
    this.current = current;
  }
}

/** storage/etcd3/store.go */
export class Storage {
  readonly #connection: Connection;
  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async get(key: string): Promise<KeyValue | undefined> {
    return (await this.#connection.call("KV/Range", { key: bytes(key) }, true)).kvs[0];
  }

  /** Answers the revision, or undefined where the key is taken. */
  async create(key: string, value: Uint8Array, lease: number | bigint = 0): Promise<number | undefined> {
    const answer = await this.#connection.call("KV/Txn", {
      compare: [{ target: 2, result: 0, key: bytes(key), modRevision: 0 }],
      success: [{ requestPut: { key: bytes(key), value, lease } }],
    });
    return answer.succeeded ? Number(answer.header!.revision) : undefined;
  }

  /** Throws Conflict with what is there. */
  async put(key: string, value: Uint8Array, modRevision: number, lease: number | bigint = 0): Promise<number> {
    const answer = await this.#connection.call("KV/Txn", {
      compare: [{ target: 2, result: 0, key: bytes(key), modRevision }],
      success: [{ requestPut: { key: bytes(key), value, lease } }],
      failure: [{ requestRange: { key: bytes(key) } }],
    });
    if (answer.succeeded) return Number(answer.header!.revision);
    throw new Conflict(answer.responses[0]?.responseRange?.kvs[0]);
  }

  async remove(key: string, modRevision: number): Promise<void> {
    const answer = await this.#connection.call("KV/Txn", {
      compare: [{ target: 2, result: 0, key: bytes(key), modRevision }],
      success: [{ requestDeleteRange: { key: bytes(key) } }],
      failure: [{ requestRange: { key: bytes(key) } }],
    });
    if (!answer.succeeded) throw new Conflict(answer.responses[0]?.responseRange?.kvs[0]);
    if (Number(answer.responses[0]?.responseDeleteRange?.deleted) !== 1) throw new Error(`${key}: deleted nothing`);
  }

  /** Until it gets through; undefined where there is no such key. */
  async guaranteedUpdate(
    key: string,
    update: (value: Uint8Array) => Uint8Array,
    lease: number | bigint = 0,
  ): Promise<number | undefined> {
    let current = await this.get(key);
    for (;;) {
      if (!current) return undefined;
      try {
        return await this.put(key, update(current.value), Number(current.modRevision), lease);
      } catch (error) {
        if (!(error instanceof Conflict)) throw error;
        current = error.current;
      }
    }
  }

  /** Until one list gets through: on a slow machine compaction may overtake its pages, and a reflector begins anew. */
  async listNow(prefix: string, limit: number): Promise<{ kvs: KeyValue[]; revision: number }> {
    for (;;) {
      try {
        return await this.list(prefix, limit);
      } catch (error) {
        if (!isCompacted(error)) throw error;
      }
    }
  }

  /** All pages at the revision of the first, or at `revision`. */
  async list(prefix: string, limit: number, revision = 0): Promise<{ kvs: KeyValue[]; revision: number }> {
    const kvs: KeyValue[] = [];
    let at = revision;
    for (let key = prefix; ; ) {
      const page: EtcdMethods["KV/Range"]["response"] = await this.#connection.call(
        "KV/Range",
        { key: bytes(key), rangeEnd: prefixEnd(prefix), limit, revision: at },
        true,
      );
      if (at === 0) at = Number(page.header!.revision);
      kvs.push(...page.kvs);
      if (kvs.length + (Number(page.count) - page.kvs.length) < kvs.length) throw new Error("a count below its page");
      if (!page.more || page.kvs.length === 0) return { kvs, revision: at };
      key = `${text(page.kvs[page.kvs.length - 1]!.key)}\0`;
    }
  }

  async count(prefix: string): Promise<number> {
    const request = { key: bytes(prefix), rangeEnd: prefixEnd(prefix), countOnly: true };
    return Number((await this.#connection.call("KV/Range", request, true)).count);
  }

  async currentRevision(prefix: string): Promise<number> {
    const request = { key: bytes(prefix), rangeEnd: prefixEnd(prefix), limit: 1 };
    return Number((await this.#connection.call("KV/Range", request, true)).header!.revision);
  }
}

/** storage/etcd3/lease_manager.go */
export class LeaseManager {
  readonly #connection: Connection;
  #id: number | bigint = 0;
  #left = 0;
  #untilMs = 0;
  constructor(connection: Connection) {
    this.#connection = connection;
  }
  async take(ttlSeconds: number): Promise<number | bigint> {
    if (this.#left-- > 0 && performance.now() < this.#untilMs) return this.#id;
    const { ID } = await this.#connection.call("Lease/LeaseGrant", { TTL: ttlSeconds, ID: 0 });
    this.#id = ID;
    this.#left = 1000;
    this.#untilMs = performance.now() + 2000;
    return ID;
  }
}

interface Cached {
  readonly value: string;
  readonly modRevision: number;
}

/** storage/cacher: a list, then a watch from there on; every event is held against what is known. */
export class Cache {
  readonly prefix: string;
  readonly items = new Map<string, Cached>();
  revision = 0;
  /** Told to be complete to here. */
  #progress = 0;
  fills = 0;
  events = 0;
  compared: Promise<void> = Promise.resolve();
  /** Since the last comparison: what undoes each event. */
  #undo: { readonly revision: number; readonly key: string; readonly before: Cached | undefined }[] = [];

  constructor(prefix: string) {
    this.prefix = prefix;
  }

  fill(kvs: readonly KeyValue[], revision: number): void {
    this.items.clear();
    this.#undo = [];
    for (const kv of kvs) this.items.set(text(kv.key), cached(kv));
    this.revision = revision;
    this.#progress = revision;
    this.fills++;
  }

  progressTo(revision: number): void {
    this.#progress = Math.max(this.#progress, revision);
    this.revision = Math.max(this.revision, revision);
  }

  take(event: WatchResponse["events"][number]): void {
    const { kv, prevKv } = event;
    if (!kv) throw new Error("an event without a key");
    const key = text(kv.key);
    const revision = Number(kv.modRevision);
    const known = this.items.get(key);
    const fail = (why: string) => {
      throw new Error(`${this.prefix}: ${why}: ${key} at ${revision}, cache at ${this.revision}`);
    };
    if (revision < this.revision) fail("an event out of order, or twice");
    if (revision <= this.#progress) fail("an event behind its own progress notice");
    const isDelete = Number(event.type) === 1;
    const isCreate = !isDelete && Number(kv.createRevision) === revision;
    // Without it the API server cannot tell its watchers what was deleted.
    if (!isCreate && !prevKv) fail("no previous value");
    if (isCreate !== (known === undefined)) fail(isCreate ? "created again" : "changed before it was created");
    if (known && (Number(prevKv!.modRevision) !== known.modRevision || text(prevKv!.value) !== known.value)) {
      fail("another previous value than the one known");
    }
    this.#undo.push({ revision, key, before: known });
    if (isDelete) this.items.delete(key);
    else this.items.set(key, cached(kv));
    this.revision = revision;
    this.events++;
  }

  /** What was there at `revision`, not before the last call's. */
  at(revision: number): Map<string, Cached> {
    const state = new Map(this.items);
    for (let i = this.#undo.length - 1; i >= 0 && this.#undo[i]!.revision > revision; i--) {
      const { key, before } = this.#undo[i]!;
      if (before) state.set(key, before);
      else state.delete(key);
    }
    this.#undo = this.#undo.filter((u) => u.revision > revision);
    return state;
  }
}

const cached = (kv: KeyValue): Cached => ({ value: text(kv.value), modRevision: Number(kv.modRevision) });

/** One stream with a watch for each resource, as clientv3 multiplexes them; opened again when it breaks. */
export class WatchCaches {
  readonly #connection: Connection;
  readonly #storage: Storage;
  readonly caches: readonly Cache[];
  readonly #abort = new AbortController();
  #send: ((request: WireInput<WatchRequest>) => void) | undefined;
  #running: Promise<void> = Promise.resolve();
  failure: unknown;
  progressNotices = 0;
  reconnects = 0;
  relists = 0;

  constructor(connection: Connection, prefixes: readonly string[]) {
    this.#connection = connection;
    this.#storage = new Storage(connection);
    this.caches = prefixes.map((prefix) => new Cache(prefix));
  }

  async start(pageLimit: number): Promise<void> {
    for (const cache of this.caches) {
      const { kvs, revision } = await this.#storage.listNow(cache.prefix, pageLimit);
      cache.fill(kvs, revision);
    }
    this.#running = this.#run(pageLimit).catch((error: unknown) => {
      this.failure = error;
    });
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  /**
   * cacher's consistent read: the current revision of etcd, then progress until the cache is there, then both compared.
   * False: history was too short for it.
   */
  compare(cache: Cache, pageLimit: number): Promise<boolean> {
    // One after the other: what lies before the last comparison is forgotten.
    const compared = cache.compared.then(() => this.#compare(cache, pageLimit));
    cache.compared = compared.then(
      () => {},
      () => {
        // Its caller was told.
      },
    );
    return compared;
  }

  async #compare(cache: Cache, pageLimit: number): Promise<boolean> {
    const { fills } = cache;
    const revision = await this.#storage.currentRevision(cache.prefix);
    const endMs = performance.now() + 20_000;
    while (cache.revision < revision) {
      if (this.failure) throw this.failure;
      if (performance.now() > endMs)
        throw new Error(`${cache.prefix}: the cache stays at ${cache.revision}, etcd has ${revision}`);
      this.#send?.({ progressRequest: {} });
      await sleep(20);
    }
    const mine = cache.at(revision);
    let kvs: KeyValue[];
    try {
      ({ kvs } = await this.#storage.list(cache.prefix, pageLimit, revision));
    } catch (error) {
      if (!isCompacted(error)) throw error;
      return false;
    }
    // Listed anew meanwhile: it may know only what is later.
    if (cache.fills !== fills) return false;
    if (kvs.length !== mine.size)
      throw new Error(`${cache.prefix}: ${mine.size} cached, ${kvs.length} stored at ${revision}`);
    for (const kv of kvs) {
      const known = mine.get(text(kv.key));
      if (!known || known.modRevision !== Number(kv.modRevision) || known.value !== text(kv.value)) {
        throw new Error(`${text(kv.key)}: the cache has another object than etcd at ${revision}`);
      }
    }
    return true;
  }

  async #run(pageLimit: number): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        await this.#follow(pageLimit);
      } catch (error) {
        if (signal.aborted) return;
        if (!isGrpcError(error, "UNAVAILABLE")) throw error;
        this.reconnects++;
        await sleep(100);
      }
    }
  }

  async #follow(pageLimit: number): Promise<void> {
    const abort = new AbortController();
    const stop = () => abort.abort();
    this.#abort.signal.addEventListener("abort", stop, { once: true });
    try {
      const duplex = await this.#connection.watchStream(abort.signal);
      const send = (request: WireInput<WatchRequest>) => duplex.send(codec.encode("WatchRequest", request as object));
      this.#send = send;
      const waiting = [...this.caches];
      const byId = new Map<number, Cache>();
      const createNext = () => {
        const [cache] = waiting;
        if (!cache) return;
        const range = { key: bytes(cache.prefix), rangeEnd: prefixEnd(cache.prefix) };
        send({ createRequest: { ...range, startRevision: cache.revision + 1, prevKv: true, progressNotify: true } });
      };
      createNext();
      for await (const message of duplex.messages) {
        const response = codec.decode<WatchResponse>("WatchResponse", message);
        const id = Number(response.watchId);
        const header = Number(response.header?.revision);
        if (response.created) {
          const cache = waiting.shift();
          if (!cache || response.canceled) throw new Error(`a watch was refused: ${response.cancelReason}`);
          byId.set(id, cache);
          createNext();
          continue;
        }
        if (response.canceled) {
          // Away for longer than history is kept: the resource is listed again.
          const cache = byId.get(id);
          if (!cache || Number(response.compactRevision) === 0) throw new Error(`canceled: ${response.cancelReason}`);
          byId.delete(id);
          this.relists++;
          const { kvs, revision } = await this.#storage.listNow(cache.prefix, pageLimit);
          cache.fill(kvs, revision);
          waiting.push(cache);
          if (waiting.length === 1) createNext();
          continue;
        }
        if (response.events.length === 0) {
          this.progressNotices++;
          // -1: of all watches.
          for (const [watchId, cache] of byId) {
            if (id === -1 || id === watchId) cache.progressTo(header);
          }
          continue;
        }
        const cache = byId.get(id);
        if (!cache) throw new Error(`events of a watch that is not there: ${id}`);
        for (const event of response.events) cache.take(event);
      }
    } finally {
      this.#send = undefined;
      abort.abort();
      this.#abort.signal.removeEventListener("abort", stop);
    }
  }
}

/** storage/etcd3/compact.go: one round. */
export async function compactRound(
  connection: Connection,
  round: number,
  target: number,
): Promise<{ round: number; target: number; compacted: boolean }> {
  const key = bytes("compact_rev_key");
  const answer = await connection.call("KV/Txn", {
    compare: [{ target: 0, result: 0, key, version: round }],
    success: [{ requestPut: { key, value: bytes(String(target)) } }],
    failure: [{ requestRange: { key } }],
  });
  const current = Number(answer.header!.revision);
  if (!answer.succeeded) {
    const found = answer.responses[0]?.responseRange?.kvs[0];
    return { round: Number(found?.version ?? 0), target: current, compacted: false };
  }
  if (target > 0) await connection.call("KV/Compact", { revision: target });
  return { round: round + 1, target: current, compacted: target > 0 };
}
