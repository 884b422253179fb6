// The scale subresource of a custom resource, by the paths that its definition names.
// Upstream counterpart: apiextensions registry/customresource ScaleREST.
import type { ScalePaths } from "#model/custom-resources.ts";
import type { ApiObject, UnknownObject } from "#model/object.ts";
import { copyOf, isObject, type JsonObject, set } from "#model/patch/json-value.ts";
import { type FieldError, internalError } from "#model/status.ts";
import { type PlainSubresource, scaleInfo, withRevisionOf } from "../endpoints/subresources.ts";
import { invalidValue } from "./go-text.ts";
import { compileJsonPath } from "./json-path.ts";

const namesOf = (path: string): readonly string[] => compileJsonPath(path).names ?? [];

function valueAt(object: unknown, names: readonly string[]): unknown {
  let value = object;
  for (const name of names) {
    if (!isObject(value) || !Object.hasOwn(value, name)) return undefined;
    value = value[name];
  }
  return value;
}

/** A copy of `object` with `value` at the path; objects on the way are made. */
function withValue(object: JsonObject, names: readonly string[], value: unknown): JsonObject {
  const [name = "", ...rest] = names;
  const copy = copyOf(object);
  const inner = Object.hasOwn(copy, name) && isObject(copy[name]) ? copy[name] : {};
  set(copy, name, rest.length === 0 ? value : withValue(inner, rest, value));
  return copy;
}

export function customScale(paths: ScalePaths): PlainSubresource {
  const spec = namesOf(paths.specReplicasPath);
  const status = namesOf(paths.statusReplicasPath);
  const selector = paths.labelSelectorPath ? namesOf(paths.labelSelectorPath) : undefined;
  return {
    shape: scaleInfo,
    replicas: spec,
    show(parent) {
      const { name, namespace, uid, resourceVersion, creationTimestamp } = parent.metadata;
      const replicas = valueAt(parent, spec);
      if (typeof replicas !== "number") {
        throw internalError(`the spec replicas field ${JSON.stringify(paths.specReplicasPath)} does not exist`);
      }
      const current = valueAt(parent, status);
      const text = selector && valueAt(parent, selector);
      return {
        kind: "Scale",
        apiVersion: "autoscaling/v1",
        metadata: { name, namespace, uid, resourceVersion, creationTimestamp } as UnknownObject["metadata"],
        spec: replicas === 0 ? {} : { replicas },
        status: {
          replicas: typeof current === "number" ? current : 0,
          ...(typeof text === "string" && text !== "" ? { selector: text } : {}),
        },
      };
    },
    merge(parent, incoming) {
      const wanted = valueAt(incoming, ["spec", "replicas"]) ?? 0;
      const next = withValue(parent, spec, wanted) as UnknownObject;
      return { ...next, metadata: withRevisionOf(parent, incoming) };
    },
  };
}

/** What the scale paths of an object may hold. */
export function checkScaleValues(paths: ScalePaths, object: ApiObject): FieldError[] {
  const errors: FieldError[] = [];
  for (const path of [paths.specReplicasPath, paths.statusReplicasPath]) {
    const value = valueAt(object, namesOf(path));
    if (value === undefined) continue;
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
      errors.push(invalidValue(path.slice(1), value, "should be a non-negative integer"));
    } else if (value > 2 ** 31 - 1) {
      errors.push(invalidValue(path.slice(1), value, "should be less than or equal to 2147483647"));
    }
  }
  return errors;
}
