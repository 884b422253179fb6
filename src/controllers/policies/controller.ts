// Says in the status of each ValidatingAdmissionPolicy what is wrong with its expressions, once per generation.
// Upstream counterpart: pkg/controller/validatingadmissionpolicystatus.
import type { Service } from "#base/service.ts";
import { customResourceDefinitions, validatingAdmissionPolicies } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { inTurns } from "#platform/turns.ts";
import { type ControllerDeps, waitFor } from "../runtime/controller.ts";
import { createObjectController } from "../runtime/object-controller.ts";
import { createKindSource } from "./kind-types.ts";
import { checkPolicy } from "./type-check.ts";

export function createPolicyStatusController(deps: ControllerDeps): Service {
  const definitions = deps.informers.informer(customResourceDefinitions);
  return createObjectController(
    {
      name: "validatingadmissionpolicy-status-controller",
      workers: 1,
      store: deps.informers.informer(validatingAdmissionPolicies),
      triggers: [waitFor(definitions)],
      async sync(policy) {
        const generation = policy.metadata.generation ?? 0;
        if ((policy.status?.observedGeneration ?? 0) >= generation) return;
        // Types are made anew for each: most clusters have no policy at all.
        const source = createKindSource(() => definitions.list());
        const expressionWarnings = await inTurns(checkPolicy(policy, source));
        const status = {
          ...policy.status,
          observedGeneration: generation,
          typeChecking: expressionWarnings.length > 0 ? { expressionWarnings } : {},
        };
        try {
          await deps.client.updateStatus(validatingAdmissionPolicies, { ...policy, status });
        } catch (error) {
          if (!isNotFound(error)) throw error;
        }
      },
    },
    deps,
  );
}
