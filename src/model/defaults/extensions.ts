// Defaults of CustomResourceDefinition. Upstream counterpart: apiextensions/v1/defaults.go.
import type { CustomResourceDefinition } from "../custom-resources.ts";
import { fill } from "./fill.ts";

const webhookPort = 443;

export function defaultCustomResourceDefinition(definition: CustomResourceDefinition): void {
  const { spec } = definition;
  const { names } = spec;
  if (names.kind !== "") fill(names, { singular: names.kind.toLowerCase(), listKind: `${names.kind}List` });
  spec.conversion ??= { strategy: "None" };
  const service = spec.conversion.webhook?.clientConfig?.service;
  if (service) fill(service, { port: webhookPort });
}
