import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createLogger, type LogFields, silentLogger } from "#base/log.ts";
import { systemCommands } from "#platform/processes.ts";
import { systemRandom } from "#platform/random.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { ensurePki, type PkiOptions } from "./pki.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-pki-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const start = Date.UTC(2027, 0, 1);
const day = 24 * 3600 * 1000;
function make(nowMs = start, more: Partial<PkiOptions> = {}) {
  const options = { folder, nodeName: "box.lan", nodeIps: ["192.0.2.7", "2001:db8::7"], ...more };
  return ensurePki(options, { clock: new FakeClock(nowMs), random: systemRandom, log: silentLogger });
}

describe("ensurePki", () => {
  test("what is issued is told in one line, and nothing when nothing is", async () => {
    const told: (readonly [string, LogFields])[] = [];
    const log = createLogger((_level, message, fields) => void told.push([message, fields]), "info");
    const options = { folder, nodeName: "box.lan", nodeIps: ["192.0.2.7"] };
    const run = () => ensurePki(options, { clock: new FakeClock(start), random: systemRandom, log });
    await run();
    expect(told.map(([message]) => message)).toEqual(["certificates issued"]);
    expect(told[0]![1]).toMatchObject({ reason: "missing" });
    expect(String(told[0]![1]["files"]).split(" ").toSorted()).toEqual(
      expect.arrayContaining(["client-admin", "serving-kubelet"]),
    );
    await run();
    expect(told).toHaveLength(1);
  });

  test("openssl accepts every chain for its purpose", async () => {
    const pki = await make();
    const cases: [string, string, string][] = [
      [pki.clientCa.certificate, pki.clientAdmin.certificate, "sslclient"],
      [pki.clientCa.certificate, pki.clientKubelet.certificate, "sslclient"],
      [pki.serverCa.certificate, pki.servingApiserver.certificate, "sslserver"],
      [pki.serverCa.certificate, pki.servingKubelet.certificate, "sslserver"],
      [pki.requestHeaderCa.certificate, pki.clientAuthProxy.certificate, "sslclient"],
    ];
    for (const [ca, leaf, purpose] of cases) {
      writeFileSync(join(folder, "ca.pem"), ca);
      writeFileSync(join(folder, "leaf.pem"), leaf);
      const arguments_ = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "leaf.pem"];
      const result = await systemCommands.run("openssl", arguments_, { cwd: folder });
      expect(result, result.stderr).toMatchObject({ code: 0, stdout: "leaf.pem: OK\n" });
    }
    writeFileSync(join(folder, "ca.pem"), pki.serverCa.certificate);
    writeFileSync(join(folder, "leaf.pem"), pki.clientAdmin.certificate);
    const wrong = await systemCommands.run("openssl", ["verify", "-CAfile", "ca.pem", "leaf.pem"], { cwd: folder });
    expect(wrong.code).not.toBe(0);
  });

  test("subjects, names and file modes", async () => {
    const pki = await make();
    expect(new X509Certificate(pki.clientAdmin.certificate).subject).toBe("O=system:masters\nCN=system:admin");
    expect(new X509Certificate(pki.clientKubelet.certificate).subject).toBe("O=system:nodes\nCN=system:node:box.lan");
    const serving = new X509Certificate(pki.servingApiserver.certificate);
    for (const name of ["kubernetes.default.svc.cluster.local", "localhost", "box.lan", "box"]) {
      expect(serving.checkHost(name), name).toBeDefined();
    }
    for (const ip of ["10.43.0.1", "127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"]) {
      expect(serving.checkIP(ip), ip).toBeDefined();
    }
    expect(serving.checkHost("example.com")).toBeUndefined();
    for (const file of ["client-ca.key", "serving-kube-apiserver.crt", "service.key"]) {
      expect(statSync(join(folder, file)).mode & 0o777, file).toBe(0o600);
    }
  });

  test("a second start changes nothing", async () => {
    const first = await make();
    expect(await make(start + 10 * day)).toEqual(first);
  });

  test.each([
    ["near its end", start + 250 * day, {}],
    ["new address", start, { nodeIps: ["192.0.2.8"] }],
    ["new name", start, { extraNames: ["kiosk.example"] }],
  ])("the serving certificate is re-issued: %s", async (_why, nowMs, more) => {
    const first = await make();
    const second = await make(nowMs as number, more as Partial<PkiOptions>);
    expect(second.servingApiserver.certificate).not.toBe(first.servingApiserver.certificate);
    expect(second.serverCa).toEqual(first.serverCa);
  });

  test("a device that boots in 1970 makes certificates that are valid then and later", async () => {
    const pki = await make(0);
    const leaf = new X509Certificate(pki.servingApiserver.certificate);
    expect(Date.parse(leaf.validFrom)).toBe(0);
    expect(Date.parse(leaf.validTo)).toBeGreaterThan(Date.UTC(2027, 9, 1));
    expect(Date.parse(new X509Certificate(pki.serverCa.certificate).validTo)).toBeGreaterThan(Date.UTC(2050, 0, 1));
  });

  test("a torn leaf is made again, a torn authority is refused", async () => {
    const first = await make();
    writeFileSync(join(folder, "client-admin.crt"), "garbage");
    expect((await make()).clientAdmin.certificate).not.toBe(first.clientAdmin.certificate);
    rmSync(join(folder, "client-ca.crt"));
    const again = await make();
    expect(again.clientCa.key).toBe(first.clientCa.key);
    rmSync(join(folder, "server-ca.key"));
    await expect(make()).rejects.toMatchObject({ code: "PKI_AUTHORITY" });
  });

  test("an authority made by openssl, with a long subject, signs leaves that verify", async () => {
    const arguments_ = [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-days",
      "3650",
    ];
    const subject = [
      "-subj",
      "/C=DE/O=Shops & Co/CN=our root",
      "-addext",
      "keyUsage=keyCertSign",
      "-keyout",
      "server-ca.key",
      "-out",
      "server-ca.crt",
    ];
    await systemCommands.run("openssl", [...arguments_, ...subject], { cwd: folder });
    await make(Date.now());
    const verify = ["verify", "-x509_strict", "-CAfile", "server-ca.crt", "serving-kubelet.crt"];
    expect(await systemCommands.run("openssl", verify, { cwd: folder })).toMatchObject({ code: 0 });
  });
});
