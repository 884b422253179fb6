// Everything else: configuration, nodes, discovery, networking, quotas, leases, events, priorities.

import type { Lease } from "../gen/coordination-v1.ts";
import type { ConfigMap, Endpoints, Event, LimitRange, Node, Secret, Taint } from "../gen/core-v1.ts";
import type { EndpointSlice } from "../gen/discovery-v1.ts";
import type { Ingress, NetworkPolicy } from "../gen/networking-v1.ts";
import type { PriorityClass } from "../gen/scheduling-v1.ts";
import {
  type FieldError,
  fieldForbidden,
  fieldInvalid,
  fieldNotSupported,
  fieldRequired,
  fieldTooLong,
  fieldTooMany,
} from "../status.ts";
import { nanoOf } from "./amount.ts";
import {
  checked,
  labelSelector,
  noDuplicates,
  oneOf,
  portNumber,
  quantity,
  requiredName,
  requiredOneOf,
  same,
  unchanged,
} from "./checks.ts";
import { portOrName } from "./container.ts";
import { eachOf, findings } from "./findings.ts";
import {
  dataKey,
  dns1123Label,
  dns1123Subdomain,
  ipAddress,
  isCidr,
  isIp,
  isIpv4,
  isIpv6,
  labelValue,
  qualifiedName,
  wildcardSubdomain,
} from "./names.ts";

/** 1 MiB of keys and values. */
const maxDataBytes = 1024 * 1024;
const whenImmutable = "field is immutable when `immutable` is set";
const base64Bytes = (text: string): number => Buffer.byteLength(text, "base64");

export function validateConfigMap(map: ConfigMap): FieldError[] {
  const errors = findings();
  let size = 0;
  for (const [key, value] of Object.entries(map.data ?? {})) {
    errors.push(...checked(`data[${key}]`, key, dataKey));
    if (map.binaryData && Object.hasOwn(map.binaryData, key)) {
      errors.push(fieldInvalid(`data[${key}]`, key, "duplicate of key present in binaryData"));
    }
    size += Buffer.byteLength(value, "utf8");
  }
  for (const [key, value] of Object.entries(map.binaryData ?? {})) {
    errors.push(...checked(`binaryData[${key}]`, key, dataKey));
    size += base64Bytes(value);
  }
  // Upstream reports the size at the empty path.
  if (size > maxDataBytes) errors.push(fieldTooLong("[]", maxDataBytes));
  return errors;
}

export function validateConfigMapUpdate(map: ConfigMap, old: ConfigMap): FieldError[] {
  if (!old.immutable) return [];
  const errors = findings(map.immutable ? [] : [fieldForbidden("immutable", whenImmutable)]);
  if (!same(map.data, old.data)) errors.push(fieldForbidden("data", whenImmutable));
  if (!same(map.binaryData, old.binaryData)) errors.push(fieldForbidden("binaryData", whenImmutable));
  return errors;
}

/** Keys that a secret of a type must have. */
const requiredKeys: Readonly<Record<string, readonly string[] | undefined>> = {
  "kubernetes.io/dockercfg": [".dockercfg"],
  "kubernetes.io/dockerconfigjson": [".dockerconfigjson"],
  "kubernetes.io/ssh-auth": ["ssh-privatekey"],
  "kubernetes.io/tls": ["tls.crt", "tls.key"],
};

export function validateSecret(secret: Secret): FieldError[] {
  const errors = findings();
  const data = secret.data ?? {};
  let size = 0;
  for (const [key, value] of Object.entries(data)) {
    errors.push(...checked(`data[${key}]`, key, dataKey));
    size += base64Bytes(value);
  }
  if (size > maxDataBytes) errors.push(fieldTooLong("data", maxDataBytes));
  const type = secret.type ?? "";
  for (const key of requiredKeys[type] ?? []) {
    if (!Object.hasOwn(data, key)) errors.push(fieldRequired(`data[${key}]`));
    else if (key.startsWith(".docker") && !isJson(data[key] ?? "")) {
      errors.push(
        fieldInvalid(`data[${key}]`, "<secret contents redacted>", "invalid character looking for beginning of value"),
      );
    }
  }
  if (type === "kubernetes.io/service-account-token") {
    const annotation = "kubernetes.io/service-account.name";
    if (!secret.metadata.annotations?.[annotation]) errors.push(fieldRequired(`metadata.annotations[${annotation}]`));
  }
  if (type === "kubernetes.io/basic-auth" && !Object.hasOwn(data, "username") && !Object.hasOwn(data, "password")) {
    errors.push(fieldRequired("data[username]"), fieldRequired("data[password]"));
  }
  return errors;
}

function isJson(base64: string): boolean {
  try {
    JSON.parse(Buffer.from(base64, "base64").toString("utf8"));
    return true;
  } catch {
    // That it does not parse is the answer.
    return false;
  }
}

export function validateSecretUpdate(secret: Secret, old: Secret): FieldError[] {
  const errors = findings(unchanged("type", secret.type, old.type));
  if (!old.immutable) return errors;
  if (!secret.immutable) errors.push(fieldForbidden("immutable", whenImmutable));
  if (!same(secret.data, old.data)) errors.push(fieldForbidden("data", whenImmutable));
  return errors;
}

export function validateNode({ spec, status }: Node): FieldError[] {
  const errors = findings(validateTaints("spec.taints", spec?.taints ?? []));
  for (const [i, range] of (spec?.podCIDRs ?? []).entries()) {
    if (!isCidr(range)) {
      const why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
      errors.push(fieldInvalid(`spec.podCIDRs[${i}]`, range, why));
    }
  }
  for (const field of ["capacity", "allocatable"] as const) {
    for (const [name, amount] of Object.entries(status?.[field] ?? {})) {
      errors.push(...quantity(`status.${field}[${name}]`, amount));
    }
  }
  return errors;
}

function validateTaints(path: string, taints: readonly Taint[]): FieldError[] {
  const errors = eachOf(taints, (taint, i) => [
    ...checked(`${path}[${i}].key`, taint.key, qualifiedName),
    ...checked(`${path}[${i}].value`, taint.value ?? "", labelValue),
    ...requiredOneOf(`${path}[${i}].effect`, taint.effect, ["NoSchedule", "PreferNoSchedule", "NoExecute"]),
  ]);
  const key = (taint: Taint) => `${taint.key}:${taint.effect}`;
  return [...errors, ...noDuplicates(taints, key, (i) => `${path}[${i}]`)];
}

export function validateNodeUpdate(node: Node, old: Node): FieldError[] {
  const errors = findings();
  if ((old.spec?.podCIDRs ?? []).length > 0 && !same(node.spec?.podCIDRs, old.spec?.podCIDRs)) {
    const why = 'node updates may not change podCIDR except from "" to valid';
    errors.push(fieldForbidden("spec.podCIDRs", why));
  }
  if (old.spec?.providerID && node.spec?.providerID !== old.spec.providerID) {
    errors.push(fieldForbidden("spec.providerID", 'node updates may not change providerID except from "" to valid'));
  }
  return errors;
}

/** Addresses that mean something else on every machine. */
function endpointAddress(path: string, given: string | undefined): FieldError[] {
  const ip = given ?? "";
  if (!isIp(ip)) return checked(path, ip, ipAddress);
  const kinds: [boolean, string][] = [
    [ip === "0.0.0.0" || ip === "::", "may not be unspecified (0.0.0.0 or ::)"],
    [ip.startsWith("127.") || ip === "::1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"],
    [
      ip.startsWith("169.254.") || /^fe[89ab]/i.test(ip),
      "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    ],
    [
      ip.startsWith("224.0.0.") || /^ff02:/i.test(ip),
      "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
    ],
  ];
  return kinds.filter(([is]) => is).map(([, why]) => fieldInvalid(path, ip, why));
}

const protocols = ["SCTP", "TCP", "UDP"];

export function validateEndpoints({ subsets }: Endpoints): FieldError[] {
  return eachOf(subsets ?? [], (subset, i) => {
    const at = `subsets[${i}]`;
    const errors = findings();
    const { addresses = [], notReadyAddresses = [], ports = [] } = subset;
    if (addresses.length + notReadyAddresses.length === 0) {
      errors.push(fieldRequired(at, "must specify `addresses` or `notReadyAddresses`"));
    }
    for (const [field, list] of [
      ["addresses", addresses],
      ["notReadyAddresses", notReadyAddresses],
    ] as const) {
      for (const [n, entry] of list.entries()) {
        errors.push(...endpointAddress(`${at}.${field}[${n}].ip`, entry.ip));
        if (entry.hostname) errors.push(...checked(`${at}.${field}[${n}].hostname`, entry.hostname, dns1123Label));
      }
    }
    for (const [n, port] of ports.entries()) {
      const path = `${at}.ports[${n}]`;
      if (!port.name && ports.length > 1) errors.push(fieldRequired(`${path}.name`));
      else if (port.name) errors.push(...checked(`${path}.name`, port.name, dns1123Label));
      errors.push(
        ...portNumber(`${path}.port`, port.port),
        ...requiredOneOf(`${path}.protocol`, port.protocol, protocols),
      );
    }
    return errors;
  });
}

/** Bounds of one slice; controllers make more slices instead. */
const maxEndpoints = 1000;
const maxAddresses = 100;
const maxPorts = 20_000;

export function validateEndpointSlice(slice: EndpointSlice): FieldError[] {
  const errors = findings(requiredOneOf("addressType", slice.addressType, ["FQDN", "IPv4", "IPv6"]));
  const endpoints = slice.endpoints ?? [];
  if (endpoints.length > maxEndpoints) return [...errors, fieldTooMany("endpoints", endpoints.length, maxEndpoints)];
  for (const [i, endpoint] of endpoints.entries()) {
    const at = `endpoints[${i}].addresses`;
    const addresses = endpoint.addresses ?? [];
    if (addresses.length === 0) errors.push(fieldRequired(at, "must contain at least 1 address"));
    if (addresses.length > maxAddresses) errors.push(fieldTooMany(at, addresses.length, maxAddresses));
    for (const [n, address] of addresses.slice(0, maxAddresses).entries()) {
      const path = `${at}[${n}]`;
      if (slice.addressType === "FQDN") errors.push(...checked(path, address, dns1123Subdomain));
      else if (slice.addressType === "IPv4" && !isIpv4(address)) {
        errors.push(fieldInvalid(path, address, "must be a valid IPv4 address"));
      } else if (slice.addressType === "IPv6" && !isIpv6(address)) {
        errors.push(fieldInvalid(path, address, "must be a valid IPv6 address"));
      } else errors.push(...endpointAddress(path, address));
    }
    if (endpoint.hostname !== undefined)
      errors.push(...checked(`endpoints[${i}].hostname`, endpoint.hostname, dns1123Label));
  }
  const ports = slice.ports ?? [];
  if (ports.length > maxPorts) return [...errors, fieldTooMany("ports", ports.length, maxPorts)];
  for (const [i, port] of ports.entries()) {
    if (port.name) errors.push(...checked(`ports[${i}].name`, port.name, dns1123Label));
    errors.push(...requiredOneOf(`ports[${i}].protocol`, port.protocol, protocols));
    if (port.port !== undefined) errors.push(...portNumber(`ports[${i}].port`, port.port));
  }
  return errors;
}

export const validateEndpointSliceUpdate = (slice: EndpointSlice, old: EndpointSlice): FieldError[] =>
  unchanged("addressType", slice.addressType, old.addressType);

export function validateLease({ spec }: Lease): FieldError[] {
  const errors = findings(positiveLease("spec.leaseDurationSeconds", spec?.leaseDurationSeconds));
  if (spec?.leaseTransitions != null && spec.leaseTransitions < 0) {
    errors.push(fieldInvalid("spec.leaseTransitions", spec.leaseTransitions, "must be greater than or equal to 0"));
  }
  if (spec?.holderIdentity === "") errors.push(fieldInvalid("spec.holderIdentity", "", "must not be empty"));
  return errors;
}
const positiveLease = (path: string, seconds: number | undefined): FieldError[] =>
  seconds != null && seconds <= 0 ? [fieldInvalid(path, seconds, "must be greater than 0")] : [];

/** A new field of an event may be this long. */
const maxEventText = 128;
const maxEventNote = 1024;

type NewEvent = Event & {
  regarding?: Event["involvedObject"];
  reportingController?: string;
  note?: string;
};

/** Works on both groups' events. Those with an event time come from new clients, who must say more. */
export function validateEvent(event: NewEvent): FieldError[] {
  const isNew = event.involvedObject === undefined && event.regarding !== undefined;
  const about = event.involvedObject ?? event.regarding ?? {};
  const namespace = event.metadata.namespace ?? "";
  const own = about.namespace ?? "";
  const field = `${isNew ? "regarding" : "involvedObject"}.namespace`;
  if (!event.eventTime) {
    // Events of cluster-scoped objects live in default (nodes), whatever namespace they name.
    const fits = own === "" ? namespace === "" || namespace === "default" : own === namespace;
    return fits ? [] : [fieldInvalid(field, own, "does not match event.namespace")];
  }
  const errors = findings();
  if (own === "" && namespace !== "default" && namespace !== "kube-system") {
    errors.push(fieldInvalid(field, own, "does not match event.namespace"));
  } else if (own !== "" && own !== namespace) errors.push(fieldInvalid(field, own, "does not match event.namespace"));
  const controller = event.reportingComponent || event.reportingController || "";
  const path = isNew ? "reportingController" : "reportingComponent";
  if (controller === "") errors.push(fieldRequired(path));
  else errors.push(...checked(path, controller, qualifiedName));
  for (const each of ["reportingInstance", "action", "reason"] as const) {
    const text = event[each] ?? "";
    if (text === "") errors.push(fieldRequired(each));
    if (text.length > maxEventText) errors.push(fieldInvalid(each, "", `can have at most ${maxEventText} characters`));
  }
  if ((event.message ?? event.note ?? "").length > maxEventNote) {
    errors.push(fieldInvalid(isNew ? "note" : "message", "", `can have at most ${maxEventNote} characters`));
  }
  return errors;
}

/** What a user may ask for; the two system classes are above. */
const maxPriority = 1_000_000_000;
const systemClasses: Readonly<Record<string, number | undefined>> = {
  "system-cluster-critical": 2_000_000_000,
  "system-node-critical": 2_000_001_000,
};

export function validatePriorityClass(entry: PriorityClass): FieldError[] {
  const errors = findings();
  const name = entry.metadata.name ?? "";
  if (name.startsWith("system-")) {
    if (systemClasses[name] !== entry.value) {
      const why = "priority class names with 'system-' prefix are reserved for system use only";
      const detail =
        systemClasses[name] === undefined ? `${why}. error: ${name} is not a known system priority class` : why;
      errors.push(fieldForbidden("metadata.name", detail));
    }
  } else if (entry.value > maxPriority) {
    errors.push(fieldForbidden("value", `maximum allowed value of a user defined priority is ${maxPriority}`));
  }
  return [...errors, ...oneOf("preemptionPolicy", entry.preemptionPolicy, ["Never", "PreemptLowerPriority"])];
}

export function validatePriorityClassUpdate(entry: PriorityClass, old: PriorityClass): FieldError[] {
  const errors = findings();
  if (entry.value !== old.value) errors.push(fieldForbidden("value", "may not be changed in an update."));
  return [...errors, ...unchanged("preemptionPolicy", entry.preemptionPolicy, old.preemptionPolicy)];
}

export function validateLimitRange({ spec }: LimitRange): FieldError[] {
  const limits = spec?.limits ?? [];
  const errors = eachOf(limits, (item, i) => {
    const at = `spec.limits[${i}]`;
    const found: FieldError[] = [];
    for (const field of ["max", "min", "default", "defaultRequest"] as const) {
      if (item.type === "Pod" && field.startsWith("default") && Object.keys(item[field] ?? {}).length > 0) {
        found.push(fieldForbidden(`${at}.${field}`, "may not be specified when `type` is 'Pod'"));
      }
      for (const [name, amount] of Object.entries(item[field] ?? {}))
        found.push(...quantity(`${at}.${field}[${name}]`, amount));
    }
    for (const [name, amount] of Object.entries(item.min ?? {})) {
      const [low, high] = [nanoOf(amount), nanoOf(item.max?.[name])];
      if (low === undefined || high === undefined || low <= high) continue;
      const why = `min value ${amount} is greater than max value ${item.max?.[name]}`;
      found.push(fieldInvalid(`${at}.min[${name}]`, String(amount), why));
    }
    return found;
  });
  return [
    ...errors,
    ...noDuplicates(
      limits,
      (item) => item.type,
      (i) => `spec.limits[${i}].type`,
    ),
  ];
}

const pathTypes = ["Exact", "ImplementationSpecific", "Prefix"];
type Backend = NonNullable<NonNullable<Ingress["spec"]>["defaultBackend"]>;

export function validateIngress({ spec }: Ingress): FieldError[] {
  const errors = findings();
  const rules = spec?.rules ?? [];
  if (rules.length === 0 && !spec?.defaultBackend) {
    errors.push(fieldInvalid("spec", rules, "either `defaultBackend` or `rules` must be specified"));
  }
  if (spec?.defaultBackend) errors.push(...validateBackend("spec.defaultBackend", spec.defaultBackend));
  for (const [i, rule] of rules.entries()) {
    const at = `spec.rules[${i}]`;
    if (rule.host) {
      if (isIp(rule.host)) errors.push(fieldInvalid(`${at}.host`, rule.host, "must be a DNS name, not an IP address"));
      errors.push(...checked(`${at}.host`, rule.host, rule.host.includes("*") ? wildcardSubdomain : dns1123Subdomain));
    }
    if (!rule.http) continue;
    if ((rule.http.paths ?? []).length === 0) errors.push(fieldRequired(`${at}.http.paths`));
    for (const [n, entry] of (rule.http.paths ?? []).entries()) {
      const path = `${at}.http.paths[${n}]`;
      if (!entry.pathType) errors.push(fieldRequired(`${path}.pathType`, "pathType must be specified"));
      else errors.push(...oneOf(`${path}.pathType`, entry.pathType, pathTypes));
      const value = entry.path ?? "";
      const mayBeEmpty = entry.pathType === "ImplementationSpecific";
      if (!value.startsWith("/") && !(mayBeEmpty && value === "")) {
        errors.push(fieldInvalid(`${path}.path`, value, "must be an absolute path"));
      }
      if (!mayBeEmpty) errors.push(...validateSegments(`${path}.path`, value));
      errors.push(...validateBackend(`${path}.backend`, entry.backend));
    }
  }
  for (const [i, { hosts = [] }] of (spec?.tls ?? []).entries()) {
    for (const [n, host] of hosts.entries()) {
      const check = host.includes("*") ? wildcardSubdomain : dns1123Subdomain;
      errors.push(...checked(`spec.tls[${i}].hosts[${n}]`, host, check));
    }
  }
  if (spec?.ingressClassName) errors.push(...checked("spec.ingressClassName", spec.ingressClassName, dns1123Subdomain));
  return errors;
}

/** What controllers would read differently from one another. */
function validateSegments(path: string, value: string): FieldError[] {
  const within = ["//", "/./", "/../", "%2f", "%2F"].filter((part) => value.includes(part));
  const atEnd = ["/..", "/."].filter((part) => value.endsWith(part));
  return [
    ...within.map((part) => fieldInvalid(path, value, `must not contain '${part}'`)),
    ...atEnd.map((part) => fieldInvalid(path, value, `cannot end with '${part}'`)),
  ];
}

function validateBackend(path: string, backend: Backend | undefined): FieldError[] {
  const { service, resource } = backend ?? {};
  if (service && resource) {
    return [fieldInvalid(path, "", "cannot set both resource and service backends")];
  }
  if (resource) {
    const errors = findings(resource.kind ? [] : [fieldRequired(`${path}.resource.kind`)]);
    return resource.name ? errors : [...errors, fieldRequired(`${path}.resource.name`)];
  }
  if (!service) return [fieldRequired(path, "must specify either a service or resource backend")];
  const errors = findings(requiredName(`${path}.service.name`, service.name, dns1123Label));
  const { port } = service;
  if (!port?.name && !port?.number) return [...errors, fieldRequired(`${path}`, "port name or number is required")];
  if (port.name && port.number) errors.push(fieldInvalid(path, "", "cannot set both port name & port number"));
  return [...errors, ...portOrName(`${path}.service.port.${port.name ? "name" : "number"}`, port.name ?? port.number)];
}

export function validateNetworkPolicy({ spec }: NetworkPolicy): FieldError[] {
  if (!spec) return [];
  const errors = findings(labelSelector("spec.podSelector", spec.podSelector));
  for (const kind of ["ingress", "egress"] as const) {
    for (const [i, rule] of (spec[kind] ?? []).entries()) {
      const at = `spec.${kind}[${i}]`;
      for (const [n, port] of (rule.ports ?? []).entries()) {
        const path = `${at}.ports[${n}]`;
        errors.push(...oneOf(`${path}.protocol`, port.protocol, protocols));
        if (port.port !== undefined) errors.push(...portOrName(`${path}.port`, port.port));
        if (port.endPort !== undefined && (typeof port.port !== "number" || port.endPort < port.port)) {
          errors.push(fieldInvalid(`${path}.endPort`, port.endPort, "must be greater than or equal to `port`"));
        }
      }
      const side = kind === "ingress" ? "from" : "to";
      const peers = (rule as { from?: Peer[]; to?: Peer[] })[side] ?? [];
      for (const [n, peer] of peers.entries()) errors.push(...validatePeer(`${at}.${side}[${n}]`, peer));
    }
  }
  const types = spec.policyTypes ?? [];
  if (types.length > 2) {
    errors.push(fieldInvalid("spec.policyTypes", types, "may not specify more than two policyTypes"));
  }
  for (const [i, type] of types.entries()) {
    if (!["Ingress", "Egress"].includes(type)) {
      errors.push(fieldNotSupported(`spec.policyTypes[${i}]`, type, ["Egress", "Ingress"]));
    }
  }
  return errors;
}

type Peer = NonNullable<NonNullable<NonNullable<NetworkPolicy["spec"]>["ingress"]>[number]["from"]>[number];

function validatePeer(path: string, peer: Peer): FieldError[] {
  const present = Object.values(peer).filter((value) => value != null).length;
  if (present === 0) return [fieldRequired(path, "must specify a peer")];
  const errors = findings([
    ...labelSelector(`${path}.podSelector`, peer.podSelector),
    ...labelSelector(`${path}.namespaceSelector`, peer.namespaceSelector),
  ]);
  if (!peer.ipBlock) return errors;
  if (present > 1) errors.push(fieldForbidden(path, "may not specify both ipBlock and another peer"));
  const why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
  if (!peer.ipBlock.cidr) errors.push(fieldRequired(`${path}.ipBlock.cidr`));
  else if (!isCidr(peer.ipBlock.cidr)) errors.push(fieldInvalid(`${path}.ipBlock.cidr`, peer.ipBlock.cidr, why));
  for (const [i, range] of (peer.ipBlock.except ?? []).entries()) {
    if (!isCidr(range)) errors.push(fieldInvalid(`${path}.ipBlock.except[${i}]`, range, why));
  }
  return errors;
}
