// Bytes that nobody sane sends or finds: heavily damaged images for the decoder of records, mutated HTTP/2 for the socket of
// the etcd API, mutated messages for its services. What must hold: a store opens and serves only what was once written; the
// server stays up, in bounded memory, answers by the codes of gRPC, and serves everybody else.
// MOTE_FUZZ_ROUNDS and MOTE_CRASH_SEED.
import * as http2 from "node:http2";
import * as net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { hasCode } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { Engine } from "#datastore/engine/engine.ts";
import type { DamageReport } from "#datastore/log/log.ts";
import { openSqliteLog } from "#datastore/log/sqlite/sqlite-log.ts";
import { type Datastore, openStore } from "#datastore/store.ts";
import { readAsset } from "#platform/assets.ts";
import { systemClock } from "#platform/clock.ts";
import { createGrpcClient } from "#platform/grpc-client.ts";
import { startEtcdFace } from "#test/harness/etcd-face-server.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { RecordedFiles } from "#test/harness/recorded-files.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { etcdMethods, etcdTable } from "#wire/gen/etcd.ts";
import { encodeFrame } from "#wire/grpc.ts";
import { frameFlag, frameHeaderBytes, frameType } from "#wire/http2/frames.ts";
import { createWireCodec } from "#wire/protobuf.ts";

const rounds = Number(process.env["MOTE_FUZZ_ROUNDS"] ?? 40);
const seed = Number(process.env["MOTE_CRASH_SEED"] ?? 1);
type Random = ReturnType<typeof seededRandom>;
const pick = (random: Random, n: number) => Math.floor(random.float() * n);

describe("the decoder of records", () => {
  const module = new WebAssembly.Module(readAsset("sqlite3.wasm"));
  const engineWasm = readAsset("engine.wasm");
  const path = "/state.db";

  function open(files: RecordedFiles, reports: DamageReport[] = []): Promise<Datastore> {
    const deps = { clock: new FakeClock(0), log: silentLogger };
    const newEngine = () => new Engine({ wasm: engineWasm, maximumBytes: 64 * 1024 * 1024, hashSeed: 1 });
    const log = openSqliteLog({ path, files, module }, { ...deps, damaged: (report) => reports.push(report) });
    return openStore(newEngine, log, deps);
  }

  const calm = { float: () => 0, bytes: () => new Uint8Array(), uuid: () => "" };

  /** Some writes, and what the files were like in the middle and at the end. */
  async function grow(random: Random) {
    const files = new RecordedFiles();
    const store = await open(files);
    const ever = new Map<string, Set<string>>();
    const images: Map<string, Buffer>[] = [];
    for (let n = 0; n < 400; n++) {
      const key = `/registry/things/${pick(random, 120)}`;
      const value = `${n} `.repeat(1 + pick(random, pick(random, 10) === 0 ? 3000 : 200));
      await store.commit({ compares: [], success: [{ type: "put", key, value: Buffer.from(value) }] });
      ever.set(key, (ever.get(key) ?? new Set()).add(value));
      if (n % 150 === 149) await store.compact(store.revision());
      if (n === 199 || n === 399) images.push(files.cut(files.events.length, calm).image);
    }
    return { ever, old: images[0]!, image: images[1]! };
  }

  type Mutation = (file: Buffer, old: Buffer, random: Random) => Buffer;
  const sector = (file: Buffer, random: Random) => pick(random, Math.max(1, file.length / 512)) * 512;
  const mutations: readonly [string, Mutation][] = [
    [
      "bytes",
      (file, _old, random) => {
        if (file.length > 0) file[pick(random, file.length)] = pick(random, 256);
        return file;
      },
    ],
    // The first 100 bytes of either file decide how the rest is read.
    [
      "the header",
      (file, _old, random) => {
        if (file.length > 100) file[pick(random, 100)]! ^= 1 << pick(random, 8);
        return file;
      },
    ],
    [
      "noise",
      (file, _old, random) => {
        const at = Math.min(sector(file, random), Math.max(0, file.length - 512));
        file.set(random.bytes(Math.min(512, file.length)), at);
        return file;
      },
    ],
    ["a shorter file", (file, _old, random) => file.subarray(0, pick(random, file.length))],
    ["a longer file", (file, _old, random) => Buffer.concat([file, random.bytes(pick(random, 9000))])],
    [
      "an old sector",
      (file, old, random) => {
        const at = sector(old, random);
        old.copy(file, at, at, at + 512);
        return file;
      },
    ],
    [
      "two sectors exchanged",
      (file, _old, random) => {
        const [a, b] = [sector(file, random), sector(file, random)];
        const kept = Buffer.from(file.subarray(a, a + 512));
        file.copy(file, a, b, b + 512);
        kept.copy(file, b);
        return file;
      },
    ],
  ];

  // Found by seed 3: it took the file for a foreign one, and the server did not start.
  it("opens a store of which nothing but its beginning is left", async () => {
    const whole = new RecordedFiles();
    const before = await open(whole);
    for (let n = 0; n < 50; n++) {
      await before.commit({ compares: [], success: [{ type: "put", key: `/k/${n}`, value: Buffer.alloc(900) }] });
    }
    await before.close();
    const { image } = whole.cut(whole.events.length, calm);
    for (const kept of [1024, 3 * 1024, 3 * 1024 + 100]) {
      const files = new RecordedFiles(new Map([[path, Buffer.from(image.get(path)!.subarray(0, kept))]]));
      const reports: DamageReport[] = [];
      const store = await open(files, reports);
      expect((await store.range(prefixRange("/"))).kvs).toEqual([]);
      expect(
        reports.map(({ setAside }) => setAside),
        `${kept} bytes`,
      ).toEqual([`${path}-damaged`]);
      expect(files.exists(`${path}-damaged`)).toBe(true);
      await store.close();
    }
    const foreign = new RecordedFiles(
      new Map([[path, Buffer.from(image.get(path)!.subarray(0, 4096)).fill(9, 68, 72)]]),
    );
    await expect(open(foreign)).rejects.toThrow();
    expect(foreign.exists(`${path}-damaged`)).toBe(false);
  });

  it(`opens ${rounds} ruins and serves nothing that never was`, { timeout: 60_000 + rounds * 1000 }, async () => {
    const random = seededRandom(seed);
    const grown = await grow(random);
    const problems: string[] = [];
    let reported = 0;
    let refused = 0;
    const isTold = (file: Buffer) => file.length >= 100 && file.readUInt32BE(68) === 0x6d6f7465;
    for (let round = 0; round < rounds; round++) {
      const files = new Map<string, Buffer>([...grown.image].map(([name, data]) => [name, Buffer.from(data)]));
      const done: string[] = [];
      for (let n = 1 + pick(random, 12); n > 0; n--) {
        const name = pick(random, 2) === 0 ? path : `${path}-wal`;
        const [what, mutate] = mutations[pick(random, mutations.length)]!;
        files.set(name, mutate(files.get(name) ?? Buffer.alloc(0), grown.old.get(name) ?? Buffer.alloc(0), random));
        done.push(`${what} of ${name}`);
      }
      const where = `round ${round} (${done.join(", ")})`;
      const recorded = new RecordedFiles(files);
      const reports: DamageReport[] = [];
      try {
        const store = await open(recorded, reports);
        store.verify();
        reported += reports.length;
        for (const { key, value } of (await store.range(prefixRange("/"))).kvs) {
          if (!grown.ever.get(key)?.has(Buffer.from(value).toString())) problems.push(`${where}: garbage as ${key}`);
        }
        await store.commit({ compares: [], success: [{ type: "put", key: "/new", value: Buffer.from("1") }] });
        await store.close();
        const again = await open(recorded);
        again.verify();
        if ((await again.range({ key: "/new" })).kvs.length !== 1) problems.push(`${where}: does not keep what is new`);
        await again.close();
      } catch (error) {
        // Nothing says any more that this was ours: it is left alone, as any file of others.
        if (!isTold(files.get(path)!)) refused++;
        else problems.push(`${where}: ${error instanceof Error ? error.stack : String(error)}`);
      }
    }
    expect(problems).toEqual([]);
    expect(refused).toBeLessThan(rounds * 0.1);
    // Ruins that nobody notices would prove nothing.
    expect(reported).toBeGreaterThan(rounds * 0.5);
    console.log(`${rounds} ruins from seed ${seed}: 0 problems, ${reported} reported, ${refused} beyond recognition`);
  });
});

describe("the socket of the etcd API", () => {
  const codec = createWireCodec(etcdTable);
  const closing: (() => unknown)[] = [];
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  const bytes = (text: string) => Buffer.from(text, "latin1");

  async function start() {
    const { store, port, close } = await startEtcdFace();
    closing.push(close);
    const put = async () => {
      const client = createGrpcClient({ target: { host: "127.0.0.1", port }, maxMessageBytes: 2 ** 20 });
      const request = codec.encode("PutRequest", { key: bytes("after"), value: bytes("1") });
      await client.unary(etcdMethods["KV/Put"].path, request, { timeoutMs: 30_000 });
      client.close();
    };
    return { store, port, put };
  }

  const samples: readonly [keyof typeof etcdMethods, object][] = [
    ["KV/Put", { key: bytes("k"), value: Buffer.alloc(300, 7), lease: 0 }],
    ["KV/Range", { key: bytes("a"), rangeEnd: bytes("z"), limit: 10 }],
    [
      "KV/Txn",
      { success: [{ requestPut: { key: bytes("k"), value: bytes("v") } }, { requestRange: { key: bytes("k") } }] },
    ],
    ["KV/DeleteRange", { key: bytes("x"), rangeEnd: bytes("y"), prevKv: true }],
    ["Watch/Watch", { createRequest: { key: bytes("a"), rangeEnd: bytes("z"), startRevision: 1 } }],
    ["Lease/LeaseGrant", { TTL: 100 }],
    ["Lease/LeaseKeepAlive", { ID: 5 }],
    ["Maintenance/Status", {}],
    ["Maintenance/HashKV", {}],
  ];

  /** What an honest client sends for all samples, in the pieces it sends. */
  async function record(port: number): Promise<Buffer[]> {
    const pieces: Buffer[] = [];
    const relay = net.createServer((socket) => {
      const onward = net.connect(port, "127.0.0.1");
      socket.on("data", (piece: Buffer) => pieces.push(Buffer.from(piece)));
      socket.pipe(onward).pipe(socket);
      for (const end of [socket, onward]) end.on("error", () => socket.destroy());
    });
    await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", () => resolve()));
    const session = http2.connect(`http://127.0.0.1:${(relay.address() as net.AddressInfo).port}`);
    for (const [method, request] of samples) {
      const { path, request: type } = etcdMethods[method];
      const stream = session.request({
        ...{ ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" },
        "grpc-timeout": "200m",
      });
      stream.end(encodeFrame(codec.encode(type, request)));
      stream.resume();
      await new Promise<void>((resolve) => {
        stream.on("error", () => resolve());
        stream.on("close", () => resolve());
      });
    }
    session.destroy();
    await new Promise<void>((resolve) => relay.close(() => resolve()));
    return pieces;
  }

  /** A connection on which this is sent, and what has come back. */
  class Attack {
    readonly socket: net.Socket;
    readonly written: Promise<void>;
    receivedBytes = 0;
    readonly #received: Buffer[] = [];

    constructor(port: number, bytes: Uint8Array) {
      this.socket = net.connect(port, "127.0.0.1");
      this.socket.on("data", (piece: Buffer) => {
        this.receivedBytes += piece.length;
        this.#received.push(piece);
      });
      this.written = new Promise((resolve) => {
        // Being cut off in the middle is an answer too.
        this.socket.on("error", () => resolve());
        this.socket.on("close", () => resolve());
        this.socket.write(bytes, () => resolve());
      });
    }

    /** Types of frames that came back, but for the settings and the window that everybody gets. */
    get answers(): Set<number> {
      const all = Buffer.concat(this.#received);
      const found = new Set<number>();
      for (let at = 0; at + frameHeaderBytes <= all.length; at += frameHeaderBytes + all.readUIntBE(at, 3)) {
        const type = all[at + 3]!;
        const isAcknowledgement = (all[at + 4]! & frameFlag.ack) !== 0;
        if (type !== frameType.windowUpdate && (type !== frameType.settings || isAcknowledgement)) found.add(type);
      }
      return found;
    }
  }

  it(`bears ${rounds * 10} connections of mutated frames`, { timeout: 60_000 + rounds * 1000 }, async () => {
    const { store, port, put } = await start();
    const random = seededRandom(seed + 7);
    const honest = await record(port);
    const whole = Buffer.concat(honest);
    // Where frames begin: a mutation of a frame's head is worth more than one of its content.
    const heads: number[] = [];
    for (let at = 24; at + 9 <= whole.length; at += 9 + whole.readUIntBE(at, 3)) heads.push(at);
    expect(heads.length).toBeGreaterThan(samples.length * 2);
    const frame = () => {
      const n = pick(random, heads.length);
      return whole.subarray(heads[n]!, heads[n + 1] ?? whole.length);
    };
    const mutate = (): Buffer => {
      const copy = Buffer.from(whole);
      for (let n = 1 + pick(random, 6); n > 0; n--) {
        const at =
          pick(random, 2) === 0
            ? heads[pick(random, heads.length)]! + pick(random, 9)
            : 24 + pick(random, copy.length - 24);
        copy[at] = pick(random, 3) === 0 ? 255 : pick(random, 256);
      }
      switch (pick(random, 4)) {
        case 0:
          return copy.subarray(0, pick(random, copy.length));
        case 1:
          // Sound frames in an order that makes no sense, many of them again.
          return Buffer.concat([whole.subarray(0, heads[1]!), ...Array.from({ length: pick(random, 60) }, frame)]);
        case 2:
          return Buffer.concat([copy, random.bytes(pick(random, 500))]);
        default:
          return copy;
      }
    };
    await put();
    const honestClient = createGrpcClient({ target: { host: "127.0.0.1", port }, maxMessageBytes: 2 ** 20 });
    closing.push(() => honestClient.close());
    const ask = () =>
      honestClient.unary(etcdMethods["KV/Range"].path, codec.encode("RangeRequest", { key: bytes("after") }), {
        timeoutMs: 30_000,
      });
    await ask();
    let read = 0;
    let answered = 0;
    const memory = () => process.memoryUsage().rss;
    const sockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith("TCPSocket")).length;
    const socketsBefore = sockets();
    let before = 0;
    for (let round = 0; round < rounds; round++) {
      const attacks = Array.from({ length: 10 }, () => new Attack(port, mutate()));
      await Promise.all(attacks.map(({ written }) => written));
      const receivedBytes = () => attacks.reduce((sum, attack) => sum + attack.receivedBytes, 0);
      // No time is measured: all wait for the same server. When an honest client has been answered some times and these have
      // got nothing meanwhile, they have got what they get.
      for (let quiet = 0, tries = 0; quiet < 3 && tries < 100; tries++) {
        const before = receivedBytes();
        await ask();
        quiet = receivedBytes() === before ? quiet + 1 : 0;
      }
      for (const { socket } of attacks) socket.destroy();
      for (const { answers } of attacks) {
        if (answers.size > 0) read++;
        if (answers.has(frameType.headers)) answered++;
      }
      if (round === Math.floor(rounds / 4)) before = memory();
      if (round % 20 === 0) await put();
    }
    await put();
    store.verify();
    // They were read, not refused at the door, and some came as far as a service.
    expect(read).toBeGreaterThan(rounds * 10 * 0.5);
    expect(answered).toBeGreaterThan(rounds * 10 * 0.05);
    // No connection outlives its client.
    for (let i = 0; sockets() > socketsBefore; i++) {
      if (i > 100) throw new Error(`${sockets() - socketsBefore} connections are left`);
      await systemClock.sleep(20);
    }
    // Each brought under 10 KiB; kept, they and their streams would be more than this.
    expect(memory() - before).toBeLessThan(128 * 1024 * 1024);
    console.log(`${rounds * 10} mutated connections from seed ${seed}: 0 problems, ${read} read, ${answered} answered`);
  });

  it("answers mutated messages by the right codes", { timeout: 60_000 + rounds * 1000 }, async () => {
    const { store, port, put } = await start();
    const random = seededRandom(seed + 8);
    const session = http2.connect(`http://127.0.0.1:${port}`);
    closing.push(() => session.destroy());
    const problems: string[] = [];
    const counts = new Map<string, number>();
    const [ok, unknown, internal] = ["0", "2", "13"];
    for (let round = 0; round < rounds * 5; round++) {
      const [method, request] = samples[pick(random, samples.length)]!;
      const { path, request: type } = etcdMethods[method];
      const message = Buffer.from(codec.encode(type, request));
      for (let n = pick(random, 5); n > 0 && message.length > 0; n--)
        message[pick(random, message.length)] = pick(random, 256);
      let isSound = true;
      try {
        codec.decode(type, message);
      } catch (error) {
        if (!hasCode(error, "WIRE_PROTOBUF")) problems.push(`${method}: the decoder threw ${String(error)}`);
        isSound = false;
      }
      const stream = session.request({
        ...{ ":method": "POST", ":path": path, "content-type": "application/grpc", "grpc-timeout": "50m" },
      });
      stream.end(encodeFrame(message));
      const status = await new Promise<string>((resolve) => {
        const told = (headers: http2.IncomingHttpHeaders) => {
          if (headers["grpc-status"] !== undefined) resolve(String(headers["grpc-status"]));
        };
        stream.on("response", told);
        stream.on("trailers", told);
        stream.on("error", () => resolve("error"));
        stream.on("close", () => resolve("none"));
        stream.resume();
      });
      counts.set(status, (counts.get(status) ?? 0) + 1);
      const where = `${method} ${message.toString("hex")}`;
      if (!/^([0-9]|1[0-6])$/.test(status)) problems.push(`${where}: no status (${status})`);
      if (isSound && (status === unknown || status === internal))
        problems.push(`${where}: sound, and answered ${status}`);
      if (!isSound && status === ok) problems.push(`${where}: not sound, and taken`);
    }
    await put();
    store.verify();
    expect(problems).toEqual([]);
    // Both kinds have to be among them.
    expect(counts.get(ok)).toBeGreaterThan(rounds / 2);
    expect(counts.get(internal)).toBeGreaterThan(rounds / 4);
    console.log(
      `${rounds * 5} mutated messages from seed ${seed}: 0 problems; statuses ${JSON.stringify(Object.fromEntries(counts))}`,
    );
  });
});
