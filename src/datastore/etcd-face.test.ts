// The face where etcd itself is not at hand: what TLS, hostile bytes, slow clients and alarms do, and the codec's agreement
// with the tables. Agreement with etcd: test/etcd.
import * as http2 from "node:http2";
import * as net from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, describe, expect, test } from "vitest";
import { createGrpcClient, type GrpcClient } from "#platform/grpc-client.ts";
import { generateKey, issueCertificate } from "#supervisor/pki/certificate.ts";
import { startEtcdFace } from "#test/harness/etcd-face-server.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { type EtcdMethods, etcdMethods, etcdTable, type WatchResponse } from "#wire/gen/etcd.ts";
import { encodeFrame, isGrpcError } from "#wire/grpc.ts";
import { createWireCodec } from "#wire/protobuf.ts";
import { revision } from "./backend.ts";
import type { EtcdListenerOptions } from "./etcd-face.ts";
import {
  eventPart,
  frameOf,
  frameOfTable,
  headerFrame,
  headerPart,
  rangePart,
  responseOp,
  sharedAnswer,
  txnPart,
  watchPart,
  writeWatchHead,
} from "./etcdface/messages.ts";
import { readPut, readRange, readTxn } from "./etcdface/requests.ts";
import type { Datastore } from "./store.ts";

const codec = createWireCodec(etcdTable);
/** Views and copies of bytes are the same thing. */
const plainBytes = (value: unknown): unknown =>
  JSON.stringify(value, (_key, member: unknown) => {
    if (typeof member === "bigint") return `${member}n`;
    if (member instanceof Uint8Array) return Buffer.from(member).toString("hex");
    const json = member as { type?: unknown; data?: unknown } | null;
    if (json?.type === "Buffer") return Buffer.from(json.data as number[]).toString("hex");
    if (typeof member !== "object" || member === null || Array.isArray(member)) return member;
    return Object.fromEntries(Object.entries(member).sort());
  });
const closing: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function start(
  options: Partial<EtcdListenerOptions> = {},
): Promise<{ store: Datastore; port: number; client: GrpcClient; connect(tls?: object): GrpcClient }> {
  const { store, port, close } = await startEtcdFace(options);
  closing.push(close);
  const connect = (tls?: object) => {
    const client = createGrpcClient({
      target: { host: "127.0.0.1", port },
      maxMessageBytes: 2 ** 26,
      ...(tls ? { tls } : {}),
    });
    closing.push(() => client.close());
    return client;
  };
  return { store, port, client: connect(), connect };
}

async function call<K extends keyof EtcdMethods>(client: GrpcClient, method: K, request: object) {
  const { path, request: type, response } = etcdMethods[method];
  const bytes = await client.unary(path, codec.encode(type, request), { timeoutMs: 30_000 });
  return codec.decode<EtcdMethods[K]["response"]>(response, bytes);
}

const bytes = (text: string) => Buffer.from(text, "latin1");
const failsWith = (code: string, message: string) => expect.objectContaining({ code, message });

describe("requests", () => {
  const op = { requestPut: { key: bytes("k") } };
  test.each<[string, keyof EtcdMethods, object, string, string]>([
    ["no key", "KV/Put", {}, "INVALID_ARGUMENT", "etcdserver: key is not provided"],
    [
      "too large",
      "KV/Put",
      { key: bytes("k"), value: Buffer.alloc(1_572_864) },
      "INVALID_ARGUMENT",
      "etcdserver: request is too large",
    ],
    [
      "too many operations",
      "KV/Txn",
      { success: Array(129).fill(op) },
      "INVALID_ARGUMENT",
      "etcdserver: too many operations in txn request",
    ],
    ["twice", "KV/Txn", { success: [op, op] }, "INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request"],
    ["an empty operation", "KV/Txn", { success: [{}] }, "INVALID_ARGUMENT", "etcdserver: key not found"],
    ["no such lease", "Lease/LeaseRevoke", { ID: 5 }, "NOT_FOUND", "etcdserver: requested lease not found"],
    ["a long lease", "Lease/LeaseGrant", { TTL: 9_000_000_001 }, "OUT_OF_RANGE", "etcdserver: too large lease TTL"],
    [
      "no users",
      "Auth/Authenticate",
      { name: "a" },
      "FAILED_PRECONDITION",
      "etcdserver: authentication is not enabled",
    ],
    ["no such method", "Auth/UserList", {}, "UNIMPLEMENTED", "unknown method UserList for service etcdserverpb.Auth"],
    [
      "a longer key than is kept",
      "KV/Put",
      { key: Buffer.alloc(4097, 1) },
      "INVALID_ARGUMENT",
      "etcdserver: a key has 1 to 4096 bytes, not 4097",
    ],
    [
      "the future",
      "Maintenance/HashKV",
      { revision: 99 },
      "OUT_OF_RANGE",
      "etcdserver: mvcc: required revision is a future revision",
    ],
  ])("%s is refused", async (_name, method, request, code, message) => {
    const { client } = await start();
    await expect(call(client, method, request)).rejects.toEqual(failsWith(code, message));
  });

  test("a lease lives two seconds at least, and its grant is durable", async () => {
    const { client } = await start();
    expect(await call(client, "Lease/LeaseGrant", { ID: 7, TTL: 1 })).toMatchObject({ ID: 7, TTL: 2 });
    expect(await call(client, "Lease/LeaseTimeToLive", { ID: 8 })).toMatchObject({ ID: 8, TTL: -1 });
  });

  test("an alarm stops what adds, until it is taken back", async () => {
    const { client } = await start();
    await call(client, "KV/Put", { key: bytes("a") });
    const member = { memberID: 1, alarm: 1 };
    await call(client, "Maintenance/Alarm", { action: 1, ...member });
    const full = failsWith("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded");
    await expect(call(client, "KV/Put", { key: bytes("a") })).rejects.toEqual(full);
    await expect(call(client, "KV/Txn", { success: [op] })).rejects.toEqual(full);
    expect(await call(client, "KV/DeleteRange", { key: bytes("a") })).toMatchObject({ deleted: 1 });
    expect((await call(client, "Maintenance/Status", {})).errors).toEqual(["memberID:1 alarm:NOSPACE "]);
    expect((await call(client, "Maintenance/Alarm", {})).alarms).toEqual([member]);
    await call(client, "Maintenance/Alarm", { action: 2, ...member });
    await call(client, "KV/Put", { key: bytes("a") });
  });

  test("hashes tell contents apart, and compaction does not change them", async () => {
    const { client, store } = await start();
    const hashAt = async (at: number) => (await call(client, "Maintenance/HashKV", { revision: at })).hash;
    for (const value of ["1", "2", "3"]) await call(client, "KV/Put", { key: bytes("a"), value: bytes(value) });
    const [second, third] = [await hashAt(3), await hashAt(4)];
    expect(second).not.toBe(third);
    await store.compact(revision(3));
    expect([await hashAt(3), await hashAt(4), await hashAt(0)]).toEqual([second, third, third]);
  });
});

describe("the wire", () => {
  test("hand-written messages are what the tables say", () => {
    const kv = {
      key: "a\xff\0",
      value: Buffer.from([0, 255]),
      createRevision: revision(300),
      modRevision: revision(2 ** 40),
      version: 1,
      lease: 0,
    };
    const inTable = { ...kv, key: bytes(kv.key) };
    const identity = { clusterId: 1, memberId: 2, raftTerm: 3 };
    const header = { clusterId: 1, memberId: 2, revision: 5, raftTerm: 3 };
    const ranged = rangePart(headerPart(5, identity), { kvs: [kv, kv], keysOnly: false, more: true, count: 200 });
    const same = (name: string, part: Parameters<typeof frameOf>[0], value: object) =>
      expect(Buffer.from(frameOf(part)).toString("hex")).toBe(Buffer.from(frameOfTable(name, value)).toString("hex"));
    same("RangeResponse", ranged, { header, kvs: [inTable, inTable], more: true, count: 200 });
    same("TxnResponse", txnPart(headerPart(0), true, [responseOp(1, ranged)]), {
      header: {},
      succeeded: true,
      responses: [{ responseRange: { header, kvs: [inTable, inTable], more: true, count: 200 } }],
    });
    const event = eventPart({ type: "delete", kv, prevKv: kv }, true);
    const told = { created: true, canceled: true, compactRevision: 7, cancelReason: "ü", fragment: true };
    same("WatchResponse", watchPart(headerPart(5, identity), { watchId: -1, ...told, events: [event] }), {
      header,
      watchId: -1,
      ...told,
      events: [{ type: 1, kv: inTable, prevKv: inTable }],
    });
  });

  test("an answer that many watches share is what the tables say", () => {
    const kv = { key: "a", value: Buffer.from("1"), ...{ createRevision: revision(1), modRevision: revision(1) } };
    const event = { type: "put" as const, kv: { ...kv, version: 1, lease: 0 }, prevKv: undefined };
    const identity = { clusterId: 1, memberId: 2, raftTerm: 3 };
    const shared = sharedAnswer(headerPart(9, identity), [eventPart(event, false), eventPart(event, true)]);
    const head = Buffer.alloc(128);
    for (const watchId of [0, 1, 300, -1]) {
      const parts = { watchId, events: [eventPart(event, false), eventPart(event, true)] };
      const frame = Buffer.concat([head.subarray(0, writeWatchHead(head, watchId, shared)), shared.after]);
      expect(frame.equals(frameOf(watchPart(headerPart(9, identity), parts)))).toBe(true);
    }
  });

  test("a header alone is what the tables say", () => {
    const identity = { clusterId: 2 ** 40, memberId: 1, raftTerm: 300 };
    for (const revision of [1, 127, 128, 2 ** 35]) {
      const byTable = frameOfTable("PutResponse", { header: { ...identity, revision } });
      expect(Buffer.from(headerFrame(revision, identity)).equals(byTable)).toBe(true);
    }
  });

  test("requests read by hand are what the tables say, or are left to them", () => {
    const random = seededRandom(42);
    const pick = (n: number) => Math.floor(random.float() * n);
    const some = (n: number) => random.bytes(pick(n));
    const int = () => [0, 1, 127, 128, 300, 2 ** 31, 2 ** 40, 2 ** 53 - 1, -1, 2n ** 62n][pick(10)]!;
    const flag = () => pick(3) === 0;
    const bounds = () => ({ minModRevision: int(), maxModRevision: pick(5), maxCreateRevision: int() });
    const range = () => ({
      ...{
        key: some(40),
        rangeEnd: some(9),
        limit: pick(3000),
        revision: int(),
        sortOrder: pick(3),
        sortTarget: pick(5),
      },
      ...{ serializable: flag(), keysOnly: flag(), countOnly: flag(), ...(flag() ? bounds() : {}) },
    });
    const put = () => ({
      ...{ key: some(40), value: some(2000), lease: flag() ? int() : 0 },
      ...{ prevKv: flag(), ignoreValue: flag(), ignoreLease: flag() },
    });
    const several = <T>(make: () => T) => Array.from({ length: pick(4) }, make);
    const op = (): object =>
      [{ requestPut: put() }, { requestRange: range() }, { requestDeleteRange: { key: some(9) } }, {}][
        pick(20) === 0 ? 2 + pick(2) : pick(2)
      ]!;
    const compare = () => ({
      ...{ result: pick(4), target: pick(5), key: some(30), ...(flag() ? { rangeEnd: some(5) } : {}) },
      ...[{ modRevision: int() }, { version: pick(9) }, { createRevision: 0 }, { value: some(20) }, { lease: 7 }, {}][
        pick(6)
      ],
    });
    const txn = () => ({ compare: several(compare), success: several(op), failure: several(op) });
    const kinds = [
      ["PutRequest", readPut, put],
      ["RangeRequest", readRange, range],
      ["TxnRequest", readTxn, txn],
    ] as const;
    const read = { plain: 0, odd: 0, broken: 0, brokenRead: 0 };
    for (let round = 0; round < 6000; round++) {
      const [name, byHand, make] = kinds[round % 3]!;
      const message = Buffer.from(codec.encode(name, make()));
      const quick = byHand(message);
      if (quick) {
        expect(plainBytes(quick)).toEqual(plainBytes(codec.decode(name, message)));
        read.plain++;
      } else read.odd++;
      // Changed, cut, or longer: whatever is read must be what the tables read.
      const broken = Buffer.from(message);
      for (let i = pick(3); i >= 0 && broken.length > 0; i--) broken[pick(Math.min(broken.length, 60))] = pick(256);
      const hostile = [broken, broken.subarray(0, pick(broken.length)), Buffer.concat([broken, some(6)])][pick(3)]!;
      const again = byHand(hostile);
      read.broken++;
      if (!again) continue;
      read.brokenRead++;
      expect(plainBytes(again)).toEqual(plainBytes(codec.decode(name, hostile)));
    }
    expect(read.plain).toBeGreaterThan(3000);
    expect(read.odd).toBeGreaterThan(300);
    expect(read.brokenRead).toBeGreaterThan(300);
  });

  test("a deadline of the client is kept", async () => {
    const { port } = await start();
    const session = http2.connect(`http://127.0.0.1:${port}`);
    closing.push(() => session.destroy());
    const stream = session.request({
      ":method": "POST",
      ":path": etcdMethods["Lease/LeaseKeepAlive"].path,
      "content-type": "application/grpc",
      "grpc-timeout": "50m",
    });
    const headers = await new Promise<Record<string, unknown>>((resolve) => stream.on("response", resolve));
    expect(headers).toMatchObject({ "grpc-status": "4", "grpc-message": "context deadline exceeded" });
  });

  test.each<[string, Record<string, string>, Record<string, unknown>]>([
    ["another method", { ":method": "GET" }, { ":status": 405 }],
    ["another content", { "content-type": "application/json" }, { ":status": 415 }],
    ["compression", { "grpc-encoding": "gzip" }, { "grpc-status": "12" }],
    [
      "a service that is not there",
      { ":path": "/a.B/C" },
      { "grpc-status": "12", "grpc-message": "unknown service a.B" },
    ],
    ["a timeout that is none", { "grpc-timeout": "soon" }, { "grpc-status": "13" }],
  ])("%s is refused", async (_name, change, expected) => {
    const { port } = await start();
    const session = http2.connect(`http://127.0.0.1:${port}`);
    closing.push(() => session.destroy());
    const path = etcdMethods["KV/Range"].path;
    const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc", ...change });
    stream.on("error", () => {});
    expect(await new Promise((resolve) => stream.on("response", resolve))).toMatchObject(expected);
  });

  test("hostile bytes are answered or cut off, and the server goes on", async () => {
    const { port, client, store } = await start();
    const random = seededRandom(20261121);
    const session = http2.connect(`http://127.0.0.1:${port}`);
    session.on("error", () => {});
    closing.push(() => session.destroy());
    const methods = Object.values(etcdMethods);
    let refused = 0;
    for (let round = 0; round < 600; round++) {
      const { path, request } = methods[Math.floor(random.float() * methods.length)]!;
      let message = random.bytes(Math.floor(random.float() * 60));
      if (round % 2 === 0) {
        // A sound message with one byte changed.
        message = new Uint8Array(
          codec.encode(request, {
            key: bytes("key"),
            value: bytes("v"),
            success: [{ requestPut: { key: bytes("k") } }],
          }),
        );
        if (message.length > 0) message[Math.floor(random.float() * message.length)] = Math.floor(random.float() * 256);
      }
      const frame = encodeFrame(message);
      if (round % 5 === 0) frame[Math.floor(random.float() * 5)] = Math.floor(random.float() * 256);
      const stream = session.request({
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc",
        "grpc-timeout": "20m",
      });
      stream.end(round % 7 === 0 ? frame.subarray(0, Math.floor(random.float() * frame.length)) : frame);
      await new Promise<void>((resolve, reject) => {
        setTimeout(() => reject(new Error(`${path} did not end in round ${round}`)), 30_000).unref();
        stream.on("error", () => resolve());
        stream.on("close", () => resolve());
        stream.on("response", (headers) => {
          if (headers["grpc-status"] !== undefined) refused++;
        });
        stream.resume();
      });
    }
    expect(refused).toBeGreaterThan(150);
    const socket = net.connect(port, "127.0.0.1", () => socket.write(Buffer.from(random.bytes(5000))));
    socket.on("error", () => {});
    socket.resume();
    await new Promise((resolve) => socket.on("close", resolve));
    await call(client, "KV/Put", { key: bytes("after") });
    store.verify();
  });
});

describe("watches", () => {
  test("a client that does not read costs bounded memory and misses nothing", async () => {
    const { client, store, connect } = await start();
    const watcher = connect();
    const abort = new AbortController();
    const watch = await watcher.duplex(etcdMethods["Watch/Watch"].path, abort.signal);
    const create = { ...{ key: bytes("k/"), rangeEnd: bytes("k0") }, startRevision: 1 };
    watch.send(codec.encode("WatchRequest", { createRequest: create }));
    const messages = watch.messages[Symbol.asyncIterator]();
    await messages.next();
    const value = Buffer.alloc(64 * 1024);
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const memory = async () => {
      collect();
      // What the first has found is given back in the background.
      await new Promise((resolve) => setTimeout(resolve, 50));
      collect();
      return process.memoryUsage().arrayBuffers;
    };
    const before = await memory();
    for (let i = 0; i < 400; i++) {
      value.writeUInt32LE(i);
      await call(client, "KV/Put", { key: bytes(`k/${i % 3}`), value });
    }
    // 25 MiB were written; what the stream holds is a few of the client's windows at most, the rest is the store's.
    expect((await memory()) - before).toBeLessThan(12 * 1024 * 1024 + store.accounts().heldBytes);
    const seen: number[] = [];
    while (seen.length < 400) {
      const { value: message } = await messages.next();
      const { events } = codec.decode<WatchResponse>("WatchResponse", message as Uint8Array);
      seen.push(...events.map((event) => Buffer.from(event.kv!.value).readUInt32LE()));
    }
    expect(seen).toEqual(Array.from({ length: 400 }, (_, i) => i));
    abort.abort();
  });

  test("fragments are cut at the size of a request and add up", async () => {
    const { client } = await start({ maxRequestBytes: 100_000 });
    const success = Array.from({ length: 8 }, (_, i) => ({
      requestPut: { key: bytes(`k${i}`), value: Buffer.alloc(10_000, i) },
    }));
    const { header } = await call(client, "KV/Txn", { success });
    for (let round = 0; round < 2; round++) await call(client, "KV/Txn", { success });
    const abort = new AbortController();
    const watch = await client.duplex(etcdMethods["Watch/Watch"].path, abort.signal);
    const createRequest = { key: bytes("k"), rangeEnd: bytes("l"), startRevision: header!.revision, fragment: true };
    watch.send(codec.encode("WatchRequest", { createRequest }));
    const told: WatchResponse[] = [];
    for await (const message of watch.messages) {
      if (message.length > 100_000 + 100) throw new Error(`a fragment of ${message.length} bytes`);
      told.push(codec.decode<WatchResponse>("WatchResponse", message));
      if (told.length > 1 && !told.at(-1)!.fragment) break;
    }
    expect(told.flatMap(({ events }) => events).length).toBe(24);
    expect(told.map(({ fragment }) => fragment)).toEqual([false, true, true, false]);
  });

  test("an idle watch hears of the revision when it asked for it", async () => {
    const { client, store } = await start({ watchProgressIntervalMs: 30 });
    const abort = new AbortController();
    const watch = await client.duplex(etcdMethods["Watch/Watch"].path, abort.signal);
    watch.send(codec.encode("WatchRequest", { createRequest: { key: bytes("k"), progressNotify: true } }));
    await call(client, "KV/Put", { key: bytes("other") });
    for await (const message of watch.messages) {
      const told = codec.decode<WatchResponse>("WatchResponse", message);
      if (told.created) continue;
      expect(told).toMatchObject({ watchId: 0, events: [], header: { revision: store.revision() } });
      break;
    }
  });

  test("all end with the server", async () => {
    const { client, store } = await start();
    const abort = new AbortController();
    const watch = await client.duplex(etcdMethods["Watch/Watch"].path, abort.signal);
    watch.send(codec.encode("WatchRequest", { createRequest: { key: bytes("k") } }));
    const read = async () => {
      for await (const _ of watch.messages) await store.close();
    };
    await expect(read()).rejects.toEqual(failsWith("UNAVAILABLE", "etcdserver: server stopped"));
  });
});

describe("TLS", () => {
  const random = seededRandom(1);
  const year = { notBeforeMs: Date.now() - 3_600_000, notAfterMs: Date.now() + 3_600_000_000 };
  const [caKey, key] = [generateKey(), generateKey()];
  const authority = (name: string) =>
    issueCertificate({ commonName: name, usage: "authority", ...year }, caKey, undefined, random);
  const issued = (name: string, ca: string, usage: "server" | "client") =>
    issueCertificate(
      {
        commonName: name,
        usage,
        ...(usage === "server" ? { ips: ["127.0.0.1"], dnsNames: ["localhost"] } : {}),
        ...year,
      },
      key,
      { certificate: ca, key: caKey },
      random,
    );

  test("is spoken, and only with clients of the authority named", async () => {
    const ca = authority("ours");
    const certificatePem = issued("server", ca, "server");
    const { connect } = await start({ tls: { certificatePem, keyPem: key, clientCaPem: ca } });
    const ours = { caPem: ca, certificatePem: issued("client", ca, "client"), keyPem: key };
    await call(connect(ours), "KV/Put", { key: bytes("a") });
    await expect(call(connect({ caPem: ca }), "KV/Put", { key: bytes("a") })).rejects.toSatisfy((e) =>
      isGrpcError(e, "UNAVAILABLE"),
    );
    // Large answers beside each other, and beside small ones, in buffers that are used again.
    const client = connect(ours);
    const values = Array.from({ length: 300 }, (_, i) => Buffer.alloc(1 + i * 40, i));
    for (const [i, value] of values.entries()) await call(client, "KV/Put", { key: bytes(`r/${1000 + i}`), value });
    const ranges = Array.from({ length: 24 }, (_, n) =>
      call(client, "KV/Range", { key: bytes("r/"), rangeEnd: bytes("r0"), limit: n % 3 === 0 ? 0 : 20 * n }),
    );
    for (const [n, range] of ranges.entries()) {
      const { kvs, count } = await range;
      const expected = n % 3 === 0 ? values : values.slice(0, 20 * n);
      expect(Number(count)).toBe(300);
      expect(kvs.length).toBe(expected.length);
      expect(Buffer.concat(kvs.map(({ value }) => value)).equals(Buffer.concat(expected)), String(n)).toBe(true);
    }
    const strangers = { ...ours, certificatePem: issued("client", authority("theirs"), "client") };
    await expect(call(connect(strangers), "KV/Put", { key: bytes("a") })).rejects.toSatisfy((e) =>
      isGrpcError(e, "UNAVAILABLE"),
    );
  });
});
