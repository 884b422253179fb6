// kubectl 1.32 against the API server over TLS: apply on the server's side, conflicts, diff, taking over from apply on the
// client's side, and what `get` shows of it. Skipped where kubectl cannot be had, except in CI.
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createAdmissionPlugins } from "#apiserver/admission/plugins.ts";
import { loopback } from "#apiserver/authn/user.ts";
import { createRbacAuthorizer, RbacCache } from "#apiserver/authz/rbac.ts";
import { bootstrap } from "#apiserver/bootstrap/bootstrapper.ts";
import { columnsFor } from "#apiserver/printers/tables.ts";
import { createStrategies } from "#apiserver/registry/strategies.ts";
import { type ApiServer, createApiServer } from "#apiserver/server.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import { buildOpenApiV3 } from "#model/openapi.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { ensureKubectl } from "#scripts/dev/kubectl.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";

const command = await ensureKubectl().catch((error: unknown) => {
  if (process.env["CI"] === "true") throw error;
  return undefined;
});
const base = { clock: systemClock, random: systemRandom, log: silentLogger };
const abort = new AbortController();
let folder: string;
let backend: Datastore;
let server: ApiServer;
let ended: Promise<void>;

beforeAll(async () => {
  if (command === undefined) return;
  folder = mkdtempSync(join(tmpdir(), "mote-ssa-"));
  backend = await openDatastore({ endpoint: "memory://" }, base);
  const rbac = createRbacAuthorizer({ source: new RbacCache() });
  const documents = new Map<string, Uint8Array>();
  for (const [path, document] of buildOpenApiV3({ version: "v1.32.3", describe: () => "" })) {
    documents.set(`v3/${path}.json`, Buffer.from(JSON.stringify(document)));
  }
  server = createApiServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, freezeShared: true },
    {
      ...{ ...base, backend, metrics: new Metrics(), columnsFor, authorizer: rbac },
      openapi: {
        hashes: new Map([...documents.keys()].map((name) => [name, "1"])),
        read: (name) => documents.get(name),
      },
      authenticators: [{ authenticate: async () => ({ name: "admin", groups: ["system:masters"] }) }],
      strategies: createStrategies(base),
      admission: createAdmissionPlugins({ random: systemRandom, rbac }),
    },
  );
  await new Promise<void>((ready, failed) => {
    ended = server.service.run(abort.signal, ready);
    ended.catch(failed);
  });
  await bootstrap({ advertiseAddress: "192.0.2.1" }, new Client(server.transport(loopback)));
  const cluster = { server: `https://127.0.0.1:${server.port}`, "insecure-skip-tls-verify": true };
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "t", cluster }],
    users: [{ name: "t", user: { token: "any" } }],
    contexts: [{ name: "t", context: { cluster: "t", user: "t", namespace: "default" } }],
    "current-context": "t",
  };
  writeFileSync(join(folder, "config"), JSON.stringify(config));
});
afterAll(async () => {
  if (command === undefined) return;
  abort.abort();
  await ended;
  await backend.close();
  rmSync(folder, { recursive: true, force: true });
});

interface Said {
  readonly code: number;
  readonly out: string;
}
/** What kubectl says on both streams. */
function kubectl(args: string, manifest?: object): Promise<Said> {
  const argv = args.split(" ");
  if (manifest) {
    writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifest));
    argv.push("-f", join(folder, "manifest.json"));
  }
  const env = { ...process.env, KUBECONFIG: join(folder, "config"), HOME: folder };
  return new Promise((resolve) => {
    execFile(command!, argv, { env, timeout: 60_000 }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code ?? 1) : 0, out: (stdout + stderr).trim() });
    });
  });
}

const deployment = (name: string, replicas: number): object => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name, labels: { app: name } },
  spec: {
    replicas,
    selector: { matchLabels: { app: name } },
    template: { metadata: { labels: { app: name } }, spec: { containers: [{ name: "main", image: "web:1" }] } },
  },
});

interface Shown {
  spec: { replicas: number };
  metadata: { annotations?: Record<string, string>; managedFields?: { manager: string; operation: string }[] };
}
async function show(name: string, flags = "--show-managed-fields"): Promise<Shown> {
  return JSON.parse((await kubectl(`get deployment ${name} -o json ${flags}`)).out) as Shown;
}
const managers = ({ metadata }: Shown): string[] =>
  (metadata.managedFields ?? []).map((entry) => `${entry.manager} ${entry.operation}`);

describe.skipIf(command === undefined)("kubectl", () => {
  test("applies, applies again, conflicts, forces", async () => {
    const applied = { code: 0, out: "deployment.apps/one serverside-applied" };
    expect(await kubectl("apply --server-side", deployment("one", 1))).toEqual(applied);
    expect(await kubectl("apply --server-side", deployment("one", 1))).toEqual(applied);
    const refused = await kubectl("apply --server-side --field-manager=ci", deployment("one", 2));
    expect(refused.code).toBe(1);
    expect(refused.out).toMatch(
      /^error: Apply failed with 1 conflict: conflict with "kubectl": \.spec\.replicas\nPlease review the fields above/,
    );
    expect(await kubectl("apply --server-side --field-manager=ci --force-conflicts", deployment("one", 2))).toEqual(
      applied,
    );
    const now = await show("one");
    expect(now.spec.replicas).toBe(2);
    expect(managers(now).sort()).toEqual(["ci Apply", "kubectl Apply"]);
    expect(managers(await show("one", "--show-managed-fields=false"))).toEqual([]);
  });

  test("shows what an apply would change, and changes nothing", async () => {
    await kubectl("apply --server-side", deployment("two", 1));
    const diff = await kubectl("diff --server-side", deployment("two", 3));
    expect(diff.code).toBe(1);
    expect(diff.out).toMatch(/^-\s+replicas: 1$/m);
    expect(diff.out).toMatch(/^\+\s+replicas: 3$/m);
    expect((await show("two")).spec.replicas).toBe(1);
    expect(await kubectl("diff --server-side", deployment("two", 1))).toEqual({ code: 0, out: "" });
  });

  test("goes over from apply on the client's side, and back", async () => {
    expect((await kubectl("apply", deployment("three", 1))).out).toBe("deployment.apps/three created");
    expect(managers(await show("three"))).toEqual(["kubectl-client-side-apply Update"]);
    expect((await kubectl("apply --server-side", deployment("three", 2))).out).toBe(
      "deployment.apps/three serverside-applied",
    );
    const moved = await show("three");
    expect(moved.spec.replicas).toBe(2);
    expect(managers(moved)).not.toContain("kubectl-client-side-apply Update");
    const last = moved.metadata.annotations?.["kubectl.kubernetes.io/last-applied-configuration"] ?? "";
    expect(JSON.parse(last)).toMatchObject({ spec: { replicas: 2 } });
    expect((await kubectl("apply", deployment("three", 4))).out).toContain("deployment.apps/three configured");
    expect((await show("three")).spec.replicas).toBe(4);
  });

  test("scaling takes the replicas from the applier", async () => {
    await kubectl("apply --server-side", deployment("four", 1));
    expect((await kubectl("scale deployment four --replicas=5")).out).toBe("deployment.apps/four scaled");
    expect((await kubectl("apply --server-side", deployment("four", 1))).out).toContain(
      'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas',
    );
  });

  test("refuses what the schema does not know", async () => {
    const wrong = { ...deployment("five", 1), extra: 1 };
    expect(await kubectl("apply --server-side --validate=false", wrong)).toMatchObject({
      code: 1,
      out: expect.stringContaining(".extra: field not declared in schema"),
    });
  });
});
