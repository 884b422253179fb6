// Joins .proto files and Go structs of the Kubernetes API into the facts table: proto gives numbers, Go gives JSON
// names and markers, and the two are joined by number because their names differ (`uID`/`uid`, `podIPs`).
// The output format is described in src/model/facts.ts, which reads it back.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type GoField, type GoPackage, parseGo } from "./go-types.ts";
import { type ProtoField, type ProtoFile, parseProto } from "./proto-file.ts";

export interface SourceRoots {
  readonly api: string;
  readonly apimachinery: string;
}
export interface FactsField {
  readonly name: string;
  readonly number: number;
  /** As in the table: `[]ContainerPort`, `{}quantity`, `meta/v1.ObjectMeta`. */
  readonly type: string;
  readonly flags: string[];
  readonly optional: boolean;
  readonly inline: boolean;
}
export interface FactsMessage {
  readonly name: string;
  readonly flags: string[];
  readonly isKind: boolean;
  readonly isList: boolean;
  readonly fields: FactsField[];
}
export interface FactsPackage {
  /** `core/v1`. */
  readonly name: string;
  readonly group: string;
  readonly messages: FactsMessage[];
  readonly enums: { readonly name: string; readonly values: readonly string[] }[];
}

/**
 * Packages of the table: what kube-apiserver 1.32 serves by default, what it serves on demand and is here too
 * (networking/v1beta1), and what its clients exchange besides.
 */
export const servedPackages: readonly string[] = [
  "meta/v1",
  "core/v1",
  "admission/v1",
  "admissionregistration/v1",
  "apps/v1",
  "authentication/v1",
  "authorization/v1",
  "autoscaling/v1",
  "autoscaling/v2",
  "batch/v1",
  "certificates/v1",
  "coordination/v1",
  "discovery/v1",
  "events/v1",
  "flowcontrol/v1",
  "networking/v1",
  "networking/v1beta1",
  "node/v1",
  "policy/v1",
  "rbac/v1",
  "scheduling/v1",
  "storage/v1",
];

/** Types that JSON shows as something else than their message. */
const specialTypes: Readonly<Record<string, string>> = {
  "meta/v1.Time": "time",
  "meta/v1.MicroTime": "microtime",
  "meta/v1.Duration": "duration",
  "meta/v1.FieldsV1": "fields",
  "resource.Quantity": "quantity",
  "intstr.IntOrString": "intstr",
  "runtime.RawExtension": "raw",
};
const scalars = new Set(["string", "bool", "int32", "int64", "double", "bytes", "uint32", "uint64"]);
/** Messages of meta/v1 that have no JSON of their own or are spelled out as special types. */
const skipped = new Set(["Time", "MicroTime", "Duration", "FieldsV1", "Timestamp", "Verbs", "TypeMeta", "Patch"]);

/** Every API package in the source tree, for tests that want more than is served. */
export async function allPackages(roots: SourceRoots): Promise<string[]> {
  const names = ["meta/v1"];
  const base = join(roots.api, "k8s.io", "api");
  for (const group of (await readdir(base, { withFileTypes: true })).filter((e) => e.isDirectory())) {
    for (const version of await readdir(join(base, group.name)))
      if (/^v\d/.test(version) && group.name !== "testdata") names.push(`${group.name}/${version}`);
  }
  return names.sort((a, b) => Number(b === "meta/v1") - Number(a === "meta/v1") || (a < b ? -1 : 1));
}

export async function readPackages(roots: SourceRoots, names: readonly string[]): Promise<FactsPackage[]> {
  const go = new Map<string, GoPackage>();
  const load = async (path: string): Promise<GoPackage> => {
    const known = go.get(path);
    if (known) return known;
    const folder = join(path.startsWith("k8s.io/api/") ? roots.api : roots.apimachinery, path);
    const files = (await readdir(folder)).filter(
      (f) => f.endsWith(".go") && !/_test\.go$|^generated|^zz_|_swagger_doc_/.test(f),
    );
    const parsed = parseGo(await Promise.all(files.sort().map((f) => readFile(join(folder, f), "utf8"))));
    go.set(path, parsed);
    return parsed;
  };
  const result: FactsPackage[] = [];
  for (const name of names) {
    const path = importPath(name);
    const source = await load(path);
    for (const imported of source.imports.values())
      if (imported.startsWith("k8s.io/api/") || imported.endsWith("/meta/v1")) await load(imported);
    const folder = join(name.startsWith("meta/") ? roots.apimachinery : roots.api, path);
    const proto = parseProto(await readFile(join(folder, "generated.proto"), "utf8"));
    result.push(joinPackage(name, proto, source, go));
  }
  return result;
}

export function printFacts(packages: readonly FactsPackage[]): string {
  const lines: string[] = [];
  for (const pkg of packages) {
    lines.push(`@${pkg.name} ${pkg.group}`.trimEnd());
    for (const { name, values } of pkg.enums) lines.push(`=${name} ${values.map((v) => v || '""').join(",")}`);
    for (const message of pkg.messages) {
      lines.push([message.name, ...message.flags].join(" "));
      for (const f of message.fields) lines.push(` ${[f.name || "-", f.number, f.type, ...f.flags].join(" ")}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

export const importPath = (name: string): string =>
  name.startsWith("meta/") ? `k8s.io/apimachinery/pkg/apis/${name}` : `k8s.io/api/${name}`;

function joinPackage(
  name: string,
  proto: ProtoFile,
  source: GoPackage,
  all: ReadonlyMap<string, GoPackage>,
): FactsPackage {
  const messages: FactsMessage[] = [];
  const enums = new Map<string, readonly string[]>();
  for (const message of proto.messages) {
    if (name === "meta/v1" && skipped.has(message.name)) continue;
    const alias = source.named.get(message.name);
    const [aliasImport = "", aliasName = ""] = alias?.split(".") ?? [];
    const struct =
      source.structs.get(message.name) ?? all.get(source.imports.get(aliasImport) ?? "")?.structs.get(aliasName);
    if (!struct) {
      // `type ExtraValue []string` is a message with `items`; `type MatchCondition v1.MatchCondition` is a copy of a struct.
      if (alias?.startsWith("[]")) continue;
      throw new Error(`${name}: message ${message.name} has no Go struct`);
    }
    const isKind = struct.fields.some((f) => f.jsonName === "" && f.inline && f.goType.endsWith("TypeMeta"));
    const fields = message.fields.map((field) => {
      const goField = struct.fields.find((f) => f.number === field.number);
      if (!goField) throw new Error(`${name}.${message.name}: proto field ${field.name} has no Go field`);
      return joinField(name, field, goField, source, all, enums);
    });
    const order = new Map(struct.fields.map((f, index) => [f.number, index]));
    fields.sort((a, b) => order.get(a.number)! - order.get(b.number)!);
    const structType = struct.markers.get("structType")?.[0];
    messages.push({
      name: message.name,
      isKind,
      isList: isKind && fields.some((f) => f.name === "items") && message.name.endsWith("List"),
      flags: [...(isKind ? ["k"] : []), ...(structType ? [`st=${structType}`] : [])],
      fields,
    });
  }
  const group = name === "meta/v1" || name === "core/v1" ? "" : (source.groupName ?? "");
  return {
    name,
    group,
    messages,
    enums: [...enums]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([n, values]) => ({ name: n, values: [...values].sort() })),
  };
}

function joinField(
  packageName: string,
  proto: ProtoField,
  go: GoField,
  source: GoPackage,
  all: ReadonlyMap<string, GoPackage>,
  enums: Map<string, readonly string[]>,
): FactsField {
  const marker = (name: string) => go.markers.get(name)?.[0];
  const named = namedTypeOf(go.goType, packageName, source, all);
  let base = baseType(packageName, proto.type);
  if (!scalars.has(base) && !base.match(/^[a-z]+$/) && named?.underlying.startsWith("[]")) base = "strings";
  const type = proto.map ? `{}${base}` : proto.repeated ? `[]${base}` : base;
  const optional = go.omitEmpty || go.markers.has("optional");
  const inline = go.inline;
  if (named && named.values.length > 0) enums.set(named.name, named.values);
  const mergeKey = go.patchMergeKey;
  const flags = [
    ...(optional || inline ? [] : ["r"]),
    ...(go.omitEmpty ? ["o"] : []),
    ...(go.goType.startsWith("*") ? ["p"] : []),
    ...(inline ? ["i"] : []),
    ...(named ? [`t=${named.name}`] : []),
    ...(go.patchStrategy ? [`ps=${go.patchStrategy}`] : []),
    ...(mergeKey ? [`mk=${mergeKey}`] : []),
    ...(marker("listType") ? [`lt=${marker("listType")}`] : []),
    ...(go.markers.has("listMapKey") ? [`lk=${go.markers.get("listMapKey")!.join(",")}`] : []),
    ...(marker("mapType") ? [`mt=${marker("mapType")}`] : []),
    ...(marker("structType") ? [`st=${marker("structType")}`] : []),
    ...(marker("default") ? [`d=${marker("default")!.replaceAll(" ", "")}`] : []),
  ];
  return { name: inline ? "" : go.jsonName, number: proto.number, type, flags, optional: go.omitEmpty, inline };
}

function baseType(packageName: string, type: string): string {
  if (scalars.has(type)) return type;
  const match = /^\.?k8s\.io\.(?:api|apimachinery\.pkg)\.(?:apis\.|api\.|util\.)?([\w.]+)\.(\w+)$/.exec(type);
  const full = match
    ? `${match[1]!.replace(".", "/")}.${match[2]}`
    : packageName === "meta/v1"
      ? `meta/v1.${type}`
      : type;
  const special = specialTypes[full];
  if (special) return special;
  return full.startsWith(`${packageName}.`) ? full.slice(packageName.length + 1) : full;
}

/** The non-struct named type of a field (`Protocol`, `ResourceList`), which Go's error texts name. */
function namedTypeOf(
  goType: string,
  packageName: string,
  source: GoPackage,
  all: ReadonlyMap<string, GoPackage>,
): { name: string; underlying: string; values: readonly string[] } | undefined {
  const bare = goType.replace(/^\*?(\[\])?\*?/, "").replace(/^map\[\w+\]/, "");
  const dot = bare.indexOf(".");
  let owner: GoPackage | undefined = source;
  let name = bare;
  let prefix = "";
  if (dot > 0) {
    const path = source.imports.get(bare.slice(0, dot));
    name = bare.slice(dot + 1);
    if (path === undefined) return undefined;
    if (path.endsWith("/types")) return { name: `types.${name}`, underlying: "string", values: [] };
    owner = all.get(path);
    const other = path.replace(/^k8s\.io\/(api|apimachinery\/pkg\/apis)\//, "");
    if (other !== packageName) prefix = `${other}.`;
  }
  const underlying = owner?.named.get(name);
  if (underlying === undefined || underlying === "interface") return undefined;
  return { name: prefix + name, underlying, values: owner?.enums.get(name) ?? [] };
}
