// emptyDir volumes: a folder of the pod, or a file system in memory or huge pages that counts against the pod's limits.
// Counterpart: the kubelet's empty_dir plugin.
import type { Pod, Volume } from "#model/gen/core-v1.ts";
import { isQuantity, parseQuantity } from "#model/quantity.ts";
import { makeFolder } from "#platform/files.ts";
import { changeMode, changeOwner, kindOf } from "#platform/folders.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { wholeOf } from "../pods/quantities.ts";
import { podLimits } from "../pods/resources.ts";
import { isMounted } from "./mount-points.ts";
import { VolumeError } from "./volume-error.ts";

const hugePages = "HugePages";

/** Bytes a file system in memory may take: the least of what the volume, the pod and the node allow. */
export function memorySize(pod: Pod, volume: Volume, allocatableBytes: number): number {
  const ofPod = podLimits(pod).memoryBytes;
  const asked = wholeOf(volume.emptyDir?.sizeLimit);
  const most = ofPod > 0 ? Math.min(ofPod, allocatableBytes) : allocatableBytes;
  return asked > 0 ? Math.min(asked, most) : most;
}

/** The page size of a medium HugePages or HugePages-SIZE, in bytes; throws where the pod does not say which it has. */
export function pageSizeOf(pod: Pod, medium: string): number {
  const sizes = new Set<string>();
  for (const { resources } of [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])]) {
    for (const name of Object.keys({ ...resources?.limits, ...resources?.requests })) {
      if (name.startsWith("hugepages-")) sizes.add(name.slice("hugepages-".length));
    }
  }
  const asked = medium.slice(hugePages.length + 1);
  if (asked === "" && sizes.size !== 1) {
    throw new VolumeError(
      sizes.size === 0
        ? "hugePages storage requested, but there is no resource request for huge pages"
        : "medium HugePages cannot be used with more than one page size",
    );
  }
  const size = asked === "" ? [...sizes][0]! : asked;
  if (!sizes.has(size) || !isQuantity(size)) throw new VolumeError(`no resource request found for hugepages-${size}`);
  return Number(parseQuantity(size).value());
}

export async function ensureEmptyDir(
  folder: string,
  pod: Pod,
  volume: Volume,
  deps: { readonly commands: Commands; readonly allocatableBytes: number },
): Promise<string> {
  const medium = volume.emptyDir?.medium ?? "";
  const fail = (why: string) => new VolumeError(`MountVolume.SetUp failed for volume "${volume.name}" : ${why}`);
  let isNew = (await kindOf(folder)) === undefined;
  await makeFolder(folder, 0o777);
  const mount = async (type: string, options: string): Promise<void> => {
    if (await isMounted(folder)) return;
    await runChecked(deps.commands, "mount", ["-t", type, "-o", options, type, folder]);
    isNew = true;
  };
  if (medium === "Memory") {
    await mount("tmpfs", `nosuid,nodev,mode=0777,size=${memorySize(pod, volume, deps.allocatableBytes)}`);
  } else if (medium === hugePages || medium.startsWith(`${hugePages}-`)) {
    let bytes: number;
    try {
      bytes = pageSizeOf(pod, medium);
    } catch (error) {
      throw error instanceof VolumeError ? fail(error.message) : error;
    }
    await mount("hugetlbfs", `pagesize=${bytes / 2 ** 20}M`);
  } else if (medium !== "") throw fail(`unknown storage medium "${medium}"`);
  if (isNew) {
    const group = pod.spec.securityContext?.fsGroup;
    if (group !== undefined) await changeOwner(folder, 0, group);
    await changeMode(folder, group === undefined ? 0o777 : 0o2777);
  }
  return folder;
}
