import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { findProcesses, isRunning } from "#platform/daemons.ts";
import { beginContainerd, containerdConfig, createContainerd, endBegunContainerd, socketOf } from "./containerd.ts";

const options = {
  root: "/data/containerd",
  state: "/run/mote/containerd",
  configDir: "/data/etc/containerd",
  cniBinDir: "/usr/lib/cni",
  cniConfDir: "/data/etc/cni/net.d",
  pauseImage: "mote.local/pause:1",
};

test("containerd gets folders and a socket of its own and never asks a registry for pause", async () => {
  const config = await containerdConfig(options);
  for (const line of [
    'root = "/data/containerd"',
    'state = "/run/mote/containerd"',
    `address = "${socketOf(options)}"`,
    'sandbox_image = "mote.local/pause:1"',
    'snapshotter = "overlayfs"',
    "SystemdCgroup = false",
    'config_path = "/data/etc/containerd/certs.d"',
  ]) {
    expect(config).toContain(line);
  }
  // A system containerd must not be touched.
  expect(config).not.toContain("/run/containerd/");
  expect(config).not.toContain("/var/lib/containerd");
});
test("paths are quoted", async () => {
  expect(await containerdConfig({ ...options, root: '/a "b"' })).toContain('root = "/a \\"b\\""');
});

test("another runtime is the default where it is installed, and named where it is not", async () => {
  const folder = mkdtempSync(join(tmpdir(), "mote-runtimes-"));
  try {
    const chosen = { ...options, defaultRuntime: "crun", runtimeFolders: [folder] };
    await expect(containerdConfig(chosen)).rejects.toMatchObject({ code: "NODE_RUNTIME" });
    writeFileSync(join(folder, "crun"), "");
    const config = await containerdConfig(chosen);
    expect(config).toContain('default_runtime_name = "crun"');
    expect(config).toContain(`BinaryName = "${folder}/crun"`);
    expect(await containerdConfig({ ...options, runtimeFolders: [folder] })).toContain('default_runtime_name = "runc"');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

/** It takes containerd's arguments, and runs until somebody answers it. */
const curl = "/usr/bin/curl";

test.skipIf(!existsSync(curl))(
  "a containerd whose data folder was deleted is ended before another starts, and those of other folders are not",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "mote-forgotten-"));
    let connections = 0;
    const silent = createServer(() => connections++);
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const binary = curl;
    const start = (name: string) => {
      const configDir = join(folder, name);
      mkdirSync(configDir);
      const config = join(configDir, "config.toml");
      writeFileSync(config, `url = "http://127.0.0.1:${(silent.address() as AddressInfo).port}/"`);
      return { configDir, child: spawn(binary, ["--config", config], { stdio: "ignore", env: {} }) };
    };
    const [deleted, other] = [start("deleted"), start("other")];
    try {
      const isAlive = ({ child }: typeof deleted) => isRunning(child.pid!, binary);
      await expect.poll(() => connections, { timeout: 30_000 }).toBe(2);
      expect([await isAlive(deleted), await isAlive(other)]).toEqual([true, true]);
      rmSync(deleted.configDir, { recursive: true });
      const own = { root: join(folder, "root"), state: join(folder, "state"), configDir: deleted.configDir };
      const mine = { ...options, ...own, cniConfDir: join(folder, "cni"), binary };
      const said: string[] = [];
      const log = { ...silentLogger, warn: (message: string) => void said.push(message) };
      const containerd = createContainerd(mine, { clock, log });
      // The other that it starts is no containerd either, and ends at once.
      const running = containerd.run(new AbortController().signal, () => {});
      await expect(running).rejects.toMatchObject({ code: "NODE_CONTAINERD" });
      expect([await isAlive(deleted), await isAlive(other)]).toEqual([false, true]);
      // Not because it did not answer: a real one does.
      expect(said).toEqual(["the data folder was deleted while containerd ran, starting another"]);
    } finally {
      for (const { child } of [deleted, other]) child.kill("SIGKILL");
      silent.close();
      rmSync(folder, { recursive: true, force: true });
    }
  },
  60_000,
);

test.skipIf(process.getuid?.() !== 0 || !existsSync("/usr/bin/containerd"))(
  "one that was begun with another overlay's network plugins is started again, and one that is right is kept",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "mote-outdated-"));
    const mine = {
      ...options,
      ...{ root: join(folder, "root"), state: join(folder, "state"), configDir: join(folder, "etc") },
      cniConfDir: join(folder, "cni"),
    };
    const configPath = join(mine.configDir, "config.toml");
    const pids = async () => (await findProcesses(({ args }) => args.includes(configPath))).map(({ pid }) => pid);
    const runFor = async (cniConfDir: string): Promise<number[]> => {
      const stop = new AbortController();
      const containerd = createContainerd({ ...mine, cniConfDir, begun }, { clock, log: silentLogger });
      let running: Promise<void> = Promise.resolve();
      await new Promise<void>((ready, failed) => {
        running = containerd.run(stop.signal, ready);
        running.catch(failed);
      });
      stop.abort(new Error("enough"));
      await running;
      return pids();
    };
    const begun = beginContainerd(mine, silentLogger);
    try {
      const first = await begun;
      expect(await runFor(mine.cniConfDir)).toEqual([first]);
      const [second, ...others] = await runFor("/etc/cni/net.d");
      expect(others).toEqual([]);
      expect(second).not.toBe(first);
      expect(readFileSync(configPath, "utf8")).toContain('conf_dir = "/etc/cni/net.d"');
    } finally {
      for (const pid of await pids()) process.kill(pid, "SIGKILL");
      await expect.poll(pids, { timeout: 30_000 }).toEqual([]);
      rmSync(folder, { recursive: true, force: true });
    }
  },
  120_000,
);

test("a start that fails ends the containerd that it began, and not one that was there", async () => {
  const folder = mkdtempSync(join(tmpdir(), "mote-begun-"));
  const mine = {
    ...options,
    ...{ root: join(folder, "root"), state: join(folder, "state"), configDir: join(folder, "etc") },
    cniConfDir: join(folder, "cni"),
    binary: join(folder, "containerd"),
  };
  const script = `exec -a "$0" bash -c 'while :; do sleep 0.1; done' "$0" "$@"`;
  writeFileSync(mine.binary, `#!/bin/bash\n${script}\n`, { mode: 0o755 });
  const deps = { clock, log: silentLogger };
  const isMine = ({ args }: { args: readonly string[] }) =>
    args[0] === mine.binary && args.includes(join(mine.configDir, "config.toml"));
  const pids = () => findProcesses(isMine);
  try {
    const begun = beginContainerd(mine, silentLogger);
    await expect.poll(async () => (await pids()).length, { timeout: 30_000 }).toBe(1);
    await endBegunContainerd(mine, Promise.resolve(undefined), deps);
    expect(await pids()).toHaveLength(1);
    await endBegunContainerd(mine, begun, deps);
    await expect.poll(async () => (await pids()).length, { timeout: 30_000 }).toBe(0);
  } finally {
    for (const { pid } of await pids()) process.kill(pid, "SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
});
