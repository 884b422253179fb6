// Certificates of a process that runs for most of a year, against real TLS connections and a clock that is told to move.
import { X509Certificate } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { openHttpsServer } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { openLivePki } from "./live-pki.ts";
import type { Pki } from "./pki.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-live-pki-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const dayMs = 24 * 3600_000;
const material = (pki: Pki) => ({
  certificatePem: pki.servingApiserver.certificate,
  keyPem: pki.servingApiserver.key,
  clientCaPem: pki.clientCa.certificate,
});
const serialOf = (pem: string) => new X509Certificate(pem).serialNumber;

function dial(port: number, pki: Pki): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const { certificate: cert, key } = pki.clientAdmin;
    const socket = connect({ port, host: "127.0.0.1", ca: pki.serverCa.certificate, cert, key });
    socket.once("secureConnect", () => resolve(socket));
    socket.once("error", reject);
  });
}
function ask(socket: TLSSocket): Promise<string> {
  return new Promise((resolve) => {
    socket.once("data", (chunk: Buffer) => resolve(chunk.toString().split("\r\n")[0] ?? ""));
    socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  });
}
/** Lets the fake time go on with the real one: files are written in between. */
async function until(clock: FakeClock, stepMs: number, check: () => boolean): Promise<void> {
  for (const endMs = performance.now() + 30_000; !check() && performance.now() < endMs; ) {
    await clock.advance(stepMs);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  expect(check()).toBe(true);
}
/** What is made last, by the first look. */
const hasLooked = () => existsSync(join(folder, "etcd/peer-server-client.crt"));

test("what nears its end is replaced while connections go on, once", async () => {
  const clock = new FakeClock(Date.UTC(2027, 0, 1));
  const options = { folder, nodeName: "box", nodeIps: ["192.0.2.7"] };
  const live = await openLivePki(options, { clock, random: systemRandom, log: silentLogger });
  const first = live.current;
  const server = await openHttpsServer(
    { host: "127.0.0.1", port: 0, tls: material(first), log: silentLogger },
    {
      async request(_, response) {
        response.head(204, {});
        response.end();
      },
      async upgrade() {},
    },
  );
  let renewals = 0;
  live.onRenewal(() => {
    throw new Error("one that cannot use it");
  });
  live.onRenewal((pki) => {
    renewals++;
    server.setTls(material(pki));
  });
  const stop = new AbortController();
  const running = live.service.run(stop.signal, () => {});
  const old = await dial(server.port, first);
  expect(await ask(old)).toContain("204");

  // Two thirds of its life are over only after 245 days.
  clock.jump(244 * dayMs);
  await until(clock, 20_000, hasLooked);
  expect(live.current).toBe(first);
  clock.jump(2 * dayMs);
  await until(clock, 60_000, () => renewals === 1);
  for (const name of ["servingApiserver", "servingKubelet", "clientKubelet", "clientAdmin"] as const) {
    expect(serialOf(live.current[name].certificate), name).not.toBe(serialOf(first[name].certificate));
  }
  expect(live.current.serverCa).toEqual(first.serverCa);

  // A client that has an old certificate is served under the new one, and the connection of before has not ended.
  const fresh = await dial(server.port, first);
  expect(fresh.getPeerCertificate().serialNumber).toBe(serialOf(live.current.servingApiserver.certificate));
  expect(await ask(fresh)).toContain("204");
  expect(await ask(old)).toContain("204");
  await live.renew();
  expect(renewals).toBe(1);

  stop.abort(new Error("done"));
  await running;
  old.destroy();
  fresh.destroy();
  await server.close(100);
  expect(clock.pending).toBe(0);
}, 120_000);

test.each([
  ["ten years ahead", 10 * 365 * dayMs],
  ["back to 1970", -Date.UTC(2027, 0, 1)],
])(
  "a clock that is set %s is seen soon",
  async (_name, movedMs) => {
    const clock = new FakeClock(Date.UTC(2027, 0, 1));
    const deps = { clock, random: systemRandom, log: silentLogger };
    const live = await openLivePki({ folder, nodeName: "box", nodeIps: ["192.0.2.7"] }, deps);
    const before = live.current;
    const stop = new AbortController();
    const running = live.service.run(stop.signal, () => {});
    await until(clock, 20_000, hasLooked);
    const setAtMs = clock.monotonicMs();
    clock.jump(movedMs);
    const endOf = (pki: Pki) => Date.parse(new X509Certificate(pki.servingApiserver.certificate).validTo);
    if (movedMs > 0) {
      // Small steps: files may take seconds, and an hour must not have gone by in them.
      await until(clock, 1000, () => live.current !== before);
      expect(clock.monotonicMs() - setAtMs).toBeLessThan(3600_000);
      expect(endOf(live.current)).toBeGreaterThan(clock.now() + 300 * dayMs);
    } else {
      // What is good for longer than it would be anew stays.
      await live.renew();
      expect(live.current).toBe(before);
    }
    expect(live.current.serverCa).toEqual(before.serverCa);
    stop.abort(new Error("done"));
    await running;
  },
  120_000,
);
