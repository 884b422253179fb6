import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { tokenOf, withTokenFiles } from "./token-file.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-token-"));
  mkdirSync(join(folder, "agent"));
  mkdirSync(join(folder, "folder"));
  writeFileSync(join(folder, "windows"), "\ufeffK10::node:secret\r\n");
  writeFileSync(join(folder, "empty"), "\n");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function ask(name: string | undefined, token?: string) {
  const lines: string[] = [];
  const log = createLogger((_level, message, fields) => lines.push(`${message}: ${String(fields?.["error"])}`), "info");
  const tokenFile = name === undefined ? undefined : join(folder, name);
  return { lines, found: tokenOf({ token, tokenFile, node: { agentDir: join(folder, "agent") } }, log) };
}

test("as editors of all systems leave it", async () => {
  expect(await ask("windows").found).toBe("K10::node:secret");
  expect(await ask("windows", "given").found).toBe("given");
  expect(await ask(undefined).found).toBeUndefined();
});

test.each([
  ["missing", /^token-file: .*missing is not there or empty$/],
  ["empty", /^token-file: .*empty is not there or empty$/],
  ["folder", /^token-file: .*folder cannot be read: EISDIR/],
])("%s: a node that has yet to join is told, one that has joined goes on", async (name, message) => {
  await expect(ask(name).found).rejects.toMatchObject({ code: "STARTUP", message: expect.stringMatching(message) });
  writeFileSync(join(folder, "agent", "client-kubelet.crt"), "");
  const { found, lines } = ask(name);
  expect(await found).toBeUndefined();
  expect(lines).toEqual([
    expect.stringMatching(/^this node has joined before and goes on without the token .*token-file/),
  ]);
});

const serverOf = (values: Readonly<Record<string, string>>, more: { token?: string } = {}) => {
  const config = { serverDir: folder, token: undefined, agentToken: undefined, warnings: ["one"], ...more };
  return withTokenFiles(config, Object.fromEntries(Object.entries(values).map(([k, v]) => [k, join(folder, v)])));
};

test("a server has both tokens from files, and flags count more", async () => {
  const both = { "token-file": "windows", "agent-token-file": "windows" };
  expect(await serverOf(both)).toMatchObject({ token: "K10::node:secret", agentToken: "K10::node:secret" });
  expect(await serverOf(both, { token: "given" })).toMatchObject({ token: "given", agentToken: "K10::node:secret" });
  expect(await serverOf({})).toEqual({ serverDir: folder, token: undefined, agentToken: undefined, warnings: ["one"] });
});

test.each(["token-file", "agent-token-file"])(
  "a server whose --%s has gone goes on once it has a token",
  async (flag) => {
    const message = expect.stringMatching(`^${flag}: .*missing is not there or empty$`);
    await expect(serverOf({ [flag]: "missing" })).rejects.toMatchObject({ code: "STARTUP", message });
    writeFileSync(join(folder, "token"), "K10::server:x\n");
    const { token, agentToken, warnings } = await serverOf({ [flag]: "missing" });
    expect([token, agentToken]).toEqual([undefined, undefined]);
    expect(warnings).toEqual([
      "one",
      expect.stringMatching(`^${flag}: .*missing is not there or empty; this server goes on`),
    ]);
  },
);
