// Containers of every sort: ports, environment, mounts, probes, hooks, resources, security. Upstream:
// validateContainerCommon and its helpers in pkg/apis/core/validation.
import type {
  Container,
  ContainerPort,
  ContainerResizePolicy,
  EnvFromSource,
  EnvVar,
  ExecAction,
  GRPCAction,
  HTTPGetAction,
  Probe,
  ResourceRequirements,
  SecurityContext,
  TCPSocketAction,
  VolumeMount,
} from "../gen/core-v1.ts";
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldNotFound,
  fieldRequired,
} from "../status.ts";
import { isWhole, nanoOf } from "./amount.ts";
import {
  checked,
  noDuplicates,
  notNegative,
  oneOf,
  portNumber,
  quantity,
  requiredName,
  requiredOneOf,
} from "./checks.ts";
import { eachOf, findings } from "./findings.ts";
import { dataKey, dns1123Label, environmentName, portName, qualifiedName } from "./names.ts";

export interface ContainerContext {
  /** Names of the pod's volumes. */
  readonly volumes: ReadonlySet<string>;
  readonly hostNetwork: boolean;
}

/** What app containers and init containers share. */
export function validateContainer(path: string, container: Container, context: ContainerContext): FieldError[] {
  const errors = findings(requiredName(`${path}.name`, container.name, dns1123Label));
  const image = container.image ?? "";
  if (image === "") errors.push(fieldRequired(`${path}.image`));
  else if (image.trim() !== image) {
    errors.push(fieldInvalid(`${path}.image`, image, "must not have leading or trailing whitespace"));
  }
  errors.push(
    ...requiredOneOf(`${path}.terminationMessagePolicy`, container.terminationMessagePolicy, [
      "File",
      "FallbackToLogsOnError",
    ]),
    ...requiredOneOf(`${path}.imagePullPolicy`, container.imagePullPolicy, ["Always", "IfNotPresent", "Never"]),
    ...validatePorts(`${path}.ports`, container.ports ?? [], context),
    ...eachOf(container.env ?? [], (variable, i) => validateVariable(`${path}.env[${i}]`, variable)),
    ...eachOf(container.envFrom ?? [], (source, i) => validateEnvFrom(`${path}.envFrom[${i}]`, source)),
    ...validateMounts(`${path}.volumeMounts`, container.volumeMounts ?? [], context),
    ...validateResources(`${path}.resources`, container.resources),
    ...validateSecurity(`${path}.securityContext`, container.securityContext),
  );
  return errors;
}

/** Probes and hooks: those that keep running have them. */
export function validateLifecycle(path: string, container: Container): FieldError[] {
  const hooks = [
    [`${path}.lifecycle.postStart`, container.lifecycle?.postStart],
    [`${path}.lifecycle.preStop`, container.lifecycle?.preStop],
  ] as const;
  return [
    ...eachOf(hooks, ([at, hook]) => (hook ? validateHandler(at, hook) : [])),
    ...validateProbe(`${path}.livenessProbe`, container.livenessProbe, true),
    ...validateProbe(`${path}.readinessProbe`, container.readinessProbe, false),
    ...validateProbe(`${path}.startupProbe`, container.startupProbe, true),
  ];
}

function validatePorts(path: string, ports: readonly ContainerPort[], { hostNetwork }: ContainerContext): FieldError[] {
  const errors = eachOf(ports, (port, i) => {
    const at = `${path}[${i}]`;
    const found: FieldError[] = [];
    if (port.name) found.push(...checked(`${at}.name`, port.name, portName));
    if (!port.containerPort) found.push(fieldRequired(`${at}.containerPort`));
    else found.push(...portNumber(`${at}.containerPort`, port.containerPort));
    if (port.hostPort) found.push(...portNumber(`${at}.hostPort`, port.hostPort));
    if (hostNetwork && port.hostPort !== port.containerPort) {
      found.push(
        fieldInvalid(`${at}.containerPort`, port.containerPort, "must match `hostPort` when `hostNetwork` is true"),
      );
    }
    return [...found, ...requiredOneOf(`${at}.protocol`, port.protocol, ["TCP", "UDP", "SCTP"])];
  });
  return [
    ...errors,
    ...noDuplicates(
      ports,
      (port) => port.name,
      (i) => `${path}[${i}].name`,
    ),
  ];
}

/** Two containers of one pod cannot have the same port of the node. */
export function validateHostPorts(path: string, containers: readonly Container[]): FieldError[] {
  const taken = new Set<string>();
  return eachOf(containers, (container, c) =>
    eachOf(container.ports ?? [], (port, p) => {
      if (!port.hostPort) return [];
      const key = `${port.protocol}/${port.hostIP ?? ""}/${port.hostPort}`;
      const clash = taken.has(key) ? [fieldDuplicate(`${path}[${c}].ports[${p}].hostPort`, key)] : [];
      taken.add(key);
      return clash;
    }),
  );
}

const fieldPaths = [
  "metadata.name",
  "metadata.namespace",
  "metadata.uid",
  "spec.nodeName",
  "spec.serviceAccountName",
  "status.hostIP",
  "status.hostIPs",
  "status.podIP",
  "status.podIPs",
];

function validateVariable(path: string, variable: EnvVar): FieldError[] {
  const errors = findings(requiredName(`${path}.name`, variable.name, environmentName));
  const from = variable.valueFrom;
  if (!from) return errors;
  const at = `${path}.valueFrom`;
  const present = Object.values(from).filter((source) => source != null).length;
  if (present === 0) {
    errors.push(
      fieldInvalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"),
    );
  } else if (variable.value) errors.push(fieldInvalid(at, "", "may not be specified when `value` is not empty"));
  else if (present > 1) errors.push(fieldInvalid(at, "", "may not have more than one field specified at a time"));
  if (from.fieldRef) errors.push(...validateFieldRef(`${at}.fieldRef`, from.fieldRef, fieldPaths));
  if (from.resourceFieldRef && !from.resourceFieldRef.resource)
    errors.push(fieldRequired(`${at}.resourceFieldRef.resource`));
  for (const field of ["configMapKeyRef", "secretKeyRef"] as const) {
    const reference = from[field];
    if (!reference) continue;
    if (!reference.name) errors.push(fieldRequired(`${at}.${field}.name`));
    errors.push(...requiredName(`${at}.${field}.key`, reference.key, dataKey));
  }
  return errors;
}

/** A field of the pod, plain or as `metadata.labels['key']`. */
export function validateFieldRef(
  path: string,
  reference: { readonly apiVersion?: string; readonly fieldPath: string },
  allowed: readonly string[],
): FieldError[] {
  const errors = findings();
  if (!reference.apiVersion) errors.push(fieldRequired(`${path}.apiVersion`));
  if (!reference.fieldPath) return [...errors, fieldRequired(`${path}.fieldPath`)];
  const subscript = /^(metadata\.(?:labels|annotations))\['([^']*)'\]$/.exec(reference.fieldPath);
  if (subscript) return [...errors, ...checked(path, (subscript[2] ?? "").toLowerCase(), qualifiedName)];
  if (!fieldPaths.includes(reference.fieldPath) && !allowed.includes(reference.fieldPath)) {
    const why = `error converting fieldPath: field label not supported: ${reference.fieldPath}`;
    errors.push(fieldInvalid(`${path}.fieldPath`, reference.fieldPath, why));
  } else if (!allowed.includes(reference.fieldPath)) {
    errors.push(...oneOf(`${path}.fieldPath`, reference.fieldPath, allowed));
  }
  return errors;
}

function validateEnvFrom(path: string, source: EnvFromSource): FieldError[] {
  const errors = findings(source.prefix ? checked(`${path}.prefix`, source.prefix, environmentName) : []);
  if (!source.configMapRef && !source.secretRef) {
    errors.push(fieldInvalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
  } else if (source.configMapRef && source.secretRef) {
    errors.push(fieldInvalid(path, "", "may not have more than one field specified at a time"));
  }
  if (source.configMapRef && !source.configMapRef.name) errors.push(fieldRequired(`${path}.configMapRef.name`));
  if (source.secretRef && !source.secretRef.name) errors.push(fieldRequired(`${path}.secretRef.name`));
  return errors;
}

function validateMounts(path: string, mounts: readonly VolumeMount[], context: ContainerContext): FieldError[] {
  const seen = new Set<string>();
  return eachOf(mounts, (mount, i) => {
    const at = `${path}[${i}]`;
    const errors = findings();
    if (!mount.name) errors.push(fieldRequired(`${at}.name`));
    else if (!context.volumes.has(mount.name)) errors.push(fieldNotFound(`${at}.name`, mount.name));
    if (!mount.mountPath) errors.push(fieldRequired(`${at}.mountPath`));
    else if (seen.has(mount.mountPath)) errors.push(fieldInvalid(`${at}.mountPath`, mount.mountPath, "must be unique"));
    seen.add(mount.mountPath);
    if (mount.subPath && mount.subPathExpr) {
      errors.push(
        fieldInvalid(`${at}.subPathExpr`, mount.subPathExpr, "subPathExpr and subPath are mutually exclusive"),
      );
    }
    for (const field of ["subPath", "subPathExpr"] as const) {
      if (mount[field]) errors.push(...validateRelativePath(`${at}.${field}`, mount[field]));
    }
    errors.push(
      ...oneOf(`${at}.mountPropagation`, mount.mountPropagation, ["Bidirectional", "HostToContainer", "None"]),
    );
    return errors;
  });
}

export function validateRelativePath(path: string, value: string): FieldError[] {
  const errors = findings();
  if (value.startsWith("/")) errors.push(fieldInvalid(path, value, "must be a relative path"));
  return [...errors, ...validateNoBackSteps(path, value)];
}

export function validateNoBackSteps(path: string, value: string): FieldError[] {
  return value.split("/").includes("..") ? [fieldInvalid(path, value, "must not contain '..'")] : [];
}

interface Handler {
  readonly exec?: ExecAction;
  readonly httpGet?: HTTPGetAction;
  readonly tcpSocket?: TCPSocketAction;
  readonly grpc?: GRPCAction;
  readonly sleep?: { readonly seconds: number };
}

function validateProbe(path: string, probe: Probe | undefined, mustSucceedOnce: boolean): FieldError[] {
  if (!probe) return [];
  const errors = findings(validateHandler(path, probe));
  const counts = [
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
  ] as const;
  for (const field of counts) errors.push(...notNegative(`${path}.${field}`, probe[field]));
  if (probe.terminationGracePeriodSeconds != null && probe.terminationGracePeriodSeconds <= 0) {
    const at = `${path}.terminationGracePeriodSeconds`;
    errors.push(fieldInvalid(at, probe.terminationGracePeriodSeconds, "must be greater than 0"));
  }
  if (mustSucceedOnce && (probe.successThreshold ?? 1) !== 1) {
    errors.push(fieldInvalid(`${path}.successThreshold`, probe.successThreshold, "must be 1"));
  }
  return errors;
}

function validateHandler(path: string, handler: Handler): FieldError[] {
  const errors = findings();
  let found = 0;
  const first = (field: string): boolean => {
    if (++found > 1) errors.push(fieldForbidden(`${path}.${field}`, "may not specify more than 1 handler type"));
    return found === 1;
  };
  if (handler.exec && first("exec") && (handler.exec.command ?? []).length === 0) {
    errors.push(fieldRequired(`${path}.exec.command`));
  }
  if (handler.httpGet && first("httpGet")) {
    const { path: target, port, scheme, httpHeaders } = handler.httpGet;
    if (!target) errors.push(fieldRequired(`${path}.httpGet.path`));
    errors.push(...portOrName(`${path}.httpGet.port`, port));
    errors.push(...oneOf(`${path}.httpGet.scheme`, scheme, ["HTTP", "HTTPS"]));
    for (const header of httpHeaders ?? []) {
      if (/^[-A-Za-z0-9]+$/.test(header.name)) continue;
      const why =
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
      errors.push(fieldInvalid(`${path}.httpGet.httpHeaders`, header.name, why));
    }
  }
  if (handler.tcpSocket && first("tcpSocket"))
    errors.push(...portOrName(`${path}.tcpSocket.port`, handler.tcpSocket.port));
  if (handler.grpc && first("grpc")) errors.push(...portNumber(`${path}.grpc.port`, handler.grpc.port));
  if (handler.sleep && first("sleep")) errors.push(...notNegative(`${path}.sleep.seconds`, handler.sleep.seconds));
  if (found === 0) errors.push(fieldRequired(path, "must specify a handler type"));
  return errors;
}

export function portOrName(path: string, value: number | string | undefined): FieldError[] {
  return typeof value === "string" ? checked(path, value, portName) : portNumber(path, value ?? 0);
}

const isStandard = (name: string): boolean =>
  name === "cpu" || name === "memory" || name === "ephemeral-storage" || name.startsWith("hugepages-");
const mayOvercommit = (name: string): boolean => name === "cpu" || name === "memory" || name === "ephemeral-storage";

function validateResourceName(path: string, name: string): FieldError[] {
  const errors = findings(checked(path, name, qualifiedName));
  if (errors.length > 0 || name.includes("/") || isStandard(name)) return errors;
  return [fieldInvalid(path, name, "must be a standard resource for containers")];
}

export function validateResources(path: string, resources: ResourceRequirements | undefined): FieldError[] {
  const errors = findings();
  const limits = resources?.limits ?? {};
  const requests = resources?.requests ?? {};
  const amount = (at: string, name: string, value: string | number): bigint | undefined => {
    const number = nanoOf(value);
    errors.push(...validateResourceName(at, name), ...quantity(`${at}[${name}]`, value, number));
    if (name.includes("/") && number !== undefined && !isWhole(number)) {
      errors.push(fieldInvalid(`${at}[${name}]`, String(value), "must be an integer"));
    }
    return number;
  };
  for (const [name, value] of Object.entries(limits)) {
    amount(`${path}.limits`, name, value);
  }
  for (const [name, value] of Object.entries(requests)) {
    const asked = amount(`${path}.requests`, name, value);
    const limit = Object.hasOwn(limits, name) ? limits[name] : undefined;
    const most = nanoOf(limit);
    if (limit === undefined) {
      if (!mayOvercommit(name)) {
        errors.push(fieldRequired(`${path}.limits`, "Limit must be set for non overcommitable resources"));
      }
    } else if (asked !== undefined && most !== undefined) {
      if (!mayOvercommit(name) && asked !== most) {
        errors.push(fieldInvalid(`${path}.requests`, String(value), `must be equal to ${name} limit of ${limit}`));
      } else if (asked > most) {
        const why = `must be less than or equal to ${name} limit of ${limit}`;
        errors.push(fieldInvalid(`${path}.requests`, String(value), why));
      }
    }
  }
  return errors;
}

/** Of a running container's cpu and memory: whether a change needs a restart, which a pod that runs once does not get. */
export function validateResizePolicy(
  path: string,
  policies: readonly ContainerResizePolicy[],
  restartPolicy: string | undefined,
): FieldError[] {
  const seen = new Set<string>();
  return eachOf(policies, (policy, i) => {
    const name = policy.resourceName ?? "";
    const errors = findings(seen.has(name) ? [fieldDuplicate(`${path}[${i}]`, name)] : []);
    seen.add(name);
    errors.push(
      ...requiredOneOf(path, name, ["cpu", "memory"]),
      ...requiredOneOf(path, policy.restartPolicy, ["NotRequired", "RestartContainer"]),
    );
    if (restartPolicy === "Never" && policy.restartPolicy !== "NotRequired") {
      const why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
      errors.push(fieldInvalid(path, policy.restartPolicy, why));
    }
    return errors;
  });
}

function validateSecurity(path: string, security: SecurityContext | undefined): FieldError[] {
  if (!security) return [];
  const errors = findings([
    ...validateId(`${path}.runAsUser`, security.runAsUser),
    ...validateId(`${path}.runAsGroup`, security.runAsGroup),
    ...oneOf(`${path}.procMount`, security.procMount, ["Default", "Unmasked"]),
    ...validateSeccomp(`${path}.seccompProfile`, security.seccompProfile),
  ]);
  if (security.allowPrivilegeEscalation === false) {
    const at = `${path}.allowPrivilegeEscalation`;
    if (security.privileged) {
      errors.push(
        fieldInvalid(path, security, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"),
      );
    }
    if ((security.capabilities?.add ?? []).includes("CAP_SYS_ADMIN")) {
      const why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
      errors.push(fieldInvalid(at, security, why));
    }
  }
  return errors;
}

/** A user or group number. */
export function validateId(path: string, id: number | undefined): FieldError[] {
  return id == null || (id >= 0 && id <= 2147483647)
    ? []
    : [fieldInvalid(path, id, "must be between 0 and 2147483647, inclusive")];
}

export function validateSeccomp(
  path: string,
  profile: { readonly type: string; readonly localhostProfile?: string } | undefined,
): FieldError[] {
  if (!profile) return [];
  const errors = findings(requiredOneOf(`${path}.type`, profile.type, ["Localhost", "RuntimeDefault", "Unconfined"]));
  const at = `${path}.localhostProfile`;
  if (profile.type === "Localhost") {
    if (!profile.localhostProfile) errors.push(fieldRequired(at, "must be set when seccomp type is Localhost"));
    else errors.push(...validateRelativePath(at, profile.localhostProfile));
  } else if (profile.localhostProfile !== undefined) {
    errors.push(fieldInvalid(at, profile, "can only be set when seccomp type is Localhost"));
  }
  return errors;
}

export const containerNameIsUnique = (
  path: string,
  containers: readonly { readonly name: string }[],
  others: ReadonlySet<string>,
): FieldError[] => {
  const seen = new Set(others);
  return eachOf(containers, ({ name }, i) => {
    const clash = name && seen.has(name) ? [fieldDuplicate(`${path}[${i}].name`, name)] : [];
    seen.add(name);
    return clash;
  });
};
