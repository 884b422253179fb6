// Which host paths a container sees where: its volume mounts, the managed hosts file and the termination message file.
// A subPath must stay inside its volume, links included.
import { dirname } from "node:path";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { makeFolder } from "#platform/files.ts";
import { changeMode, kindOf, realPath, writePlainFile } from "#platform/folders.ts";
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
}

const hostsPath = "/etc/hosts";

export const terminationFile = (podFolder: string, name: string, attempt: number): string =>
  `${podFolder}/containers/${name}/${attempt}`;

export async function containerMounts(input: MountsInput): Promise<ContainerMount[]> {
  const { container, podFolder } = input;
  const mounts: ContainerMount[] = [];
  for (const mount of container.volumeMounts ?? []) {
    const volume = input.volumes.get(mount.name);
    if (volume === undefined)
      throw new ConfigError(`cannot find volume "${mount.name}" to mount into container "${container.name}"`);
    const subPath = mount.subPathExpr
      ? expand(mount.subPathExpr, (name) => input.env.get(name))
      : (mount.subPath ?? "");
    mounts.push({
      hostPath: subPath === "" ? volume : await insideVolume(volume, subPath),
      containerPath: mount.mountPath.startsWith("/") ? mount.mountPath : `/${mount.mountPath}`,
      readonly: mount.readOnly ?? false,
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

async function insideVolume(volume: string, subPath: string): Promise<string> {
  if (subPath.startsWith("/") || subPath.split("/").includes("..")) {
    throw new ConfigError(`subPath ${JSON.stringify(subPath)} must be relative and stay inside the volume`);
  }
  const path = `${volume}/${subPath}`;
  if ((await kindOf(path)) === undefined) {
    await makeFolder(path, 0o750);
    await changeMode(path, 0o777);
  }
  const [root, real] = await Promise.all([realPath(volume), realPath(path)]);
  if (real !== root && !real.startsWith(`${root}/`)) {
    throw new ConfigError(`subPath ${JSON.stringify(subPath)} leads out of the volume`);
  }
  return real;
}
