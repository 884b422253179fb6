import { X509Certificate } from "node:crypto";
import { type ClientHttp2Session, connect } from "node:http2";
import { request as httpsRequest } from "node:https";
import { connect as tlsConnect } from "node:tls";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { ConfigMap, Namespace, Pod } from "#model/gen/core-v1.ts";
import { decodeProtobuf, encodeProtobuf } from "#model/protobuf.ts";
import * as resources from "#model/resources.ts";
import { unauthorized } from "#model/status.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { loopback } from "./authn/user.ts";
import { columnsFor } from "./printers/tables.ts";
import { createStrategies } from "./registry/strategies.ts";
import { type ApiServer, createApiServer } from "./server.ts";

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}
interface Ask {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
  readonly token?: string | null;
}

let backend: Backend;
let server: ApiServer;
let session: ClientHttp2Session;
let ended: Promise<void>;
const abort = new AbortController();

beforeAll(async () => {
  backend = await openDatastore({ endpoint: "memory://" }, { clock: systemClock, log: silentLogger });
  server = createApiServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, freezeShared: true },
    {
      backend,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
      metrics: new Metrics(),
      authenticators: [
        {
          async authenticate({ bearerToken, clientCertificate }) {
            if (clientCertificate) return { name: new X509Certificate(clientCertificate).subject, groups: [] };
            if (bearerToken === "admin") return { name: "admin", groups: ["system:masters"] };
            if (bearerToken === "ann") return { name: "ann", groups: [] };
            if (bearerToken === "expired") throw unauthorized();
            return undefined;
          },
        },
      ],
      authorizer: {
        authorize: ({ user, verb }) => ({
          verdict: user.name === "reader" && verb === "get" ? "allow" : "no-opinion",
          reason: "",
        }),
      },
      strategies: createStrategies({ clock: systemClock, random: systemRandom }),
      admission: [],
      columnsFor,
    },
  );
  await new Promise<void>((ready, failed) => {
    ended = server.service.run(abort.signal, ready);
    ended.catch(failed);
  });
  session = connect(`https://127.0.0.1:${server.port}`, { rejectUnauthorized: false });
  const client = new Client(server.transport(loopback));
  await client.create(resources.namespaces, { metadata: { name: "default" } } as Namespace);
  await client.create(resources.configMaps, {
    metadata: { name: "one", namespace: "default" },
    data: { a: "1" },
  } as ConfigMap);
  await client.create(resources.pods, {
    metadata: { name: "web", namespace: "default" },
    spec: { containers: [{ name: "main", image: "web" }] },
  } as Pod);
});
afterAll(async () => {
  session.close();
  abort.abort();
  await ended;
  await backend.close();
});

function headersOf(ask: Ask): Record<string, string> {
  const token = ask.token === undefined ? "admin" : ask.token;
  return { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...ask.headers };
}

function h1(path: string, ask: Ask = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const req = httpsRequest(
      {
        host: "127.0.0.1",
        port: server.port,
        path,
        method: ask.method ?? "GET",
        headers: headersOf(ask),
        rejectUnauthorized: false,
      },
      (res) => {
        const chunks: Buffer[] = [];
        res.on("data", (chunk: Buffer) => chunks.push(chunk));
        res.on("end", () =>
          resolve({ status: res.statusCode ?? 0, headers: res.headers, body: Buffer.concat(chunks) }),
        );
        res.on("error", reject);
      },
    );
    req.on("error", reject);
    req.end(ask.body);
  });
}

function h2(path: string, ask: Ask = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const stream = session.request(
      { ":method": ask.method ?? "GET", ":path": path, ...headersOf(ask) },
      { endStream: ask.body === undefined },
    );
    const chunks: Buffer[] = [];
    let headers: Answer["headers"] = {};
    stream.on("response", (got) => {
      headers = got as Answer["headers"];
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => resolve({ status: Number(headers[":status"]), headers, body: Buffer.concat(chunks) }));
    stream.on("error", reject);
    if (ask.body !== undefined) stream.end(ask.body);
  });
}

const json = (answer: Answer) => JSON.parse(answer.body.toString()) as Record<string, unknown> & { message?: string };
const both = [
  ["HTTP/1.1", h1],
  ["HTTP/2", h2],
] as const;

describe.each(both)("over %s", (name, ask) => {
  test("an object, spliced, with its revision", async () => {
    const answer = await ask("/api/v1/namespaces/default/configmaps/one");
    expect(answer.status).toBe(200);
    expect(answer.headers["content-type"]).toBe("application/json");
    expect(answer.headers["audit-id"]).toMatch(/^[0-9a-f-]{36}$/);
    expect(json(answer)).toMatchObject({
      kind: "ConfigMap",
      apiVersion: "v1",
      data: { a: "1" },
      metadata: { resourceVersion: expect.stringMatching(/^\d+$/) },
    });
  });

  test("create, and 201", async () => {
    const object = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: `made-${name.at(-1)}` } };
    const answer = await ask("/api/v1/namespaces/default/configmaps", {
      method: "POST",
      body: JSON.stringify(object),
      headers: { "content-type": "application/json" },
    });
    expect(answer.status).toBe(201);
    expect(json(answer)).toMatchObject(object);
  });

  test("YAML in and out", async () => {
    const answer = await ask("/api/v1/namespaces/default/configmaps", {
      method: "POST",
      body: `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml-${name.at(-1)}\ndata:\n  a: "1"\n`,
      headers: { "content-type": "application/yaml", accept: "application/yaml" },
    });
    expect(answer.status).toBe(201);
    expect(answer.headers["content-type"]).toBe("application/yaml");
    expect(answer.body.toString()).toContain('a: "1"');
  });

  test("a table", async () => {
    const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    const table = json(await ask("/api/v1/namespaces/default/pods", { headers: { accept } }));
    expect(table["kind"]).toBe("Table");
    expect((table["columnDefinitions"] as { name: string }[]).map((column) => column.name)).toContain("Ready");
    expect((table["rows"] as { cells: unknown[]; object: { kind: string } }[])[0]).toMatchObject({
      object: { kind: "PartialObjectMetadata", metadata: { name: "web" } },
    });
  });

  test("metadata only", async () => {
    const accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    const list = json(await ask("/api/v1/namespaces/default/pods", { headers: { accept } }));
    expect(list["kind"]).toBe("PartialObjectMetadataList");
    expect((list["items"] as object[])[0]).not.toHaveProperty("spec");
  });

  test.each([
    ["no credentials", "/api/v1/pods", { token: null }, 401, "Unauthorized"],
    ["an unknown token", "/api/v1/pods", { token: "who" }, 401, "Unauthorized"],
    ["a token that does not hold", "/healthz", { token: "expired" }, 401, "Unauthorized"],
    [
      "no permission",
      "/api/v1/namespaces/default/pods",
      { token: "ann" },
      403,
      'pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default"',
    ],
    [
      "no format",
      "/api/v1/pods",
      { headers: { accept: "text/html" } },
      406,
      "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    ],
    [
      "a body format",
      "/api/v1/namespaces/default/configmaps",
      { method: "POST", body: "{}", headers: { "content-type": "text/plain" } },
      415,
      /^the body of the request was in an unknown format/,
    ],
    [
      "bad JSON",
      "/api/v1/namespaces/default/configmaps",
      { method: "POST", body: "{", headers: { "content-type": "application/json" } },
      400,
      /./,
    ],
    [
      "10 MB",
      "/api/v1/namespaces/default/configmaps",
      { method: "POST", body: Buffer.alloc(10_000_000, 32), headers: { "content-type": "application/json" } },
      413,
      "Request entity too large: limit is 3145728",
    ],
    ["a bad selector", "/api/v1/pods?labelSelector=a%3Db%3Dc", {}, 400, /^unable to parse requirement/],
    ["a bad escape", "/api/v1/namespaces/%zz/pods", {}, 400, /^invalid URL escape/],
    ["a bad continue token", "/api/v1/pods?limit=1&continue=xx", {}, 400, /^continue key is not valid/],
    [
      "impersonation",
      "/api/v1/pods",
      { token: "ann", headers: { "impersonate-user": "admin" } },
      403,
      /cannot impersonate resource "users"/,
    ],
  ] as [string, string, Ask, number, string | RegExp][])(
    "a Status for %s",
    async (_what, path, options, code, message) => {
      const answer = await ask(path, options);
      expect(answer.status).toBe(code);
      const status = json(answer);
      expect(status).toMatchObject({ kind: "Status", apiVersion: "v1", status: "Failure", code });
      if (typeof message === "string") expect(status.message).toBe(message);
      else expect(status.message).toMatch(message);
    },
  );

  test.each([
    "/nope",
    "/api/v2/pods",
    "/apis/nope/v1/things",
    "/api/v1/nope",
    "/api/v1//pods",
    "/api/v1/namespaces/../pods",
  ])("404 for %s", async (path) => {
    expect((await ask(path)).status).toBe(404);
  });

  test("health is for everybody", async () => {
    expect((await ask("/healthz", { token: null })).body.toString()).toBe("ok");
    const verbose = await ask("/readyz?verbose", { token: null });
    expect(verbose.body.toString()).toBe("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]shutdown ok\nreadyz check passed\n");
    expect(json(await ask("/version", { token: null }))).toMatchObject({ major: "1", minor: "32" });
    // One check alone tells why it fails: for who may ask for it.
    expect((await ask("/readyz/etcd", { token: null })).status).toBe(401);
    expect((await ask("/readyz/etcd", { token: "ann" })).status).toBe(403);
    expect((await ask("/readyz/etcd")).body.toString()).toBe("ok");
  });

  test("discovery in three forms", async () => {
    expect(json(await ask("/api"))).toMatchObject({ kind: "APIVersions", versions: ["v1"] });
    expect(json(await ask("/apis/apps/v1"))).toMatchObject({ kind: "APIResourceList", groupVersion: "apps/v1" });
    const accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    const answer = await ask("/apis", { headers: { accept } });
    expect(answer.headers["content-type"]).toBe("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    const again = await ask("/apis", { headers: { accept, "if-none-match": String(answer.headers["etag"]) } });
    expect(again.status).toBe(304);
  });

  test("a large list is compressed when asked", async () => {
    const client = new Client(server.transport(loopback));
    const data = { big: "x".repeat(200_000) };
    await client.create(resources.configMaps, {
      metadata: { name: `big-${name.at(-1)}`, namespace: "default" },
      data,
    } as ConfigMap);
    const answer = await ask("/api/v1/namespaces/default/configmaps", { headers: { "accept-encoding": "gzip" } });
    expect(answer.headers["content-encoding"]).toBe("gzip");
    expect(answer.body.length).toBeLessThan(20_000);
  });

  test("a list of megabytes comes in parts, and whole", async () => {
    const client = new Client(server.transport(loopback));
    for (let i = 0; i < 6; i++) {
      await client.create(resources.configMaps, {
        metadata: { name: `large-${name.at(-1)}-${i}`, namespace: "kube-system" },
        data: { big: String(i).repeat(300_000) },
      } as ConfigMap);
    }
    const path = "/api/v1/namespaces/kube-system/configmaps";
    const answer = await ask(path);
    expect(answer.headers["content-length"]).toBeUndefined();
    const whole = await client.list(resources.configMaps, { namespace: "kube-system" });
    const { items } = json(answer) as unknown as { items: ConfigMap[] };
    expect(items.length).toBeGreaterThanOrEqual(6);
    expect(items.map(({ data }) => data)).toEqual(whole.items.map(({ data }) => data));
    expect((await ask(path, { method: "HEAD" })).status).toBe(200);
    const small = await ask(path, { headers: { "accept-encoding": "gzip" } });
    expect(small.headers["content-encoding"]).toBe("gzip");
    expect(gunzipSync(small.body).equals(answer.body)).toBe(true);
  });

  test("lists of any state are shared where they are large and compressed, and are never torn", async () => {
    const client = new Client(server.transport(loopback));
    const namespace = `shared-${name.at(-1)}`;
    await client.create(resources.namespaces, { metadata: { name: namespace } } as Namespace);
    const add = (i: number) =>
      client.create(resources.configMaps, {
        metadata: { name: `c${i}`, namespace },
        data: { text: String(i).repeat(50_000) },
      } as ConfigMap);
    for (let i = 0; i < 8; i++) await add(i);
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const compressed = { headers: { "accept-encoding": "gzip" } };
    const list = (answer: Answer) =>
      JSON.parse(gunzipSync(answer.body).toString()) as {
        metadata: { resourceVersion: string; continue?: string };
        items: ConfigMap[];
      };
    const names = ({ items }: { items: ConfigMap[] }) => items.map(({ metadata }) => metadata.name);
    const [first, second] = await Promise.all(
      [0, 1].map(async () => list(await ask(`${path}?limit=4&resourceVersion=0`, compressed))),
    );
    expect(names(first!)).toEqual(["c0", "c1", "c2", "c3"]);
    expect(second).toEqual(first);
    // Its next page is of the same moment, whatever came meanwhile.
    await add(8);
    const rest = `${path}?limit=4&continue=${encodeURIComponent(first!.metadata.continue ?? "")}`;
    const pages = [list(await ask(rest, compressed)), json(await ask(rest)) as unknown as { items: ConfigMap[] }];
    expect(pages.map(names)).toEqual([
      ["c4", "c5", "c6", "c7"],
      ["c4", "c5", "c6", "c7"],
    ]);
    // Who wants it current, or plain, gets what there is.
    expect(names(list(await ask(path, compressed)))).toContain("c8");
    expect(names(json(await ask(`${path}?resourceVersion=0`)) as unknown as { items: ConfigMap[] })).toContain("c8");
    expect((await ask(`${path}?limit=4&resourceVersion=0`, { ...compressed, token: "ann" })).status).toBe(403);
    const metadata = {
      headers: { ...compressed.headers, accept: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1" },
    };
    const small = list(await ask(`${path}?limit=4&resourceVersion=0`, metadata)) as unknown as { kind: string };
    expect(small.kind).toBe("PartialObjectMetadataList");
  });

  test("a list of many pages is that of one moment, in every form", async () => {
    const client = new Client(server.transport(loopback));
    const namespace = `many-${name.at(-1)}`;
    await client.create(resources.namespaces, { metadata: { name: namespace } } as Namespace);
    const made = Array.from({ length: 450 }, (_, i) =>
      client.create(resources.configMaps, {
        metadata: { name: `c${i}`, namespace },
        data: { text: "x".repeat(i * 10) },
      } as ConfigMap),
    );
    await Promise.all(made);
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const pages: string[] = [];
    for (let token = ""; ; ) {
      const page = json(await ask(`${path}?limit=100&continue=${encodeURIComponent(token)}`));
      pages.push(...(page["items"] as ConfigMap[]).map((item) => JSON.stringify(item)));
      token = (page["metadata"] as { continue?: string }).continue ?? "";
      if (token === "") break;
    }
    const whole = json(await ask(path));
    expect(Object.keys(whole)).toEqual(["kind", "apiVersion", "metadata", "items"]);
    expect(whole["metadata"]).toEqual({ resourceVersion: expect.stringMatching(/^\d+$/) });
    expect((whole["items"] as ConfigMap[]).map((item) => JSON.stringify(item))).toEqual(pages);
    const names = (whole["items"] as ConfigMap[]).map(({ metadata }) => metadata.name);
    expect(new Set(names).size).toBe(450);
    const asked = async (accept: string) => json(await ask(path, { headers: { accept } }));
    const table = await asked("application/json;as=Table;v=v1;g=meta.k8s.io");
    expect(table).toMatchObject({ kind: "Table", apiVersion: "meta.k8s.io/v1", metadata: whole["metadata"] });
    const rows = table["rows"] as { cells: string[]; object: ConfigMap }[];
    expect(rows.map(({ cells }) => cells[0])).toEqual(names);
    const metadata = await asked("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    expect((metadata["items"] as ConfigMap[]).map((item) => item.metadata.name)).toEqual(names);
    const accept = "application/vnd.kubernetes.protobuf";
    const binary = (await ask(path, { headers: { accept } })).body;
    const { object } = decodeProtobuf(binary, "core/v1.ConfigMapList");
    expect((object["items"] as ConfigMap[]).map((item) => item.metadata.name)).toEqual(names);
    expect(binary.equals(encodeProtobuf(object, "core/v1.ConfigMapList"))).toBe(true);
    const bare = `${accept};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io`;
    const partial = decodeProtobuf(
      (await ask(path, { headers: { accept: bare } })).body,
      "meta/v1.PartialObjectMetadataList",
    );
    expect(partial.kind).toBe("PartialObjectMetadataList");
    expect((partial.object["items"] as ConfigMap[]).map((item) => item.metadata.name)).toEqual(names);
    const selected = json(await ask(`${path}?fieldSelector=metadata.name%3Dc449`));
    expect((selected["items"] as ConfigMap[]).map((item) => item.metadata.name)).toEqual(["c449"]);
    const inside = await client.list(resources.configMaps, { namespace });
    expect(inside.items.map((item) => item.metadata.name)).toEqual(names);
  });

  test("acting as somebody else", async () => {
    const headers = { "impersonate-user": "reader", "impersonate-group": "a" };
    expect((await ask("/api/v1/namespaces/default/pods/web", { token: "ann", headers })).status).toBe(403);
    const review = await ask("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ spec: { resourceAttributes: { verb: "get", resource: "pods" } } }),
    });
    expect(review.status).toBe(201);
  });
});

test("a watch sends its head at once and one line per event", async () => {
  const from = (json(await h2("/api/v1/namespaces/default/secrets"))["metadata"] as { resourceVersion: string })
    .resourceVersion;
  const stream = session.request({
    ":path": `/api/v1/namespaces/default/secrets?watch=true&resourceVersion=${from}&timeoutSeconds=30`,
    authorization: "Bearer admin",
  });
  const status = await new Promise((resolve) => stream.on("response", (headers) => resolve(headers[":status"])));
  expect(status).toBe(200);
  const lines: string[] = [];
  let buffered = "";
  stream.on("data", (chunk: Buffer) => {
    buffered += chunk.toString();
    const parts = buffered.split("\n");
    buffered = parts.pop()!;
    lines.push(...parts);
  });
  const client = new Client(server.transport(loopback));
  await client.create(resources.secrets, { metadata: { name: "s", namespace: "default" } });
  await client.delete(resources.secrets, { name: "s", namespace: "default" });
  await expect.poll(() => lines.length).toBe(2);
  const events = lines.map(
    (line) => JSON.parse(line) as { type: string; object: { metadata: { resourceVersion: string } } },
  );
  expect(events.map((event) => event.type)).toEqual(["ADDED", "DELETED"]);
  expect(Number(events[1]!.object.metadata.resourceVersion)).toBeGreaterThan(
    Number(events[0]!.object.metadata.resourceVersion),
  );
  stream.close();
});

test("a watch ends at its timeout with a complete answer", async () => {
  const answer = await h1("/api/v1/namespaces/default/endpoints?watch=true&timeoutSeconds=1");
  expect(answer.status).toBe(200);
});

test("an upgrade of what cannot be upgraded is refused on the socket", async () => {
  const socket = tlsConnect({
    host: "127.0.0.1",
    port: server.port,
    rejectUnauthorized: false,
    ALPNProtocols: ["http/1.1"],
  });
  socket.write(
    "GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
  );
  const text = await new Promise<string>((resolve) => {
    let all = "";
    socket.on("data", (chunk: Buffer) => {
      all += chunk.toString();
    });
    socket.on("close", () => resolve(all));
  });
  expect(text).toMatch(/^HTTP\/1.1 400 Bad Request\r\n/);
  expect(text).toContain('"kind":"Status"');
});

describe("protobuf", () => {
  const accept = "application/vnd.kubernetes.protobuf";
  test("an object, a list, a Status", async () => {
    const object = await h2("/api/v1/namespaces/default/configmaps/one", { headers: { accept } });
    expect(object.headers["content-type"]).toBe(accept);
    expect(decodeProtobuf(object.body, "core/v1.ConfigMap")).toMatchObject({
      apiVersion: "v1",
      kind: "ConfigMap",
      object: { metadata: { name: "one" }, data: { a: "1" } },
    });
    const list = await h2("/api/v1/namespaces/default/pods", { headers: { accept } });
    expect(decodeProtobuf(list.body, "core/v1.PodList").object).toMatchObject({
      items: [{ metadata: { name: "web" } }],
    });
    const missing = await h2("/api/v1/namespaces/default/pods/nope", { headers: { accept } });
    expect(missing.status).toBe(404);
    expect(decodeProtobuf(missing.body, "meta/v1.Status").object).toMatchObject({ reason: "NotFound", code: 404 });
  });

  test("a body", async () => {
    const one = await h2("/api/v1/namespaces/default/configmaps/one", { headers: { accept } });
    const body = Buffer.from(one.body);
    const put = { method: "PUT", body, headers: { "content-type": accept } };
    const answer = await h2("/api/v1/namespaces/default/configmaps/one", put);
    expect(answer.status).toBe(200);
    expect(json(answer)).toMatchObject({ data: { a: "1" } });
  });

  test("frames of a watch", async () => {
    const path = "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Done";
    const { headers, body } = await h2(path, { headers: { accept } });
    expect(headers["content-type"]).toBe("application/vnd.kubernetes.protobuf;stream=watch");
    expect(body.readUInt32BE(0)).toBe(body.length - 4);
    expect(body.subarray(4, 11).toString("latin1")).toBe("\n\u0005ADDED");
    const envelope = body.indexOf("k8s\0");
    expect(decodeProtobuf(body.subarray(envelope), "core/v1.ConfigMap").object).toMatchObject({ data: { a: "1" } });
  });
});

test("a client certificate is handed to the authenticators over both protocols", async () => {
  const tls = { rejectUnauthorized: false, cert: localhostTls.certificatePem, key: localhostTls.keyPem };
  const path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
  const certified = connect(`https://127.0.0.1:${server.port}`, tls);
  const h2Message = await new Promise<string>((resolve) => {
    const stream = certified.request({ ":path": path });
    let body = "";
    stream.on("data", (chunk: Buffer) => {
      body += chunk.toString();
    });
    stream.on("end", () => resolve((JSON.parse(body) as { message: string }).message));
  });
  certified.close();
  const h1Message = await new Promise<string>((resolve) => {
    const options = { host: "127.0.0.1", port: server.port, path, agent: false as const, ...tls };
    httpsRequest(options, (res) => {
      let body = "";
      res.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      res.on("end", () => resolve((JSON.parse(body) as { message: string }).message));
    }).end();
  });
  for (const message of [h2Message, h1Message]) {
    expect(message).toContain('User "CN=localhost" cannot list resource "selfsubjectreviews"');
  }
});

test("a watcher that does not read is cut off", async () => {
  const socket = tlsConnect({
    host: "127.0.0.1",
    port: server.port,
    rejectUnauthorized: false,
    ALPNProtocols: ["http/1.1"],
  });
  socket.write(
    "GET /api/v1/namespaces/slow/configmaps?watch=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\r\n",
  );
  const head = await new Promise<string>((resolve) =>
    socket.once("data", (chunk: Buffer) => resolve(chunk.toString())),
  );
  expect(head).toMatch(/^HTTP\/1.1 200 OK/);
  socket.pause();
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  const client = new Client(server.transport(loopback));
  const data = { big: "x".repeat(1_000_000) };
  for (let i = 0; i < 30; i++) {
    await client.create(resources.configMaps, {
      metadata: { name: `slow-${i}`, namespace: "slow" },
      data,
    } as ConfigMap);
  }
  let received = 0;
  socket.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  socket.resume();
  await closed;
  // Without the bound it would stay open and get all 30 MB.
  expect(received).toBeLessThan(25_000_000);
});
