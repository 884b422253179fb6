// RFC 6902 JSON patch with the rules and messages of the library that kube-apiserver uses: a missing path on remove or
// replace fails, `-` appends, negative indices are refused, operations are bounded.
// Failures are 422 Invalid statuses, as the API server answers them; a patch that is none is 400.
import { ApiError, badRequest } from "../status.ts";
import { cloneJson, copyOf, equalJson, get, isObject, type JsonObject, set } from "./json-value.ts";

export interface JsonPatchOperation {
  readonly op: string;
  readonly path: string;
  readonly from?: string;
  readonly value?: unknown;
}

/** Upstream's limit on operations of one patch. */
const maxOperations = 10_000;
/** `copy` can double a document with every operation; upstream allows this many bytes in sum. */
const maxCopiedBytes = 3 * 1024 * 1024;

type Container = JsonObject | unknown[];

export function applyJsonPatch(document: unknown, operations: readonly JsonPatchOperation[]): unknown {
  if (!Array.isArray(operations)) throw badRequest("error decoding patch: json: cannot unmarshal into jsonpatch.Patch");
  if (operations.length > maxOperations) {
    throw new ApiError(
      413,
      "RequestEntityTooLarge",
      `The allowed maximum operations in a JSON patch is ${maxOperations}, got ${operations.length}`,
    );
  }
  let result = document;
  let copiedBytes = 0;
  const owned: Owned = new WeakSet();
  for (const operation of operations) {
    if (typeof operation !== "object" || operation === null || typeof operation.op !== "string")
      throw refuse("Unexpected kind: unknown");
    const path = pointer(operation.op, operation.path);
    switch (operation.op) {
      case "add":
        result = edit(owned, result, path, operation, (parent, key) => add(parent, key, need(operation), operation));
        break;
      case "remove":
        result = edit(owned, result, path, operation, (parent, key) => remove(parent, key, operation));
        break;
      case "replace":
        if (path.length === 0) result = cloneJson(need(operation));
        else
          result = edit(owned, result, path, operation, (parent, key) =>
            replace(parent, key, need(operation), operation),
          );
        break;
      case "move": {
        const from = pointer("move", operation.from);
        const value = read(result, from, operation);
        result = edit(owned, result, from, operation, (parent, key) => remove(parent, key, operation));
        result = edit(owned, result, path, operation, (parent, key) => add(parent, key, value, operation));
        break;
      }
      case "copy": {
        const value = read(result, pointer("copy", operation.from), operation);
        copiedBytes += JSON.stringify(value)?.length ?? 0;
        if (copiedBytes > maxCopiedBytes) {
          throw refuse(
            `Unable to complete the copy, the accumulated size increase of copy is ${copiedBytes}, exceeding the limit ${maxCopiedBytes}`,
          );
        }
        result = edit(owned, result, path, operation, (parent, key) => add(parent, key, cloneJson(value), operation));
        break;
      }
      case "test":
        test(result, path, operation);
        break;
      default:
        throw refuse(`Unexpected kind: ${operation.op}`);
    }
  }
  return result;
}

/** Upstream's status does not say why; the reason is kept for logs as the error's cause. */
const refuse = (why: string): ApiError => {
  const error = new ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {});
  error.cause = why;
  return error;
};
const missing = (operation: JsonPatchOperation): ApiError =>
  refuse(
    `${operation.op} operation does not apply: doc is missing path: ${JSON.stringify(operation.path)}: missing value`,
  );

function need(operation: JsonPatchOperation): unknown {
  if (!Object.hasOwn(operation, "value"))
    throw refuse(`${operation.op} operation does not have a value: missing value`);
  return operation.value;
}

function pointer(op: string, path: unknown): string[] {
  if (typeof path !== "string") throw refuse(`${op} operation failed to decode path: missing value`);
  if (path === "") return [];
  if (!path.startsWith("/"))
    throw refuse(`${op} operation does not apply: doc is missing path: ${JSON.stringify(path)}: missing value`);
  return path
    .slice(1)
    .split("/")
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** Containers that this patch has copied already: copied by each of ten thousand operations, a large one takes a minute. */
type Owned = WeakSet<object>;

/** Copies the containers along the path, each once, and hands the innermost copy to `change`. */
function edit(
  owned: Owned,
  document: unknown,
  path: readonly string[],
  operation: JsonPatchOperation,
  change: (parent: Container, key: string) => void,
): unknown {
  const [key, ...rest] = path;
  if (key === undefined) {
    if (operation.op === "add" || operation.op === "copy" || operation.op === "move") {
      const holder: JsonObject = {};
      change(holder, "root");
      return holder["root"];
    }
    throw missing(operation);
  }
  if (!Array.isArray(document) && !isObject(document)) throw missing(operation);
  const parent: Container = owned.has(document) ? document : Array.isArray(document) ? [...document] : copyOf(document);
  owned.add(parent);
  if (rest.length === 0) change(parent, key);
  else if (Array.isArray(parent)) {
    const index = indexOf(key, parent.length - 1, operation);
    parent[index] = edit(owned, parent[index], rest, operation, change);
  } else {
    if (!Object.hasOwn(parent, key)) throw missing(operation);
    set(parent, key, edit(owned, parent[key], rest, operation, change));
  }
  return parent;
}

function add(parent: Container, key: string, value: unknown, operation: JsonPatchOperation): void {
  if (!Array.isArray(parent)) set(parent, key, value);
  else if (key === "-") parent.push(value);
  else parent.splice(indexOf(key, parent.length, operation), 0, value);
}

function remove(parent: Container, key: string, operation: JsonPatchOperation): void {
  if (Array.isArray(parent)) parent.splice(indexOf(key, parent.length - 1, operation), 1);
  else {
    if (!Object.hasOwn(parent, key))
      throw refuse(`remove operation does not apply: doc is missing key: ${operation.path}: missing value`);
    delete parent[key];
  }
}

function replace(parent: Container, key: string, value: unknown, operation: JsonPatchOperation): void {
  if (Array.isArray(parent)) parent[indexOf(key, parent.length - 1, operation)] = value;
  else {
    if (!Object.hasOwn(parent, key))
      throw refuse(`replace operation does not apply: doc is missing key: ${operation.path}: missing value`);
    set(parent, key, value);
  }
}

function read(document: unknown, path: readonly string[], operation: JsonPatchOperation): unknown {
  let current = document;
  for (const key of path) {
    if (Array.isArray(current)) current = current[indexOf(key, current.length - 1, operation)];
    else if (isObject(current) && Object.hasOwn(current, key)) current = current[key];
    else throw missing({ ...operation, path: operation.from ?? operation.path });
  }
  return current;
}

function test(document: unknown, path: readonly string[], operation: JsonPatchOperation): void {
  const failed = () => refuse(`testing value ${operation.path} failed: test failed`);
  let current: unknown = document;
  for (const [position, key] of path.entries()) {
    const last = position === path.length - 1;
    if (Array.isArray(current)) current = current[indexOf(key, current.length - 1, operation)];
    else if (isObject(current)) {
      // Upstream lets a test for null pass where the member is absent.
      if (!Object.hasOwn(current, key) && !(last && (operation.value ?? null) === null)) throw failed();
      current = get(current, key);
    } else throw failed();
  }
  if (!equalJson(current ?? null, operation.value ?? null)) throw failed();
}

function indexOf(key: string, max: number, operation: JsonPatchOperation): number {
  if (!/^(0|[1-9]\d*)$/.test(key)) {
    if (/^-\d+$/.test(key)) throw refuse(`Unable to access invalid index: ${key}: invalid index referenced`);
    throw refuse(
      `${operation.op} operation does not apply: strconv.Atoi: parsing ${JSON.stringify(key)}: invalid syntax`,
    );
  }
  const index = Number(key);
  if (index > max) throw refuse(`Unable to access invalid index: ${key}: invalid index referenced`);
  return index;
}
