// What is wrong with the expressions of a policy when they are held against the kinds that it is about. Only a help for
// its author: a policy works as it is written, whatever is found here. Pure.
// Upstream counterpart: apiserver/pkg/admission/plugin/policy/validating/typechecking.go.
import { compileExpression } from "#model/cel/expression.ts";
import { type CelType, dynType } from "#model/cel/types.ts";
import type { ExpressionWarning, ValidatingAdmissionPolicy } from "#model/gen/admissionregistration-v1.ts";
import { groupVersion } from "#model/resource-info.ts";
import { type Kind, type KindSource, typedEnvironment } from "./kind-types.ts";

/** Each expression is looked at once for each of them. */
const maxKinds = 10;

/** It stops after each expression, where others should have their turn. */
export function* checkPolicy(
  policy: ValidatingAdmissionPolicy,
  source: KindSource,
): Generator<void, ExpressionWarning[]> {
  const { paramKind, validations = [], variables = [] } = policy.spec;
  const params = paramKind && source.typeOf(kindOf(paramKind.apiVersion ?? "", paramKind.kind ?? ""));
  const environments: { readonly kind: Kind; readonly environment: ReturnType<typeof typedEnvironment> }[] = [];
  for (const kind of matchedKinds(policy, source)) {
    const type = source.typeOf(kind);
    if (!type) continue;
    const known = new Map<string, CelType>();
    for (const { name, expression } of variables) {
      const compiled = compileExpression({ text: expression, ...typedEnvironment(type, params, new Map(known)) });
      // What is wrong with a variable shows where it is read, if anywhere.
      known.set(name, "program" in compiled ? compiled.program.type : dynType);
      yield;
    }
    environments.push({ kind, environment: typedEnvironment(type, params, known) });
  }
  const warnings: ExpressionWarning[] = [];
  for (const [index, { expression, messageExpression }] of validations.entries()) {
    for (const [field, text] of Object.entries({ expression, messageExpression })) {
      if (!text) continue;
      const found: string[] = [];
      for (const { kind, environment } of environments) {
        const compiled = compileExpression({ text, ...environment });
        if ("problem" in compiled) found.push(`${groupVersionKind(kind)}: ${compiled.problem}\n`);
        yield;
      }
      if (found.length > 0)
        warnings.push({ fieldRef: `spec.validations[${index}].${field}`, warning: found.join("\n") });
    }
  }
  return warnings;
}

const kindOf = (apiVersion: string, kind: string): Kind => {
  const slash = apiVersion.indexOf("/");
  return { group: slash < 0 ? "" : apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1), kind };
};
const groupVersionKind = ({ group, version, kind }: Kind): string => `${group}/${version}, Kind=${kind}`;

/** Kinds that rules name in full: of what is matched by `*` there is no end. Subresources have types of their own. */
function matchedKinds({ spec }: ValidatingAdmissionPolicy, source: KindSource): Kind[] {
  const found = new Map<string, Kind>();
  const isOpen = (text: string) => text.includes("*");
  for (const rule of spec.matchConstraints?.resourceRules ?? []) {
    const { apiGroups = [], apiVersions = [], resources = [] } = rule;
    if (apiGroups.some(isOpen) || apiVersions.some(isOpen)) continue;
    const names = resources.filter((name) => !isOpen(name) && !name.includes("/"));
    for (const group of [...apiGroups].sort()) {
      for (const version of [...apiVersions].sort()) {
        for (const name of [...names].sort()) {
          for (const kind of source.kindsOf(group, version, name)) {
            if (found.size < maxKinds) found.set(groupVersionKind(kind), kind);
          }
        }
      }
    }
  }
  const order = (kind: Kind) => `${groupVersion(kind)} ${kind.kind}`;
  return [...found.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
}
