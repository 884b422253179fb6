// Bodies as objects: the format they are in, strictness as the client asked for it, then defaults. Upstream
// counterpart: the negotiated decoder and field validation of endpoints/handlers.
import { decodeObject } from "#model/decode.ts";
import { applyDefaults } from "#model/defaults.ts";
import type { UnknownObject } from "#model/object.ts";
import { hasProtobuf } from "#model/protobuf.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { fieldNotSupported, invalid, unsupportedMediaType } from "#model/status.ts";
import { bodyFormat, type Format, type Formats } from "./negotiation.ts";
import type { HandlerRequest } from "./result.ts";
import { addZeroValues } from "./zero-values.ts";

export interface Bodies {
  /** The object of a POST or PUT, with defaults; ours to change. */
  read(request: HandlerRequest, info: ResourceInfo): Promise<UnknownObject>;
  /** What a patch made, through the same gate. */
  redecode(request: HandlerRequest, info: ResourceInfo, object: UnknownObject): UnknownObject;
  /** The options of a DELETE; empty where there is no body. */
  deleteOptions(request: HandlerRequest): Promise<object>;
}

type FieldValidation = "Strict" | "Warn" | "Ignore";
const utf8 = new TextEncoder();

/** Makes objects of a kind without facts what its schema wants. Undefined: nothing to do. */
export type Normalize = (object: UnknownObject, report: ((text: string) => void) | undefined) => void;

export function createBodies(formats: Formats, normalizeOf?: (info: ResourceInfo) => Normalize | undefined): Bodies {
  const decode = (
    request: HandlerRequest,
    info: ResourceInfo,
    bytes: Uint8Array,
    contentType: Format,
  ): UnknownObject => {
    const fieldValidation = fieldValidationOf(request);
    if (contentType === "protobuf" && !hasProtobuf(info.type)) throw unsupportedMediaType(jsonOnly);
    const normalize = info.type === "" ? normalizeOf?.(info) : undefined;
    const { object, warnings } = decodeObject(bytes, info, { contentType, fieldValidation, normalize });
    for (const warning of warnings) request.warn(warning);
    object.metadata ??= {};
    addZeroValues(object, info.type);
    applyDefaults(info, object);
    return object;
  };
  return {
    async read(request, info) {
      const format = bodyFormat(request.header("content-type"), formats);
      const bytes = await request.body();
      const object = decode(request, info, bytes, format);
      request.audit?.requestObject(object);
      return object;
    },
    redecode: (request, info, object) => decode(request, info, utf8.encode(JSON.stringify(object)), "json"),
    async deleteOptions(request) {
      const bytes = await request.body();
      if (bytes.length === 0) return {};
      const format = bodyFormat(request.header("content-type"), formats);
      const { object } = decodeObject(bytes, deleteOptionsShape, { contentType: format, fieldValidation: "Ignore" });
      request.audit?.requestObject(object);
      const { kind: _kind, apiVersion: _apiVersion, metadata: _metadata, ...options } = object;
      return options;
    },
  };
}

const jsonOnly =
  "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml";

/** Registered in every group: decodeObject takes any apiVersion for it. */
const deleteOptionsShape = { group: "", version: "v1", kind: "DeleteOptions", type: "meta/v1.DeleteOptions" };

export function fieldValidationOf(request: HandlerRequest): FieldValidation {
  const value = request.query.get("fieldValidation") ?? "";
  if (value === "") return "Warn";
  if (value === "Strict" || value === "Warn" || value === "Ignore") return value;
  throw invalid("meta.k8s.io", "CreateOptions", "", [
    fieldNotSupported("fieldValidation", value, ["", "Ignore", "Strict", "Warn"]),
  ]);
}
