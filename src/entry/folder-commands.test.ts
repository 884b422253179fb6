// Commands that work on a folder, on a machine that belongs to a cluster: what says so, for its agent, is nothing to them.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { certificateFlags } from "#cli/certificate-flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { snapshotFlags } from "#cli/snapshot-flags.ts";
import { folderConfig, serverConfig } from "./config.ts";
import { certificateCommand, snapshotCommand } from "./folder-commands.ts";
import { readFlags } from "./read-flags.ts";

const runner = { isRoot: true, home: "/root" };
const url = "https://192.0.2.1:6443";
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-folder-"));
  writeFileSync(join(folder, "config.yaml"), `server: ${url}\ntoken: secret\nlb-server-port: 6445\n`);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test.each<[string, () => readonly string[], Readonly<Record<string, string>>]>([
  ["its environment", () => [], { K3S_URL: url, MOTE_TOKEN: "secret" }],
  ["config.yaml", () => ["--config", join(folder, "config.yaml")], {}],
])("a node whose server stands in %s", async (_where, more, env) => {
  const args = ["--data-dir", folder, ...more()];
  // What `mote killall` goes by; a server that joins without a datastore for several is refused.
  const { values } = await readFlags(serverFlags, args, env);
  expect(() => serverConfig(values, [], runner)).toThrow(/a further server needs a datastore/);
  expect(folderConfig(values, runner)).toMatchObject({ dataDir: folder, joins: undefined });

  const own = serverFlags.filter(({ name }) => ["config", "data-dir", "https-listen-port"].includes(name));
  const flags = [...certificateFlags, ...own];
  await expect(certificateCommand({ args: ["check", ...args], env, flags, runner })).rejects.toMatchObject({
    code: "CLI_USAGE",
    message: expect.stringMatching(/^certificate: there are none in .*mote-folder-/),
  });
});

test("snapshots are those of the name that the server has: --with-node-id stands in its configuration", async () => {
  writeFileSync(join(folder, "config.yaml"), "node-name: kiosk\nwith-node-id: true\n");
  mkdirSync(join(folder, "node"));
  writeFileSync(join(folder, "node/id"), "12ab34cd\n");
  const dir = join(folder, "snapshots");
  mkdirSync(dir);
  const of = (node: string) => [1, 2].map((n) => `mine-${node}-179000000${n}`);
  for (const name of [...of("kiosk"), ...of("kiosk-12ab34cd")]) writeFileSync(join(dir, name), "");
  const said = vi.spyOn(console, "log").mockImplementation(() => {});
  try {
    const own = serverFlags.filter(({ name }) => ["config", "data-dir", "node-name", "with-node-id"].includes(name));
    const where = ["--data-dir", folder, "--config", join(folder, "config.yaml"), "--dir", dir];
    const args = ["prune", ...where, "--name", "mine", "--snapshot-retention", "1"];
    expect(await snapshotCommand({ args, env: {}, flags: [...snapshotFlags, ...own], runner })).toBe(0);
  } finally {
    said.mockRestore();
  }
  expect(readdirSync(dir).sort()).toEqual([...of("kiosk"), "mine-kiosk-12ab34cd-1790000002"].sort());
});
