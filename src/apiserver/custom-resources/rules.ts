// Validation rules of a schema (x-kubernetes-validations).
import type { JsonSchema } from "#model/custom-resources.ts";
import type { JsonObject } from "#model/patch/json-value.ts";
import type { FieldError } from "#model/status.ts";

export function checkRules(_schema: JsonSchema, _path: string): FieldError[] {
  return [];
}

export class RuleSet {
  constructor(_schema: JsonSchema) {}
  readonly isEmpty = true;
  validate(_object: JsonObject, _old: JsonObject | undefined): FieldError[] {
    return [];
  }
}
