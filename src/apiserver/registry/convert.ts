// Versions that share storage: an Event is core/v1 at rest and served as events.k8s.io/v1 too, a
// HorizontalPodAutoscaler is autoscaling/v2 at rest and v1 on request. Everything else has one version; where two
// versions do not differ in fields, only apiVersion is exchanged. Upstream counterpart: the generated conversions.
import type { UnknownObject } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";

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

const autoscaling: Conversion = {
  fromStorage(object) {
    const spec = (object["spec"] ?? {}) as Fields;
    const { metrics, behavior: _behavior, ...rest } = spec;
    const cpu = cpuUtilization(metrics, "target");
    const status = object["status"] as Fields | undefined;
    const { currentMetrics, conditions: _conditions, ...statusRest } = status ?? {};
    const current = cpuUtilization(currentMetrics, "current");
    return {
      ...object,
      spec: { ...rest, ...(cpu === undefined ? {} : { targetCPUUtilizationPercentage: cpu }) },
      ...(status
        ? { status: { ...statusRest, ...(current === undefined ? {} : { currentCPUUtilizationPercentage: current }) } }
        : {}),
    };
  },
  toStorage(object) {
    const { targetCPUUtilizationPercentage: cpu, ...spec } = (object["spec"] ?? {}) as Fields;
    const target = {
      type: "Resource",
      resource: { name: "cpu", target: { type: "Utilization", averageUtilization: cpu } },
    };
    return { ...object, spec: { ...spec, ...(cpu === undefined ? {} : { metrics: [target] }) } };
  },
};

function cpuUtilization(metrics: unknown, side: "target" | "current"): unknown {
  if (!Array.isArray(metrics)) return undefined;
  for (const metric of metrics as {
    resource?: { name?: string } & Record<string, { averageUtilization?: number }>;
  }[]) {
    if (metric.resource?.name === "cpu") return metric.resource[side]?.averageUtilization;
  }
  return undefined;
}

/** By `served group/version Kind`. */
const conversions: Readonly<Record<string, Conversion>> = {
  "events.k8s.io/v1 Event": events,
  "autoscaling/v1 HorizontalPodAutoscaler": autoscaling,
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
