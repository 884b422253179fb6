// Protobuf for whatever kind an answer is: which message of the facts table an apiVersion and kind stand for. Upstream
// counterpart: the scheme behind the protobuf serializer.
import type { UnknownObject } from "#model/object.ts";
import { encodeProtobuf, hasProtobuf } from "#model/protobuf.ts";
import { groupVersion } from "#model/resource-info.ts";
import { allResources } from "#model/resources.ts";

export interface ProtobufFormat {
  has(apiVersion: string, kind: string): boolean;
  /** With the envelope; undefined for kinds without a message. */
  encode(object: UnknownObject): Uint8Array | undefined;
}

/** Kinds of the machinery, which every version serves. */
const metaKinds = new Set(["Status", "APIVersions", "APIGroup", "APIGroupList", "APIResourceList"]);

export function createProtobufFormat(): ProtobufFormat {
  const folders = new Map([["meta.k8s.io/v1", "meta/v1"]]);
  for (const info of allResources) folders.set(groupVersion(info), info.type.slice(0, info.type.indexOf(".")));
  const typeOf = (apiVersion: string, kind: string): string => {
    // /api itself is of no version.
    const isMeta = metaKinds.has(kind) && (apiVersion === "v1" || apiVersion === "");
    const folder = isMeta ? "meta/v1" : folders.get(apiVersion);
    const type = folder === undefined ? "" : `${folder}.${kind}`;
    return hasProtobuf(type) ? type : "";
  };
  return {
    has: (apiVersion, kind) => typeOf(apiVersion, kind) !== "",
    encode(object) {
      const type = typeOf(object.apiVersion ?? "", object.kind ?? "");
      return type === "" ? undefined : encodeProtobuf(object, type);
    },
  };
}
