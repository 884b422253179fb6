// A container's last words: its termination message file, or by policy the tail of its log. Reads are bounded, because what a
// container writes there is its own business. Counterpart: the kubelet's getTerminationMessage; its bounds.
import type { Pod } from "#model/gen/core-v1.ts";
import { openForReading } from "#platform/open-file.ts";
import { terminationFile } from "./mounts.ts";
import type { ObservedContainer } from "./observation.ts";
import { allContainers, containerOf } from "./plan.ts";

/** What one container may say, what all of a pod may, and how much of a log stands in for it. */
const maxMessageBytes = 4096;
const maxPodBytes = 12 * 1024;
const maxLogTailBytes = 2048;
const maxLogTailLines = 80;
/** Enough for eighty lines with their time stamps. */
const logWindowBytes = 64 * 1024;

export async function lastWords(podFolder: string, pod: Pod, container: ObservedContainer): Promise<string> {
  const limit = Math.min(maxMessageBytes, Math.floor(maxPodBytes / Math.max(1, allContainers(pod).length)));
  const spec = containerOf(pod, container.name);
  const text = await head(terminationFile(podFolder, container.name, container.attempt), limit);
  const isFallback = spec?.terminationMessagePolicy === "FallbackToLogsOnError" && container.exitCode !== 0;
  if (text !== "" || !isFallback) return text;
  return logTail(await tail(container.logPath, logWindowBytes)).slice(-limit);
}

async function head(path: string, length: number): Promise<string> {
  const file = await openForReading(path);
  if (!file) return "";
  try {
    return (await file.read(0, length)).toString("utf8");
  } finally {
    await file.close();
  }
}

async function tail(path: string, length: number): Promise<string> {
  const file = path === "" ? undefined : await openForReading(path);
  if (!file) return "";
  try {
    const { sizeBytes } = await file.facts();
    return (await file.read(Math.max(0, sizeBytes - length), length)).toString("utf8");
  } finally {
    await file.close();
  }
}

/** Lines of the CRI log format: time, stream, P for a piece or F for the end of a line, text. Pure. */
export function logTail(log: string): string {
  const lines: string[] = [];
  let open = "";
  for (const line of log.split("\n")) {
    const [, , tag, ...words] = line.split(" ");
    if (tag !== "P" && tag !== "F") continue;
    open += words.join(" ");
    if (tag === "P") continue;
    lines.push(`${open}\n`);
    open = "";
  }
  // The runtime leaves a line open that its writer did not end.
  if (open !== "") lines.push(open);
  return lines.slice(-maxLogTailLines).join("").slice(-maxLogTailBytes);
}

/** Those of one pod, each read once: files of a container that has ended do not change. */
export class LastWords {
  readonly #byId = new Map<string, string>();

  /** Reads what is new and forgets whoever is not there any more. */
  async follow(podFolder: string, pod: Pod, containers: readonly ObservedContainer[]): Promise<void> {
    for (const c of containers) {
      if (c.state === "exited" && !this.#byId.has(c.id)) this.#byId.set(c.id, await lastWords(podFolder, pod, c));
    }
    for (const id of this.#byId.keys()) if (!containers.some((c) => c.id === id)) this.#byId.delete(id);
  }

  of(container: ObservedContainer): string {
    return this.#byId.get(container.id) ?? "";
  }
}
