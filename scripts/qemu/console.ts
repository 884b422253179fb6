// What the serial console of a booting image says: lines without terminal codes, the markers the device prints, signs
// that it will never get there, and the kubeconfig that a virtual machine prints when it was asked to. Pure.

/** In the order in which a boot prints them. */
export const markers = [
  { name: "pid1", text: "mote: pid 1 up", says: "PID 1" },
  { name: "data", text: "mote: data mounted", says: "data partition mounted" },
  { name: "config", text: "mote: config read", says: "configuration read" },
  { name: "api", text: "mote: api ready", says: "API answers" },
  { name: "node", text: "mote: node ready", says: "node Ready" },
] as const;

export type MarkerName = (typeof markers)[number]["name"];

/** A line that matches means that waiting is in vain, with why. */
const failures: readonly { readonly pattern: RegExp; readonly means: string }[] = [
  { pattern: /^\[?[\s\d.\]]*Kernel panic - not syncing/, means: "the kernel panicked" },
  { pattern: /device-mapper: verity: .* is corrupted/, means: "the root file system does not match its hash" },
  { pattern: /^grub rescue>|^grub>/, means: "GRUB found no configuration" },
  { pattern: /^error: .*(not found|no such)/i, means: "the boot loader misses a file" },
  { pattern: /No bootable device|Boot failed: not a bootable disk/, means: "the firmware found nothing to start" },
];

export function failureIn(line: string): string | undefined {
  return failures.find(({ pattern }) => pattern.test(line))?.means;
}

/**
 * Whether a panic is the emulator's doing: Linux patches its code while other processors run it, by breakpoints that QEMU 7.2's
 * TCG with a thread for each processor sometimes lets them see when they are gone again (seen twice in fifty starts, in
 * `sched_clock_cpu`). Before PID 1 nothing of ours has run, and the kernel restarts by itself.
 */
export function isStrayBreakpoint(boot: readonly string[]): boolean {
  return boot.some((line) => /Oops: int3/.test(line)) && !boot.some((line) => markerIn(line) === "pid1");
}

/** What the device itself says is wrong; it goes on with the rest. */
export function problemIn(line: string): string | undefined {
  return /mote: error:? (.*)/.exec(line)?.[1];
}

export function markerIn(line: string): MarkerName | undefined {
  // A kernel message may share the line; what comes behind the marker is detail.
  return markers.find(({ text }) => line.includes(text))?.name;
}

export const kubeconfigBegin = "mote: kubeconfig begin";
export const kubeconfigEnd = "mote: kubeconfig end";

/** The text of the last complete kubeconfig among lines; kernel messages between its lines are left out. */
export function kubeconfigIn(lines: readonly string[]): string | undefined {
  const end = lines.findLastIndex((line) => line.includes(kubeconfigEnd));
  if (end < 0) return undefined;
  const begin = lines.slice(0, end).findLastIndex((line) => line.includes(kubeconfigBegin));
  if (begin < 0) return undefined;
  const base64 = lines.slice(begin + 1, end).filter((line) => /^[A-Za-z0-9+/]+={0,2}$/.test(line));
  const text = Buffer.from(base64.join(""), "base64").toString("utf8");
  return text.includes("clusters:") ? text : undefined;
}

/** The same kubeconfig for a client of this host, which reaches the server through a forwarded port. */
export function forwardedKubeconfig(kubeconfig: string, hostPort: number): string {
  return kubeconfig.replace(/^(\s*(?:- )?server:\s*)\S+$/m, `$1https://127.0.0.1:${hostPort}`);
}

/** Cuts chunks of bytes into lines. Terminal codes go, a lone CR starts the line again as on a screen. */
export class LineReader {
  #rest = "";
  readonly #decoder = new TextDecoder();

  /** The lines that `chunk` completes. */
  feed(chunk: Uint8Array): string[] {
    const parts = (this.#rest + this.#decoder.decode(chunk, { stream: true })).split("\n");
    // Bounded: a console that never ends its line would otherwise be kept whole.
    this.#rest = parts.pop()!.slice(-maxLineLength);
    return parts.map(clean);
  }

  /** What the line that is not complete yet shows; a boot loader's prompt, for one. */
  get unfinished(): string {
    return clean(this.#rest);
  }
}

const maxLineLength = 16 * 1024;

function clean(line: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: terminal codes are what is removed.
  const bare = line.replace(/\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>78cDM])/g, "").replace(/\r+$/, "");
  return bare.slice(bare.lastIndexOf("\r") + 1).replaceAll("\0", "");
}
