// What mote and its containerd hold in memory on a device, from /proc/*/smaps and /proc/meminfo as a pod there reads them: the
// proportional set size, and how much of it is not of files, which is what remains when memory is scarce. Pure.

export interface Held {
  readonly pssMib: number;
  /** Heaps, stacks and what was written of private mappings. */
  readonly ownMib: number;
}

export interface DeviceMemory {
  readonly mote: Held;
  readonly containerd: Held;
  /** In use of the whole device, MiB; what can be dropped not counted. */
  readonly device: number;
}

/** The text is that of meminfo, then `== PROGRAM` and its smaps for each process. */
export function memoryOf(text: string): DeviceMemory {
  const [head = "", ...processes] = text.split(/^== /m);
  const of = (program: string) => processes.find((one) => one.split("\n", 1)[0]!.endsWith(`/${program}`)) ?? "";
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(head)?.[1] ?? Number.NaN);
  return {
    mote: heldBy(of("mote/node")),
    containerd: heldBy(of("containerd")),
    device: Math.round((kib("MemTotal") - kib("MemAvailable")) / 1024),
  };
}

function heldBy(smaps: string): Held {
  const sum = (name: string) => {
    let kib = 0;
    for (const [, value] of smaps.matchAll(new RegExp(`^${name}:\\s+(\\d+) kB`, "gm"))) kib += Number(value);
    return kib / 1024;
  };
  // A page that was written is anonymous, in mappings of files too. Each process is alone with its own.
  return { pssMib: sum("Pss"), ownMib: sum("Anonymous") };
}
