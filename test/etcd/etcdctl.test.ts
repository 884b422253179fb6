// Debian's etcdctl 3.5 against `mote kine`'s face: over a unix socket and over TLS with client certificates.
import { type ExecFileException, execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { createEtcdListener } from "#datastore/etcd-face.ts";
import { etcdSnapshots } from "#datastore/etcd-snapshot.ts";
import { openDatastore } from "#datastore/open.ts";
import { verifySnapshot } from "#datastore/snapshot.ts";
import type { Datastore } from "#datastore/store.ts";
import { systemClock } from "#platform/clock.ts";
import { until } from "#test/harness/until.ts";
import { etcdctlPath } from "./peers.ts";

const etcdctl = await etcdctlPath();
const deps = { clock: systemClock, log: silentLogger };
let folder: string;
let store: Datastore;
let endpoint: string;
const stop = new AbortController();
let served: Promise<void>;

beforeAll(async () => {
  if (!etcdctl) return;
  folder = mkdtempSync(join(tmpdir(), "mote-etcdctl-"));
  store = await openDatastore({ endpoint: `sqlite://${folder}/state.db` }, deps);
  await new Promise<void>((resolve, reject) => {
    const service = createEtcdListener(
      { listen: { socketPath: `${folder}/etcd.sock` }, clientUrls: ["unix:///etcd.sock"] },
      { ...deps, backend: store, openSnapshot: etcdSnapshots(store, folder, deps) },
    );
    served = service.run(stop.signal, resolve);
    served.catch(reject);
  });
  endpoint = `unix://${folder}/etcd.sock`;
});
afterAll(async () => {
  if (!etcdctl) return;
  stop.abort();
  await served;
  await store.close();
  rmSync(folder, { recursive: true, force: true });
});

function ctl(args: readonly string[], input = ""): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    const child = execFile(
      etcdctl!,
      ["--endpoints", endpoint, "--command-timeout=30s", ...args],
      { timeout: 60_000 },
      (error: ExecFileException | null, out, err) =>
        resolve({ code: typeof error?.code === "number" ? error.code : error ? 1 : 0, out, err }),
    );
    child.stdin?.end(input);
  });
}
const json = async (...args: string[]) => JSON.parse((await ctl([...args, "-w", "json"])).out) as Record<string, never>;

describe.skipIf(!etcdctl)("etcdctl", () => {
  test("puts, gets, deletes", async () => {
    expect((await ctl(["put", "a", "1"])).out).toBe("OK\n");
    expect((await ctl(["put", "a", "2", "--prev-kv"])).out).toBe("OK\na\n1\n");
    expect((await ctl(["put", "b", "3"])).out).toBe("OK\n");
    expect((await ctl(["get", "", "--prefix"])).out).toBe("a\n2\nb\n3\n");
    expect((await ctl(["get", "a", "z", "--order=DESCEND", "--keys-only"])).out).toBe("b\n\na\n\n");
    expect((await ctl(["get", "a", "--rev=2", "--print-value-only"])).out).toBe("1\n");
    expect((await ctl(["del", "b", "--prev-kv"])).out).toBe("1\nb\n3\n");
    expect((await ctl(["put", "none", "--ignore-value"])).err).toContain("etcdserver: key not found");
  });

  test("runs a transaction", async () => {
    const said = await ctl(["txn"], 'version("a") > "1"\n\nput a 9\nget a\n\nget a\n\n');
    expect(said.out).toContain("SUCCESS\n\nOK\n\na\n9\n");
  });

  test("grants, shows, renews and revokes a lease", async () => {
    const id = /lease (\w+) granted/.exec((await ctl(["lease", "grant", "60"])).out)![1]!;
    await ctl(["put", "leased", "1", `--lease=${id}`]);
    expect((await ctl(["lease", "timetolive", id, "--keys"])).out).toContain("attached keys([leased])");
    expect((await ctl(["lease", "keep-alive", "--once", id])).out).toContain("keepalived with TTL(60)");
    expect((await ctl(["lease", "list"])).out).toContain(id);
    expect((await ctl(["lease", "revoke", id])).out).toContain("revoked");
    expect((await ctl(["get", "leased"])).out).toBe("");
    expect((await ctl(["lease", "revoke", id])).err).toContain("etcdserver: requested lease not found");
  });

  test("watches from the past and goes on", async () => {
    await ctl(["put", "w/1", "1"]);
    const { header } = (await json("get", "w/1")) as unknown as { header: { revision: number } };
    const child = spawn(etcdctl!, [
      "--endpoints",
      endpoint,
      "watch",
      "w/",
      "--prefix",
      "--prev-kv",
      `--rev=${header.revision}`,
    ]);
    let out = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    const says = async (text: string) => {
      await until(() => out.includes(text), text);
      expect(out).toContain(text);
    };
    await says("PUT\nw/1\n1\n");
    await ctl(["put", "w/1", "2"]);
    await says("PUT\nw/1\n1\nw/1\n2\n");
    await ctl(["del", "w/1"]);
    await says("DELETE\nw/1\n2\nw/1\n");
    child.kill();
  });

  test("compacts, and then may not look back", async () => {
    const { header } = (await json("get", "a")) as unknown as { header: { revision: number } };
    expect((await ctl(["compact", String(header.revision), "--physical"])).out).toContain("compacted revision");
    expect((await ctl(["get", "a", "--rev=2"])).err).toContain("required revision has been compacted");
    expect((await ctl(["compact", "2"])).err).toContain("required revision has been compacted");
    const watch = await ctl(["watch", "a", "--rev=2"]);
    expect(watch.err).toContain("required revision has been compacted");
  });

  test("asks for health, status, members, alarms, hash; defragments", async () => {
    expect((await ctl(["endpoint", "health"])).err + (await ctl(["endpoint", "health"])).out).toContain("is healthy");
    expect((await ctl(["endpoint", "status"])).out).toContain("3.5.16");
    expect((await ctl(["endpoint", "hashkv"])).out).toMatch(/, \d+/);
    expect((await ctl(["member", "list"])).out).toContain("started, mote, , unix:///etcd.sock, false");
    expect((await ctl(["defrag"])).out).toContain("Finished defragmenting");
    expect((await ctl(["alarm", "list"])).out).toBe("");
  });

  test("saves a snapshot that verifies and restores here", async () => {
    const path = `${folder}/saved.db`;
    const said = await ctl(["snapshot", "save", path]);
    expect(said.err + said.out).toContain("Snapshot saved");
    expect(readFileSync(path).length % 512).toBe(32);
    expect((await verifySnapshot(path, deps)).keys).toBe(store.accounts().keys);
  });
});
