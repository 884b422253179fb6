// The way from the API server to a node in the moments after something has changed: an address, the tunnel, a clock, the
// authorities. Real TLS between the dialer and the node API or a server in its place.
import { X509Certificate } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { createNodeServer } from "#node/server.ts";
import { systemClock } from "#platform/clock.ts";
import { createHttp2Client } from "#platform/http2-client.ts";
import type { Duplex } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import { nextAuthorities } from "#supervisor/authorities.ts";
import { generateKey, issueCertificate, splitPem } from "#supervisor/pki/certificate.ts";
import { ensurePki, type KeyPair, type Pki } from "#supervisor/pki.ts";
import { clientCertificates } from "./client-certificates.ts";
import { createDirectNodeDialer } from "./direct-node-dialer.ts";
import { answerOf } from "./node-dialer.fixture.ts";
import { nodeIdentityProblem } from "./node-identity.ts";

const base = { clock: systemClock, random: systemRandom, log: silentLogger };
const dayMs = 24 * 3600_000;
let folder = "";
let pki: Pki;
const servers: Server[] = [];
const asked: string[] = [];

interface Certified {
  readonly commonName: string;
  readonly organizations?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly ips?: readonly string[];
  readonly usage?: "server" | "client";
  readonly notAfterMs?: number;
}

/** As the supervisor certifies a node, unless it is said otherwise. */
function certify(what: Certified, authority: KeyPair = pki.serverCa): KeyPair {
  const key = generateKey();
  const order = { usage: "server", notBeforeMs: 0, notAfterMs: systemClock.now() + 300 * dayMs, ...what } as const;
  const [signer = ""] = splitPem(authority.certificate);
  const leaf = issueCertificate(order, key, { certificate: signer, key: authority.key }, systemRandom);
  return { certificate: leaf + authority.certificate, key };
}
const ofNode = (name: string, ips: readonly string[] = ["127.0.0.1"]): Certified => ({
  ...{ commonName: name, dnsNames: [name], ips },
});

async function serve({ certificate, key }: KeyPair): Promise<number> {
  const server = createServer(
    { cert: certificate, key, requestCert: true, rejectUnauthorized: false },
    (request, response) => {
      asked.push(request.url ?? "");
      if (request.url === "/cut") request.socket.destroy();
      else response.end(`it is ${request.url}`);
    },
  );
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** Below those that are given to whoever asks for any: nobody listens there. */
const closedPort = 1;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-node-way-"));
  pki = await ensurePki({ folder, nodeName: "hub", nodeIps: ["127.0.0.1"] }, base);
});
afterAll(async () => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
  await rm(folder, { recursive: true, force: true });
});

interface Way {
  readonly address?: string;
  readonly port: number;
  /** Of its Ready condition. */
  readonly ready?: "True" | "Unknown";
  readonly tunnel?: (port: number) => Duplex | undefined;
  readonly clock?: typeof systemClock;
  readonly client?: KeyPair;
  readonly serverCa?: string;
}

async function ask(target: string, way: Way): Promise<string> {
  const node = {
    metadata: { name: "n1" },
    status: {
      addresses: [{ type: "InternalIP", address: way.address ?? "127.0.0.1" }],
      conditions: [{ type: "Ready", status: way.ready ?? "True" }],
      daemonEndpoints: { kubeletEndpoint: { Port: way.port } },
    },
  } as unknown as Node;
  const dialer = createDirectNodeDialer(
    { serverCaPem: way.serverCa ?? pki.serverCa.certificate, client: () => way.client ?? pki.clientApiserver },
    {
      clock: way.clock ?? systemClock,
      getNode: async () => node,
      ...(way.tunnel ? { connect: (_node, port) => way.tunnel?.(port) } : {}),
    },
  );
  return answerOf(dialer, target);
}

/** To this machine, whatever the node's address is. */
const tunnel = (port: number): Duplex => connect({ host: "127.0.0.1", port });
/** Goes on by what waits should have taken, which take nothing, and by nothing else. */
function quickClock() {
  let skippedMs = 0;
  return {
    ...systemClock,
    monotonicMs: () => skippedMs,
    async sleep(ms: number) {
      skippedMs += ms;
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

test("a node that has moved is reached by its name, through a tunnel and plainly", async () => {
  const port = await serve(certify(ofNode("n1", ["192.0.2.1"])));
  expect(await ask("/moved", { port, tunnel, address: "192.0.2.2" })).toBe("200 it is /moved");
  expect(await ask("/moved", { port })).toBe("200 it is /moved");
});

test("no node is taken for another, whatever address it says it has", async () => {
  const port = await serve(certify(ofNode("n2", ["127.0.0.1", "192.0.2.2"])));
  const refused = "503 error dialing backend: node n1: GET 127.0.0.1";
  const why = "the certificate that node n1 shows is that of node n2";
  expect(await ask("/x", { port })).toBe(`${refused}:${port}: ${why}`);
  expect(await ask("/x", { port, tunnel })).toBe(`${refused}:${port}: ${why}`);
  expect(asked).not.toContain("/x");
});

test("a certificate that has ended does in a tunnel, whose node has proven itself, and not elsewhere", async () => {
  const port = await serve(certify({ ...ofNode("n1"), notAfterMs: systemClock.now() - dayMs }));
  expect(await ask("/ended", { port, tunnel, address: "192.0.2.2" })).toBe("200 it is /ended");
  expect(await ask("/ended", { port })).toMatch(/^503 error dialing backend: node n1: .*certificate has expired/);
  const stranger = await serve(certify(ofNode("n1"), pki.clientCa));
  expect(await ask("/x", { port: stranger, tunnel })).toMatch(/^503 .* of an authority that is not known/);
});

test("a node whose tunnel is not there yet is waited for", async () => {
  const port = await serve(certify(ofNode("n1")));
  let looks = 0;
  const late = () => (++looks > 5 ? tunnel(port) : undefined);
  const clock = quickClock();
  expect(await ask("/late", { port: closedPort, tunnel: late, clock })).toBe("200 it is /late");
  expect(looks).toBe(6);
});

test("waiting ends, and for a node that nobody hears of it does not begin", async () => {
  const port = closedPort;
  let looks = 0;
  const never = () => {
    looks++;
    return undefined;
  };
  const clock = quickClock();
  const startMs = clock.monotonicMs();
  const refused = /^503 error dialing backend: node n1: dial tcp 127.0.0.1:\d+: .*ECONNREFUSED/;
  expect(await ask("/x", { port, tunnel: never, clock })).toMatch(refused);
  expect(clock.monotonicMs() - startMs).toBeGreaterThanOrEqual(5000);
  expect(looks).toBeGreaterThan(10);
  looks = 0;
  // Once before the dialing, and as long as that goes on.
  expect(await ask("/x", { port, tunnel: never, ready: "Unknown" })).toMatch(refused);
  expect(looks).toBeLessThan(10);
});

test("a tunnel that is cut before the request has gone out is tried again, and none is sent twice", async () => {
  const port = await serve(certify(ofNode("n1")));
  let dials = 0;
  const cut = () => {
    const socket = tunnel(port);
    if (++dials <= 2) socket.destroy(new AppError("TUNNEL_DISCONNECT", "the other end began anew"));
    return socket;
  };
  expect(await ask("/again", { port, tunnel: cut, clock: quickClock() })).toBe("200 it is /again");
  expect([dials, asked.filter((url) => url === "/again").length]).toEqual([3, 1]);
  expect(await ask("/cut", { port, tunnel, clock: quickClock() })).toMatch(/^503 .*socket hang up/);
  expect(asked.filter((url) => url === "/cut").length).toBe(1);
});

test.each<[string, Certified, string | undefined]>([
  ["of a node of k3s or mote", ofNode("n1", []), undefined],
  ["of another, with its address", ofNode("n2", ["192.0.2.1"]), "is that of node n2"],
  ["asked for by the kubelet", { commonName: "system:node:n1", organizations: ["system:nodes"] }, undefined],
  [
    "asked for by another kubelet",
    { commonName: "system:node:n2", organizations: ["system:nodes"], dnsNames: ["n1"], ips: ["192.0.2.1"] },
    "is that of node n2",
  ],
  ["from elsewhere, with the address", { commonName: "some kubelet", ips: ["192.0.2.1"] }, undefined],
  ["from elsewhere, with the host's name", { commonName: "h.test", dnsNames: ["h.test"] }, undefined],
  ["from elsewhere, with another address", { commonName: "some kubelet", ips: ["192.0.2.3"] }, "names neither it nor"],
  ["with a name that is only in the subject", { commonName: "n1" }, "names neither it nor"],
  ["for every name", { commonName: "x", dnsNames: ["*"] }, "names neither it nor"],
  ["for clients", { ...ofNode("n1"), usage: "client" }, "is not meant for servers"],
  [
    "of a server",
    { commonName: "kube-apiserver", dnsNames: ["kubernetes"], ips: ["192.0.2.1"] },
    "is that of a server",
  ],
  ["of this node's server", { commonName: "kube-apiserver", dnsNames: ["kubernetes", "n1"] }, "is that of a server"],
])("a certificate %s", (_, what, problem) => {
  const leaf = new X509Certificate(certify(what).certificate);
  // A Node says whatever it likes.
  const said = nodeIdentityProblem(leaf, { name: "n1", addresses: ["", "n\u00002", "1.2.3", "192.0.2.1", "h.test"] });
  if (problem === undefined) expect(said).toBe(undefined);
  else expect(said).toContain(problem);
});

test("new authorities are believed by nodes that do not know them, and those are told that there are some", async () => {
  const old = {
    ...{ ServerCA: pki.serverCa.certificate, ServerCAKey: pki.serverCa.key },
    ...{ ClientCA: pki.clientCa.certificate, ClientCAKey: pki.clientCa.key },
  };
  const next = nextAuthorities(nextAuthorities(old, systemClock.now(), systemRandom), systemClock.now(), systemRandom);
  const pairOf = (certificate = "", key = ""): KeyPair => ({ certificate, key });
  const admin = { commonName: "system:apiserver", organizations: ["system:masters"], usage: "client" } as const;
  const client = certify(admin, pairOf(next.ClientCA, next.ClientCAKey));
  const vouched: number[] = [];
  const byCertificate = clientCertificates(pki.clientCa.certificate, { ...base, onVouched: () => vouched.push(1) });
  let port = 0;
  const stop = new AbortController();
  let served: Promise<void> = Promise.resolve();
  await new Promise<void>((resolve, reject) => {
    const { certificate, key } = certify(ofNode("n1"));
    served = createNodeServer(
      { host: "127.0.0.1", port: 0, tls: () => ({ certificatePem: certificate, keyPem: key }) },
      {
        ...base,
        lookup: { pods: () => [] } as never,
        authenticate: async ({ clientCertificate, clientIntermediates }) =>
          byCertificate(clientCertificate, clientIntermediates ?? (() => [])),
        metrics: () => "own 1\n",
        listening: (at) => {
          port = at.port;
        },
      },
    ).run(stop.signal, resolve);
    served.catch(reject);
  });
  const serverCa = next.ServerCA ?? "";
  expect(await ask("/metrics", { port, client, serverCa })).toBe("200 own 1\n");
  expect(await ask("/metrics", { port, client, serverCa, tunnel })).toBe("200 own 1\n");
  expect(vouched).toEqual([1]);
  const alone = { ...client, certificate: splitPem(client.certificate)[0] ?? "" };
  const fresh = { ...certify(admin, pairOf(next.ClientCA, next.ClientCAKey)) };
  const freshAlone = { ...fresh, certificate: splitPem(fresh.certificate)[0] ?? "" };
  expect(await ask("/metrics", { port, client: freshAlone, serverCa })).toBe("401 Unauthorized");
  // One that was seen with what vouches for it is known.
  expect(await ask("/metrics", { port, client: alone, serverCa })).toBe("200 own 1\n");
  // The same over HTTP/2, as nodes come to servers that were not started again yet.
  const { certificate: cert, key } = certify(admin, pairOf(next.ClientCA, next.ClientCAKey));
  const http2 = createHttp2Client({ baseUrl: `https://127.0.0.1:${port}`, ca: serverCa, cert, key });
  const { status } = await http2.send(
    { method: "GET", path: "/metrics", headers: {}, idleTimeoutMs: 30_000 },
    stop.signal,
  );
  expect([status, vouched.length]).toEqual([200, 2]);
  http2.close();
  stop.abort(new Error("the test is over"));
  await served;
});
