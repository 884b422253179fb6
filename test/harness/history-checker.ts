// Judges what concurrent clients and watchers of a Backend saw against its promises (backend.ts). The order is given: every
// transaction that wrote has a revision, and a watch of everything (the audit) shows them all. So instead of searching
// for an order, the checker replays the audit and asks whether every answer fits it:
//   atomic, linearizable   an answer is what a plain map gives at the answer's revision, and that revision is not before
//                          any that was acknowledged before the call
//   durable                what was acknowledged is in the audit; what failed is in it as a whole or not at all
//   watches                ordered, unique, reliable, atomic, resumable, and right about their progress
// Upstream counterpart: etcd tests/robustness (porcupine, validate/watch.go).
import type { KeyValue, Op, RangeResult, TxnResult, WatchEvent } from "#datastore/backend.ts";

export type SimpleOp = Extract<Op, { type: "put" | "delete" }>;

/** A transaction is known by the value of its first put, which no other has. */
export interface TransactionRecord {
  readonly type: "txn";
  readonly id: string;
  readonly compare: { readonly key: string; readonly version: number } | undefined;
  readonly ops: readonly SimpleOp[];
  /** Newest revision that anybody had been told of when the call was made. */
  readonly knownBefore: number;
  /** Undefined: the outcome is not known. */
  readonly result: TxnResult | undefined;
}
export interface ReadRecord {
  readonly type: "read";
  readonly prefix: string;
  /** 0: now. */
  readonly asked: number;
  readonly knownBefore: number;
  readonly result: RangeResult;
}
export interface WatchRecord {
  readonly prefix: string;
  readonly from: number;
  readonly batches: readonly { readonly events: readonly WatchEvent[]; readonly through: number }[];
  /** What the watch said last of its progress. */
  readonly progress: number;
}

interface Value {
  readonly text: string;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
}

const text = (value: Uint8Array): string => Buffer.from(value).toString("latin1");

export class HistoryChecker {
  readonly problems: string[] = [];
  /** Key -> value at `#at`. */
  #state = new Map<string, Value>();
  #at: number;

  constructor(start: number) {
    this.#at = start;
  }

  /** One round: everything that was called since the last, and the audit's events of all revisions in it. */
  check(
    audit: readonly WatchEvent[],
    records: readonly (TransactionRecord | ReadRecord)[],
    watches: readonly WatchRecord[],
    through: number,
  ): void {
    const byRevision = new Map<number, WatchEvent[]>();
    for (const event of audit) {
      const at = event.kv.modRevision;
      if (at <= this.#at) this.#problem(`the audit went back to ${at}`);
      const group = byRevision.get(at);
      if (group) group.push(event);
      else byRevision.set(at, [event]);
    }
    const writes = new Map<string, TransactionRecord>();
    const questions: { at: number; ask: () => void }[] = [];
    for (const record of records) {
      if (record.type === "read")
        questions.push({ at: record.asked || record.result.revision, ask: () => this.#read(record) });
      else if (record.result === undefined || record.result.succeeded) writes.set(record.id, record);
      else questions.push({ at: record.result.revision, ask: () => this.#refused(record) });
      const told = record.result?.revision ?? Infinity;
      const isWrite = record.type === "txn" && record.result?.succeeded;
      if (told < record.knownBefore || (isWrite && told === record.knownBefore)) {
        this.#problem(`an answer at revision ${told} although ${record.knownBefore} was known before the call`);
      }
    }
    questions.sort((a, b) => a.at - b.at);
    let next = 0;
    const askUpTo = (revision: number) => {
      while (next < questions.length && questions[next]!.at < revision) questions[next++]!.ask();
    };
    for (const [revision, events] of [...byRevision].sort(([a], [b]) => a - b)) {
      askUpTo(revision);
      this.#apply(revision, events, writes);
      this.#at = revision;
    }
    askUpTo(Infinity);
    for (const lost of writes.values()) {
      if (lost.result) this.#problem(`${lost.id} was acknowledged at ${lost.result.revision} and is nowhere`);
    }
    this.#at = Math.max(this.#at, through);
    for (const watch of watches) this.#watch(watch, byRevision);
  }

  #apply(revision: number, events: readonly WatchEvent[], writes: Map<string, TransactionRecord>): void {
    const id = text(events[0]!.kv.value);
    const write = writes.get(id);
    if (!write) {
      this.#problem(`revision ${revision} holds ${events[0]!.kv.key}=${id}, which nobody wrote, or twice`);
      return;
    }
    writes.delete(id);
    if (write.result && write.result.revision !== revision) {
      this.#problem(`${id} was acknowledged at ${write.result.revision} and stands at ${revision}`);
    }
    if (write.compare && (this.#state.get(write.compare.key)?.version ?? 0) !== write.compare.version) {
      this.#problem(`${id} at ${revision}: its compare did not hold`);
    }
    const expected: string[] = [];
    write.ops.forEach((op, i) => {
      const before = this.#state.get(op.key);
      if (op.type === "put") {
        const after = {
          text: text(op.value),
          create: before?.create ?? revision,
          mod: revision,
          version: (before?.version ?? 0) + 1,
        };
        this.#state.set(op.key, after);
        expected.push(`put ${op.key} ${show(after)} was ${show(before)}`);
        const answer = write.result?.results[i];
        if (answer?.type === "put")
          this.#same(`${id}: prevKv of ${op.key}`, show(versionOf(answer.prevKv)), show(before));
      } else if (before) {
        this.#state.delete(op.key);
        expected.push(`delete ${op.key} ${revision} was ${show(before)}`);
      }
    });
    const seen = events.map((e) =>
      e.type === "put"
        ? `put ${e.kv.key} ${show(versionOf(e.kv))} was ${show(versionOf(e.prevKv))}`
        : `delete ${e.kv.key} ${e.kv.modRevision} was ${show(versionOf(e.prevKv))}`,
    );
    this.#same(`${id} at ${revision}`, seen.join("; "), expected.join("; "));
  }

  #read(record: ReadRecord): void {
    const seen = record.result.kvs.map((kv) => `${kv.key}=${show(versionOf(kv))}`).join(" ");
    const expected = [...this.#state]
      .filter(([key]) => key.startsWith(record.prefix))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, value]) => `${key}=${show(value)}`)
      .join(" ");
    this.#same(`a read of ${record.prefix} at ${record.asked || record.result.revision}`, seen, expected);
  }

  #refused(record: TransactionRecord): void {
    const { compare } = record;
    if (compare && (this.#state.get(compare.key)?.version ?? 0) === compare.version) {
      this.#problem(`${record.id} was refused at ${record.result!.revision} although its compare held`);
    }
  }

  #watch(watch: WatchRecord, byRevision: ReadonlyMap<number, readonly WatchEvent[]>): void {
    const seen: string[] = [];
    let last = watch.from - 1;
    let told = watch.from - 1;
    for (const { events, through } of watch.batches) {
      const first = events[0]!.kv.modRevision;
      if (first <= last) this.#problem(`a watch got revision ${first} after ${last}, or in two pieces`);
      if (first <= told) this.#problem(`a watch got revision ${first} after it was told of progress to ${told}`);
      for (const event of events) {
        if (event.kv.modRevision < last) this.#problem(`a watch went back from ${last} to ${event.kv.modRevision}`);
        last = event.kv.modRevision;
        seen.push(`${event.kv.modRevision} ${event.type} ${event.kv.key} ${text(event.kv.value)}`);
      }
      told = through;
    }
    const expected: string[] = [];
    for (const [revision, events] of [...byRevision].sort(([a], [b]) => a - b)) {
      if (revision < watch.from || revision > watch.progress) continue;
      for (const event of events) {
        if (event.kv.key.startsWith(watch.prefix)) {
          expected.push(`${revision} ${event.type} ${event.kv.key} ${text(event.kv.value)}`);
        }
      }
    }
    this.#same(
      `a watch of ${watch.prefix} from ${watch.from} to ${watch.progress}`,
      seen.join("; "),
      expected.join("; "),
    );
  }

  #same(what: string, seen: string, expected: string): void {
    if (seen !== expected) this.#problem(`${what}: saw ${seen.slice(0, 300)}, expected ${expected.slice(0, 300)}`);
  }

  #problem(problem: string): void {
    if (this.problems.length < 20) this.problems.push(problem);
  }
}

function versionOf(kv: KeyValue | undefined): Value | undefined {
  return kv && { text: text(kv.value), create: kv.createRevision, mod: kv.modRevision, version: kv.version };
}

function show(value: Value | undefined): string {
  return value ? `${value.text}@${value.create}-${value.mod}#${value.version}` : "nothing";
}
