// `mote snapshot` as a person uses it: against a running server, then restored, and the restored server works.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { get, request } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { parse } from "yaml";
import { systemClock } from "#platform/clock.ts";
import { S3Server } from "#test/harness/s3-server.ts";

const root = mkdtempSync(join(tmpdir(), "mote-command-"));
const running = new Set<ReturnType<typeof spawn>>();
let port = 0;

beforeAll(async () => {
  writeFileSync(`${root}/none.yaml`, "");
  port = await freePort();
});
afterAll(() => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});

const flags = ["--data-dir", `${root}/data`, "--config", `${root}/none.yaml`];

it.skipIf(!existsSync("build/dist/mote.mjs"))(
  "saves from a running server, lists, verifies, prunes and restores",
  { timeout: 120_000 },
  async () => {
    let server = await startServer();
    await createConfigMap("kept");
    const saved = await mote("save", "--name", "mine", "--snapshot-compress");
    expect(saved).toMatch(/^Snapshot mine-\S+\.gz saved: /);
    const name = /Snapshot (\S+) saved/.exec(saved)![1]!;
    await createConfigMap("lost");
    expect(await mote("ls", "-o", "wide")).toContain(`${name} file://${root}/data/server/db/snapshots/${name}`);
    expect(await mote("verify", name)).toMatch(/^Snapshot is sound: \d+ keys/);
    await expect(mote("restore", name)).rejects.toThrow(/in use by/);
    await stop(server);
    expect(await mote("restore", name)).toMatch(/^Restored \d+ keys/);
    server = await startServer();
    expect(await configMaps()).toContain("kept");
    expect(await configMaps()).not.toContain("lost");
    await createConfigMap("after");
    expect(await configMaps()).toContain("after");
    await stop(server);
    // Without a server the command opens the files itself.
    await systemClock.sleep(1000);
    expect(await mote("save", "--name", "mine")).toMatch(/^Snapshot mine-/);
    expect(await mote("prune", "--name", "mine", "--snapshot-retention", "1")).toContain(`Snapshot ${name} deleted`);
    expect((JSON.parse(await mote("ls", "-o", "json")) as unknown[]).length).toBe(1);
    await expect(mote("verify", "nothing")).rejects.toThrow(/there is no snapshot "nothing"/);
    await expect(mote("grow")).rejects.toThrow(/has no "grow"; use one of save, ls, prune/);
  },
);

it.skipIf(!existsSync("build/dist/mote.mjs"))(
  "keeps snapshots in a bucket, by flags and by a secret, and restores from it",
  { timeout: 120_000 },
  async () => {
    const account = { bucket: "backups", accessKey: "id", secretKey: "secret", region: "us-east-1" };
    const bucket = new S3Server(account);
    const s3 = {
      ...{ "s3-endpoint": `127.0.0.1:${await bucket.listen()}`, "s3-insecure": "true", "s3-bucket": "backups" },
      ...{ "s3-access-key": "id", "s3-secret-key": "secret", "s3-folder": "shop", "s3-retention": "1" },
    };
    const s3Flags = ["--s3", ...Object.entries(s3).map(([name, value]) => `--${name}=${value}`)];
    try {
      rmSync(`${root}/data`, { recursive: true, force: true });
      const server = await startServer();
      await createConfigMap("kept");
      const first = /Snapshot (\S+) saved/.exec(await mote("save", "--name", "mine", ...s3Flags))![1]!;
      await createConfigMap("lost");
      const data = Object.entries(s3).map(([name, value]) => [`etcd-${name}`, Buffer.from(value).toString("base64")]);
      const secret = { apiVersion: "v1", kind: "Secret", metadata: { name: "s3" }, data: Object.fromEntries(data) };
      await create("/api/v1/namespaces/kube-system/secrets", secret);
      const bySecret = ["--etcd-s3", "--etcd-s3-config-secret", "s3"];
      expect(await mote("ls", "-o", "wide", ...bySecret)).toContain(`s3://backups/shop/${first}`);
      await systemClock.sleep(1000);
      // The second takes the place of the first in the bucket, where one is kept, and not here, where five are.
      expect(await mote("save", "--name", "mine", ...bySecret)).toMatch(
        /Snapshot mine-\S+ uploaded: s3:\/\/backups\/shop\/mine-/,
      );
      expect([...bucket.objects.keys()].length).toBe(1);
      expect([...bucket.objects.keys()]).not.toContain(`shop/${first}`);
      expect(JSON.parse(await mote("ls", "-o", "json"))).toHaveLength(2);
      const second = [...bucket.objects.keys()][0]!.slice("shop/".length);
      rmSync(`${root}/data/server/db/snapshots`, { recursive: true });
      await stop(server);
      await expect(mote("restore", second, ...bySecret)).rejects.toThrow(/secrets cannot be read; give --s3-bucket/);
      expect(await mote("restore", second, ...s3Flags)).toMatch(/^Restored \d+ keys/);
      const again = await startServer();
      expect(await configMaps()).toEqual(expect.arrayContaining(["kept", "lost"]));
      await stop(again);
      await mote("delete", second, ...s3Flags);
      expect(bucket.objects.size).toBe(0);
      await expect(mote("delete", second, ...s3Flags)).rejects.toThrow(/there is no snapshot .* or in the bucket/);
      await expect(mote("ls", ...s3Flags, "--s3-secret-key=x")).rejects.toThrow(/SignatureDoesNotMatch/);
      await expect(mote("ls", "--s3")).rejects.toThrow(/etcd-s3-bucket: is needed/);
      expect(bucket.problems).toEqual([]);
    } finally {
      await bucket.close();
    }
  },
);

function run(args: readonly string[]) {
  const child = spawn(process.execPath, ["build/dist/mote.mjs", ...args], { stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  child.on("close", () => running.delete(child));
  return child;
}

function mote(...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = run(["snapshot", ...args, ...flags]);
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    child.on("close", (code) => (code === 0 ? resolve(output.trim()) : reject(new Error(errors))));
  });
}

async function startServer() {
  const child = run([
    "server",
    ...flags,
    ...["--disable-agent", "--bind-address", "127.0.0.1", "--https-listen-port", String(port)],
    ...["--node-ip", "192.0.2.1", "--run-dir", `${root}/run`, "--write-kubeconfig", `${root}/kubeconfig`],
  ]);
  let said = "";
  child.stdout.resume();
  child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
  for (let i = 0; !said.includes("mote is ready"); i++) {
    if (i > 600 || child.exitCode !== null) throw new Error(said);
    await systemClock.sleep(50);
  }
  return child;
}

function stop(child: ReturnType<typeof run>): Promise<void> {
  return new Promise((resolve) => {
    child.on("close", () => resolve());
    child.kill("SIGTERM");
  });
}

function credentials() {
  const config = parse(readFileSync(`${root}/kubeconfig`, "utf8"));
  const user = config.users[0].user;
  return {
    host: "127.0.0.1",
    port,
    agent: false as const,
    ca: Buffer.from(config.clusters[0].cluster["certificate-authority-data"], "base64"),
    cert: Buffer.from(user["client-certificate-data"], "base64"),
    key: Buffer.from(user["client-key-data"], "base64"),
  };
}

const path = "/api/v1/namespaces/default/configmaps";

function configMaps(): Promise<string[]> {
  return new Promise((resolve, reject) => {
    get({ ...credentials(), path }, (answer) => {
      let text = "";
      answer.on("data", (chunk: Buffer) => (text += chunk.toString()));
      answer.on("end", () =>
        resolve(JSON.parse(text).items.map((item: { metadata: { name: string } }) => item.metadata.name)),
      );
    }).on("error", reject);
  });
}

const createConfigMap = (name: string) => create(path, { apiVersion: "v1", kind: "ConfigMap", metadata: { name } });

function create(at: string, object: object): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json" };
    const sent = request({ ...credentials(), path: at, method: "POST", headers }, (answer) => {
      answer.resume();
      answer.on("end", () =>
        answer.statusCode === 201 ? resolve() : reject(new Error(`status ${answer.statusCode}`)),
      );
    });
    sent.on("error", reject);
    sent.end(JSON.stringify(object));
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
