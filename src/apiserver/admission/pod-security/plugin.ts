// PodSecurity: holds pods against the standard their namespace names. `enforce` refuses pods; `warn` tells whoever
// writes a pod or something that makes pods; changing a namespace's labels warns of the pods that would no longer be
// admitted; `audit` notes what it finds in the audit log, beside the policy a pod was held against. Upstream: staging/src/k8s.io/pod-security-admission/admission.
import type { CronJob } from "#model/gen/batch-v1.ts";
import type { Namespace, Pod, PodTemplateSpec } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { qualifiedResource } from "#model/resource-info.ts";
import { forbidden, invalid } from "#model/status.ts";
import { same } from "#model/validation/checks.ts";
import type { StrategyContext } from "../../strategy.ts";
import type { AdmissionPlugin, AdmissionRequest } from "../plugin.ts";
import { type PodToCheck, type Violation, violations } from "./checks.ts";
import { isFullyPrivileged, isSamePolicy, type LevelVersion, rank, readPolicy, showPolicy } from "./policy.ts";

type Template = (object: ApiObject) => Partial<PodTemplateSpec> | undefined;
const ofSpec: Template = (object) => (object as { spec?: { template?: PodTemplateSpec } }).spec?.template;

/** What makes pods, and where its template is. */
const templates: Readonly<Record<string, Template>> = {
  podtemplates: (object) => (object as { template?: PodTemplateSpec }).template,
  replicationcontrollers: ofSpec,
  "replicasets.apps": ofSpec,
  "deployments.apps": ofSpec,
  "statefulsets.apps": ofSpec,
  "daemonsets.apps": ofSpec,
  "jobs.batch": ofSpec,
  "cronjobs.batch": (object) => (object as CronJob).spec?.jobTemplate?.spec?.template,
};
const annotations = "pod-security.kubernetes.io/";
/** Pods of one namespace that a change of labels looks at, and how many sentences it says. Upstream: 3000 and all. */
const maxPodsLookedAt = 3000;
const maxWarnings = 20;

export function createPodSecurity(): AdmissionPlugin {
  return {
    name: "PodSecurity",
    handles: ({ operation, resource, subresource }) => {
      if (operation !== "CREATE" && operation !== "UPDATE") return false;
      const name = qualifiedResource(resource);
      if (name === "pods") return subresource === "" || subresource === "ephemeralcontainers";
      return subresource === "" && (name === "namespaces" || Object.hasOwn(templates, name));
    },
    async validate(request, context) {
      const name = qualifiedResource(request.resource);
      if (name === "namespaces") await checkNamespace(request, context);
      else if (name === "pods") await checkPod(request, context);
      else await checkTemplate(request, context, templates[name]!);
    },
  };
}

const podOf = (template: Partial<PodTemplateSpec> | Pod): PodToCheck | undefined =>
  template.spec && { annotations: template.metadata?.annotations ?? {}, spec: template.spec };

async function policyOf(request: AdmissionRequest, context: StrategyContext) {
  const namespace = await context.get<Namespace>("namespaces", "", request.namespace);
  return readPolicy(namespace?.metadata.labels).policy;
}

async function checkPod(request: AdmissionRequest, context: StrategyContext): Promise<void> {
  const pod = request.object as Pod;
  const old = request.oldObject as Pod | undefined;
  if (old && !isSignificant(pod, old)) return;
  const policy = await policyOf(request, context);
  context.annotate?.(`${annotations}enforce-policy`, showPolicy(policy.enforce));
  const subject = isFullyPrivileged(policy) ? undefined : podOf(pod);
  if (!subject) return;
  const found = violations(policy.enforce, subject);
  note(policy.audit, subject, context);
  if (found.length > 0) {
    const why = `violates PodSecurity ${JSON.stringify(showPolicy(policy.enforce))}: ${listed(found)}`;
    throw forbidden({ group: "", resource: "pods" }, request.name, why);
  }
  warn(policy.warn, subject, context);
}

async function checkTemplate(request: AdmissionRequest, context: StrategyContext, find: Template): Promise<void> {
  const template = find(request.object!);
  const subject = template && podOf(template);
  if (!subject) return;
  const policy = await policyOf(request, context);
  if (isFullyPrivileged(policy)) return;
  note(policy.audit, subject, context);
  warn(policy.warn, subject, context);
}

function warn(policy: LevelVersion, subject: PodToCheck, context: StrategyContext): void {
  const problem = problemOf(policy, subject);
  if (problem !== undefined) context.warn(problem);
}

/** For the audit log. */
function note(policy: LevelVersion, subject: PodToCheck, context: StrategyContext): void {
  if (!context.annotate || policy.level === "privileged") return;
  const problem = problemOf(policy, subject);
  if (problem !== undefined) context.annotate(`${annotations}audit-violations`, problem);
}

function problemOf(policy: LevelVersion, subject: PodToCheck): string | undefined {
  const found = violations(policy, subject);
  if (found.length === 0) return undefined;
  return `would violate PodSecurity ${JSON.stringify(showPolicy(policy))}: ${listed(found)}`;
}

const listed = (found: readonly Violation[]): string =>
  found.map(({ reason, detail }) => (detail === "" ? reason : `${reason} (${detail})`)).join(", ");

/** What an update may change of a pod is harmless, but for new containers and images' sake containers are looked at. */
function isSignificant(pod: Pod, old: Pod): boolean {
  const relevant = ({ spec, metadata }: Pod) => [
    spec.containers,
    spec.initContainers,
    spec.ephemeralContainers,
    spec.securityContext,
    spec.volumes,
    Object.entries(metadata.annotations ?? {})
      .filter(([key]) => /^(container\.)?(apparmor|seccomp)\.security\./.test(key))
      .sort(),
  ];
  return !same(relevant(pod), relevant(old));
}

/** Refuses labels that make no sense; warns where a stricter rule meets pods that are already there. */
async function checkNamespace(request: AdmissionRequest, context: StrategyContext): Promise<void> {
  const { policy, errors } = readPolicy(request.object?.metadata.labels);
  const before = request.oldObject ? readPolicy(request.oldObject.metadata.labels) : undefined;
  // What was wrong before does not keep a namespace from being changed otherwise.
  const known = new Set(before?.errors.map(({ field, message }) => field + message));
  const fresh = errors.filter(({ field, message }) => !known.has(field + message));
  if (fresh.length > 0) throw invalid("", "Namespace", request.name, fresh);
  if (!before || isSamePolicy(before.policy.enforce, policy.enforce)) return;
  const { enforce } = policy;
  if (enforce.level === "privileged") return;
  const old = before.policy.enforce;
  if (enforce.version === old.version && rank(enforce.level) < rank(old.level)) return;
  const pods = await context.list<Pod>("pods", request.name);
  const warnings = existingPods(pods.slice(0, maxPodsLookedAt), enforce);
  if (warnings.length === 0) return;
  context.warn(
    `existing pods in namespace ${JSON.stringify(request.name)} violate the new PodSecurity enforce level ${JSON.stringify(showPolicy(enforce))}`,
  );
  for (const text of warnings.slice(0, maxWarnings)) context.warn(text);
  if (pods.length > maxPodsLookedAt) {
    context.warn(`only checked the first ${maxPodsLookedAt} of ${pods.length} existing pods`);
  }
}

/** One sentence per kind of violation, with the first pod by name; pods of one owner are looked at once. */
function existingPods(pods: readonly Pod[], policy: LevelVersion): string[] {
  const byText = new Map<string, string[]>();
  const owners = new Set<string>();
  for (const pod of pods) {
    const owner = pod.metadata.ownerReferences?.find((reference) => reference.controller)?.uid;
    if (owner !== undefined && owners.has(owner)) continue;
    if (owner !== undefined) owners.add(owner);
    const subject = podOf(pod);
    const found = subject ? violations(policy, subject) : [];
    if (found.length === 0) continue;
    const text = found.map(({ reason }) => reason).join(", ");
    byText.set(text, [...(byText.get(text) ?? []), pod.metadata.name ?? ""]);
  }
  return [...byText]
    .map(([text, names]) => {
      const [first, ...others] = names.sort();
      const rest = others.length === 0 ? "" : ` (and ${others.length} other ${others.length === 1 ? "pod" : "pods"})`;
      return `${first}${rest}: ${text}`;
    })
    .sort();
}
