import type { ClientRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { connect as tlsConnect } from "node:tls";
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { openDatastore } from "#datastore/open.ts";
import type { LimitResponse, PriorityLevelConfiguration } from "#model/gen/flowcontrol-v1.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { flowSchemas } from "./bootstrap/flow-control.ts";
import { createApiServer } from "./server.ts";

async function serve(
  options: { requestTimeoutMs?: number; maxReadsInFlight?: number; maxWritesInFlight?: number },
  authorize: () => Promise<void>,
) {
  const backend = await openDatastore({ endpoint: "memory://" }, { clock: systemClock, log: silentLogger });
  const metrics = new Metrics();
  const server = createApiServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, ...options },
    {
      backend,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
      metrics,
      authenticators: [{ authenticate: async () => ({ name: "ann", groups: [] }) }],
      authorizer: {
        async authorize() {
          await authorize();
          return { verdict: "allow", reason: "" };
        },
      },
      strategies: new Map(),
      admission: [],
      columnsFor: () => [],
    },
  );
  const abort = new AbortController();
  let ended = Promise.resolve();
  await new Promise<void>((ready) => {
    ended = server.service.run(abort.signal, ready);
  });
  const ask = (path: string, method = "GET", body = "") =>
    new Promise<{ status: number; body: string; headers: object }>((resolve, reject) => {
      const headers = { authorization: "Bearer x", "content-type": "application/json" };
      const options = {
        host: "127.0.0.1",
        port: server.port,
        path,
        method,
        headers,
        rejectUnauthorized: false,
        agent: false as const,
      };
      const req = httpsRequest(options, (res) => {
        let text = "";
        res.on("data", (chunk: Buffer) => {
          text += chunk.toString();
        });
        res.on("end", () => resolve({ status: res.statusCode ?? 0, body: text, headers: res.headers }));
      });
      req.on("error", reject);
      req.end(body);
    });
  return {
    ask,
    metrics,
    server,
    port: () => server.port,
    async stop() {
      abort.abort();
      await ended;
      await backend.close();
    },
  };
}

test("a request that takes too long is answered with 504, and its late answer is dropped", async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const server = await serve({ requestTimeoutMs: 50 }, () => gate);
  const answer = await server.ask("/api/v1/pods");
  expect(answer.status).toBe(504);
  expect(JSON.parse(answer.body)).toMatchObject({
    reason: "Timeout",
    message: "Timeout: request did not complete within the allotted timeout",
  });
  release();
  expect((await server.ask("/api/v1/pods")).status).toBe(200);
  await server.stop();
});

test("more requests than the bound are told to come back", async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const server = await serve(oneSeat, () => gate);
  server.server.flowControl.setLevel(levelOf({ type: "Reject" }));
  const first = server.ask("/api/v1/pods");
  await expect
    .poll(() => server.metrics.render())
    .toContain('apiserver_current_inflight_requests{request_kind="readOnly"} 1');
  const second = await server.ask("/api/v1/pods");
  expect(second.status).toBe(429);
  expect(second.headers).toMatchObject({ "retry-after": "1" });
  expect(JSON.parse(second.body)).toMatchObject({ message: "Too many requests, please try again later." });
  release();
  expect((await first).status).toBe(200);
  expect((await server.ask("/api/v1/pods")).status).toBe(200);
  expect(server.metrics.render()).toContain(
    'apiserver_flowcontrol_rejected_requests_total{priority_level="global-default",flow_schema="global-default",reason="concurrency-limit"} 1',
  );
  await server.stop();
});

const oneSeat = { maxReadsInFlight: 1, maxWritesInFlight: 1 };
/** Of everybody who is nobody in particular: one seat, and none to borrow. */
const levelOf = (limitResponse: LimitResponse): PriorityLevelConfiguration => ({
  metadata: { name: "global-default", uid: "level-1" },
  spec: { type: "Limited", limited: { nominalConcurrencyShares: 20, borrowingLimitPercent: 0, limitResponse } },
});

test("what finds no seat waits in a queue that is bounded, and is told whose it was", async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const server = await serve(oneSeat, () => gate);
  const { flowControl } = server.server;
  flowControl.setLevel(levelOf({ type: "Queue", queuing: { queues: 1, handSize: 1, queueLengthLimit: 1 } }));
  const schema = flowSchemas().find(({ metadata }) => metadata.name === "global-default")!;
  flowControl.setSchema({ ...schema, metadata: { ...schema.metadata, uid: "schema-1" } });
  const shown = (line: string) => expect.poll(() => server.metrics.render()).toContain(line);
  const labels = '{priority_level="global-default",flow_schema="global-default"}';
  const first = server.ask("/api/v1/pods");
  await shown(`apiserver_flowcontrol_current_executing_requests${labels} 1`);
  const second = server.ask("/api/v1/pods");
  await shown(`apiserver_flowcontrol_current_inqueue_requests${labels} 1`);
  const third = await server.ask("/api/v1/pods");
  expect(third.status).toBe(429);
  const uids = { "x-kubernetes-pf-flowschema-uid": "schema-1", "x-kubernetes-pf-prioritylevel-uid": "level-1" };
  expect(third.headers).toMatchObject(uids);
  release();
  for (const answer of await Promise.all([first, second])) {
    expect(answer.status).toBe(200);
    expect(answer.headers).toMatchObject(uids);
  }
  await shown(`apiserver_flowcontrol_current_executing_requests${labels} 0`);
  await shown(`apiserver_flowcontrol_dispatched_requests_total${labels} 2`);
  await server.stop();
});

test("a watch that has begun holds no seat", async () => {
  const server = await serve(oneSeat, async () => {});
  server.server.flowControl.setLevel(levelOf({ type: "Reject" }));
  const watching = await new Promise<ClientRequest>((resolve, reject) => {
    const request = httpsRequest(
      {
        ...{ host: "127.0.0.1", port: server.port(), path: "/api/v1/pods?watch=true" },
        ...{ headers: { authorization: "Bearer x" }, rejectUnauthorized: false, agent: false as const },
      },
      () => resolve(request),
    );
    request.on("error", reject);
    request.end();
  });
  expect((await server.ask("/api/v1/pods")).status).toBe(200);
  watching.on("error", () => {});
  watching.destroy();
  await server.stop();
});

test("warnings are printable and bounded", async () => {
  const server = await serve({}, async () => {});
  const unknown = Object.fromEntries(Array.from({ length: 90 }, (_, i) => [`ü\n${"x".repeat(100)}${i}`, 1]));
  const body = JSON.stringify({ metadata: { name: "x" }, ...unknown });
  const answer = await server.ask("/api/v1/namespaces/default/configmaps?fieldValidation=Warn", "POST", body);
  expect(answer.status).toBe(201);
  const { warning } = answer.headers as { warning: string };
  expect(warning).toMatch(/^299 - "unknown field/);
  expect(warning.length).toBeLessThan(6000);
  await server.stop();
});

test("a stopping server ends watches properly and at once", async () => {
  const server = await serve({}, async () => {});
  const socket = tlsConnect({
    host: "127.0.0.1",
    port: server.port(),
    rejectUnauthorized: false,
    ALPNProtocols: ["http/1.1"],
  });
  socket.write("GET /api/v1/pods?watch=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n");
  let text = "";
  await new Promise<void>((resolve) => {
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      resolve();
    });
  });
  const startedMs = performance.now();
  await server.stop();
  expect(performance.now() - startedMs).toBeLessThan(20_000);
  // The chunk that says the answer is complete.
  await expect.poll(() => text).toMatch(/\r\n0\r\n\r\n$/);
});
