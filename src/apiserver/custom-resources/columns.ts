// The columns that `kubectl get` shows of a custom resource: its name and what additionalPrinterColumns say, or its
// age. Upstream counterpart: apiextensions registry/customresource/tableconvertor.
import type { DefinitionVersion, PrinterColumn } from "#model/custom-resources.ts";
import { isObject } from "#model/patch/json-value.ts";
import type { Column } from "../printers/columns.ts";
import { humanDuration } from "../printers/human-duration.ts";
import { compileJsonPath } from "./json-path.ts";

type Cell = string | number | boolean | null;

const nameColumn: Column = {
  name: "Name",
  type: "string",
  format: "name",
  description: "Name must be unique within a namespace.",
  priority: 0,
  value: (object) => object.metadata.name ?? "",
};
const age: PrinterColumn = {
  name: "Age",
  type: "date",
  description: "When the object was created.",
  jsonPath: ".metadata.creationTimestamp",
};

export function columnsOfVersion(version: DefinitionVersion): readonly Column[] {
  const columns = version.additionalPrinterColumns ?? [];
  return [nameColumn, ...(columns.length > 0 ? columns : [age]).map(column)];
}

function column(definition: PrinterColumn): Column {
  const path = compileJsonPath(definition.jsonPath);
  return {
    name: definition.name,
    type: definition.type as Column["type"],
    format: definition.format ?? "",
    description:
      definition.description ?? `Custom resource definition column (in JSONPath format): ${definition.jsonPath}`,
    priority: definition.priority ?? 0,
    value(object, nowMs) {
      const [value] = path.find(object);
      return value === undefined || value === null ? null : cellOf(definition.type, value, nowMs);
    },
  };
}

function cellOf(type: string, value: unknown, nowMs: number): Cell {
  switch (type) {
    case "integer":
      return typeof value === "number" ? Math.trunc(value) : null;
    case "number":
      return typeof value === "number" ? value : null;
    case "boolean":
      return typeof value === "boolean" ? value : null;
    case "date": {
      if (typeof value !== "string") return null;
      const ms = Date.parse(value);
      return Number.isNaN(ms) ? "<invalid>" : humanDuration(nowMs - ms);
    }
    default:
      return isObject(value) || Array.isArray(value) ? JSON.stringify(value) : String(value);
  }
}
