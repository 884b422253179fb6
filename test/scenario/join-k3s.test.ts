// Mixed clusters, as far as they can be played without k3s itself: peers that speak as an agent and as a server of k3s v1.32
// do (test/harness/k3s-agent.ts, k3s-server.ts) against a real server and a real node of mote.
import { X509Certificate } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import * as https from "node:https";
import type { AddressInfo } from "node:net";
import * as net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { ComposedApiServer } from "#apiserver/compose.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Client } from "#client/client.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { isUpgraded, openUpgrade } from "#platform/upgrade-client.ts";
import { type JoinOptions, openMembership } from "#supervisor/join-client.ts";
import { createJoinServer } from "#supervisor/join-server.ts";
import { serverName } from "#supervisor/load-balancer.ts";
import { createNodeTunnel } from "#supervisor/node-tunnel.ts";
import { ensurePki, type Pki } from "#supervisor/pki.ts";
import { formatToken } from "#supervisor/tokens.ts";
import { createTunnels, type Tunnels } from "#supervisor/tunnels.ts";
import { K3sAgent, type K3sAgentOptions } from "#test/harness/k3s-agent.ts";
import { K3sServer, namesOf } from "#test/harness/k3s-server.ts";
import { type NodeHub, openNodeHub } from "#test/harness/node-hub.ts";
import type { Connection, RemoteDialer } from "#test/harness/remotedialer.ts";
import { until } from "#test/harness/until.ts";

const base = { clock: systemClock, random: systemRandom, log: silentLogger };
const password = "of-the-servers";
const stop = new AbortController();
const running: Promise<void>[] = [];
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-k3s-"));
});

afterAll(async () => {
  stop.abort(new Error("the test is over"));
  await Promise.allSettled(running);
  await rm(folder, { recursive: true, force: true });
});

/** Each waits for what it needs, also on a machine that has other things to do. */
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const patience = { timeout: 60_000 };
describe("an agent of k3s joins a server of mote", () => {
  let pki: Pki;
  let backend: Datastore;
  let hub: NodeHub;
  let api: ComposedApiServer;
  let client: Client;
  let tunnels: Tunnels;

  beforeAll(async () => {
    pki = await ensurePki({ folder: join(folder, "tls"), nodeName: "n1", nodeIps: ["127.0.0.1"] }, base);
    backend = await openDatastore({ endpoint: "memory://" }, base);
    const metrics = new Metrics();
    tunnels = createTunnels({ mode: "agent", nodeName: "n1" }, { ...base, metrics });
    hub = await openNodeHub(
      { pki: () => pki, joining: { password, addresses: () => ["192.0.2.1:6443"] }, advertiseAddress: "192.0.2.1" },
      { ...base, backend, metrics, tunnels },
    );
    ({ api, client } = hub);
  });
  afterAll(async () => {
    await hub.end();
    await backend.close();
  });

  const agent = (nodeName: string, more: Partial<K3sAgentOptions> = {}) =>
    new K3sAgent({
      ...{ server: `https://127.0.0.1:${api.server.port}`, nodeName, nodeIp: "192.0.2.7" },
      token: formatToken(pki.serverCa.certificate, "server", password),
      ...more,
    });

  test("from the token to its certificates, and what its parts ask the API for before they start", async () => {
    const one = agent("k3s-1");
    await one.join();
    expect(namesOf(one.serving.cert)).toBe(
      "DNS:k3s-1, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, IP Address:192.0.2.7",
    );
    expect(one.servers).toEqual(["192.0.2.1:6443"]);
    // No cloud controller is waited for.
    expect(one.control).toMatchObject({ DisableCCM: true, SupervisorPort: 6443, HTTPSPort: 6443 });

    const { kubelet, controller, proxy } = one;
    const status = async (...request: Parameters<K3sAgent["api"]>) => (await one.api(...request)).status;
    await expect.poll(() => one.api(kubelet, "GET", "/readyz"), patience).toEqual({ status: 200, text: "ok" });
    expect(await status(controller, "GET", "/readyz")).toBe(200);
    expect(await one.may(controller, { namespace: "default", verb: "list", resource: "endpoints" })).toBe(true);
    // Else flannel would write with an identity that all nodes share.
    expect(await one.may(kubelet, { verb: "list", resource: "nodes" })).toBe(true);
    expect(await one.may(controller, { verb: "patch", resource: "nodes", subresource: "status" })).toBe(false);
    const node = {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name: "k3s-1", labels: { "kubernetes.io/os": "linux" } },
    };
    expect(await status(kubelet, "POST", "/api/v1/nodes", node)).toBe(201);
    const flannel = { metadata: { annotations: { "flannel.alpha.coreos.com/backend-type": "vxlan" } } };
    const own = "/api/v1/nodes/k3s-1";
    const merge = "application/strategic-merge-patch+json";
    expect(await status(kubelet, "PATCH", `${own}/status`, flannel, merge)).toBe(200);
    const { metadata } = JSON.parse((await one.api(kubelet, "GET", own)).text) as { metadata: { annotations: object } };
    expect(metadata.annotations).toMatchObject(flannel.metadata.annotations);
    const marked = {
      metadata: { annotations: { "k3s.io/node-args": '["agent"]', "k3s.io/node-config-hash": "X===" } },
    };
    expect(await status(kubelet, "PATCH", own, marked, merge)).toBe(200);

    const lists: [typeof proxy, string][] = [
      ...["services", "endpoints", "nodes"].map((name): [typeof proxy, string] => [proxy, `/api/v1/${name}`]),
      [proxy, "/apis/discovery.k8s.io/v1/endpointslices"],
      ...["pods", "namespaces", "nodes"].map((name): [typeof proxy, string] => [controller, `/api/v1/${name}`]),
      [controller, "/apis/networking.k8s.io/v1/networkpolicies"],
      [kubelet, "/api/v1/services"],
      [kubelet, "/api/v1/pods?fieldSelector=spec.nodeName%3Dk3s-1"],
    ];
    // From which it knows all servers.
    const named = "/api/v1/namespaces/default/endpoints?fieldSelector=metadata.name%3Dkubernetes";
    expect((await one.api(controller, "GET", named)).text).toMatch(/"ip":"192.0.2.1"/);
    for (const [pair, path] of lists) expect(await status(pair, "GET", path), path).toBe(200);
  });

  test("who comes again, with what name, and with what token", async () => {
    const one = agent("k3s-2");
    await one.join();
    // Its certificate is good, its Node is not there: the token counts.
    await one.join();
    await expect(agent("k3s-2", { nodePassword: "of another device" }).join()).rejects.toThrow(
      "Node password rejected",
    );
    await expect(agent("kubernetes").join()).rejects.toThrow("Node password rejected");
    const { token } = one.options;
    await expect(agent("k3s-3", { token: `${token}x` }).join()).rejects.toThrow("/v1-k3s/config: 401");
    await expect(
      agent("k3s-3", { token: token.replace("K10", "K10ffff").replace(/.{4}::/, "::") }).join(),
    ).rejects.toThrow("token CA hash does not match");
  });

  test("nobody is certified for an address of a server", async () => {
    for (const nodeIp of ["10.43.0.1", "192.0.2.1", "192.0.2.7,::ffff:10.43.0.1"]) {
      const elsewhere = agent("k3s-4", { nodeIp });
      // This one asks from the server's own machine, where a node may live beside it.
      if (nodeIp.includes("ffff")) await expect(elsewhere.join()).rejects.toThrow("no list of addresses");
      else await elsewhere.join();
    }
  });

  describe("its tunnel", () => {
    let one: K3sAgent;
    let kubelet: https.Server;
    let port = 0;
    let tunnel: RemoteDialer;

    beforeAll(async () => {
      one = agent("k3s-5", { nodeIp: "192.0.2.9" });
      await one.join();
      kubelet = https.createServer({ ...one.serving, ca: one.clientCa, requestCert: true, rejectUnauthorized: true });
      kubelet.on("request", (_request, response) => response.end(big));
      kubelet.on("upgrade", (_request, socket) => {
        socket.on("error", () => {});
        socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        socket.pipe(socket);
      });
      await new Promise<void>((resolve) => kubelet.listen(0, "127.0.0.1", resolve));
      port = (kubelet.address() as AddressInfo).port;
      const node = await client.create(nodes, { metadata: { name: "k3s-5" } } as Node);
      await client.updateStatus(nodes, {
        ...node,
        status: {
          addresses: [{ type: "InternalIP", address: "192.0.2.9" }],
          daemonEndpoints: { kubeletEndpoint: { Port: port } },
        },
      });
      tunnel = await one.connect(port, 50);
      await until(() => tunnels.connect("k3s-5", port)?.destroy() !== undefined);
    });
    afterAll(() => {
      tunnel.close();
      kubelet.closeAllConnections();
      kubelet.close();
    });

    /** Many times what its WebSockets send in one part. */
    const big = Buffer.from(Array.from({ length: 1_500_000 }, (_, i) => (i * 7) & 0xff));
    const ask = (target: string, headers: Record<string, string> = {}) =>
      openUpgrade(
        {
          ...{ host: "127.0.0.1", port: api.server.port },
          tls: { ca: pki.serverCa.certificate, cert: pki.clientAdmin.certificate, key: pki.clientAdmin.key },
        },
        { method: "GET", target, headers, timeoutMs: 60_000 },
        AbortSignal.timeout(100_000),
      );

    test("the server reaches the kubelet through it", async () => {
      const answer = await ask("/api/v1/nodes/k3s-5/proxy/logs");
      if (isUpgraded(answer)) throw new Error("not asked for");
      const parts: Uint8Array[] = [];
      for await (const part of answer.body) parts.push(part);
      expect([answer.status, Buffer.concat(parts).equals(big)]).toEqual([200, true]);

      const stream = await ask("/api/v1/nodes/k3s-5/proxy/exec", { connection: "Upgrade", upgrade: "echo" });
      if (!isUpgraded(stream)) throw new Error(`answered ${stream.status}`);
      const back: Buffer[] = [];
      stream.socket.on("data", (part: Buffer) => back.push(part));
      stream.socket.write(big);
      await expect.poll(() => Buffer.concat(back).length, patience).toBe(big.length);
      expect(Buffer.concat(back).equals(big)).toBe(true);
      stream.socket.destroy();
    });

    test("its pings are answered, its lists drop nothing, and addresses that it refuses are never asked of it", async () => {
      const before = tunnel.pongs;
      await expect.poll(() => tunnel.pongs, patience).toBeGreaterThan(before);
      tunnel.sync();
      tunnel.sync();
      // The last would end the tunnel.
      expect(tunnels.connect("192.0.2.9", 22)).toBe(undefined);
      const answer = await ask("/api/v1/nodes/k3s-5/proxy/again");
      expect(answer.status).toBe(200);
      if (!isUpgraded(answer)) for await (const part of answer.body) expect(part.length).toBeGreaterThan(0);
    });
  });
});

describe("a node of mote joins a server of k3s", () => {
  let server: K3sServer;
  beforeAll(async () => {
    server = await K3sServer.start({ password });
  });
  afterAll(() => server.stop());

  const device = (name: string, more: Partial<JoinOptions> = {}): JoinOptions => ({
    ...{ server: server.url, token: server.token, nodeName: name, nodeIps: ["192.0.2.9", "2001:db8::9"] },
    ...{ folder: join(folder, name, "agent"), passwordFile: join(folder, name, "password") },
    ...more,
  });

  test("settings, and an identity for each of k3s's rights", async () => {
    const { current } = await openMembership(device("mote-1"), base, stop.signal);
    expect(current.settings).toEqual({
      ...{ clusterCidr: "10.42.0.0/16", serviceCidr: "10.43.0.0/16", clusterDns: ["10.43.0.10"] },
      ...{ clusterDomain: "cluster.local", egressMode: "agent", flannelBackend: "vxlan", isMote: false },
      ...{ flannelExternalIp: false, flannelIpv6Masq: false, hasServiceProxy: true },
    });
    const subject = (pair: { certificate: string } | undefined) => new X509Certificate(pair!.certificate).subject;
    expect([current.kubelet, current.controller, current.proxy].map(subject)).toEqual([
      "O=system:nodes\nCN=system:node:mote-1",
      "CN=system:k3s-controller",
      "CN=system:kube-proxy",
    ]);
    expect(server.nodeIps.get("mote-1")).toBe("192.0.2.9,2001:db8::9");
    expect(server.asked.filter((line) => line.includes("kubelet"))).toEqual([
      "POST /v1-k3s/serving-kubelet.crt",
      "POST /v1-k3s/client-kubelet.crt",
    ]);
    // At the next start nothing is asked for again but what may have changed.
    server.asked.length = 0;
    const again = await openMembership(device("mote-1", { token: undefined }), base, stop.signal);
    expect(again.current).toEqual(current);
    server.nodes.add("mote-1");
    await again.catchUp();
    expect(server.asked.filter((line) => line.startsWith("POST"))).toEqual([]);
  });

  test("an older one makes the keys itself", async () => {
    const old = await K3sServer.start({ password, makesKeys: true });
    try {
      const options = device("mote-2", { server: old.url, token: old.token });
      const { current } = await openMembership(options, base, stop.signal);
      expect(new X509Certificate(current.kubelet.certificate).subject).toContain("system:node:mote-2");
    } finally {
      await old.stop();
    }
  });

  test("by an address that its certificate does not name, as through NAT", async () => {
    const nat = net.createServer((socket) => {
      const to = net.connect(server.port, "127.0.0.1");
      for (const one of [socket, to]) one.on("error", () => one.destroy());
      socket.pipe(to).pipe(socket);
    });
    await new Promise<void>((resolve) => nat.listen(0, "127.0.0.2", resolve));
    const outside = `https://127.0.0.2:${(nat.address() as AddressInfo).port}`;
    const { current } = await openMembership(device("mote-9", { server: outside }), base, stop.signal);
    expect(new X509Certificate(current.kubelet.certificate).subject).toContain("system:node:mote-9");
    nat.close();
  });

  test("its refusals say what to do", async () => {
    const failed = (options: JoinOptions) => expect(openMembership(options, base, stop.signal)).rejects;
    await failed(device("mote-3", { token: `${server.token}x` })).toMatchObject({ code: "JOIN_TOKEN" });
    server.passwords.set("taken", "of another device");
    await failed(device("mote-4", { nodeName: "taken" })).toMatchObject({
      code: "JOIN_NAME",
      message: expect.stringMatching(/hash does not match.*--node-name, or delete the Node/),
    });
  });

  test("one that is starting is waited for", async () => {
    server.isReady = false;
    const problems: string[] = [];
    const deps = { ...base, onProblem: (text: string) => void problems.push(text) };
    const waiting = openMembership(device("mote-5"), deps, stop.signal);
    await expect.poll(() => problems.join(), patience).toContain("runtime core not ready");
    server.isReady = true;
    expect((await waiting).current.proxy).toBeDefined();
  });

  describe("its tunnel", () => {
    let echo: net.Server;
    let port = 0;
    let tunnel: RemoteDialer;
    const end = new AbortController();
    let run: Promise<void>;

    beforeAll(async () => {
      echo = net.createServer((socket) => {
        socket.on("error", () => {});
        socket.pipe(socket);
      });
      await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
      port = (echo.address() as AddressInfo).port;
      const { current } = await openMembership(device("mote-6"), base, stop.signal);
      const { kubelet, serverCa } = current;
      const node = createNodeTunnel(
        {
          ...{ host: "127.0.0.1", port: server.port },
          tls: () => ({ ca: serverCa, cert: kubelet.certificate, key: kubelet.key, trust: "keys", serverName }),
          rules: {
            ...{ mode: "agent", nodeApiPort: port, nodeAddresses: ["192.0.2.9"], clusterCidrs: ["10.42.0.0/16"] },
            pods: () => [],
          },
        },
        base,
      );
      run = node.run(end.signal, () => {});
      await until(() => server.tunnels.has("mote-6"));
      tunnel = server.tunnels.get("mote-6")![0]!;
    });
    afterAll(async () => {
      end.abort(new Error("enough"));
      await run;
      echo.close();
    });

    const readAll = async (connection: Connection, size: number): Promise<Buffer> => {
      const parts: Buffer[] = [];
      for (let have = 0; have < size; ) {
        const part = await connection.read();
        if (!part) throw new Error(`ended: ${connection.endedBy}`);
        have += part.length;
        parts.push(part);
      }
      return Buffer.concat(parts);
    };

    test("bytes go there and back, more than either end holds", async () => {
      const bytes = systemRandom.bytes(9_000_000);
      const connection = tunnel.dial("tcp", `127.0.0.1:${port}`);
      // Sent before anybody could say that it stands.
      const written = connection.write(bytes);
      expect((await readAll(connection, bytes.length)).equals(Buffer.from(bytes))).toBe(true);
      await written;
      connection.close();
      // Known here no more, and told so once.
      expect(connection.endedBy).toBe("EOF");
    });

    test("what is refused ends that stream alone, and says why", async () => {
      const refused = tunnel.dial("tcp", "127.0.0.1:22");
      expect(await refused.read()).toBe(undefined);
      expect(refused.endedBy).toBe("connect not allowed");
      const still = tunnel.dial("tcp", `127.0.0.1:${port}`);
      await still.write(Buffer.from("still here"));
      expect((await readAll(still, 10)).toString()).toBe("still here");
      still.close();
    });
  });
});

describe("a place on the wire that was stolen", () => {
  let server: K3sServer;
  let thief: https.Server;
  const heard: string[] = [];

  beforeAll(async () => {
    server = await K3sServer.start({ password });
    // k3s certifies a node for any address: this one says that it is where the server is.
    const options: JoinOptions = {
      ...{ server: server.url, token: server.token, nodeName: "thief", nodeIps: ["127.0.0.1", "192.0.2.1"] },
      ...{ folder: join(folder, "thief", "agent"), passwordFile: join(folder, "thief", "password") },
    };
    const { current } = await openMembership(options, base, stop.signal);
    thief = https.createServer({ cert: current.serving.certificate, key: current.serving.key }, (request, response) => {
      heard.push(`${request.method} ${request.url} ${request.headers.authorization ?? "-"}`);
      response.end(request.url === "/cacerts" ? server.serverCa.cert : "{}");
    });
    thief.on("upgrade", (request, socket) => {
      heard.push(`UPGRADE ${request.url}`);
      socket.destroy();
    });
    await new Promise<void>((resolve) => thief.listen(0, "127.0.0.1", resolve));
  });
  afterAll(async () => {
    thief.closeAllConnections();
    thief.close();
    await server.stop();
  });
  const place = () => `https://127.0.0.1:${(thief.address() as AddressInfo).port}`;
  const victim = (name: string): JoinOptions => ({
    ...{ server: place(), token: server.token, nodeName: name, nodeIps: ["192.0.2.9"] },
    ...{ folder: join(folder, name, "agent"), passwordFile: join(folder, name, "password") },
  });

  test("by its address it would be taken for the server: an agent of k3s gives it the token", async () => {
    const agent = new K3sAgent({ server: place(), token: server.token, nodeName: "k3s-9", nodeIp: "192.0.2.8" });
    await expect(agent.join()).rejects.toThrow("incomplete network information");
    expect(heard.join("\n")).toMatch(/GET \/v1-k3s\/config Basic /);
  });

  test("a node that joins tells it nothing", async () => {
    heard.length = 0;
    await expect(openMembership(victim("mote-7"), base, stop.signal)).rejects.toMatchObject({
      code: "JOIN_HOST",
      message: expect.stringContaining("not one of a server"),
    });
    expect(new Set(heard)).toEqual(new Set(["GET /cacerts -"]));
  });

  test("nor does one that has joined, in its requests or its tunnel", async () => {
    const real = await openMembership({ ...victim("mote-8"), server: server.url }, base, stop.signal);
    heard.length = 0;
    const again = await openMembership(victim("mote-8"), base, stop.signal);
    await again.catchUp();
    const { kubelet, serverCa } = real.current;
    const tries: string[] = [];
    const end = new AbortController();
    const log = { ...silentLogger, warn: (_: string, fields?: object) => void tries.push(JSON.stringify(fields)) };
    const tunnel = createNodeTunnel(
      {
        ...{ host: "127.0.0.1", port: Number(new URL(place()).port) },
        tls: () => ({ ca: serverCa, cert: kubelet.certificate, key: kubelet.key, trust: "keys", serverName }),
        rules: { mode: "agent", nodeApiPort: 1, nodeAddresses: [], clusterCidrs: [], pods: () => [] },
      },
      { ...base, log },
    );
    const run = tunnel.run(end.signal, () => {});
    await expect.poll(() => tries.join(), patience).toContain("does not name kubernetes");
    end.abort(new Error("enough"));
    await run;
    expect(heard).toEqual([]);
  });
});

test("what a server of mote that stands elsewhere certifies nobody for", async () => {
  const tls = join(folder, "elsewhere");
  const pki = await ensurePki({ folder: tls, nodeName: "hub", nodeIps: ["198.51.100.1"] }, base);
  const answers = async (remoteAddress: string, ips: string): Promise<number> => {
    const joining = createJoinServer(
      {
        ...{
          pki: () => pki,
          password,
          ownNode: undefined,
          keepPassword: async () => {},
          keepAuthorities: async () => {},
        },
        ...{ settings: { clusterDomain: "cluster.local" } as never, addresses: () => ["198.51.100.2:6443"] },
      },
      {
        ...{ ...base, authenticate: async () => undefined, isReady: () => true },
        client: () => {
          throw new Error("there is no API here");
        },
      },
    );
    let status = 0;
    const headers = {
      authorization: `Basic ${Buffer.from(`node:${password}`).toString("base64")}`,
      ...{ "k3s-node-name": "n1", "k3s-node-password": "x", "k3s-node-ip": ips },
    };
    const request = { method: "GET", target: "/v1-k3s/serving-kubelet.crt", headers, remoteAddress };
    const response = {
      head(code: number) {
        status = code;
      },
      end() {},
    };
    await joining.handle(request as never, response as never);
    return status;
  };
  expect(await answers("::ffff:192.0.2.9", "192.0.2.9,2001:db8::9")).not.toBe(400);
  for (const ip of ["198.51.100.1", "198.51.100.2", "10.43.0.1", "192.0.2.9,198.51.100.1"])
    expect(await answers("192.0.2.9", ip), ip).toBe(400);
  // Beside a server, and at its machine.
  expect(await answers("198.51.100.2", "198.51.100.2")).not.toBe(400);
  expect(await answers("127.0.0.1", "198.51.100.1")).not.toBe(400);
});
