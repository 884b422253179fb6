// The conditions of a namespace that is being deleted. Pure. Upstream counterpart:
// pkg/controller/namespace/deletion/status_condition_utils.go.
import type { NamespaceCondition } from "#model/gen/core-v1.ts";

/** What one pass over the contents found. */
export interface Sweep {
  /** Instances left by qualified resource, e.g. "pods." as upstream writes resource.group. */
  readonly remaining: ReadonlyMap<string, number>;
  /** Objects left by finalizer. */
  readonly finalizers: ReadonlyMap<string, number>;
  readonly errors: readonly string[];
}

type Row = Pick<NamespaceCondition, "type" | "status" | "reason" | "message">;

export function planConditions(
  old: readonly NamespaceCondition[],
  sweep: Sweep,
  now: string,
): readonly NamespaceCondition[] {
  const sorted = (counts: ReadonlyMap<string, number>) => [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
  const remaining = sorted(sweep.remaining).map(([what, n]) => `${what} has ${n} resource instances`);
  const held = sorted(sweep.finalizers).map(([what, n]) => `${what} in ${n} resource instances`);
  const rows: readonly Row[] = [
    {
      type: "NamespaceDeletionDiscoveryFailure",
      status: "False",
      reason: "ResourcesDiscovered",
      message: "All resources successfully discovered",
    },
    {
      type: "NamespaceDeletionGroupVersionParsingFailure",
      status: "False",
      reason: "ParsedGroupVersions",
      message: "All legacy kube types successfully parsed",
    },
    sweep.errors.length > 0
      ? {
          type: "NamespaceDeletionContentFailure",
          status: "True",
          reason: "ContentDeletionFailed",
          message: `Failed to delete all resource types, ${sweep.errors.length} remaining: ${sweep.errors.join(", ")}`,
        }
      : {
          type: "NamespaceDeletionContentFailure",
          status: "False",
          reason: "ContentDeleted",
          message: "All content successfully deleted, may be waiting on finalization",
        },
    remaining.length > 0
      ? {
          type: "NamespaceContentRemaining",
          status: "True",
          reason: "SomeResourcesRemain",
          message: `Some resources are remaining: ${remaining.join(", ")}`,
        }
      : {
          type: "NamespaceContentRemaining",
          status: "False",
          reason: "ContentRemoved",
          message: "All content successfully removed",
        },
    held.length > 0
      ? {
          type: "NamespaceFinalizersRemaining",
          status: "True",
          reason: "SomeFinalizersRemain",
          message: `Some content in the namespace has finalizers remaining: ${held.join(", ")}`,
        }
      : {
          type: "NamespaceFinalizersRemaining",
          status: "False",
          reason: "ContentHasNoFinalizers",
          message: "All content-preserving finalizers finished",
        },
  ];
  let isChanged = false;
  const next = rows.map((row) => {
    const before = old.find((c) => c.type === row.type);
    if (before && before.status === row.status && before.message === row.message) return before;
    isChanged = true;
    const lastTransitionTime = before?.status === row.status ? (before.lastTransitionTime ?? now) : now;
    return { ...row, lastTransitionTime };
  });
  if (!isChanged) return old;
  return [...old.filter((c) => !rows.some((row) => row.type === c.type)), ...next];
}

/** How long a pod may still take, in seconds: half of its grace is when looking again is worth it (upstream's estimate). */
export const lookAgainMs = (longestGraceSeconds: number): number => (Math.floor(longestGraceSeconds / 2) + 1) * 1000;
