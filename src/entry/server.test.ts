import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { parseFlags } from "#cli/flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { startEtcdFace } from "#test/harness/etcd-face-server.ts";
import { serverConfig } from "./config.ts";
import { runServer } from "./server.ts";

const cleaning: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleaning.splice(0).reverse()) await clean();
});

test("a further server that is told to stop while it waits for the first one ends in order", async () => {
  const folder = mkdtempSync(join(tmpdir(), "mote-server-"));
  cleaning.push(() => rmSync(folder, { recursive: true, force: true }));
  const etcd = await startEtcdFace();
  cleaning.push(() => etcd.close());
  const args = [
    ...["--disable-agent", "--data-dir", folder, "--node-name", "second", "--node-ip", "192.0.2.7"],
    ...[
      "--datastore-endpoint",
      `http://127.0.0.1:${etcd.port}`,
      "--server",
      "https://127.0.0.1:1",
      "--token",
      "secret",
    ],
  ];
  const { values } = parseFlags(serverFlags, { args, env: {} });
  const stop = new AbortController();
  const said: string[] = [];
  const log = createLogger((_level, message) => {
    said.push(message);
    if (message.startsWith("cannot join yet")) stop.abort(new Error("told to stop"));
  }, "info");
  expect(await runServer(serverConfig(values, [], { isRoot: false, home: folder }), { log, signal: stop.signal })).toBe(
    0,
  );
  expect(said).toEqual(expect.arrayContaining(["cannot join yet, trying again", "mote ended"]));
}, 60_000);
