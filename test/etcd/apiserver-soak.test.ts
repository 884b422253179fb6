// Upstream's API server on `mote kine`, as near as it gets without its program: every call it makes of etcd, for
// seconds here, and for as long as wanted by `npm run test:etcd -- --apiserver-soak`. The same against Debian's etcd
// shows that the emulation asks for nothing that etcd does not do.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import type { Event } from "#wire/gen/etcd.ts";
import { Cache } from "./apiserver.ts";
import { type SoakReport, soak } from "./apiserver-soak.ts";
import { createEtcdCluster } from "./etcd-process.ts";
import { moteProgram } from "./mote-program.ts";
import { etcdPath, freePort } from "./peers.ts";

const seconds = Number(process.env["MOTE_SOAK_SECONDS"] ?? 6);
const seed = Number(process.env["MOTE_ETCD_SEED"] ?? 20261121);
const isLong = process.env["MOTE_SOAK_SECONDS"] !== undefined;
const etcd = await etcdPath();
const cleaning: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const clean of cleaning.splice(0).reverse()) await clean();
});

function checkReport(report: SoakReport): void {
  expect(report.writes).toBeGreaterThan(seconds * 20);
  expect(report.events).toBeGreaterThan(seconds * 40);
  expect(report.comparisons).toBeGreaterThan(seconds / 2);
  expect(report.compactions).toBeGreaterThan(0);
  expect(report.progressNotices).toBeGreaterThan(0);
  if (isLong) console.log(report);
}

test("on mote kine, killed in between", { timeout: 60_000 + seconds * 2000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "mote-soak-"));
  cleaning.push(() => rmSync(folder, { recursive: true, force: true }));
  const port = await freePort();
  const program = await moteProgram();
  let child: ChildProcess | undefined;
  const start = async () => {
    const args = ["--listen-address", `http://127.0.0.1:${port}`, "--endpoint", `sqlite://${folder}/state.db`];
    child = spawn(process.execPath, [program, "kine", ...args], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let said = "";
    child.stderr!.on("data", (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4000)));
    for (let i = 0; !said.includes("mote kine is ready"); i++) {
      if (i > 600 || child.exitCode !== null) throw new Error(said);
      await sleep(50);
    }
  };
  const kill = async () => {
    const ended = once(child!, "exit");
    child!.kill("SIGKILL");
    await ended;
  };
  const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child!.pid}/status`, "utf8"))?.[1]);
  await start();
  cleaning.push(kill);
  const restart = async () => {
    if (isLong) console.log(`resident ${resident()} kB`);
    await kill();
    await start();
  };
  const report = await soak({ port, seconds, seed, restart, restartSeconds: isLong ? 30 : seconds / 2 });
  if (isLong) console.log(`resident ${resident()} kB`);
  expect(report.restarts).toBeGreaterThan(0);
  expect(report.reconnects).toBeGreaterThan(0);
  checkReport(report);
});

test.skipIf(!etcd)("on Debian's etcd, which is the control", { timeout: 60_000 + seconds * 2000 }, async () => {
  const { members, close } = await createEtcdCluster(etcd!, 1);
  cleaning.push(close);
  members[0]!.start();
  checkReport(await soak({ port: Number(members[0]!.url.split(":").at(-1)), seconds: Math.min(seconds, 30), seed }));
});

const bytes = (value: string) => Buffer.from(value);
const kv = (key: string, modRevision: number, createRevision: number, value = "v") => ({
  ...{ key: bytes(key), value: bytes(value), modRevision, createRevision, version: 1, lease: 0 },
});
const created = { type: 0, kv: kv("/a", 5, 5), prevKv: undefined } as unknown as Event;
const changed = { type: 0, kv: kv("/a", 6, 5), prevKv: kv("/a", 5, 5) } as unknown as Event;
const again = { type: 0, kv: kv("/a", 8, 5), prevKv: kv("/a", 6, 5) } as unknown as Event;
const removed = { type: 1, kv: kv("/a", 9, 0), prevKv: undefined } as unknown as Event;

test.each<[string, readonly Event[], RegExp | undefined]>([
  ["nothing in what is right", [created, changed, again], undefined],
  ["a lost creation", [changed], /changed before it was created/],
  ["a lost change", [created, again], /another previous value/],
  ["a repeated creation", [created, created], /created again/],
  ["a repeated change", [created, changed, changed], /another previous value/],
  ["an order that is none", [created, changed, created], /out of order/],
  ["a deletion that does not say of what", [created, removed], /no previous value/],
  [
    "a change behind its progress notice",
    [{ ...created, kv: kv("/a", 3, 3) } as unknown as Event],
    /behind its own progress/,
  ],
])("a cache finds %s", (_name, events, message) => {
  const cache = new Cache("/");
  cache.progressTo(3);
  const take = () => {
    for (const event of events) cache.take(event);
  };
  if (message) expect(take).toThrow(message);
  else expect(take).not.toThrow();
});
