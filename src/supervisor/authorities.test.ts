// Authorities that are replaced, seen by openssl, by those who know the old ones only, and after a power cut.
import { createHash, createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemCommands } from "#platform/processes.ts";
import { systemRandom as random } from "#platform/random.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { leadsTo } from "#wire/certificate-chain.ts";
import {
  type Authorities,
  acceptAuthorities,
  applyStaged,
  authoritiesProblem,
  authorityFiles,
  formatAuthorities,
  nextAuthorities,
  readAuthorities,
} from "./authorities.ts";
import { openLivePki } from "./live-pki.ts";
import { generateKey, issueCertificate, splitPem } from "./pki/certificate.ts";
import { authorityName, ensurePki, leafTimes, makeAuthority } from "./pki.ts";
import { caHash, namedAuthority } from "./tokens.ts";

let folder = "";
let tls = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-authorities-"));
  tls = join(folder, "tls");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const startMs = Date.UTC(2027, 0, 1);
const clock = new FakeClock(startMs);
const deps = { clock, random, log: silentLogger };
const x509 = (bundle = "") => splitPem(bundle).map((pem) => new X509Certificate(pem));
const accept = (next: Authorities, isForced = false) =>
  acceptAuthorities(tls, { body: formatAuthorities(next, "2027-01-01T00:00:00Z"), isForced });

/** Of a cluster that has just begun. */
function begun(): Authorities {
  const [server, client] = [generateKey(), generateKey()];
  return {
    ServerCA: makeAuthority(
      { commonName: authorityName("mote-server-ca", startMs), key: server, nowMs: startMs },
      random,
    ),
    ServerCAKey: server,
    ClientCA: makeAuthority(
      { commonName: authorityName("mote-client-ca", startMs), key: client, nowMs: startMs },
      random,
    ),
    ClientCAKey: client,
    ServiceKey: generateKey(),
  };
}
function onDisk(authorities: Authorities): Authorities {
  mkdirSync(tls, { recursive: true });
  for (const [name, text] of Object.entries(authorities)) {
    writeFileSync(join(tls, authorityFiles[name as keyof typeof authorityFiles]), text);
  }
  return authorities;
}

test("who knows the first authority believes a server after ten rotations, by openssl too", async () => {
  const first = begun();
  const [known] = x509(first.ServerCA);
  let now = first;
  for (let i = 1; i <= 10; i++) {
    const next = nextAuthorities(now, startMs + i, random);
    expect(authoritiesProblem(now, next, false)).toBe(undefined);
    now = { ...now, ...next };
  }
  const { ServerCA: bundle = "", ServerCAKey: key = "" } = now;
  const times = leafTimes(bundle, startMs);
  const order = { commonName: "hub", usage: "server", dnsNames: ["hub"], ...times } as const;
  const [leaf, ...sent] = x509(issueCertificate(order, generateKey(), { certificate: bundle, key }, random) + bundle);
  // The next would be the end of it.
  expect(sent).toHaveLength(21);
  expect(leadsTo(leaf!, sent, [known!])).toBe(true);
  expect(namedAuthority(bundle, caHash(first.ServerCA!))).toBe(first.ServerCA);
  writeFileSync(join(folder, "old.pem"), first.ServerCA!);
  writeFileSync(join(folder, "new.pem"), bundle);
  writeFileSync(join(folder, "leaf.pem"), leaf!.toString());
  for (const trust of ["old.pem", "new.pem"]) {
    const args = [
      "verify",
      "-x509_strict",
      "-purpose",
      "sslserver",
      "-CAfile",
      trust,
      "-untrusted",
      "new.pem",
      "leaf.pem",
    ];
    const result = await systemCommands.run("openssl", args, { cwd: folder });
    expect(result, result.stderr).toMatchObject({ code: 0 });
  }
  // A token's hash is that of the shortest way to a root, as Go finds it: who vouched for the signer.
  const roots = x509(bundle).filter((one) => one.checkIssued(one));
  expect(caHash(bundle)).toBe(createHash("sha256").update(roots.at(-2)!.raw).digest("hex"));
});

test("new authorities count from the next start, and tokens of before stay good", async () => {
  const first = onDisk(begun());
  await accept(nextAuthorities(first, startMs, random));
  expect(await readAuthorities(tls)).toEqual(first);
  const { current } = await openLivePki({ folder: tls, nodeName: "hub", nodeIps: [] }, deps);
  expect(current.serverCa.key).not.toBe(first.ServerCAKey);
  const publicKey = createPublicKey(first.ServiceKey!).export({ type: "spki", format: "pem" }).toString();
  expect(current.serviceAccount.publicKeys).toHaveLength(2);
  expect(current.serviceAccount.publicKeys[1]).toBe(publicKey);
  expect(current.serviceAccount.privateKey.trim()).not.toBe(first.ServiceKey!.trim());
});

describe("what is refused", () => {
  const stranger = (): Authorities => {
    const key = generateKey();
    return { ServerCA: makeAuthority({ commonName: "x", key, nowMs: startMs }, random), ServerCAKey: key };
  };
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  const withBroken = (one: Authorities): Authorities => ({ ...one, ServerCA: `${one.ServerCA}${broken}` });
  test.each<[string, (current: Authorities) => Authorities, boolean, RegExp | undefined]>([
    ["nothing", () => ({}), false, /no authority/],
    ["a stranger", stranger, false, /vouches.*--force/],
    ["a stranger by force", stranger, true, undefined],
    ["another's key", () => ({ ...stranger(), ServerCAKey: generateKey() }), true, /does not belong/],
    ["no key", () => ({ ServerCA: stranger().ServerCA! }), true, /together/],
    ["no certificate", () => ({ ClientCA: "x", ClientCAKey: generateKey() }), true, /client-ca.crt/],
    ["a broken one above it", () => withBroken(stranger()), true, /server-ca.crt/],
    ["a lost key of tokens", () => ({ ServiceKey: generateKey() }), false, /signed with now is missing/],
    ["the same again", (current) => current, false, undefined],
    ["the next", (current) => nextAuthorities(current, startMs, random), false, undefined],
  ])("%s", (_name, choose, isForced, message) => {
    const current = begun();
    const problem = authoritiesProblem(current, choose(current), isForced);
    if (message) expect(problem).toMatch(message);
    else expect(problem).toBe(undefined);
  });

  test("a leaf as an authority", () => {
    const { ClientCA = "", ClientCAKey = "" } = begun();
    const order = { commonName: "x", usage: "client", ...leafTimes(ClientCA, startMs) } as const;
    const key = generateKey();
    const leaf = issueCertificate(order, key, { certificate: ClientCA, key: ClientCAKey }, random);
    expect(authoritiesProblem({}, { ClientCA: leaf, ClientCAKey: key }, true)).toMatch(/not that of an authority/);
  });

  test("a body that is none, and what is refused is not kept", async () => {
    onDisk(begun());
    for (const body of ["", "[", '{"ServerCA":5}']) {
      await expect(acceptAuthorities(tls, { body, isForced: true })).rejects.toMatchObject({ code: 400 });
    }
    await expect(accept(stranger())).rejects.toMatchObject({ code: 400 });
    expect(existsSync(`${tls}-next`)).toBe(false);
  });
});

test("a power cut at any point leaves the old or the new", async () => {
  const before = onDisk(begun());
  const next = nextAuthorities(before, startMs, random);
  await accept(next);
  // Not whole: as if it had never been.
  rmSync(`${tls}-next/complete`);
  await applyStaged(tls, deps);
  expect(await readAuthorities(tls)).toEqual(before);
  // In the middle of taking their place.
  await accept(next);
  writeFileSync(`${tls}/server-ca.crt`, next.ServerCA!);
  await applyStaged(tls, deps);
  expect(await readAuthorities(tls)).toEqual(next);
  expect(existsSync(`${tls}-next`)).toBe(false);
  expect(readdirSync(folder).filter((name) => /^tls-\d+$/.test(name))).toHaveLength(1);
  expect(readFileSync(`${tls}-${startMs / 1000}/server-ca.key`, "utf8")).toBe(before.ServerCAKey);
});

test("authorities of the owner, with an intermediate of another kind of key, are used and verify", async () => {
  mkdirSync(tls, { recursive: true });
  const run = async (...args: string[]) => {
    const result = await systemCommands.run("openssl", args, { cwd: tls });
    expect(result, result.stderr).toMatchObject({ code: 0 });
  };
  const made = ["-days", "3650", "-nodes"];
  await run(
    ...[
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      ...made,
      "-subj",
      "/CN=shop root",
      "-keyout",
      "root.key",
      "-out",
      "root.pem",
    ],
    ...["-addext", "keyUsage=critical,keyCertSign"],
  );
  writeFileSync(
    join(tls, "ext"),
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
  );
  const kinds = {
    server: ["rsa:2048"],
    client: ["ed25519"],
    "request-header": ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
  };
  for (const [name, kind] of Object.entries(kinds)) {
    await run(
      "req",
      "-new",
      "-newkey",
      ...kind,
      "-nodes",
      "-subj",
      `/CN=shop ${name}`,
      "-keyout",
      `${name}-ca.key`,
      "-out",
      "csr",
    );
    await run(
      ...["x509", "-req", "-in", "csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "3000"],
      ...["-extfile", "ext", "-out", `${name}-ca.crt`],
    );
    writeFileSync(join(tls, `${name}-ca.crt`), readFileSync(join(tls, "root.pem")), { flag: "a" });
  }
  // By openssl's time, which is not ours.
  const pki = await ensurePki(
    { folder: tls, nodeName: "hub", nodeIps: ["192.0.2.1"] },
    { ...deps, clock: new FakeClock(Date.now()) },
  );
  const leaves = { server: pki.servingApiserver, client: pki.clientAdmin, "request-header": pki.clientAuthProxy };
  for (const [name, { certificate, key }] of Object.entries(leaves)) {
    writeFileSync(join(tls, "leaf.pem"), certificate);
    await run("verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "leaf.pem", "leaf.pem");
    expect(new X509Certificate(certificate).issuer, name).toBe(`CN=shop ${name}`);
    expect(new X509Certificate(certificate).publicKey.equals(createPublicKey(createPrivateKey(key)))).toBe(true);
  }
});
