// The OpenAPI documents of custom resources: one of v3 per group version, made when it is asked for, and what is added to
// the v2 document. Their hashes are over what they are made of, so that the index costs nothing to make.
// Upstream counterpart: apiextensions controller/openapi{,v3} and its builder.
import { Buffer } from "node:buffer";
import type { JsonSchema } from "#model/custom-resources.ts";
import { buildCustomOpenApi, type CustomKind, type Dialect, type Json } from "#model/openapi.ts";
import { isObject } from "#model/patch/json-value.ts";
import { groupVersion } from "#model/resource-info.ts";
import { addToV2, hashOf } from "../openapi/addition.ts";
import type { DynamicOpenApi, OpenApiAssets } from "../openapi/serve.ts";
import { versionInfo } from "../version.ts";
import { isKnownFormat } from "./formats.ts";
import type { CustomResourceTable, CustomVersion } from "./table.ts";

/** Documents kept: clients ask for all of them in one go after a change, and for none afterwards. */
const maxKept = 8;
/** A document of the build that holds the descriptions of metadata. */
const describedBy = "v3/apis/apiextensions.k8s.io/v1.json";

export function createCustomOpenApi(table: CustomResourceTable, assets: OpenApiAssets | undefined): DynamicOpenApi {
  let known: { generation: number; hashes: ReadonlyMap<string, string>; all: string } | undefined;
  const kept = new Map<string, { readonly hash: string; readonly bytes: Uint8Array }>();
  /** Schemas are large and stay what they are: each is looked at once. */
  const hashesOfVersions = new WeakMap<CustomVersion, string>();
  const hashOfVersion = (version: CustomVersion): string => {
    let hash = hashesOfVersions.get(version);
    if (hash === undefined) {
      hash = hashOf(JSON.stringify([version.row, version.schema]));
      hashesOfVersions.set(version, hash);
    }
    return hash;
  };
  const current = () => {
    if (known?.generation !== table.generation) {
      const inputs = new Map<string, string[]>();
      for (const version of table.versions()) {
        const path = `apis/${groupVersion(version.row)}`;
        inputs.set(path, [...(inputs.get(path) ?? []), hashOfVersion(version)]);
      }
      const hashes = new Map([...inputs].map(([path, texts]) => [path, hashOf(texts.sort().join("\n"))]));
      known = { generation: table.generation, hashes, all: hashOf([...hashes].sort().join("\n")) };
    }
    return known;
  };
  const make = (path: string): Uint8Array => {
    const kinds = table.versions().filter(({ row }) => `apis/${groupVersion(row)}` === path);
    const { paths, schemas } = buildCustomOpenApi(kinds.map(kindOf), "v3", () => "");
    const document = {
      openapi: "3.0.0",
      info: { title: "Kubernetes CRD Swagger", version: versionInfo().gitVersion },
      paths,
      components: { schemas: { ...schemas, ...describedSchemas(assets, schemas) } },
    };
    return Buffer.from(JSON.stringify(document));
  };
  return {
    hashes: () => current().hashes,
    read(path) {
      const hash = current().hashes.get(path);
      if (hash === undefined) return undefined;
      let entry = kept.get(path);
      if (entry?.hash !== hash) {
        entry = { hash, bytes: make(path) };
        if (kept.size >= maxKept) kept.delete(kept.keys().next().value!);
        kept.set(path, entry);
      }
      return entry.bytes;
    },
    v2(form, built) {
      const { hashes, all } = current();
      const base = assets?.hashes.get(form);
      if (hashes.size === 0 || base === undefined) return undefined;
      return {
        hash: hashOf(all + base),
        read() {
          const bytes = built();
          if (!bytes) return undefined;
          const { paths, schemas } = buildCustomOpenApi(table.versions().map(kindOf), "v2", () => "");
          const own = Object.entries(schemas).filter(([name]) => !name.startsWith("io.k8s.api"));
          return addToV2(form, bytes, { paths, definitions: Object.fromEntries(own) });
        },
      };
    },
  };
}

function describedSchemas(assets: OpenApiAssets | undefined, wanted: Json): Json {
  const bytes = assets?.hashes.has(describedBy) ? assets.read(describedBy) : undefined;
  if (!bytes) return {};
  const document = JSON.parse(Buffer.from(bytes).toString("utf8")) as { components: { schemas: Json } };
  const { schemas } = document.components;
  return Object.fromEntries(
    Object.keys(wanted)
      .filter((name) => Object.hasOwn(schemas, name) && !name.endsWith("DeleteOptions"))
      .map((name) => [name, schemas[name]]),
  );
}

const preserving = "x-kubernetes-preserve-unknown-fields";

const aboutVersion =
  "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const aboutKind =
  "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const aboutMetadata =
  "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

const kindOf = (version: CustomVersion): CustomKind => ({
  info: version.row,
  schema: (dialect, reference) =>
    // To clients that check by v2, properties that are said are the only ones there may be: so none are.
    dialect === "v2" && version.schema[preserving] === true
      ? { type: "object" }
      : schemaOf(version.schema, dialect, reference, true),
});

/** What v2 cannot say is left out: clients that check by it must let pass what v3 would not. */
const onlyInV3: ReadonlySet<string> = new Set(["nullable", "allOf", "anyOf", "oneOf", "not"]);

function schemaOf(schema: JsonSchema, dialect: Dialect, reference: (type: string) => Json, isRoot = false): Json {
  const out: Json = {};
  for (const [name, value] of Object.entries(schema)) {
    if (value === undefined || (dialect === "v2" && onlyInV3.has(name))) continue;
    if (name === "format" && !isKnownFormat(String(value))) continue;
    out[name] = value;
  }
  const convert = (part: JsonSchema): Json => schemaOf(part, dialect, reference);
  const each = (parts: readonly JsonSchema[]): Json[] => parts.map(convert);
  for (const name of ["allOf", "anyOf", "oneOf"] as const)
    if (out[name] && schema[name]) out[name] = each(schema[name]);
  if (out["not"] && schema.not) out["not"] = convert(schema.not);
  if (schema.items) out["items"] = convert(schema.items);
  if (isObject(schema.additionalProperties))
    out["additionalProperties"] = convert(schema.additionalProperties as JsonSchema);
  if (schema.properties) {
    out["properties"] = Object.fromEntries(
      Object.entries(schema.properties).map(([name, property]) => [name, convert(property)]),
    );
  }
  if (dialect === "v2") {
    const isNullable = (name: string) => schema.properties?.[name]?.nullable === true;
    if (schema.required?.some(isNullable)) {
      const required = schema.required.filter((name) => !isNullable(name));
      if (required.length > 0) out["required"] = required;
      else delete out["required"];
    }
    if (schema.nullable === true || schema[preserving] === true) {
      for (const name of ["type", "items", "properties", "additionalProperties"]) delete out[name];
    }
  }
  if (dialect === "v3" && schema["x-kubernetes-int-or-string"] === true && !schema.anyOf && !schema.allOf) {
    out["anyOf"] = [{ type: "integer" }, { type: "string" }];
  }
  const isOpen = dialect === "v2" && schema[preserving] === true;
  if (isRoot || (schema["x-kubernetes-embedded-resource"] === true && !isOpen)) {
    const metadata = reference("meta/v1.ObjectMeta");
    out["properties"] = {
      ...(out["properties"] as Json | undefined),
      apiVersion: { description: aboutVersion, type: "string" },
      kind: { description: aboutKind, type: "string" },
      metadata:
        dialect === "v3"
          ? { description: aboutMetadata, allOf: [metadata] }
          : { description: aboutMetadata, ...metadata },
    };
    if (isRoot) out["type"] = "object";
  }
  return out;
}
