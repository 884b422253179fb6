// Commands that work on a folder, on a machine that belongs to a cluster: what says so, for its agent, is nothing to them.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { certificateFlags } from "#cli/certificate-flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { folderConfig, serverConfig } from "./config.ts";
import { certificateCommand } from "./folder-commands.ts";
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
