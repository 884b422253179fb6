import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { runAll } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import { certificateSigningRequests } from "#model/resources.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { makeSigningRequest } from "#wire/pkcs10.fixture.ts";
import { createCertificateApprover } from "./controller.ts";

test("a node that may not ask for its certificate yet is asked about again", async () => {
  const transport = new FakeTransport();
  const client = new Client(transport);
  const clock = new FakeClock();
  const random = seededRandom(1);
  const informers = new InformerFactory({}, { client, clock, random, log: silentLogger });
  const events = new EventRecorder({ component: "test" }, { client, clock, random, log: silentLogger });
  const deps = { client, informers, events, clock, random, log: silentLogger, metrics: new Metrics() };
  const order = { commonName: "system:node:a", organizations: ["system:nodes"] };
  await client.create(certificateSigningRequests, {
    metadata: { name: "a" },
    spec: {
      request: Buffer.from(makeSigningRequest(order).request).toString("base64"),
      signerName: "kubernetes.io/kube-apiserver-client-kubelet",
      usages: ["digital signature", "client auth"],
      username: "system:bootstrap:x",
    },
  } as unknown as CertificateSigningRequest);
  const stop = new AbortController();
  // This server answers no review with yes.
  const running = runAll(
    [informers, createCertificateApprover(deps)],
    { clock, log: silentLogger, stopTimeoutMs: 1000 },
    stop.signal,
    () => {},
  );
  await clock.advance(2000);
  const reviews = () =>
    transport.log.filter((line) => line.startsWith("POST") && line.includes("subjectaccessreviews"));
  const soFar = reviews().length;
  expect(soFar).toBeGreaterThan(1);
  await clock.advance(60_000);
  expect(reviews().length).toBeGreaterThan(soFar);
  stop.abort(new Error("test is over"));
  await clock.advance(10);
  await running;
});
