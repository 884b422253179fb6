import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { openLivePki } from "#supervisor/live-pki.ts";
import { createCertificateRequests } from "#supervisor/renewal-requests.ts";
import { certificate } from "./certificate.ts";

let dataDir = "";
const said: string[] = [];
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "mote-certificate-"));
  said.length = 0;
  vi.spyOn(console, "log").mockImplementation((line: unknown) => void said.push(String(line)));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(dataDir, { recursive: true, force: true });
});

const paths = () => ({ dataDir, serverDir: join(dataDir, "server"), agentDir: join(dataDir, "agent"), port: 1 });
const run = (args: string[], values: Record<string, string | boolean | string[]> = {}) =>
  certificate(args, { output: "table", force: false, ...values }, paths());
const openPki = () => {
  mkdirSync(join(dataDir, "server"));
  const options = { folder: join(dataDir, "server/tls"), nodeName: "hub", nodeIps: ["192.0.2.1"] };
  return openLivePki(options, { clock: systemClock, random: systemRandom, log: silentLogger });
};

test("of a server: all are told, and those that are named are replaced by the server that runs", async () => {
  const pki = await openPki();
  await run(["check"], { output: "json" });
  const { Certificates: all } = JSON.parse(said[0]!) as { Certificates: { Filename: string; Status: string }[] };
  expect(all.every(({ Status }) => Status === "OK")).toBe(true);
  expect(all.map(({ Filename }) => Filename)).toEqual(expect.arrayContaining(["server-ca.crt", "client-admin.crt"]));
  await run(["check"], { output: "text", service: ["admin"] });
  await run(["check"]);
  const short = said.pop()!.split("\n");
  expect(short[0]).toMatch(/^FILE +SUBJECT +EXPIRES +LEFT +STATUS$/);
  expect(short.filter((line) => line.length > 100 || / $/.test(line))).toEqual([]);
  // Each file once, although most have their authority behind them.
  expect(short.filter((line) => line.startsWith("client-admin.crt "))).toHaveLength(1);
  await run(["check"], { output: "wide" });
  expect(said.pop()).toMatch(/^FILENAME +SUBJECT +USAGES +EXPIRES +RESIDUAL TIME +STATUS\n/);
  expect(said[1]).toMatch(
    /^client-admin.crt: certificate system:admin \(ClientAuth\) is ok, expires at 20\d\d-.*\n.*ca@/,
  );

  const read = (name: string) => readFileSync(join(dataDir, "server/tls", name), "utf8");
  const before = { admin: read("client-admin.crt"), serving: read("serving-kube-apiserver.crt") };
  await run(["rotate"], { service: ["admin"] });
  expect(said.at(-1)).toMatch(/when mote server starts/);
  expect(existsSync(join(dataDir, "server/tls/client-admin.key"))).toBe(false);
  await pki.renew();

  const stop = new AbortController();
  const running = createCertificateRequests(paths().serverDir, pki).run(stop.signal, () => {});
  await expect.poll(() => existsSync(join(dataDir, "server/certificates.sock")), { timeout: 30_000 }).toBe(true);
  await run(["rotate"], { service: ["api-server"] });
  expect(said.at(-1)).toBe("the server has issued new ones");
  expect(read("client-admin.crt")).not.toBe(before.admin);
  expect(pki.current.servingApiserver.certificate).toBe(read("serving-kube-apiserver.crt"));
  expect(read("serving-kube-apiserver.crt")).not.toBe(before.serving);
  const copy = readdirSync(join(dataDir, "server")).find((name) => /^tls-\d+$/.test(name)) ?? "";
  expect(readFileSync(join(dataDir, "server", copy, "serving-kube-apiserver.crt"), "utf8")).toBe(before.serving);
  stop.abort(new Error("done"));
  await running;
}, 120_000);

test("of an agent: what it has stays until it was given another", async () => {
  mkdirSync(join(dataDir, "agent"));
  writeFileSync(join(dataDir, "agent/client-kubelet.crt"), "torn");
  await run(["check"]);
  expect(said[0]).toMatch(/client-kubelet.crt .*UNREADABLE/);
  await run(["rotate"], { service: ["kubelet"] });
  expect(readFileSync(join(dataDir, "agent/rotate"), "utf8")).toBe("client-kubelet\nserving-kubelet");
  expect(existsSync(join(dataDir, "agent/client-kubelet.crt"))).toBe(true);
});

test.each<[string[], Record<string, string[] | string>, RegExp]>([
  [[], {}, /needs one of: check, rotate, rotate-ca/],
  [["check", "more"], {}, /is used: mote certificate check$/],
  [["chek"], {}, /did you mean check\?/],
  [["check"], {}, /there are none in/],
  [["rotate-ca"], {}, /not that of a server/],
])("%j is told what is wrong", async (args, values, message) => {
  await expect(run(args, values)).rejects.toMatchObject({ code: "CLI_USAGE", message: expect.stringMatching(message) });
});

test("a part that is none, and a server that does not run", async () => {
  await openPki();
  await expect(run(["check"], { service: ["kublet"] })).rejects.toThrow(/"kublet" is not allowed; use one of admin, /);
  writeFileSync(join(dataDir, "server/token"), "K10::server:some-password\n");
  await expect(run(["rotate-ca"])).rejects.toThrow(/ECONNREFUSED/);
  await expect(run(["rotate-ca"], { path: join(dataDir, "nowhere") })).rejects.toThrow(
    /no authority, such as .* with --path/,
  );
});
