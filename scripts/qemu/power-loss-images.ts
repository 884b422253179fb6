// What a disk may hold after the power went: all that was flushed, and of the rest any part. A plan names the point of
// the cut and what of the unflushed writes reached the medium; plans come from a seed, so each image can be made again.
//
//   entries  0 ........ durableUntil ............ cut ...... end
//            on the medium | kept, dropped or torn | never written
//
// A device's cache keeps one newest version per sector, so kept pieces are applied in the order of the log: "reordered"
// means that a later write is there and an earlier one is not. Pure; bytes move in power-loss-disk.ts.
import type { Random } from "#base/clock.ts";
import type { LogEntry } from "./power-loss-log.ts";

/** dropped: no unflushed write is there. kept: all are. some: each by chance. missing: one is not, later ones are. torn: by sector. */
export const crashKinds = ["dropped", "kept", "some", "missing", "torn"] as const;
export type CrashKind = (typeof crashKinds)[number];

/** Consecutive sectors of one write that reached the medium. */
export interface KeptPiece {
  readonly entry: number;
  /** Sector within the write. */
  readonly from: number;
  readonly sectorCount: number;
}

export interface CrashPlan {
  /** The first entry that did not happen. */
  readonly cut: number;
  readonly durableUntil: number;
  readonly kind: CrashKind;
  readonly kept: readonly KeptPiece[];
  /** Unflushed writes that are absent, whole or in part. */
  readonly lostWrites: number;
}

export interface PlanOptions {
  readonly random: Random;
  /** First entry that may be the cut; default 0. */
  readonly from?: number;
  /** Positive control: forget flushes, so that writes since a random earlier point count as unflushed. */
  readonly ignoreFlushes?: boolean;
}

/** Everything below this entry is durable when the power goes just before entry `cut`. */
export function durableBefore(entries: readonly LogEntry[], cut: number): number {
  for (let i = cut - 1; i >= 0; i--) if (entries[i]!.flush) return entries[i]!.sectorCount > 0 ? i : i + 1;
  return 0;
}

/** A random cut and a random fate of what was unflushed then. */
export function planCrash(entries: readonly LogEntry[], options: PlanOptions): CrashPlan {
  const { random } = options;
  const from = Math.min(options.from ?? 0, entries.length);
  const cut = chooseCut(entries, from, random);
  const durableUntil = options.ignoreFlushes
    ? from + Math.floor(random.float() * Math.max(1, cut - from))
    : durableBefore(entries, cut);
  const kind = crashKinds[Math.floor(random.float() * crashKinds.length)]!;
  return planOf(entries, { cut, durableUntil, kind, random, ignoreFua: options.ignoreFlushes === true });
}

export function planOf(
  entries: readonly LogEntry[],
  options: {
    readonly cut: number;
    readonly durableUntil: number;
    readonly kind: CrashKind;
    readonly random: Random;
    readonly ignoreFua?: boolean;
  },
): CrashPlan {
  const { cut, durableUntil, kind, random } = options;
  const writes: number[] = [];
  for (let i = durableUntil; i < cut; i++) {
    const entry = entries[i]!;
    if (entry.sectorCount > 0 && !entry.discard) writes.push(i);
  }
  const missing = writes.length === 0 ? -1 : writes[Math.floor(random.float() * writes.length)]!;
  // How much of it the device had written by then differs from one cut to the next.
  const share = random.float();
  const kept: KeptPiece[] = [];
  let lostWrites = 0;
  for (const entry of writes) {
    const { sectorCount, fua } = entries[entry]!;
    const whole: KeptPiece[] = [{ entry, from: 0, sectorCount }];
    const pieces =
      (fua && !options.ignoreFua) || kind === "kept"
        ? whole
        : kind === "dropped"
          ? []
          : kind === "some"
            ? random.float() < share
              ? whole
              : []
            : kind === "missing"
              ? entry === missing
                ? []
                : whole
              : tear(entry, sectorCount, random);
    if (pieces.reduce((n, p) => n + p.sectorCount, 0) < sectorCount) lostWrites++;
    kept.push(...pieces);
  }
  return { cut, durableUntil, kind, kept, lostWrites };
}

/**
 * Half of the cuts fall on any entry, the other half into a random span between flushes: long spans (a file being
 * copied) would otherwise take nearly all cuts away from the short ones of a database.
 */
function chooseCut(entries: readonly LogEntry[], from: number, random: Random): number {
  const anywhere = from + Math.floor(random.float() * (entries.length - from + 1));
  if (random.float() < 0.5) return anywhere;
  // The span that `anywhere` is in is chosen by length; moving to a random flush first makes spans equally likely.
  let flushes = 0;
  for (let i = from; i < entries.length; i++) if (entries[i]!.flush) flushes++;
  if (flushes === 0) return anywhere;
  let wanted = Math.floor(random.float() * flushes);
  let end = from;
  for (let i = from; i < entries.length; i++) {
    if (entries[i]!.flush && wanted-- === 0) {
      end = i;
      break;
    }
  }
  const start = Math.max(from, durableBefore(entries, end));
  return start + Math.floor(random.float() * (end - start + 1));
}

/** Whole, absent, a front, a back or single sectors. */
function tear(entry: number, sectorCount: number, random: Random): KeptPiece[] {
  const point = Math.floor(random.float() * (sectorCount + 1));
  switch (Math.floor(random.float() * 4)) {
    case 0:
      return random.float() < 0.5 ? [{ entry, from: 0, sectorCount }] : [];
    case 1:
      return point === 0 ? [] : [{ entry, from: 0, sectorCount: point }];
    case 2:
      return point === sectorCount ? [] : [{ entry, from: point, sectorCount: sectorCount - point }];
    default: {
      const pieces: KeptPiece[] = [];
      for (let from = 0; from < sectorCount; from++) {
        if (random.float() < 0.5) pieces.push({ entry, from, sectorCount: 1 });
      }
      return pieces;
    }
  }
}
