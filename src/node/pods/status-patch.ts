// The strategic merge patch that turns the status the API has into the one it should have: only what differs, with null
// for what is gone. Conditions merge by type, so a condition of someone else is never overwritten. Pure.
import { isDeepStrictEqual } from "node:util";
import type { PodStatus } from "#model/gen/core-v1.ts";

const ownConditions = new Set([
  "PodReadyToStartContainers",
  "Initialized",
  "Ready",
  "ContainersReady",
  "PodScheduled",
  "DisruptionTarget",
]);
/** Lists that strategic merge would merge by address: they are replaced as a whole. */
const replaced = new Set(["podIPs", "hostIPs"]);

/** Undefined when nothing differs. */
export function statusPatch(before: PodStatus, after: PodStatus): Record<string, unknown> | undefined {
  const patch: Record<string, unknown> = {};
  const old = before as Readonly<Record<string, unknown>>;
  const fresh = after as Readonly<Record<string, unknown>>;
  for (const [key, value] of Object.entries(fresh)) {
    if (key === "conditions" || isDeepStrictEqual(prune(old[key]), prune(value))) continue;
    const needsReplace = replaced.has(key) && Array.isArray(old[key]) && old[key].length > 0;
    patch[key] = needsReplace ? [...(value as unknown[]), { $patch: "replace" }] : value;
  }
  for (const key of ["reason", "message", "resize"])
    if (old[key] !== undefined && fresh[key] === undefined) patch[key] = null;
  const conditions: Record<string, unknown>[] = [];
  for (const condition of after.conditions ?? []) {
    if (!ownConditions.has(condition.type)) continue;
    const known = before.conditions?.find((c) => c.type === condition.type);
    if (known && isDeepStrictEqual(prune(known), prune(condition))) continue;
    const change: Record<string, unknown> = { ...condition };
    for (const key of ["reason", "message"] as const)
      if (known?.[key] !== undefined && condition[key] === undefined) change[key] = null;
    conditions.push(change);
  }
  if (conditions.length > 0) patch["conditions"] = conditions;
  return Object.keys(patch).length === 0 ? undefined : patch;
}

/** Without null, undefined and empty objects: how a server that drops zero values gives things back. */
function prune(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(prune);
  if (typeof value !== "object" || value === null) return value;
  const out: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    const pruned = prune(item);
    if (pruned === null || pruned === undefined) continue;
    if (typeof pruned === "object" && !Array.isArray(pruned) && Object.keys(pruned).length === 0) continue;
    out[key] = pruned;
  }
  return out;
}
