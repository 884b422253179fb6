// The client machinery against the API server over a real TLS connection: client certificate, kept-alive requests,
// informer over a streamed watch, refusal of strangers, and resumption after the server was away.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createX509Authenticator } from "#apiserver/authn/x509.ts";
import { columnsFor } from "#apiserver/printers/tables.ts";
import { createStrategies } from "#apiserver/registry/strategies.ts";
import { type ApiServer, createApiServer } from "#apiserver/server.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { createHttpTransport } from "#client/http-transport.ts";
import { InformerFactory } from "#client/informer.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import type { ConfigMap, Namespace } from "#model/gen/core-v1.ts";
import { configMaps, namespaces } from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { createHttpClient, type HttpClient } from "#platform/http-client.ts";
import { systemRandom } from "#platform/random.ts";
import { ensurePki, type KeyPair, type Pki } from "#supervisor/pki.ts";
import { until } from "#test/harness/until.ts";

const base = { clock: systemClock, random: systemRandom, log: silentLogger };
let folder: string;
let pki: Pki;
let backend: Datastore;
let server: ApiServer;
let stop: AbortController;
let ended: Promise<void>;
const opened: HttpClient[] = [];

async function serve(port: number): Promise<void> {
  stop = new AbortController();
  const tls = { certificatePem: pki.servingApiserver.certificate, keyPem: pki.servingApiserver.key };
  server = createApiServer(
    { host: "127.0.0.1", port, tls: { ...tls, clientCaPem: pki.clientCa.certificate }, freezeShared: true },
    {
      ...base,
      backend,
      metrics: new Metrics(),
      authenticators: [createX509Authenticator({ clientCa: pki.clientCa.certificate }, base)],
      authorizer: {
        authorize: ({ user }) => ({ verdict: user.groups.includes("system:masters") ? "allow" : "deny", reason: "" }),
      },
      strategies: createStrategies(base),
      admission: [],
      columnsFor,
    },
  );
  await new Promise<void>((resolve, reject) => {
    ended = server.service.run(stop.signal, resolve);
    ended.catch(reject);
  });
}

function connect(options: { readonly pair?: KeyPair; readonly ca?: string } = {}): Client {
  const http = createHttpClient({
    baseUrl: `https://127.0.0.1:${server.port}`,
    ca: options.ca ?? pki.serverCa.certificate,
    ...(options.pair ? { cert: options.pair.certificate, key: options.pair.key } : {}),
  });
  opened.push(http);
  return new Client(createHttpTransport({ userAgent: "test" }, { http }));
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-https-"));
  pki = await ensurePki({ folder, nodeName: "n", nodeIps: ["127.0.0.1"] }, base);
  backend = await openDatastore({ endpoint: "memory://" }, base);
  await serve(0);
});
afterAll(async () => {
  stop.abort();
  await ended;
  for (const http of opened) http.close();
  await backend.close();
  await rm(folder, { recursive: true });
});

test("requests, informer, and resumption after the server was away", async () => {
  const client = connect({ pair: pki.clientAdmin });
  await client.create(namespaces, { metadata: { name: "default" }, spec: {} } as Namespace);
  const write = (name: string) => client.create(configMaps, { metadata: { name, namespace: "default" } } as ConfigMap);
  await expect(client.get(configMaps, "none", "default")).rejects.toMatchObject({ code: 404, reason: "NotFound" });
  await write("a");
  const factory = new InformerFactory({ verify: true }, { ...base, client });
  const informer = factory.informer(configMaps);
  const over = new AbortController();
  const running = factory.run(over.signal, () => {});
  await until(() => informer.hasSynced);
  await write("b");
  await until(() => informer.get("default/b") !== undefined);
  await client.delete(configMaps, { name: "a", namespace: "default" });
  await until(() => informer.get("default/a") === undefined);

  const { port } = server;
  stop.abort();
  await ended;
  await expect(client.get(configMaps, "b", "default")).rejects.toMatchObject({ code: "HTTP_FAILED" });
  await serve(port);
  await client.create(configMaps, { metadata: { name: "c", namespace: "default" } } as ConfigMap);
  await until(() => informer.get("default/c") !== undefined);
  over.abort(new Error("over"));
  await running;
});

test("strangers are told so, and a server that cannot prove itself is not spoken to", async () => {
  await expect(connect().get(configMaps, "b", "default")).rejects.toMatchObject({
    reason: expect.stringMatching(/Unauthorized|Forbidden/),
  });
  await expect(connect({ pair: pki.clientScheduler }).get(configMaps, "b", "default")).rejects.toMatchObject({
    code: 403,
  });
  const wrong = connect({ pair: pki.clientAdmin, ca: pki.clientCa.certificate });
  await expect(wrong.get(configMaps, "b", "default")).rejects.toMatchObject({ code: "HTTP_FAILED" });
});
