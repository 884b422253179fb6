import { afterAll, beforeAll, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { CustomResourceDefinition } from "#model/custom-resources.ts";
import { customResourceDefinitions } from "#model/resources.ts";
import { type HttpsServer, openHttpsServer } from "#platform/https-server.ts";
import { settle } from "#test/harness/fake-clock.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { type CustomServer, definition, openCustomServer, version } from "./custom-resources.fixture.ts";

interface Review {
  readonly request: { readonly uid: string; readonly desiredAPIVersion: string; readonly objects: Fields[] };
}
type Fields = Record<string, unknown> & { metadata: Record<string, unknown>; spec: Record<string, unknown> };

let server: CustomServer;
let webhook: HttpsServer;
/** Number of objects of each call. */
let calls: number[] = [];
/** What the webhook does to one object beside its work. */
let mischief: (object: Fields) => Fields = (object) => object;

/** v1 has `host: "name:port"`, v2 has both apart. */
function convert(object: Fields, apiVersion: string): Fields {
  const { spec } = object;
  if (apiVersion.endsWith("/v2")) {
    const [name, port] = String(spec["host"]).split(":");
    return { ...object, apiVersion, spec: { name, port: Number(port) } };
  }
  return { ...object, apiVersion, spec: { host: `${String(spec["name"])}:${String(spec["port"])}` } };
}

beforeAll(async () => {
  server = await openCustomServer();
  webhook = await openHttpsServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, log: silentLogger },
    {
      async request(request, response) {
        const parts: Uint8Array[] = [];
        for await (const part of request.body) parts.push(part);
        const { request: asked } = JSON.parse(Buffer.concat(parts).toString("utf8")) as Review;
        calls.push(asked.objects.length);
        const convertedObjects = asked.objects.map((object) => mischief(convert(object, asked.desiredAPIVersion)));
        response.head(200, { "content-type": "application/json" });
        response.end(
          JSON.stringify({
            apiVersion: "apiextensions.k8s.io/v1",
            kind: "ConversionReview",
            response: { uid: asked.uid, result: { status: "Success" }, convertedObjects },
          }),
        );
      },
      async upgrade() {},
    },
  );
  const { define } = server;
  await define(hosts());
});
afterAll(async () => {
  await server.close();
  await webhook.close(100);
});

const hosts = (): CustomResourceDefinition =>
  definition(
    "Host",
    [
      version("v1", { type: "object", properties: { host: { type: "string" } } }),
      version(
        "v2",
        {
          type: "object",
          properties: { name: { type: "string" }, port: { type: "integer" }, kind: { type: "string", default: "tcp" } },
        },
        { storage: false, selectableFields: [{ jsonPath: ".spec.name" }] },
      ),
    ],
    {
      conversion: {
        strategy: "Webhook",
        webhook: {
          clientConfig: {
            url: `https://localhost:${webhook.port}/convert`,
            caBundle: Buffer.from(localhostTls.certificatePem).toString("base64"),
          },
          conversionReviewVersions: ["v1"],
        },
      },
    },
  );
const v1 = "/apis/example.com/v1/namespaces/default/hosts";
const v2 = v1.replace("v1", "v2");
const object = (apiVersion: string, name: string, spec: object) => ({
  apiVersion: `example.com/${apiVersion}`,
  kind: "Host",
  metadata: { name },
  spec,
});

test("reads, writes, lists and selects in the version asked for; a list costs one call", async () => {
  await server.request("POST", v1, object("v1", "a", { host: "alpha:1" }));
  expect(calls).toEqual([]);
  expect(await server.request("GET", `${v2}/a`)).toMatchObject({
    apiVersion: "example.com/v2",
    spec: { name: "alpha", port: 1 },
  });
  await server.request("POST", v2, object("v2", "b", { name: "beta", port: 2 }));
  expect((await server.request("GET", `${v1}/b`))["spec"]).toEqual({ host: "beta:2" });
  calls = [];
  const list = await server.request("GET", v2);
  expect((list["items"] as Fields[]).map((item) => item.spec["name"])).toEqual(["alpha", "beta"]);
  expect(calls).toEqual([2]);
  const merge = { contentType: "application/merge-patch+json" };
  await server.request("PATCH", `${v2}/a`, { spec: { port: 9 } }, merge);
  expect((await server.request("GET", `${v1}/a`))["spec"]).toEqual({ host: "alpha:9" });
  const selected = await server.request("GET", v2, undefined, { query: { fieldSelector: "spec.name=beta" } });
  expect(selected["items"]).toHaveLength(1);
});

test("watches convert each change once for all who watch, in order", async () => {
  const seen: string[][] = [[], []];
  const stops = seen.map((list) => {
    const stop = new AbortController();
    const follow = async () => {
      const query = { watch: "true", resourceVersion: (await server.request("GET", v1)).metadata.resourceVersion };
      for await (const event of server.client.transport.watch({ method: "GET", path: v2, query }, stop.signal)) {
        list.push(`${event.type} ${String((event.object as unknown as Fields).spec["name"])}`);
      }
    };
    void follow();
    return stop;
  });
  await settle();
  calls = [];
  for (const name of ["one", "two", "three"]) {
    await server.request("POST", v1, object("v1", name, { host: `${name}:1` }));
  }
  await server.client.transport.request({ method: "DELETE", path: `${v1}/one` });
  for (let i = 0; i < 200 && seen.some((list) => list.length < 4); i++) await new Promise((go) => setImmediate(go));
  for (const stop of stops) stop.abort();
  const expected = ["ADDED one", "ADDED two", "ADDED three", "DELETED one"];
  expect(seen).toEqual([expected, expected]);
  // Three that were made, and one that went: with what it was, and as it is deleted.
  expect(calls.length).toBeLessThanOrEqual(5);
});

test.each([
  ["name", (o: Fields) => ({ ...o, metadata: { ...o.metadata, name: "other" } }), "expected unchanged metadata.name"],
  ["version", (o: Fields) => ({ ...o, apiVersion: "example.com/v9" }), "invalid groupVersion"],
  ["metadata", (o: Fields) => ({ ...o, metadata: undefined as never }), "metadata is missing"],
])("a webhook may not change the %s", async (_, wrong, message) => {
  mischief = wrong;
  const refused = await server.refusal("GET", `${v2}/a`);
  mischief = (o) => o;
  expect(refused).toContain("conversion webhook for example.com/v1, Kind=Host failed");
  expect(refused).toContain(message);
});

test("labels may be changed by a webhook, finalizers may not", async () => {
  mischief = (o) => ({ ...o, metadata: { ...o.metadata, labels: { by: "webhook" }, finalizers: ["x/y"] } });
  const { metadata } = await server.request("GET", `${v2}/a`);
  mischief = (o) => o;
  expect([metadata.labels, metadata.finalizers]).toEqual([{ by: "webhook" }, undefined]);
});

test("an owner in one version loses what is changed in the other", async () => {
  const apply = (path: string, body: object, manager: string, force = false) =>
    server.request("PATCH", path, body, {
      contentType: "application/apply-patch+yaml",
      query: { fieldManager: manager, ...(force ? { force: "true" } : {}) },
    });
  const owners = (o: {
    metadata: { managedFields?: { manager?: string; apiVersion?: string; fieldsV1?: unknown }[] };
  }) =>
    Object.fromEntries(
      (o.metadata.managedFields ?? []).map(({ manager, apiVersion, fieldsV1 }) => [
        `${manager} ${apiVersion}`,
        Object.keys((fieldsV1 as Record<string, object>)["f:spec"] ?? {}).sort(),
      ]),
    );
  await apply(`${v1}/owned`, object("v1", "owned", { host: "gamma:3" }), "old");
  await expect(apply(`${v2}/owned`, object("v2", "owned", { name: "delta", port: 3 }), "new")).rejects.toThrow(
    'conflict with "old": .spec.host',
  );
  const taken = await apply(`${v2}/owned`, object("v2", "owned", { name: "delta", port: 3 }), "new", true);
  expect(taken["spec"]).toMatchObject({ name: "delta", port: 3 });
  expect(owners(taken)).toEqual({ "new example.com/v2": ["f:name", "f:port"] });
  expect((await server.request("GET", `${v1}/owned`))["spec"]).toEqual({ host: "delta:3" });
});

test("a webhook that does not answer is said so, and its definition can still be deleted", async () => {
  const current = structuredClone(await server.client.get(customResourceDefinitions, "hosts.example.com"));
  current.spec.conversion!.webhook!.clientConfig!.url = "https://localhost:1/convert";
  await server.update(current);
  expect(await server.refusal("GET", `${v2}/a`)).toContain("conversion webhook for example.com/v1, Kind=Host failed");
  expect((await server.request("GET", `${v1}/a`))["spec"]).toEqual({ host: "alpha:9" });
  await server.client.delete(customResourceDefinitions, { name: "hosts.example.com" });
  for (let i = 0; i < 6; i++) await settle();
  expect(await server.refusal("GET", v1)).toBe("404 page not found");
});
