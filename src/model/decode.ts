// A request body becomes an object: parsed, checked against the facts table and brought into the form that Go's decoder
// would have produced. Unknown members and nulls are dropped, zero values of `omitempty` members too; quantities and
// times are canonical. What was wrong is an ApiError in upstream's words; what was merely odd is a warning or an error,
// as fieldValidation says. Upstream counterpart: runtime/serializer and sigs.k8s.io/json.
import { Buffer } from "node:buffer";
import { messageOf } from "#base/errors.ts";
import { decodeCbor } from "#wire/cbor.ts";
import { parseJson, parseJsonFast } from "#wire/json.ts";
import { setMember } from "#wire/protobuf.ts";
import { parseYaml } from "#wire/yaml.ts";
import { type FieldFacts, facts, type MessageFacts } from "./facts.ts";
import type { UnknownObject } from "./object.ts";
import { decodeProtobuf, isProtobuf } from "./protobuf.ts";
import { canonicalQuantity } from "./quantity.ts";
import { groupVersion, type ResourceInfo } from "./resource-info.ts";
import { resourceOfKind } from "./resources.ts";
import { ApiError, badRequest, fieldInvalid, invalid } from "./status.ts";
import { canonicalMicroTime, canonicalTime } from "./time.ts";

export type FieldValidation = "Ignore" | "Warn" | "Strict";
export interface DecodeOptions {
  /** Default json. */
  readonly contentType?: "json" | "yaml" | "protobuf" | "cbor";
  /** Default Warn, as kube-apiserver's. */
  readonly fieldValidation?: FieldValidation;
  /** What a kind without facts does to its objects: prune and default. `report` takes strict errors. May throw DecodeError. */
  readonly normalize?: ((object: UnknownObject, report: ((text: string) => void) | undefined) => void) | undefined;
}
export interface Decoded {
  readonly object: UnknownObject;
  /** Texts for Warning headers. */
  readonly warnings: string[];
}
/** What decoding needs to know of the resource. */
export type Decodable = Pick<ResourceInfo, "group" | "version" | "kind" | "type">;

/** Upstream reports no more. */
const maxStrictErrors = 100;
const scheme = 'in scheme "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"';

export function decodeObject(bytes: Uint8Array, info: Decodable, options: DecodeOptions = {}): Decoded {
  const validation = options.fieldValidation ?? "Warn";
  const strictErrors: string[] = [];
  const report = (text: string) => {
    if (strictErrors.length < maxStrictErrors && !strictErrors.includes(text)) strictErrors.push(text);
  };
  if (options.contentType === "protobuf") return { object: decodeBinary(bytes, info), warnings: [] };
  const strict = validation !== "Ignore";
  const duplicates = new Duplicates(report);
  const inYaml: string[] = [];
  const parsed = parse(bytes, info, options.contentType ?? "json", strict ? duplicates : undefined, inYaml);
  // One error of Go's YAML reader, but a warning for each line of it.
  if (validation === "Warn") for (const problem of inYaml) report(problem);
  else if (inYaml.length > 0 && strict) report(`yaml: unmarshal errors:\n  ${inYaml.join("\n  ")}`);
  const apiVersion = textMember(parsed, "apiVersion", bytes, info) || groupVersion(info);
  const kind = textMember(parsed, "kind", bytes, info) || info.kind;
  checkKind(apiVersion, kind, info);
  let object: UnknownObject;
  try {
    object = decodeValue(parsed, info, strict ? report : undefined, duplicates);
    duplicates.reportRest();
    options.normalize?.(object, strict ? report : undefined);
  } catch (error) {
    if (error instanceof DecodeError) throw cannotBeHandled(apiVersion, kind, info, error.message);
    throw error;
  }
  if (validation === "Strict" && strictErrors.length > 0) {
    throw cannotBeHandled(apiVersion, kind, info, `strict decoding error: ${strictErrors.join(", ")}`);
  }
  return { object: { ...object, apiVersion: groupVersion(info), kind: info.kind }, warnings: strictErrors };
}

function attemptKind<T>(info: Decodable, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof DecodeError) throw cannotBeHandled(groupVersion(info), info.kind, info, error.message);
    throw error;
  }
}

export class DecodeError extends Error {}

/**
 * Members that came twice, by path. They are told where the walk meets them, so that all strict errors stand in the order
 * of the text, as Go has them; below a member that is unknown nothing more is told.
 */
class Duplicates {
  readonly #paths = new Set<string>();
  readonly #unknown: string[] = [];
  readonly #report: (text: string) => void;
  constructor(report: (text: string) => void) {
    this.#report = report;
  }

  add(path: string): void {
    // As many as can be told of.
    if (this.#paths.size < 10 * maxStrictErrors) this.#paths.add(path);
  }
  met(path: readonly string[]): void {
    if (this.#paths.size === 0) return;
    const text = path.join(".");
    if (this.#paths.delete(text)) this.#report(`duplicate field ${JSON.stringify(text)}`);
  }
  isUnknown(path: string): void {
    if (this.#paths.size > 0) this.#unknown.push(path);
  }
  /** Members of free-form values, which the walk does not look into. */
  reportRest(): void {
    for (const path of this.#paths) {
      const isBelow = this.#unknown.some(
        (top) => path === top || path.startsWith(`${top}.`) || path.startsWith(`${top}[`),
      );
      if (!isBelow) this.#report(`duplicate field ${JSON.stringify(path)}`);
    }
  }
}

/** Metadata of an object inside of an object, as that of objects themselves is read. */
export function decodeMetadata(
  value: unknown,
  path: string,
  report: ((text: string) => void) | undefined,
): Record<string, unknown> {
  if (!isPlainObject(value)) throw new DecodeError(`${path}: must be an object`);
  const names = path.split(".");
  return decodeMessage(value, facts.message("meta/v1.ObjectMeta"), { names, path: [path], report });
}

/** A body that does not fit its type. `why` is what was wrong with it, for who must say it in other words. */
export class UndecodableError extends ApiError {
  readonly why: string;
  constructor(message: string, why: string) {
    super(400, "BadRequest", message);
    this.why = why;
  }
}

const cannotBeHandled = (apiVersion: string, kind: string, info: Decodable, why: string): ApiError =>
  new UndecodableError(
    `${kind} in version ${JSON.stringify(apiVersion.slice(apiVersion.indexOf("/") + 1))} cannot be handled as a ${info.kind}: ${why}`,
    why,
  );
const unrecognized = (info: Decodable, why: string, bytes: Uint8Array): ApiError =>
  badRequest(`the object provided is unrecognized (must be of type ${info.kind}): ${why} (${summarize(bytes)})`);

function summarize(bytes: Uint8Array): string {
  const max = 30;
  if (bytes.length === 0) return "<empty>";
  const start = Buffer.from(bytes.subarray(0, max)).toString(bytes[0] === 0x7b ? "utf8" : "hex");
  return bytes.length > max ? `${start} ...` : start;
}

function parse(
  bytes: Uint8Array,
  info: Decodable,
  contentType: "json" | "yaml" | "cbor",
  duplicates: Duplicates | undefined,
  inYaml: string[],
): Record<string, unknown> {
  let value: unknown;
  const text =
    contentType === "cbor" ? "" : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
  if (contentType === "cbor") {
    try {
      value = decodeCbor(bytes);
    } catch (error) {
      throw unrecognized(info, `couldn't get version/kind; ${messageOf(error)}`, bytes);
    }
  } else if (contentType === "yaml") {
    try {
      value = withoutBigints(parseYaml(text, { onDuplicate: (problem) => inYaml.push(problem) }));
    } catch (error) {
      throw unrecognized(info, `couldn't get version/kind; json parse error: ${messageOf(error)}`, bytes);
    }
  } else {
    try {
      value = duplicates ? parseJson(text, { onDuplicate: (path) => duplicates.add(path) }) : parseJsonFast(text);
    } catch (error) {
      throw unrecognized(info, `couldn't get version/kind; json parse error: ${messageOf(error)}`, bytes);
    }
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  const found = value === null ? "Object 'Kind' is missing in 'null'" : jsonKind(value);
  throw unrecognized(
    info,
    value === null
      ? found
      : `couldn't get version/kind; json parse error: json: cannot unmarshal ${found} into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }`,
    bytes,
  );
}

/** Objects are JSON from here on, where a whole number beyond 2^53 is the nearest double. */
const withoutBigints = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, member: unknown) => (typeof member === "bigint" ? Number(member) : member)));

function textMember(parsed: Record<string, unknown>, name: string, bytes: Uint8Array, info: Decodable): string {
  const value = Object.hasOwn(parsed, name) ? parsed[name] : undefined;
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  throw unrecognized(
    info,
    `couldn't get version/kind; json parse error: json: cannot unmarshal ${jsonKind(value)} into Go struct field .${name} of type string`,
    bytes,
  );
}

function checkKind(apiVersion: string, kind: string, info: Decodable): void {
  const expected = groupVersion(info);
  if (apiVersion === expected && kind === info.kind) return;
  const slash = apiVersion.indexOf("/");
  const group = slash < 0 ? "" : apiVersion.slice(0, slash);
  const version = apiVersion.slice(slash + 1);
  // Options are registered in every group.
  if (info.kind === "DeleteOptions" && kind === info.kind) return;
  if (info.type === "") {
    if (apiVersion === expected) {
      throw invalid(info.group, info.kind, "", [fieldInvalid("kind", kind, `must be ${info.kind}`)]);
    }
    throw badRequest(
      `the API version in the data (${apiVersion}) does not match the expected API version (${expected})`,
    );
  }
  const known = resourceOfKind(group, version, kind);
  if (!known) {
    throw cannotBeHandled(
      apiVersion,
      kind,
      info,
      `no kind ${JSON.stringify(kind)} is registered for version ${JSON.stringify(apiVersion)} ${scheme}`,
    );
  }
  if (kind === info.kind && group === info.group) {
    throw badRequest(
      `the API version in the data (${apiVersion}) does not match the expected API version (${expected})`,
    );
  }
  const internal = (type: string) => type.replace(/\/v\w+\./, ".");
  throw cannotBeHandled(
    apiVersion,
    kind,
    info,
    `converting (${version}.${kind}) to (${internal(info.type)}): unknown conversion`,
  );
}

function decodeBinary(bytes: Uint8Array, info: Decodable): UnknownObject {
  if (!isProtobuf(bytes)) {
    throw unrecognized(
      info,
      "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
      bytes,
    );
  }
  let decoded: ReturnType<typeof decodeProtobuf>;
  try {
    decoded = decodeProtobuf(bytes, info.type);
  } catch (error) {
    throw unrecognized(info, messageOf(error), bytes);
  }
  checkKind(decoded.apiVersion || groupVersion(info), decoded.kind || info.kind, info);
  const object = attemptKind(info, () => decodeValue(decoded.object, info, undefined));
  return { ...object, apiVersion: groupVersion(info), kind: info.kind };
}

// Typed walk

interface Walk {
  /** JSON names from the root, without indices: what Go's errors show. */
  readonly names: string[];
  /** With indices: what strict errors show. */
  readonly path: string[];
  readonly report: ((text: string) => void) | undefined;
  readonly duplicates?: Duplicates | undefined;
}

function decodeValue(
  value: Record<string, unknown>,
  info: Decodable,
  report: ((text: string) => void) | undefined,
  duplicates?: Duplicates,
): UnknownObject {
  const walk: Walk = { names: [], path: [], report, duplicates };
  const message = info.type === "" ? undefined : facts.find(info.type);
  const decoded = message
    ? decodeMessage(value, message, walk)
    : {
        ...value,
        metadata: decodeMessage((value["metadata"] ?? {}) as never, facts.message("meta/v1.ObjectMeta"), {
          ...walk,
          names: ["metadata"],
          path: ["metadata"],
        }),
      };
  if (decoded["metadata"] === undefined && message?.members.has("metadata")) decoded["metadata"] = {};
  return decoded as UnknownObject;
}

function decodeMessage(value: Record<string, unknown>, message: MessageFacts, walk: Walk): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const name of Object.keys(value)) {
    const member = value[name];
    const field = message.members.get(name);
    if (!field) {
      if (message.isKind && (name === "apiVersion" || name === "kind")) {
        if (typeof member === "string") result[name] = member;
        continue;
      }
      const path = [...walk.path, name].join(".");
      walk.report?.(`unknown field ${JSON.stringify(path)}`);
      walk.duplicates?.isUnknown(path);
      continue;
    }
    if (member === null) continue;
    walk.names.push(name);
    walk.path.push(name);
    const decoded = decodeField(member, field, message, walk);
    walk.duplicates?.met(walk.path);
    walk.names.pop();
    walk.path.pop();
    if (field.omitEmpty && !field.pointer && isEmpty(decoded, field)) continue;
    result[name] = decoded;
  }
  return result;
}

function decodeField(value: unknown, field: FieldFacts, owner: MessageFacts, walk: Walk): unknown {
  if (field.repeated) {
    if (!Array.isArray(value)) throw mismatch(value, field, owner, walk, listTypeText(field, owner));
    const last = walk.path.length - 1;
    const base = walk.path[last]!;
    const list = value.map((item, index) => {
      walk.path[last] = `${base}[${index}]`;
      return item === null ? zeroElement(field) : decodeSingle(item, field, owner, walk);
    });
    walk.path[last] = base;
    return list;
  }
  if (field.map) {
    if (!isPlainObject(value)) throw mismatch(value, field, owner, walk, mapTypeText(field, owner));
    const map: Record<string, unknown> = {};
    for (const key of Object.keys(value)) {
      walk.path.push(key);
      setMember(map, key, value[key] === null ? zeroElement(field) : decodeSingle(value[key], field, owner, walk));
      walk.duplicates?.met(walk.path);
      walk.path.pop();
    }
    return map;
  }
  return decodeSingle(value, field, owner, walk);
}

function decodeSingle(value: unknown, field: FieldFacts, owner: MessageFacts, walk: Walk): unknown {
  const wrong = () => mismatch(value, field, owner, walk, singleTypeText(field, owner));
  if (field.isMessage) {
    if (!isPlainObject(value)) {
      if (field.union) return value;
      throw wrong();
    }
    return decodeMessage(value, facts.message(field.type), walk);
  }
  switch (field.type) {
    case "string":
      if (typeof value !== "string") throw wrong();
      return value;
    case "bool":
      if (typeof value !== "boolean") throw wrong();
      return value;
    case "int32":
      if (typeof value !== "number") throw wrong();
      if (!Number.isInteger(value) || value < -(2 ** 31) || value > 2 ** 31 - 1) throw wrong();
      return value;
    case "int64":
      // Protobuf yields bigints where a double is not exact; JSON text has nothing better than the nearest double.
      if (typeof value === "bigint") return Number(value);
      if (typeof value !== "number" || !Number.isInteger(value) || Math.abs(value) > 2 ** 63) throw wrong();
      return value;
    case "uint32":
    case "uint64":
      if (typeof value !== "number" || !Number.isInteger(value) || value < 0) throw wrong();
      return value;
    case "double":
      if (typeof value !== "number") throw wrong();
      return value;
    case "bytes":
      if (typeof value !== "string") throw wrong();
      return checkBase64(value);
    case "strings":
      if (!Array.isArray(value)) throw wrong();
      return value.map((item: unknown) => {
        if (typeof item !== "string") throw mismatch(item, field, owner, walk, "string");
        return item;
      });
    case "quantity":
      return attempt(() => {
        if (typeof value !== "string" && typeof value !== "number") throw new DecodeError(quantityHint);
        return canonicalQuantity(typeof value === "string" ? value.trim() : value);
      });
    case "time":
    case "microtime":
      if (typeof value !== "string") {
        throw new DecodeError(`json: cannot unmarshal ${jsonKind(value)} into Go value of type string`);
      }
      return attempt(() => (field.type === "time" ? canonicalTime(value) : canonicalMicroTime(value)));
    case "duration":
      if (typeof value !== "string") {
        throw new DecodeError(`json: cannot unmarshal ${jsonKind(value)} into Go value of type string`);
      }
      return value;
    case "intstr":
      if (typeof value === "string") return value;
      if (typeof value === "number" && Number.isInteger(value) && Math.abs(value) < 2 ** 31) return value;
      throw new DecodeError(`json: cannot unmarshal ${jsonText(value)} into Go value of type int32`);
    default:
      // raw and fields: anything goes, as is.
      return value;
  }
}

const quantityHint = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

function attempt<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof DecodeError ? error : new DecodeError(messageOf(error));
  }
}

function checkBase64(value: string): string {
  const compact = value.replace(/[\r\n]/g, "");
  const wrongAt = compact.search(/[^A-Za-z0-9+/=]/);
  if (wrongAt >= 0) throw new DecodeError(`illegal base64 data at input byte ${wrongAt}`);
  if (compact.length % 4 !== 0 || !/^[^=]*={0,2}$/.test(compact)) {
    throw new DecodeError(`illegal base64 data at input byte ${compact.length - (compact.length % 4 || 4)}`);
  }
  return compact;
}

function zeroElement(field: FieldFacts): unknown {
  if (field.isMessage) return {};
  if (field.type === "string" || field.type === "bytes") return "";
  if (field.type === "bool") return false;
  if (field.type === "quantity") return "0";
  if (field.type === "strings") return [];
  return nullTypes.has(field.type) ? null : 0;
}

/** Types whose zero value JSON shows as null. */
const nullTypes: ReadonlySet<string> = new Set(["raw", "time", "microtime"]);

function isEmpty(value: unknown, field: FieldFacts): boolean {
  if (field.repeated || field.type === "strings") return Array.isArray(value) && value.length === 0;
  if (field.map) return Object.keys(value as object).length === 0;
  return value === "" || value === 0 || value === false ? !structTypes.has(field.type) : false;
}
/** Structs in Go, which omitempty never leaves out. */
const structTypes: ReadonlySet<string> = new Set([
  "quantity",
  "intstr",
  "time",
  "microtime",
  "duration",
  "raw",
  "fields",
]);

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function jsonKind(value: unknown): string {
  if (Array.isArray(value)) return "array";
  if (typeof value === "object") return "object";
  return typeof value === "boolean" ? "bool" : typeof value;
}
const jsonText = (value: unknown): string => (typeof value === "number" ? `number ${value}` : jsonKind(value));

function mismatch(value: unknown, field: FieldFacts, owner: MessageFacts, walk: Walk, type: string): DecodeError {
  const integer = field.type.startsWith("int") || field.type.startsWith("uint");
  const found =
    typeof value === "number" && integer && !field.repeated && !field.map ? jsonText(value) : jsonKind(value);
  return new DecodeError(
    `json: cannot unmarshal ${found} into Go struct field ${owner.shortName}.${walk.names.join(".")} of type ${type}`,
  );
}

const goPackage = (name: string): string => name.slice(name.indexOf("/") + 1);
const specialTypeTexts: Readonly<Record<string, string>> = {
  bytes: "[]uint8",
  double: "float64",
  quantity: "resource.Quantity",
  time: "v1.Time",
  microtime: "v1.MicroTime",
  intstr: "intstr.IntOrString",
  raw: "runtime.RawExtension",
  strings: "[]string",
};
function namedTypeText(field: FieldFacts, owner: MessageFacts): string {
  const dot = field.goType.indexOf(".");
  if (dot < 0) return `${goPackage(owner.package)}.${field.goType}`;
  return field.goType.startsWith("types.") ? field.goType : goPackage(field.goType);
}
function singleTypeText(field: FieldFacts, owner: MessageFacts): string {
  if (field.isMessage) return goPackage(field.type);
  if (field.goType !== "" && !field.map) return namedTypeText(field, owner);
  return specialTypeTexts[field.type] ?? field.type;
}
const listTypeText = (field: FieldFacts, owner: MessageFacts): string => `[]${singleTypeText(field, owner)}`;
const mapTypeText = (field: FieldFacts, owner: MessageFacts): string =>
  field.goType !== "" ? namedTypeText(field, owner) : `map[string]${singleTypeText(field, owner)}`;
