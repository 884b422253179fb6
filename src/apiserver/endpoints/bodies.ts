// Bodies as objects: the format they are in, strictness as the client asked for it, then defaults. Upstream
// counterpart: the negotiated decoder and field validation of endpoints/handlers.
import { messageOf } from "#base/errors.ts";
import { decodeObject } from "#model/decode.ts";
import { applyDefaults } from "#model/defaults.ts";
import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { badRequest, fieldNotSupported, invalid } from "#model/status.ts";
import { parseYaml } from "#wire/yaml.ts";
import { bodyFormat } from "./negotiation.ts";
import type { HandlerRequest } from "./result.ts";

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

export function createBodies(): Bodies {
  const decode = (request: HandlerRequest, info: ResourceInfo, bytes: Uint8Array): UnknownObject => {
    const fieldValidation = fieldValidationOf(request);
    const { object, warnings } = decodeObject(bytes, info, { fieldValidation });
    for (const warning of warnings) request.warn(warning);
    const unknown = object as UnknownObject;
    unknown.metadata ??= {};
    applyDefaults(info, unknown);
    return unknown;
  };
  return {
    async read(request, info) {
      const format = bodyFormat(request.header("content-type"));
      const bytes = await request.body();
      if (bytes.length === 0) throw badRequest("the request body is empty");
      return decode(request, info, format === "yaml" ? yamlToJson(bytes) : bytes);
    },
    redecode: (request, info, object) => decode(request, info, utf8.encode(JSON.stringify(object))),
    async deleteOptions(request) {
      const bytes = await request.body();
      if (bytes.length === 0) return {};
      const format = bodyFormat(request.header("content-type"));
      const text = new TextDecoder().decode(format === "yaml" ? yamlToJson(bytes) : bytes);
      let options: unknown;
      try {
        options = JSON.parse(text);
      } catch (error) {
        throw badRequest(`couldn't get version/kind; json parse error: ${messageOf(error)}`);
      }
      if (typeof options !== "object" || options === null || Array.isArray(options)) {
        throw badRequest("couldn't get version/kind; json parse error: not an object");
      }
      const { kind, apiVersion: _apiVersion, ...rest } = options as { kind?: unknown; apiVersion?: unknown };
      if (kind !== undefined && kind !== "DeleteOptions")
        throw badRequest(`decoded object cannot be converted to DeleteOptions`);
      return rest;
    },
  };
}

function yamlToJson(bytes: Uint8Array): Uint8Array {
  try {
    return utf8.encode(JSON.stringify(parseYaml(new TextDecoder("utf-8", { fatal: true }).decode(bytes))));
  } catch (error) {
    throw badRequest(`error converting YAML to JSON: ${messageOf(error)}`);
  }
}

function fieldValidationOf(request: HandlerRequest): FieldValidation {
  const value = request.query.get("fieldValidation") ?? "";
  if (value === "") return "Warn";
  if (value === "Strict" || value === "Warn" || value === "Ignore") return value;
  throw invalid("meta.k8s.io", "CreateOptions", "", [
    fieldNotSupported("fieldValidation", value, ["", "Ignore", "Strict", "Warn"]),
  ]);
}
