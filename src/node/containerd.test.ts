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
