// Services. Allocation errors come from the strategy; here is what can be said of the object alone. Upstream:
// ValidateService, ValidateServiceUpdate.
import type { Service, ServicePort, ServiceSpec } from "../gen/core-v1.ts";
import { type FieldError, fieldDuplicate, fieldForbidden, fieldInvalid, fieldRequired } from "../status.ts";
import { checked, labels, noDuplicates, oneOf, portNumber, requiredOneOf } from "./checks.ts";
import { portOrName } from "./container.ts";
import { findings } from "./findings.ts";
import { goStrings, invalidGo } from "./go-syntax.ts";
import { dns1123Label, dns1123Subdomain, ipAddress, isCidr, isIp } from "./names.ts";

const types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

export function validateService(service: Service): FieldError[] {
  const { spec } = service;
  if (!spec) return [fieldRequired("spec.ports")];
  const type = spec.type ?? "";
  const isHeadless = spec.clusterIP === "None";
  const ports = spec.ports ?? [];
  const errors = findings();
  if (ports.length === 0 && !isHeadless && type !== "ExternalName") errors.push(fieldRequired("spec.ports"));
  if ((type === "LoadBalancer" || type === "NodePort") && isHeadless) {
    errors.push(fieldInvalid("spec.clusterIPs[0]", "None", `may not be set to 'None' for ${type} services`));
  }
  if (type === "ExternalName") {
    for (const field of ["clusterIPs", "ipFamilies"] as const) {
      const value = spec[field];
      if (!value || value.length === 0) continue;
      errors.push(fieldForbidden(`spec.${field}`, "may not be set when `type` is 'ExternalName'"));
    }
    if (spec.ipFamilyPolicy) {
      errors.push(fieldForbidden("spec.ipFamilyPolicy", "may not be set when `type` is 'ExternalName'"));
    }
    if (!spec.externalName) errors.push(fieldRequired("spec.externalName"));
    else
      errors.push(
        ...checked("spec.externalName", spec.externalName.replace(/\.$/, "").toLowerCase(), dns1123Subdomain),
      );
  }
  errors.push(
    ...validatePorts(ports, type),
    ...labels("spec.selector", spec.selector),
    ...requiredOneOf("spec.sessionAffinity", spec.sessionAffinity, ["ClientIP", "None"]),
    ...requiredOneOf("spec.type", spec.type, types),
    ...oneOf("spec.trafficDistribution", spec.trafficDistribution, ["PreferClose"]),
  );
  const timeout = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds;
  if (spec.sessionAffinity === "ClientIP" && timeout !== undefined && (timeout <= 0 || timeout > 86_400)) {
    const field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    errors.push(fieldInvalid(field, timeout, "must be greater than 0 and less than 86400"));
  }
  errors.push(...validateAddressFields(spec));
  for (const [i, ip] of (spec.externalIPs ?? []).entries())
    errors.push(...validateExternalIp(`spec.externalIPs[${i}]`, ip));
  const ranges = spec.loadBalancerSourceRanges ?? [];
  if (ranges.length > 0 && type !== "LoadBalancer") {
    errors.push(fieldForbidden("spec.loadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'"));
  }
  for (const [i, range] of ranges.entries()) {
    if (isCidr(range.trim())) continue;
    const why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    errors.push(fieldInvalid(`spec.loadBalancerSourceRanges[${i}]`, range, why));
  }
  const isExternal = type === "NodePort" || type === "LoadBalancer" || (spec.externalIPs ?? []).length > 0;
  if (isExternal) {
    errors.push(...requiredOneOf("spec.externalTrafficPolicy", spec.externalTrafficPolicy, ["Cluster", "Local"]));
  } else if (spec.externalTrafficPolicy) {
    const why = "may only be set for externally-accessible services";
    errors.push(fieldInvalid("spec.externalTrafficPolicy", spec.externalTrafficPolicy, why));
  }
  if (type !== "ExternalName") {
    errors.push(...requiredOneOf("spec.internalTrafficPolicy", spec.internalTrafficPolicy, ["Cluster", "Local"]));
  }
  const isLocalBalancer = type === "LoadBalancer" && spec.externalTrafficPolicy === "Local";
  if (spec.healthCheckNodePort && !isLocalBalancer) {
    const why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
    errors.push(fieldInvalid("spec.healthCheckNodePort", spec.healthCheckNodePort, why));
  }
  if (spec.allocateLoadBalancerNodePorts !== undefined && type !== "LoadBalancer") {
    errors.push(fieldForbidden("spec.allocateLoadBalancerNodePorts", "may only be used when `type` is 'LoadBalancer'"));
  }
  if (spec.loadBalancerClass !== undefined && type !== "LoadBalancer") {
    errors.push(fieldForbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'"));
  }
  return errors;
}

function validatePorts(ports: readonly ServicePort[], type: string): FieldError[] {
  const errors = findings();
  const seen = new Set<string>();
  for (const [i, port] of ports.entries()) {
    const at = `spec.ports[${i}]`;
    if (!port.name) {
      if (ports.length > 1) errors.push(fieldRequired(`${at}.name`));
    } else errors.push(...checked(`${at}.name`, port.name, dns1123Label));
    errors.push(...portNumber(`${at}.port`, port.port));
    errors.push(...requiredOneOf(`${at}.protocol`, port.protocol, ["SCTP", "TCP", "UDP"]));
    errors.push(...portOrName(`${at}.targetPort`, port.targetPort ?? port.port));
    if (type === "ClusterIP" && port.nodePort) {
      errors.push(fieldForbidden(`${at}.nodePort`, "may not be used when `type` is 'ClusterIP'"));
    }
    const key = `${port.protocol}/${port.port}`;
    if (seen.has(key)) {
      const shown = { name: "", protocol: port.protocol, port: port.port, targetPort: 0 };
      errors.push(fieldDuplicate(at, shown));
    }
    seen.add(key);
  }
  return [
    ...errors,
    ...noDuplicates(
      ports,
      (port) => port.name,
      (i) => `spec.ports[${i}].name`,
    ),
  ];
}

/** Cluster IPs and families by themselves and against each other; names have none, which is said elsewhere. */
export function validateAddressFields(spec: ServiceSpec): FieldError[] {
  if (spec.type === "ExternalName") return [];
  const ips = spec.clusterIPs ?? [];
  const families = spec.ipFamilies ?? [];
  const errors = findings();
  const aboutAll = (why: string) => errors.push(invalidGo("spec.clusterIPs", goStrings(ips), why));
  if (spec.clusterIP) {
    if (ips.length === 0) errors.push(fieldRequired("spec.clusterIPs"));
    else if (ips[0] !== spec.clusterIP) aboutAll("first value must match `clusterIP`");
  } else if (ips.length > 0) aboutAll("must be empty when `clusterIP` is not specified");
  for (const [i, family] of families.entries()) {
    errors.push(...requiredOneOf(`spec.ipFamilies[${i}]`, family, ["IPv4", "IPv6"]));
    if (families.indexOf(family) < i) errors.push(fieldDuplicate(`spec.ipFamilies[${i}]`, family));
  }
  errors.push(
    ...oneOf("spec.ipFamilyPolicy", spec.ipFamilyPolicy, ["PreferDualStack", "RequireDualStack", "SingleStack"]),
  );
  let isSound = true;
  for (const [i, ip] of ips.entries()) {
    if (i === 0 && ip === "None") {
      if (ips.length === 1) continue;
      isSound = false;
      aboutAll("'None' must be the first and only value");
    } else if (!isIp(ip)) {
      isSound = false;
      errors.push(...checked(`spec.clusterIPs[${i}]`, ip, ipAddress));
    }
  }
  if (ips.length > 2) aboutAll("may only hold up to 2 values");
  // What is no address has no family to compare.
  if (!isSound) return errors;
  const isV6 = (ip: string) => ip.includes(":");
  if (ips.length > 1 && new Set(ips.map(isV6)).size < ips.length) {
    aboutAll("may specify no more than one IP for each IP family");
  }
  for (const [i, ip] of ips.entries()) {
    const family = families[i];
    if (ip === "None" || (family !== "IPv4" && family !== "IPv6") || isV6(ip) === (family === "IPv6")) continue;
    const why = `expected an ${family} value as indicated by \`ipFamilies[${i}]\``;
    errors.push(fieldInvalid(`spec.clusterIPs[${i}]`, ip, why));
  }
  return errors;
}

function validateExternalIp(path: string, ip: string): FieldError[] {
  if (!isIp(ip)) return checked(path, ip, ipAddress);
  if (ip === "0.0.0.0" || ip === "::") return [fieldInvalid(path, ip, "may not be unspecified (0.0.0.0 or ::)")];
  if (ip.startsWith("127.") || ip === "::1") {
    return [fieldInvalid(path, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)")];
  }
  if (ip.startsWith("169.254.")) {
    return [fieldInvalid(path, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")];
  }
  return [];
}

/** Addresses and families stay once they are there, unless the service becomes a name for something else. */
export function validateServiceUpdate(service: Service, old: Service): FieldError[] {
  if (service.spec?.type === "ExternalName" || old.spec?.type === "ExternalName") return findings();
  const spec = service.spec ?? ({} as ServiceSpec);
  const before = old.spec ?? ({} as ServiceSpec);
  const errors = findings([...keptAddresses(spec, before), ...keptFamilies(spec, before)]);
  const nextClass = spec.loadBalancerClass;
  if (spec.type === "LoadBalancer" && before.type === "LoadBalancer" && nextClass !== before.loadBalancerClass) {
    errors.push(fieldInvalid("spec.loadBalancerClass", nextClass ?? null, "may not change once set"));
  }
  return errors;
}

/** A second one may come, and go again by policy. */
function keptAddresses(spec: ServiceSpec, old: ServiceSpec): FieldError[] {
  if (spec.clusterIP === "None" && old.clusterIP === "None") return [];
  const next = spec.clusterIPs ?? [];
  const before = old.clusterIPs ?? (old.clusterIP ? [old.clusterIP] : []);
  const say = (i: number, why: string) => invalidGo(`spec.clusterIPs[${i}]`, goStrings(next), why);
  const errors = before
    .slice(0, next.length === before.length ? 2 : Math.min(1, next.length))
    .flatMap((ip, i) => (next[i] === ip ? [] : [say(i, "may not change once set")]));
  if (before.length > next.length) {
    if (next.length === 0) errors.push(say(0, "primary clusterIP can not be unset"));
    else if (spec.ipFamilyPolicy !== "SingleStack") errors.push(releaseNeedsPolicy(spec, "clusterIP"));
  }
  return errors;
}

function keptFamilies(spec: ServiceSpec, old: ServiceSpec): FieldError[] {
  if (spec.clusterIP === "None" || old.clusterIP === "None") return [];
  const next = spec.ipFamilies ?? [];
  const before = old.ipFamilies ?? [];
  const shown = `[]core.IPFamily${goStrings(next).slice("[]string".length)}`;
  const say = (why: string) => invalidGo("spec.ipFamilies[0]", shown, why);
  const errors = before
    .slice(0, next.length === before.length ? 2 : Math.min(1, next.length))
    .flatMap((family, i) => (next[i] === family ? [] : [say("may not change once set")]));
  if (before.length > next.length) {
    if (next.length === 0) errors.push(say("primary ipFamily can not be unset"));
    else if (spec.ipFamilyPolicy !== "SingleStack") errors.push(releaseNeedsPolicy(spec, "ipFamily"));
  }
  return errors;
}

const releaseNeedsPolicy = (spec: ServiceSpec, what: string): FieldError =>
  fieldInvalid(
    "spec.ipFamilyPolicy",
    spec.ipFamilyPolicy ?? "null",
    `must be set to 'SingleStack' when releasing the secondary ${what}`,
  );
