import { afterAll, beforeAll, expect, test } from "vitest";
import { Client } from "#client/client.ts";
import type { Backend } from "#datastore/backend.ts";
import { type FieldFacts, facts } from "#model/facts.ts";
import type { Namespace } from "#model/gen/core-v1.ts";
import { allResources, namespaces } from "#model/resources.ts";
import { isApiError } from "#model/status.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { loopback } from "./authn/user.ts";
import { openBareServer } from "./bare.fixture.ts";
import { Encoder } from "./endpoints/encode.ts";
import { createCborFormat, createProtobufFormat } from "./endpoints/formats.ts";
import type { HandlerRequest } from "./endpoints/result.ts";
import { columnsFor } from "./printers/tables.ts";
import { toApiError } from "./registry/errors.ts";
import type { ApiServer } from "./server.ts";

let backend: Backend;
let server: ApiServer;

beforeAll(async () => {
  ({ backend, server } = await openBareServer(1));
  await new Client(server.transport(loopback)).create(namespaces, { metadata: { name: "default" } } as Namespace);
});
afterAll(() => backend.close());

const words = [
  "api",
  "apis",
  "v1",
  "apps",
  "batch",
  "namespaces",
  "default",
  "pods",
  "deployments",
  "nodes",
  "x",
  "status",
  "scale",
  "log",
  "proxy",
  "watch",
  "binding",
  "token",
  "..",
  ".",
  "",
  "%2e%2e",
  "%2F",
  "%zz",
  "%00",
  "__proto__",
  "constructor",
  "toString",
  "é",
  "openapi",
  "v3",
  "healthz",
  "a b",
  "x".repeat(300),
]; // prettier-ignore
const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
const queries = [
  "watch=true",
  "limit=1",
  "limit=-1",
  "limit=x",
  "continue=xx",
  "continue=e30",
  "resourceVersion=x",
  "resourceVersion=-1",
  "resourceVersion=99999999999999999999",
  "resourceVersionMatch=Exact",
  "labelSelector=a",
  "labelSelector=((",
  "labelSelector=a in",
  "fieldSelector=metadata.name=x",
  "fieldSelector=\\",
  "fieldSelector=__proto__=x",
  "dryRun=All",
  "dryRun=x",
  "fieldValidation=Strict",
  "sendInitialEvents=true",
  "timeoutSeconds=x",
  "gracePeriodSeconds=x",
  "propagationPolicy=x",
  "pretty",
  "fieldManager=",
]; // prettier-ignore
const types = [
  "application/json",
  "application/yaml",
  "application/vnd.kubernetes.protobuf",
  "application/json-patch+json",
  "application/merge-patch+json",
  "application/strategic-merge-patch+json",
  "application/apply-patch+yaml",
  "text/plain",
  "",
]; // prettier-ignore
const values = [
  null,
  true,
  0,
  -1,
  1e308,
  "",
  "x",
  "__proto__",
  [],
  {},
  [null],
  [[]],
  { a: null },
  { "": {} },
  "2026-01-01T00:00:00Z",
  "10Mi",
  JSON.parse('{"__proto__":{"polluted":1}}'),
  { constructor: { prototype: { polluted: 1 } } },
] as unknown[]; // prettier-ignore
const fields = [
  "apiVersion",
  "kind",
  "metadata",
  "spec",
  "status",
  "data",
  "name",
  "namespace",
  "labels",
  "annotations",
  "finalizers",
  "ownerReferences",
  "containers",
  "selector",
  "template",
  "replicas",
  "ports",
  "resourceVersion",
  "uid",
  "op",
  "path",
  "value",
  "$patch",
  "$setElementOrder/containers",
  "generateName",
  "deletionTimestamp",
  "volumes",
  "resources",
  "rules",
  "subjects",
]; // prettier-ignore

/** Any request at all: every answer is a result or a Status that blames the client. */
async function ask(random: ReturnType<typeof seededRandom>): Promise<void> {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random.float() * list.length)]!;
  const junk = (depth: number): unknown => {
    if (depth === 0 || random.float() < 0.3) return pick(values);
    if (random.float() < 0.3) return Array.from({ length: Math.floor(random.float() * 3) }, () => junk(depth - 1));
    const entries = Array.from({ length: Math.floor(random.float() * 5) }, () => [pick(fields), junk(depth - 1)]);
    return Object.fromEntries(entries) as unknown;
  };
  const info = pick(allResources);
  const group = info.group === "" ? `/api/${info.version}` : `/apis/${info.group}/${info.version}`;
  const scope = info.namespaced && random.float() < 0.9 ? "/namespaces/default" : "";
  const tail = random.float() < 0.5 ? "/x" : "";
  const sub = random.float() < 0.3 ? `/${pick([...Object.keys(info.subresources), "status", "constructor"])}` : "";
  const path =
    random.float() < 0.3
      ? `/${Array.from({ length: Math.floor(random.float() * 8) }, () => pick(words)).join("/")}`
      : `${group}${scope}/${info.plural}${tail}${tail === "" ? "" : sub}`;
  const object = {
    apiVersion: info.group === "" ? info.version : `${info.group}/${info.version}`,
    kind: info.kind,
    metadata: random.float() < 0.7 ? { name: "x" } : junk(2),
    spec: junk(4),
    ...(junk(1) as object),
  };
  const text = JSON.stringify(random.float() < 0.6 ? object : junk(4));
  const body = new TextEncoder().encode(
    random.float() < 0.1 ? text.slice(0, Math.floor(text.length * random.float())) : text,
  );
  const contentType = random.float() < 0.5 ? "application/json" : pick(types);
  const request: HandlerRequest = {
    method: pick(methods),
    path,
    query: new URLSearchParams(Array.from({ length: Math.floor(random.float() * 3) }, () => pick(queries)).join("&")),
    header: (name) => (name === "content-type" ? contentType : undefined),
    user: loopback,
    signal: new AbortController().signal,
    body: async () => body,
    warn() {},
  };
  try {
    await server.handle(request);
  } catch (thrown) {
    const error = toApiError(thrown);
    const known =
      isApiError(thrown) &&
      (error.code < 500 || error.reason === "Timeout" || /resourceVersion should not/.test(error.message));
    if (!known) {
      const what = `${request.method} ${path}?${request.query} ${contentType} ${new TextDecoder().decode(body)}`;
      throw new Error(`${what}: ${error.message}`, { cause: thrown });
    }
  }
}

/** An object of the right types and any values: what gets past the decoder and meets strategies and validation. */
function typed(random: ReturnType<typeof seededRandom>, type: string, depth: number): Record<string, unknown> {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random.float() * list.length)]!;
  const scalars: Readonly<Record<string, readonly unknown[]>> = {
    string: ["", "x", "a/b", "default", "Always", "ClusterIP", "10.43.0.9", "UPPER", "x".repeat(300)],
    bool: [true, false],
    bytes: ["", "YQ=="],
    double: [0, 1.5],
    quantity: ["1", "10Mi", "-1", 0],
    time: ["2026-01-01T00:00:00Z"],
    microtime: ["2026-01-01T00:00:00.000000Z"],
    duration: ["1s"],
    intstr: [1, "x", "50%"],
    raw: [{}, { a: 1 }],
    fields: [{}],
    strings: [["a"]],
  };
  const one = (field: FieldFacts): unknown =>
    field.isMessage ? typed(random, field.type, depth - 1) : pick(scalars[field.type] ?? [0, 1, -1, 80, 70000]);
  const out: Record<string, unknown> = {};
  for (const [name, field] of facts.message(type).members) {
    if (random.float() < (depth > 4 ? 0.4 : 0.6) || (depth <= 0 && field.isMessage)) continue;
    const several = () => Array.from({ length: Math.floor(random.float() * 3) }, () => one(field));
    if (field.repeated) out[name] = several();
    else if (field.map)
      out[name] = Object.fromEntries(several().map((value, i) => [pick(["", "a", "x/y", `k${i}`]), value]));
    else out[name] = one(field);
  }
  return out;
}

const posted = allResources.filter((info) => info.verbs.includes("create"));
test.each([1, 2, 3])("well-typed nonsense is refused or served, in every shape (seed %i)", async (seed) => {
  const random = seededRandom(seed);
  const encoder = new Encoder({
    clock: new FakeClock(),
    columnsFor,
    protobuf: createProtobufFormat(),
    cbor: createCborFormat(),
  });
  let accepted = 0;
  for (let i = 0; i < 1500; i++) {
    const info = posted[i % posted.length]!;
    const group = info.group === "" ? `/api/${info.version}` : `/apis/${info.group}/${info.version}`;
    const path = `${group}${info.namespaced ? "/namespaces/default" : ""}/${info.plural}`;
    const object = { ...typed(random, info.type, 5), metadata: { name: `n${i}` } };
    const body = new TextEncoder().encode(JSON.stringify(object));
    const request: HandlerRequest = {
      method: "POST",
      path,
      query: new URLSearchParams(),
      header: () => undefined,
      user: loopback,
      signal: new AbortController().signal,
      body: async () => body,
      warn() {},
    };
    try {
      const result = await server.handle(request);
      if (result.type !== "item") continue;
      accepted++;
      for (const format of ["json", "yaml", "protobuf"] as const) {
        for (const shape of ["object", "table", "metadata"] as const) {
          if (format === "protobuf" && shape === "table") continue;
          encoder.item(result.view, result.item, { format, shape, metaVersion: "v1", pretty: true }, "Object");
        }
      }
    } catch (thrown) {
      const error = toApiError(thrown);
      const known = isApiError(thrown) && error.code < 500;
      if (!known) throw new Error(`${path} ${JSON.stringify(object)}: ${error.message}`, { cause: thrown });
    }
  }
  expect(accepted).toBeGreaterThan(20);
});

test.each([1, 2, 3, 4])("whatever is asked, the client hears what was wrong with it (seed %i)", async (seed) => {
  const random = seededRandom(seed);
  for (let i = 0; i < 2500; i++) await ask(random);
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
});
