// Servers that share a datastore come to the same keys, or are told why not. The form of the record is held against one that
// was put together by hand after k3s's description.
import { createCipheriv, createHash, pbkdf2Sync } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createLogger, silentLogger } from "#base/log.ts";
import { type Backend, prefixRange } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { systemRandom as random } from "#platform/random.ts";
import { until } from "#test/harness/until.ts";
import { decryptRecord, encryptRecord, recordKey } from "./bootstrap/cipher.ts";
import { parseFiles, planFiles, type SharedFiles } from "./bootstrap/files.ts";
import { openBootstrapRecord } from "./bootstrap-record.ts";
import { ensureTokens, knownPassword, writeTokens } from "./tokens.ts";

let folder = "";
let backend: Backend;
const signal = new AbortController().signal;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "mote-record-"));
  backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
});
afterEach(async () => {
  await backend.close();
  rmSync(folder, { recursive: true, force: true });
});

const write = (server: string, name: string, text: string, ageMs = 0) => {
  const path = join(folder, server, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  const time = (Date.now() - ageMs) / 1000;
  utimesSync(path, time, time);
};
const read = (server: string, name: string) => readFileSync(join(folder, server, name), "utf8");
const open = (server: string, passwords: { wanted?: string; known?: string } = {}) =>
  openBootstrapRecord(
    { serverDir: join(folder, server), wanted: passwords.wanted, known: passwords.known },
    { backend, clock, random, log: silentLogger },
    signal,
  );
const keys = async () => (await backend.range(prefixRange("/bootstrap/"))).kvs.map(({ key }) => key);

describe("form", () => {
  const hash = (text: string) => createHash("sha256").update(text).digest("hex").slice(0, 12);
  test("as k3s has it", async () => {
    expect(recordKey("hush")).toBe(`/bootstrap/${hash("hush")}`);
    const [salt, nonce] = ["0123456789abcdef", Buffer.alloc(12, 7)];
    const cipher = createCipheriv("aes-256-gcm", pbkdf2Sync("hush", salt, 4096, 32, "sha1"), nonce);
    const sealed = Buffer.concat([nonce, cipher.update("plain"), cipher.final(), cipher.getAuthTag()]);
    expect(await decryptRecord(`${salt}:${sealed.toString("base64")}`, "hush")).toBe("plain");
    const own = await encryptRecord("x".repeat(5000), "hush", random);
    expect(own).toMatch(/^[0-9a-f]{16}:[A-Za-z0-9+/]+=*$/);
    expect(await decryptRecord(own, "hush")).toBe("x".repeat(5000));
    for (const broken of [own.slice(0, -8), "", own.replace(/^./, (c) => (c === "0" ? "1" : "0"))]) {
      await expect(decryptRecord(broken, "hush")).rejects.toMatchObject({ code: "BOOTSTRAP_RECORD" });
    }
    await expect(decryptRecord(own, "other")).rejects.toMatchObject({ code: "BOOTSTRAP_RECORD" });
  });
  test("nothing of an empty secret", async () => {
    expect(() => recordKey("")).toThrow(expect.objectContaining({ code: "BOOTSTRAP_TOKEN" }));
    await expect(encryptRecord("x", "", random)).rejects.toMatchObject({ code: "BOOTSTRAP_TOKEN" });
  });
  test("both forms of the map", () => {
    const content = Buffer.from("pem").toString("base64");
    const time = "2026-11-21T10:00:00.123456789+01:00";
    const files = parseFiles(
      JSON.stringify({ ServerCA: { Timestamp: time, Content: content }, ClientCA: content, X: content }),
    );
    expect([...files].map(([name, file]) => [name, String(file.content), file.modifiedMs])).toEqual([
      ["ServerCA", "pem", Date.UTC(2026, 10, 21, 9, 0, 0, 123)],
      ["ClientCA", "pem", 0],
    ]);
  });
});

describe("which one counts", () => {
  const files = (text: string, modifiedMs: number): SharedFiles =>
    new Map([["ServerCA", { content: Buffer.from(text), modifiedMs }]]);
  const spare = (text: string, modifiedMs: number): SharedFiles =>
    new Map([["ETCDPeerCA", { content: Buffer.from(text), modifiedMs }]]);
  test.each<[string, SharedFiles, SharedFiles, unknown]>([
    ["missing here", files("a", 1000), new Map(), { write: ["ServerCA"], conflicts: [] }],
    ["the same", files("a", 1000), files("a", 90_000), { write: [], conflicts: [] }],
    ["older here", files("a", 5000), files("b", 1000), { write: ["ServerCA"], conflicts: [] }],
    ["a little newer here", files("a", 5000), files("b", 7999), { write: ["ServerCA"], conflicts: [] }],
    ["newer here", files("a", 5000), files("b", 8000), { write: [], conflicts: ["ServerCA"] }],
    ["newer here, and of no use", spare("a", 5000), spare("b", 9000), { write: ["ETCDPeerCA"], conflicts: [] }],
    ["missing there", new Map(), files("b", 8000), { write: [], conflicts: [] }],
  ])("%s", (_name, record, disk, wanted) => expect(planFiles(record, disk)).toEqual(wanted));
});

test("what both are known to have had tells whose change it is", () => {
  const file = (text: string, modifiedMs: number): SharedFiles =>
    new Map([["ServerCA", { content: Buffer.from(text), modifiedMs }]]);
  const hash = (text: string) => ({ ServerCA: createHash("sha256").update(text).digest("hex") });
  const [theirs, ours] = [file("a", 5000), file("b", 9000)];
  expect(planFiles(theirs, ours, hash("a"))).toEqual({ write: [], conflicts: [] });
  expect(planFiles(theirs, ours, hash("b"))).toEqual({ write: [], conflicts: ["ServerCA"] });
  expect(planFiles(theirs, ours, hash("c"))).toEqual({ write: [], conflicts: ["ServerCA"] });
  expect(planFiles(theirs, file("b", 5000), hash("a"))).toEqual({ write: ["ServerCA"], conflicts: [] });
});

test("a change that a server was stopped in is saved at its next start", async () => {
  const first = await open("a", { wanted: "the-token" });
  write("a", "tls/service.key", "one", 60_000);
  await first.save();
  await open("b", { wanted: "the-token" });
  write("a", "tls/service.key", "two");
  await (await open("a", { wanted: "the-token" })).save();
  await open("b", { wanted: "the-token" });
  expect(read("b", "tls/service.key")).toBe("two");
  // Both have changed it: somebody has to choose.
  write("a", "tls/service.key", "three", -10_000);
  write("b", "tls/service.key", "four", -20_000);
  await (await open("a", { wanted: "the-token" })).save();
  await expect(open("b", { wanted: "the-token" })).rejects.toMatchObject({ code: "BOOTSTRAP_CONFLICT" });
});

test("the first makes, the second takes, both with their times", async () => {
  const first = await open("a", { wanted: "the-token" });
  write("a", "tls/server-ca.key", "key", 60_000);
  write("a", "tls/etcd/server-ca.crt", "crt", 60_000);
  await first.save();
  const before = await backend.range(prefixRange("/bootstrap/"));
  expect(before.kvs[0]?.lease).toBe(0);
  const second = await open("b", { wanted: "the-token" });
  expect(second.password).toBe("the-token");
  expect([read("b", "tls/server-ca.key"), read("b", "tls/etcd/server-ca.crt")]).toEqual(["key", "crt"]);
  await second.save();
  // A start that changes nothing writes nothing.
  await (await open("a", { known: "the-token" })).save();
  expect((await backend.range(prefixRange("/bootstrap/"))).kvs).toEqual(before.kvs);
});

test("whoever is not told the token makes one up once, and never again", async () => {
  const { password, save } = await open("a");
  expect(password).toMatch(/^[0-9a-f]{32}$/);
  write("a", "tls/service.key", "key");
  await save();
  await expect(open("b")).rejects.toMatchObject({ code: "BOOTSTRAP_TOKEN" });
  await expect(open("b", { wanted: "another-token" })).rejects.toMatchObject({ code: "BOOTSTRAP_TOKEN" });
  await open("b", { wanted: password });
  expect(read("b", "tls/service.key")).toBe("key");
});

test("two that begin at once: one waits for the other", async () => {
  const ready = async (server: string) => {
    const record = await open(server, { wanted: "the-token" });
    try {
      read(server, "tls/service.key");
    } catch {
      write(server, "tls/service.key", `of ${server}`);
    }
    await record.save();
  };
  await Promise.all([ready("a"), ready("b")]);
  expect(read("a", "tls/service.key")).toBe(read("b", "tls/service.key"));
});

test("one that took too long still saves", async () => {
  const slow = await open("a", { wanted: "the-token" });
  write("a", "tls/service.key", "of a", 60_000);
  const [lease] = await backend.leases();
  await backend.revokeLease(lease!.id);
  await slow.save();
  await open("b", { wanted: "the-token" });
  expect(read("b", "tls/service.key")).toBe("of a");
});

test("what changes on one server is saved, and the other says that it has to be restarted", async () => {
  const said: string[] = [];
  const log = createLogger((_level, message) => void said.push(message));
  const hasty = { ...clock, sleep: (ms: number, stop?: AbortSignal) => clock.sleep(Math.min(ms, 20), stop) };
  const deps = { backend, clock: hasty, random, log };
  const opened = (server: string) =>
    openBootstrapRecord({ serverDir: join(folder, server), wanted: "the-token", known: undefined }, deps, signal);
  const says = async (text: string) => {
    await until(() => said.some((line) => line.includes(text)), text);
    expect(said.join("\n")).toContain(text);
  };
  const first = await opened("a");
  write("a", "tls/service.key", "one", 60_000);
  await first.save();
  const second = await opened("b");
  const stop = new AbortController();
  const running = [first, second].map(({ service }) => service.run(stop.signal, () => {}));
  said.splice(0);
  write("a", "tls/service.key", "two");
  await says("keys of the cluster saved");
  await says("restart this one");
  expect(read("b", "tls/service.key")).toBe("one");
  stop.abort(new Error("stopped"));
  await Promise.all(running);
  await first.rotate("another-token");
  expect(await keys()).toEqual([recordKey("another-token")]);
  expect((await open("b", { wanted: "another-token", known: "the-token" })).password).toBe("another-token");
  expect(read("b", "tls/service.key")).toBe("two");
});

test("a token is not changed by a server that lacks what another has saved", async () => {
  const first = await open("a", { wanted: "the-token" });
  write("a", "tls/service.key", "one", 60_000);
  await first.save();
  const second = await open("b", { wanted: "the-token" });
  write("a", "tls/service.key", "two");
  await first.save();
  await expect(second.rotate("another-token")).rejects.toMatchObject({ code: "BOOTSTRAP_CONFLICT" });
  expect(await keys()).toEqual([recordKey("the-token")]);
  await (await open("b", { wanted: "the-token" })).rotate("another-token");
  await expect(first.rotate("a-third-token")).rejects.toMatchObject({ code: "BOOTSTRAP_CONFLICT" });
  await open("c", { wanted: "another-token" });
  expect(read("c", "tls/service.key")).toBe("two");
});

test("two that begin at once with different tokens: one is refused", async () => {
  const begin = async (server: string) => {
    const record = await open(server, { wanted: `token-of-${server}` });
    write(server, "tls/service.key", server);
    await record.save();
  };
  const results = await Promise.allSettled([begin("a"), begin("b")]);
  expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  expect(await keys()).toHaveLength(1);
});

test("what is newer on disk is not overwritten", async () => {
  const first = await open("a", { wanted: "the-token" });
  write("a", "tls/server-ca.crt", "one", 60_000);
  await first.save();
  write("b", "tls/server-ca.crt", "another");
  await expect(open("b", { wanted: "the-token" })).rejects.toMatchObject({
    code: "BOOTSTRAP_CONFLICT",
    message: expect.stringContaining(`${join(folder, "b")}/tls/server-ca.crt`),
  });
  expect(read("b", "tls/server-ca.crt")).toBe("another");
});

test("a rotated token opens it, the old one does not", async () => {
  const serverDir = join(folder, "a");
  const authority = "no certificate";
  const record = await open("a", { wanted: "the-old-token" });
  await ensureTokens({ folder: serverDir, serverCa: authority, agreed: record.password }, { random });
  write("a", "tls/service.key", "key", 60_000);
  await record.save();
  await writeTokens(
    { folder: serverDir, serverCa: authority },
    { password: "the-new-token", agentPassword: "for-agents-only" },
  );
  await record.rotate("the-new-token");
  expect(await keys()).toEqual([recordKey("the-new-token")]);
  await expect(open("b", { wanted: "the-old-token" })).rejects.toMatchObject({ code: "BOOTSTRAP_TOKEN" });
  const other = await open("b", { wanted: "the-new-token", known: "the-old-token" });
  const tokens = await ensureTokens(
    { folder: join(folder, "b"), serverCa: authority, agreed: other.password },
    { random },
  );
  expect([tokens.password, tokens.agentPassword]).toEqual(["the-new-token", "for-agents-only"]);
  expect(await knownPassword(join(folder, "b"))).toBe("the-new-token");
  await expect(open("a", { wanted: "a-third-token", known: "the-new-token" })).rejects.toMatchObject({
    code: "TOKEN_CHANGED",
  });
});
