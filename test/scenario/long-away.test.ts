// A device that comes back: after ten years, after the token and the authorities have changed, with a clock that is wrong,
// flashed again, or of another version. Real certificates, TLS, passwords and authorisation; only the server's clock is
// told to move.
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createLogger, silentLogger } from "#base/log.ts";
import { moteVersion } from "#base/version.ts";
import { Client } from "#client/client.ts";
import { createHttpTransport } from "#client/http-transport.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import type { Namespace, Node } from "#model/gen/core-v1.ts";
import { namespaces, nodes, secrets } from "#model/resources.ts";
import { planHome } from "#node/home-cluster.ts";
import { systemClock } from "#platform/clock.ts";
import { createHttpClient, readBody } from "#platform/http-client.ts";
import { systemRandom } from "#platform/random.ts";
import { acceptAuthorities, formatAuthorities, nextAuthorities, readAuthorities } from "#supervisor/authorities.ts";
import { type JoinOptions, type Membership, openMembership } from "#supervisor/join-client.ts";
import type { JoinServerOptions } from "#supervisor/join-server.ts";
import { type LivePki, openLivePki } from "#supervisor/live-pki.ts";
import { givePermission } from "#supervisor/node-replacement.ts";
import { ensurePki } from "#supervisor/pki.ts";
import { formatToken } from "#supervisor/tokens.ts";
import { type NodeHub, openNodeHub } from "#test/harness/node-hub.ts";

const yearMs = 365 * 24 * 3600_000;
let serverOffsetMs = 0;
/** The server's; devices have the machine's. */
const serverClock = { ...systemClock, now: () => systemClock.now() + serverOffsetMs };
const onServer = { clock: serverClock, random: systemRandom, log: silentLogger };
const lines: string[] = [];
const log = createLogger((level, message) => level === "warn" && lines.push(message), "info");
const onDevice = { clock: systemClock, random: systemRandom, log };
const first = "the-first-password";
let folder = "";
let backend: Datastore;
let hub: Hub;

interface Hub extends NodeHub {
  readonly pki: LivePki;
}

/** A server over what is in the folder and the datastore, as after each start. */
async function openHub(password: string): Promise<Hub> {
  const tls = join(folder, "tls");
  const pki = await openLivePki({ folder: tls, nodeName: "n1", nodeIps: ["127.0.0.1"] }, onServer);
  const keepAuthorities: JoinServerOptions["keepAuthorities"] = async (request) =>
    void (await acceptAuthorities(tls, request));
  const opened = await openNodeHub(
    { pki: () => pki.current, joining: { password, keepAuthorities } },
    { ...onServer, backend },
  );
  return { ...opened, pki };
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-away-"));
  backend = await openDatastore({ endpoint: "memory://" }, onServer);
  hub = await openHub(first);
  await hub.client.create(namespaces, { metadata: { name: "kube-system" } } as Namespace);
});

afterAll(async () => {
  gone.abort(new Error("the test is over"));
  await hub.end();
  await backend.close();
  await rm(folder, { recursive: true, force: true });
});

const gone = new AbortController();
const token = (password = first) => formatToken(hub.pki.current.serverCa.certificate, "server", password);
const device = (name: string, more: Partial<JoinOptions> = {}): JoinOptions => ({
  server: `https://127.0.0.1:${hub.api.server.port}`,
  token: token(),
  folder: join(folder, name, "agent"),
  passwordFile: join(folder, name, "password"),
  nodeName: name,
  nodeIps: ["192.0.2.9"],
  ...more,
});

/** What the API says to a node. */
async function asNode({ current }: Membership): Promise<Client> {
  const { kubelet, serverCa: ca } = current;
  const http = createHttpClient({
    ...{ baseUrl: `https://127.0.0.1:${hub.api.server.port}`, ca, trust: "keys" },
    ...{ cert: kubelet.certificate, key: kubelet.key },
  });
  return new Client(createHttpTransport({ userAgent: "test" }, { http }));
}

async function joined(options: JoinOptions): Promise<Membership> {
  const membership = await openMembership(options, onDevice, gone.signal);
  const own = { apiVersion: "v1", kind: "Node", metadata: { name: options.nodeName } } as Node;
  await (await asNode(membership)).create(nodes, own);
  return membership;
}

/** Runs until the node has other certificates. */
async function comeBack(options: JoinOptions): Promise<Membership> {
  const membership = await openMembership(options, onDevice, gone.signal);
  const before = membership.current.kubelet.certificate;
  const stop = new AbortController();
  const running = membership.service.run(stop.signal, () => {});
  await expect.poll(() => membership.current.kubelet.certificate !== before, { timeout: 30_000 }).toBe(true);
  stop.abort(new Error("enough"));
  await running;
  return membership;
}

const keyOf = (pem: string) =>
  new X509Certificate(pem).publicKey.export({ type: "spki", format: "der" }).toString("base64");
const restart = async (password = first) => {
  await hub.end();
  // At another port: the one of before may be somebody else's by now.
  hub = await openHub(password);
};

test("the key of the device stands beside its password, also of one that joined before there were such keys", async () => {
  const membership = await joined(device("plain"));
  const read = () => hub.client.get(secrets, "plain.node-password.k3s", "kube-system");
  const { data, type } = await read();
  expect([type, Object.keys(data ?? {}).sort()]).toEqual(["k3s.cattle.io/node-password", ["device-key", "hash"]]);
  expect(data?.["device-key"]).not.toBe(keyOf(membership.current.kubelet.certificate));

  await hub.client.delete(secrets, { name: "plain.node-password.k3s", namespace: "kube-system" });
  await hub.client.create(secrets, {
    ...{ apiVersion: "v1", kind: "Secret", type, immutable: true, data: { hash: data?.["hash"] ?? "" } },
    metadata: { name: "plain.node-password.k3s", namespace: "kube-system" },
  });
  await rm(join(folder, "plain", "agent", "client-kubelet.crt"));
  await openMembership(device("plain"), onDevice, gone.signal);
  expect((await read()).data).toEqual(data);
});

test("away for ten years: other token, other authorities, certificate ended, no token on the device", async () => {
  const before = await joined(device("drawer"));
  const old = before.current;
  for (let i = 0; i < 2; i++) {
    serverOffsetMs += 5 * yearMs;
    const current = await readAuthorities(join(folder, "tls"));
    const body = formatAuthorities(nextAuthorities(current, serverClock.now(), systemRandom), "");
    await acceptAuthorities(join(folder, "tls"), { body, isForced: false });
    await restart("another-password");
  }
  expect(hub.pki.current.serverCa.key).not.toBe(old.serverCa);
  // By itself the certificate is worth nothing any more.
  await expect((await asNode(before)).get(nodes, "drawer")).rejects.toMatchObject({ code: 401 });

  lines.length = 0;
  const startedMs = performance.now();
  const after = await comeBack(device("drawer", { token: undefined }));
  expect(planHome(before.clusterKeys, after.clusterKeys)).toBe("changed");
  expect(performance.now() - startedMs).toBeLessThan(60_000);
  const leaf = new X509Certificate(after.current.kubelet.certificate);
  expect(Date.parse(leaf.validTo)).toBeGreaterThan(serverClock.now());
  expect(Date.parse(leaf.validFrom)).toBe(0);
  expect(after.current.serverCa).toBe(hub.pki.current.serverCa.certificate);
  expect((await (await asNode(after)).get(nodes, "drawer")).metadata.name).toBe("drawer");
  // What it has to go by now is the server's time, and somebody is told.
  expect(Math.abs(after.nowMs() - serverClock.now())).toBeLessThan(60_000);
  expect(lines.filter((line) => /the clock of this machine says .* set the one that is wrong/.test(line))).toHaveLength(
    1,
  );
}, 120_000);

test("the token of before the authorities changed still names them", async () => {
  const current = await readAuthorities(join(folder, "tls"));
  const oldest = current.ServerCA?.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----\n/g)?.find((pem) => {
    const one = new X509Certificate(pem);
    return one.checkIssued(one);
  });
  const { current: credentials } = await openMembership(
    device("late", { token: formatToken(oldest ?? "", "server", "another-password") }),
    onDevice,
    gone.signal,
  );
  expect(credentials.serverCa).toBe(current.ServerCA);
});

test("the clock of the server goes back: nobody minds", async () => {
  serverOffsetMs = -systemClock.now() + 1000;
  await restart("another-password");
  const membership = await joined(device("early", { token: token("another-password") }));
  expect((await (await asNode(membership)).get(nodes, "early")).metadata.name).toBe("early");
  serverOffsetMs = 0;
  await restart("another-password");
  expect((await (await asNode(membership)).get(nodes, "early")).metadata.name).toBe("early");
});

async function ask(
  headers: Record<string, string>,
  pair?: { cert: string; key: string },
  path = "config",
): Promise<number> {
  const ca = hub.pki.current.serverCa.certificate;
  const http = createHttpClient({ baseUrl: `https://127.0.0.1:${hub.api.server.port}`, ca, ...pair });
  try {
    const response = await http.send({ method: "GET", path: `/v1-k3s/${path}`, headers, idleTimeoutMs: 5000 });
    await readBody(response, 1e6);
    return response.status;
  } finally {
    http.close();
  }
}

test("a key lets in the device that told it, under its own name, while there is such a node", async () => {
  const key = await readFile(join(folder, "drawer", "device.key"), "utf8");
  const { issueCertificate, generateKey } = await import("#supervisor/pki/certificate.ts");
  const shown = (of: string) => ({
    cert: issueCertificate(
      {
        commonName: "system:admin",
        organizations: ["system:masters"],
        usage: "client",
        notBeforeMs: 0,
        notAfterMs: 4e12,
      },
      of,
      undefined,
      systemRandom,
    ),
    key: of,
  });
  const named = (name: string) => ({ "k3s-node-name": name });
  expect(await ask(named("drawer"), shown(key))).toBe(200);
  expect(await ask(named("drawer"))).toBe(401);
  expect(await ask({}, shown(key))).toBe(401);
  expect(await ask(named("plain"), shown(key))).toBe(401);
  expect(await ask(named("nobody"), shown(key))).toBe(401);
  expect(await ask(named("drawer"), shown(generateKey()))).toBe(401);
  // Nothing of what it says of itself counts, here or at the API.
  expect(await ask(named("drawer"), shown(key), "server-bootstrap")).toBe(403);
  await hub.client.delete(nodes, { name: "drawer" });
  expect(await ask(named("drawer"), shown(key))).toBe(401);
});

test("a device that was flashed again takes its name back, once, when it is allowed", async () => {
  await joined(device("kiosk", { token: token("another-password") }));
  const flashed = (n: number) =>
    openMembership(
      device(`flashed-${n}`, { nodeName: "kiosk", token: token("another-password") }),
      onDevice,
      gone.signal,
    );
  await expect(flashed(1)).rejects.toMatchObject({ code: "JOIN_NAME", message: /mote node replace kiosk/ });
  expect(await givePermission(hub.client, "nobody-has-it", 60)).toBe(false);

  // Too late.
  expect(await givePermission(hub.client, "kiosk", 60)).toBe(true);
  serverOffsetMs = 3600_000;
  await expect(flashed(1)).rejects.toMatchObject({ code: "JOIN_NAME" });
  serverOffsetMs = 0;

  expect(await givePermission(hub.client, "kiosk", 60)).toBe(true);
  const outcomes = await Promise.allSettled([flashed(1), flashed(2)]);
  expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  const winner = outcomes[0]!.status === "fulfilled" ? 1 : 2;
  await expect(flashed(3 - winner)).rejects.toMatchObject({ code: "JOIN_NAME" });
  // The one that was replaced is out: its certificate is of another password.
  await rm(join(folder, "kiosk", "agent", "client-kubelet.crt"));
  await expect(
    openMembership(device("kiosk", { token: token("another-password") }), onDevice, gone.signal),
  ).rejects.toMatchObject({ code: "JOIN_NAME" });
  await expect(hub.client.get(secrets, "kiosk.node-replacement.mote", "kube-system")).rejects.toMatchObject({
    code: 404,
  });
});

test("a node that is newer than its server is told so, unless it is in already", async () => {
  const versions = [moteVersion.replace(/^v1\.\d+/, "v1.99"), moteVersion.replace(/^v1\.\d+/, "v1.20"), moteVersion];
  const asks = (name: string, version = "") =>
    ask(
      {
        authorization: `Basic ${Buffer.from("node:another-password").toString("base64")}`,
        ...{ "k3s-node-name": name, "k3s-node-password": "x".repeat(32), "mote-version": version },
      },
      undefined,
      "client-kubelet.crt",
    );
  const answers: number[] = [];
  for (const version of [...versions, ...versions]) answers.push(await asks("versions", version));
  expect(answers).toEqual([409, 409, 200, 200, 200, 200]);
});

test("pairs that are marked are asked for anew", async () => {
  const options = device("marked", { token: token("another-password") });
  const { current } = await joined(options);
  await writeFile(join(options.folder, "rotate"), "client-kubelet\n");
  const after = await comeBack(options);
  expect(keyOf(after.current.kubelet.certificate)).not.toBe(keyOf(current.kubelet.certificate));
  expect(after.current.serving).toEqual(current.serving);
  await expect(readFile(join(options.folder, "rotate"))).rejects.toMatchObject({ code: "ENOENT" });
});

test.each([
  ["in 1970", () => -systemClock.now()],
  ["ten years ahead", () => 10 * yearMs],
])(
  "a device whose clock is %s joins, and is given nothing twice",
  async (when, offset) => {
    const offsetMs = offset();
    const clock = { ...systemClock, now: () => systemClock.now() + offsetMs };
    lines.length = 0;
    const options = device(`clock-${when.replaceAll(" ", "-")}`, { token: token("another-password") });
    const membership = await openMembership(options, { ...onDevice, clock }, gone.signal);
    const { kubelet, serving } = membership.current;
    expect(Math.abs(membership.nowMs() - serverClock.now())).toBeLessThan(60_000);
    expect(lines.filter((line) => /the clock of this machine says/.test(line))).toHaveLength(1);

    const again = await openMembership(options, { ...onDevice, clock }, gone.signal);
    lines.length = 0;
    const stop = new AbortController();
    const running = again.service.run(stop.signal, () => {});
    // It has asked when it has been told of its clock.
    await expect.poll(() => lines.length, { timeout: 30_000 }).toBeGreaterThan(0);
    stop.abort(new Error("enough"));
    await running;
    expect([again.current.kubelet, again.current.serving]).toEqual([kubelet, serving]);
  },
  60_000,
);

test("authorities that nobody vouches for: who has joined is told, and joins again with the new token", async () => {
  const before = token("another-password");
  await joined(device("stranded", { token: before }));
  const strangers = join(folder, "strangers");
  await ensurePki({ folder: strangers, nodeName: "n1", nodeIps: [] }, onServer);
  const { ServiceKey: _, ...authorities } = await readAuthorities(strangers);
  const body = formatAuthorities(authorities, "");
  const tls = join(folder, "tls");
  await expect(acceptAuthorities(tls, { body, isForced: false })).rejects.toMatchObject({ code: 400 });
  await acceptAuthorities(tls, { body, isForced: true });
  await restart("another-password");

  lines.length = 0;
  const membership = await openMembership(device("stranded", { token: before }), onDevice, gone.signal);
  const stop = new AbortController();
  const running = membership.service.run(stop.signal, () => {});
  await expect.poll(() => lines.join(), { timeout: 30_000 }).toMatch(/cannot be asked for certificates/);
  stop.abort(new Error("enough"));
  await running;
  // As when it moves to another cluster, while an address that it knows is still one of the old one.
  const gonePlace = { dial: () => Promise.reject(new Error("the old cluster answers")) };
  const options = device("stranded", { token: token("another-password"), way: gonePlace });
  const fresh = await openMembership(options, onDevice, gone.signal);
  const oldKeys = fresh.clusterKeys;
  await fresh.catchUp();
  expect(planHome(oldKeys, fresh.clusterKeys)).toBe("other");
  expect(fresh.current.serverCa).toBe(hub.pki.current.serverCa.certificate);
  expect((await (await asNode(fresh)).get(nodes, "stranded")).metadata.name).toBe("stranded");
});
