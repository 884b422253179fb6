// Pods and pod templates. Upstream: ValidatePodSpec, ValidatePodUpdate in pkg/apis/core/validation.
import { resizePolicyOf } from "../defaults/pod.ts";
import type { Container, Pod, PodSpec, PodTemplateSpec, Toleration } from "../gen/core-v1.ts";
import { type FieldError, fieldDuplicate, fieldForbidden, fieldInvalid, fieldRequired } from "../status.ts";
import { validateAffinity, validateTolerations, validateTopologySpread } from "./affinity.ts";
import { checked, labels, noDuplicates, oneOf, requiredName, requiredOneOf, same } from "./checks.ts";
import {
  type ContainerContext,
  containerNameIsUnique,
  validateContainer,
  validateHostPorts,
  validateId,
  validateLifecycle,
  validateResizePolicy,
  validateSeccomp,
} from "./container.ts";
import { eachOf, findings } from "./findings.ts";
import { notSupportedInOrder } from "./go-syntax.ts";
import { validateTemplateMetadata } from "./metadata.ts";
import { dns1123Label, dns1123Subdomain, ipAddress, isIp, qualifiedName } from "./names.ts";
import { validateVolumes } from "./volumes.ts";

export function validatePod(pod: Pod): FieldError[] {
  if (!pod.spec) return [fieldRequired("spec.containers")];
  const errors = findings(validatePodSpec("spec", pod.spec));
  if ((pod.spec.ephemeralContainers ?? []).length > 0) {
    errors.push(fieldForbidden("spec.ephemeralContainers", "cannot be set on create"));
  }
  return errors;
}

export function validatePodTemplate(path: string, template: PodTemplateSpec | undefined): FieldError[] {
  if (!template?.spec) return [fieldRequired(`${path}.spec.containers`)];
  const errors = findings([
    ...validateTemplateMetadata(`${path}.metadata`, template.metadata),
    ...validatePodSpec(`${path}.spec`, template.spec),
  ]);
  if ((template.spec.ephemeralContainers ?? []).length > 0) {
    errors.push(fieldForbidden(`${path}.spec.ephemeralContainers`, "ephemeral containers not allowed in pod template"));
  }
  return errors;
}

const maxSeconds = 2147483647;

function validateRestartPolicy(path: string, policy: string | undefined): FieldError[] {
  const supported = ["Always", "OnFailure", "Never"];
  if (!policy) return [fieldRequired(path)];
  return supported.includes(policy) ? [] : [notSupportedInOrder(path, policy, supported)];
}

export function validatePodSpec(path: string, spec: PodSpec): FieldError[] {
  const volumes = spec.volumes ?? [];
  const context: ContainerContext = {
    volumes: new Set(volumes.map((volume) => volume.name)),
    hostNetwork: spec.hostNetwork === true,
  };
  const errors = findings([...validateVolumes(`${path}.volumes`, volumes), ...validateContainers(path, spec, context)]);
  errors.push(
    ...validateRestartPolicy(`${path}.restartPolicy`, spec.restartPolicy),
    ...requiredOneOf(`${path}.dnsPolicy`, spec.dnsPolicy, [
      "ClusterFirstWithHostNet",
      "ClusterFirst",
      "Default",
      "None",
    ]),
    ...labels(`${path}.nodeSelector`, spec.nodeSelector),
    ...validateDns(path, spec),
    ...validateSecurity(`${path}.securityContext`, spec),
    ...validateAffinity(`${path}.affinity`, spec.affinity),
    ...validateTolerations(`${path}.tolerations`, spec.tolerations ?? []),
    ...validateTopologySpread(`${path}.topologySpreadConstraints`, spec.topologySpreadConstraints ?? []),
    ...oneOf(`${path}.preemptionPolicy`, spec.preemptionPolicy, ["Never", "PreemptLowerPriority"]),
  );
  const names = [
    [`${path}.serviceAccountName`, spec.serviceAccountName, dns1123Subdomain],
    [`${path}.nodeName`, spec.nodeName, dns1123Subdomain],
    [`${path}.hostname`, spec.hostname, dns1123Label],
    [`${path}.subdomain`, spec.subdomain, dns1123Label],
    [`${path}.priorityClassName`, spec.priorityClassName, dns1123Subdomain],
    [`${path}.runtimeClassName`, spec.runtimeClassName, dns1123Subdomain],
    [`${path}.schedulerName`, spec.schedulerName, dns1123Subdomain],
  ] as const;
  for (const [at, name, check] of names) if (name) errors.push(...checked(at, name, check));
  for (const [i, reference] of (spec.imagePullSecrets ?? []).entries()) {
    if (!reference.name) errors.push(fieldRequired(`${path}.imagePullSecrets[${i}].name`));
  }
  for (const [i, alias] of (spec.hostAliases ?? []).entries()) {
    errors.push(...checked(`${path}.hostAliases[${i}].ip`, alias.ip, ipAddress));
    for (const name of alias.hostnames ?? [])
      errors.push(...checked(`${path}.hostAliases[${i}].hostnames`, name, dns1123Subdomain));
  }
  for (const [i, gate] of (spec.readinessGates ?? []).entries()) {
    errors.push(...checked(`${path}.readinessGates[${i}].conditionType`, gate.conditionType, qualifiedName));
  }
  const gates = spec.schedulingGates ?? [];
  for (const [i, gate] of gates.entries())
    errors.push(...requiredName(`${path}.schedulingGates[${i}]`, gate.name, qualifiedName));
  errors.push(
    ...noDuplicates(
      gates,
      (gate) => gate.name,
      (i) => `${path}.schedulingGates[${i}]`,
    ),
  );
  const deadline = spec.activeDeadlineSeconds;
  if (deadline != null && (deadline < 1 || deadline > maxSeconds)) {
    const why = `must be between 1 and ${maxSeconds}, inclusive`;
    errors.push(fieldInvalid(`${path}.activeDeadlineSeconds`, deadline, why));
  }
  if (spec.os) errors.push(...requiredOneOf(`${path}.os.name`, spec.os.name, ["linux", "windows"]));
  return errors;
}

function validateContainers(path: string, spec: PodSpec, context: ContainerContext): FieldError[] {
  const containers = spec.containers ?? [];
  const init = spec.initContainers ?? [];
  const errors = findings();
  if (containers.length === 0) errors.push(fieldRequired(`${path}.containers`));
  for (const [i, container] of containers.entries()) {
    const at = `${path}.containers[${i}]`;
    errors.push(...validateContainer(at, container, context), ...validateLifecycle(at, container));
    errors.push(...validateResizePolicy(`${at}.resizePolicy`, container.resizePolicy ?? [], spec.restartPolicy));
    if (container.restartPolicy != null) {
      errors.push(fieldForbidden(`${at}.restartPolicy`, "may not be set for non-init containers"));
    }
  }
  errors.push(...containerNameIsUnique(`${path}.containers`, containers, new Set()));
  errors.push(...validateHostPorts(`${path}.containers`, containers));
  for (const [i, container] of init.entries())
    errors.push(...validateInit(`${path}.initContainers[${i}]`, container, context));
  const names = new Set(containers.map((container) => container.name));
  errors.push(...containerNameIsUnique(`${path}.initContainers`, init, names));
  return errors;
}

function validateInit(path: string, container: Container, context: ContainerContext): FieldError[] {
  const errors = findings(validateContainer(path, container, context));
  errors.push(...oneOf(`${path}.restartPolicy`, container.restartPolicy, ["Always"]));
  if ((container.resizePolicy ?? []).length > 0) {
    errors.push(fieldInvalid(`${path}.resizePolicy`, container.resizePolicy, "must not be set for init containers"));
  }
  if (container.restartPolicy === "Always") return [...errors, ...validateLifecycle(path, container)];
  for (const field of ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] as const) {
    if (container[field] == null) continue;
    errors.push(fieldForbidden(`${path}.${field}`, "may not be set for init containers without restartPolicy=Always"));
  }
  return errors;
}

function validateDns(path: string, spec: PodSpec): FieldError[] {
  const errors = findings();
  const servers = spec.dnsConfig?.nameservers ?? [];
  const at = `${path}.dnsConfig`;
  if (spec.dnsPolicy === "None") {
    if (!spec.dnsConfig) errors.push(fieldRequired(at, "must provide `dnsConfig` when `dnsPolicy` is None"));
    else if (servers.length === 0) {
      errors.push(
        fieldRequired(`${at}.nameservers`, "must provide at least one DNS nameserver when `dnsPolicy` is None"),
      );
    }
  }
  if (servers.length > 3)
    errors.push(fieldInvalid(`${at}.nameservers`, servers, "must not have more than 3 nameservers"));
  for (const [i, server] of servers.entries()) {
    if (!isIp(server)) errors.push(...checked(`${at}.nameservers[${i}]`, server, ipAddress));
  }
  for (const [i, search] of (spec.dnsConfig?.searches ?? []).entries()) {
    // A final dot is fine, and "." alone too; underscores are common in searches.
    const name = search.replace(/\.$/, "").replaceAll("_", "-");
    if (name !== "") errors.push(...checked(`${at}.searches[${i}]`, name, dns1123Subdomain));
  }
  for (const [i, option] of (spec.dnsConfig?.options ?? []).entries()) {
    if (!option.name) errors.push(fieldRequired(`${at}.options[${i}]`, "must not be empty"));
  }
  return errors;
}

function validateSecurity(path: string, spec: PodSpec): FieldError[] {
  const security = spec.securityContext;
  if (!security) return [];
  const errors = findings([
    ...validateId(`${path}.runAsUser`, security.runAsUser),
    ...validateId(`${path}.runAsGroup`, security.runAsGroup),
    ...validateId(`${path}.fsGroup`, security.fsGroup),
    ...eachOf(security.supplementalGroups ?? [], (id, i) => validateId(`${path}.supplementalGroups[${i}]`, id)),
    ...oneOf(`${path}.fsGroupChangePolicy`, security.fsGroupChangePolicy, ["Always", "OnRootMismatch"]),
    ...validateSeccomp(`${path}.seccompProfile`, security.seccompProfile),
    ...validateSysctls(`${path}.sysctls`, spec),
  ]);
  if (spec.hostPID && spec.shareProcessNamespace) {
    const field = path.replace(/securityContext$/, "shareProcessNamespace");
    errors.push(fieldInvalid(field, true, "ShareProcessNamespace and HostPID cannot both be enabled"));
  }
  return errors;
}

const sysctlName = /^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$/;
const sysctlRule =
  "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const maxSysctlLength = 253;
/** Of the namespaces for inter-process communication. */
const ipcSysctl = /^(?:kernel\.(?:sem|shm|msg)|fs\.mqueue\.)/;

function validateSysctls(path: string, spec: PodSpec): FieldError[] {
  const seen = new Set<string>();
  return eachOf(spec.securityContext?.sysctls ?? [], ({ name }, i) => {
    const at = `${path}[${i}].name`;
    const errors = findings();
    if (!name) errors.push(fieldRequired(at));
    else if (name.length > maxSysctlLength || !sysctlName.test(name)) errors.push(fieldInvalid(at, name, sysctlRule));
    else if (seen.has(name)) errors.push(fieldDuplicate(at, name));
    seen.add(name);
    const dotted = name.replaceAll("/", ".");
    // Those would be set for the whole machine.
    if (spec.hostNetwork && dotted.startsWith("net.")) {
      errors.push(fieldInvalid(at, name, "may not be specified when 'hostNetwork' is true"));
    }
    if (spec.hostIPC && ipcSysctl.test(dotted)) {
      errors.push(fieldInvalid(at, name, "may not be specified when 'hostIPC' is true"));
    }
    return errors;
  });
}

const changeable =
  "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/** Almost nothing of a pod can change: its containers run already. */
export function validatePodUpdate(pod: Pod, old: Pod): FieldError[] {
  const errors = findings();
  const next = pod.spec;
  const before = old.spec;
  if (next.containers.length !== before.containers.length) {
    return [fieldForbidden("spec.containers", "pod updates may not add or remove containers")];
  }
  if ((next.initContainers ?? []).length !== (before.initContainers ?? []).length) {
    return [fieldForbidden("spec.initContainers", "pod updates may not add or remove containers")];
  }
  for (const kind of ["containers", "initContainers"] as const) {
    for (const [i, { image }] of (next[kind] ?? []).entries()) {
      if (!image) errors.push(fieldRequired(`spec.${kind}[${i}].image`));
      else if (image.trim() !== image) {
        const why = "must not have leading or trailing whitespace";
        errors.push(fieldInvalid(`spec.${kind}[${i}].image`, image, why));
      }
    }
  }
  errors.push(...validateDeadline(next.activeDeadlineSeconds, before.activeDeadlineSeconds));
  errors.push(...validateTolerationUpdate(next.tolerations ?? [], before.tolerations ?? []));
  const wasGated = (before.schedulingGates ?? []).length > 0;
  const gates = new Set(before.schedulingGates?.map(({ name }) => name));
  const added = (next.schedulingGates ?? []).filter(({ name }) => !gates.has(name));
  if (added.length > 0) {
    const names = added.map((gate) => JSON.stringify(gate.name)).join(",");
    errors.push(
      fieldForbidden("spec.schedulingGates", `only deletion is allowed, but found new scheduling gates '${names}'`),
    );
  }
  if (errors.length > 0) return errors;

  const reverted: PodSpec = {
    ...next,
    containers: revertedContainers(next.containers, before.containers),
    activeDeadlineSeconds: before.activeDeadlineSeconds,
    tolerations: before.tolerations,
    schedulingGates: before.schedulingGates,
  } as PodSpec;
  if (next.initContainers)
    reverted.initContainers = revertedContainers(next.initContainers, before.initContainers ?? []);
  if ((before.terminationGracePeriodSeconds ?? 0) < 0 && next.terminationGracePeriodSeconds === 1) {
    reverted.terminationGracePeriodSeconds = before.terminationGracePeriodSeconds as number;
  }
  if (wasGated) {
    // Before it is scheduled, where it may go may be narrowed.
    Object.assign(reverted, { nodeSelector: before.nodeSelector, affinity: before.affinity });
  }
  return same(reverted, before) ? [] : [fieldForbidden("spec", changeable)];
}

/** With the images of `old`; and with its resize policies, where what differs is only their default. */
const revertedContainers = (containers: readonly Container[], old: readonly Container[]): Container[] =>
  containers.map((container, i) => {
    const before = old[i];
    const reverted: Container = { ...container, image: before?.image ?? "" };
    if (before && same(container.resizePolicy, resizePolicyOf(before))) {
      if (before.resizePolicy === undefined) delete reverted.resizePolicy;
      else reverted.resizePolicy = before.resizePolicy;
    }
    return reverted;
  });

function validateDeadline(next: number | undefined, before: number | undefined): FieldError[] {
  const path = "spec.activeDeadlineSeconds";
  if (next == null) {
    return before == null ? [] : [fieldInvalid(path, null, "must not update from a positive integer to nil value")];
  }
  if (next < 1 || next > maxSeconds)
    return [fieldInvalid(path, next, `must be between 1 and ${maxSeconds}, inclusive`)];
  return before != null && next > before
    ? [fieldInvalid(path, next, "must be less than or equal to previous value")]
    : [];
}

function validateTolerationUpdate(next: readonly Toleration[], before: readonly Toleration[]): FieldError[] {
  const bare = ({ key = "", operator = "", value = "", effect = "" }: Toleration) =>
    JSON.stringify([key, operator, value, effect]);
  const found = new Set(next.map(bare));
  if (!before.every((old) => found.has(bare(old)))) {
    return [fieldForbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")];
  }
  return validateTolerations("spec.tolerations", next);
}
