// Encryption at rest through the API: what stands in the datastore, what clients see, and keys that change while they are
// used, with the process gone at every step of it.
import { createCipheriv, createDecipheriv, createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import type { ClientWatchEvent } from "#client/transport.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { ConfigMap, Namespace, Node, Secret } from "#model/gen/core-v1.ts";
import { configMaps, namespaces, nodes, secrets } from "#model/resources.ts";
import { askControlSocket } from "#platform/control-socket.ts";
import { writeFileDurable } from "#platform/files.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { until } from "#test/harness/until.ts";
import { loopback } from "./authn/user.ts";
import { parseEncryptionConfiguration } from "./encryption/configuration.ts";
import { openEncryptionFile } from "./encryption/file.ts";
import { EncryptionSlots } from "./encryption/slots.ts";
import { type EncryptionStatus, encryptionSocket, openEncryption } from "./encryption.ts";
import { columnsFor } from "./printers/tables.ts";
import { createStrategies } from "./registry/strategies.ts";
import { createApiServer } from "./server.ts";

const cleaning: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleaning.splice(0).reverse()) await clean();
});

const clock = new FakeClock();
const random = seededRandom(21);

async function store(): Promise<Backend> {
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  cleaning.push(() => backend.close());
  return backend;
}

function clientOf(backend: Backend, encryption: EncryptionSlots | undefined, metrics = new Metrics()) {
  const server = createApiServer(
    { freezeShared: true },
    {
      ...{ backend, encryption, clock, random, log: silentLogger, metrics, columnsFor },
      authenticators: [],
      authorizer: { authorize: () => ({ verdict: "allow", reason: "" }) },
      strategies: createStrategies({ clock, random }),
      admission: [],
    },
  );
  return { server, client: new Client(server.transport(loopback)) };
}

const keyBytes = (fill: number): Buffer => Buffer.alloc(32, fill);
const keyed = (name: string, fill: number) => ({ keys: [{ name, secret: keyBytes(fill).toString("base64") }] });
const rules = (...resources: { resources: string[]; providers: object[] }[]) =>
  parseEncryptionConfiguration(
    JSON.stringify({ apiVersion: "apiserver.config.k8s.io/v1", kind: "EncryptionConfiguration", resources }),
  );
const identity = { identity: {} };

async function open(...providers: object[]) {
  const backend = await store();
  const metrics = new Metrics();
  const slots = new EncryptionSlots({ random, metrics });
  if (providers.length > 0) await slots.apply(rules({ resources: ["secrets"], providers }));
  const { client, server } = clientOf(backend, slots, metrics);
  await client.create(namespaces, { metadata: { name: "default" } } as Namespace);
  return { backend, slots, client, server, metrics };
}

const secret = (name: string, value = "hunter2"): Secret => ({
  metadata: { name, namespace: "default" },
  stringData: { password: value },
});
const passwordOf = (object: Secret): string =>
  Buffer.from(String(object.data?.["password"] ?? ""), "base64").toString("utf8");
const pathOfSecret = (name: string): string => `/registry/secrets/default/${name}`;

async function raw(backend: Backend, key: string): Promise<Buffer> {
  const { kvs } = await backend.range({ key });
  return Buffer.from(kvs[0]!.value);
}
async function put(backend: Backend, key: string, value: Uint8Array): Promise<void> {
  await backend.commit({ compares: [], success: [{ type: "put", key, value }] });
}
const failureOf = (act: Promise<unknown>): Promise<string> =>
  act.then(
    () => "no failure",
    (error: unknown) => (error as Error).message,
  );

/** As upstream's aesgcm provider stores it, made without the code under test. */
function sealedByUpstream(name: string, fill: number, key: string, plain: string): Buffer {
  const nonce = Buffer.alloc(12, 9);
  const cipher = createCipheriv("aes-256-gcm", keyBytes(fill), nonce).setAAD(Buffer.from(key));
  const body = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([Buffer.from(`k8s:enc:aesgcm:v1:${name}:`), nonce, body, cipher.getAuthTag()]);
}

describe("through the API", () => {
  test.each(["aesgcm", "aescbc", "secretbox"])("%s: at rest encrypted, to clients plain", async (type) => {
    const { backend, client } = await open({ [type]: keyed("k1", 1) }, identity);
    const seen: ClientWatchEvent<Secret>[] = [];
    const stop = new AbortController();
    cleaning.push(() => stop.abort());
    const watching = (async () => {
      for await (const event of client.watch(secrets, { namespace: "default", resourceVersion: "1" }, stop.signal))
        seen.push(event);
    })();
    await client.create(secrets, { ...secret("a"), type: "example.com/a" });
    await client.create(secrets, secret("b"));
    await client.update(secrets, { ...(await client.get(secrets, "a", "default")), ...secret("a", "changed") });
    const { value } = (await backend.range({ key: pathOfSecret("a") })).kvs[0]!;
    expect(Buffer.from(value).toString("latin1")).toMatch(new RegExp(`^k8s:enc:${type}:v1:k1:`));
    for (const { kvs } of [await backend.range({ key: "/registry/secrets/", end: "/registry/secrets0" })]) {
      expect(kvs).toHaveLength(2);
      for (const kv of kvs) expect(Buffer.from(kv.value).includes("Secret")).toBe(false);
    }
    expect(passwordOf(await client.get(secrets, "a", "default"))).toBe("changed");
    const list = await client.list(secrets, {});
    expect(list.items.map(passwordOf)).toEqual(["changed", "hunter2"]);
    expect((await client.list(secrets, { fieldSelector: "type=example.com/a" })).items).toHaveLength(1);
    const page = await client.list(secrets, { namespace: "default", limit: 1 });
    const rest = await client.list(secrets, { namespace: "default", limit: 1, continue: page.metadata.continue! });
    expect(passwordOf(rest.items[0]!)).toBe("hunter2");
    await client.delete(secrets, { name: "a", namespace: "default" });
    for (let i = 0; i < 50 && seen.length < 4; i++) await settle();
    const told = seen.map(({ type: what, object }) => {
      const { metadata } = object as Secret;
      return `${what} ${metadata.name} ${passwordOf(object as Secret)}`;
    });
    expect(told).toEqual(["ADDED a hunter2", "ADDED b hunter2", "MODIFIED a changed", "DELETED a changed"]);
    // What is not named stays as it was.
    await client.create(configMaps, { metadata: { name: "c", namespace: "default" } } as ConfigMap);
    expect((await raw(backend, "/registry/configmaps/default/c")).toString()).toMatch(/^\{"apiVersion":"v1"/);
    stop.abort();
    await watching;
  });

  test("what is stored opens with node:crypto and the storage key, as upstream opens it", async () => {
    const { backend, client } = await open({ aesgcm: keyed("k1", 1) });
    await client.create(secrets, secret("a"));
    const stored = await raw(backend, pathOfSecret("a"));
    const head = "k8s:enc:aesgcm:v1:k1:".length;
    const decipher = createDecipheriv("aes-256-gcm", keyBytes(1), stored.subarray(head, head + 12))
      .setAAD(Buffer.from(pathOfSecret("a")))
      .setAuthTag(stored.subarray(-16));
    const plain = Buffer.concat([decipher.update(stored.subarray(head + 12, -16)), decipher.final()]);
    expect(JSON.parse(plain.toString())).toMatchObject({ kind: "Secret", metadata: { name: "a" } });
  });

  test("what upstream stored is read, also behind an identity that writes", async () => {
    const { backend, client } = await open(identity, { aesgcm: keyed("k1", 1) });
    const object = '{"kind":"Secret","apiVersion":"v1","metadata":{"name":"u","namespace":"default"}}';
    await put(backend, pathOfSecret("u"), sealedByUpstream("k1", 1, pathOfSecret("u"), object));
    expect((await client.get(secrets, "u", "default")).metadata.name).toBe("u");
    await client.create(secrets, secret("a"));
    expect((await raw(backend, pathOfSecret("a")))[0]).toBe(0x7b);
  });

  test("what cannot be read fails by name, and stops neither other objects nor watches", async () => {
    const { backend, client, metrics } = await open({ aesgcm: keyed("k1", 1) });
    await client.create(secrets, secret("a"));
    const start = (await client.list(secrets)).metadata.resourceVersion!;
    await put(backend, pathOfSecret("foreign"), sealedByUpstream("k2", 2, pathOfSecret("foreign"), "{}"));
    const moved = await raw(backend, pathOfSecret("a"));
    await put(backend, pathOfSecret("moved"), moved);
    const name = (n: string) => ({ name: n, namespace: "default" });
    const noKey = "Internal error occurred: no matching key was found for the provided AES transformer";
    expect(await failureOf(client.get(secrets, "foreign", "default"))).toBe(noKey);
    expect(await failureOf(client.patch(secrets, name("foreign"), { metadata: { labels: { a: "b" } } }))).toBe(noKey);
    expect(await failureOf(client.delete(secrets, name("foreign")))).toBe(noKey);
    expect(await failureOf(client.get(secrets, "moved", "default"))).toBe(
      "Internal error occurred: cipher: message authentication failed",
    );
    expect(await failureOf(client.list(secrets))).toBe(
      'Internal error occurred: unable to transform key "/registry/secrets/default/foreign": no matching key was found for the provided AES transformer',
    );
    await put(backend, pathOfSecret("plain"), Buffer.from("{}"));
    expect(await failureOf(client.get(secrets, "plain", "default"))).toBe(
      "Internal error occurred: no matching prefix found",
    );
    expect(passwordOf(await client.get(secrets, "a", "default"))).toBe("hunter2");
    const watch = client.watch(secrets, { resourceVersion: start }, new AbortController().signal);
    let first: ClientWatchEvent<Secret> | undefined;
    for await (const event of watch) first ??= event;
    expect(first).toMatchObject({ type: "ERROR", object: { code: 410, reason: "Expired" } });
    const text = metrics.render();
    expect(text).toMatch(
      /apiserver_storage_transformation_operations_total\{resource="secrets",status="OK",transformation_type="to_storage",transformer_prefix="k8s:enc:aesgcm:v1:"\} 1/,
    );
    expect(text).toContain('status="Unknown",transformation_type="from_storage",transformer_prefix="unknown"');
  });

  test("without a configuration an encrypted value is told of", async () => {
    const { backend, client } = await open();
    await put(backend, pathOfSecret("x"), sealedByUpstream("k1", 1, pathOfSecret("x"), "{}"));
    const why = "identity transformer tried to read encrypted data";
    expect(await failureOf(client.get(secrets, "x", "default"))).toBe(`Internal error occurred: ${why}`);
    expect(await failureOf(client.list(secrets))).toBe(
      `Internal error occurred: unable to transform key "${pathOfSecret("x")}": ${why}`,
    );
  });

  test("an update that changes nothing writes only what another key or none wrote", async () => {
    const { backend, slots, client } = await open({ aescbc: keyed("k1", 1) });
    await client.create(secrets, secret("a"));
    const touch = async () => client.update(secrets, await client.get(secrets, "a", "default"));
    const first = (await touch()).metadata.resourceVersion;
    expect((await touch()).metadata.resourceVersion).toBe(first);
    const both = { resources: ["secrets"], providers: [{ secretbox: keyed("k2", 2) }, { aescbc: keyed("k1", 1) }] };
    await slots.apply(rules(both));
    const second = (await touch()).metadata.resourceVersion;
    expect(second).not.toBe(first);
    expect((await raw(backend, pathOfSecret("a"))).toString("latin1")).toMatch(/^k8s:enc:secretbox:v1:k2:/);
    expect((await touch()).metadata.resourceVersion).toBe(second);
    await slots.apply(rules({ ...both, providers: [identity, both.providers[0]!] }));
    expect(passwordOf(await touch())).toBe("hunter2");
    expect((await raw(backend, pathOfSecret("a")))[0]).toBe(0x7b);
  });

  test("whoever changes keys can wait for the writes under way", async () => {
    const { slots } = await open({ aescbc: keyed("k1", 1) });
    let finish = () => {};
    let applied = false;
    const written = slots.slot(secrets).write("k", new Uint8Array(1), () => new Promise<void>((r) => (finish = r)));
    const applying = slots.apply(undefined).then(() => {
      applied = true;
    });
    await settle();
    expect(applied).toBe(false);
    finish();
    await Promise.all([written, applying]);
    expect(applied).toBe(true);
  });

  test("custom resources and their definitions are encrypted where all is", async () => {
    const backend = await store();
    const slots = new EncryptionSlots({ random });
    await slots.apply(rules({ resources: ["*.*"], providers: [{ secretbox: keyed("k1", 1) }] }));
    const { server, client } = clientOf(backend, slots);
    const stop = new AbortController();
    let isReady = false;
    const running = server.definitions.run(stop.signal, () => {
      isReady = true;
    });
    while (!isReady) await settle();
    cleaning.push(() => stop.abort());
    await client.create(namespaces, { metadata: { name: "default" } } as Namespace);
    const transport = server.transport(loopback);
    const names = { plural: "pandas", singular: "panda", kind: "Panda", listKind: "PandaList" };
    const schema = { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } };
    const body = {
      ...{ apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition" },
      metadata: { name: "pandas.bears.example" },
      spec: {
        ...{ group: "bears.example", scope: "Namespaced", names },
        versions: [{ name: "v1", served: true, storage: true, schema }],
      },
    };
    const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    await transport.request({ method: "POST", path: definitions, body });
    const path = "/apis/bears.example/v1/namespaces/default/pandas";
    const panda = { apiVersion: "bears.example/v1", kind: "Panda", metadata: { name: "p" }, eats: "bamboo" };
    for (let i = 0; i < 50; i++) {
      await settle();
      if ((await failureOf(transport.request({ method: "GET", path }))) === "no failure") break;
    }
    await transport.request({ method: "POST", path, body: panda });
    expect(await transport.request({ method: "GET", path: `${path}/p` })).toMatchObject({ eats: "bamboo" });
    const { kvs } = await backend.range({ key: "/registry/", end: "/registry0" });
    expect(kvs.length).toBeGreaterThanOrEqual(3);
    for (const { key, value } of kvs) {
      expect(Buffer.from(value).toString("latin1"), key).toMatch(/^k8s:enc:secretbox:v1:k1:/);
    }
    // A server that comes later reads them.
    await slots.apply(
      rules({ resources: ["*.*"], providers: [{ aescbc: keyed("k2", 2) }, { secretbox: keyed("k1", 1) }] }),
    );
    const object = await transport.request({ method: "GET", path: `${path}/p` });
    await transport.request({ method: "PUT", path: `${path}/p`, body: object });
    expect((await raw(backend, "/registry/bears.example/pandas/default/p")).toString("latin1")).toMatch(
      /^k8s:enc:aescbc:v1:k2:/,
    );
    stop.abort();
    await running;
  });
});

test("a file is looked at again every minute; a wrong one changes nothing and is told of once", async () => {
  const folder = mkdtempSync(join(tmpdir(), "mote-encryption-"));
  cleaning.push(() => rmSync(folder, { recursive: true }));
  const path = `${folder}/enc.json`;
  const text = (fill: number) =>
    JSON.stringify({
      ...{ apiVersion: "apiserver.config.k8s.io/v1", kind: "EncryptionConfiguration" },
      resources: [{ resources: ["secrets"], providers: [{ aesgcm: keyed(`k${fill}`, fill) }, identity] }],
    });
  const [metrics, own] = [new Metrics(), new FakeClock()];
  const slots = new EncryptionSlots({ random });
  const deps = { slots, metrics, clock: own, log: silentLogger };
  const options = { path, reload: true, serverId: "apiserver-x" };
  await expect(openEncryptionFile(options, deps)).rejects.toThrow(/there is no file/);
  writeFileSync(path, text(1));
  const service = await openEncryptionFile(options, deps);
  const stop = new AbortController();
  const running = service.run(stop.signal, () => {});
  const writer = () =>
    slots.slot(secrets).write("k", Buffer.from("{}"), async (value) => Buffer.from(value).toString("latin1"));
  const minute = async () => {
    await settle();
    own.jump(0);
    await own.advance(60_000);
    // Files are read outside of this clock.
    await new Promise((resolve) => setTimeout(resolve, 20));
  };
  expect(await writer()).toMatch(/^k8s:enc:aesgcm:v1:k1:/);
  writeFileSync(path, text(2));
  await minute();
  expect(await writer()).toMatch(/^k8s:enc:aesgcm:v1:k2:/);
  writeFileSync(path, "nonsense");
  await minute();
  await minute();
  expect(await writer()).toMatch(/^k8s:enc:aesgcm:v1:k2:/);
  expect(metrics.render()).toMatch(
    /automatic_reloads_total\{apiserver_id_hash="sha256:[0-9a-f]{64}",status="success"\} 1/,
  );
  expect(metrics.render()).toMatch(/automatic_reloads_total\{[^}]*status="failure"\} 1/);
  stop.abort();
  await running;
});

/** One life of a server: on what the one before left. */
class Life {
  readonly folder: string;
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly events: string[] = [];
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  /** `alive`: asked before each step that reaches a disk; throws when the process is gone. */
  static async begin(folder: string, backend: Backend, alive: () => void, enable = true): Promise<Life> {
    const dying: Backend = Object.create(backend, {
      commit: {
        value: (txn: Parameters<Backend["commit"]>[0]) => {
          alive();
          return backend.commit(txn);
        },
      },
      range: { value: backend.range.bind(backend) },
      watch: { value: backend.watch.bind(backend) },
      revision: { value: () => backend.revision() },
      compactedRevision: { value: () => backend.compactedRevision() },
      compact: { value: (revision: Parameters<Backend["compact"]>[0]) => backend.compact(revision) },
    });
    const write: typeof writeFileDurable = async (path, data, mode) => {
      alive();
      await writeFileDurable(path, data, mode);
    };
    const opened = await openEncryption(
      {
        ...{ serverDir: folder, enable, provider: "aescbc", file: undefined, reload: false, serverId: "x" },
      },
      { clock, random, log: silentLogger, metrics: new Metrics(), write },
    );
    const { client } = clientOf(dying, opened.slots);
    const informers = new InformerFactory({}, { client, clock, random, log: silentLogger });
    const life = new Life(folder, client, informers);
    const events = {
      record: ({ reason, message }: { reason: string; message: string }) => {
        life.events.push(`${reason}: ${message}`);
      },
    };
    const service = opened.service({ backend: dying, client, informers, events, nodeName: "n" });
    life.#running = service.run(life.#stop.signal, () => {}).catch(() => {});
    // The socket opens in its own time.
    await until(async () => (await life.ask({ command: "status" }).catch(() => undefined)) !== undefined, "its socket");
    return life;
  }

  private constructor(folder: string, client: Client, informers: InformerFactory) {
    this.folder = folder;
    this.informers = informers;
    this.client = client;
  }

  ask(request: object): Promise<unknown> {
    return askControlSocket(encryptionSocket(this.folder), request);
  }
  async status(): Promise<EncryptionStatus> {
    return (await this.ask({ command: "status" })) as EncryptionStatus;
  }
  step(stage: string, more: object = {}): Promise<unknown> {
    return this.ask({ command: "config", stage, ...more });
  }
  until(stage: string): Promise<void> {
    return until(async () => (await this.status()).stage === stage, stage);
  }
  async end(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}

describe("keys of our own", () => {
  const folderOf = (): string => {
    const folder = mkdtempSync(join(tmpdir(), "mote-keys-"));
    cleaning.push(() => rmSync(folder, { recursive: true }));
    return folder;
  };
  const fileOf = (folder: string): string => readFileSync(`${folder}/cred/encryption-config.json`, "utf8");
  const always = () => {};
  const stored = /^k8s:enc:aescbc:v1:(aescbckey(?:-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(?:-\d+)?)?):/;
  const prefixes = async (backend: Backend): Promise<string[]> => {
    const { kvs } = await backend.range({ key: "/registry/secrets/", end: "/registry/secrets0" });
    const names = kvs.map(({ value }) => stored.exec(Buffer.from(value).toString("latin1"))?.[1] ?? "plain");
    return [...new Set(names)];
  };

  test("come with the first start, and go through the stages without a restart", async () => {
    const [folder, backend] = [folderOf(), await store()];
    const life = await Life.begin(folder, backend, always);
    await life.client.create(namespaces, { metadata: { name: "default" } } as Namespace);
    for (let i = 0; i < 120; i++) await life.client.create(secrets, secret(`s${i}`));
    expect(await life.status()).toEqual({ stage: "start", activekey: "aescbckey", enable: true, hashmatch: true });
    expect(await failureOf(life.step("rotate"))).toContain("incorrect stage: start");
    expect(await life.step("prepare")).toBe("prepare completed successfully");
    expect((await life.status()).inactivekeys).toHaveLength(1);
    expect(await prefixes(backend)).toEqual(["aescbckey"]);
    expect(await life.step("rotate")).toBe("rotate completed successfully");
    await life.client.create(secrets, secret("later"));
    expect(await prefixes(backend)).toHaveLength(2);
    expect(await life.step("reencrypt_request")).toBe("reencryption started");
    await life.until("reencrypt_finished");
    const after = await life.status();
    expect(after.activekey).toMatch(/^aescbckey-2026/);
    expect(after).not.toHaveProperty("inactivekeys");
    expect(await prefixes(backend)).toEqual([after.activekey]);
    expect(life.events).toEqual([
      "SecretsProgress: reencrypted 59 secrets",
      "SecretsProgress: reencrypted 119 secrets",
      "SecretsUpdateComplete: completed reencrypt of 120 secrets",
    ]);
    expect((await life.client.list(secrets)).items.map(passwordOf)).toEqual(new Array(121).fill("hunter2"));
    expect(fileOf(folder)).not.toContain('"aescbckey"');
    await life.end();
    const again = await Life.begin(folder, backend, always, false);
    expect(await again.status()).toEqual(after);
    expect(passwordOf(await again.client.get(secrets, "s1", "default"))).toBe("hunter2");
    await again.end();
  });

  test("are switched on and off in a running server, and back to plain", async () => {
    const [folder, backend] = [folderOf(), await store()];
    const life = await Life.begin(folder, backend, always, false);
    await life.client.create(namespaces, { metadata: { name: "default" } } as Namespace);
    await life.client.create(secrets, secret("a"));
    expect(await life.status()).toEqual({ stage: "", activekey: "" });
    expect(await prefixes(backend)).toEqual(["plain"]);
    expect(await life.ask({ command: "config", enable: true })).toBe("secrets-encryption enabled");
    await life.client.create(secrets, secret("b"));
    expect(await prefixes(backend)).toEqual(["plain", "aescbckey"]);
    expect(await life.step("reencrypt_request", { force: true, skip: true })).toBe("reencryption started");
    await life.until("reencrypt_finished");
    expect(await prefixes(backend)).toEqual(["aescbckey"]);
    expect(await life.ask({ command: "config", enable: false })).toBe("secrets-encryption disabled");
    expect((await life.status()).enable).toBe(false);
    await life.step("reencrypt_request", { force: true, skip: true });
    await life.until("reencrypt_finished");
    expect(await prefixes(backend)).toEqual(["plain"]);
    expect((await life.client.list(secrets)).items.map(passwordOf)).toEqual(["hunter2", "hunter2"]);
    await life.end();
  });

  test("do not go before a write with them has come to its end", async () => {
    const [folder, backend] = [folderOf(), await store()];
    let release = () => {};
    const slow: Backend = Object.create(backend);
    for (const name of ["range", "watch", "revision", "compact", "compactedRevision"] as const) {
      Object.defineProperty(slow, name, { value: (backend[name] as () => unknown).bind(backend) });
    }
    Object.defineProperty(slow, "commit", {
      async value(txn: Parameters<Backend["commit"]>[0]) {
        if (txn.compares.some(({ key }) => key === pathOfSecret("slow") && release.name === "release")) {
          await new Promise<void>((resolve) => {
            release = () => resolve();
            Object.defineProperty(release, "name", { value: "held" });
          });
        }
        return backend.commit(txn);
      },
    });
    const life = await Life.begin(folder, slow, always);
    await life.client.create(namespaces, { metadata: { name: "default" } } as Namespace);
    const creating = life.client.create(secrets, secret("slow"));
    while (release.name !== "held") await settle();
    let isRotated = false;
    const rotating = life.step("rotate_keys").then(() => {
      isRotated = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(isRotated).toBe(false);
    release();
    await Promise.all([creating, rotating]);
    expect(passwordOf(await life.client.get(secrets, "slow", "default"))).toBe("hunter2");
    expect(await prefixes(backend)).toEqual([(await life.status()).activekey]);
    await life.end();
  });

  test("are told of on the node, and other servers must have the same", async () => {
    const [folder, backend] = [folderOf(), await store()];
    const life = await Life.begin(folder, backend, always);
    const stop = new AbortController();
    const watching = life.informers.run(stop.signal, () => {});
    await life.client.create(nodes, { metadata: { name: "n" } } as Node);
    const annotation = async () => {
      for (let i = 0; i < 20; i++) await settle();
      return (await life.client.get(nodes, "n")).metadata.annotations?.["k3s.io/encryption-config-hash"];
    };
    const first = await annotation();
    const hash = createHash("sha256").update(fileOf(folder)).digest("hex");
    expect(first).toBe(`start-${hash}`);
    expect(readFileSync(`${folder}/cred/encryption-state.json`, "utf8")).toBe(`start-${hash}\n`);
    await life.step("prepare");
    expect(await annotation()).toMatch(/^prepare-[0-9a-f]{64}$/);
    const annotations = { "k3s.io/encryption-config-hash": `prepare-${"0".repeat(64)}` };
    await life.client.create(nodes, { metadata: { name: "other", annotations } } as unknown as Node);
    expect((await life.status()).hasherror).toMatch(
      /^hash does not match between n \(prepare-.*\) and other \(prepare-0/,
    );
    expect(await failureOf(life.step("rotate"))).toContain("hash does not match");
    expect(await life.step("rotate", { force: true })).toBe("rotate completed successfully");
    expect(await failureOf(life.step("rotate_keys", { force: true }))).toContain("rotate-keys is for one server");
    stop.abort();
    await watching;
    await life.end();
  });

  test("and a file of the user's do not mix", async () => {
    const [folder, backend] = [folderOf(), await store()];
    await (await Life.begin(folder, backend, always)).end();
    const deps = { clock, random, log: silentLogger, metrics: new Metrics() };
    const options = { serverDir: folder, provider: "aescbc", file: "/none", reload: false, serverId: "x" } as const;
    await expect(openEncryption({ ...options, enable: true }, deps)).rejects.toThrow(/use one of them/);
    await expect(openEncryption({ ...options, enable: false }, deps)).rejects.toThrow(/there are keys in .*cred/);
  });

  test("stay where one Secret cannot be read", async () => {
    const [folder, backend] = [folderOf(), await store()];
    const life = await Life.begin(folder, backend, always);
    await life.client.create(namespaces, { metadata: { name: "default" } } as Namespace);
    await life.client.create(secrets, secret("a"));
    await put(backend, pathOfSecret("lost"), Buffer.from("k8s:enc:aescbc:v1:gone:xxxxxxxxxxxxxxxx"));
    expect(await failureOf(life.step("rotate_keys"))).toContain(`cannot be read: ${pathOfSecret("lost")}: Internal`);
    expect((await life.status()).inactivekeys).toEqual(["aescbckey"]);
    expect(life.events.join()).toContain("SecretsUpdateError: keys are kept");
    await life.end();
  });

  test("changed all at once, under writers, with the process gone at every step: nothing is lost", async () => {
    const maxSteps = 400;
    let [finished, crashes] = [0, 0];
    // Files and states are written in the first steps and the last; Secrets are all alike between.
    for (let crashAt = 1; finished === 0 && crashAt < maxSteps; crashAt += crashAt < 6 ? 1 : 4) {
      const [folder, backend] = [folderOf(), await store()];
      let [steps, isCounting] = [0, false];
      const life = await Life.begin(folder, backend, () => {
        if (isCounting && ++steps >= crashAt) throw new Error("the process is gone");
      });
      await life.client.create(namespaces, { metadata: { name: "default" } } as Namespace);
      const acknowledged = new Map<string, string>();
      for (let i = 0; i < 10; i++) {
        await life.client.create(secrets, secret(`s${i}`));
        acknowledged.set(`s${i}`, "hunter2");
      }
      isCounting = true;
      let over = false;
      const writers = [0, 1].map(async (w) => {
        for (let n = 0; !over && n < 12; n++) {
          const [name, value] = [n % 3 === 0 ? `new-${w}-${n}` : `s${(w * 7 + n) % 10}`, `${w}-${n}`];
          try {
            if (n % 3 === 0) await life.client.create(secrets, secret(name, value));
            else await life.client.patch(secrets, { name, namespace: "default" }, { stringData: { password: value } });
            acknowledged.set(name, value);
          } catch {
            // Gone, or lost against the other writer; what was not acknowledged may be there or not.
            acknowledged.delete(name);
          }
          await settle(1);
        }
      });
      const outcome = await failureOf(life.step("rotate_keys"));
      over = true;
      await Promise.all(writers);
      await life.end();
      if (outcome === "no failure") finished++;
      else crashes++;

      const after = await Life.begin(folder, backend, always);
      const { stage } = await after.status();
      if (stage.startsWith("reencrypt_")) await after.until("reencrypt_finished");
      else expect(stage, `at step ${crashAt}`).toBe("start");
      const status = await after.status();
      expect(await prefixes(backend), `at step ${crashAt}`).toEqual([status.activekey]);
      expect(status.inactivekeys, `at step ${crashAt}`).toBeUndefined();
      const found = new Map(
        (await after.client.list(secrets)).items.map((item) => [item.metadata.name!, passwordOf(item)]),
      );
      for (const [name, value] of acknowledged) {
        // Two writers share names: what counts is that the object is there and can be read.
        expect(found.has(name), `${name} at step ${crashAt}`).toBe(true);
        if (name.startsWith("new-")) expect(found.get(name), `${name} at step ${crashAt}`).toBe(value);
      }
      // And a rotation works from there.
      if (crashAt % 5 === 1) {
        expect(await after.step("rotate_keys")).toBe("keys rotated, reencryption finished");
        expect((await after.client.list(secrets)).items).toHaveLength(found.size);
      }
      await after.end();
    }
    expect(finished).toBe(1);
    expect(crashes, "steps at which it was gone").toBeGreaterThan(6);
  }, 120_000);
});
