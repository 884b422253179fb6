// One watch stream of a peer: everything it was told, by watch, and a barrier that says when it has been told all.
import type { WatchRequest, WatchResponse } from "#wire/gen/etcd.ts";
import { etcdMethods } from "#wire/gen/etcd.ts";
import type { WireInput } from "#wire/protobuf.ts";
import { plain } from "./operations.ts";
import { codec, type EtcdClient } from "./peers.ts";

export interface Told {
  /** Events without the boundaries of the answers they came in. */
  readonly events: unknown[];
  /** Created, canceled: with everything these say. */
  readonly notices: unknown[];
}

export class WatchProbe {
  readonly #name: string;
  readonly #told = new Map<number, Told>();
  readonly #abort = new AbortController();
  readonly #send: (request: WireInput<WatchRequest>) => void;
  readonly #reading: Promise<void>;
  readonly #compacted = new Set<number>();
  #barriers = 0;
  #barrierRevision = 0;
  #lastRevision = 0;
  failure: unknown;

  static async open(client: EtcdClient, name: string): Promise<WatchProbe> {
    const abort = new AbortController();
    const duplex = await client.grpc.duplex(etcdMethods["Watch/Watch"].path, abort.signal);
    return new WatchProbe(duplex, abort, name);
  }

  private constructor(
    duplex: { send(message: Uint8Array): void; readonly messages: AsyncIterable<Uint8Array> },
    abort: AbortController,
    name: string,
  ) {
    this.#name = name;
    this.#abort = abort;
    this.#send = (request) => duplex.send(codec.encode("WatchRequest", request as object));
    this.#reading = this.#read(duplex.messages).catch((error: unknown) => {
      if (!abort.signal.aborted) this.failure = error;
    });
  }

  request(request: WireInput<WatchRequest>): void {
    this.#send(request);
  }

  /** Waits until everything up to `revision` has been told. */
  async barrier(revision: number): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      if (this.failure) throw this.failure;
      const before = this.#barriers;
      this.#send({ progressRequest: {} });
      for (let i = 0; i < 20 && this.#barriers === before; i++) await new Promise((r) => setTimeout(r, 2));
      if (this.#barriers > before && this.#barrierRevision >= revision) return;
    }
    throw new Error(`no progress notice at revision ${revision} from ${this.#name}: last was ${this.#barrierRevision}`);
  }

  /** What was told since the last call. */
  take(): Record<string, Told> {
    const told = Object.fromEntries([...this.#told].sort(([a], [b]) => a - b));
    this.#told.clear();
    return told;
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#reading;
  }

  async #read(messages: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const message of messages) {
      const response = codec.decode<WatchResponse>("WatchResponse", message);
      const id = Number(response.watchId);
      const revision = Number(response.header?.revision);
      // To etcd a watch that ended for compaction is one that never catches up, until its client lets go of it too.
      if (response.canceled && Number(response.compactRevision) > 0) {
        this.#compacted.add(id);
        this.#send({ cancelRequest: { watchId: id } });
      } else if (response.canceled && this.#compacted.delete(id)) continue;
      if (response.created) this.#compacted.delete(id);
      const notice = response.created || response.canceled;
      if (id === -1 && !notice) {
        // A progress notice below an event told before would have a client resume in the past.
        if (revision < this.#lastRevision) throw new Error(`progress ${revision} after ${this.#lastRevision}`);
        this.#barrierRevision = revision;
        this.#barriers++;
        continue;
      }
      if (!notice && response.events.length === 0) continue;
      const told = this.#told.get(id) ?? { events: [], notices: [] };
      this.#told.set(id, told);
      if (notice) {
        const { created, canceled, cancelReason, compactRevision } = response;
        told.notices.push(plain({ created, canceled, cancelReason, compactRevision }));
      }
      for (const { kv } of response.events)
        this.#lastRevision = Math.max(this.#lastRevision, Number(kv?.modRevision ?? 0));
      told.events.push(...response.events.map((event) => plain(event)));
    }
  }
}
