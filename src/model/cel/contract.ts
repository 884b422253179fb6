// What the engine promises to those who call it: rules of schemas (custom resources) and single expressions (policies).
// Invariant: nothing here throws for what a user wrote; a bad expression is an issue, a failed evaluation is an outcome.
// Upstream counterpart: apiextensions schema/cel.Validator and apiserver/pkg/cel.
import type { FieldError } from "../status.ts";
import type { Value } from "./values.ts";

/** What is left to spend on one object, in upstream's units of cost. Shared by all rules that see the object. */
export interface Budget {
  remaining: number;
}

/** The compiled rules of one schema; keeps no state between calls. */
export interface SchemaRules {
  /**
   * What the rules say of `value`, and of its change from `old` (undefined on create). Errors carry upstream's texts.
   * Call it only where the schema itself found nothing wrong, with defaults applied. It stops where others should have
   * their turn: rules of one object may cost a second.
   */
  validate(value: unknown, old: unknown, options?: ValidateOptions): Generator<void, FieldError[]>;
}
export interface ValidateOptions {
  /** "" for whole objects. */
  readonly path?: string;
  readonly budget?: Budget;
  /** Told of failed rules that do not count, since what they speak of did not change. */
  readonly warn?: (text: string) => void;
}

/** Of one evaluation. */
export type Outcome =
  | { readonly value: Value; readonly cost: number; readonly error?: undefined }
  | { readonly error: string; readonly cost: number; readonly isOverLimit?: boolean; readonly value?: undefined };
