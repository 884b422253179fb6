// What the kind CustomResourceDefinition adds to the generic registry. Its conditions and accepted names are set by the
// controller beside it; here stored versions are kept, and a deletion waits until all instances are gone.
// Upstream counterpart: apiextensions registry/customresourcedefinition.
import { rfc3339 } from "#base/clock.ts";
import { type CustomResourceDefinition, cleanupFinalizer, storageVersionOf } from "#model/custom-resources.ts";
import type { Strategy } from "../strategy.ts";
import { withCondition } from "./conditions.ts";
import {
  definitionWarnings,
  validateDefinition,
  validateDefinitionStatus,
  validateDefinitionUpdate,
} from "./definition-validation.ts";

type Definition = CustomResourceDefinition;

const strategy: Strategy<Definition> = {
  hasGeneration: true,
  requireResourceVersion: true,
  prepareForCreate(definition) {
    const stored = storageVersionOf(definition);
    definition.status = {
      conditions: [],
      acceptedNames: { plural: "", kind: "" },
      storedVersions: stored ? [stored.name] : [],
    };
  },
  prepareForUpdate(definition, old) {
    const status = { ...old.status };
    const stored = storageVersionOf(definition);
    const known = status.storedVersions ?? [];
    if (stored && !known.includes(stored.name)) status.storedVersions = [...known, stored.name];
    definition.status = status;
  },
  validate(definition, context) {
    for (const warning of definitionWarnings(definition)) context.warn(warning);
    return validateDefinition(definition);
  },
  validateUpdate(definition, old, context) {
    for (const warning of definitionWarnings(definition)) context.warn(warning);
    return validateDefinitionUpdate(definition, old);
  },
  validateStatusUpdate: validateDefinitionStatus,
  prepareForDelete(definition, context) {
    if (definition.metadata.deletionTimestamp !== undefined) return definition;
    const finalizers = definition.metadata.finalizers ?? [];
    if (finalizers.includes(cleanupFinalizer)) return definition;
    return {
      ...definition,
      metadata: { ...definition.metadata, finalizers: [...finalizers, cleanupFinalizer] },
      status: withCondition(definition.status, rfc3339(context.clock.now()), {
        type: "Terminating",
        status: "True",
        reason: "InstanceDeletionPending",
        message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
      }),
    };
  },
};

/** The table of strategies holds them all as strategies of any object. */
export const customResourceDefinitions = strategy as unknown as Strategy;
