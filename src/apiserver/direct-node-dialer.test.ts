import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { notFound } from "#model/status.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { ensurePki, type Pki } from "#supervisor/pki.ts";
import { createDirectNodeDialer } from "./direct-node-dialer.ts";
import { answerOf } from "./node-dialer.fixture.ts";

let folder = "";
let pki: Pki;
let server: Server;
let port = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-dialer-"));
  pki = await ensurePki(
    { folder, nodeName: "n1", nodeIps: ["127.0.0.1"] },
    { clock: systemClock, random: systemRandom, log: silentLogger },
  );
  server = createServer(
    {
      cert: pki.servingKubelet.certificate,
      key: pki.servingKubelet.key,
      requestCert: true,
      ca: pki.clientCa.certificate,
    },
    (request, response) => {
      if (request.url === "/redirect") {
        response.writeHead(302, { location: "https://127.0.0.1:1/elsewhere" });
        response.end();
      } else
        response.end(`${request.method} ${request.url} ${"authorized" in request.socket && request.socket.authorized}`);
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

const nodeAt = (address: string | undefined, at: number): Node =>
  ({
    metadata: { name: "n1" },
    spec: {},
    status: {
      addresses:
        address === undefined
          ? []
          : [
              { type: "Hostname", address: "n1.invalid" },
              { type: "InternalIP", address },
            ],
      daemonEndpoints: { kubeletEndpoint: { Port: at } },
    },
  }) as unknown as Node;

async function ask(node: Node | undefined, target: string, serverCaPem = pki.serverCa.certificate): Promise<string> {
  const dialer = createDirectNodeDialer(
    {
      serverCaPem,
      client: () => pki.clientApiserver,
    },
    {
      clock: systemClock,
      getNode: async (name) => node ?? Promise.reject(notFound({ group: "", resource: "nodes" }, name)),
    },
  );
  return answerOf(dialer, target);
}

test("asks the node at its internal address, with the API server's certificate", async () => {
  expect(await ask(nodeAt("127.0.0.1", port), "/pods?x=1")).toBe("200 GET /pods?x=1 true");
});

test("a redirect is an answer like any other", async () => {
  expect(await ask(nodeAt("127.0.0.1", port), "/redirect")).toBe("302 ");
});

test.each([
  ["no such node", () => ask(undefined, "/"), /^404 nodes "n1" not found/],
  [
    "no address",
    () => ask({ ...nodeAt(undefined, 1), status: { addresses: [] } } as unknown as Node, "/"),
    /^503 error dialing backend: node n1: it has no address of type InternalIP/,
  ],
  [
    "nobody listens",
    () => ask(nodeAt("127.0.0.1", 1), "/"),
    /^503 error dialing backend: node n1: dial tcp 127.0.0.1:1: .*ECONNREFUSED/,
  ],
  [
    "somebody else's certificate",
    () => ask(nodeAt("127.0.0.1", port), "/", pki.clientCa.certificate),
    /^503 error dialing backend: node n1: .*certificate/,
  ],
])("%s", async (_name, attempt, expected) => {
  expect(await attempt()).toMatch(expected);
});
