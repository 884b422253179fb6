// Column makers that most tables share, and the small formats inside cells.
import type { LabelSelector } from "#model/gen/meta-v1.ts";
import type { ApiObject } from "#model/object.ts";
import type { Column } from "./columns.ts";
import { since } from "./human-duration.ts";

type Cell = string | number | boolean;

export const nameColumn: Column = {
  name: "Name",
  type: "string",
  format: "name",
  description: "Name must be unique within a namespace.",
  priority: 0,
  value: (object) => object.metadata.name ?? "",
};

export const ageColumn: Column = {
  name: "Age",
  type: "string",
  description: "Time since the object was created.",
  priority: 0,
  value: (object, nowMs) => since(object.metadata.creationTimestamp, nowMs),
};

/** A column of text; absent prints as nothing. */
export const text = <T extends ApiObject>(
  name: string,
  description: string,
  value: (object: T, nowMs: number) => Cell | undefined,
): Column<T> => ({ name, type: "string", description, priority: 0, value: (o, now) => value(o, now) ?? "" });

/** A column of whole numbers; absent counts as zero. */
export const count = <T extends ApiObject>(
  name: string,
  description: string,
  value: (object: T, nowMs: number) => number | undefined,
): Column<T> => ({ name, type: "integer", description, priority: 0, value: (o, now) => value(o, now) ?? 0 });

/** The same column, shown with -o wide only. */
export const wide = <T extends ApiObject>(column: Column<T>): Column<T> => ({ ...column, priority: 1 });

interface Containers {
  readonly containers?: readonly { readonly name: string; readonly image?: string }[];
}
export const containerNames = (spec: Containers | undefined): string =>
  (spec?.containers ?? []).map((container) => container.name).join(",");
export const containerImages = (spec: Containers | undefined): string =>
  (spec?.containers ?? []).map((container) => container.image ?? "").join(",");

export function formatLabels(labels: Readonly<Record<string, string>> | undefined): string {
  const keys = Object.keys(labels ?? {}).sort();
  return keys.length === 0 ? "<none>" : keys.map((key) => `${key}=${labels?.[key]}`).join(",");
}

/** A selector in the form that -l takes. */
export function formatSelector(selector: LabelSelector | undefined): string {
  if (!selector) return "<none>";
  const parts = Object.entries(selector.matchLabels ?? {}).map(([key, value]) => ({ key, text: `${key}=${value}` }));
  for (const { key, operator, values } of selector.matchExpressions ?? []) {
    const list = [...(values ?? [])].sort().join(",");
    const forms: Record<string, string> = {
      In: `${key} in (${list})`,
      NotIn: `${key} notin (${list})`,
      Exists: key,
      DoesNotExist: `!${key}`,
    };
    parts.push({ key, text: forms[operator] ?? key });
  }
  if (parts.length === 0) return "<none>";
  return parts
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
    .map((part) => part.text)
    .join(",");
}

/** The first three of a list, and how many more there are. */
export function firstThree(items: readonly string[], none: string): string {
  if (items.length === 0) return none;
  const shown = items.slice(0, 3).join(",");
  return items.length > 3 ? `${shown} + ${items.length - 3} more...` : shown;
}

const accessModes: Readonly<Record<string, string>> = {
  ReadWriteOnce: "RWO",
  ReadOnlyMany: "ROX",
  ReadWriteMany: "RWX",
  ReadWriteOncePod: "RWOP",
};
export function formatAccessModes(modes: readonly string[] | undefined): string {
  return Object.keys(accessModes)
    .filter((mode) => modes?.includes(mode))
    .map((mode) => accessModes[mode])
    .join(",");
}

export const hasCondition = (
  conditions: readonly { readonly type: string; readonly status: string }[] | undefined,
  type: string,
): boolean => conditions?.some((condition) => condition.type === type && condition.status === "True") ?? false;

export const goBoolean = (value: boolean | undefined): string =>
  value === undefined ? "<unset>" : value ? "True" : "False";
