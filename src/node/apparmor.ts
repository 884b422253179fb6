// Whether containers can be confined by AppArmor here. containerd refuses a profile, even the default one, unless the kernel
// has it enabled, its file system is mounted and its compiler is installed; a node that promises more starts no pod.
// Upstream counterpart: containerd's pkg/apparmor.
import { exists, readFileIfExists } from "#platform/files.ts";

export async function hostHasAppArmor(root = ""): Promise<boolean> {
  const enabled = await readFileIfExists(`${root}/sys/module/apparmor/parameters/enabled`);
  if (enabled?.toString("utf8").trim() !== "Y") return false;
  return (await exists(`${root}/sys/kernel/security/apparmor`)) && (await exists(`${root}/sbin/apparmor_parser`));
}
