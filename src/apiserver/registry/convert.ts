// Versions that share storage: an Event is core/v1 at rest and served as events.k8s.io/v1 too, a
// HorizontalPodAutoscaler is autoscaling/v2 at rest and v1 on request. Everything else has one version; where two
// versions do not differ in fields, only apiVersion is exchanged. Upstream counterpart: the generated conversions.
import type { UnknownObject } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { autoscalerFromV1, autoscalerToV1 } from "./autoscaling-conversion.ts";

type Fields = Record<string, unknown>;
interface Conversion {
  fromStorage(object: Fields): Fields;
  toStorage(object: Fields): Fields;
}

/** Renames top-level fields; the rest stays. */
function renaming(pairs: readonly (readonly [served: string, stored: string])[]): Conversion {
  const rename = (object: Fields, from: 0 | 1, to: 0 | 1): Fields => {
    const names = new Map(pairs.map((pair) => [pair[from], pair[to]]));
    return Object.fromEntries(Object.entries(object).map(([key, value]) => [names.get(key) ?? key, value]));
  };
  return { fromStorage: (o) => rename(o, 1, 0), toStorage: (o) => rename(o, 0, 1) };
}

const events = renaming([
  ["note", "message"],
  ["regarding", "involvedObject"],
  ["reportingController", "reportingComponent"],
  ["deprecatedSource", "source"],
  ["deprecatedFirstTimestamp", "firstTimestamp"],
  ["deprecatedLastTimestamp", "lastTimestamp"],
  ["deprecatedCount", "count"],
]);

/** By `served group/version Kind`. */
const conversions: Readonly<Record<string, Conversion>> = {
  "events.k8s.io/v1 Event": events,
  "autoscaling/v1 HorizontalPodAutoscaler": { fromStorage: autoscalerToV1, toStorage: autoscalerFromV1 },
};

export const isStorageVersion = (info: ResourceInfo): boolean => groupVersion(info) === info.storageVersion;

/** The object as `info` serves it; the same one where it is stored so. */
export function fromStorage(info: ResourceInfo, object: UnknownObject): UnknownObject {
  if (isStorageVersion(info)) return object;
  const conversion = conversions[`${groupVersion(info)} ${info.kind}`];
  const converted = (conversion?.fromStorage(object) ?? { ...object }) as UnknownObject;
  return { ...converted, apiVersion: groupVersion(info) };
}

/** The other way; `object` may be reused. */
export function toStorage(info: ResourceInfo, object: UnknownObject): UnknownObject {
  if (isStorageVersion(info)) return object;
  const conversion = conversions[`${groupVersion(info)} ${info.kind}`];
  const converted = (conversion?.toStorage(object) ?? { ...object }) as UnknownObject;
  return { ...converted, apiVersion: info.storageVersion };
}
