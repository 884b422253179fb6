// Whether a pod that is bound here may start at all: what the kubelet checks before its first sync. A refused pod is Failed at
// once with the reason, and never started. Pure. Texts and reasons are the kubelet's admit handlers'.
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { matchesNodeSelector } from "#model/node-selector.ts";
import { type Amounts, misfit } from "../capacity.ts";

export interface Refusal {
  readonly reason: string;
  readonly message: string;
}

export interface AdmissionInput {
  readonly pod: Pod;
  /** Pods that hold resources here, without this one. */
  readonly others: readonly Pod[];
  readonly allocatable: Amounts;
  readonly allowedUnsafeSysctls: readonly string[];
  readonly hasAppArmor: boolean;
  readonly node: Node | undefined;
  readonly underPressure: (pod: Pod) => Refusal | undefined;
  readonly isShuttingDown: boolean;
}

/** Namespaced and harmless to others: what any pod may set. */
const safeSysctls = new Set([
  "kernel.shm_rmid_forced",
  "net.ipv4.ip_local_port_range",
  "net.ipv4.tcp_syncookies",
  "net.ipv4.ping_group_range",
  "net.ipv4.ip_unprivileged_port_start",
  "net.ipv4.ip_local_reserved_ports",
  "net.ipv4.tcp_keepalive_time",
  "net.ipv4.tcp_fin_timeout",
  "net.ipv4.tcp_keepalive_intvl",
  "net.ipv4.tcp_keepalive_probes",
  "net.ipv4.tcp_rmem",
  "net.ipv4.tcp_wmem",
]);
/** Of the namespaces a pod shares with the host, nothing may be set. */
const ipcSysctls = /^(kernel\.(sem|shm.*|msg.*)|fs\.mqueue\..*)$/;

const matches = (name: string, pattern: string) =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;

export function admit(input: AdmissionInput): Refusal | undefined {
  return (
    shutdownRefusal(input) ??
    input.underPressure(input.pod) ??
    osRefusal(input.pod) ??
    sysctlRefusal(input.pod, input.allowedUnsafeSysctls) ??
    appArmorRefusal(input.pod, input.hasAppArmor) ??
    selectorRefusal(input.pod, input.node) ??
    portRefusal(input.pod, input.others) ??
    misfit(input.pod, input.others, input.allocatable)
  );
}

const shutdownRefusal = (input: AdmissionInput): Refusal | undefined =>
  input.isShuttingDown
    ? { reason: "NodeShutdown", message: "Pod was rejected as the node is shutting down." }
    : undefined;

const osRefusal = (pod: Pod): Refusal | undefined =>
  pod.spec.os && pod.spec.os.name !== "linux"
    ? {
        reason: "PodOSNotSupported",
        message: "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS",
      }
    : undefined;

export function sysctlRefusal(pod: Pod, allowed: readonly string[]): Refusal | undefined {
  for (const { name: given } of pod.spec.securityContext?.sysctls ?? []) {
    const name = given.replaceAll("/", ".");
    const isShared = (pod.spec.hostNetwork && name.startsWith("net.")) || (pod.spec.hostIPC && ipcSysctls.test(name));
    if (isShared) return forbiddenSysctl(given, pod.spec.hostIPC && ipcSysctls.test(name) ? "ipc" : "net");
    if (!safeSysctls.has(name) && !allowed.some((pattern) => matches(name, pattern))) {
      return { reason: "SysctlForbidden", message: `Pod was rejected: forbidden sysctl: "${given}" not allowlisted` };
    }
  }
  return undefined;
}

const forbiddenSysctl = (name: string, space: "ipc" | "net"): Refusal => ({
  reason: "SysctlForbidden",
  message: `Pod was rejected: forbidden sysctl: "${name}" not allowed with host ${space} enabled`,
});

function appArmorRefusal(pod: Pod, hasAppArmor: boolean): Refusal | undefined {
  if (hasAppArmor) return undefined;
  const profiles = [
    pod.spec.securityContext?.appArmorProfile,
    ...[...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])].map(
      (c) => c.securityContext?.appArmorProfile,
    ),
  ];
  return profiles.some((profile) => profile && profile.type !== "Unconfined")
    ? { reason: "AppArmor", message: "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host" }
    : undefined;
}

interface HostPort {
  readonly ip: string;
  readonly protocol: string;
  readonly port: number;
}

const hostPorts = (pod: Pod): HostPort[] =>
  [
    ...(pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === "Always"),
    ...(pod.spec.containers ?? []),
  ].flatMap((c) =>
    (c.ports ?? []).flatMap((p) =>
      p.hostPort ? [{ ip: p.hostIP || "0.0.0.0", protocol: p.protocol ?? "TCP", port: p.hostPort }] : [],
    ),
  );

/** Two pods cannot have the same port of the host; one on all addresses stands in the way of one on any. */
function portRefusal(pod: Pod, others: readonly Pod[]): Refusal | undefined {
  const wanted = hostPorts(pod);
  if (wanted.length === 0) return undefined;
  const taken = others.flatMap(hostPorts);
  const isTaken = (a: HostPort) =>
    taken.some(
      (b) =>
        a.port === b.port && a.protocol === b.protocol && (a.ip === b.ip || a.ip === "0.0.0.0" || b.ip === "0.0.0.0"),
    );
  return wanted.some(isTaken)
    ? {
        reason: "NodePorts",
        message:
          "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
      }
    : undefined;
}

export const affinityReason = "NodeAffinity";

/** The node's labels may have changed since the pod was bound; static pods and daemons are not asked. */
function selectorRefusal(pod: Pod, node: Node | undefined): Refusal | undefined {
  if (!node) return undefined;
  const labels = node.metadata.labels ?? {};
  const required = pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  const isMet =
    Object.entries(pod.spec.nodeSelector ?? {}).every(([key, value]) => labels[key] === value) &&
    (!required || matchesNodeSelector(required, { name: node.metadata.name ?? "", labels }));
  return isMet
    ? undefined
    : {
        reason: affinityReason,
        message: "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
      };
}
