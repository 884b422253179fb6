// What a user can get wrong in flags and files, each answered by one sentence; and the folders that defaults name.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { serverFlags } from "#cli/server-flags.ts";
import { readFlags, serverConfig } from "./config.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-config-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const root = { isRoot: true, home: "/root" };
const user = { isRoot: false, home: "/home/u" };

async function configOf(args: readonly string[], runner = root) {
  const { values, warnings } = await readFlags(serverFlags, args, {});
  return serverConfig(values, warnings, runner);
}

function file(text: string): string {
  const path = join(folder, "config.yaml");
  writeFileSync(path, text);
  return path;
}

test("without root everything is under the home folder", async () => {
  expect(await configOf([])).toMatchObject({ dataDir: "/var/lib/mote", kubeconfigPath: "/etc/mote/kubeconfig.yaml" });
  expect(await configOf([], user)).toMatchObject({
    dataDir: "/home/u/.mote",
    serverDir: "/home/u/.mote/server",
    datastoreEndpoint: "sqlite:///home/u/.mote/server/db/state.db",
    kubeconfigPath: "/home/u/.mote/kubeconfig.yaml",
  });
  expect(await configOf(["-d", "/d", "-o", "/k"], user)).toMatchObject({ dataDir: "/d", kubeconfigPath: "/k" });
});

test.each<[string, string, RegExp]>([
  ["number", "https-listen-port: abc\n", /^https-listen-port \(.*config.yaml\): "abc" is not allowed/],
  ["no YAML", "a: [\n", /^.*config.yaml: not readable as YAML/],
  ["a list", "- a\n", /a map of flag names to values is expected/],
  ["a map where a scalar belongs", "node-label: {a: b}\n", /key "node-label": a scalar or a list of scalars/],
  ["mode", 'write-kubeconfig-mode: "9"\n', /^write-kubeconfig-mode: "9" is not allowed; use octal/],
  ["address", "node-ip: 1.2.3\n", /^node-ip: "1.2.3" is not allowed/],
  ["range", "service-cidr: 10.0.0.0\n", /^service-cidr: "10.0.0.0" is not allowed/],
])("a file with a bad value: %s", async (_name, text, message) => {
  await expect(configOf(["-c", file(text)])).rejects.toMatchObject({
    code: "CLI_USAGE",
    message: expect.stringMatching(message),
  });
});

test("a file that was asked for and is not there or cannot be read is named", async () => {
  const missing = join(folder, "nope.yaml");
  await expect(configOf(["-c", missing])).rejects.toMatchObject({
    code: "CLI_USAGE",
    message: `config: there is no file ${missing}`,
  });
  await expect(configOf(["-c", folder])).rejects.toMatchObject({
    code: "CLI_USAGE",
    message: expect.stringContaining(`config: cannot read ${folder}: EISDIR`),
  });
  const path = file("debug: true\n");
  chmodSync(path, 0);
  // Root reads what it may not; for everybody else the sentence is the same as above.
  if (process.getuid?.() !== 0) {
    await expect(configOf(["-c", path])).rejects.toMatchObject({ code: "CLI_USAGE" });
  }
});

test("an unknown key is said, not refused", async () => {
  const path = file("nope: 1\n");
  expect((await configOf(["-c", path])).warnings).toEqual([`${path}: unknown key "nope" is ignored`]);
});
