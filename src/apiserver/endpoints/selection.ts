// labelSelector and fieldSelector of a list, watch or deletecollection as one predicate over stored objects. A name in
// the selector becomes a lookup. Upstream counterpart: the selection predicates of the generic registry.
import { checkFields, matchesFields, parseFieldSelector } from "#model/field-selector.ts";
import { matchesRequirements, parseLabelSelector } from "#model/label-selector.ts";
import type { UnknownObject } from "#model/object.ts";
import { fromStorage } from "../registry/convert.ts";
import type { ServedResource } from "./served.ts";

export interface Selection {
  /** Exactly this name. */
  readonly name: string | undefined;
  /** Beside the name; undefined: everything matches. */
  readonly matches: ((object: UnknownObject) => boolean) | undefined;
}

/** Rejects with 400 for a selector that cannot be read or a field the resource does not offer. */
export function parseSelection(served: ServedResource, query: URLSearchParams): Selection {
  const labels = parseLabelSelector(query.get("labelSelector") ?? "");
  const fields = parseFieldSelector(query.get("fieldSelector") ?? "");
  checkFields(served.info, fields, served.custom?.selectable);
  const named = fields.find(({ field, operator }) => field === "metadata.name" && operator === "=");
  const rest = fields.filter((requirement) => requirement !== named);
  if (labels.length === 0 && rest.length === 0) return { name: named?.value, matches: undefined };
  return {
    name: named?.value,
    matches: (object) =>
      matchesRequirements(labels, object.metadata.labels) &&
      (rest.length === 0 || matchesFields(rest, fromStorage(served.info, object))),
  };
}
