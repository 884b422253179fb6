// The Backend over an external etcd when etcd goes away, comes back, loses its leader, is replaced; over TLS; with
// leases in real time; and with a past that is far away. What a watcher was told is held against etcd's own history.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { hasCode, messageOf } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { type Backend, prefixRange, type Revision, revision, type WatchEvent } from "#datastore/backend.ts";
import { type EtcdBackendOptions, openEtcdBackend } from "#datastore/etcd-backend.ts";
import { compactOnce } from "#datastore/etcd-compactor.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { generateKey, issueCertificate } from "#supervisor/pki/certificate.ts";
import { bytes, text } from "#test/harness/backend-model.ts";
import { until } from "#test/harness/until.ts";
import { createEtcdCluster, type EtcdCluster } from "./etcd-process.ts";
import { etcdPath, startMote } from "./peers.ts";

const path = await etcdPath();
const isLong = process.env["MOTE_ETCD_LONG"] !== undefined;
const cleaning: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const clean of cleaning.splice(0).reverse()) await clean();
});

async function cluster(size = 1, options?: Parameters<typeof createEtcdCluster>[2]): Promise<EtcdCluster> {
  const made = await createEtcdCluster(path!, size, options);
  cleaning.push(() => made.close());
  return made;
}

async function open(options: EtcdBackendOptions, signal?: AbortSignal): Promise<Backend> {
  const deps = { clock: systemClock, random: systemRandom, log: silentLogger };
  const backend = await openEtcdBackend(options, { ...deps, signal });
  cleaning.push(() => backend.close());
  return backend;
}

/** A member that is running and lets in whoever has the client's certificate. */
async function tlsMember() {
  const folder = mkdtempSync(join(tmpdir(), "mote-tls-"));
  cleaning.push(() => rmSync(folder, { recursive: true, force: true }));
  const { ca, server, client } = certificates();
  const file = (name: string, content: string) => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const { endpoint, members } = await cluster(1, {
    tls: {
      certificate: file("s.crt", server.certificate),
      key: file("s.key", server.key),
      authority: file("ca.crt", ca.certificate),
    },
  });
  const member = members[0]!;
  member.start();
  return { endpoint, member, ca, client };
}

const put = (backend: Backend, key: string, value: string, more: object = {}) =>
  backend.commit({ compares: [], success: [{ type: "put", key, value: bytes(value), ...more }] });
const line = (e: WatchEvent) => `${e.kv.modRevision} ${e.type} ${e.kv.key}=${text(e.kv.value)}`;

interface Seen {
  readonly lines: string[];
  ended: Error | undefined;
}

function watch(backend: Backend, prefix: string, from: number): Seen {
  const seen: Seen = { lines: [], ended: undefined };
  backend.watch(
    { ...prefixRange(prefix), startRevision: revision(from) },
    {
      onEvents(events) {
        for (const event of events) seen.lines.push(line(event));
      },
      onEnd(error) {
        seen.ended = error;
      },
    },
  );
  return seen;
}

/** What etcd has told a newcomer of the past, from the first revision on. */
async function historyOf(endpoint: string, from: number): Promise<string[]> {
  const fresh = await open({ endpoint });
  const seen = watch(fresh, "/w/", from);
  await put(fresh, "/w/end", "end");
  await until(() => seen.lines.at(-1)?.includes("/w/end=end") ?? false, "history");
  return seen.lines;
}

/** Undefined where what was seen is the history, whole, once and in order. */
function difference(seen: readonly string[], truth: readonly string[]): string | undefined {
  for (let i = 0; i < truth.length; i++) {
    if (seen[i] !== truth[i]) return `event ${i}: seen "${seen[i]}", happened "${truth[i]}"`;
  }
  return seen.length > truth.length ? `seen ${seen.length - truth.length} too many` : undefined;
}

test.each([
  ["lost", ["1 put a", "3 put c"]],
  ["repeated", ["1 put a", "1 put a", "2 put b", "3 put c"]],
  ["out of order", ["2 put b", "1 put a", "3 put c"]],
  ["too many", ["1 put a", "2 put b", "3 put c", "3 put c"]],
])("the check finds an event that is %s", (_name, seen) => {
  expect(difference(seen, ["1 put a", "2 put b", "3 put c"])).toBeDefined();
});

/** Writes until told to stop; what was acknowledged, and every failure. */
function writers(backend: Backend, count: number) {
  const acknowledged = new Map<string, Revision>();
  const failures: unknown[] = [];
  let stop = false;
  const run = async (id: number) => {
    for (let n = 0; !stop; n++) {
      const key = `/w/${id}/${n}`;
      try {
        acknowledged.set(key, (await put(backend, key, String(n))).revision);
      } catch (error) {
        failures.push(error);
        await sleep(20);
      }
    }
  };
  const done = Promise.all(Array.from({ length: count }, (_, id) => run(id)));
  return {
    acknowledged,
    failures,
    async end() {
      stop = true;
      await done;
    },
  };
}

describe.skipIf(!path)("an external etcd", () => {
  test("that is not there yet is waited for, until told otherwise", { timeout: 180_000 }, async () => {
    const { endpoint, members } = await cluster();
    const stop = new AbortController();
    const given = open({ endpoint }, stop.signal).catch((error: unknown) => error);
    setTimeout(() => stop.abort(new Error("told to stop")), 300);
    expect(messageOf(await given)).toContain("told to stop");
    const opening = open({ endpoint });
    await sleep(500);
    members[0]!.start();
    expect((await put(await opening, "/a", "1")).succeeded).toBe(true);
  });

  test("that dies fails requests in words, and watches go on when it is back", { timeout: 180_000 }, async () => {
    const { endpoint, members } = await cluster();
    const [member] = members;
    member!.start();
    const backend = await open({ endpoint });
    const first = backend.revision() + 1;
    const seen = watch(backend, "/w/", first);
    for (let round = 0; round < 2; round++) {
      const writing = writers(backend, 4);
      await sleep(400);
      await member!.signal("SIGKILL");
      await until(() => writing.failures.length > 0, "a failure");
      await expect(backend.range({ key: "/w/" })).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_UNAVAILABLE"));
      member!.start();
      const before = writing.acknowledged.size;
      await until(() => writing.acknowledged.size > before + 20, "writes again");
      await writing.end();
      expect(writing.failures.every((e) => hasCode(e, "DATASTORE_UNAVAILABLE"))).toBe(true);
      const { kvs } = await backend.range(prefixRange("/w/"));
      const there = new Set(kvs.map(({ key }) => key));
      expect([...writing.acknowledged.keys()].filter((key) => !there.has(key))).toEqual([]);
    }
    const truth = await historyOf(endpoint, first);
    await until(() => seen.lines.length >= truth.length, "the last event");
    expect(difference(seen.lines, truth)).toBe(undefined);
    expect(seen.ended).toBe(undefined);
    expect(truth.length).toBeGreaterThan(100);
  });

  test("of three members loses one after the other", { timeout: 180_000 }, async () => {
    const { endpoint, members } = await cluster(3, {
      flags: ["--heartbeat-interval", "50", "--election-timeout", "300"],
    });
    for (const member of members) member.start();
    const backend = await open({ endpoint });
    const first = backend.revision() + 1;
    const seen = watch(backend, "/w/", first);
    const writing = writers(backend, 4);
    for (const member of members) {
      const before = writing.acknowledged.size;
      await until(() => writing.acknowledged.size > before + 30, "writes");
      await member.signal("SIGKILL");
      const without = writing.acknowledged.size;
      await until(() => writing.acknowledged.size > without + 30, "writes without it");
      member.start();
      // A quorum must be there before the next is taken.
      await sleep(1000);
    }
    await writing.end();
    expect(writing.failures.every((e) => hasCode(e, "DATASTORE_UNAVAILABLE"))).toBe(true);
    const truth = await historyOf(endpoint, first);
    await until(() => seen.lines.length >= truth.length, "the last event");
    expect(difference(seen.lines, truth)).toBe(undefined);
    const told = new Set(truth.map((l) => l.split(/[ =]/)[2]));
    expect([...writing.acknowledged.keys()].filter((key) => !told.has(key))).toEqual([]);
  });

  // Waits for deadlines: half a minute, and nothing to see.
  test.skipIf(!isLong)("of three members finds one hanging, and uses another", { timeout: 120_000 }, async () => {
    const { endpoint, members } = await cluster(3);
    for (const member of members) member.start();
    const backend = await open({ endpoint });
    const first = backend.revision() + 1;
    const seen = watch(backend, "/w/", first);
    await put(backend, "/w/a", "1");
    await members[0]!.signal("SIGSTOP");
    await expect(put(backend, "/w/a", "2")).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_UNAVAILABLE"));
    await put(backend, "/w/a", "3");
    await until(() => seen.lines.at(-1)?.endsWith("/w/a=3") ?? false, "the watch", 60_000);
    await members[0]!.signal("SIGCONT");
    expect(difference(seen.lines, (await historyOf(endpoint, first)).slice(0, seen.lines.length))).toBe(undefined);
  });

  test("that has lost its data ends every watch, and goes on", { timeout: 180_000 }, async () => {
    const { endpoint, members } = await cluster();
    members[0]!.start();
    const backend = await open({ endpoint });
    for (let i = 0; i < 20; i++) await put(backend, "/w/a", String(i));
    const seen = watch(backend, "/w/", backend.revision() + 1);
    await members[0]!.signal("SIGKILL");
    // The same address, member and token, and nothing in it.
    members[0]!.wipe();
    members[0]!.start();
    await until(async () => (await put(backend, "/w/b", "1").catch(() => undefined)) !== undefined, "answers");
    expect(hasCode(seen.ended, "DATASTORE_COMPACTED")).toBe(true);
    const again = watch(backend, "/w/", backend.revision() + 1);
    await put(backend, "/w/b", "2");
    await until(() => again.lines.length === 1, "an event");
  });

  test("speaks TLS and knows its clients by their certificates", { timeout: 180_000 }, async () => {
    const { endpoint, ca, client } = await tlsMember();
    const tls = { caPem: ca.certificate, certificatePem: client.certificate, keyPem: client.key };
    const backend = await open({ endpoint, tls });
    const seen = watch(backend, "/w/", backend.revision() + 1);
    await put(backend, "/w/a", "1");
    expect(seen.lines).toEqual([expect.stringContaining("put /w/a=1")]);
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error("nobody let it in")), 1500);
    expect(messageOf(await open({ endpoint, tls: { caPem: ca.certificate } }, stop.signal).catch((e) => e))).toBe(
      "nobody let it in",
    );
  });

  test("takes a client certificate that was replaced with its next connection", { timeout: 180_000 }, async () => {
    const { endpoint, member, ca, client } = await tlsMember();
    const stranger = certificates().client;
    let pair: { certificate: string; key: string } = client;
    const tls = async () => ({ caPem: ca.certificate, certificatePem: pair.certificate, keyPem: pair.key });
    const backend = await open({ endpoint, tls });
    await put(backend, "/w/a", "1");
    const ours = { caPem: ca.certificate, certificatePem: client.certificate, keyPem: client.key };
    // One that etcd does not know, and one that does not fit its key: half of a replacement.
    for (const wrong of [stranger, { certificate: client.certificate, key: stranger.key }]) {
      pair = wrong;
      await member.signal("SIGKILL");
      member.start();
      // It is back, for those whom it lets in.
      await put(await open({ endpoint, tls: ours }), "/w/b", "2");
      for (let i = 0; i < 3; i++)
        expect(hasCode(await put(backend, "/w/a", "2").catch((e: unknown) => e), "DATASTORE_UNAVAILABLE")).toBe(true);
      pair = client;
      await until(async () => (await put(backend, "/w/a", "3").catch(() => undefined)) !== undefined, "is let in");
    }
  });

  test("takes events with their lease and leases with their keys", { timeout: 180_000 }, async () => {
    const { endpoint, members } = await cluster();
    members[0]!.start();
    const backend = await open({ endpoint });
    const seen = watch(backend, "/w/", backend.revision() + 1);
    const short = await backend.grantLease(2);
    await put(backend, "/w/short", "1", { lease: short.id });
    await put(backend, "/w/event/1", "1", { class: "event" });
    await put(backend, "/w/event/2", "1", { class: "event" });
    await put(backend, "/w/beat", "1", { class: "heartbeat" });
    const { kvs } = await backend.range(prefixRange("/w/"));
    const [beat, one, two] = kvs;
    expect([beat!.lease, one!.lease === two!.lease, one!.lease > 0]).toEqual([0, true, true]);
    expect([...(await backend.lease(one!.lease, true)).keys].sort()).toEqual(["/w/event/1", "/w/event/2"]);
    await until(() => seen.lines.some((l) => l.includes("delete /w/short")), "the lease ends");
    // Revoked behind our back: the next event gets another.
    await backend.revokeLease(one!.lease);
    await put(backend, "/w/event/3", "1", { class: "event" });
    expect((await backend.range({ key: "/w/event/3" })).kvs[0]!.lease).not.toBe(one!.lease);
  });

  test("is compacted by one of several, to what was current a round before", { timeout: 180_000 }, async () => {
    const { endpoint, members } = await cluster();
    members[0]!.start();
    const [one, two] = [await open({ endpoint, historyBytes: 0 }), await open({ endpoint })];
    const deps = { clock: systemClock, log: silentLogger };
    const first = await put(one, "/w/a", "1");
    // Both begin; the second finds that the round is taken.
    let a = await compactOnce(0, 0, { backend: one, ...deps });
    let b = await compactOnce(0, 0, { backend: two, ...deps });
    expect([a.round, b.round]).toEqual([1, 1]);
    await put(one, "/w/a", "2");
    b = await compactOnce(b.round, b.current, { backend: two, ...deps });
    a = await compactOnce(a.round, a.current, { backend: one, ...deps });
    expect([a.round, b.round]).toEqual([2, 2]);
    expect(two.compactedRevision()).toBeGreaterThan(first.revision);
    await expect(one.range({ key: "/w/a", revision: first.revision })).rejects.toSatisfy((e) =>
      hasCode(e, "DATASTORE_COMPACTED"),
    );
    const late = watch(one, "/w/", first.revision);
    await until(() => late.ended !== undefined, "the end");
    expect(hasCode(late.ended, "DATASTORE_COMPACTED")).toBe(true);
  });

  test("tells watchers of a long past while it is written to", { timeout: 180_000 }, async () => {
    const { endpoint, members } = await cluster(1, { flags: ["--unsafe-no-fsync"] });
    members[0]!.start();
    // A history that holds next to nothing.
    const backend = await open({ endpoint, historyBytes: 5000 });
    const first = backend.revision() + 1;
    for (let i = 0; i < 30; i++) {
      await Promise.all(Array.from({ length: 100 }, (_, j) => put(backend, `/w/${(i * 100 + j) % 500}`, String(i))));
    }
    const writing = writers(backend, 2);
    const late = Array.from({ length: 10 }, (_, i) => watch(backend, "/w/", first + i * 300));
    const quiet = watch(backend, "/nothing/", first);
    await until(() => writing.acknowledged.size > 200, "some writes");
    await writing.end();
    const truth = await historyOf(endpoint, first);
    for (const [i, seen] of late.entries()) {
      const wanted = truth.filter((l) => Number(l.split(" ")[0]) >= first + i * 300);
      await until(() => seen.lines.length >= wanted.length, `watcher ${i}`);
      expect(difference(seen.lines, wanted), `watcher ${i}`).toBe(undefined);
    }
    await put(backend, "/nothing/a", "1");
    await until(() => quiet.lines.length === 1, "a first event");
  });

  test("sends large transactions in fragments, which watchers get whole", { timeout: 180_000 }, async () => {
    const { endpoint, members } = await cluster(1, { flags: ["--unsafe-no-fsync"] });
    members[0]!.start();
    const writer = await open({ endpoint });
    const first = writer.revision() + 1;
    // With what was there before, 2.4 MB for each revision: etcd sends 1.5 at a time.
    const keys = Array.from({ length: 30 }, (_, i) => `/w/${String(i).padStart(2, "0")}`);
    const batches: WatchEvent[][] = [];
    const sink = { onEvents: (events: readonly WatchEvent[]) => void batches.push([...events]), onEnd() {} };
    writer.watch(prefixRange("/w/"), sink);
    for (const fill of [1, 2, 3]) {
      const value = new Uint8Array(40_000).fill(fill);
      await writer.commit({ compares: [], success: keys.map((key) => ({ type: "put" as const, key, value })) });
    }
    const live = batches.splice(0);
    // The same from the past.
    const late = await open({ endpoint });
    late.watch({ ...prefixRange("/w/"), startRevision: revision(first) }, sink);
    await until(() => batches.flat().length >= 90, "all");
    for (const told of [live, batches]) {
      const ends = told.map((batch) => [batch[0]!.kv.modRevision, batch.at(-1)!.kv.modRevision]);
      for (let i = 1; i < ends.length; i++) expect(ends[i]![0]).toBeGreaterThan(ends[i - 1]![1]!);
      const events = told.flat();
      expect(events.map(({ kv }) => kv.key)).toEqual([...keys, ...keys, ...keys]);
      expect(events.map(({ kv, prevKv }) => `${kv.value[39_999]} ${prevKv?.value[0]}`)).toEqual(
        ["1 undefined", "2 1", "3 2"].flatMap((pair) => keys.map(() => pair)),
      );
    }
  });
});

test("a mote that serves etcd's API will do for an etcd", async () => {
  const peer = await startMote({}, "memory");
  cleaning.push(() => peer.close());
  const backend = await open({ endpoint: peer.address });
  const seen = watch(backend, "/w/", backend.revision() + 1);
  await put(backend, "/w/a", "1");
  expect(seen.lines.length).toBe(1);
});

test.each([
  ["http://a:0", /is not an address of etcd/],
  ["https://a,http://b", /either all addresses begin with https/],
  ["http://user:password@a:2379", /is not an address of etcd/],
  ["http://a:2379/path", /is not an address of etcd/],
])("refuses %s", async (endpoint, message) => {
  await expect(open({ endpoint })).rejects.toThrow(message);
});

function certificates() {
  const times = { notBeforeMs: 0, notAfterMs: Date.UTC(2050, 0, 1) };
  const caKey = generateKey();
  const ca = {
    key: caKey,
    certificate: issueCertificate({ commonName: "ca", usage: "authority", ...times }, caKey, undefined, systemRandom),
  };
  const leaf = (commonName: string, usage: "client" | "server+client", ips: readonly string[]) => {
    const key = generateKey();
    return { key, certificate: issueCertificate({ commonName, usage, ips, ...times }, key, ca, systemRandom) };
  };
  return { ca, server: leaf("etcd", "server+client", ["127.0.0.1"]), client: leaf("mote", "client", []) };
}
