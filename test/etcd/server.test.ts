// The whole API server on an external etcd that dies and comes back; and a server whose own store is served to etcdctl.
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { createEtcdCluster } from "./etcd-process.ts";
import { etcdctlPath, etcdPath, freePort } from "./peers.ts";
import { MoteServer } from "./server-process.ts";

const [etcd, etcdctl] = [await etcdPath(), await etcdctlPath()];
const cleaning: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const clean of cleaning.splice(0).reverse()) await clean();
});

async function server(flags: readonly string[]): Promise<MoteServer> {
  const made = await MoteServer.create(flags);
  cleaning.push(() => made.close());
  return made;
}

function ctl(...args: string[]): Promise<{ out: string; failed: boolean }> {
  return new Promise((resolve) => {
    const options = ["--command-timeout=3s", "--dial-timeout=2s"];
    execFile(etcdctl!, [...options, ...args], { timeout: 60_000 }, (error, out, err) =>
      resolve({ out: out + err, failed: error !== null }),
    );
  });
}

const maps = "/api/v1/namespaces/default/configmaps";
const configMap = (name: string) => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data: { a: "1" } });

describe.skipIf(!etcd || !etcdctl)("mote server", () => {
  test("on an external etcd waits for it, outlives it, and loses nothing", { timeout: 120_000 }, async () => {
    const { endpoint, members, close } = await createEtcdCluster(etcd!, 1);
    cleaning.push(close);
    const mote = await server(["--datastore-endpoint", endpoint]);
    mote.start();
    await mote.said("etcd does not answer; waiting for it");
    members[0]!.start();
    await mote.said("mote is ready");
    expect((await mote.api("POST", maps, configMap("before"))).status).toBe(201);

    const stored = await ctl(
      "--endpoints",
      endpoint,
      "get",
      "/registry/configmaps/default/before",
      "--print-value-only",
    );
    expect(JSON.parse(stored.out)).toMatchObject({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "before" } });
    const beats = await ctl("--endpoints", endpoint, "get", "/registry/namespaces/", "--prefix", "--keys-only");
    expect(beats.out).toContain("/registry/namespaces/kube-system");

    const told: string[] = [];
    const stream = await mote.open("GET", `${maps}?watch=true&resourceVersion=0&timeoutSeconds=300`);
    let rest = "";
    stream.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const { type, object } = JSON.parse(line) as { type: string; object: { metadata: { name: string } } };
        if (object.metadata.name !== "kube-root-ca.crt") told.push(`${type} ${object.metadata.name}`);
      }
    });
    stream.on("error", () => told.push("broken"));
    stream.on("end", () => told.push("ended"));

    for (let i = 0; i < 400 && told.length === 0; i++) await sleep(50);
    expect(told).toEqual(["ADDED before"]);
    for (const round of [1, 2]) {
      await members[0]!.signal("SIGKILL");
      const [refused, read, ready] = await Promise.all([
        mote.api("POST", maps, configMap(`lost-${round}`)),
        mote.api("GET", `${maps}/before`),
        mote.open("GET", "/readyz"),
      ]);
      expect(refused).toMatchObject({ status: 503, body: { kind: "Status", reason: "ServiceUnavailable" } });
      expect(refused.body["message"]).toMatch(/^the datastore does not answer: cannot connect to 127\.0\.0\.1/);
      expect([read.status, ready.statusCode]).toEqual([503, 500]);
      members[0]!.start();
      for (let i = 0; ; i++) {
        const { status } = await mote.api("POST", maps, configMap(`after-${round}`));
        if (status === 201) break;
        // An outcome that was unknown and turns out to have happened would be told here.
        expect(status).toBe(503);
        expect(i).toBeLessThan(20);
      }
      expect((await mote.api("GET", `${maps}/before`)).status).toBe(200);
    }
    for (let i = 0; i < 400 && told.length < 3; i++) await sleep(50);
    expect(told).toEqual(["ADDED before", "ADDED after-1", "ADDED after-2"]);
    stream.destroy();
    expect(await mote.end()).toBe(0);
    // What is there is all that a new start needs.
    mote.log = "";
    mote.start();
    await mote.said("mote is ready");
    const { body } = await mote.api("GET", maps);
    const names = (body["items"] as { metadata: { name: string } }[]).map(({ metadata }) => metadata.name);
    expect(names).toEqual(["after-1", "after-2", "before", "kube-root-ca.crt"]);
  });

  test("ends in order while it waits for an etcd", { timeout: 180_000 }, async () => {
    const mote = await server(["--datastore-endpoint", `http://127.0.0.1:${await freePort()}`]);
    mote.start();
    await mote.said("etcd does not answer; waiting for it");
    expect(await mote.end()).toBe(0);
  });

  test("serves its own store as an etcd over a socket and over TLS", { timeout: 180_000 }, async () => {
    const port = await freePort();
    const folder = mkdtempSync(join(tmpdir(), "mote-kine-"));
    cleaning.push(async () => rmSync(folder, { recursive: true, force: true }));
    const socket = `unix://${folder}/kine.sock`;
    const mote = await server(["--etcd-listen", `https://127.0.0.1:${port}`, "--etcd-listen", socket]);
    mote.start();
    await mote.said("mote is ready");
    const tls = `${mote.folder}/data/server/tls/etcd`;
    const secure = ["--endpoints", `https://127.0.0.1:${port}`, "--cacert", `${tls}/server-ca.crt`];
    const known = [...secure, "--cert", `${tls}/client.crt`, "--key", `${tls}/client.key`];
    for (const how of [["--endpoints", socket], known]) {
      expect((await ctl(...how, "endpoint", "health")).out).toContain("is healthy");
      expect((await ctl(...how, "get", "/registry/namespaces/default", "--print-value-only")).out).toContain(
        '"kind":"Namespace"',
      );
    }
    // What comes this way is seen through the API.
    const value = JSON.stringify(configMap("by-etcdctl"));
    expect((await ctl(...known, "put", "/registry/configmaps/default/by-etcdctl", value)).out).toBe("OK\n");
    expect((await mote.api("GET", `${maps}/by-etcdctl`)).body["data"]).toEqual({ a: "1" });

    const stranger = await ctl(...secure, "get", "/registry/namespaces/default");
    expect([stranger.failed, stranger.out.includes("Namespace")]).toEqual([true, false]);
    // A certificate of the cluster is none of the store's.
    const cluster = `${mote.folder}/data/server/tls`;
    const admin = [...secure, "--cert", `${cluster}/client-admin.crt`, "--key", `${cluster}/client-admin.key`];
    expect((await ctl(...admin, "get", "/registry/namespaces/default")).failed).toBe(true);
  });
});
