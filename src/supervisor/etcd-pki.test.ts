import { X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemRandom } from "#platform/random.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { ensureEtcdPki } from "./etcd-pki.ts";
import { ensurePki } from "./pki.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-etcd-pki-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const options = () => ({ folder, nodeName: "box.lan", nodeIps: ["192.0.2.7"] });
const dependencies = { clock: new FakeClock(Date.UTC(2027, 0, 1)), random: systemRandom, log: silentLogger };

test("an authority of its own, with k3s's names, made once", async () => {
  const cluster = await ensurePki(options(), dependencies);
  const made = await ensureEtcdPki(options(), dependencies);
  const names = [
    "client.crt",
    "client.key",
    "peer-ca.crt",
    "peer-ca.key",
    "peer-server-client.crt",
    "peer-server-client.key",
    "server-ca.crt",
    "server-ca.key",
    "server-client.crt",
    "server-client.key",
  ];
  expect(readdirSync(join(folder, "etcd")).sort()).toEqual(names);
  for (const name of names) expect(statSync(join(folder, "etcd", name)).mode & 0o777).toBe(0o600);
  const [ca, server, client] = [made.ca, made.server, made.client].map(
    ({ certificate }) => new X509Certificate(certificate),
  );
  expect(ca!.subject).toMatch(/^CN=etcd-server-ca@\d+$/);
  expect([server!.subject, client!.subject]).toEqual(["CN=etcd-server", "CN=etcd-client"]);
  for (const leaf of [server!, client!]) expect(leaf.verify(ca!.publicKey)).toBe(true);
  expect([server!.checkHost("kine.sock"), server!.checkHost("box.lan"), server!.checkIP("192.0.2.7")]).toEqual([
    "kine.sock",
    "box.lan",
    "192.0.2.7",
  ]);
  // Neither opens the other's door.
  expect(client!.verify(new X509Certificate(cluster.clientCa.certificate).publicKey)).toBe(false);
  expect(new X509Certificate(cluster.clientAdmin.certificate).verify(ca!.publicKey)).toBe(false);
  expect(await ensureEtcdPki(options(), dependencies)).toEqual(made);
});
