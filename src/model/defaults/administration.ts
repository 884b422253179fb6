// Defaults of webhook configurations, admission policies and flow control. Upstream:
// pkg/apis/{admissionregistration,flowcontrol}/v1/defaults.go.
import type { ApiService } from "../api-services.ts";
import type {
  MatchResources,
  MutatingWebhookConfiguration,
  ValidatingAdmissionPolicy,
  ValidatingAdmissionPolicyBinding,
  ValidatingWebhookConfiguration,
} from "../gen/admissionregistration-v1.ts";
import type { FlowSchema, PriorityLevelConfiguration } from "../gen/flowcontrol-v1.ts";
import { fill, fillNumbers } from "./fill.ts";

const servicePort = 443;

/** Validating ones too, but for the policy of asking again. */
function defaultWebhooks({ webhooks }: ValidatingWebhookConfiguration): void {
  for (const webhook of webhooks ?? []) {
    fill(webhook, {
      failurePolicy: "Fail",
      matchPolicy: "Equivalent",
      namespaceSelector: {},
      objectSelector: {},
      timeoutSeconds: 10,
    });
    if (webhook.clientConfig?.service) fill(webhook.clientConfig.service, { port: servicePort });
    for (const rule of webhook.rules ?? []) fill(rule, { scope: "*" });
  }
}

export const defaultValidatingWebhooks = defaultWebhooks;

export function defaultMutatingWebhooks(configuration: MutatingWebhookConfiguration): void {
  defaultWebhooks(configuration);
  for (const webhook of configuration.webhooks ?? []) fill(webhook, { reinvocationPolicy: "Never" });
}

function defaultMatch(match: MatchResources): void {
  fill(match, { matchPolicy: "Equivalent", namespaceSelector: {}, objectSelector: {} });
  for (const rule of [...(match.resourceRules ?? []), ...(match.excludeResourceRules ?? [])])
    fill(rule, { scope: "*" });
}

export function defaultAdmissionPolicy({ spec }: ValidatingAdmissionPolicy): void {
  if (!spec) return;
  fill(spec, { failurePolicy: "Fail" });
  if (spec.matchConstraints) defaultMatch(spec.matchConstraints);
}

export function defaultAdmissionPolicyBinding({ spec }: ValidatingAdmissionPolicyBinding): void {
  if (spec?.matchResources) defaultMatch(spec.matchResources);
}

export function defaultApiService({ spec }: ApiService): void {
  if (spec?.service) fill(spec.service, { port: servicePort });
}

export function defaultFlowSchema({ spec }: FlowSchema): void {
  if (spec) fillNumbers(spec, { matchingPrecedence: 1000 });
}

export function defaultPriorityLevel({ spec }: PriorityLevelConfiguration): void {
  if (spec?.exempt) fill(spec.exempt, { nominalConcurrencyShares: 0, lendablePercent: 0 });
  if (!spec?.limited) return;
  fill(spec.limited, { nominalConcurrencyShares: 30, lendablePercent: 0 });
  const { limitResponse } = spec.limited;
  if (limitResponse?.type === "Queue" && limitResponse.queuing) {
    fillNumbers(limitResponse.queuing, { queues: 64, handSize: 8, queueLengthLimit: 50 });
  }
}
