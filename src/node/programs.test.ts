import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { missingPrograms, type ProgramPlaces, Programs } from "./programs.ts";

const onPath = ["runc", "ip", "nft", "conntrack"];
const plugins = ["bridge", "host-local", "loopback", "portmap"];
let folder: string;
let places: ProgramPlaces;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-programs-"));
  for (const name of ["bin", "sbin", "cni"]) mkdirSync(join(folder, name));
  for (const name of ["containerd", ...onPath]) writeFileSync(join(folder, "sbin", name), "");
  for (const name of plugins) writeFileSync(join(folder, "cni", name), "");
  places = {
    folders: [join(folder, "bin"), join(folder, "sbin")],
    containerd: join(folder, "sbin/containerd"),
    cniFolder: join(folder, "cni"),
    needsRunc: true,
  };
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("a machine that has all lacks nothing", async () => {
  expect(await missingPrograms(places)).toEqual([]);
});

test.each([
  [
    "sbin/containerd",
    "containerd",
    /^container runtime not ready: RuntimeReady=false reason:RuntimeNotReady message:containerd is/,
  ],
  [
    "sbin/runc",
    "runc",
    /^container runtime not ready: RuntimeReady=false .*message:runc is not installed: no container/,
  ],
  [
    "cni/bridge",
    "containernetworking-plugins",
    /^container runtime network not ready: NetworkReady=false .*message:bridge is not/,
  ],
  ["sbin/nft", "nftables", undefined],
  ["sbin/ip", "iproute2", undefined],
  ["sbin/conntrack", "conntrack", undefined],
])("without %s the log names %s, and the Node says so where no pod can run", async (file, name, problem) => {
  rmSync(join(folder, file));
  const lines: string[] = [];
  const log = createLogger((level, message) => lines.push(`${level} ${message}`), "info");
  const clock = new FakeClock();
  const programs = new Programs(places, { clock });
  await programs.tell(log);
  const level = problem === undefined ? "warn" : "error";
  expect(lines).toEqual([expect.stringMatching(new RegExp(`^${level} .* \\(apt-get install ${name}\\)$`))]);
  expect(await programs.lacks(name)).toBe(true);
  expect((await programs.problem()) ?? "none").toMatch(problem ?? /^none$/);

  // Installed while the node runs.
  writeFileSync(join(folder, file), "");
  await clock.advance(10_000);
  expect([await programs.problem(), await programs.lacks(name)]).toEqual([undefined, false]);
});

test("nothing is asked for that others bring, or of nobody", async () => {
  rmSync(join(folder, "cni"), { recursive: true });
  rmSync(join(folder, "sbin/runc"));
  expect(await missingPrograms({ ...places, cniFolder: undefined, needsRunc: false })).toEqual([]);
  const programs = new Programs(undefined, { clock: new FakeClock() });
  expect([await programs.problem(), await programs.lacks("runc")]).toEqual([undefined, false]);
});
