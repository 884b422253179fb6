// Backend over an external etcd. Transactions and reads are etcd's own, one to one, at etcd's revisions; watches come
// from one stream for the whole process (follower.ts). A write is acknowledged when etcd has it and when the watchers of
// this process have been told, as with the local store.
// Storage classes: etcd keeps everything on disk. Events are attached to leases of an hour; heartbeats are ordinary keys.
// Upstream counterpart: the API server's storage/etcd3, k3s with an etcd endpoint.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { GrpcClientTls } from "#platform/grpc-client.ts";
import type { RangeResponse, WatchResponse } from "#wire/gen/etcd.ts";
import { isGrpcError } from "#wire/grpc.ts";
import {
  revision as asRevision,
  type Backend,
  type Key,
  type KeyValue,
  type Lease,
  type Op,
  type RangeOptions,
  type RangeResult,
  type Revision,
  type Txn,
  type TxnResult,
  type Watch,
  type WatchOptions,
  type WatchSink,
} from "./backend.ts";
import { EtcdClient, etcdCodec } from "./drivers/etcd/client.ts";
import { fromEtcd } from "./drivers/etcd/errors.ts";
import { EventLeases } from "./drivers/etcd/event-leases.ts";
import { Follower } from "./drivers/etcd/follower.ts";
import { keyText, onlyReads, rangeRequest, rangeResult, txnRequest, txnResult } from "./drivers/etcd/messages.ts";
import { checkRange, checkTxn } from "./engine/requests.ts";
import { datastoreError, leaseNotFound } from "./errors.ts";
import { isEtcdEndpoint, parseEtcdEndpoints } from "./etcd-endpoints.ts";

export interface EtcdBackendOptions {
  /** `https://a:2379,https://b:2379`. */
  readonly endpoint: string;
  /** A function is asked for each connection, as etcd's own client reads its files. */
  readonly tls?: GrpcClientTls | (() => Promise<GrpcClientTls>) | undefined;
  /** Keys asked for at once; default 1000. */
  readonly pageKeys?: number | undefined;
  /** What of the past is kept for watchers; default 16 MiB. */
  readonly historyBytes?: number | undefined;
}

export interface EtcdBackendDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics?: Metrics | undefined;
  /** Ends the wait for an etcd that does not answer. */
  readonly signal?: AbortSignal | undefined;
}

const defaultPageKeys = 1000;
const retryMs = 1000;
/** How often it is said that etcd is still not there. */
const sayEveryMs = 10_000;
const firstCallMs = 3000;
/** From these on a progress notice that was asked for means what it says (etcd-io/etcd#15220). */
const oldestVersions: readonly (readonly [number, number, number])[] = [
  [3, 4, 25],
  [3, 5, 8],
];
const maxLeaseSeconds = 9_000_000_000;
/** Leases asked about at a time. */
const leaseCalls = 16;

/** Waits until etcd answers, for as long as it takes. Rejects with DATASTORE_BAD_REQUEST for what no waiting mends. */
export async function openEtcdBackend(options: EtcdBackendOptions, deps: EtcdBackendDeps): Promise<Backend> {
  if (!isEtcdEndpoint(options.endpoint)) {
    throw datastoreError("DATASTORE_BAD_REQUEST", `datastore endpoint "${options.endpoint}" is not one of etcd`);
  }
  const endpoints = parseEtcdEndpoints(options.endpoint);
  const client = new EtcdClient({ endpoints, tls: options.tls }, deps);
  try {
    const version = await firstAnswer(client, options.endpoint, deps);
    checkVersion(version);
    const { revision, compacted } = await whereItStands(client);
    deps.log.info("etcd is the datastore", { endpoint: client.url, version, revision });
    const backend = new EtcdBackend(options, client, { ...deps, revision, compacted });
    // What is written from now on is seen by watchers before it is acknowledged; etcd may also go away right now.
    await Promise.race([backend.ready, pause(deps.clock, firstCallMs, deps.signal)]);
    return backend;
  } catch (error) {
    client.close();
    throw error;
  }
}

async function firstAnswer(client: EtcdClient, endpoint: string, deps: EtcdBackendDeps): Promise<string> {
  const { clock, log, signal } = deps;
  let saidMs = -sayEveryMs;
  for (;;) {
    try {
      const status = await client.call("Maintenance/Status", {}, { reads: true, timeoutMs: firstCallMs, once: true });
      return status.version;
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (clock.monotonicMs() - saidMs >= sayEveryMs) {
        saidMs = clock.monotonicMs();
        log.warn("etcd does not answer; waiting for it", { endpoint, error: messageOf(error) });
      }
      await clock.sleep(retryMs, signal);
    }
  }
}

function checkVersion(text: string): void {
  const [major = 0, minor = 0, patch = 0] = text.split(/[.-]/).map(Number);
  const oldest = oldestVersions.find(([a, b]) => a === major && b === minor);
  const isOld = oldest ? patch < oldest[2] : major < 3 || (major === 3 && minor < 4);
  if (!isOld) return;
  const allowed = oldestVersions.map((v) => v.join(".")).join(" or ");
  throw datastoreError("DATASTORE_BAD_REQUEST", `etcd ${text} is too old; ${allowed} or later is needed`);
}

/** The current revision, and the one that history is compacted to: only a watch that asks for too much is told. */
async function whereItStands(client: EtcdClient): Promise<{ revision: number; compacted: number }> {
  const probe = { key: Uint8Array.of(0), countOnly: true };
  const { header } = await client.call("KV/Range", probe, { reads: true });
  const revision = Number(header?.revision);
  const past = { ...probe, revision: 1 };
  const isWhole = await client.call("KV/Range", past, { reads: true }).then(
    () => true,
    (error: unknown) => {
      if (hasCode(error, "DATASTORE_COMPACTED")) return false;
      throw error;
    },
  );
  if (isWhole) return { revision, compacted: 0 };
  const abort = new AbortController();
  const duplex = await client.duplex("Watch/Watch", abort.signal);
  try {
    duplex.send(etcdCodec.encode("WatchRequest", { createRequest: { key: Uint8Array.of(0), startRevision: 1 } }));
    for await (const message of duplex.messages) {
      const { compactRevision } = etcdCodec.decode<WatchResponse>("WatchResponse", message);
      if (Number(compactRevision) > 0) return { revision, compacted: Number(compactRevision) };
    }
  } catch (error) {
    throw fromEtcd(error);
  } finally {
    abort.abort();
  }
  return { revision, compacted: 0 };
}

class EtcdBackend implements Backend {
  readonly #client: EtcdClient;
  readonly #follower: Follower;
  readonly #eventLeases: EventLeases;
  readonly #random: Random;
  readonly #pageKeys: number;
  /** Newest revision that an answer has shown. */
  #seen: number;
  #closed: Promise<void> | undefined;

  constructor(
    options: EtcdBackendOptions,
    client: EtcdClient,
    deps: EtcdBackendDeps & { readonly revision: number; readonly compacted: number },
  ) {
    const { clock, random, log, metrics, revision, compacted } = deps;
    this.#client = client;
    this.#random = random;
    this.#pageKeys = options.pageKeys ?? defaultPageKeys;
    this.#seen = revision;
    this.#follower = new Follower(revision, compacted, { client, clock, log, historyBytes: options.historyBytes });
    this.#eventLeases = new EventLeases({ clock, grant: async (ttl) => (await this.grantLease(ttl)).id });
    metrics?.gaugeOf("mote_datastore_revision", "Newest durable revision.", () => this.revision());
    metrics?.gaugeOf("mote_datastore_etcd_connected", "1 while changes of etcd are followed.", () =>
      this.#follower.connected ? 1 : 0,
    );
    metrics?.gaugeOf("mote_datastore_watches", "Watches of the datastore.", () => this.#follower.size);
  }

  get ready(): Promise<void> {
    return this.#follower.ready;
  }

  async commit(txn: Txn): Promise<TxnResult> {
    this.#mustBeOpen();
    checkTxn(txn);
    const { txn: leased, withLease } = await this.#leaseEvents(txn);
    try {
      return await this.#commit(leased);
    } catch (error) {
      if (!withLease || !hasCode(error, "DATASTORE_LEASE_NOT_FOUND")) throw error;
      // The shared lease is gone from etcd: nothing was written.
      this.#eventLeases.drop();
      return await this.#commit((await this.#leaseEvents(txn)).txn);
    }
  }

  async #commit(txn: Txn): Promise<TxnResult> {
    const floor = this.#seen;
    const reads = onlyReads(txn);
    const response = await this.#client.call("KV/Txn", txnRequest(txn), { reads });
    const result = txnResult(response);
    this.#saw(result.revision, floor);
    if (!reads) await this.#follower.caughtUp(result.revision);
    return result;
  }

  async #leaseEvents(txn: Txn): Promise<{ txn: Txn; withLease: boolean }> {
    const wants = (op: Op) => op.type === "put" && op.class === "event" && op.lease === undefined && !op.keepLease;
    const { success, failure = [] } = txn;
    if (!success.some(wants) && !failure.some(wants)) return { txn, withLease: false };
    const lease = await this.#eventLeases.take();
    const leased = (op: Op): Op => (wants(op) && op.type === "put" ? { ...op, lease } : op);
    return { txn: { ...txn, success: success.map(leased), failure: failure.map(leased) }, withLease: true };
  }

  async range(options: RangeOptions): Promise<RangeResult> {
    this.#mustBeOpen();
    checkRange(options);
    const limit = options.limit ?? 0;
    let pageKeys = options.keysOnly ? this.#pageKeys * 10 : this.#pageKeys;
    const isWhole = options.end === undefined || options.countOnly === true;
    const kvs: KeyValue[] = [];
    let first: { readonly count: number; readonly revision: Revision } | undefined;
    let from = options.key;
    for (;;) {
      const left = limit > 0 ? limit - kvs.length : Number.POSITIVE_INFINITY;
      const size = isWhole ? limit : Math.min(left, pageKeys);
      // Later pages show what the first did.
      const at = options.revision ? options.revision : first?.revision;
      let page: { header: RangeResponse["header"] } & ReturnType<typeof rangeResult>;
      try {
        page = await this.#page({ ...options, key: from, limit: size, revision: at });
      } catch (error) {
        if (!isTooLargeToReceive(error) || size === 1 || isWhole) throw error;
        pageKeys = Math.max(1, Math.floor(Math.min(size, pageKeys) / 4));
        continue;
      }
      first ??= { count: page.count, revision: asRevision(Number(page.header?.revision ?? 0)) };
      for (const kv of page.kvs) kvs.push(kv);
      const last = page.kvs[page.kvs.length - 1];
      if (!page.more || last === undefined || (limit > 0 && kvs.length >= limit)) break;
      from = `${last.key}\0`;
    }
    return { kvs, count: first.count, more: !options.countOnly && kvs.length < first.count, revision: first.revision };
  }

  async #page(options: RangeOptions) {
    const floor = this.#seen;
    const response = await this.#client.call("KV/Range", rangeRequest(options), { reads: true });
    this.#saw(Number(response.header?.revision ?? 0), floor);
    return { header: response.header, ...rangeResult(response) };
  }

  watch(options: WatchOptions, sink: WatchSink): Watch {
    this.#mustBeOpen();
    checkRange(options);
    return this.#follower.add(options, this.revision(), sink);
  }

  async compact(revision: Revision): Promise<void> {
    this.#mustBeOpen();
    await this.#client.call("KV/Compact", { revision }, { reads: false });
    this.#follower.noteCompacted(revision);
  }

  revision(): Revision {
    return asRevision(Math.max(this.#seen, this.#follower.followed));
  }

  compactedRevision(): Revision {
    return asRevision(this.#follower.compacted);
  }

  async grantLease(ttlSeconds: number, id = 0): Promise<Lease> {
    this.#mustBeOpen();
    if (!(ttlSeconds > 0 && ttlSeconds <= maxLeaseSeconds)) {
      throw datastoreError("DATASTORE_BAD_REQUEST", "a lease lives between 1 and 9000000000 seconds", { ttlSeconds });
    }
    // etcd would choose an id that a number cannot hold.
    const chosen = id !== 0 ? id : 1 + Math.floor(this.#random.float() * (Number.MAX_SAFE_INTEGER - 1));
    const { TTL } = await this.#client.call(
      "Lease/LeaseGrant",
      { ID: chosen, TTL: Math.ceil(ttlSeconds) },
      { reads: false },
    );
    return { id: chosen, ttlSeconds: Number(TTL), remainingSeconds: Number(TTL) };
  }

  async keepAlive(id: number): Promise<Lease> {
    this.#mustBeOpen();
    const abort = new AbortController();
    const duplex = await this.#client.duplex("Lease/LeaseKeepAlive", abort.signal);
    try {
      duplex.send(etcdCodec.encode("LeaseKeepAliveRequest", { ID: id }));
      for await (const message of duplex.messages) {
        const { TTL } = etcdCodec.decode<{ TTL: number | bigint }>("LeaseKeepAliveResponse", message);
        const ttlSeconds = Number(TTL);
        if (ttlSeconds <= 0) throw leaseNotFound(id);
        return { id, ttlSeconds, remainingSeconds: ttlSeconds };
      }
    } catch (error) {
      if (error instanceof AppError) throw error;
      if (isGrpcError(error, "UNAVAILABLE")) this.#client.leave(duplex.url, error.message);
      throw fromEtcd(error);
    } finally {
      abort.abort();
    }
    throw datastoreError("DATASTORE_UNAVAILABLE", "etcd did not answer for the lease");
  }

  async revokeLease(id: number): Promise<void> {
    this.#mustBeOpen();
    const { header } = await this.#client.call("Lease/LeaseRevoke", { ID: id }, { reads: false });
    const revision = Number(header?.revision ?? 0);
    this.#seen = Math.max(this.#seen, revision);
    await this.#follower.caughtUp(revision);
  }

  async leases(): Promise<readonly Lease[]> {
    this.#mustBeOpen();
    const { leases } = await this.#client.call("Lease/LeaseLeases", {}, { reads: true });
    const all: Lease[] = [];
    for (let at = 0; at < leases.length; at += leaseCalls) {
      const part = leases.slice(at, at + leaseCalls).map(({ ID }) => this.#describe(ID, false));
      for (const one of await Promise.all(part)) if (one) all.push({ ...one });
    }
    return all.map(({ id, ttlSeconds, remainingSeconds }) => ({ id, ttlSeconds, remainingSeconds }));
  }

  async lease(id: number, withKeys = false): Promise<Lease & { readonly keys: readonly Key[] }> {
    this.#mustBeOpen();
    const found = await this.#describe(id, withKeys);
    if (!found) throw leaseNotFound(id);
    return found;
  }

  /** `id` as it came: that of another client may be more than a number holds. */
  async #describe(
    id: number | bigint,
    keys: boolean,
  ): Promise<(Lease & { readonly keys: readonly Key[] }) | undefined> {
    const answer = await this.#client.call("Lease/LeaseTimeToLive", { ID: id, keys }, { reads: true });
    const remainingSeconds = Number(answer.TTL);
    if (remainingSeconds < 0) return undefined;
    return { id: Number(id), ttlSeconds: Number(answer.grantedTTL), remainingSeconds, keys: answer.keys.map(keyText) };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const closing = this.#follower.close(closedError());
    this.#client.close();
    await closing;
  }

  #mustBeOpen(): void {
    if (this.#closed) throw closedError();
  }

  /** `floor`: what was known when the question was asked; an etcd that answers with less is not the one it was. */
  #saw(revision: number, floor: number): void {
    if (revision >= floor) {
      this.#seen = Math.max(this.#seen, revision);
      return;
    }
    this.#seen = revision;
    this.#follower.restart(revision, `etcd went back from revision ${floor} to ${revision}: its data was replaced`);
  }
}

const closedError = () => datastoreError("DATASTORE_CLOSED", "the datastore is closed");

const isTooLargeToReceive = (error: unknown): boolean =>
  hasCode(error, "DATASTORE_TOO_LARGE") && messageOf(error).startsWith("received message larger");
