// Subresources that show and change a part of their parent: status, scale, and their like. Each says what it shows and
// how what came in is joined with the current object; reading, patching and writing are those of the parent.
import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { formatSelector } from "./selector-text.ts";

export interface PlainSubresource {
  /** Its own kind, where it is not the parent's. */
  readonly shape: ResourceInfo | undefined;
  /** Of a Scale: the names on the way to the parent's replicas, where those are not spec.replicas. */
  readonly replicas?: readonly string[];
  show(parent: UnknownObject): UnknownObject;
  /** A new parent; neither argument may be changed. */
  merge(parent: UnknownObject, incoming: UnknownObject): UnknownObject;
}

type Fields = Record<string, unknown>;
const fieldsOf = (value: unknown): Fields => (typeof value === "object" && value !== null ? (value as Fields) : {});

export const scaleInfo: ResourceInfo = {
  group: "autoscaling",
  version: "v1",
  kind: "Scale",
  plural: "scales",
  singular: "scale",
  shortNames: [],
  categories: [],
  namespaced: true,
  verbs: [],
  subresources: {},
  storageVersion: "autoscaling/v1",
  storageGroup: "autoscaling",
  type: "autoscaling/v1.Scale",
};

/** Takes the named spec fields of what came in; the rest of the parent stays. */
const specFields = (...names: string[]): PlainSubresource => ({
  shape: undefined,
  show: (parent) => parent,
  merge(parent, incoming) {
    const spec = { ...fieldsOf(parent["spec"]) };
    const from = fieldsOf(incoming["spec"]);
    for (const name of names) {
      if (from[name] === undefined) delete spec[name];
      else spec[name] = from[name];
    }
    return { ...parent, spec, metadata: withRevisionOf(parent, incoming) };
  },
});

const scale: PlainSubresource = {
  shape: scaleInfo,
  show(parent) {
    const { name, namespace, uid, resourceVersion, creationTimestamp } = parent.metadata;
    const spec = fieldsOf(parent["spec"]);
    const status = fieldsOf(parent["status"]);
    const selector = formatSelector(spec["selector"]);
    const replicas = typeof status["replicas"] === "number" ? status["replicas"] : 0;
    return {
      kind: "Scale",
      apiVersion: "autoscaling/v1",
      metadata: { name, namespace, uid, resourceVersion, creationTimestamp } as UnknownObject["metadata"],
      spec: typeof spec["replicas"] === "number" && spec["replicas"] > 0 ? { replicas: spec["replicas"] } : {},
      status: { replicas, ...(selector === "" ? {} : { selector }) },
    };
  },
  merge(parent, incoming) {
    const replicas = fieldsOf(incoming["spec"])["replicas"] ?? 0;
    return {
      ...parent,
      spec: { ...fieldsOf(parent["spec"]), replicas },
      metadata: withRevisionOf(parent, incoming),
    };
  },
};

export const plainSubresources: Readonly<Record<string, PlainSubresource>> = {
  // The registry keeps everything but status and some metadata.
  status: { shape: undefined, show: (parent) => parent, merge: (_parent, incoming) => incoming },
  approval: {
    shape: undefined,
    show: (parent) => parent,
    // Metadata too: whoever approves may note why.
    merge: (parent, incoming) => ({
      ...parent,
      metadata: incoming.metadata,
      status: { ...fieldsOf(parent["status"]), conditions: fieldsOf(incoming["status"])["conditions"] },
    }),
  },
  scale,
  finalize: specFields("finalizers"),
  ephemeralcontainers: specFields("ephemeralContainers"),
  resize: {
    shape: undefined,
    show: (parent) => parent,
    merge(parent, incoming) {
      const spec = fieldsOf(parent["spec"]);
      const wanted = new Map(containersOf(incoming["spec"]).map((c) => [c["name"], c]));
      const containers = containersOf(spec).map((container) => {
        const from = wanted.get(container["name"]);
        if (!from) return container;
        const { resources: _resources, resizePolicy: _policy, ...rest } = container;
        return {
          ...rest,
          ...(from["resources"] === undefined ? {} : { resources: from["resources"] }),
          ...(from["resizePolicy"] === undefined ? {} : { resizePolicy: from["resizePolicy"] }),
        };
      });
      return { ...parent, spec: { ...spec, containers }, metadata: withRevisionOf(parent, incoming) };
    },
  },
};

const containersOf = (spec: unknown): Fields[] => (fieldsOf(spec)["containers"] as Fields[] | undefined) ?? [];

/** The parent's metadata with the revision and uid the client holds it to be at. */
export function withRevisionOf(parent: UnknownObject, incoming: UnknownObject): UnknownObject["metadata"] {
  const { resourceVersion, uid } = incoming.metadata;
  const metadata = { ...parent.metadata };
  if (uid !== undefined && uid !== "") metadata.uid = uid;
  if (resourceVersion !== undefined && resourceVersion !== "") metadata.resourceVersion = resourceVersion;
  else delete metadata.resourceVersion;
  return metadata;
}
