// Eviction signals and thresholds: their text form, what the machine says of each, and which are crossed. Pure.
// Counterpart: pkg/kubelet/eviction/{api,helpers}; names, condition types and order are upstream's.
import type { FileSystemSize } from "#platform/folders.ts";
import { checkedQuantity, wholeOf } from "../pods/quantities.ts";
import type { MachineUsage } from "../stats/usage.ts";

export const signals = [
  "memory.available",
  "nodefs.available",
  "nodefs.inodesFree",
  "imagefs.available",
  "imagefs.inodesFree",
  "pid.available",
] as const;
export type Signal = (typeof signals)[number];

export interface Threshold {
  readonly signal: Signal;
  readonly kind: "hard" | "soft";
  /** An amount or a share of the capacity; of both the smaller counts. */
  readonly bytes?: number | undefined;
  readonly share?: number | undefined;
  /** How long it must be crossed; 0 for hard ones. */
  readonly graceMs: number;
  /** What must be free beyond the threshold before it counts as over. */
  readonly reclaim?: { readonly bytes?: number | undefined; readonly share?: number | undefined };
}

export interface Observation {
  readonly capacity: number;
  readonly available: number;
}
export type Observations = ReadonlyMap<Signal, Observation>;

/** What the machine says of each signal. One without a capacity could not be read: it must not look used up. */
export function observationsOf(machine: {
  readonly memory: Pick<MachineUsage, "availableBytes" | "workingSetBytes" | "reclaimableBytes">;
  readonly node: FileSystemSize;
  readonly image: FileSystemSize;
  readonly pids: { readonly max: number; readonly used: number };
}): Observations {
  const { memory, node, image, pids } = machine;
  const memoryBytes = memory.availableBytes + memory.workingSetBytes;
  const rows: readonly (readonly [Signal, Observation])[] = [
    // Upstream takes the file cache that was used lately for lost. On a small machine that is most of it, and the
    // kernel would give it up long before a pod has to go.
    [
      "memory.available",
      { capacity: memoryBytes, available: Math.max(memory.availableBytes, memory.reclaimableBytes) },
    ],
    ["nodefs.available", { capacity: node.totalBytes, available: node.freeBytes }],
    // File systems that make inodes as they go report none.
    ["nodefs.inodesFree", { capacity: node.inodes, available: node.inodesFree }],
    ["imagefs.available", { capacity: image.totalBytes, available: image.freeBytes }],
    ["imagefs.inodesFree", { capacity: image.inodes, available: image.inodesFree }],
    ["pid.available", { capacity: pids.max, available: pids.max - pids.used }],
  ];
  return new Map(rows.filter(([, { capacity }]) => capacity > 0));
}

export type PressureCondition = "MemoryPressure" | "DiskPressure" | "PIDPressure";
/** What is short when the signal is crossed, as messages name it, and the condition of the node. */
export const signalFacts: Readonly<
  Record<Signal, { readonly resource: string; readonly condition: PressureCondition }>
> = {
  "memory.available": { resource: "memory", condition: "MemoryPressure" },
  "nodefs.available": { resource: "ephemeral-storage", condition: "DiskPressure" },
  "nodefs.inodesFree": { resource: "inodes", condition: "DiskPressure" },
  "imagefs.available": { resource: "ephemeral-storage", condition: "DiskPressure" },
  "imagefs.inodesFree": { resource: "inodes", condition: "DiskPressure" },
  "pid.available": { resource: "pids", condition: "PIDPressure" },
};

/** `memory.available<100Mi,nodefs.available<10%`; throws an Error that names the part. */
export function parseThresholds(text: string, kind: Threshold["kind"]): Threshold[] {
  const parts = text.split(",").filter((part) => part !== "");
  return parts.map((part) => {
    const match = /^([a-zA-Z.]+)<(\d+(?:\.\d+)?%|[0-9.]+[A-Za-z]*)$/.exec(part.trim());
    const signal = signals.find((s) => s === match?.[1]);
    if (!match || !signal)
      throw new Error(`${JSON.stringify(part)} is not SIGNAL<QUANTITY with one of ${signals.join(", ")}`);
    const value = match[2]!;
    const amount = value.endsWith("%")
      ? { share: Number(value.slice(0, -1)) / 100 }
      : { bytes: wholeOf(checkedQuantity(value)) };
    return { signal, kind, graceMs: 0, ...amount };
  });
}

export const thresholdText = (t: Threshold): string =>
  t.bytes !== undefined || t.share === undefined ? String(t.bytes ?? 0) : `${Math.round(t.share * 1e6) / 1e4}%`;

export const amountOf = (t: Pick<Threshold, "bytes" | "share">, capacity: number): number =>
  t.share === undefined
    ? (t.bytes ?? 0)
    : Math.min(t.bytes ?? Number.POSITIVE_INFINITY, Math.floor(capacity * t.share));

/** Thresholds whose signal is observed below them; `withReclaim`: below what must be free before they are over. */
export function crossed(
  thresholds: readonly Threshold[],
  seen: Observations,
  withReclaim: boolean,
): readonly Threshold[] {
  return thresholds.filter((t) => {
    const now = seen.get(t.signal);
    if (!now) return false;
    const extra = withReclaim && t.reclaim ? amountOf(t.reclaim, now.capacity) : 0;
    return now.available < amountOf(t, now.capacity) + extra;
  });
}

/** How near the nearest threshold is: below 1 it is crossed; used to look more often when it gets close. */
export function nearest(thresholds: readonly Threshold[], seen: Observations): number {
  const ratios = thresholds.flatMap((t) => {
    const now = seen.get(t.signal);
    const limit = now && amountOf(t, now.capacity);
    return now && limit ? [now.available / limit] : [];
  });
  return Math.min(Number.POSITIVE_INFINITY, ...ratios);
}
