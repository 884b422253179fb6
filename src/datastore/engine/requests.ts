// The bounds of backend.ts, checked before anything is applied: what is refused here has changed nothing.
import { type Key, maxKeyBytes, maxTxnOps, maxValueBytes, type Op, type Txn } from "../backend.ts";
import { datastoreError } from "../errors.ts";

/** Throws DATASTORE_TOO_LARGE or DATASTORE_BAD_REQUEST. */
export function checkTxn(txn: Txn): void {
  const { compares, success, failure = [] } = txn;
  if (compares.length > maxTxnOps || success.length > maxTxnOps || failure.length > maxTxnOps) {
    throw datastoreError("DATASTORE_TOO_LARGE", `a transaction has at most ${maxTxnOps} compares and operations`);
  }
  for (const compare of compares) checkKey(compare.key);
  checkOps(success);
  checkOps(failure);
}

function checkOps(ops: readonly Op[]): void {
  const put = new Set<Key>();
  for (const op of ops) {
    if (op.type === "range") {
      checkRange(op.range);
      continue;
    }
    checkKey(op.key);
    if (op.type === "delete") {
      if (op.end !== undefined) checkEnd(op.end);
      continue;
    }
    if (op.value.length > maxValueBytes) {
      throw datastoreError(
        "DATASTORE_TOO_LARGE",
        `value of ${op.value.length} bytes; at most ${maxValueBytes} are stored`,
      );
    }
    if (put.has(op.key)) throw duplicateKey(op.key);
    put.add(op.key);
  }
  if (put.size === 0) return;
  for (const op of ops) {
    if (op.type !== "delete") continue;
    for (const key of put) if (inRange(key, op.key, op.end)) throw duplicateKey(key);
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
