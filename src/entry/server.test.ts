import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { parseFlags } from "#cli/flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { findProcesses } from "#platform/daemons.ts";
import { isRoot } from "#platform/host.ts";
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
});

// Of a machine that can have a node; elsewhere there is nothing that could stay.
test.runIf(isRoot() && existsSync("/usr/bin/containerd"))(
  "a server whose port is taken leaves no containerd behind",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "mote-server-"));
    cleaning.push(() => rmSync(folder, { recursive: true, force: true }));
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, resolve));
    cleaning.push(() => taken.close());
    const { port } = taken.address() as AddressInfo;
    const args = [
      ...["--data-dir", folder, "--run-dir", join(folder, "run"), "--node-name", "busy", "--node-ip", "192.0.2.7"],
      ...["--https-listen-port", String(port), "--write-kubeconfig", join(folder, "kubeconfig.yaml")],
    ];
    const { values } = parseFlags(serverFlags, { args, env: {} });
    const ofFolder = () => findProcesses(({ args: all }) => all.some((arg) => arg.startsWith(folder)));
    cleaning.push(async () => {
      for (const { pid } of await ofFolder()) process.kill(pid, "SIGKILL");
    });
    const told: string[] = [];
    const log = createLogger((_level, message) => told.push(message), "info");
    const running = runServer(serverConfig(values, [], { isRoot: true, home: folder }), {
      ...{ log, signal: new AbortController().signal },
    });
    await expect(running).rejects.toMatchObject({ code: "HTTPS_LISTEN" });
    expect(told).toContain("ending containerd, which this start began");
    expect(await ofFolder()).toEqual([]);
  },
  60_000,
);
