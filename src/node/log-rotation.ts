// Keeps container logs bounded: a log past its size is renamed and the runtime told to open a new one; the oldest go.
// `N.log` is always the current file. Not compressed: that would write everything a second time.

import { basename, dirname } from "node:path";
import { type Clock, pause, rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { listFolder } from "#platform/files.ts";
import { removeFile, renamePath } from "#platform/folders.ts";
import { fileFacts } from "#platform/open-file.ts";
import type { NodeConfiguration } from "./configuration.ts";
import type { Cri } from "./cri.ts";
import type { RuntimeCache } from "./runtime-cache.ts";

const checkMs = 30_000;

export async function rotateLogs(
  deps: {
    readonly cri: Cri;
    readonly runtime: RuntimeCache;
    readonly clock: Clock;
    readonly log: Logger;
    readonly configuration: Pick<NodeConfiguration, "containerLogMaxBytes" | "containerLogMaxFiles">;
  },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    // Ends early only because the signal aborted.
    await pause(deps.clock, checkMs, signal);
    if (signal.aborted) return;
    for (const pod of deps.runtime.all()) {
      for (const container of pod.containers) {
        if (container.state !== "running" || container.logPath === "") continue;
        try {
          const facts = await fileFacts(container.logPath);
          if (facts && facts.sizeBytes > deps.configuration.containerLogMaxBytes) {
            await rotate(container.id, container.logPath, deps.configuration.containerLogMaxFiles, deps);
          }
        } catch (error) {
          // One log that cannot be rotated must not stop the others; it is tried again.
          deps.log.warn("cannot rotate a container log", { path: container.logPath, error: messageOf(error) });
        }
      }
    }
  }
}

async function rotate(
  id: string,
  path: string,
  maxFiles: number,
  deps: { readonly cri: Cri; readonly clock: Clock },
): Promise<void> {
  const stamp = rfc3339(deps.clock.now()).replace(/[-:TZ]/g, "");
  const moved = `${path}.${stamp.slice(0, 8)}-${stamp.slice(8)}`;
  await renamePath(path, moved);
  try {
    await deps.cri.reopenLog(id);
  } catch (error) {
    // The runtime still writes to the moved file: give it its name back.
    await renamePath(moved, path);
    throw error;
  }
  const prefix = `${basename(path)}.`;
  const old = (await listFolder(dirname(path)))
    .map((e) => e.name)
    .filter((name) => name.startsWith(prefix))
    .sort();
  for (const name of old.slice(0, Math.max(0, old.length - (maxFiles - 1))))
    await removeFile(`${dirname(path)}/${name}`);
}
