// What the controllers can be told under kube-controller-manager's flag names: `--kube-controller-manager-arg NAME=VALUE`, as
// k3s has it. Pure: text in, values out; what is not known is refused, so that nobody believes in a setting that does nothing.
import { AppError, messageOf } from "#base/errors.ts";
import type { IpFamily } from "#base/ip-range.ts";
import { parseDurationNanoseconds } from "#model/duration.ts";

export interface NodeSettings {
  /** Between two looks at all nodes. */
  readonly monitorPeriodMs: number;
  /** How long a node may be silent; one that has never spoken longer. */
  readonly graceMs: number;
  readonly startupGraceMs: number;
  /** Nodes in a second of each zone that lose their pods; in a large zone of which many are not ready. */
  readonly evictionRate: number;
  readonly secondaryEvictionRate: number;
  readonly unhealthyShare: number;
  readonly largeZone: number;
}

export interface AutoscalerSettings {
  /** Between two rounds. */
  readonly periodMs: number;
  /** For how long nothing is taken away that was wanted, where the autoscaler does not say. */
  readonly downWindowMs: number;
}

export interface ControllerSettings {
  readonly nodes: NodeSettings;
  /** Finished pods that are kept; 0: all are. */
  readonly terminatedPods: number;
  readonly unusedTokenMs: number;
  readonly autoscaler: AutoscalerSettings;
  readonly quotaResyncMs: number;
  /** Network bits of the range of pod addresses that a node gets. */
  readonly maskSizes: Readonly<Record<IpFamily, number>>;
}

export const defaultSettings: ControllerSettings = {
  nodes: {
    monitorPeriodMs: 5_000,
    graceMs: 50_000,
    startupGraceMs: 60_000,
    evictionRate: 0.1,
    secondaryEvictionRate: 0.01,
    unhealthyShare: 0.55,
    largeZone: 50,
  },
  terminatedPods: 12_500,
  unusedTokenMs: 365 * 24 * 3_600_000,
  autoscaler: { periodMs: 15_000, downWindowMs: 300_000 },
  quotaResyncMs: 300_000,
  maskSizes: { IPv4: 24, IPv6: 64 },
};

type Change = Omit<Partial<ControllerSettings>, "nodes" | "autoscaler" | "maskSizes"> & {
  readonly nodes?: Partial<NodeSettings>;
  readonly autoscaler?: Partial<AutoscalerSettings>;
  readonly maskSizes?: Partial<ControllerSettings["maskSizes"]>;
};

/** Timers of the platform are not set for longer, and nobody wants to wait so long. */
const longestMs = 20 * 365 * 24 * 3_600_000;
const longestPeriodMs = 24 * 3_600_000;

function duration(least: number, most: number): (text: string) => number {
  return (text) => {
    let ms: number;
    try {
      ms = parseDurationNanoseconds(text) / 1e6;
    } catch (error) {
      throw new Error(`${JSON.stringify(text)} is no duration such as 40s or 1m30s: ${messageOf(error)}`);
    }
    if (ms < least || ms > most) throw new Error(`${text} is not from ${least / 1000} s to ${most / 3_600_000} h`);
    return ms;
  };
}
function number(least: number, most: number, isWhole = false): (text: string) => number {
  return (text) => {
    const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most) || (isWhole && !Number.isInteger(value))) {
      throw new Error(`${JSON.stringify(text)} is not a${isWhole ? " whole" : ""} number from ${least} to ${most}`);
    }
    return value;
  };
}
const row =
  (read: (text: string) => number, change: (value: number) => Change) =>
  (text: string): Change =>
    change(read(text));

const aPeriod = duration(1000, longestPeriodMs);
const rate = number(0, 1000);
/** A node with fewer than four addresses runs no pod. */
const ipv4Mask = row(number(8, 29, true), (IPv4) => ({ maskSizes: { IPv4 } }));

const known: Readonly<Record<string, (text: string) => Change>> = {
  "node-monitor-period": row(aPeriod, (monitorPeriodMs) => ({ nodes: { monitorPeriodMs } })),
  "node-monitor-grace-period": row(aPeriod, (graceMs) => ({ nodes: { graceMs } })),
  "node-startup-grace-period": row(aPeriod, (startupGraceMs) => ({ nodes: { startupGraceMs } })),
  "node-eviction-rate": row(rate, (evictionRate) => ({ nodes: { evictionRate } })),
  "secondary-node-eviction-rate": row(rate, (secondaryEvictionRate) => ({ nodes: { secondaryEvictionRate } })),
  "unhealthy-zone-threshold": row(number(0, 1), (unhealthyShare) => ({ nodes: { unhealthyShare } })),
  "large-cluster-size-threshold": row(number(0, 100_000, true), (largeZone) => ({ nodes: { largeZone } })),
  "terminated-pod-gc-threshold": row(number(0, 1_000_000, true), (terminatedPods) => ({ terminatedPods })),
  "legacy-service-account-token-clean-up-period": row(duration(3_600_000, longestMs), (unusedTokenMs) => ({
    unusedTokenMs,
  })),
  "horizontal-pod-autoscaler-sync-period": row(aPeriod, (periodMs) => ({ autoscaler: { periodMs } })),
  // What was wanted is remembered for as long: one entry a round.
  "horizontal-pod-autoscaler-downscale-stabilization": row(duration(0, 3_600_000), (downWindowMs) => ({
    autoscaler: { downWindowMs },
  })),
  "node-cidr-mask-size": ipv4Mask,
  "node-cidr-mask-size-ipv4": ipv4Mask,
  "node-cidr-mask-size-ipv6": row(number(16, 124, true), (IPv6) => ({ maskSizes: { IPv6 } })),
  "resource-quota-sync-period": row(aPeriod, (quotaResyncMs) => ({ quotaResyncMs })),
};

export function parseControllerArguments(args: readonly string[]): ControllerSettings {
  let settings = defaultSettings;
  for (const arg of args) {
    const equals = arg.indexOf("=");
    const name = (equals < 0 ? arg : arg.slice(0, equals)).replace(/^--/, "");
    const read = Object.hasOwn(known, name) ? known[name] : undefined;
    if (!read) throw refused(name, `is not known; these are: ${Object.keys(known).join(", ")}`);
    if (equals < 0) throw refused(name, "needs a value, as NAME=VALUE");
    let change: Change;
    try {
      change = read(arg.slice(equals + 1));
    } catch (error) {
      throw refused(name, messageOf(error));
    }
    const nodes = { ...settings.nodes, ...change.nodes };
    const autoscaler = { ...settings.autoscaler, ...change.autoscaler };
    settings = { ...settings, ...change, nodes, autoscaler, maskSizes: { ...settings.maskSizes, ...change.maskSizes } };
  }
  const { graceMs, monitorPeriodMs } = settings.nodes;
  // A node that is asked after less often than it may be silent would be given up without a look.
  if (graceMs <= monitorPeriodMs) {
    throw refused("node-monitor-grace-period", `must be longer than node-monitor-period, ${monitorPeriodMs / 1000} s`);
  }
  return settings;
}

const refused = (name: string, why: string): AppError =>
  new AppError("CONTROLLER_ARGUMENT", `kube-controller-manager-arg ${name}: ${why}`, { name });
