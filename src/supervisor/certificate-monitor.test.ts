import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { EventSink } from "#client/events.ts";
import { systemRandom } from "#platform/random.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { createCertificateMonitor, expiryWarnings } from "./certificate-monitor.ts";
import { openLivePki } from "./live-pki.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-monitor-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const dayMs = 24 * 3600_000;

test("metrics say how long, and events once a day what ends", async () => {
  const clock = new FakeClock(Date.UTC(2027, 0, 1));
  const options = { folder, nodeName: "hub", nodeIps: [] };
  const pki = await openLivePki(options, { clock, random: systemRandom, log: silentLogger });
  const told: string[] = [];
  const events = { record: ({ reason }: { reason: string }) => void told.push(reason) } as unknown as EventSink;
  const metrics = new Metrics();
  const stop = new AbortController();
  const running = createCertificateMonitor("hub", pki, { clock, events, metrics }).run(stop.signal, () => {});
  expect(metrics.render()).toContain(
    `k3s_certificate_expiration_seconds{subject="system:admin",usages="ClientAuth"} ${365 * 86_400}\n`,
  );
  await clock.advance(3600_000);
  expect(told).toEqual([]);
  expect(expiryWarnings(pki.current, clock.now())).toEqual([]);

  // Nobody renews here.
  clock.jump(300 * dayMs);
  await clock.advance(3600_000);
  expect(told).toEqual(["CertificateExpirationWarning"]);
  clock.jump(29.5 * 365 * dayMs);
  await clock.advance(1.1 * dayMs);
  expect(told.slice(1)).toEqual(["CACertificateExpirationWarning", "CertificateExpirationWarning"]);
  const [{ message } = { message: "" }] = expiryWarnings(pki.current, clock.now());
  expect(message).toMatch(/rotate-ca: mote-client-ca@\d+: 20\d\d-/);
  stop.abort(new Error("done"));
  await running;
});
