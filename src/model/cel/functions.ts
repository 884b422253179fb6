// All functions that expressions of Kubernetes v1.32 can call. Two-variable macros are the parser's.
// Not here: semver (v1.33 has it), the authorizer (library-authorizer.ts, of policies only), base64 and math (Kubernetes has neither).
// Upstream counterpart: apiserver/pkg/cel/environment/base.go.
import { kubernetesLibrary } from "./library-kubernetes.ts";
import { standardLibrary } from "./library-standard.ts";
import { stringLibrary } from "./library-strings.ts";
import { type Overload, tableOf } from "./overloads.ts";

export type FunctionTable = ReadonlyMap<string, readonly Overload[]>;

export const functions: FunctionTable = tableOf(standardLibrary, stringLibrary, kubernetesLibrary);

/** Operators that the compiler evaluates itself; these say their types. */
const never = (): never => {
  throw new Error("evaluated by the compiler");
};
export const operatorTypes: FunctionTable = tableOf([
  ["_&&_", "logical_and: (bool, bool) -> bool", never],
  ["_||_", "logical_or: (bool, bool) -> bool", never],
  ["_?_:_", "conditional: (bool, A, A) -> A", never],
]);
