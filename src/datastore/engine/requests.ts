// The bounds of backend.ts, checked before anything is applied: what is refused here has changed nothing.
import { type Key, maxKeyBytes, maxTxnOps, maxValueBytes, type Op, type Txn } from "../backend.ts";
import { datastoreError } from "../errors.ts";

/** Throws DATASTORE_TOO_LARGE or DATASTORE_BAD_REQUEST. */
export function checkTxn(txn: Txn): void {
  const { compares, success, failure = [] } = txn;
  if (compares.length > maxTxnOps || success.length > maxTxnOps || failure.length > maxTxnOps) {
    throw datastoreError("DATASTORE_TOO_LARGE", `a transaction has at most ${maxTxnOps} compares and operations`);
  }
  for (const compare of compares) checkRange(compare);
  checkOps(success);
  checkOps(failure);
}

interface Changes {
  readonly puts: Set<Key>;
  readonly deletes: { readonly key: Key; readonly end?: Key | undefined }[];
}

/** No key is put twice, or put and deleted, by ops that may be applied together. */
function checkOps(ops: readonly Op[]): Changes {
  const puts = new Set<Key>();
  const deletes: Changes["deletes"] = [];
  for (const op of ops) {
    if (op.type === "range") checkRange(op.range);
    else if (op.type === "delete") {
      checkRange(op);
      deletes.push(op);
    } else if (op.type === "put") {
      checkKey(op.key);
      if (op.value.length > maxValueBytes) {
        throw datastoreError(
          "DATASTORE_TOO_LARGE",
          `value of ${op.value.length} bytes; at most ${maxValueBytes} are stored`,
        );
      }
      if (puts.has(op.key)) throw duplicateKey(op.key);
      puts.add(op.key);
    } else {
      checkTxn({ ...op.txn, success: [], failure: [] });
      if (op.txn.success.length > maxTxnOps || (op.txn.failure?.length ?? 0) > maxTxnOps) checkTxn(op.txn);
      const branches = [checkOps(op.txn.success), checkOps(op.txn.failure ?? [])];
      // Only one branch is applied: they may put the same key.
      const here = new Set(branches.flatMap((branch) => [...branch.puts]));
      for (const key of here) {
        if (puts.has(key)) throw duplicateKey(key);
        puts.add(key);
      }
      for (const branch of branches) deletes.push(...branch.deletes);
    }
  }
  if (puts.size === 0) return { puts, deletes };
  for (const op of deletes) for (const key of puts) if (inRange(key, op.key, op.end)) throw duplicateKey(key);
  return { puts, deletes };
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
