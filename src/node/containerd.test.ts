import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { containerdConfig, socketOf } from "./containerd.ts";

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
