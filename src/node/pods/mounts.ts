// Which host paths a container sees where: its volume mounts, the managed hosts file and the termination message file.
// A subPath must stay inside its volume, links included.
import { dirname } from "node:path";
import { messageOf } from "#base/errors.ts";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { makeFolder } from "#platform/files.ts";
import { writePlainFile } from "#platform/folders.ts";
import type { SubPathRequest } from "../volumes/sub-path.ts";
import type { ContainerMount } from "./cri-config.ts";
import { ConfigError, expand } from "./env.ts";

export interface MountsInput {
  readonly pod: Pod;
  readonly container: Container;
  readonly attempt: number;
  readonly volumes: ReadonlyMap<string, string>;
  readonly env: ReadonlyMap<string, string>;
  /** `<pods>/<uid>` */
  readonly podFolder: string;
  readonly hostsText: string;
  readonly bindSubPath: (request: SubPathRequest) => Promise<string>;
}

const hostsPath = "/etc/hosts";

export const terminationFile = (podFolder: string, name: string, attempt: number): string =>
  `${podFolder}/containers/${name}/${attempt}`;

export async function containerMounts(input: MountsInput): Promise<ContainerMount[]> {
  const { container, podFolder } = input;
  const mounts: ContainerMount[] = [];
  for (const [index, mount] of (container.volumeMounts ?? []).entries()) {
    const volume = input.volumes.get(mount.name);
    if (volume === undefined)
      throw new ConfigError(`cannot find volume "${mount.name}" to mount into container "${container.name}"`);
    const subPath = mount.subPathExpr ? expandPath(mount.subPathExpr, input.env) : (mount.subPath ?? "");
    mounts.push({
      hostPath: subPath === "" ? volume : await subPathOf(input, { volume, subPath, name: mount.name, index }),
      containerPath: mount.mountPath.startsWith("/") ? mount.mountPath : `/${mount.mountPath}`,
      readonly: mount.readOnly === true || isReadOnly(input.pod, mount.name),
      propagation: mount.mountPropagation,
    });
  }
  if (!mounts.some((m) => m.containerPath === hostsPath)) {
    const path = `${podFolder}/etc-hosts`;
    await makeFolder(podFolder, 0o750);
    await writePlainFile(path, input.hostsText, 0o644);
    mounts.push({ hostPath: path, containerPath: hostsPath, readonly: false });
  }
  const message = terminationFile(podFolder, container.name, input.attempt);
  await makeFolder(dirname(message), 0o750);
  // Whoever the container runs as must be able to write its last words.
  await writePlainFile(message, "", 0o666);
  mounts.push({
    hostPath: message,
    containerPath: container.terminationMessagePath ?? "/dev/termination-log",
    readonly: false,
  });
  return mounts;
}

/** A part of the path that is not there would make it another path. */
function expandPath(text: string, env: ReadonlyMap<string, string>): string {
  const missing = new Set<string>();
  const path = expand(text, (name) => {
    const value = env.get(name);
    if (!value) missing.add(name);
    return value;
  });
  if (missing.size > 0) throw new ConfigError(`missing value for ${[...missing].sort().join(", ")}`);
  return path;
}

async function subPathOf(
  { bindSubPath, container, podFolder }: MountsInput,
  at: { readonly volume: string; readonly subPath: string; readonly name: string; readonly index: number },
): Promise<string> {
  const place = `${podFolder}/volume-subpaths/${at.name}/${container.name}/${at.index}`;
  try {
    return await bindSubPath({ volume: at.volume, subPath: at.subPath, place });
  } catch (error) {
    throw new ConfigError(
      `failed to prepare subPath for volumeMount "${at.name}" of container "${container.name}": ${messageOf(error)}`,
    );
  }
}

/** Volumes that a container has as devices, each under the path that it asked for. */
export function containerDevices(
  pod: Pod,
  container: Container,
  volumes: ReadonlyMap<string, string>,
): { readonly hostPath: string; readonly containerPath: string; readonly permissions: string }[] {
  return (container.volumeDevices ?? []).map(({ name, devicePath }) => {
    const hostPath = volumes.get(name);
    if (hostPath === undefined) {
      throw new ConfigError(`cannot find volume "${name}" to pass into container "${container.name}"`);
    }
    return { hostPath, containerPath: devicePath, permissions: isReadOnly(pod, name) ? "r" : "mrw" };
  });
}

/** The pod itself asks for the volume read-only, whatever its containers say. */
function isReadOnly(pod: Pod, name: string): boolean {
  const volume = pod.spec.volumes?.find((one) => one.name === name);
  return volume?.persistentVolumeClaim?.readOnly === true || volume?.csi?.readOnly === true;
}
