// Servers reach each other's nodes: a node whose tunnel ends at another server, and the node of that server itself.
import * as net from "node:net";
import { afterEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { systemClock } from "#platform/clock.ts";
import { type Duplex, type HttpsServer, openHttpsServer } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { createNodeTunnel } from "./node-tunnel.ts";
import { createTunnels, type Tunnels } from "./tunnels.ts";

const deps = { clock: systemClock, random: systemRandom, log: silentLogger };
const tls = () => ({ ca: localhostTls.certificatePem });
const ends: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

interface Server {
  readonly tunnels: Tunnels;
  readonly door: HttpsServer;
  readonly address: string;
}

/** The door believes everybody the name in a header. */
async function server(nodeName: string, known: readonly Node[], peerToken?: string): Promise<Server> {
  const tunnels = createTunnels(
    { mode: "agent", nodeName, ...(peerToken === undefined ? {} : { peerToken }) },
    { ...deps, metrics: new Metrics() },
  );
  const door = await openHttpsServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, log: silentLogger },
    {
      async request(_request, response) {
        response.head(404, {});
        response.end();
      },
      async upgrade(upgrade) {
        if (tunnels.acceptPeer(upgrade)) return;
        const node = upgrade.request.headers["x-test-node"];
        if (typeof node === "string") tunnels.acceptNode(upgrade, node);
        else upgrade.socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
      },
    },
  );
  const store = {
    get: (name: string) => known.find(({ metadata }) => metadata.name === name),
    byIndex: () => [],
    addIndex() {},
  };
  tunnels.watch({ informer: () => store } as unknown as InformerFactory);
  ends.push(() => door.close(0));
  return { tunnels, door, address: `127.0.0.1:${door.port}` };
}

function run(service: { run(signal: AbortSignal, ready: () => void): Promise<void> }): void {
  const stop = new AbortController();
  const running = service.run(stop.signal, () => {});
  ends.push(async () => {
    stop.abort(new Error("stopped"));
    await running;
  });
}

/** A node API that says who it is. */
async function nodeApi(name: string): Promise<number> {
  const listener = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.end(name);
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  ends.push(() => void listener.close());
  return (listener.address() as net.AddressInfo).port;
}

const nodeOf = (name: string, port: number): Node =>
  ({ metadata: { name }, status: { daemonEndpoints: { kubeletEndpoint: { Port: port } } } }) as Node;

const textOf = (stream: Duplex): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = "";
    stream.on("data", (data: Buffer) => {
      text += data.toString();
    });
    stream.once("end", () => resolve(text));
    stream.once("error", reject);
  });

/** As soon as there is a way. */
async function reach(from: Tunnels, node: string, port: number): Promise<string> {
  for (let tries = 0; tries < 300; tries++) {
    const stream = from.connect(node, port);
    if (stream) return textOf(stream);
    await systemClock.sleep(50);
  }
  throw new Error(`there is no way to ${node}`);
}

test("a node whose tunnel ends at another server is reached through that one", async () => {
  const port = await nodeApi("leaf");
  const known = [nodeOf("leaf", port)];
  const [a, b] = [await server("a", known, "secret"), await server("b", known, "secret")];
  run(b.tunnels.relay({ address: a.address, own: b.address, hasNode: true, tls }));
  const target = { host: "127.0.0.1", port: b.door.port };
  const rules = { mode: "agent", nodeApiPort: port, nodeAddresses: [], clusterCidrs: [], pods: () => [] } as const;
  // A node has no say in what it is called; here the header has.
  run(createNodeTunnel({ ...target, tls, rules, headers: { "x-test-node": "leaf" } } as never, deps));
  expect(await reach(b.tunnels, "leaf", port)).toBe("leaf");
  expect(await reach(a.tunnels, "leaf", port)).toBe("leaf");
});

test("the node of another server is reached, at its node API alone", async () => {
  const known = [nodeOf("b", 10250)];
  const [a, b] = [await server("a", known, "secret"), await server("b", known, "secret")];
  run(b.tunnels.relay({ address: a.address, own: b.address, hasNode: true, tls }));
  const port = await nodeApi("something else");
  let stream: Duplex | undefined;
  for (let tries = 0; tries < 300 && !stream; tries++) {
    stream = a.tunnels.connect("b", port);
    if (!stream) await systemClock.sleep(50);
  }
  await expect(textOf(stream!)).rejects.toThrow(/connect not allowed/);
});

test("who does not know the secret is no server", async () => {
  const known = [nodeOf("b", 10250)];
  const [a, b] = [await server("a", known, "secret"), await server("b", known, "another")];
  run(b.tunnels.relay({ address: a.address, own: b.address, hasNode: true, tls }));
  await systemClock.sleep(300);
  expect(a.tunnels.connect("b", 10250)).toBeUndefined();
});
