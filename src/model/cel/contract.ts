// What the engine promises to those who call it: rules of schemas (custom resources) and single expressions (policies).
// Invariant: nothing here throws for what a user wrote; a bad expression is an issue, a failed evaluation is an error value.
// Upstream counterpart: apiextensions schema/cel.Validator and apiserver/pkg/cel.
import type { FieldError } from "../status.ts";

/** What is left to spend on one object, in upstream's units of cost. Shared by all rules that see the object. */
export interface Budget {
  remaining: number;
}

/** The compiled rules of one schema; keeps no state between calls. */
export interface SchemaRules {
  /**
   * What the rules say of `value`, and of its change from `old` (undefined on create). Errors carry upstream's texts.
   * Call it only where the schema itself found nothing wrong, with defaults applied; `path` is "" for whole objects.
   */
  validate(value: unknown, old: unknown, options?: { path?: string; budget?: Budget }): FieldError[];
}

/** Of `checkSchemaRules(schema: JsonSchema, path: string): FieldError[]`. */
export type CheckSchemaRules = (schema: import("../custom-resources.ts").JsonSchema, path: string) => FieldError[];
/** Of `compileSchemaRules(schema: JsonSchema): SchemaRules | undefined`. */
export type CompileSchemaRules = (schema: import("../custom-resources.ts").JsonSchema) => SchemaRules | undefined;
