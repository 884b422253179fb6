// Whether the data partition is used, repaired, formatted or left alone. Pure. Invariant: it is formatted only where it is
// certain that no file system on it was ever used: the marker says "fresh" (as images do, and as a factory reset does
// first), or there is no marker, no superblock, no copy of one, and nothing but zeros at its start.
//
//     marker      superblock whole    torn or gone, copies found    torn or gone, no copies
//     fresh       format              format                        format
//     formatted   use                 repair (its own copies)       refuse
//     damaged     use                 repair                        refuse
//     absent      use                 repair                        format if blank, else refuse
import type { DataMarker } from "./data-marker.ts";
import type { Backup, Superblock } from "./ext4-superblock.ts";

export interface DataFacts {
  readonly marker: DataMarker;
  /** Undefined: torn or not there. */
  readonly primary: Superblock | undefined;
  /** Whole copies, nearest first. They need be read only where the primary is not whole. */
  readonly backups: readonly Backup[];
  /** Nothing but zeros in the first MiB. */
  readonly isBlank: boolean;
  readonly partitionBytes: number;
}

export type DataPlan =
  | { readonly kind: "format" }
  | { readonly kind: "use"; readonly superblock: Superblock }
  /** Each in turn until e2fsck is content. */
  | { readonly kind: "repair"; readonly backups: readonly Backup[] }
  | { readonly kind: "refuse"; readonly why: string };

const help =
  "nothing was changed on it; keep the card for whoever can rescue the data, or put a file named factory-reset on the boot partition to begin anew";

export function planData(facts: DataFacts): DataPlan {
  const { marker, primary, partitionBytes } = facts;
  if (marker.kind === "fresh") return { kind: "format" };
  if (primary) {
    return primary.bytes <= partitionBytes
      ? { kind: "use", superblock: primary }
      : refuse("the file system is larger than its partition, as on a copy to a smaller medium");
  }
  // Copies of an earlier life of the medium carry another name.
  const own = facts.backups.filter(
    ({ superblock }) =>
      superblock.bytes <= partitionBytes && (marker.kind !== "formatted" || superblock.uuid === marker.uuid),
  );
  if (own.length > 0) return { kind: "repair", backups: mostCommon(own) };
  if (marker.kind === "absent" && facts.isBlank) return { kind: "format" };
  return refuse("the file system's first block is damaged, and no copy of it was found");
}

const refuse = (what: string): DataPlan => ({
  kind: "refuse",
  why: `The data partition cannot be used: ${what}; ${help}.`,
});

/** Those of the file system that most copies speak of. */
function mostCommon(backups: readonly Backup[]): Backup[] {
  const counts = new Map<string, number>();
  for (const { superblock } of backups) counts.set(superblock.uuid, (counts.get(superblock.uuid) ?? 0) + 1);
  const [uuid] = [...counts].reduce((best, one) => (one[1] > best[1] ? one : best));
  return backups.filter(({ superblock }) => superblock.uuid === uuid);
}
