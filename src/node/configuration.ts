// What the node agent can be told about resources, eviction, images and shutdown: KubeletConfiguration's names and defaults,
// as far as they mean something here, set with `--kubelet-arg NAME=VALUE` under the kubelet's flag names. Pure: text in,
// frozen values out; /configz shows them. Disk thresholds are k3s's, the others upstream's.
import { AppError } from "#base/errors.ts";
import { formatDurationNanoseconds, parseDurationNanoseconds } from "#model/duration.ts";
import { parseThresholds, type Threshold, thresholdText } from "./eviction/signals.ts";
import { parseList } from "./hardware/topology.ts";
import { checkedQuantity, milliOf, wholeOf } from "./pods/quantities.ts";

export interface NodeConfiguration {
  /** Where drivers of volumes and devices meet the node: another one for each of several nodes on a machine. */
  readonly rootDir: string;
  /** A cgroup of the machine, below which pods have theirs; `/` is the topmost. */
  readonly cgroupRoot: string;
  readonly maxPods: number;
  /** Processes one pod may have; 0 for no bound of its own. */
  readonly podPidsLimit: number;
  /** Amounts by resource name (cpu in thousandths, the rest in units) that pods do not get. */
  readonly systemReserved: Readonly<Record<string, number>>;
  readonly kubeReserved: Readonly<Record<string, number>>;
  readonly evictionHard: readonly Threshold[];
  readonly evictionSoft: readonly Threshold[];
  readonly evictionPressureTransitionPeriodMs: number;
  readonly evictionMaxPodGracePeriodSeconds: number;
  readonly imageGcHighThresholdPercent: number;
  readonly imageGcLowThresholdPercent: number;
  readonly imageMinimumGcAgeMs: number;
  /** Unused for so long, an image goes whatever the disk; 0 for never. */
  readonly imageMaximumGcAgeMs: number;
  readonly containerLogMaxBytes: number;
  readonly containerLogMaxFiles: number;
  /** Names, or prefixes ending in `*`. */
  readonly allowedUnsafeSysctls: readonly string[];
  readonly shutdownGracePeriodMs: number;
  readonly shutdownGracePeriodCriticalPodsMs: number;
  readonly cpuManagerPolicy: "none" | "static";
  readonly memoryManagerPolicy: "None" | "Static";
  readonly topologyManagerPolicy: "none" | "best-effort" | "restricted" | "single-numa-node";
  /** Processors that exclusive containers never get, as a list like 0,2-3. */
  readonly reservedSystemCpus: string;
  /** The feature gate InPlacePodVerticalScaling: pods can be resized while they run. */
  readonly podResize: boolean;
}

/**
 * How often the Node's status is told although nothing has changed. Upstream: 5 minutes; that the node lives its Lease says,
 * every 10 s, and a report is a write to the server's card: for a thousand nodes one every 86 seconds.
 */
export const statusReportMs = 24 * 3600_000;

/** Go's durations: 1h30m, 90s. */
function durationMs(text: string): number {
  let ms = -1;
  let cause: unknown;
  try {
    ms = parseDurationNanoseconds(text) / 1e6;
  } catch (error) {
    cause = error;
  }
  if (ms < 0) throw new Error(`${JSON.stringify(text)} is not a duration such as 90s or 5m`, { cause });
  return ms;
}

function wholeNumber(text: string, least: number, most = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw new Error(
      `${JSON.stringify(text)} is not a whole number from ${least}${most < 2 ** 50 ? ` to ${most}` : ""}`,
    );
  }
  return value;
}

function oneOf<T extends string>(text: string, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === text);
  if (found === undefined) throw new Error(`${JSON.stringify(text)} is none of ${allowed.join(", ")}`);
  return found;
}

/** `cpu=100m,memory=200Mi` */
function amounts(text: string): Record<string, number> {
  const out: Record<string, number> = {};
  for (const part of text.split(",").filter((p) => p !== "")) {
    const [name, value] = part.split("=");
    if (!name || value === undefined || !["cpu", "memory", "ephemeral-storage", "pid"].includes(name)) {
      throw new Error(`${JSON.stringify(part)} is not cpu, memory, ephemeral-storage or pid=QUANTITY`);
    }
    out[name] = (name === "cpu" ? milliOf : wholeOf)(checkedQuantity(value));
  }
  return out;
}

/** `memory.available=1m30s`: signals to milliseconds. */
function periods(text: string): ReadonlyMap<string, number> {
  const parts = text.split(",").filter((p) => p !== "");
  return new Map(parts.map((part) => [part.split("=")[0] ?? "", durationMs(part.split("=")[1] ?? "")]));
}

const withPeriods = (thresholds: readonly Threshold[], text: string): Threshold[] => {
  const all = periods(text);
  return thresholds.map((t) => ({ ...t, graceMs: all.get(t.signal) ?? t.graceMs }));
};

const defaultHard =
  "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%,imagefs.inodesFree<5%";
/** On a machine of less than 1 GiB the whole of upstream's 100Mi would leave hardly anything for pods. */
const memoryShare = 0.1;
const defaultReclaim = "nodefs.available=10%,imagefs.available=10%";

export const defaultConfiguration: NodeConfiguration = Object.freeze({
  rootDir: "/var/lib/kubelet",
  cgroupRoot: "/",
  maxPods: 110,
  podPidsLimit: 0,
  systemReserved: {},
  kubeReserved: {},
  evictionHard: withReclaim(parseThresholds(defaultHard, "hard"), defaultReclaim).map((t) =>
    t.signal === "memory.available" ? { ...t, share: memoryShare } : t,
  ),
  evictionSoft: [],
  evictionPressureTransitionPeriodMs: 5 * 60_000,
  evictionMaxPodGracePeriodSeconds: 0,
  imageGcHighThresholdPercent: 85,
  imageGcLowThresholdPercent: 80,
  imageMinimumGcAgeMs: 2 * 60_000,
  imageMaximumGcAgeMs: 0,
  containerLogMaxBytes: 10 * 2 ** 20,
  containerLogMaxFiles: 5,
  allowedUnsafeSysctls: [],
  shutdownGracePeriodMs: 0,
  shutdownGracePeriodCriticalPodsMs: 0,
  cpuManagerPolicy: "none",
  memoryManagerPolicy: "None",
  topologyManagerPolicy: "none",
  reservedSystemCpus: "",
  podResize: false,
});

function withReclaim(thresholds: readonly Threshold[], text: string): Threshold[] {
  const reclaim = new Map(
    parseThresholds(
      text
        .split(",")
        .map((part) => part.replace("=", "<"))
        .join(","),
      "hard",
    ).map((t) => [t.signal, t]),
  );
  return thresholds.map((t) => {
    const found = reclaim.get(t.signal);
    return found ? { ...t, reclaim: { bytes: found.bytes, share: found.share } } : t;
  });
}

type Draft = { -readonly [Key in keyof NodeConfiguration]: NodeConfiguration[Key] };

/** By the kubelet's flag name. Order of flags does not matter but for those that refine others, which come last here. */
const flags: Readonly<Record<string, (draft: Draft, value: string) => void>> = {
  "root-dir": (d, v) => {
    if (!/^\/[^/]/.test(v)) throw new Error(`${JSON.stringify(v)} is not an absolute path`);
    d.rootDir = v.replace(/\/+$/, "");
  },
  "cgroup-root": (d, v) => {
    const names = v.split("/").filter((name) => name !== "");
    if (!v.startsWith("/") || names.some((name) => name === "." || name === "..")) {
      throw new Error(`${JSON.stringify(v)} is not the path of a cgroup such as /pods.slice`);
    }
    d.cgroupRoot = `/${names.join("/")}`;
  },
  "max-pods": (d, v) => {
    d.maxPods = wholeNumber(v, 1);
  },
  "pod-max-pids": (d, v) => {
    d.podPidsLimit = v === "-1" ? 0 : wholeNumber(v, 1);
  },
  "system-reserved": (d, v) => {
    d.systemReserved = amounts(v);
  },
  "kube-reserved": (d, v) => {
    d.kubeReserved = amounts(v);
  },
  "eviction-hard": (d, v) => {
    d.evictionHard = withReclaim(parseThresholds(v, "hard"), defaultReclaim);
  },
  "eviction-soft": (d, v) => {
    d.evictionSoft = parseThresholds(v, "soft");
  },
  "eviction-pressure-transition-period": (d, v) => {
    d.evictionPressureTransitionPeriodMs = durationMs(v);
  },
  "eviction-max-pod-grace-period": (d, v) => {
    d.evictionMaxPodGracePeriodSeconds = wholeNumber(v, 0);
  },
  "image-gc-high-threshold": (d, v) => {
    d.imageGcHighThresholdPercent = wholeNumber(v, 0, 100);
  },
  "image-gc-low-threshold": (d, v) => {
    d.imageGcLowThresholdPercent = wholeNumber(v, 0, 100);
  },
  "minimum-image-ttl-duration": (d, v) => {
    d.imageMinimumGcAgeMs = durationMs(v);
  },
  "image-maximum-gc-age": (d, v) => {
    d.imageMaximumGcAgeMs = durationMs(v);
  },
  "container-log-max-size": (d, v) => {
    d.containerLogMaxBytes = Math.max(1024, wholeOf(checkedQuantity(v)));
  },
  "container-log-max-files": (d, v) => {
    d.containerLogMaxFiles = wholeNumber(v, 2);
  },
  "allowed-unsafe-sysctls": (d, v) => {
    d.allowedUnsafeSysctls = v.split(",").filter((name) => name !== "");
  },
  "shutdown-grace-period": (d, v) => {
    d.shutdownGracePeriodMs = durationMs(v);
  },
  "shutdown-grace-period-critical-pods": (d, v) => {
    d.shutdownGracePeriodCriticalPodsMs = durationMs(v);
  },
  "cpu-manager-policy": (d, v) => {
    d.cpuManagerPolicy = oneOf(v, ["none", "static"]);
  },
  "memory-manager-policy": (d, v) => {
    d.memoryManagerPolicy = oneOf(v, ["None", "Static"]);
  },
  "feature-gates": (d, v) => {
    for (const part of v.split(",").filter((each) => each !== "")) {
      const [name = "", value = ""] = part.split("=");
      oneOf(name, ["InPlacePodVerticalScaling"]);
      d.podResize = oneOf(value, ["true", "false"]) === "true";
    }
  },
  "topology-manager-policy": (d, v) => {
    d.topologyManagerPolicy = oneOf(v, ["none", "best-effort", "restricted", "single-numa-node"]);
  },
  "reserved-cpus": (d, v) => {
    parseList(v);
    d.reservedSystemCpus = v;
  },
  "eviction-soft-grace-period": (d, v) => {
    d.evictionSoft = withPeriods(d.evictionSoft, v);
  },
  "eviction-minimum-reclaim": (d, v) => {
    d.evictionHard = withReclaim(d.evictionHard, v);
    d.evictionSoft = withReclaim(d.evictionSoft, v);
  },
};

/** `NAME=VALUE`, with or without leading dashes. Throws NODE_CONFIGURATION naming what is wrong. */
export function parseConfiguration(args: readonly string[]): NodeConfiguration {
  const given = new Map<string, string>();
  for (const arg of args) {
    const at = arg.indexOf("=");
    const name = (at < 0 ? arg : arg.slice(0, at)).replace(/^-+/, "");
    if (!Object.hasOwn(flags, name)) throw refused(name, "is not known here");
    given.set(name, at < 0 ? "true" : arg.slice(at + 1));
  }
  const draft: Draft = { ...defaultConfiguration };
  for (const [name, set] of Object.entries(flags)) {
    const value = given.get(name);
    if (value === undefined) continue;
    try {
      set(draft, value);
    } catch (error) {
      throw refused(name, error instanceof Error ? error.message : String(error));
    }
  }
  if (draft.imageGcLowThresholdPercent > draft.imageGcHighThresholdPercent) {
    throw refused("image-gc-low-threshold", "must not be above image-gc-high-threshold");
  }
  if (draft.shutdownGracePeriodCriticalPodsMs > draft.shutdownGracePeriodMs) {
    throw refused("shutdown-grace-period-critical-pods", "must not be longer than shutdown-grace-period");
  }
  const soft = draft.evictionSoft.find((t) => t.graceMs <= 0);
  if (soft) throw refused("eviction-soft", `${soft.signal} needs an eviction-soft-grace-period`);
  return Object.freeze(draft);
}

const refused = (name: string, why: string): AppError =>
  new AppError("NODE_CONFIGURATION", `kubelet-arg ${name}: ${why}`, { name });

const goDuration = (ms: number): string => formatDurationNanoseconds(Math.round(ms * 1e6));

/** The cgroup of all pods, by the setting `cgroupRoot`. */
export const podsCgroupOf = (cgroupRoot: string): string => `${cgroupRoot === "/" ? "" : cgroupRoot}/kubepods`;

/** As /configz shows it: the fields of KubeletConfiguration. */
export function configz(c: NodeConfiguration): Record<string, unknown> {
  const thresholds = (list: readonly Threshold[]) => Object.fromEntries(list.map((t) => [t.signal, thresholdText(t)]));
  const reserved = (map: Readonly<Record<string, number>>) =>
    Object.fromEntries(
      Object.entries(map).map(([name, value]) => [name, name === "cpu" ? `${value}m` : String(value)]),
    );
  return {
    kind: "KubeletConfiguration",
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    maxPods: c.maxPods,
    podPidsLimit: c.podPidsLimit === 0 ? -1 : c.podPidsLimit,
    systemReserved: reserved(c.systemReserved),
    kubeReserved: reserved(c.kubeReserved),
    evictionHard: thresholds(c.evictionHard),
    evictionSoft: thresholds(c.evictionSoft),
    evictionSoftGracePeriod: Object.fromEntries(c.evictionSoft.map((t) => [t.signal, goDuration(t.graceMs)])),
    evictionPressureTransitionPeriod: goDuration(c.evictionPressureTransitionPeriodMs),
    evictionMaxPodGracePeriod: c.evictionMaxPodGracePeriodSeconds,
    imageGCHighThresholdPercent: c.imageGcHighThresholdPercent,
    imageGCLowThresholdPercent: c.imageGcLowThresholdPercent,
    imageMinimumGCAge: goDuration(c.imageMinimumGcAgeMs),
    imageMaximumGCAge: goDuration(c.imageMaximumGcAgeMs),
    containerLogMaxSize: `${Math.floor(c.containerLogMaxBytes / 2 ** 20)}Mi`,
    containerLogMaxFiles: c.containerLogMaxFiles,
    allowedUnsafeSysctls: c.allowedUnsafeSysctls,
    shutdownGracePeriod: goDuration(c.shutdownGracePeriodMs),
    shutdownGracePeriodCriticalPods: goDuration(c.shutdownGracePeriodCriticalPodsMs),
    cpuManagerPolicy: c.cpuManagerPolicy,
    memoryManagerPolicy: c.memoryManagerPolicy,
    topologyManagerPolicy: c.topologyManagerPolicy,
    ...(c.reservedSystemCpus === "" ? {} : { reservedSystemCPUs: c.reservedSystemCpus }),
    serializeImagePulls: false,
    enableControllerAttachDetach: true,
    cgroupDriver: "cgroupfs",
    cgroupRoot: c.cgroupRoot,
    cgroupsPerQOS: true,
    enforceNodeAllocatable: ["pods"],
    failSwapOn: false,
    nodeStatusUpdateFrequency: "10s",
    nodeStatusReportFrequency: goDuration(statusReportMs),
    nodeLeaseDurationSeconds: 40,
    seccompDefault: true,
    featureGates: { InPlacePodVerticalScaling: c.podResize },
  };
}
