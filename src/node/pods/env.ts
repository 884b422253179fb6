// A container's environment. Pure: referenced objects are handed in. Later entries may use earlier ones as $(NAME);
// $$(NAME) stays literal. Precedence: service variables, envFrom, env. Counterpart: the kubelet's makeEnvironmentVariables.
import type { ConfigMap, Container, EnvVarSource, Pod, Secret, Service } from "#model/gen/core-v1.ts";
import { milliOf, wholeOf } from "./quantities.ts";

export interface EnvInput {
  readonly pod: Pod;
  readonly container: Container;
  readonly configMap: (name: string) => ConfigMap | undefined;
  readonly secret: (name: string) => Secret | undefined;
  /** Of the pod's namespace, and `kubernetes` of default. */
  readonly services: readonly Service[];
  readonly nodeName: string;
  readonly hostIps: readonly string[];
  readonly podIps: readonly string[];
  readonly capacity: ResourceDefaults;
}

/** What stands for a limit that a container does not have. */
export interface ResourceDefaults {
  readonly milliCpu: number;
  readonly memoryBytes: number;
  readonly ephemeralBytes?: number;
}

/** A reference that cannot be met: the container waits with CreateContainerConfigError and this text. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

export function buildEnv(input: EnvInput): Map<string, string> {
  const { pod, container } = input;
  const base = new Map<string, string>();
  for (const service of input.services) {
    const isMaster = service.metadata.namespace === "default" && service.metadata.name === "kubernetes";
    if (pod.spec.enableServiceLinks === false && !isMaster) continue;
    if (service.metadata.namespace !== pod.metadata.namespace && !isMaster) continue;
    for (const [name, value] of serviceVariables(service)) base.set(name, value);
  }
  const out = new Map<string, string>();
  for (const source of container.envFrom ?? []) {
    const reference = source.configMapRef ?? source.secretRef;
    if (!reference) continue;
    const kind = source.configMapRef ? "configmap" : "secret";
    const name = reference.name ?? "";
    const object = source.configMapRef ? input.configMap(name) : input.secret(name);
    if (!object) {
      if (reference.optional) continue;
      throw new ConfigError(`${kind} "${name}" not found`);
    }
    for (const [key, value] of Object.entries(object.data ?? {})) {
      const variable = `${source.prefix ?? ""}${key}`;
      if (!/^[^=\0]+$/.test(variable)) continue;
      out.set(variable, source.secretRef ? decodeSecret(value) : value);
    }
  }
  for (const variable of container.env ?? []) {
    const value = variable.valueFrom
      ? resolve(input, variable.valueFrom)
      : expand(variable.value ?? "", (name) => out.get(name) ?? base.get(name));
    if (value !== undefined) out.set(variable.name, value);
  }
  for (const [name, value] of base) if (!out.has(name)) out.set(name, value);
  return out;
}

function resolve(input: EnvInput, source: EnvVarSource): string | undefined {
  if (source.fieldRef) return podField(input.pod, source.fieldRef.fieldPath, input);
  if (source.resourceFieldRef) {
    const { containerName, resource, divisor } = source.resourceFieldRef;
    const container = containerName
      ? [...(input.pod.spec.containers ?? []), ...(input.pod.spec.initContainers ?? [])].find(
          (c) => c.name === containerName,
        )
      : input.container;
    if (!container) throw new ConfigError(`container "${containerName}" not found`);
    return resourceField(container, resource, divisor, input.capacity);
  }
  const reference = source.configMapKeyRef ?? source.secretKeyRef;
  if (!reference) return undefined;
  const kind = source.configMapKeyRef ? "configmap" : "secret";
  const name = reference.name ?? "";
  const object = source.configMapKeyRef ? input.configMap(name) : input.secret(name);
  if (!object) {
    if (reference.optional) return undefined;
    throw new ConfigError(`${kind} "${name}" not found`);
  }
  const value = object.data?.[reference.key];
  if (value === undefined) {
    if (reference.optional) return undefined;
    const what = source.configMapKeyRef ? "ConfigMap" : "Secret";
    throw new ConfigError(`couldn't find key ${reference.key} in ${what} ${input.pod.metadata.namespace}/${name}`);
  }
  return source.secretKeyRef ? decodeSecret(value) : value;
}

const decodeSecret = (base64: string): string => Buffer.from(base64, "base64").toString("utf8");

export interface FieldContext {
  readonly nodeName: string;
  readonly hostIps: readonly string[];
  readonly podIps: readonly string[];
}

/** The downward API's fields; undefined for a path that does not exist. */
export function podField(pod: Pod, path: string, context: FieldContext): string {
  const subscript = /^metadata\.(labels|annotations)\['(.*)'\]$/.exec(path);
  if (subscript) return pod.metadata[subscript[1] as "labels" | "annotations"]?.[subscript[2]!] ?? "";
  switch (path) {
    case "metadata.name":
      return pod.metadata.name ?? "";
    case "metadata.namespace":
      return pod.metadata.namespace ?? "";
    case "metadata.uid":
      return pod.metadata.uid ?? "";
    case "metadata.labels":
      return formatMap(pod.metadata.labels);
    case "metadata.annotations":
      return formatMap(pod.metadata.annotations);
    case "spec.nodeName":
      return context.nodeName;
    case "spec.serviceAccountName":
      return pod.spec.serviceAccountName ?? "";
    case "status.hostIP":
      return context.hostIps[0] ?? "";
    case "status.hostIPs":
      return context.hostIps.join(",");
    case "status.podIP":
      return context.podIps[0] ?? "";
    case "status.podIPs":
      return context.podIps.join(",");
    default:
      throw new ConfigError(`unsupported fieldPath: ${path}`);
  }
}

/** `key="value"` lines in key order, as the downward API writes maps. */
const formatMap = (map: Readonly<Record<string, string>> | undefined): string =>
  Object.entries(map ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join("\n");

export function resourceField(
  container: Container,
  resource: string,
  divisor: string | undefined,
  capacity: EnvInput["capacity"],
): string {
  const [where, name] = resource.split(".") as ["limits" | "requests", string];
  const given = container.resources?.[where]?.[name];
  const unit = divisor && divisor !== "0" ? divisor : "1";
  if (name === "cpu") {
    const milli = given === undefined ? (where === "limits" ? capacity.milliCpu : 0) : milliOf(given);
    return String(Math.ceil(milli / milliOf(unit)));
  }
  const defaults: Readonly<Record<string, number | undefined>> = {
    memory: capacity.memoryBytes,
    "ephemeral-storage": capacity.ephemeralBytes,
  };
  const bytes = given === undefined ? (where === "limits" ? (defaults[name] ?? 0) : 0) : wholeOf(given);
  return String(Math.ceil(bytes / wholeOf(unit)));
}

/** `$(NAME)` by `lookup`; unknown names and `$$` as upstream: left, and one dollar. */
export function expand(text: string, lookup: (name: string) => string | undefined): string {
  return text.replace(/\$(\$|\(([^)]*)\))/g, (whole, second: string, name: string | undefined) => {
    if (second === "$") return "$";
    return lookup(name ?? "") ?? whole;
  });
}

/** The variables Docker links gave; only services with a cluster address have them. */
export function serviceVariables(service: Service): [string, string][] {
  const ip = service.spec.clusterIP;
  const ports = service.spec.ports ?? [];
  if (!ip || ip === "None" || ports.length === 0) return [];
  const prefix = (service.metadata.name ?? "").toUpperCase().replaceAll("-", "_");
  const out: [string, string][] = [
    [`${prefix}_SERVICE_HOST`, ip],
    [`${prefix}_SERVICE_PORT`, String(ports[0]!.port)],
  ];
  for (const port of ports) {
    if (port.name)
      out.push([`${prefix}_SERVICE_PORT_${port.name.toUpperCase().replaceAll("-", "_")}`, String(port.port)]);
  }
  const host = ip.includes(":") ? `[${ip}]` : ip;
  for (const [i, port] of ports.entries()) {
    const protocol = (port.protocol ?? "TCP").toUpperCase();
    const url = `${protocol.toLowerCase()}://${host}:${port.port}`;
    if (i === 0) out.push([`${prefix}_PORT`, url]);
    const one = `${prefix}_PORT_${port.port}_${protocol}`;
    out.push(
      [one, url],
      [`${one}_PROTO`, protocol.toLowerCase()],
      [`${one}_PORT`, String(port.port)],
      [`${one}_ADDR`, ip],
    );
  }
  return out;
}
