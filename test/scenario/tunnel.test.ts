// A node that the server cannot dial: it is reached through the connection that it made. Real certificates and TLS all the
// way: client to API server, tunnel between, and node API behind.
import { mkdtemp, rm } from "node:fs/promises";
import * as https from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { ComposedApiServer } from "#apiserver/compose.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { dialBareWebSocket } from "#platform/raw-websocket.ts";
import { isUpgraded, openUpgrade } from "#platform/upgrade-client.ts";
import { createNodeTunnel } from "#supervisor/node-tunnel.ts";
import { ensurePki, type Pki } from "#supervisor/pki.ts";
import { connectPath } from "#supervisor/tunnel/client.ts";
import { createTunnels, type Tunnels } from "#supervisor/tunnels.ts";
import { type NodeHub, openNodeHub } from "#test/harness/node-hub.ts";
import { until } from "#test/harness/until.ts";

/** Each waits for what it needs, also on a machine that has other things to do. */
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const base = { clock: systemClock, random: systemRandom, log: silentLogger };
/** TEST-NET-1: nobody is there. */
const nodeIp = "192.0.2.7";
let folder = "";
let pki: Pki;
let backend: Datastore;
let hub: NodeHub;
let api: ComposedApiServer;
let tunnels: Tunnels;
let nodeApi: https.Server;
let nodePort = 0;
/** On the node: logs that are followed, and upgraded connections. */
let followers = 0;
let streams = 0;
let metrics: Metrics;
const stop = new AbortController();
const running: Promise<void>[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-tunnel-"));
  pki = await ensurePki({ folder, nodeName: "n2", nodeIps: [nodeIp] }, base);
  backend = await openDatastore({ endpoint: "memory://" }, base);
  nodeApi = https.createServer(
    {
      cert: pki.servingKubelet.certificate,
      key: pki.servingKubelet.key,
      ca: pki.clientCa.certificate,
      requestCert: true,
      rejectUnauthorized: true,
    },
    (request, response) => {
      if (!request.url?.includes("follow=true")) {
        response.end(`node API: ${request.method} ${request.url}`);
        return;
      }
      followers++;
      response.on("close", () => followers--);
      response.write("the first line\n");
    },
  );
  nodeApi.on("upgrade", (_request, socket) => {
    streams++;
    socket.on("error", () => {});
    socket.on("close", () => streams--);
    socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => nodeApi.listen(0, "127.0.0.1", resolve));
  nodePort = (nodeApi.address() as AddressInfo).port;

  metrics = new Metrics();
  tunnels = createTunnels({ mode: "agent", nodeName: "n1" }, { ...base, metrics });
  hub = await openNodeHub({ pki: () => pki }, { ...base, backend, metrics, tunnels });
  const { client } = hub;
  api = hub.api;
  const node = await client.create(nodes, { metadata: { name: "n2" } } as Node);
  await client.updateStatus(nodes, {
    ...node,
    status: {
      addresses: [{ type: "InternalIP", address: nodeIp }],
      daemonEndpoints: { kubeletEndpoint: { Port: nodePort } },
    },
  });
});

afterAll(async () => {
  stop.abort(new Error("the test is over"));
  await Promise.allSettled(running);
  await hub.end();
  nodeApi.closeAllConnections();
  nodeApi.close();
  await backend.close();
  await rm(folder, { recursive: true, force: true });
});

function startAgent(): void {
  const agent = createNodeTunnel(
    {
      host: "127.0.0.1",
      port: api.server.port,
      tls: () => ({
        ca: pki.serverCa.certificate,
        cert: pki.clientKubelet.certificate,
        key: pki.clientKubelet.key,
      }),
      rules: {
        mode: "agent",
        nodeApiPort: nodePort,
        nodeAddresses: [nodeIp],
        clusterCidrs: ["10.42.0.0/16"],
        pods: () => [],
      },
    },
    base,
  );
  running.push(agent.run(stop.signal, () => {}));
}

const ask = (target: string, headers: Record<string, string> = {}) =>
  openUpgrade(
    {
      host: "127.0.0.1",
      port: api.server.port,
      tls: { ca: pki.serverCa.certificate, cert: pki.clientAdmin.certificate, key: pki.clientAdmin.key },
    },
    { method: "GET", target, headers, timeoutMs: 60_000 },
    AbortSignal.timeout(100_000),
  );

async function text(body: AsyncIterable<Uint8Array>): Promise<string> {
  let out = "";
  for await (const part of body) out += Buffer.from(part).toString();
  return out;
}

/** The informer and the tunnel come when they come; before, the server tries the address that leads nowhere. */
async function stands(): Promise<void> {
  for (let i = 0; i < 3000; i++) {
    const found = tunnels.connect("n2", nodePort);
    found?.destroy();
    if (found) return;
    await systemClock.sleep(10);
  }
}

const openStreams = (): number =>
  Number(/^mote_supervisor_tunnel_streams (\d+)$/m.exec(metrics.render())?.[1] ?? Number.NaN);

test("a node behind a tunnel is asked, streams upgrade, and nobody else gets a tunnel", async () => {
  startAgent();
  await stands();
  const answer = await ask("/api/v1/nodes/n2/proxy/configz?x=1");
  expect(answer.status).toBe(200);
  if (isUpgraded(answer)) throw new Error("not asked for");
  expect(await text(answer.body)).toBe("node API: GET /configz?x=1");

  // By address it is the same node; another port of it is not for this mode, nor the server's own node.
  expect(tunnels.connect(nodeIp, nodePort)?.destroy()).toBeDefined();
  expect(tunnels.connect(nodeIp, 80)).toBeUndefined();
  expect(tunnels.connect("n1", 10250)).toBeUndefined();

  const stream = await ask("/api/v1/nodes/n2/proxy/exec", { connection: "Upgrade", upgrade: "echo" });
  if (!isUpgraded(stream)) throw new Error(`answered ${stream.status}`);
  stream.socket.write("through and back");
  const [echoed] = await new Promise<Buffer[]>((resolve) => stream.socket.once("data", (part) => resolve([part])));
  expect(echoed!.toString()).toBe("through and back");
  stream.socket.destroy();

  for (const [pair, status] of [
    [pki.clientAdmin, 403],
    [undefined, 401],
  ] as const) {
    const refused = dialBareWebSocket(
      {
        ...{ host: "127.0.0.1", port: api.server.port, path: connectPath, headers: {} },
        tls: {
          ca: pki.serverCa.certificate,
          ...(pair ? { cert: pair.certificate, key: pair.key } : {}),
        },
        ...{ connectTimeoutMs: 60_000, timeoutMs: 60_000 },
      },
      AbortSignal.timeout(100_000),
    );
    await expect(refused).rejects.toMatchObject({ code: "WEBSOCKET_DIAL", details: { status } });
  }
});

test("100 logs that are followed and 100 streams: whoever goes away takes its stream on the node with it", async () => {
  await stands();
  const target = "/api/v1/nodes/n2/proxy/containerLogs/default/web/main?follow=true";
  const headers = { connection: "Upgrade", upgrade: "echo" };
  const to = {
    host: "127.0.0.1",
    port: api.server.port,
    tls: { ca: pki.serverCa.certificate, cert: pki.clientAdmin.certificate, key: pki.clientAdmin.key },
  };
  for (let round = 0; round < 10; round++) {
    const left = new AbortController();
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        const log = await openUpgrade(to, { method: "GET", target, headers: {}, timeoutMs: 30_000 }, left.signal);
        if (isUpgraded(log)) throw new Error("not asked for");
        // Kept waiting for the second line, until the client goes away.
        const lines = log.body[Symbol.asyncIterator]();
        expect(Buffer.from((await lines.next()).value as Uint8Array).toString()).toBe("the first line\n");
        void lines.next().catch(() => {});
      }),
    );
    const upgraded = await Promise.all(
      Array.from({ length: 10 }, async () => {
        const request = { method: "GET", target: "/api/v1/nodes/n2/proxy/exec", headers, timeoutMs: 30_000 };
        const stream = await openUpgrade(to, request, new AbortController().signal);
        if (!isUpgraded(stream)) throw new Error(`answered ${stream.status}`);
        stream.socket.on("error", () => {});
        return stream.socket;
      }),
    );
    expect([followers, streams, openStreams()]).toEqual([10, 10, 20]);
    left.abort(new Error("the client has gone"));
    for (const socket of upgraded) socket.destroy();
    await until(() => followers === 0 && streams === 0 && openStreams() === 0);
  }
});

test("a client that goes away before the node has answered leaves nothing behind", async () => {
  await stands();
  for (let i = 0; i < 50; i++) {
    const left = new AbortController();
    const asked = openUpgrade(
      {
        host: "127.0.0.1",
        port: api.server.port,
        tls: { ca: pki.serverCa.certificate, cert: pki.clientAdmin.certificate, key: pki.clientAdmin.key },
      },
      { method: "GET", target: "/api/v1/nodes/n2/proxy/x?follow=true", headers: {}, timeoutMs: 30_000 },
      left.signal,
    );
    asked.catch(() => {});
    await systemClock.sleep(i % 25);
    left.abort(new Error("the client has gone"));
    await asked.then(
      () => {},
      () => {},
    );
  }
  await until(() => followers === 0 && openStreams() === 0);
});
