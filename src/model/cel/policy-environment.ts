// What expressions of policies and webhooks may read and call, beside what all expressions may. Objects are of any kind:
// nothing of their fields is known. Upstream counterpart: apiserver/pkg/admission/plugin/cel/compile.go.
import type { ExpressionOptions } from "./expression.ts";
import { authorizerFunctions, authorizerVariable } from "./library-authorizer.ts";
import { type CelType, dynType } from "./types.ts";

export type Environment = Pick<ExpressionOptions, "variables"> & Required<Pick<ExpressionOptions, "functions">>;

const environmentOf = (...names: string[]): Environment => ({
  variables: new Map<string, CelType>([...names.map((name) => [name, dynType] as const), authorizerVariable]),
  functions: authorizerFunctions,
});

const ofPolicies = ["namespaceObject", "object", "oldObject", "request", "variables"];

export const policyEnvironment = (hasParams: boolean): Environment =>
  environmentOf(...ofPolicies, ...(hasParams ? ["params"] : []));

/** Of a webhook's match conditions. */
export const webhookEnvironment = (): Environment => environmentOf("object", "oldObject", "request");
