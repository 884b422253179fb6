// `mote secrets-encrypt` as a person uses it, against a real server: nothing of a Secret stands in its files, keys change
// while it runs, and another start reads what there is.
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { moteProgram } from "#test/etcd/mote-program.ts";
import { MoteServer } from "#test/etcd/server-process.ts";

let server: MoteServer;
beforeAll(async () => {
  server = await MoteServer.create(["--secrets-encryption", "--secrets-encryption-provider", "secretbox"]);
});
afterAll(() => server.close());

async function mote(...args: string[]): Promise<string> {
  const program = await moteProgram();
  const flags = ["--data-dir", `${server.folder}/data`, "--config", `${server.folder}/none.yaml`];
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...args, ...flags], (_error, out, err) => resolve(out + err));
  });
}

const path = "/api/v1/namespaces/default/secrets";
const password = "a-password-nobody-must-see";
const secret = (name: string) => ({
  ...{ apiVersion: "v1", kind: "Secret", metadata: { name } },
  data: { password: Buffer.from(password).toString("base64") },
});

/** Every file of the datastore and its snapshots, as one text. */
function filesText(folder = `${server.folder}/data/server/db`): string {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(`${entry.parentPath}/${entry.name}`, "latin1"))
    .join("\n");
}

test("keys are made, told of, rotated live, and outlive the server", { timeout: 120_000 }, async () => {
  expect(await mote("secrets-encrypt", "status")).toContain("secrets-encrypt: no server runs on");
  server.start();
  await server.said("mote is ready");
  for (const name of ["a", "b"]) expect((await server.api("POST", path, secret(name))).status).toBe(201);
  expect(await mote("snapshot", "save")).toContain("saved");
  const hidden = Buffer.from(password).toString("base64");
  expect(filesText()).toContain("k8s:enc:secretbox:v1:secretboxkey:");
  expect(filesText()).not.toContain(hidden);
  expect(await mote("secrets-encrypt", "status")).toMatch(
    /^Encryption Status: Enabled\nCurrent Rotation Stage: start\n.*All hashes match\n\n.*\n.*\n \* {6}XSalsa20-POLY1305 {2}secretboxkey\n/,
  );
  expect(await mote("secrets-encrypt", "rotate")).toContain("incorrect stage: start");
  expect(await mote("secrets-encrypt", "rotate-keys")).toBe("keys rotated, reencryption finished\n");
  const status = JSON.parse(await mote("secrets-encrypt", "status", "-o", "json")) as Record<string, string>;
  expect(status).toMatchObject({ stage: "reencrypt_finished", enable: true, hashmatch: true });
  expect(status["activekey"]).toMatch(/^secretboxkey-20/);
  expect((await server.api("GET", `${path}/a`)).body["data"]).toEqual({ password: hidden });
  const leases = await server.api("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases");
  expect(JSON.stringify(leases.body)).toContain('"apiserver.kubernetes.io/identity":"kube-apiserver"');
  await server.end();
  server.log = "";
  server.start();
  await server.said("mote is ready");
  expect((await server.api("GET", `${path}/b`)).body["data"]).toEqual({ password: hidden });
  expect(await mote("secrets-encrypt", "disable")).toBe("secrets-encryption disabled\n");
  expect(await mote("secrets-encrypt", "reencrypt", "--force", "--skip")).toBe("reencryption started\n");
});
