// The bounds of backend.ts, checked before anything is applied: what is refused here has changed nothing.
import { type Key, maxKeyBytes, maxTxnOps, maxValueBytes, type Op, type Txn } from "../backend.ts";
import { datastoreError } from "../errors.ts";

/** Throws DATASTORE_TOO_LARGE or DATASTORE_BAD_REQUEST. */
export function checkTxn(txn: Txn): void {
  checkCounts(txn);
  const { success, failure = [] } = txn;
  for (const ops of [success, failure]) {
    // What a single op changes cannot be changed twice.
    if (ops.length === 1) checkOp(ops[0]!);
    else if (ops.length > 1) checkOps(ops);
  }
}

function checkCounts({ compares, success, failure = [] }: Txn): void {
  if (compares.length > maxTxnOps || success.length > maxTxnOps || failure.length > maxTxnOps) {
    throw datastoreError("DATASTORE_TOO_LARGE", `a transaction has at most ${maxTxnOps} compares and operations`);
  }
  for (const compare of compares) checkRange(compare);
}

function checkOp(op: Op): void {
  if (op.type === "txn") {
    checkTxn(op.txn);
    return;
  }
  if (op.type === "range") checkRange(op.range);
  else if (op.type === "delete") checkRange(op);
  else checkPut(op);
}

function checkPut({ key, value }: Extract<Op, { type: "put" }>): void {
  checkKey(key);
  if (value.length > maxValueBytes) {
    throw datastoreError("DATASTORE_TOO_LARGE", `value of ${value.length} bytes; at most ${maxValueBytes} are stored`);
  }
}

interface Changes {
  readonly puts: Set<Key>;
  readonly deletes: { readonly key: Key; readonly end?: Key | undefined }[];
}

/** No key is put twice, or put and deleted, by ops that may be applied together. */
function checkOps(ops: readonly Op[]): Changes {
  const all: Changes = { puts: new Set(), deletes: [] };
  for (const op of ops) {
    const { puts, deletes } = changesOf(op);
    for (const key of puts) {
      if (all.puts.has(key)) throw duplicateKey(key);
      for (const range of all.deletes) if (inRange(key, range.key, range.end)) throw duplicateKey(key);
    }
    for (const range of deletes)
      for (const key of all.puts) if (inRange(key, range.key, range.end)) throw duplicateKey(key);
    for (const key of puts) all.puts.add(key);
    all.deletes.push(...deletes);
  }
  return all;
}

/** What one op may change. The branches of a transaction are not held against each other: only one is applied. */
function changesOf(op: Op): Changes {
  switch (op.type) {
    case "range":
      checkRange(op.range);
      return { puts: new Set(), deletes: [] };
    case "delete":
      checkRange(op);
      return { puts: new Set(), deletes: [op] };
    case "put":
      checkPut(op);
      return { puts: new Set([op.key]), deletes: [] };
    case "txn": {
      checkCounts(op.txn);
      const branches = [checkOps(op.txn.success), checkOps(op.txn.failure ?? [])];
      return {
        puts: new Set(branches.flatMap(({ puts }) => [...puts])),
        deletes: branches.flatMap(({ deletes }) => deletes),
      };
    }
  }
}

function inRange(key: Key, start: Key, end: Key | undefined): boolean {
  if (end === undefined) return key === start;
  return key >= start && (end === "\0" || key < end);
}

export function checkRange(range: { readonly key: Key; readonly end?: Key | undefined }): void {
  checkKey(range.key);
  if (range.end !== undefined) checkEnd(range.end);
}

function checkKey(key: Key): void {
  if (key.length === 0 || key.length > maxKeyBytes) {
    throw datastoreError("DATASTORE_BAD_REQUEST", `a key has 1 to ${maxKeyBytes} bytes, not ${key.length}`);
  }
  checkBytes(key);
}

function checkEnd(end: Key): void {
  if (end.length === 0 || end.length > maxKeyBytes + 1) {
    throw datastoreError(
      "DATASTORE_BAD_REQUEST",
      `an end of range has 1 to ${maxKeyBytes + 1} bytes, not ${end.length}`,
    );
  }
  checkBytes(end);
}

function checkBytes(key: Key): void {
  for (let i = 0; i < key.length; i++) {
    if (key.charCodeAt(i) > 0xff) throw datastoreError("DATASTORE_BAD_REQUEST", "a key is a string of bytes");
  }
}

function duplicateKey(key: Key): Error {
  return datastoreError("DATASTORE_BAD_REQUEST", "a transaction changes a key twice", { key });
}
