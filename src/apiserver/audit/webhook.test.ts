// A collector on a port of its own: what it is sent, and what happens while it is away.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock as clock } from "#platform/clock.ts";
import { openAudited, type Told } from "./audit.fixture.ts";
import { openWebhook } from "./webhook.ts";

let folder: string;
let collector: Server;
let configFile: string;
const statuses: number[] = [];
const got: { readonly url: string; readonly authorization: string; readonly list: { kind: string; items: Told[] } }[] =
  [];

beforeEach(async () => {
  folder = await mkdtemp(`${tmpdir()}/audit-hook-`);
  configFile = `${folder}/hook.yaml`;
  [got.length, statuses.length] = [0, 0];
  collector = createServer((request, response) => {
    let text = "";
    request.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    request.on("end", () => {
      got.push({
        url: request.url ?? "",
        authorization: request.headers.authorization ?? "",
        list: JSON.parse(text) as { kind: string; items: Told[] },
      });
      response.writeHead(statuses.shift() ?? 200).end();
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
  const { port } = collector.address() as AddressInfo;
  await writeFile(
    configFile,
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "c", cluster: { server: `http://127.0.0.1:${port}/events?from=mote` } }],
      users: [{ name: "u", user: { token: "secret" } }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
      "current-context": "x",
    }),
  );
});
afterEach(async () => {
  collector.closeAllConnections();
  await new Promise((resolve) => collector.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

const lines = (...names: string[]) => names.map((name) => Buffer.from(`{"auditID":"${name}"}\n`));

test("a list of events, with the credentials of the file", async () => {
  const hook = await openWebhook({ configFile, initialBackoffMs: 1 }, { clock });
  expect(await hook.append(lines("a", "b"))).toBe(0);
  expect(got).toEqual([
    {
      url: "/events?from=mote",
      authorization: "Bearer secret",
      list: {
        kind: "EventList",
        apiVersion: "audit.k8s.io/v1",
        metadata: {},
        items: [{ auditID: "a" }, { auditID: "b" }],
      },
    },
  ]);
  await hook.close();
});

test.each([
  ["away for a moment", [503, 429, 200], true, 3],
  ["away for long", [500, 500, 500, 500, 500, 200], false, 5],
  ["that wants none of it", [403, 200], false, 1],
])("a collector %s", async (_name, answers, isKept, asked) => {
  statuses.push(...answers);
  const hook = await openWebhook({ configFile, initialBackoffMs: 1 }, { clock });
  const outcome = await hook.append(lines("a")).then(
    () => true,
    () => false,
  );
  expect([outcome, got.length]).toEqual([isKept, asked]);
  await hook.close();
});

test("a server that stops tries once, and waits for nothing", async () => {
  statuses.push(503, 503, 503);
  const hook = await openWebhook({ configFile, initialBackoffMs: 3_600_000 }, { clock });
  const kept = hook.append(lines("a"));
  await expect.poll(() => got.length).toBe(1);
  hook.stopping?.();
  await expect(kept).rejects.toThrow("the collector answered 503");
  expect(got).toHaveLength(2);
  await hook.close();
});

test.each([
  ["no file", undefined, "there is no file"],
  ["no kubeconfig", "a: b", "invalid kubeconfig: current-context is not set"],
])("%s is told of at once", async (_name, text, message) => {
  const file = `${folder}/other.yaml`;
  if (text !== undefined) await writeFile(file, text);
  const opened = openWebhook({ configFile: file, initialBackoffMs: 1 }, { clock });
  await expect(opened).rejects.toThrow(`audit-webhook-config-file ${file}: ${message}`);
});

test("the whole way: batches go out when they are full, when they are old, and when the server stops", async () => {
  const webhook = { configFile, mode: "batch", initialBackoffMs: 1, bufferEvents: 100 } as const;
  const audited = await openAudited({ audit: { webhook: { ...webhook, batchEvents: 3, maxWaitMs: 600_000 } } });
  const make = (name: string) =>
    audited.ask("/api/v1/namespaces", {
      method: "POST",
      body: { apiVersion: "v1", kind: "Namespace", metadata: { name } },
    });
  const sent = () => got.map(({ list }) => list.items.map(({ objectRef }) => objectRef?.["name"]));
  for (const name of ["a", "b"]) expect((await make(name)).status).toBe(201);
  expect(got).toHaveLength(0);
  for (const name of ["c", "d"]) await make(name);
  await expect.poll(sent).toEqual([["a", "b", "c"]]);
  expect((await audited.events()).length).toBe(4);
  await audited.close();
  expect(sent()).toEqual([["a", "b", "c"], ["d"]]);

  got.length = 0;
  const patient = await openAudited({ audit: { webhook: { ...webhook, batchEvents: 400, maxWaitMs: 50 } } });
  const body = { apiVersion: "v1", kind: "Namespace", metadata: { name: "e" } };
  await patient.ask("/api/v1/namespaces", { method: "POST", body });
  await expect.poll(sent).toEqual([["e"]]);
  expect(patient.metrics.render()).toMatch(/^apiserver_audit_error_total\{plugin="webhook"\} 0$/m);
  await patient.close();
});
