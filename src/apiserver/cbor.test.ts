import { request as httpsRequest } from "node:https";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { ConfigMap, Namespace, Secret } from "#model/gen/core-v1.ts";
import type { UnknownObject } from "#model/object.ts";
import * as resources from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { decodeCbor, encodeCbor } from "#wire/cbor.ts";
import { loopback } from "./authn/user.ts";
import { columnsFor } from "./printers/tables.ts";
import { createStrategies } from "./registry/strategies.ts";
import { type ApiServer, createApiServer } from "./server.ts";

interface Running {
  readonly server: ApiServer;
  readonly backend: Backend;
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}
interface Answer {
  readonly status: number;
  readonly type: string | undefined;
  readonly body: Buffer;
}

let on: Running;
let off: Running;
const base = "/api/v1/namespaces/default";

async function serve(cbor: boolean): Promise<Running> {
  const [clock, random, log] = [systemClock, systemRandom, silentLogger];
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log });
  const server = createApiServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, freezeShared: true, ...(cbor ? { cbor } : {}) },
    {
      ...{ backend, clock, random, log, metrics: new Metrics(), admission: [], columnsFor },
      authenticators: [{ authenticate: async () => ({ name: "admin", groups: ["system:masters"] }) }],
      authorizer: { authorize: () => ({ verdict: "no-opinion", reason: "" }) },
      strategies: createStrategies({ clock, random }),
    },
  );
  const stop = new AbortController();
  let ended = Promise.resolve();
  await new Promise<void>((ready) => {
    ended = server.service.run(stop.signal, ready);
  });
  const client = new Client(server.transport(loopback));
  await client.create(resources.namespaces, { metadata: { name: "default" } } as Namespace);
  await client.create(resources.configMaps, {
    metadata: { name: "one", namespace: "default" },
    data: { a: "ü" },
  } as ConfigMap);
  return { server, backend, stop, ended };
}

beforeAll(async () => {
  on = await serve(true);
  off = await serve(false);
});
afterAll(async () => {
  for (const { stop, ended, backend } of [on, off]) {
    stop.abort();
    await ended;
    await backend.close();
  }
});

function ask(
  { server }: Running,
  method: string,
  path: string,
  options: { accept?: string; type?: string; body?: Uint8Array; until?: (bytes: Buffer) => boolean } = {},
): Promise<Answer> {
  const { accept = "application/cbor", type = "application/cbor", body, until } = options;
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: "Bearer x",
      accept,
      ...(body ? { "content-type": type, "content-length": body.length } : {}),
    };
    const sent = httpsRequest(
      { host: "127.0.0.1", port: server.port, path, method, headers, rejectUnauthorized: false, agent: false },
      (answer) => {
        let bytes = Buffer.alloc(0);
        const done = () =>
          resolve({ status: answer.statusCode ?? 0, type: answer.headers["content-type"], body: bytes });
        answer.on("data", (chunk: Buffer) => {
          bytes = Buffer.concat([bytes, chunk]);
          if (!until?.(bytes)) return;
          done();
          sent.destroy();
        });
        answer.on("end", done);
        answer.on("error", () => {});
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
}
const read = ({ body }: Answer) => decodeCbor(body) as UnknownObject;
const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");

describe("where the gate is on", () => {
  test("objects, lists, tables and metadata come as CBOR that says what it is", async () => {
    const one = await ask(on, "GET", `${base}/configmaps/one`);
    expect(one).toMatchObject({ status: 200, type: "application/cbor" });
    expect(one.body.subarray(0, 3)).toEqual(hex("d9d9f7"));
    expect(read(one)).toMatchObject({
      kind: "ConfigMap",
      apiVersion: "v1",
      data: { a: "ü" },
      metadata: { name: "one" },
    });
    const list = read(await ask(on, "GET", `${base}/configmaps`));
    expect(list).toMatchObject({ kind: "ConfigMapList", items: [{ data: { a: "ü" } }] });
    const as = (what: string) => `application/cbor;as=${what};v=v1;g=meta.k8s.io`;
    expect(read(await ask(on, "GET", `${base}/configmaps`, { accept: as("Table") }))).toMatchObject({ kind: "Table" });
    const metadata = await ask(on, "GET", `${base}/configmaps/one`, { accept: as("PartialObjectMetadata") });
    expect(read(metadata)).toMatchObject({ kind: "PartialObjectMetadata", metadata: { name: "one" } });
    const same = await ask(on, "GET", `${base}/configmaps/one`);
    expect(same.body).toEqual(one.body);
  });

  test("bodies are CBOR, with strings of either kind", async () => {
    // {"metadata": {"name": h'74776f'}, h'64617461': {"k": "v"}}
    const body = hex("a2 68 6d65746164617461 a1 64 6e616d65 43 74776f 44 64617461 a1 61 6b 61 76");
    const made = await ask(on, "POST", `${base}/configmaps`, { body });
    expect(made.status).toBe(201);
    expect(read(made)).toMatchObject({ kind: "ConfigMap", metadata: { name: "two" }, data: { k: "v" } });
    const json = await ask(on, "GET", `${base}/configmaps/two`, { accept: "application/json" });
    expect(JSON.parse(json.body.toString())).toMatchObject({ data: { k: "v" } });
    const options = encodeCbor({ kind: "DeleteOptions", apiVersion: "v1", preconditions: { uid: "other" } });
    expect((await ask(on, "DELETE", `${base}/configmaps/two`, { body: options })).status).toBe(409);
  });

  test("bytes are bytes: tagged going out, tagged or base64 text coming in", async () => {
    const secret = (name: string, value: unknown) =>
      encodeCbor({ kind: "Secret", apiVersion: "v1", metadata: { name }, data: { k: value } });
    await ask(on, "POST", `${base}/secrets`, { body: secret("raw", Buffer.from([0, 255])) });
    await ask(on, "POST", `${base}/secrets`, { body: secret("text", "AP8=") });
    for (const name of ["raw", "text"]) {
      const answer = await ask(on, "GET", `${base}/secrets/${name}`);
      expect(answer.body.includes(hex("41 6b d6 42 00ff"))).toBe(true);
      expect((read(answer) as unknown as Secret).data).toEqual({ k: "AP8=" });
    }
    const list = await ask(on, "GET", `${base}/secrets`);
    expect(list.body.includes(hex("d64200ff"))).toBe(true);
  });

  test("apply", async () => {
    const applied = encodeCbor({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "three" }, data: { a: "1" } });
    const path = `${base}/configmaps/three?fieldManager=me`;
    const type = "application/apply-patch+cbor";
    expect((await ask(on, "PATCH", path, { type, body: applied })).status).toBe(201);
    const again = read(await ask(on, "PATCH", path, { type, body: applied }));
    expect(again.metadata.managedFields).toMatchObject([{ manager: "me", operation: "Apply" }]);
    const broken = await ask(on, "PATCH", path, { type, body: hex("a2616101616102") });
    expect(broken).toMatchObject({ status: 400, type: "application/cbor" });
    expect(read(broken)).toMatchObject({
      kind: "Status",
      message: 'error decoding CBOR: cbor: found duplicate map key "a"',
    });
    const list = await ask(on, "PATCH", path, { type, body: hex("80") });
    expect(read(list)).toMatchObject({ code: 400, message: expect.stringContaining("cannot unmarshal") });
  });

  test("watches are a sequence", async () => {
    const answer = await ask(on, "GET", `${base}/configmaps?watch=true&fieldSelector=metadata.name=one`, {
      until: (bytes) => bytes.length > 0,
    });
    expect(answer.type).toBe("application/cbor-seq");
    expect(decodeCbor(answer.body)).toMatchObject({ type: "ADDED", object: { kind: "ConfigMap", data: { a: "ü" } } });
  });

  test("what went wrong is told in the client's type", async () => {
    const missing = await ask(on, "GET", `${base}/configmaps/nope`);
    expect(missing).toMatchObject({ status: 404, type: "application/cbor" });
    expect(read(missing)).toMatchObject({ kind: "Status", reason: "NotFound", code: 404 });
    expect(
      (await ask(on, "GET", `${base}/configmaps/nope`, { accept: "application/json, application/cbor" })).type,
    ).toBe("application/json");
  });

  test.each([
    ["no CBOR", "ff"],
    ["a key twice", "a2 46 6161 6161 6161 01 46 616161616161 02"],
    ["too deep", "81".repeat(100)],
    ["a list", "80"],
    ["nothing", ""],
  ])("a body that is %s is refused", async (_name, bytes) => {
    const answer = await ask(on, "POST", `${base}/configmaps`, { body: hex(bytes) });
    expect(answer.status).toBe(400);
    expect(read(answer)).toMatchObject({ kind: "Status", reason: "BadRequest" });
  });

  test("no member reaches a prototype", async () => {
    const body = encodeCbor(
      JSON.parse('{"metadata":{"name":"four","labels":{"__proto__":"x"}},"__proto__":{"polluted":1}}'),
    );
    await ask(on, "POST", `${base}/configmaps`, { body });
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });
});

describe("where the gate is off, as upstream has it", () => {
  test("nothing is answered in CBOR", async () => {
    const refused = await ask(off, "GET", `${base}/configmaps/one`);
    expect(refused).toMatchObject({ status: 406, type: "application/json" });
    expect(JSON.parse(refused.body.toString()).message).toBe(
      "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    );
    const other = await ask(off, "GET", `${base}/configmaps/one`, { accept: "application/cbor, application/json" });
    expect(other).toMatchObject({ status: 200, type: "application/json" });
  });

  test.each([
    ["POST", `${base}/configmaps`, "application/cbor"],
    ["PUT", `${base}/configmaps/one`, "application/cbor"],
    ["PATCH", `${base}/configmaps/one?fieldManager=me`, "application/apply-patch+cbor"],
  ])("%s takes none", async (method, path, type) => {
    const body = encodeCbor({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "one" } });
    const answer = await ask(off, method, path, { accept: "application/json", type, body });
    expect(answer.status).toBe(415);
    expect(JSON.parse(answer.body.toString()).message).not.toMatch(/cbor/);
  });
});
