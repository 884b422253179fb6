// Calls of an external etcd over one or more endpoints. One endpoint is used until it fails; then the next. A call is
// made again only where that is safe: nothing was sent, etcd says that it did nothing, or the call only reads. Every
// call has a deadline, and so has the search for an endpoint that answers.
// Invariant: all answers come from one cluster; an endpoint of another one is left as if it were down.
// Upstream counterpart: clientv3's balancer and retry interceptors.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import {
  createGrpcClient,
  type GrpcClient,
  type GrpcClientTls,
  type GrpcDuplex,
  NotConnectedError,
} from "#platform/grpc-client.ts";
import { type EtcdMethods, etcdMethods, etcdTable, type ResponseHeader } from "#wire/gen/etcd.ts";
import { GrpcError, isGrpcError } from "#wire/grpc.ts";
import { createWireCodec, type WireInput } from "#wire/protobuf.ts";
import { datastoreError } from "../../errors.ts";
import type { EtcdEndpoint } from "../../etcd-endpoints.ts";
import { fromEtcd } from "./errors.ts";

export const etcdCodec = createWireCodec(etcdTable);

export interface EtcdClientOptions {
  readonly endpoints: readonly EtcdEndpoint[];
  readonly tls?: GrpcClientTls | (() => Promise<GrpcClientTls>) | undefined;
}

export interface EtcdClientDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

export interface EtcdCall {
  /** The call changes nothing: after a broken connection it is made again elsewhere. */
  readonly reads: boolean;
  readonly timeoutMs?: number;
  /** No endpoint is looked for beyond those there are: the caller tries again itself. */
  readonly once?: boolean;
}

/** One call, as long as etcd itself waits for its quorum (7 s), and some. */
const callTimeoutMs = 10_000;
/** How long an endpoint that answers is looked for: an election takes one to two seconds, and a client of the API may be waiting. */
const failoverMs = 3000;
/** How often it is said of one endpoint that it does not do. */
const sayEveryMs = 10_000;
const minPauseMs = 50;
const maxPauseMs = 500;
const connectTimeoutMs = 3000;
/** As an upstream API server has them. */
const keepalive = { intervalMs: 30_000, timeoutMs: 10_000 } as const;
/** An answer of 1000 keys of 100 KiB; larger ones are asked for in smaller pieces. */
const maxMessageBytes = 128 * 1024 * 1024;
/** The API server lets 600 requests in; beyond this somebody is at fault. */
const maxInFlight = 2000;

/** Said before anything was proposed. */
const didNothing: ReadonlySet<string> = new Set(["etcdserver: no leader", "etcdserver: not leader"]);

export class EtcdClient {
  readonly #endpoints: readonly EtcdEndpoint[];
  readonly #clients: readonly GrpcClient[];
  readonly #deps: EtcdClientDeps;
  readonly #ended = new AbortController();
  readonly #saidMs = new Map<string, number>();
  #current = 0;
  #inFlight = 0;
  #clusterId: string | undefined;

  constructor(options: EtcdClientOptions, deps: EtcdClientDeps) {
    this.#endpoints = options.endpoints;
    this.#deps = deps;
    this.#clients = options.endpoints.map(({ target, secure }) =>
      createGrpcClient({
        target,
        tls: secure ? (options.tls ?? {}) : undefined,
        // Members that have lost their leader say so, instead of letting calls and watches wait.
        headers: { hasleader: "true" },
        ...{ connectTimeoutMs, maxMessageBytes, keepalive },
      }),
    );
  }

  /** The address that is used now. */
  get url(): string {
    return this.#endpoints[this.#current]!.url;
  }

  /** Rejects with errors of a Backend. */
  async call<K extends keyof EtcdMethods>(
    method: K,
    request: WireInput<EtcdMethods[K]["request"]>,
    options: EtcdCall,
  ): Promise<EtcdMethods[K]["response"]> {
    if (this.#inFlight >= maxInFlight) throw datastoreError("DATASTORE_UNAVAILABLE", "too many requests wait for etcd");
    const names = etcdMethods[method];
    const message = etcdCodec.encode(names.request, request as object);
    this.#inFlight++;
    try {
      return await this.#persist(options, async (grpc) => {
        const timeoutMs = options.timeoutMs ?? callTimeoutMs;
        const answer = await grpc.unary(names.path, message, { timeoutMs });
        const response = etcdCodec.decode<EtcdMethods[K]["response"]>(names.response, answer);
        this.#checkCluster((response as { header?: ResponseHeader }).header);
        return response;
      });
    } finally {
      this.#inFlight--;
    }
  }

  /** A stream of the endpoint in use; who finds it broken says so with `leave`. */
  async duplex<K extends keyof EtcdMethods>(
    method: K,
    signal: AbortSignal,
  ): Promise<GrpcDuplex & { readonly url: string }> {
    const at = this.#current;
    try {
      const duplex = await this.#clients[at]!.duplex(etcdMethods[method].path, signal);
      return { ...duplex, url: this.#endpoints[at]!.url };
    } catch (error) {
      this.leave(this.#endpoints[at]!.url, messageOf(error));
      throw fromEtcd(error);
    }
  }

  /** The endpoint does not do: the next one is used from now on. */
  leave(url: string, reason: string): void {
    if (this.#ended.signal.aborted || this.url !== url || this.#endpoints.length === 1) return;
    this.#current = (this.#current + 1) % this.#endpoints.length;
    const nowMs = this.#deps.clock.monotonicMs();
    const isNews = nowMs - (this.#saidMs.get(url) ?? Number.NEGATIVE_INFINITY) >= sayEveryMs;
    if (isNews) this.#saidMs.set(url, nowMs);
    this.#deps.log[isNews ? "warn" : "debug"]("etcd endpoint is left", { endpoint: url, next: this.url, reason });
  }

  close(): void {
    this.#ended.abort(datastoreError("DATASTORE_CLOSED", "the datastore is closed"));
    for (const grpc of this.#clients) grpc.close();
  }

  async #persist<T>({ reads, once }: EtcdCall, attempt: (grpc: GrpcClient) => Promise<T>): Promise<T> {
    const { clock } = this.#deps;
    const { signal } = this.#ended;
    const untilMs = clock.monotonicMs() + (once ? 0 : failoverMs);
    let pauseMs = minPauseMs;
    for (let tries = 1; ; tries++) {
      const url = this.url;
      try {
        return await attempt(this.#clients[this.#current]!);
      } catch (error) {
        signal.throwIfAborted();
        const isDown = isGrpcError(error, "UNAVAILABLE") || isGrpcError(error, "DEADLINE_EXCEEDED");
        if (!isDown) throw fromEtcd(error);
        this.leave(url, messageOf(error));
        const safe =
          error instanceof NotConnectedError ||
          didNothing.has(error.message) ||
          (reads && error.code === "UNAVAILABLE");
        const isLast = clock.monotonicMs() >= untilMs && tries >= this.#endpoints.length;
        if (!safe || isLast) {
          throw reads || safe ? fromEtcd(error) : outcomeUnknown(error);
        }
      }
      if (tries % this.#endpoints.length > 0) continue;
      if (once) continue;
      await clock.sleep(pauseMs);
      signal.throwIfAborted();
      pauseMs = Math.min(pauseMs * 2, maxPauseMs);
    }
  }

  #checkCluster(header: ResponseHeader | undefined): void {
    if (!header) return;
    const id = String(header.clusterId);
    this.#clusterId ??= id;
    if (id !== this.#clusterId) {
      throw new GrpcError("UNAVAILABLE", `etcd at ${this.url} belongs to another cluster than the one in use`);
    }
  }
}

function outcomeUnknown(error: Error): Error {
  return datastoreError("DATASTORE_UNAVAILABLE", `the outcome of the write is unknown: ${error.message}`, {}, error);
}
