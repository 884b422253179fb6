// A profile made ready: of what the configuration enables and disables per extension point, the plugins that filter and
// score, in order and with their weights. Pure. Upstream counterpart: framework/runtime (NewFramework,
// expandMultiPointPlugins), apis/config/v1 (mergePlugins).
import { AppError } from "#base/errors.ts";
import { defaultArgs, type PluginArgs } from "./plugins/args.ts";
import { createPlugins, defaultMultiPoint } from "./plugins/default-plugins.ts";
import { type ExtensionPoint, extensionPoints, maxScore, type Plugin } from "./plugins/framework.ts";

export interface PluginSet {
  readonly enabled: readonly { readonly name: string; readonly weight: number }[];
  readonly disabled: readonly { readonly name: string }[];
}

export interface ProfileSettings {
  readonly schedulerName: string;
  /** Undefined: the cluster's. */
  readonly percentageOfNodesToScore?: number;
  readonly plugins: Readonly<Partial<Record<ExtensionPoint | "multiPoint", PluginSet>>>;
  readonly args: PluginArgs;
}

export interface Profile {
  readonly name: string;
  /** `rejects`: may turn a pod down as such (preFilter); `checks`: may turn a node down (filter). */
  readonly filters: readonly { readonly plugin: Plugin; readonly rejects: boolean; readonly checks: boolean }[];
  readonly scorers: readonly { readonly plugin: Plugin; readonly weight: number }[];
  /** All that are on anywhere: whose interests count. */
  readonly plugins: readonly Plugin[];
  /** Undefined: nobody is pushed out for its pods. */
  readonly preemption: PluginArgs["DefaultPreemption"] | undefined;
  readonly holdsGatedPods: boolean;
  readonly bindsVolumes: boolean;
  readonly volumeBindTimeoutMs: number;
  /** 0: by the size of the cluster. */
  readonly percentageOfNodesToScore: number;
}

export const defaultSchedulerName = "default-scheduler";

export const defaultProfileSettings: ProfileSettings = {
  schedulerName: defaultSchedulerName,
  plugins: {},
  args: defaultArgs,
};

/** Upstream's bound: all scores of a node together fit into an int64. */
const maxTotalScore = 2 ** 63;

/** Rejects with SCHEDULER_CONFIGURATION, naming the field under `path`. */
export function compileProfile(
  settings: ProfileSettings,
  shared: { readonly percentageOfNodesToScore?: number; readonly managedResources?: ReadonlySet<string> } = {},
  path = "profiles[0]",
): Profile {
  const { args, schedulerName } = settings;
  const known = createPlugins(args, shared.managedResources ?? new Set());
  const multiPoint = merged(settings.plugins.multiPoint);
  for (const [i, { name }] of multiPoint.entries()) {
    if (!known.has(name)) throw refused(`${path}.plugins.multiPoint.enabled`, `plugin ${quoted(name)} does not exist`);
    if (multiPoint.findIndex((other) => other.name === name) !== i) {
      throw refused(`${path}.plugins.multiPoint.enabled`, `plugin ${quoted(name)} already registered`);
    }
  }
  const at = new Map(
    extensionPoints.map((point) => [point, expanded(point, settings.plugins[point], multiPoint, { known, path })]),
  );
  const on = (point: ExtensionPoint) => at.get(point) ?? [];
  const has = (point: ExtensionPoint, name: string) => on(point).some(({ plugin }) => plugin.name === name);
  if (on("queueSort").length !== 1) {
    throw refused(
      `${path}.plugins.queueSort`,
      `one queue sort plugin required for profile with scheduler name ${quoted(schedulerName)}`,
    );
  }
  if (on("bind").length === 0) {
    throw refused(
      `${path}.plugins.bind`,
      `at least one bind plugin is needed for profile with scheduler name ${quoted(schedulerName)}`,
    );
  }
  const scorers = on("score").map(({ plugin, weight }) => ({ plugin, weight: weight === 0 ? 1 : weight }));
  if (scorers.reduce((sum, { weight }) => sum + weight * maxScore, 0) >= maxTotalScore) {
    throw refused(`${path}.plugins.score`, "total score of Score plugins could overflow");
  }
  const filtering = [...new Set([...on("filter"), ...on("preFilter")].map(({ plugin }) => plugin))];
  return {
    name: schedulerName,
    filters: filtering
      .filter((plugin) => plugin.filter)
      .map((plugin) => ({
        plugin,
        rejects: has("preFilter", plugin.name),
        checks: has("filter", plugin.name),
      })),
    scorers: scorers.filter(({ plugin }) => plugin.score),
    plugins: [...new Set([...at.values()].flat().map(({ plugin }) => plugin))],
    preemption: has("postFilter", "DefaultPreemption") ? args.DefaultPreemption : undefined,
    holdsGatedPods: has("preEnqueue", "SchedulingGates"),
    bindsVolumes: has("preBind", "VolumeBinding"),
    volumeBindTimeoutMs: args.VolumeBinding.bindTimeoutSeconds * 1000,
    percentageOfNodesToScore: settings.percentageOfNodesToScore ?? shared.percentageOfNodesToScore ?? 0,
  };
}

interface Enabled {
  readonly plugin: Plugin;
  readonly weight: number;
}

/** The default list as the profile changes it: in place where it names the same, behind it where it names others. */
function merged(custom: PluginSet | undefined): readonly { readonly name: string; readonly weight: number }[] {
  if (!custom) return defaultMultiPoint;
  const disabled = new Set(custom.disabled.map(({ name }) => name));
  const own = new Map(custom.enabled.map((entry) => [entry.name, entry]));
  const kept = disabled.has("*") ? [] : defaultMultiPoint.filter(({ name }) => !disabled.has(name));
  const replaced = new Set(kept.map(({ name }) => name));
  return [
    ...kept.map((entry) => own.get(entry.name) ?? entry),
    ...custom.enabled.filter(({ name }) => !replaced.has(name)),
  ];
}

/** Who works at one extension point: overrides first, then what multiPoint brings, then the rest of its own list. */
function expanded(
  point: ExtensionPoint,
  own: PluginSet | undefined,
  multiPoint: readonly { readonly name: string; readonly weight: number }[],
  { known, path }: { readonly known: ReadonlyMap<string, Plugin>; readonly path: string },
): Enabled[] {
  const enabled: Enabled[] = [];
  for (const [i, { name, weight }] of (own?.enabled ?? []).entries()) {
    const plugin = known.get(name);
    const field = `${path}.plugins.${point}.enabled[${i}].name`;
    const type = `${point[0]!.toUpperCase()}${point.slice(1)}Plugin`;
    if (!plugin) throw refused(field, `Invalid value: ${quoted(name)}: ${type} ${quoted(name)} does not exist`);
    if (!plugin.points.includes(point)) {
      throw refused(field, `Invalid value: ${quoted(name)}: plugin ${quoted(name)} does not extend ${type} plugin`);
    }
    if (enabled.some((other) => other.plugin === plugin)) {
      throw refused(
        field,
        `Invalid value: ${quoted(name)}: plugin ${quoted(name)} already registered as ${quoted(type)}`,
      );
    }
    enabled.push({ plugin, weight });
  }
  const disabled = new Set((own?.disabled ?? []).map(({ name }) => name));
  if (disabled.has("*")) return enabled;
  const brought = multiPoint
    .map(({ name, weight }) => ({ plugin: known.get(name)!, weight }))
    .filter(({ plugin }) => plugin.points.includes(point) && !disabled.has(plugin.name));
  const isBrought = ({ plugin }: Enabled) => brought.some((other) => other.plugin === plugin);
  const overrides = enabled.filter(isBrought);
  return [
    ...overrides,
    ...brought.filter(({ plugin }) => !overrides.some((other) => other.plugin === plugin)),
    ...enabled.filter((entry) => !isBrought(entry)),
  ];
}

const quoted = (text: string): string => JSON.stringify(text);
const refused = (field: string, why: string): AppError =>
  new AppError("SCHEDULER_CONFIGURATION", `${field}: ${why}`, { field });
