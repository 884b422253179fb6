import { createPublicKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { ApiObject } from "#model/object.ts";
import { runChecked, systemCommands } from "#platform/processes.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createServiceAccountAuthenticator } from "./service-account.ts";
import { createTokenIssuer, defaultIssuer } from "./token-issuer.ts";
import { createX509Authenticator } from "./x509.ts";

const log = silentLogger;
const unauthorized = expect.objectContaining({ status: expect.objectContaining({ code: 401 }) });

describe("client certificates", () => {
  let folder = "";
  const openssl = (...args: string[]) => runChecked(systemCommands, "openssl", args, { cwd: folder });
  const der = (name: string) => new X509Certificate(readFileSync(join(folder, `${name}.crt`))).raw;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "mote-authn-"));
    for (const ca of ["ca", "other"]) {
      await openssl(
        ..."req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=ca".split(" "),
        "-keyout",
        `${ca}.key`,
        "-out",
        `${ca}.crt`,
      );
    }
    const leaf = async (name: string, ca: string, subject: string, usage: string) => {
      const ext = ["-addext", `extendedKeyUsage=${usage}`];
      await openssl(
        // Keys of RSA take seconds each on a busy machine.
        ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 20".split(" "),
        "-subj",
        subject,
        "-CA",
        `${ca}.crt`,
        "-CAkey",
        `${ca}.key`,
        "-keyout",
        `${name}.key`,
        "-out",
        `${name}.crt`,
        ...ext,
      );
    };
    await leaf("ann", "ca", "/O=dev/O=ops/CN=ann", "clientAuth");
    await leaf("server", "ca", "/CN=server", "serverAuth");
    await leaf("forged", "other", "/O=system:masters/CN=admin", "clientAuth");
    await leaf("nameless", "ca", "/O=dev", "clientAuth");
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const authenticate = (name: string, nowMs: number) =>
    createX509Authenticator(
      { clientCa: readFileSync(join(folder, "ca.crt"), "utf8") },
      { clock: new FakeClock(nowMs), log },
    ).authenticate({
      clientCertificate: der(name),
    });
  const now = () => Date.parse(new X509Certificate(readFileSync(join(folder, "ann.crt"))).validFrom) + 1000;

  test("name and groups come from the subject", async () => {
    expect(await authenticate("ann", now())).toMatchObject({
      name: "ann",
      groups: ["dev", "ops", "system:authenticated"],
    });
  });

  test.each(["server", "forged", "nameless"])("%s is refused", async (name) => {
    await expect(authenticate(name, now())).rejects.toEqual(unauthorized);
  });

  test("validity is checked at every request, also of a remembered certificate", async () => {
    const clock = new FakeClock(now());
    const authenticator = createX509Authenticator(
      { clientCa: readFileSync(join(folder, "ca.crt"), "utf8") },
      { clock, log },
    );
    const credentials = { clientCertificate: der("ann") };
    expect((await authenticator.authenticate(credentials))?.name).toBe("ann");
    clock.jump(40 * 24 * 3600 * 1000);
    await expect(authenticator.authenticate(credentials)).rejects.toEqual(unauthorized);
  });

  test("no certificate is nobody's business, garbage is refused", async () => {
    const authenticator = createX509Authenticator(
      { clientCa: readFileSync(join(folder, "ca.crt"), "utf8") },
      { clock: new FakeClock(), log },
    );
    expect(await authenticator.authenticate({})).toBeUndefined();
    await expect(authenticator.authenticate({ clientCertificate: new Uint8Array(10) })).rejects.toEqual(unauthorized);
  });
});

describe("service account tokens", () => {
  const pair = () => {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    return {
      privateKey: privateKey.export({ type: "sec1", format: "pem" }).toString(),
      publicKey: publicKey.export({ type: "spki", format: "pem" }).toString(),
    };
  };
  const keys = pair();
  const clock = new FakeClock();
  const account = { name: "robot", uid: "u1" };
  const objects = new Map<string, ApiObject>();
  const put = (resource: string, name: string, metadata: object) => objects.set(`${resource}/${name}`, { metadata });
  const issuer = createTokenIssuer(
    { privateKey: keys.privateKey, publicKeys: [keys.publicKey] },
    { clock, random: seededRandom(1) },
  );
  const authenticator = createServiceAccountAuthenticator(
    { publicKeys: [keys.publicKey] },
    { clock, log, get: async (resource, _namespace, name) => objects.get(`${resource}/${name}`) },
  );
  const authenticate = (bearerToken: string) => authenticator.authenticate({ bearerToken });
  const spec = { namespace: "ns", serviceAccount: account };
  put("serviceaccounts", "robot", { uid: "u1" });
  put("pods", "p", { uid: "pu" });

  test("a token says who it is, and what pod it is of", async () => {
    const { token, expirationMs } = issuer.issue({
      ...spec,
      pod: { name: "p", uid: "pu" },
      node: { name: "n", uid: "nu" },
      expirationSeconds: 600,
    });
    expect(expirationMs).toBe(clock.now() + 600_000);
    expect(await authenticate(token)).toEqual({
      name: "system:serviceaccount:ns:robot",
      uid: "u1",
      groups: ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
      extra: {
        "authentication.kubernetes.io/credential-id": [expect.stringMatching(/^JTI=[0-9a-f-]{36}$/)],
        "authentication.kubernetes.io/pod-name": ["p"],
        "authentication.kubernetes.io/pod-uid": ["pu"],
        "authentication.kubernetes.io/node-name": ["n"],
        "authentication.kubernetes.io/node-uid": ["nu"],
      },
    });
  });

  const tampered = (token: string, change: (claims: { [claim: string]: unknown }) => void): string => {
    const [header, body, signature] = token.split(".");
    const claims = JSON.parse(Buffer.from(body!, "base64url").toString()) as { [claim: string]: unknown };
    change(claims);
    return [header, Buffer.from(JSON.stringify(claims)).toString("base64url"), signature].join(".");
  };
  const unsigned = (token: string): string => {
    const [, body] = token.split(".");
    return `${Buffer.from('{"alg":"none"}').toString("base64url")}.${body}.`;
  };
  const stranger = pair();
  const forger = createTokenIssuer(
    { privateKey: stranger.privateKey, publicKeys: [stranger.publicKey] },
    { clock, random: seededRandom(2) },
  );

  test.each<[string, () => string]>([
    [
      "changed subject",
      () =>
        tampered(issuer.issue(spec).token, (claims) =>
          Object.assign(claims, { sub: "system:serviceaccount:ns:admin" }),
        ),
    ],
    ["no signature", () => unsigned(issuer.issue(spec).token)],
    ["another key", () => forger.issue(spec).token],
    ["a signature cut short", () => issuer.issue(spec).token.slice(0, -20)],
    ["an empty signature", () => issuer.issue(spec).token.replace(/[^.]+$/, "")],
    ["another audience", () => issuer.issue({ ...spec, audiences: ["vault"] }).token],
    [
      "another account of the name",
      () => issuer.issue({ ...spec, serviceAccount: { name: "robot", uid: "old" } }).token,
    ],
    ["no such account", () => issuer.issue({ ...spec, serviceAccount: { name: "nobody", uid: "u1" } }).token],
    ["a pod that is gone", () => issuer.issue({ ...spec, pod: { name: "gone", uid: "pu" } }).token],
    ["another pod of the name", () => issuer.issue({ ...spec, pod: { name: "p", uid: "old" } }).token],
  ])("%s is refused", async (_name, token) => {
    await expect(authenticate(token())).rejects.toEqual(unauthorized);
  });

  test("a token ends", async () => {
    const { token } = issuer.issue({ ...spec, expirationSeconds: 600 });
    clock.jump(609_000);
    expect(await authenticate(token)).toBeDefined();
    clock.jump(2_000);
    await expect(authenticate(token)).rejects.toEqual(unauthorized);
  });

  test("a token that lives in a secret: its use is told once a day, and a mark on the secret ends it", async () => {
    const day = () => new Date(clock.now()).toISOString().slice(0, 10);
    const used: string[] = [];
    const noting = createServiceAccountAuthenticator(
      { publicKeys: [keys.publicKey] },
      {
        ...{ clock, log },
        get: async (resource, _namespace, name) => objects.get(`${resource}/${name}`),
        secretUsed(secret, on) {
          used.push(on);
          const { labels } = secret.metadata;
          put("secrets", "s", { uid: "su", labels: { ...labels, "kubernetes.io/legacy-token-last-used": on } });
        },
      },
    );
    put("secrets", "s", { uid: "su" });
    const { token } = issuer.issue({ ...spec, secret: { name: "s", uid: "su" }, expirationSeconds: 10 * 86_400 });
    const ask = () => noting.authenticate({ bearerToken: token });
    const first = day();
    await ask();
    await ask();
    expect(used).toEqual([first]);
    clock.jump(86_400_000);
    await ask();
    expect(used).toEqual([first, day()]);
    put("secrets", "s", { uid: "su", labels: { "kubernetes.io/legacy-token-invalid-since": first } });
    await expect(ask()).rejects.toEqual(unauthorized);
  });

  test("what is no token of ours is left to others", async () => {
    for (const text of ["", "a.b.c", "abcdef.0123456789abcdef", "x".repeat(100_000)])
      expect(await authenticate(text)).toBeUndefined();
  });

  test("a review answers for the audiences it asks about", async () => {
    const { token } = issuer.issue({ ...spec, audiences: ["vault", "db"] });
    expect((await authenticator.review(token, ["db", "other"]))?.audiences).toEqual(["db"]);
  });
  test("a review that names no audience is about this server's", async () => {
    const { token } = issuer.issue(spec);
    expect((await authenticator.review(token, []))?.audiences).toEqual([defaultIssuer]);
  });

  test("the published key verifies", () => {
    const [key] = issuer.jwks().keys as [{ kty: string; crv: string; alg: string }];
    expect(key).toMatchObject({ kty: "EC", crv: "P-256", alg: "ES256", use: "sig" });
    expect(createPublicKey({ key: key as never, format: "jwk" }).export({ type: "spki", format: "pem" })).toBe(
      keys.publicKey,
    );
    expect(issuer.discovery("https://x/openid/v1/jwks")).toMatchObject({ issuer: defaultIssuer });
  });
});
