// The custom resources that are served now: made anew whenever a definition changes in what matters, and looked up by
// routing, discovery, OpenAPI, tables and field tracking. What a request has found stays as it was until it ends.
// Upstream counterpart: apiextensions customresource_handler.go.
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { compileSchemaRules } from "#model/cel/schema-rules.ts";
import {
  type CustomResourceDefinition,
  type DefinitionVersion,
  hasCondition,
  type JsonSchema,
  resourcesOf,
  rowOf,
  storageVersionOf,
} from "#model/custom-resources.ts";
import type { UnknownObject } from "#model/object.ts";
import { equalJson } from "#model/patch/json-value.ts";
import { groupVersion, qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import type { Normalize } from "../endpoints/bodies.ts";
import type { ConvertVersion } from "../endpoints/field-tracking.ts";
import type { ServedResource } from "../endpoints/served.ts";
import type { Column } from "../printers/columns.ts";
import type { Resource } from "../registry/registry.ts";
import type { StorageDeps } from "../registry/storage.ts";
import { columnsOfVersion } from "./columns.ts";
import { type ConversionDeps, type Converter, createConverter } from "./conversion.ts";
import { createInstanceStrategy } from "./instance-strategy.ts";
import { customScale } from "./scale.ts";
import { CustomStorage } from "./storage.ts";
import { SchemaValidator } from "./validation.ts";
import { applySchemaDefaults, coerceEmbedded, dropUnwantedNulls, hasEmbedded, prune } from "./values.ts";

export interface CustomResourceTableDeps extends StorageDeps, ConversionDeps {
  readonly log: Logger;
  /** Resources by qualified name, where strategies and plugins look. */
  readonly resources: Map<string, Resource>;
}

/** One served version of one definition. */
export interface CustomVersion {
  /** As discovery shows it. */
  readonly row: ResourceInfo;
  readonly served: ServedResource;
  readonly schema: JsonSchema;
  /** To say with every request; empty where there is nothing to say. */
  readonly warning: string;
}

interface Kind {
  /** The newest that is served as this one. */
  definition: CustomResourceDefinition;
  readonly versions: ReadonlyMap<string, CustomVersion>;
  /** By which all instances are found, also where no version is served. */
  readonly stored: Resource;
  readonly converter: Converter;
  readonly watches: Set<() => void>;
  isRetired: boolean;
}

interface Facts {
  readonly normalize: Normalize;
  readonly schema: JsonSchema;
  readonly columns: readonly Column[];
  readonly convert: ConvertVersion | undefined;
}

export class CustomResourceTable {
  readonly #deps: CustomResourceTableDeps;
  /** By definition, whether served or not. */
  readonly #definitions = new Map<string, CustomResourceDefinition>();
  /** By `plural.group`, which is the definition's name. */
  readonly #kinds = new Map<string, Kind>();
  /** By row, for as long as somebody holds it. */
  readonly #facts = new WeakMap<ResourceInfo, Facts>();
  #groupVersions: ReadonlySet<string> = new Set();
  #generation = 0;

  constructor(deps: CustomResourceTableDeps) {
    this.#deps = deps;
  }

  /** Grows with every change of what is served. */
  get generation(): number {
    return this.#generation;
  }

  get definitions(): ReadonlyMap<string, CustomResourceDefinition> {
    return this.#definitions;
  }

  apply(definition: CustomResourceDefinition): void {
    const name = definition.metadata.name ?? "";
    this.#definitions.set(name, definition);
    const old = this.#kinds.get(name);
    if (!hasCondition(definition, "Established")) {
      if (old) this.#retire(name, old);
      return;
    }
    if (old && isServedAlike(old.definition, definition)) {
      old.definition = definition;
      return;
    }
    let made: Kind;
    try {
      made = this.#make(definition);
    } catch (error) {
      // Written past validation, by another server or by hand: it cannot be served, and others can.
      this.#deps.log.warn("a custom resource definition cannot be served", { name, error: messageOf(error) });
      return;
    }
    if (old) this.#retire(name, old);
    this.#kinds.set(name, made);
    const { resources } = this.#deps;
    const qualified = qualifiedResource(made.stored.info);
    // A definition may have the name of a built-in resource; that one is served.
    if (!resources.has(qualified)) resources.set(qualified, made.stored);
    this.#changed();
  }

  remove(name: string): void {
    this.#definitions.delete(name);
    const old = this.#kinds.get(name);
    if (old) this.#retire(name, old);
  }

  find(group: string, version: string, plural: string): CustomVersion | undefined {
    return this.#kinds.get(`${plural}.${group}`)?.versions.get(version);
  }

  /** No more are to be made. */
  isTerminating(group: string, plural: string): boolean {
    const definition = this.#kinds.get(`${plural}.${group}`)?.definition;
    return definition !== undefined && hasCondition(definition, "Terminating");
  }

  serves(group: string, version: string): boolean {
    return this.#groupVersions.has(`${group}/${version}`);
  }

  /** Served versions, for discovery and OpenAPI. */
  versions(): CustomVersion[] {
    return [...this.#kinds.values()].flatMap((kind) => [...kind.versions.values()]);
  }

  /** All instances of a definition; undefined: it was never served. */
  stored(name: string): Resource | undefined {
    return this.#kinds.get(name)?.stored;
  }

  normalizeOf(info: ResourceInfo): Normalize | undefined {
    return this.#facts.get(info)?.normalize;
  }
  schemaOf(info: ResourceInfo): JsonSchema | undefined {
    return this.#facts.get(info)?.schema;
  }
  columnsOf(info: ResourceInfo): readonly Column[] | undefined {
    return this.#facts.get(info)?.columns;
  }
  versionOf(info: ResourceInfo, apiVersion: string): ResourceInfo | undefined {
    if (!apiVersion.startsWith(`${info.group}/`)) return undefined;
    const version = apiVersion.slice(info.group.length + 1);
    return this.#kinds.get(qualifiedResource(info))?.versions.get(version)?.served.info;
  }

  /** Undefined: its versions differ in their name only. */
  converterOf(info: ResourceInfo): ConvertVersion | undefined {
    return this.#facts.get(info)?.convert;
  }

  close(): void {
    for (const [name, kind] of [...this.#kinds]) this.#retire(name, kind);
  }

  #retire(name: string, kind: Kind): void {
    this.#kinds.delete(name);
    const { resources } = this.#deps;
    const qualified = qualifiedResource(kind.stored.info);
    if (resources.get(qualified) === kind.stored) resources.delete(qualified);
    kind.isRetired = true;
    for (const end of [...kind.watches]) end();
    kind.watches.clear();
    kind.converter.close();
    this.#changed();
  }

  #changed(): void {
    this.#generation++;
    this.#groupVersions = new Set(this.versions().map(({ row }) => groupVersion(row)));
  }

  #make(definition: CustomResourceDefinition): Kind {
    const converter = createConverter(definition, this.#deps);
    const stored = storageVersionOf(definition);
    if (!stored) throw new Error("no storage version");
    const repairs = new Map(
      definition.spec.versions.map((version) => [`${definition.spec.group}/${version.name}`, repairOf(version)]),
    );
    const repair = (object: UnknownObject): boolean => repairs.get(object.apiVersion ?? "")?.(object) ?? false;
    const storageVersion = `${definition.spec.group}/${stored.name}`;
    const watches = new Set<() => void>();
    const versions = new Map<string, CustomVersion>();
    let kind: Kind | undefined;
    const resourceOf = (version: DefinitionVersion): Resource => {
      const row = rowOf(definition, version);
      // Its storage shows every object in this version: for what stands above, it is the one that is stored.
      const info: ResourceInfo = { ...row, storageVersion: groupVersion(row) };
      const schema = version.schema?.openAPIV3Schema ?? { "x-kubernetes-preserve-unknown-fields": true };
      const validator = new SchemaValidator(schema);
      this.#facts.set(info, {
        normalize: normalizeBy(schema),
        schema,
        columns: columnsOfVersion(version),
        convert:
          definition.spec.conversion?.strategy === "Webhook"
            ? async (object, apiVersion) => (await converter.convert([object], apiVersion))[0]!
            : undefined,
      });
      return {
        info,
        about: { group: row.group, resource: row.plural },
        storage: new CustomStorage(info, { ...this.#deps, converter, storageVersion, repair }),
        strategy: createInstanceStrategy({ version, validator, rules: once(() => compileSchemaRules(schema)) }),
      };
    };
    const rows = resourcesOf(definition);
    let home: Resource | undefined;
    for (const version of definition.spec.versions) {
      const row = rows.find((candidate) => candidate.version === version.name);
      if (!row && !version.storage) continue;
      const resource = resourceOf(version);
      if (version.storage) home = resource;
      if (!row) continue;
      const { scale } = version.subresources ?? {};
      const storage = resource.storage as CustomStorage;
      versions.set(version.name, {
        row,
        schema: version.schema?.openAPIV3Schema ?? {},
        warning: version.deprecated
          ? (version.deprecationWarning ?? `${groupVersion(row)} ${row.kind} is deprecated`)
          : "",
        served: {
          info: resource.info,
          resource,
          custom: {
            subresources: scale ? { scale: customScale(scale) } : {},
            selectable: (version.selectableFields ?? []).map(({ jsonPath }) => jsonPath.slice(1)),
            live: {
              present: (change) => storage.present(change),
              onRetired(end) {
                if (kind?.isRetired) end();
                else watches.add(end);
                return () => void watches.delete(end);
              },
            },
          },
        },
      });
    }
    kind = { definition, versions, stored: home!, converter, watches, isRetired: false };
    return kind;
  }
}

/** Made when it is first needed: most definitions of a cluster are written to rarely. */
function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

/** What makes a definition be served differently. */
function isServedAlike(a: CustomResourceDefinition, b: CustomResourceDefinition): boolean {
  return (
    a.metadata.uid === b.metadata.uid &&
    equalJson(a.spec, b.spec) &&
    equalJson(a.status?.acceptedNames, b.status?.acceptedNames)
  );
}

function normalizeBy(schema: JsonSchema): Normalize {
  const embeds = hasEmbedded(schema);
  return (object, report) => {
    if (embeds) coerceEmbedded(object, schema, report);
    prune(object, schema, report && ((path) => report(`unknown field ${JSON.stringify(path)}`)));
    applySchemaDefaults(object, schema);
    dropUnwantedNulls(object, schema);
  };
}

/** The same for what is stored, where nothing can be refused any more. */
function repairOf(version: DefinitionVersion): (object: UnknownObject) => boolean {
  const schema = version.schema?.openAPIV3Schema;
  if (!schema) return () => false;
  const embeds = hasEmbedded(schema);
  return (object) => {
    let changed = embeds && coerceEmbedded(object, schema, undefined, true);
    if (prune(object, schema)) changed = true;
    if (applySchemaDefaults(object, schema)) changed = true;
    if (dropUnwantedNulls(object, schema)) changed = true;
    return changed;
  };
}
