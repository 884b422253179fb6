// Snapshots in a bucket: signatures against the examples that AWS publishes, everything else against a small S3 that checks
// signatures by itself, and with MOTE_TEST_MOTO=1 against moto (Debian: python3-moto), which is an S3 of others.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { generateKey, issueCertificate } from "#supervisor/pki/certificate.ts";
import { S3Server, type S3ServerOptions, startProxy } from "#test/harness/s3-server.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { parseS3Settings, type S3Fields, s3SettingsOfSecret } from "./s3-settings.ts";
import { readError, readPage } from "./snapshot/s3-answers.ts";
import { emptyBodyHash, encodePath, encodeQuery, signRequest } from "./snapshot/signature-v4.ts";
import type { Snapshot } from "./snapshot.ts";
import { openSnapshotBucket } from "./snapshot-s3.ts";

const root = mkdtempSync(join(tmpdir(), "mote-s3-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
/** Pauses between attempts take no time here. */
const clock = { ...systemClock, sleep: (_ms: number, signal?: AbortSignal) => systemClock.sleep(0, signal) };
const deps = { clock, random: systemRandom, log: silentLogger };
const account = { bucket: "backups", accessKey: "AKID", secretKey: "se/cret+key", region: "eu-test-1" };
const fieldsOf = (port: number, more: S3Fields = {}): S3Fields => ({
  ...{ endpoint: `127.0.0.1:${port}`, insecure: "true", bucket: account.bucket, region: account.region },
  ...{ "access-key": account.accessKey, "secret-key": account.secretKey, folder: "cluster one/a+b", ...more },
});
const settingsOf = (port: number, more?: S3Fields) =>
  parseS3Settings(fieldsOf(port, more), (name) => `--etcd-s3-${name}`);

async function startServer(options: Partial<S3ServerOptions> = {}) {
  const server = new S3Server({ ...account, ...options });
  const port = await server.listen();
  closing.push(() => server.close());
  const bucket = (more?: S3Fields, limits?: { singleBytes: number; partBytes: number }) => {
    const opened = openSnapshotBucket(settingsOf(port, more), deps, limits);
    closing.push(() => opened.close());
    return opened;
  };
  return { server, port, bucket };
}

function fileOf(name: string, size: number): Snapshot & { bytes: Buffer } {
  const bytes = Buffer.from(seededRandom(size).bytes(size));
  const path = join(root, name);
  writeFileSync(path, bytes);
  return { name, path, sizeBytes: size, createdMs: 0, bytes };
}
const owner = { name: "etcd-snapshot", node: "n1" };
const stored = (name: string) => `cluster one/a+b/${name}`;

describe("signatures", () => {
  const keys = {
    accessKey: "AKIAIOSFODNN7EXAMPLE",
    secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    sessionToken: undefined,
  };
  // The examples of "Signature Calculations for the Authorization Header" in the S3 API reference.
  test.each([
    [
      "GET",
      "/test.txt",
      {},
      { range: "bytes=0-9" },
      "",
      "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ],
    [
      ...(["PUT", "/test$file.text", {}] as const),
      { date: "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY" },
      "Welcome to Amazon S3.",
      "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ],
    ["GET", "/", { lifecycle: "" }, {}, "", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"],
    [
      ...(["GET", "/", { "max-keys": "2", prefix: "J" }, {}, ""] as const),
      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ],
  ] as const)("%s %s %j", (method, path, query, headers, body, expected) => {
    const bodyHash = body === "" ? emptyBodyHash : createHash("sha256").update(body).digest("hex");
    const request = {
      method,
      host: "examplebucket.s3.amazonaws.com",
      path: encodePath(path),
      query: encodeQuery(query),
    };
    const at = { region: "us-east-1", nowMs: Date.UTC(2013, 4, 24) };
    const signed = signRequest({ ...request, headers, bodyHash }, keys, at);
    expect(signed["authorization"]).toBe(
      `AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=${Object.keys(
        signed,
      )
        .filter((name) => name !== "authorization")
        .sort()
        .join(";")}, Signature=${expected}`,
    );
  });
});

describe("answers", () => {
  test("are read as what they are, and pages of others as nothing", () => {
    expect(readPage("<html><body>Login</body></html>")).toBe(undefined);
    expect(readError("<html/>")).toBe(undefined);
    expect(readError("<Error><Code>A</Code><Message>x &lt;&#x41;&#66;&bad;&gt;</Message></Error>")).toEqual({
      ...{ code: "A", message: "x <AB&bad;>", region: undefined },
    });
    expect(
      readPage("<ListBucketResult><Contents><Key>a&amp;b%20</Key><Size>7</Size></Contents></ListBucketResult>"),
    ).toEqual({ objects: [{ key: "a&b%20", sizeBytes: 7, modifiedMs: 0 }], next: undefined });
  });
});

describe("options", () => {
  test("have k3s's defaults", () => {
    const needed = { bucket: "b", "access-key": "a", "secret-key": "s" };
    expect(parseS3Settings({ ...needed, folder: "/x/y/" }, (name) => name)).toEqual({
      ...{ endpoint: "s3.amazonaws.com", endpointCa: undefined, skipSslVerify: false, insecure: false, bucket: "b" },
      ...{
        bucketLookup: "auto",
        proxy: undefined,
        region: "us-east-1",
        folder: "x/y",
        retention: 5,
        timeoutMs: 300_000,
      },
      keys: { accessKey: "a", secretKey: "s", sessionToken: undefined },
    });
  });
  test.each([
    ["bucket", undefined, /--etcd-s3-bucket: is needed/],
    ["access-key", "", /--etcd-s3-access-key: is needed/],
    ["endpoint", "https://s3.example.com", /--etcd-s3-endpoint: .*HOST/],
    ["bucket", "a/b", /--etcd-s3-bucket: "a\/b"/],
    ["bucket-lookup-type", "name", /one of auto, dns, path/],
    ["retention", "0", /--etcd-s3-retention/],
    ["timeout", "5", /--etcd-s3-timeout/],
    ["timeout", "1ms", /too short/],
    ["proxy", "socks5://a", /--etcd-s3-proxy: .*http:\/\/HOST/],
    ["endpoint-ca", "nonsense", /no certificate/],
    ["insecure", "yes", /true or false/],
  ])("%s=%s is refused", (name, value, why) => {
    expect(() => settingsOf(1, { [name]: value })).toThrow(why);
  });
  test("come from a Secret by the same names", () => {
    const data = Object.fromEntries(
      Object.entries(fieldsOf(9)).map(([name, value]) => [
        `etcd-s3-${name}`,
        Buffer.from(`${value}\n`).toString("base64"),
      ]),
    );
    expect(s3SettingsOfSecret(data, "kube-system/s3")).toEqual(settingsOf(9));
    expect(() => s3SettingsOfSecret({}, "kube-system/s3")).toThrow(
      "secret kube-system/s3, key etcd-s3-bucket: is needed",
    );
  });
});

describe("a bucket", () => {
  it("takes, lists, keeps as many as it should, gives back and deletes", async () => {
    const { server, bucket } = await startServer({ pageSize: 2 });
    const s3 = bucket({ retention: "3" });
    for (let n = 1; n <= 5; n++) await s3.upload(fileOf(`etcd-snapshot-n1-${n}00`, 1000 * n), owner);
    await s3.upload(fileOf("etcd-snapshot-n2-100.gz", 10), { ...owner, node: "n2" });
    server.objects.set(stored("readme.txt"), Buffer.from("not ours"));
    server.objects.set("elsewhere/etcd-snapshot-n1-100", Buffer.from("not ours"));
    expect((await s3.list()).map(({ name, sizeBytes, createdMs }) => [name, sizeBytes, createdMs])).toEqual([
      ["etcd-snapshot-n2-100.gz", 10, 100_000],
      ["etcd-snapshot-n1-300", 3000, 300_000],
      ["etcd-snapshot-n1-400", 4000, 400_000],
      ["etcd-snapshot-n1-500", 5000, 500_000],
    ]);
    expect((await s3.list())[1]!.path).toBe("s3://backups/cluster one/a+b/etcd-snapshot-n1-300");
    const path = await s3.download("etcd-snapshot-n1-500", root);
    expect(readFileSync(path)).toEqual(server.objects.get(stored("etcd-snapshot-n1-500")));
    expect((await s3.prune({ ...owner, retention: 1 })).map(({ name }) => name)).toEqual([
      "etcd-snapshot-n1-300",
      "etcd-snapshot-n1-400",
    ]);
    await s3.remove("etcd-snapshot-n1-500");
    await s3.remove("etcd-snapshot-n1-500");
    expect(server.objects.has(stored("etcd-snapshot-n1-500"))).toBe(false);
    await expect(s3.download("etcd-snapshot-n1-500", root)).rejects.toThrow(/bucket backups: download .*NoSuchKey/);
    expect(readdirSync(root).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    await expect(s3.download("../x-1", root)).rejects.toThrow(/no name/);
    expect(server.objects.size).toBe(3);
    expect(server.problems).toEqual([]);
  });

  const small = { singleBytes: 100_000, partBytes: 64_000 };

  it("takes a large file in parts, and leaves none behind when that fails", async () => {
    const { server, bucket } = await startServer();
    const s3 = bucket({}, small);
    const file = fileOf("etcd-snapshot-n1-1", 200_001);
    await s3.upload(file, owner);
    expect(server.objects.get(stored(file.name))!.equals(file.bytes)).toBe(true);
    expect(server.largestBodyBytes).toBe(64_000);
    expect(server.requests.filter(({ query }) => query.has("partNumber")).length).toBe(4);
    server.objects.clear();
    server.fault = ({ query }) => (query.get("partNumber") === "3" ? { status: 403, code: "AccessDenied" } : undefined);
    await expect(s3.upload(file, owner)).rejects.toThrow(/AccessDenied.*the keys lack a right/);
    expect(server.uploads.size).toBe(0);
    expect(server.objects.size).toBe(0);
  });

  it("tries again what may pass: errors, cut connections, lost answers", async () => {
    const { server, bucket } = await startServer();
    const s3 = bucket({}, small);
    const file = fileOf("etcd-snapshot-n1-2", 200_001);
    // Every request of every kind fails once, each in another way.
    const ways = [{ status: 503, code: "SlowDown" }, "cut", "lose the answer"] as const;
    const failed = new Map<string, number>();
    server.fault = ({ method, key, query }) => {
      const what = `${method} ${key} ${[...query.keys()].join()} ${query.get("partNumber")}`;
      const count = failed.get(what) ?? 0;
      failed.set(what, count + 1);
      return ways[count];
    };
    await s3.upload(file, owner);
    expect(server.objects.get(stored(file.name))!.equals(file.bytes)).toBe(true);
    expect((await s3.list()).length).toBe(1);
    const path = await s3.download(file.name, root);
    expect(readFileSync(path).equals(file.bytes)).toBe(true);
    // Each of 1 start, 4 parts, 1 end, 1 list, 1 download.
    expect(failed.size).toBeGreaterThanOrEqual(8);
    server.fault = () => ({ status: 500, code: "InternalError" });
    const before = server.requests.length;
    await expect(s3.list()).rejects.toThrow(/list: 127.0.0.1:\d+ answered 500 \(InternalError: InternalError & more\)/);
    expect(server.requests.length - before).toBe(5);
  });

  it("resumes a download, and does not mix two objects of one name", async () => {
    const { server, bucket } = await startServer();
    const s3 = bucket();
    const file = fileOf("etcd-snapshot-n1-3", 400_000);
    server.objects.set(stored(file.name), file.bytes);
    let cuts = 0;
    server.fault = ({ method }) => (method === "GET" && cuts++ < 3 ? "cut" : undefined);
    expect(readFileSync(await s3.download(file.name, root)).equals(file.bytes)).toBe(true);
    expect(cuts).toBe(4);
    cuts = 0;
    server.fault = ({ method }) => {
      if (method !== "GET" || cuts++ > 0) return undefined;
      setTimeout(() => server.objects.set(stored(file.name), Buffer.alloc(400_000)), 0);
      return "cut";
    };
    await expect(s3.download(file.name, root)).rejects.toThrow(/PreconditionFailed/);
  });

  it.each<[string, S3Fields, Partial<S3ServerOptions>, RegExp]>([
    ["a wrong secret", { "secret-key": "x" }, {}, /SignatureDoesNotMatch.*check --etcd-s3-access-key/],
    ["a wrong id", { "access-key": "x" }, {}, /InvalidAccessKeyId/],
    ["a wrong region", { region: "us-east-1" }, {}, /the bucket is in region eu-test-1; set --etcd-s3-region/],
    ["a wrong bucket", { bucket: "other" }, {}, /NoSuchBucket.*create the bucket/],
    ["TLS where there is none", { insecure: "false" }, {}, /list: GET https:/],
  ])("says what is wrong: %s", async (_name, more, options, why) => {
    const { bucket } = await startServer(options);
    await expect(bucket(more).list()).rejects.toThrow(why);
  });

  it("ends in time when the server does not answer", async () => {
    const { server, bucket } = await startServer();
    server.fault = () => ({ delayMs: 5000 });
    await expect(bucket({ timeout: "1s" }).list()).rejects.toThrow(/not done within 1 s; --etcd-s3-timeout/);
  });

  it("is reached with a wrong clock, by the server's", async () => {
    const { server, bucket } = await startServer({ skewMs: 86_400_000 });
    const s3 = bucket();
    expect(await s3.list()).toEqual([]);
    expect(await s3.list()).toEqual([]);
    expect(server.requests.length).toBe(3);
  });

  it("does not send a file as one piece of memory", async () => {
    const { bucket, server } = await startServer();
    const file = fileOf("etcd-snapshot-n1-4", 8_000_000);
    await bucket().upload(file, owner);
    expect(server.objects.get(stored(file.name))!.equals(file.bytes)).toBe(true);
    expect(server.requests.filter(({ method }) => method === "PUT").length).toBe(1);
  });
});

describe("TLS, names and proxies", () => {
  const key = generateKey();
  const caKey = generateKey();
  const year = { notBeforeMs: Date.now() - 3_600_000, notAfterMs: Date.now() + 3_600_000_000 };
  const random = seededRandom(3);
  const ca = issueCertificate({ commonName: "ca", usage: "authority", ...year }, caKey, undefined, random);
  const dnsNames = ["backups.s3.example.test"];
  const cert = issueCertificate(
    { ...{ commonName: "s3", usage: "server", ips: ["127.0.0.1"], dnsNames }, ...year },
    key,
    { certificate: ca, key: caKey },
    random,
  );
  const tls = { cert, key };

  it("checks the certificate by --etcd-s3-endpoint-ca, or not at all by --etcd-s3-skip-ssl-verify", async () => {
    const { bucket } = await startServer({ tls });
    const secure = { insecure: "false" };
    await expect(bucket(secure).list()).rejects.toThrow(/certificate/);
    const base64 = Buffer.from(ca).toString("base64");
    for (const more of [{ "endpoint-ca": ca }, { "endpoint-ca": base64 }, { "skip-ssl-verify": "true" }]) {
      expect(await bucket({ ...secure, ...more }).list()).toEqual([]);
    }
  });

  it.each([false, true])("names the bucket in the host, through a proxy (TLS: %s)", async (isSecure) => {
    const { port, server, bucket } = await startServer(isSecure ? { tls } : {});
    const proxy = await startProxy(port);
    closing.push(() => proxy.close());
    const s3 = bucket({
      ...{ endpoint: "s3.example.test:9000", "bucket-lookup-type": "dns", insecure: String(!isSecure) },
      ...{ "endpoint-ca": ca, proxy: `http://me:pa%20ss@127.0.0.1:${proxy.port}` },
    });
    const file = fileOf("etcd-snapshot-n1-5", 100);
    await s3.upload(file, owner);
    expect((await s3.list()).map(({ name }) => name)).toEqual([file.name]);
    expect(server.objects.get(stored(file.name))!.equals(file.bytes)).toBe(true);
    const credentials = `Basic ${Buffer.from("me:pa ss").toString("base64")}`;
    expect(proxy.asked[0]).toBe(
      isSecure
        ? `CONNECT backups.s3.example.test:9000 ${credentials}`
        : `PUT http://backups.s3.example.test:9000/cluster%20one/a%2Bb/${file.name} ${credentials}`,
    );
  });

  it("says that a proxy does not lead there", async () => {
    const { port, bucket } = await startServer();
    // The S3 server knows no CONNECT.
    const s3 = bucket({ insecure: "false", proxy: `http://127.0.0.1:${port}` });
    await expect(s3.list()).rejects.toThrow(/proxy 127.0.0.1/);
  });
});

/** Its port. It may ask for its own address before it has one, on a busy machine: then it is started again. */
async function startMoto(program: string, attempts = 5): Promise<number> {
  const child = spawn("python3", ["-c", program], { stdio: ["ignore", "pipe", "pipe"] });
  closing.push(() => child.kill("SIGKILL"));
  let complaint = "";
  child.stderr.on("data", (text: Buffer) => {
    complaint = `${complaint}${text}`.slice(-2000);
  });
  const port = await new Promise<number | undefined>((resolve) => {
    child.stdout.on("data", (line: Buffer) => {
      const said = /^port (\d+)$/m.exec(line.toString())?.[1];
      if (said) resolve(Number(said));
    });
    child.once("exit", () => resolve(undefined));
  });
  if (port !== undefined) return port;
  if (attempts === 1) throw new Error(`moto did not start: ${complaint}`);
  return startMoto(program, attempts - 1);
}

// By hand: how long moto takes to start is beyond us, and it hangs on a busy machine.
it.skipIf(process.env["MOTE_TEST_MOTO"] !== "1")(
  "moto, an S3 of others, understands it all",
  { timeout: 180_000 },
  async () => {
    const program =
      "from moto.server import ThreadedMotoServer as S; import time; s=S(port=0); s.start(); print('port', s.get_host_and_port()[1], flush=True); time.sleep(170)";
    const port = await startMoto(program);
    const made = await fetch(`http://127.0.0.1:${port}/backups`, { method: "PUT" });
    expect(made.status).toBe(200);
    const limits = { singleBytes: 1_000_000, partBytes: 5 * 1024 * 1024 };
    const s3 = openSnapshotBucket(settingsOf(port, { region: "us-east-1", retention: "2" }), deps, limits);
    closing.push(() => s3.close());
    const large = fileOf("etcd-snapshot-n1-900", 11_000_000);
    for (const file of [fileOf("etcd-snapshot-n1-700", 5), fileOf("etcd-snapshot-n1-800", 0), large])
      await s3.upload(file, owner);
    expect((await s3.list()).map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual([
      ["etcd-snapshot-n1-800", 0],
      [large.name, large.sizeBytes],
    ]);
    expect(readFileSync(await s3.download(large.name, root)).equals(large.bytes)).toBe(true);
    await s3.remove(large.name);
    await expect(s3.download(large.name, root)).rejects.toThrow(/NoSuchKey/);
    await expect(openSnapshotBucket(settingsOf(port, { bucket: "none" }), deps).list()).rejects.toThrow(/NoSuchBucket/);
  },
);
