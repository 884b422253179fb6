// The CRI configurations of a pod's sandbox and containers. Pure: paths, addresses and environment are handed in.
// Labels and annotations are the kubelet's, so that crictl and log collectors find what they expect.

import type { AppArmorProfile, Container, Pod, SeccompProfile } from "#model/gen/core-v1.ts";
import { graceSecondsOf } from "#model/pod-grace.ts";
import * as cri from "#wire/gen/cri.ts";
import type { ContainerConfig, SandboxConfig } from "../cri.ts";
import type { Extras } from "../hardware/manager.ts";
import { annotations, labels } from "../runtime-cache.ts";
import { type DnsSettings, podHostname } from "./dns.ts";
import { ConfigError, expand } from "./env.ts";
import { containerHash } from "./plan.ts";
import { milliOf, wholeOf } from "./quantities.ts";
import { containerLimits, cpuPeriodUs, oomScoreAdjust, podCgroup, podLimits, quotaOf, sharesOf } from "./resources.ts";

export interface SandboxInput {
  readonly pod: Pod;
  readonly attempt: number;
  readonly logFolder: string;
  readonly dns: DnsSettings;
  readonly nodeName: string;
  readonly clusterDomain: string;
  readonly seccompDefault: boolean;
  /** The cgroup of all pods. */
  readonly podsCgroup: string;
}

export function podLogFolder(root: string, pod: Pod): string {
  return `${root}/${pod.metadata.namespace}_${pod.metadata.name}_${pod.metadata.uid}`;
}

export function sandboxConfig(input: SandboxInput): SandboxConfig {
  const { pod } = input;
  const context = pod.spec.securityContext ?? {};
  const privileged = allContainersOf(pod).some((c) => c.securityContext?.privileged);
  return {
    metadata: {
      name: pod.metadata.name ?? "",
      uid: pod.metadata.uid ?? "",
      namespace: pod.metadata.namespace ?? "",
      attempt: input.attempt,
    },
    // In the host's network there is no host name of one's own to set.
    hostname: pod.spec.hostNetwork ? "" : podHostname(pod, input).hostname,
    logDirectory: input.logFolder,
    dnsConfig: input.dns,
    portMappings: (pod.spec.containers ?? []).flatMap((c) =>
      (c.ports ?? []).map((port) => ({
        protocol: cri.Protocol[(port.protocol ?? "TCP") as keyof typeof cri.Protocol],
        containerPort: port.containerPort,
        hostPort: pod.spec.hostNetwork ? 0 : (port.hostPort ?? 0),
        hostIp: port.hostIP ?? "",
      })),
    ),
    labels: { ...pod.metadata.labels, ...podLabels(pod) },
    annotations: { ...pod.metadata.annotations },
    linux: {
      cgroupParent: podCgroup(pod, input.podsCgroup),
      ...sandboxResources(pod),
      sysctls: Object.fromEntries((context.sysctls ?? []).map((s) => [s.name, s.value])),
      securityContext: {
        namespaceOptions: namespaces(pod),
        privileged,
        ...(context.runAsUser === undefined ? {} : { runAsUser: { value: context.runAsUser } }),
        ...(context.runAsGroup === undefined || context.runAsUser === undefined
          ? {}
          : { runAsGroup: { value: context.runAsGroup } }),
        supplementalGroups: groups(pod),
        supplementalGroupsPolicy: groupsPolicy(pod),
        ...(seLinux(pod) ? { selinuxOptions: seLinux(pod)! } : {}),
        seccomp: privileged
          ? { profileType: cri.SecurityProfileProfileType.Unconfined }
          : { profileType: cri.SecurityProfileProfileType.RuntimeDefault },
      },
    },
  };
}

/** For runtimes that size a machine of their own by what will run in it. */
function sandboxResources(pod: Pod) {
  const limits = podLimits({ ...pod, spec: { ...pod.spec, overhead: {} } });
  const overhead = pod.spec.overhead ?? {};
  const milliCpu = milliOf(overhead["cpu"]);
  return {
    overhead: {
      cpuPeriod: milliCpu > 0 ? cpuPeriodUs : 0,
      cpuQuota: quotaOf(milliCpu),
      cpuShares: milliCpu > 0 ? sharesOf(milliCpu) : 0,
      memoryLimitInBytes: wholeOf(overhead["memory"]),
    },
    resources: {
      cpuPeriod: limits.cpuPeriodUs,
      cpuQuota: limits.cpuQuotaUs,
      cpuShares: limits.cpuShares,
      memoryLimitInBytes: limits.memoryBytes,
    },
  };
}

export interface ContainerMount {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly readonly: boolean;
  readonly propagation?: string | undefined;
}

export interface ContainerInput {
  readonly pod: Pod;
  readonly container: Container;
  readonly attempt: number;
  readonly env: ReadonlyMap<string, string>;
  readonly mounts: readonly ContainerMount[];
  /** Block volumes. */
  readonly devices?: readonly {
    readonly hostPath: string;
    readonly containerPath: string;
    readonly permissions: string;
  }[];
  readonly imageRef: string;
  /** The image's own user, for runAsNonRoot. */
  readonly imageUser: { readonly uid?: number | undefined; readonly name: string };
  readonly memoryCapacityBytes: number;
  readonly seccompDefault: boolean;
  readonly hasAppArmor: boolean;
  /** As the kernel writes them; empty where it cannot limit huge pages. */
  readonly hugePageSizes: readonly string[];
  /** Whether the kernel can be told that a container must not swap (cgroup v2 with its swap files). */
  readonly forbidsSwap: boolean;
  /** Processors and devices that the node gives it. */
  readonly extras?: Extras;
  /** To reach the container from its pod's process namespace. */
  readonly targetContainerId?: string;
}

export function containerConfig(input: ContainerInput): ContainerConfig {
  const { pod, container, env } = input;
  const lookup = (name: string) => env.get(name);
  const limits = containerLimits(container);
  return {
    metadata: { name: container.name, attempt: input.attempt },
    image: { image: input.imageRef, userSpecifiedImage: container.image ?? "" },
    command: (container.command ?? []).map((word) => expand(word, lookup)),
    args: (container.args ?? []).map((word) => expand(word, lookup)),
    workingDir: container.workingDir ?? "",
    envs: [...env].map(([key, value]) => ({ key, value })),
    devices: [...(input.devices ?? [])],
    mounts: input.mounts.map((m) => ({
      hostPath: m.hostPath,
      containerPath: m.containerPath,
      readonly: m.readonly,
      propagation:
        m.propagation === "Bidirectional"
          ? cri.MountPropagation.PROPAGATION_BIDIRECTIONAL
          : m.propagation === "HostToContainer"
            ? cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER
            : cri.MountPropagation.PROPAGATION_PRIVATE,
    })),
    labels: { ...podLabels(pod), [labels.containerName]: container.name },
    annotations: {
      ...Object.assign({}, ...(input.extras?.allocations ?? []).map((a) => a.annotations)),
      [annotations.hash]: containerHash(container),
      [annotations.restartCount]: String(input.attempt),
      [annotations.terminationMessagePath]: container.terminationMessagePath ?? "/dev/termination-log",
      [annotations.terminationMessagePolicy]: container.terminationMessagePolicy ?? "File",
      [annotations.podTerminationGracePeriod]: String(graceSecondsOf(pod)),
      [annotations.resources]: JSON.stringify(container.resources ?? {}),
    },
    CDIDevices: (input.extras?.allocations ?? []).flatMap((a) => a.cdiDevices.map(({ name }) => ({ name }))),
    logPath: `${container.name}/${input.attempt}.log`,
    stdin: container.stdin ?? false,
    stdinOnce: container.stdinOnce ?? false,
    tty: container.tty ?? false,
    linux: {
      resources: {
        cpuPeriod: limits.cpuQuotaUs > 0 ? limits.cpuPeriodUs : 0,
        cpuQuota: limits.cpuQuotaUs,
        cpuShares: limits.cpuShares,
        memoryLimitInBytes: limits.memoryBytes,
        oomScoreAdj: oomScoreAdjust(pod, container, input.memoryCapacityBytes),
        // Where it has a memory limit the runtime sees to it, on both versions of cgroups.
        unified: input.forbidsSwap ? { "memory.swap.max": "0" } : {},
        cpusetCpus: input.extras?.cpusetCpus ?? "",
        cpusetMems: input.extras?.cpusetMems ?? "",
        // Without a limit it could take those that others were promised.
        hugepageLimits: input.hugePageSizes.map((pageSize) => ({
          pageSize,
          limit: limits.hugePageBytes[pageSize] ?? 0,
        })),
      },
      securityContext: containerSecurity(input),
    },
  };
}

/** Below /proc and /sys, hidden or read-only unless the container is privileged or asks for procMount Unmasked. */
const maskedPaths = [
  "/proc/asound",
  "/proc/acpi",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/sys/firmware",
  "/sys/devices/virtual/powercap",
];
const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

function containerSecurity(input: ContainerInput) {
  const { pod, container } = input;
  const ofPod = pod.spec.securityContext ?? {};
  const own = container.securityContext ?? {};
  const runAsUser = own.runAsUser ?? ofPod.runAsUser;
  const runAsGroup = own.runAsGroup ?? ofPod.runAsGroup;
  if (own.runAsNonRoot ?? ofPod.runAsNonRoot) {
    const label = `(pod: "${pod.metadata.name}_${pod.metadata.namespace}(${pod.metadata.uid})", container: ${container.name})`;
    if (runAsUser === 0) throw new ConfigError(`container's runAsUser breaks non-root policy ${label}`);
    if (runAsUser === undefined) {
      const { uid, name } = input.imageUser;
      if (name !== "") {
        throw new ConfigError(
          `container has runAsNonRoot and image has non-numeric user (${name}), cannot verify user is non-root ${label}`,
        );
      }
      if (!uid) throw new ConfigError(`container has runAsNonRoot and image will run as root ${label}`);
    }
  }
  const privileged = own.privileged ?? false;
  const unmasked = privileged || own.procMount === "Unmasked";
  const capability = (name: string) => name.replace(/^CAP_/, "");
  const targetId = input.targetContainerId;
  return {
    privileged,
    namespaceOptions: targetId ? { ...namespaces(pod), pid: cri.NamespaceMode.TARGET, targetId } : namespaces(pod),
    ...(runAsUser === undefined ? {} : { runAsUser: { value: runAsUser } }),
    ...(runAsUser === undefined && input.imageUser.name === "" && input.imageUser.uid !== undefined
      ? { runAsUser: { value: input.imageUser.uid } }
      : {}),
    ...(runAsUser === undefined && input.imageUser.name !== "" ? { runAsUsername: input.imageUser.name } : {}),
    ...(runAsGroup === undefined ? {} : { runAsGroup: { value: runAsGroup } }),
    supplementalGroups: groups(pod),
    supplementalGroupsPolicy: groupsPolicy(pod),
    ...(seLinux(pod, container) ? { selinuxOptions: seLinux(pod, container)! } : {}),
    ...(input.hasAppArmor && !privileged ? { apparmor: appArmor(own.appArmorProfile ?? ofPod.appArmorProfile) } : {}),
    readonlyRootfs: own.readOnlyRootFilesystem ?? false,
    noNewPrivs: own.allowPrivilegeEscalation === false,
    capabilities: {
      addCapabilities: (own.capabilities?.add ?? []).map(capability),
      dropCapabilities: (own.capabilities?.drop ?? []).map(capability),
    },
    maskedPaths: unmasked ? [] : maskedPaths,
    readonlyPaths: unmasked ? [] : readonlyPaths,
    seccomp: seccomp(
      privileged ? { type: "Unconfined" } : (own.seccompProfile ?? ofPod.seccompProfile),
      input.seccompDefault,
    ),
  };
}

function seccomp(profile: SeccompProfile | undefined, runtimeDefault: boolean) {
  const types = cri.SecurityProfileProfileType;
  switch (profile?.type) {
    case "RuntimeDefault":
      return { profileType: types.RuntimeDefault };
    case "Localhost":
      return {
        profileType: types.Localhost,
        localhostRef: `/var/lib/kubelet/seccomp/${profile.localhostProfile ?? ""}`,
      };
    case "Unconfined":
      return { profileType: types.Unconfined };
    default:
      return { profileType: runtimeDefault ? types.RuntimeDefault : types.Unconfined };
  }
}

function appArmor(profile: AppArmorProfile | undefined) {
  const types = cri.SecurityProfileProfileType;
  switch (profile?.type) {
    case "Localhost":
      return { profileType: types.Localhost, localhostRef: profile.localhostProfile ?? "" };
    case "Unconfined":
      return { profileType: types.Unconfined };
    default:
      return { profileType: types.RuntimeDefault };
  }
}

function seLinux(pod: Pod, container?: Container) {
  const given = container?.securityContext?.seLinuxOptions ?? pod.spec.securityContext?.seLinuxOptions;
  if (!given) return undefined;
  return { user: given.user ?? "", role: given.role ?? "", type: given.type ?? "", level: given.level ?? "" };
}

const groupsPolicy = (pod: Pod) =>
  pod.spec.securityContext?.supplementalGroupsPolicy === "Strict"
    ? cri.SupplementalGroupsPolicy.Strict
    : cri.SupplementalGroupsPolicy.Merge;

function namespaces(pod: Pod) {
  const { NODE, POD, CONTAINER } = cri.NamespaceMode;
  return {
    network: pod.spec.hostNetwork ? NODE : POD,
    pid: pod.spec.hostPID ? NODE : pod.spec.shareProcessNamespace ? POD : CONTAINER,
    ipc: pod.spec.hostIPC ? NODE : POD,
  };
}

function groups(pod: Pod): number[] {
  const context = pod.spec.securityContext ?? {};
  return [...(context.fsGroup === undefined ? [] : [context.fsGroup]), ...(context.supplementalGroups ?? [])];
}

const podLabels = (pod: Pod): Record<string, string> => ({
  [labels.podName]: pod.metadata.name ?? "",
  [labels.podNamespace]: pod.metadata.namespace ?? "",
  [labels.podUid]: pod.metadata.uid ?? "",
});

const allContainersOf = (pod: Pod): readonly Container[] => [
  ...(pod.spec.initContainers ?? []),
  ...(pod.spec.containers ?? []),
];
