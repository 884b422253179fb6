// What every custom resource adds to the generic registry: its schema and rules, its status apart, its generation.
// Upstream counterpart: apiextensions registry/customresource strategy.go.
import type { SchemaRules } from "#model/cel/contract.ts";
import type { DefinitionVersion } from "#model/custom-resources.ts";
import type { ApiObject, UnknownObject } from "#model/object.ts";
import { equalJson } from "#model/patch/json-value.ts";
import type { FieldError } from "#model/status.ts";
import { inTurns } from "#platform/turns.ts";
import { keepStatus } from "../registry/strategies/plain.ts";
import type { Strategy } from "../strategy.ts";
import { invalidValue } from "./go-text.ts";
import { checkScaleValues } from "./scale.ts";
import type { SchemaValidator } from "./validation.ts";

export interface InstanceStrategyDeps {
  readonly version: DefinitionVersion;
  readonly validator: SchemaValidator;
  /** Undefined: none. */
  readonly rules: () => SchemaRules | undefined;
}

type WithStatus = ApiObject & { status?: unknown };

/** After these it is not worth asking rules, which go by the types of the schema. */
const blocking: ReadonlySet<string> = new Set([
  "FieldValueNotSupported",
  "FieldValueRequired",
  "FieldValueTooLong",
  "FieldValueTooMany",
  "FieldValueTypeInvalid",
]);
const notChecked =
  "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

export function createInstanceStrategy(deps: InstanceStrategyDeps): Strategy {
  const { version, validator } = deps;
  const hasStatus = version.subresources?.status !== undefined;
  const scale = version.subresources?.scale;
  const check = async (object: ApiObject, old: ApiObject | undefined): Promise<FieldError[]> => {
    const errors = validator.validate(object as UnknownObject, old as UnknownObject | undefined);
    if (scale) errors.push(...checkScaleValues(scale, object));
    const rules = deps.rules();
    if (!rules) return errors;
    if (errors.some((error) => blocking.has(error.reason))) {
      return [...errors, invalidValue("<nil>", null, notChecked)];
    }
    return [...errors, ...(await inTurns(rules.validate(object, old)))];
  };
  return {
    hasGeneration: true,
    requireResourceVersion: true,
    prepareForCreate(object: WithStatus) {
      if (hasStatus) delete object.status;
    },
    prepareForUpdate(object: WithStatus, old: WithStatus) {
      if (hasStatus) keepStatus(object, old);
      // Without the subresource a status is a field as any other; the registry sees to those itself.
      else if (!equalJson(object.status, old.status)) {
        object.metadata.generation = (old.metadata.generation ?? 0) + 1;
      }
    },
    validate: (object) => check(object, undefined),
    validateUpdate: check,
    validateStatusUpdate: check,
  };
}
