// A folder in memory for tests that write much and are not about the disk: the same files and calls, and a flush that costs
// nothing. Where the machine has none, or a small one as containers do, it is a folder on disk like any other.
import { mkdtemp, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const memoryFolder = "/dev/shm";
/** More than such tests write, many times over. */
const minFreeBytes = 2 ** 30;

/** The path of a new folder; whoever asks for it removes it. */
export async function quickFolder(prefix: string): Promise<string> {
  const free = await statfs(memoryFolder).then(
    ({ bavail, bsize }) => bavail * bsize,
    // Not on this machine.
    () => 0,
  );
  return mkdtemp(join(free >= minFreeBytes ? memoryFolder : tmpdir(), prefix));
}
