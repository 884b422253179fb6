// Tells when something in a folder comes or goes. It says no more than "look again": events may be merged or lost.
import { watch } from "node:fs";

/** Calls `changed` until the returned function is called, or watching fails, which `failed` is told. */
export function watchFolder(folder: string, changed: () => void, failed: (error: Error) => void): () => void {
  const watcher = watch(folder, { persistent: false }, () => changed());
  watcher.on("error", failed);
  return () => watcher.close();
}
