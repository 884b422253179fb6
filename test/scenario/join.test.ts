// A node joins: real certificates, TLS, passwords and authorisation, from the token to the first request as a node.
import { X509Certificate } from "node:crypto";
import { copyFile, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { createServer as createHttpsServer } from "node:https";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { ComposedApiServer } from "#apiserver/compose.ts";
import { createLogger, silentLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import { createHttpTransport } from "#client/http-transport.ts";
import { InformerFactory } from "#client/informer.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import { token } from "#entry/token.ts";
import type { Namespace, Node, Secret } from "#model/gen/core-v1.ts";
import { namespaces, nodes, secrets } from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { createHttpClient, readBody } from "#platform/http-client.ts";
import { systemRandom } from "#platform/random.ts";
import { type JoinOptions, openMembership } from "#supervisor/join-client.ts";
import { claimWithNode } from "#supervisor/name-claim.ts";
import { ensurePki, type Pki } from "#supervisor/pki.ts";
import { formatToken } from "#supervisor/tokens.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { hubSettings, type NodeHub, openNodeHub } from "#test/harness/node-hub.ts";

const base = { clock: systemClock, random: systemRandom, log: silentLogger };
const password = "hush";
let folder = "";
let pki: Pki;
let backend: Datastore;
let hub: NodeHub;
let api: ComposedApiServer;
let client: Client;
let isReady = true;
let flannelBackend = "vxlan";
const kept: string[] = [];
const stop = new AbortController();
const running: Promise<void>[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-join-"));
  pki = await ensurePki({ folder: join(folder, "tls"), nodeName: "n1", nodeIps: ["127.0.0.1"] }, base);
  backend = await openDatastore({ endpoint: "memory://" }, base);
  hub = await openNodeHub(
    {
      pki: () => pki,
      joining: {
        password,
        keepPassword: async (next) => void kept.push(next),
        keepAuthorities: async ({ body, isForced }) => void kept.push(`${isForced} ${body}`),
        settings: {
          ...hubSettings,
          get flannelBackend() {
            return flannelBackend;
          },
        },
      },
      isReady: () => isReady,
    },
    { ...base, backend },
  );
  ({ api, client } = hub);
  await client.create(namespaces, { metadata: { name: "kube-system" } } as Namespace);
});

afterAll(async () => {
  stop.abort(new Error("the test is over"));
  await Promise.allSettled(running);
  await hub.end();
  await backend.close();
  await rm(folder, { recursive: true, force: true });
});

const fullToken = () => formatToken(pki.serverCa.certificate, "server", password);

/** A device: its folders are its own. */
const device = (name: string, more: Partial<JoinOptions> = {}): JoinOptions => ({
  server: `https://127.0.0.1:${api.server.port}`,
  token: fullToken(),
  folder: join(folder, name, "agent"),
  passwordFile: join(folder, name, "password"),
  nodeName: name,
  nodeIps: ["192.0.2.9"],
  ...more,
});

async function ask(
  path: string,
  headers: Record<string, string> = {},
  more: { method?: string; body?: Uint8Array; cert?: string; key?: string } = {},
): Promise<{ status: number; text: string }> {
  const { cert, key } = more;
  const http = createHttpClient({
    baseUrl: `https://127.0.0.1:${api.server.port}`,
    ca: pki.serverCa.certificate,
    ...(cert && key ? { cert, key } : {}),
  });
  try {
    const { method = "GET", body } = more;
    const response = await http.send({ method, path, headers, idleTimeoutMs: 30_000, ...(body ? { body } : {}) });
    return { status: response.status, text: (await readBody(response, 1e6)).toString("utf8") };
  } finally {
    http.close();
  }
}

const basic = (pair: string) => ({ authorization: `Basic ${Buffer.from(pair).toString("base64")}` });
const member = () => basic(`node:${password}`);

test("from the token to a request as a node, and again without a server", async () => {
  const membership = await openMembership(device("n2"), base, stop.signal);
  const { kubelet, serving, controller, settings, serverCa } = membership.current;
  expect(settings).toEqual({
    ...{ clusterCidr: "10.42.0.0/16", serviceCidr: "10.43.0.0/16", clusterDns: ["10.43.0.10"] },
    ...{
      clusterDomain: "cluster.local",
      egressMode: "agent",
      hasServiceProxy: true,
      flannelBackend: "vxlan",
      flannelExternalIp: false,
      flannelIpv6Masq: false,
      isMote: true,
    },
  });
  expect(membership.current.proxy).toBe(undefined);
  expect(new X509Certificate(kubelet.certificate).subject).toBe("O=system:nodes\nCN=system:node:n2");
  expect(new X509Certificate(controller.certificate).subject).toBe("CN=system:k3s-controller");
  expect(new X509Certificate(serving.certificate).subjectAltName).toBe(
    "DNS:n2, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, IP Address:192.0.2.9",
  );
  const http = createHttpClient({
    baseUrl: `https://127.0.0.1:${api.server.port}`,
    ...{ ca: serverCa, cert: kubelet.certificate, key: kubelet.key },
  });
  const node = await new Client(createHttpTransport({ userAgent: "test" }, { http })).create(nodes, {
    ...{ apiVersion: "v1", kind: "Node", metadata: { name: "n2" } },
  } as Node);
  expect(node.metadata.uid).toBeTruthy();
  http.close();

  const secret: Secret = await client.get(secrets, "n2.node-password.k3s", "kube-system");
  expect([secret.type, secret.immutable]).toEqual(["k3s.cattle.io/node-password", true]);
  expect(Buffer.from(secret.data?.["hash"] ?? "", "base64").toString()).toMatch(
    /^\$1:[0-9a-f]{16}:15:8:1:[A-Za-z0-9+/]{86}$/,
  );
  expect((await stat(join(folder, "n2", "agent", "client-kubelet.key"))).mode & 0o777).toBe(0o600);
  expect(await readFile(join(folder, "n2", "password"), "utf8")).toMatch(/^[0-9a-f]{32}\n$/);

  // Left from a cluster of k3s: of no use here, and never renewed.
  for (const end of ["crt", "key"])
    await copyFile(
      join(folder, `n2/agent/client-k3s-controller.${end}`),
      join(folder, `n2/agent/client-kube-proxy.${end}`),
    );
  const again = await openMembership(
    device("n2", { server: "https://127.0.0.1:1", token: undefined }),
    base,
    stop.signal,
  );
  expect(again.current).toEqual(membership.current);
});

test("who has joined goes on with a token that is none", async () => {
  const { current } = await openMembership(device("n62"), base, stop.signal);
  for (const token of ["", "K10abc"]) {
    const again = await openMembership(device("n62", { token }), base, stop.signal);
    await again.catchUp();
    expect(again.current.serverCa, token).toBe(current.serverCa);
  }
});

describe("settings that changed while a node was away", () => {
  /** Who waits for a server that says nothing does so for a moment. */
  const hasty = {
    ...systemClock,
    sleep: (ms: number, signal?: AbortSignal) => systemClock.sleep(ms >= 1000 ? 50 : ms, signal),
  };
  beforeAll(async () => {
    await openMembership(device("n11"), base, stop.signal);
    flannelBackend = "host-gw";
  });
  afterAll(() => {
    flannelBackend = "vxlan";
  });
  const start = async (more: Partial<JoinOptions>) => {
    const end = new AbortController();
    const membership = await openMembership(device("n11", more), { ...base, clock: hasty }, end.signal);
    try {
      await membership.catchUp();
      return membership.current.settings.flannelBackend;
    } finally {
      end.abort(new Error("enough"));
    }
  };

  test("those that were kept count where no server is, or one that says nothing", async () => {
    expect(await start({ server: "https://127.0.0.1:1" })).toBe("vxlan");
    const silent = createServer();
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    try {
      expect(await start({ server: `https://127.0.0.1:${(silent.address() as AddressInfo).port}` })).toBe("vxlan");
    } finally {
      silent.close();
    }
  });

  test("count at the next start", async () => {
    const sleep = (ms: number, signal?: AbortSignal) => systemClock.sleep(Math.max(ms, 30_000), signal);
    const patient = { ...base, clock: { ...systemClock, sleep } };
    const membership = await openMembership(device("n11", { token: undefined }), patient, stop.signal);
    expect(membership.current.settings.flannelBackend).toBe("vxlan");
    await membership.catchUp();
    expect(membership.current.settings.flannelBackend).toBe("host-gw");
  });
});

test("a bootstrap token and a bare password are taken too", async () => {
  const data = {
    "token-id": "abcdef",
    "token-secret": "0123456789abcdef",
    "usage-bootstrap-authentication": "true",
  };
  await client.create(secrets, {
    ...{ apiVersion: "v1", kind: "Secret", metadata: { name: "bootstrap-token-abcdef", namespace: "kube-system" } },
    type: "bootstrap.kubernetes.io/token",
    data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString("base64")])),
  } as Secret);
  const [hash = ""] = fullToken().split("::");
  for (const [name, token] of [
    ["n3", `${hash}::abcdef.0123456789abcdef`],
    ["n4", password],
  ] as const) {
    const { current } = await openMembership(device(name, { token }), base, stop.signal);
    expect(new X509Certificate(current.kubelet.certificate).subject).toContain(`system:node:${name}`);
  }
});

test.each<[string, string, () => Partial<JoinOptions>, RegExp]>([
  ["wrong password", "JOIN_TOKEN", () => ({ token: `${fullToken()}x` }), /does not take the token/],
  ["no token", "JOIN_TOKEN", () => ({ token: undefined }), /--token/],
  [
    "another authority",
    "JOIN_CA",
    () => ({ token: fullToken().replace(/^K10..../, "K10ffff") }),
    /not the one that the token names/,
  ],
  ["no token at all", "TOKEN_FORMAT", () => ({ token: "K10zz" }), /'::'/],
  ["a name that is taken", "JOIN_NAME", () => ({ nodeName: "n2" }), /"n2" is taken by another device/],
  ["the server's name", "JOIN_NAME", () => ({ nodeName: "n1" }), /"n1" is taken/],
])("%s is told at once", async (_name, code, more, message) => {
  const failed = openMembership(device("n9", more()), base, stop.signal);
  await expect(failed).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
});

test("a token whose password is empty is none", async () => {
  const [hash = ""] = fullToken().split("::");
  for (const token of [`${hash}::server:`, `${hash}::`, "", " "]) {
    const failed = openMembership(device("n9", { token }), base, stop.signal);
    await expect(failed, token).rejects.toMatchObject({ code: "TOKEN_FORMAT" });
  }
});

test("a server that is not there yet is waited for", async () => {
  const lines: string[] = [];
  const log = createLogger((_level, message, fields) => lines.push(`${message} ${String(fields?.["error"])}`), "info");
  const gone = new AbortController();
  const waiting = openMembership(device("n5", { server: "https://127.0.0.1:1" }), { ...base, log }, gone.signal);
  const ended = expect(waiting).rejects.toThrow("enough");
  await expect.poll(() => lines.length, { timeout: 30_000 }).toBeGreaterThan(0);
  expect(lines[0]).toMatch(/cannot join yet, trying again cannot reach https:\/\/127.0.0.1:1 .*ECONNREFUSED.*is it up/);
  gone.abort(new Error("enough"));
  await ended;
});

test("one that never comes to the end of its answer is given up", async () => {
  const endless = createHttpsServer(
    { cert: localhostTls.certificatePem, key: localhostTls.keyPem },
    (_request, response) => {
      const drip = setInterval(() => response.write(" "), 20);
      response.on("close", () => clearInterval(drip));
    },
  );
  await new Promise<void>((resolve) => endless.listen(0, "127.0.0.1", resolve));
  const problems: string[] = [];
  const hurried = { ...systemClock, after: (ms: number, act: () => void) => systemClock.after(Math.min(ms, 300), act) };
  const gone = new AbortController();
  const options = device("n12", { server: `https://127.0.0.1:${(endless.address() as AddressInfo).port}` });
  const deps = { ...base, clock: hurried, onProblem: (sentence: string) => void problems.push(sentence) };
  const ended = expect(openMembership(options, deps, gone.signal)).rejects.toThrow("enough");
  await expect.poll(() => problems[0], { timeout: 30_000 }).toMatch(/cannot reach .*no whole answer within 60 s/);
  gone.abort(new Error("enough"));
  await ended;
  endless.closeAllConnections();
  endless.close();
});

describe("the door", () => {
  const paths = ["config", "apiservers", "readyz", "server-ca.crt", "client-ca.crt", "client-kubelet.crt"];
  test("nothing but the authority before authentication", async () => {
    expect(await ask("/ping")).toEqual({ status: 200, text: "pong" });
    expect(await ask("/cacerts")).toEqual({ status: 200, text: pki.serverCa.certificate });
    for (const path of paths) {
      for (const headers of [{}, basic("node:wrong"), basic(`root:${password}`), { authorization: "Bearer nobody" }]) {
        expect((await ask(`/v1-k3s/${path}`, headers)).status, path).toBe(401);
      }
    }
    const { certificate: cert, key } = pki.clientScheduler;
    expect((await ask("/v1-k3s/config", {}, { cert, key })).status).toBe(403);
    expect((await ask("/v1-k3s/config", member(), { method: "DELETE" })).status).toBe(405);
  });

  test("bodies are k3s's", async () => {
    expect(await ask("/v1-k3s/apiservers", member())).toEqual({ status: 200, text: '["127.0.0.1:6443"]\n' });
    expect(await ask("/v1-k3s/readyz", member())).toEqual({ status: 200, text: "ok" });
    expect(JSON.parse((await ask("/v1-k3s/config", member())).text)).toMatchObject({
      ClusterIPRange: { IP: "10.42.0.0", Mask: "//8AAA==" },
      ServiceIPRanges: [{ IP: "10.43.0.0", Mask: "//8AAA==" }],
      ServiceNodePortRange: { Base: 30000, Size: 2768 },
      ClusterDNS: "10.43.0.10",
      SupervisorPort: 6443,
    });
    const old = await ask("/v1-k3s/client-kube-proxy.crt", member());
    expect(old.text).toMatch(/CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----/);
    expect(new X509Certificate(old.text).subject).toBe("CN=system:kube-proxy");
  });

  test("who is not ready says so", async () => {
    isReady = false;
    expect(await ask("/v1-k3s/readyz", member())).toMatchObject({ status: 503 });
    expect((await ask("/cacerts")).status).toBe(200);
    isReady = true;
  });

  test("a node is what its certificate says, while there is such a node", async () => {
    const { current } = await openMembership(device("n6"), base, stop.signal);
    const { certificate: cert, key } = current.kubelet;
    const asks = (name: string, passwordOf: string) =>
      ask("/v1-k3s/serving-kubelet.crt", { "k3s-node-name": name, "k3s-node-password": passwordOf }, { cert, key });
    const own = (await readFile(join(folder, "n6", "password"), "utf8")).trim();
    expect((await asks("n7", own)).status).toBe(400);
    expect((await asks("n6", own)).status).toBe(401);
    await client.create(nodes, { metadata: { name: "n6" } } as Node);
    expect((await asks("n6", own)).status).toBe(200);
    expect((await asks("n6", "other")).status).toBe(403);
    expect((await asks("n6", "")).status).toBe(400);

    // Deleting the Node frees the name.
    await client.delete(nodes, { name: "n6" });
    await expect
      .poll(() => client.get(secrets, "n6.node-password.k3s", "kube-system").catch(() => "gone"), { timeout: 30_000 })
      .toBe("gone");
    await openMembership(device("n6b", { nodeName: "n6" }), base, stop.signal);
  });

  test("who is turned away while the node asks has it ask once more", async () => {
    let asked = 0;
    const clock = {
      ...systemClock,
      sleep: (ms: number, signal?: AbortSignal) => systemClock.sleep(ms < 60_000 ? Math.min(ms, 20) : ms, signal),
    };
    const onServers = async () => {
      asked++;
      if (asked === 2) membership.check();
    };
    const membership = await openMembership(device("n10"), { ...base, clock, onServers }, stop.signal);
    const end = new AbortController();
    const running = membership.service.run(end.signal, () => {});
    membership.check();
    await expect.poll(() => asked, { timeout: 30_000 }).toBe(3);
    end.abort(new Error("done"));
    await running;
  });

  test("a clock that is set while the node runs does not change what time it takes the server to have", async () => {
    const tenYearsMs = 3652 * 24 * 3600_000;
    for (const [i, stepMs] of [tenYearsMs, -systemClock.now()].entries()) {
      let offsetMs = 0;
      const clock = { ...systemClock, now: () => systemClock.now() + offsetMs };
      const membership = await openMembership(device(`clock-${i}`), { ...base, clock }, stop.signal);
      offsetMs = stepMs;
      expect(Math.abs(membership.nowMs() - systemClock.now())).toBeLessThan(3600_000);
    }
  });

  test("a node with another address asks for the certificate that names it at once", async () => {
    const paused: number[] = [];
    const clock = {
      ...systemClock,
      sleep(ms: number, signal?: AbortSignal) {
        if (ms < 60_000) paused.push(ms);
        return systemClock.sleep(ms < 60_000 ? Math.min(ms, 20) : ms, signal);
      },
    };
    const nodeIps: [string] = ["192.0.2.21"];
    const membership = await openMembership(device("moved", { nodeIps }), { ...base, clock }, stop.signal);
    const names = () => new X509Certificate(membership.current.serving.certificate).subjectAltName ?? "";
    expect(names()).toContain("192.0.2.21");
    const end = new AbortController();
    const running = membership.service.run(end.signal, () => {});
    paused.length = 0;
    nodeIps[0] = "192.0.2.22";
    membership.moved();
    await expect.poll(names, { timeout: 30_000 }).toContain("192.0.2.22");
    expect(Math.max(...paused)).toBeLessThan(300);
    end.abort(new Error("done"));
    await running;
  });

  test("a node that runs has its name again when its Node was deleted", async () => {
    await openMembership(device("n15"), base, stop.signal);
    const membership = await openMembership(device("n15"), base, stop.signal);
    const end = new AbortController();
    const informers = new InformerFactory({}, { ...base, client });
    claimWithNode("n15", informers, membership);
    const running = [membership.service, informers].map((service) => service.run(end.signal, () => {}));
    const secret = () => client.get(secrets, "n15.node-password.k3s", "kube-system").catch(() => undefined);
    const register = async () => {
      const { certificate } = membership.current.serving;
      await client.create(nodes, { apiVersion: "v1", kind: "Node", metadata: { name: "n15" } } as Node);
      // The certificate comes with the name.
      await expect.poll(() => membership.current.serving.certificate, { timeout: 30_000 }).not.toBe(certificate);
      return (await secret())?.metadata.uid;
    };
    const uids = [await register()];
    for (let i = 0; i < 2; i++) {
      await client.delete(nodes, { name: "n15" });
      await expect.poll(secret, { timeout: 30_000 }).toBe(undefined);
      uids.push(await register());
    }
    expect(new Set(uids).size).toBe(3);
    expect(uids.every((uid) => uid !== undefined)).toBe(true);
    const other = device("n15", { folder: join(folder, "other"), passwordFile: join(folder, "other-password") });
    await expect(openMembership(other, base, stop.signal)).rejects.toThrow('"n15" is taken by another device');
    end.abort(new Error("done"));
    await Promise.all(running);
  });

  test.each<[string, string, boolean, [number, number]]>([
    ["without a server it asks often for a while, and then as rarely as ever", "n13", false, [50, 100]],
    ["nor does it ask all the time because it is turned away", "n14", true, [5, 40]],
  ])("with another address, %s", async (_, name, isTurnedAway, [least, most]) => {
    await openMembership(device(name), base, stop.signal);
    const paused: number[] = [];
    const clock = {
      ...systemClock,
      sleep(ms: number, signal?: AbortSignal) {
        paused.push(ms);
        return systemClock.sleep(ms < 60_000 ? Math.min(ms, 1) : ms, signal);
      },
    };
    const dial = () => {
      if (isTurnedAway) membership.check();
      return Promise.reject(new Error("nobody is there"));
    };
    const membership = await openMembership(device(name, { way: { dial } }), { ...base, clock }, stop.signal);
    const end = new AbortController();
    const running = membership.service.run(end.signal, () => {});
    membership.moved();
    await expect.poll(() => Math.max(...paused), { timeout: 30_000 }).toBeGreaterThan(60_000);
    const before = paused.filter((ms) => ms < 60_000).length;
    expect(before).toBeGreaterThan(least);
    expect(before).toBeLessThan(most);
    end.abort(new Error("done"));
    await running;
  });

  test("garbage is no request for a certificate", async () => {
    const headers = { ...member(), "k3s-node-name": "n8", "k3s-node-password": "x" };
    for (const body of [Buffer.from("garbage"), Buffer.alloc(20_000, 0x30)]) {
      const { status } = await ask("/v1-k3s/client-kubelet.crt", headers, { method: "POST", body });
      expect([400, 413]).toContain(status);
    }
  });

  test("the password is changed by servers alone, and the old one is worth nothing then", async () => {
    const change = (user: string, newToken: string) =>
      ask("/v1-k3s/token", basic(`${user}:${password}`), {
        method: "PUT",
        body: Buffer.from(JSON.stringify({ newToken })),
      });
    expect((await change("node", "a-longer-password")).status).toBe(403);
    expect((await change("server", "short")).status).toBe(400);
    expect((await change("server", "abcdef.0123456789abcdef")).status).toBe(400);
    expect((await change("server", formatToken(pki.serverCa.certificate, "server", "a-longer-password"))).status).toBe(
      200,
    );
    expect(kept).toEqual(["a-longer-password"]);
    expect((await ask("/v1-k3s/readyz", member())).status).toBe(401);
    expect((await ask("/v1-k3s/readyz", basic("node:a-longer-password"))).status).toBe(200);
  });

  test("mote token rotate --server needs no kubeconfig, and tells nobody else the password", async () => {
    const said = vi.spyOn(console, "log").mockImplementation(() => {});
    const tokenOf = (of: string) => formatToken(pki.serverCa.certificate, "server", of);
    const server = `https://127.0.0.1:${api.server.port}`;
    const rotate = (old: string) => token(["rotate"], { server, token: old, "new-token": "another-password" }, "/none");
    try {
      await expect(rotate("a-longer-password")).rejects.toThrow(/the whole token is needed/);
      await expect(rotate(tokenOf("a-longer-password").replace(/^K10..../, "K10ffff"))).rejects.toMatchObject({
        code: "JOIN_CA",
      });
      await expect(rotate(tokenOf("a-wrong-password"))).rejects.toMatchObject({ code: "CLI_USAGE" });
      expect(await rotate(tokenOf("a-longer-password"))).toBe(0);
      expect(said.mock.lastCall).toEqual([tokenOf("another-password")]);
      expect((await ask("/v1-k3s/readyz", basic("node:another-password"))).status).toBe(200);
    } finally {
      said.mockRestore();
    }
  });
});
