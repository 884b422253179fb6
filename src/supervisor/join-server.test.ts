// Who may ask for what: two passwords, and what only servers are told. Nodes that join in earnest are in test/scenario/join.test.ts.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { ServerRequest, ServerResponse } from "#platform/https-server.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createJoinServer, type JoinServerOptions } from "./join-server.ts";
import { ensurePki, type Pki } from "./pki.ts";

function server(more: Partial<JoinServerOptions> = {}) {
  const kept: string[] = [];
  const joining = createJoinServer(
    {
      pki: () => ({ serverCa: { certificate: "the authority" } }) as never,
      ...{ password: "of-all-servers", agentPassword: "of-all-agents", ownNode: undefined },
      async keepPassword(password, agentPassword) {
        kept.push(`${password} ${agentPassword}`);
      },
      keepAuthorities: async () => {},
      settings: {} as never,
      addresses: () => ["192.0.2.1:6443", "192.0.2.2:6443"],
      ...more,
    },
    {
      ...{ clock: new FakeClock(), random: seededRandom(1), log: silentLogger },
      authenticate: async () => undefined,
      client: () => {
        throw new Error("there is no API here");
      },
      isReady: () => true,
    },
  );
  return { joining, kept };
}

async function ask(
  { joining }: ReturnType<typeof server>,
  path: string,
  pair: string,
  put?: object,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ status: number; text: string }> {
  const answer = { status: 0, text: "" };
  const request = {
    method: put ? "PUT" : "GET",
    target: `/v1-k3s/${path}`,
    headers: { ...headers, authorization: `Basic ${Buffer.from(pair).toString("base64")}` },
    body: (async function* () {
      yield Buffer.from(JSON.stringify(put ?? {}));
    })(),
  } as unknown as ServerRequest;
  const response = {
    head: (status: number) => {
      answer.status = status;
    },
    end: (text: string) => {
      answer.text = text;
    },
  } as unknown as ServerResponse;
  await joining.handle(request, response);
  return answer;
}

test.each([
  ["apiservers", "node:of-all-agents", 200],
  ["apiservers", "node:of-all-servers", 200],
  ["apiservers", "server:of-all-servers", 200],
  ["apiservers", "server:of-all-agents", 401],
  ["apiservers", "admin:of-all-servers", 401],
  ["apiservers", "node:", 401],
  ["server-bootstrap", "server:of-all-servers", 200],
  ["server-bootstrap", "server:of-all-agents", 401],
  ["server-bootstrap", "node:of-all-servers", 403],
  ["server-bootstrap", "node:of-all-agents", 403],
])("%s as %s: %i", async (path, pair, status) => {
  const one = server({ bootstrap: async () => "{}" });
  expect((await ask(one, path, pair)).status).toBe(status);
});

test("a server whose datastore is its own says what several servers take", async () => {
  const { status, text } = await ask(server(), "server-bootstrap", "server:of-all-servers");
  expect([status, text]).toEqual([400, expect.stringContaining("--datastore-endpoint")]);
});

test("each password is changed by itself, and both where there is one", async () => {
  const two = server();
  const change = (one: typeof two, pair: string, body: object) => ask(one, "token", pair, body).then((a) => a.status);
  expect(await change(two, "node:of-all-agents", { newAgentToken: "another-for-agents" })).toBe(403);
  expect(await change(two, "server:of-all-servers", { newAgentToken: "another-for-agents" })).toBe(200);
  expect(await change(two, "server:of-all-servers", { newToken: "another-for-servers" })).toBe(200);
  expect(await change(two, "server:of-all-servers", { newToken: "a-third-for-servers" })).toBe(401);
  expect(await change(two, "server:another-for-servers", { newToken: "short" })).toBe(400);
  expect(two.kept).toEqual(["of-all-servers another-for-agents", "another-for-servers another-for-agents"]);
  const one = server({ agentPassword: "of-all-servers" });
  expect(await change(one, "server:of-all-servers", { newToken: "another-for-all" })).toBe(200);
  expect(one.kept).toEqual(["another-for-all another-for-all"]);
});

test("changes that come at once are made one after the other, whatever becomes of the first", async () => {
  let running = 0;
  const seen: number[] = [];
  const one = server({
    async keepAuthorities() {
      seen.push(++running);
      await new Promise((resolve) => setTimeout(resolve, 10));
      running--;
      if (seen.length === 1) throw new Error("the disk is full");
    },
  });
  const change = () => ask(one, "cert/cacerts", "server:of-all-servers", {}).then(({ status }) => status);
  expect(await Promise.all([change(), change(), change()])).toEqual([500, 200, 200]);
  expect(seen).toEqual([1, 1, 1]);
});

describe("names of nodes", () => {
  const folder = mkdtempSync(join(tmpdir(), "mote-names-"));
  let pki: Pki;
  beforeAll(async () => {
    const options = { folder, nodeName: "hub", nodeIps: [], extraNames: ["api.example.com", "*.shop.example"] };
    pki = await ensurePki(options, { clock: new FakeClock(), random: seededRandom(1), log: silentLogger });
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  // Who gets as far as the API would get a certificate.
  const allowed = "there is no API here";
  test.each([
    ["kubernetes", "choose another"],
    ["Kubernetes", "choose another"],
    ["kubernetes.default.svc.cluster.local", "choose another"],
    ["api.example.com", "choose another"],
    ["kubernetes.example.com", "choose another"],
    ["localhost", "choose another"],
    ["hook.apps.svc", "choose another"],
    ["10.43.0.1", "choose another"],
    ["kubernetes-1", allowed],
    ["leaf.shop.example", allowed],
    ["hub", allowed],
  ])("%s: %s", async (name, answer) => {
    const headers = { "k3s-node-name": name, "k3s-node-password": "of the device" };
    const one = server({ pki: () => pki });
    const { status, text } = await ask(one, "serving-kubelet.crt", "node:of-all-agents", undefined, headers);
    expect([status, text]).toEqual([answer === allowed ? 500 : 403, expect.stringContaining(answer)]);
  });
});
