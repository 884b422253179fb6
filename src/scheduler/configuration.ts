// KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1) read strictly: what is not known is refused by its path, as
// are values out of range, in upstream's words. Pure: text in, settings out. What only makes sense for a scheduler in a
// process of its own (leaderElection, clientConnection, parallelism, profiling) is checked and then without effect.
// Upstream counterpart: pkg/scheduler/apis/config (v1 defaults, validation).
import { AppError, messageOf } from "#base/errors.ts";
import { parseDurationNanoseconds } from "#model/duration.ts";
import type { FieldError } from "#model/status.ts";
import { fieldDuplicate, fieldForbidden, fieldInvalid, fieldNotSupported, fieldRequired } from "#model/status.ts";
import { parseYaml } from "#wire/yaml.ts";
import type { ExtenderSettings } from "./extender.ts";
import { defaultArgs, type PluginArgs, type ResourceWeight, type ShapePoint } from "./plugins/args.ts";
import { extensionPoints } from "./plugins/framework.ts";
import {
  compileProfile,
  defaultProfileSettings,
  defaultSchedulerName,
  type PluginSet,
  type Profile,
  type ProfileSettings,
} from "./profile.ts";

export interface SchedulerConfiguration {
  readonly profiles: readonly Profile[];
  readonly extenders: readonly ExtenderSettings[];
  readonly podInitialBackoffMs: number;
  readonly podMaxBackoffMs: number;
}

export const defaultSchedulerConfiguration: SchedulerConfiguration = {
  profiles: [compileProfile(defaultProfileSettings)],
  extenders: [],
  podInitialBackoffMs: 1000,
  podMaxBackoffMs: 10_000,
};

const group = "kubescheduler.config.k8s.io";

type Shape = "string" | "int" | "bool" | "duration" | "bytes" | "any" | { readonly list: Shape } | Fields;
interface Fields {
  readonly fields: Readonly<Record<string, Shape>>;
}
const listOf = (list: Shape) => ({ list });
const fields = (of: Readonly<Record<string, Shape>>): Fields => ({ fields: of });

const requirement = fields({ key: "string", operator: "string", values: listOf("string") });
const nodeTerm = fields({ matchExpressions: listOf(requirement), matchFields: listOf(requirement) });
const resourceWeights = listOf(fields({ name: "string", weight: "int" }));
const shapePoints = listOf(fields({ utilization: "int", score: "int" }));

const argShapes: Readonly<Record<keyof PluginArgs, Readonly<Record<string, Shape>>>> = {
  NodeResourcesFit: {
    ignoredResources: listOf("string"),
    ignoredResourceGroups: listOf("string"),
    scoringStrategy: fields({
      type: "string",
      resources: resourceWeights,
      requestedToCapacityRatio: fields({ shape: shapePoints }),
    }),
  },
  NodeResourcesBalancedAllocation: { resources: resourceWeights },
  InterPodAffinity: { hardPodAffinityWeight: "int", ignorePreferredTermsOfExistingPods: "bool" },
  PodTopologySpread: {
    defaultConstraints: listOf(
      fields({
        maxSkew: "int",
        topologyKey: "string",
        whenUnsatisfiable: "string",
        labelSelector: "any",
        minDomains: "int",
        nodeAffinityPolicy: "string",
        nodeTaintsPolicy: "string",
        matchLabelKeys: listOf("string"),
      }),
    ),
    defaultingType: "string",
  },
  NodeAffinity: {
    addedAffinity: fields({
      requiredDuringSchedulingIgnoredDuringExecution: fields({ nodeSelectorTerms: listOf(nodeTerm) }),
      preferredDuringSchedulingIgnoredDuringExecution: listOf(fields({ weight: "int", preference: nodeTerm })),
    }),
  },
  VolumeBinding: { bindTimeoutSeconds: "int", shape: shapePoints },
  DefaultPreemption: { minCandidateNodesPercentage: "int", minCandidateNodesAbsolute: "int" },
};

const pluginSet = fields({
  enabled: listOf(fields({ name: "string", weight: "int" })),
  disabled: listOf(fields({ name: "string", weight: "int" })),
});
const points = ["multiPoint", ...extensionPoints] as const;

const shape = fields({
  apiVersion: "string",
  kind: "string",
  parallelism: "int",
  leaderElection: fields({
    leaderElect: "bool",
    leaseDuration: "duration",
    renewDeadline: "duration",
    retryPeriod: "duration",
    resourceLock: "string",
    resourceName: "string",
    resourceNamespace: "string",
  }),
  clientConnection: fields({
    kubeconfig: "string",
    acceptContentTypes: "string",
    contentType: "string",
    qps: "any",
    burst: "int",
  }),
  enableProfiling: "bool",
  enableContentionProfiling: "bool",
  percentageOfNodesToScore: "int",
  podInitialBackoffSeconds: "int",
  podMaxBackoffSeconds: "int",
  delayCacheUntilActive: "bool",
  profiles: listOf(
    fields({
      schedulerName: "string",
      percentageOfNodesToScore: "int",
      plugins: fields(Object.fromEntries(points.map((point) => [point, pluginSet]))),
      pluginConfig: listOf(fields({ name: "string", args: "any" })),
    }),
  ),
  extenders: listOf(
    fields({
      urlPrefix: "string",
      filterVerb: "string",
      preemptVerb: "string",
      prioritizeVerb: "string",
      weight: "int",
      bindVerb: "string",
      enableHTTPS: "bool",
      tlsConfig: fields({
        insecure: "bool",
        serverName: "string",
        certFile: "string",
        keyFile: "string",
        caFile: "string",
        certData: "bytes",
        keyData: "bytes",
        caData: "bytes",
      }),
      httpTimeout: "duration",
      nodeCacheCapable: "bool",
      managedResources: listOf(fields({ name: "string", ignoredByScheduler: "bool" })),
      ignorable: "bool",
    }),
  ),
});

interface RawConfiguration {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly parallelism?: number;
  readonly leaderElection?: { readonly leaderElect?: boolean; readonly resourceLock?: string };
  readonly percentageOfNodesToScore?: number;
  readonly podInitialBackoffSeconds?: number;
  readonly podMaxBackoffSeconds?: number;
  readonly profiles?: readonly RawProfile[];
  readonly extenders?: readonly RawExtender[];
}
interface RawPluginSet {
  readonly enabled?: readonly { readonly name?: string; readonly weight?: number }[];
  readonly disabled?: readonly { readonly name?: string }[];
}
interface RawProfile {
  readonly schedulerName?: string;
  readonly percentageOfNodesToScore?: number;
  readonly plugins?: Readonly<Partial<Record<(typeof points)[number], RawPluginSet>>>;
  readonly pluginConfig?: readonly { readonly name?: string; readonly args?: unknown }[];
}
interface RawExtender extends Partial<Omit<ExtenderSettings, "tls" | "httpTimeoutMs" | "managedResources">> {
  readonly httpTimeout?: number;
  readonly managedResources?: readonly { readonly name?: string; readonly ignoredByScheduler?: boolean }[];
  readonly tlsConfig?: {
    readonly insecure?: boolean;
    readonly serverName?: string;
    readonly certFile?: string;
    readonly keyFile?: string;
    readonly caFile?: string;
    readonly certData?: string;
    readonly keyData?: string;
    readonly caData?: string;
  };
}

/** Rejects with SCHEDULER_CONFIGURATION. `files`: texts of files that the configuration names, as filesNamedBy lists them. */
export function parseSchedulerConfiguration(
  text: string,
  files: ReadonlyMap<string, string> = new Map(),
): SchedulerConfiguration {
  const raw = decoded(text);
  const problems: FieldError[] = [];
  const initial = raw.podInitialBackoffSeconds ?? 1;
  const max = raw.podMaxBackoffSeconds ?? 10;
  if ((raw.parallelism ?? 16) <= 0) {
    problems.push(fieldInvalid("parallelism", raw.parallelism, "should be an integer value greater than zero"));
  }
  const lock = raw.leaderElection?.resourceLock ?? "leases";
  if (raw.leaderElection?.leaderElect !== false && lock !== "leases") {
    problems.push(fieldInvalid("leaderElection.resourceLock", lock, 'resourceLock value must be "leases"'));
  }
  problems.push(...percentage("percentageOfNodesToScore", raw.percentageOfNodesToScore));
  if (initial <= 0) problems.push(fieldInvalid("podInitialBackoffSeconds", initial, "must be greater than 0"));
  if (max < initial) {
    problems.push(
      fieldInvalid("podMaxBackoffSeconds", max, "must be greater than or equal to PodInitialBackoffSeconds"),
    );
  }
  const extenders = (raw.extenders ?? []).map((one) => extenderOf(one, files));
  problems.push(...extenderProblems(raw.extenders ?? [], extenders));
  const given: readonly RawProfile[] = raw.profiles?.length ? raw.profiles : [{}];
  const settings = given.map((profile, i) => profileOf(profile, `profiles[${i}]`, given.length === 1, problems));
  for (const [i, { schedulerName }] of settings.entries()) {
    const first = settings.findIndex((other) => other.schedulerName === schedulerName);
    if (first < i) problems.push(fieldDuplicate(`profiles[${i}].schedulerName`, `profiles[${first}].schedulerName`));
  }
  const sorts = given.map(({ plugins }) => JSON.stringify(plugins?.queueSort ?? null));
  for (const [i, sort] of sorts.entries()) {
    if (sort !== sorts[0]) {
      problems.push(
        fieldInvalid(
          `profiles[${i}].plugins.queueSort`,
          given[i]?.plugins?.queueSort ?? {},
          "must be the same for all profiles",
        ),
      );
    }
  }
  if (problems.length > 0) throw refused(problems.map(({ field, message }) => `${field}: ${message}`));
  const managedResources = new Set(
    extenders.flatMap((one) => one.managedResources.filter((r) => r.ignoredByScheduler).map(({ name }) => name)),
  );
  const shared = {
    managedResources,
    ...(raw.percentageOfNodesToScore === undefined ? {} : { percentageOfNodesToScore: raw.percentageOfNodesToScore }),
  };
  return {
    profiles: settings.map((profile, i) => compileProfile(profile, shared, `profiles[${i}]`)),
    extenders,
    podInitialBackoffMs: initial * 1000,
    podMaxBackoffMs: max * 1000,
  };
}

/** Paths that have to be read before the configuration can be used. */
export function filesNamedBy(text: string): string[] {
  return (decoded(text).extenders ?? []).flatMap(({ tlsConfig }) =>
    [tlsConfig?.certFile, tlsConfig?.keyFile, tlsConfig?.caFile].filter((path) => path !== undefined && path !== ""),
  ) as string[];
}

function decoded(text: string): RawConfiguration {
  let value: unknown;
  try {
    value = parseYaml(text);
  } catch (error) {
    throw refused([`not readable as YAML: ${messageOf(error)}`]);
  }
  const { apiVersion, kind } = (value ?? {}) as RawConfiguration;
  if (kind !== "KubeSchedulerConfiguration" || apiVersion !== `${group}/v1`) {
    throw refused([
      `no kind "${kind ?? ""}" is registered for version "${apiVersion ?? ""}"; use apiVersion ${group}/v1, kind KubeSchedulerConfiguration`,
    ]);
  }
  return strictly(value, shape) as RawConfiguration;
}

/** The value as the shape has it; rejects naming every field that is not known or of another type. */
function strictly(value: unknown, wanted: Shape, root = ""): unknown {
  const unknown: string[] = [];
  const wrong: string[] = [];
  const walk = (one: unknown, as: Shape, path: string): unknown => {
    if (as === "any") return one;
    const fail = (what: string) => void wrong.push(`${path}: Invalid value: ${show(one)}: must be ${what}`);
    if (as === "string" || as === "bytes") {
      if (typeof one !== "string") return fail("a string");
      if (as === "string") return one;
      const bytes = Buffer.from(one, "base64");
      return bytes.length === 0 && one !== "" ? fail("base64") : bytes.toString("utf8");
    }
    if (as === "bool") return typeof one === "boolean" ? one : fail("a boolean");
    if (as === "int") {
      const number = typeof one === "bigint" ? Number(one) : one;
      return Number.isSafeInteger(number) ? number : fail("an integer");
    }
    if (as === "duration") {
      try {
        return parseDurationNanoseconds(String(one)) / 1e6;
      } catch {
        // Told with the others.
        return fail("a duration such as 5s");
      }
    }
    if ("list" in as) {
      if (!Array.isArray(one)) return fail("a list");
      return one.map((item, i) => walk(item, as.list, `${path}[${i}]`));
    }
    if (typeof one !== "object" || one === null || Array.isArray(one)) return fail("an object");
    const out: Record<string, unknown> = {};
    for (const [key, item] of Object.entries(one)) {
      const at = path === "" ? key : `${path}.${key}`;
      if (!Object.hasOwn(as.fields, key)) unknown.push(at);
      else if (item !== null) out[key] = walk(item, as.fields[key]!, at);
    }
    return out;
  };
  const out = walk(value, wanted, root);
  if (unknown.length > 0) {
    throw refused([`strict decoding error: ${unknown.map((path) => `unknown field "${path}"`).join(", ")}`]);
  }
  if (wrong.length > 0) throw refused(wrong);
  return out;
}

const show = (value: unknown): string => JSON.stringify(typeof value === "bigint" ? Number(value) : value) ?? "null";

const percentage = (field: string, value: number | undefined): FieldError[] =>
  value !== undefined && (value < 0 || value > 100) ? [fieldInvalid(field, value, "not in valid range [0-100]")] : [];

function profileOf(raw: RawProfile, path: string, isOnly: boolean, problems: FieldError[]): ProfileSettings {
  const schedulerName = raw.schedulerName ?? (isOnly ? defaultSchedulerName : "");
  if (schedulerName === "") problems.push(fieldRequired(`${path}.schedulerName`));
  problems.push(...percentage(`${path}.percentageOfNodesToScore`, raw.percentageOfNodesToScore));
  const plugins: Partial<Record<(typeof points)[number], PluginSet>> = {};
  for (const point of points) {
    const set = raw.plugins?.[point];
    if (!set) continue;
    for (const [i, { name }] of (set.disabled ?? []).entries()) {
      if (!isKnownName(name ?? "")) {
        problems.push(fieldInvalid(`${path}.plugins.${point}.disabled[${i}].name`, name ?? "", "no such plugin"));
      }
    }
    for (const [i, { weight }] of (set.enabled ?? []).entries()) {
      if (weight !== undefined && (weight < 0 || weight > 2 ** 31 - 1)) {
        problems.push(
          fieldInvalid(`${path}.plugins.${point}.enabled[${i}].weight`, weight, "not in valid range [0-2147483647]"),
        );
      }
    }
    plugins[point] = {
      enabled: (set.enabled ?? []).map(({ name = "", weight = 0 }) => ({ name, weight })),
      disabled: (set.disabled ?? []).map(({ name = "" }) => ({ name })),
    };
  }
  return {
    schedulerName,
    plugins,
    args: argsOf(raw.pluginConfig ?? [], path, problems),
    ...(raw.percentageOfNodesToScore === undefined ? {} : { percentageOfNodesToScore: raw.percentageOfNodesToScore }),
  };
}

/** Upstream has them too; there is nothing to switch off here. */
const elsewhere = ["DynamicResources", "EBSLimits", "GCEPDLimits", "AzureDiskLimits", "CinderLimits"];
const pluginsWithoutArgs = [
  ...["SchedulingGates", "PrioritySort", "NodeUnschedulable", "NodeName", "TaintToleration", "NodePorts"],
  ...["VolumeRestrictions", "NodeVolumeLimits", "VolumeZone", "ImageLocality", "DefaultBinder"],
];
const isKnownName = (name: string): boolean =>
  name === "*" || Object.hasOwn(argShapes, name) || pluginsWithoutArgs.includes(name) || elsewhere.includes(name);

function argsOf(list: NonNullable<RawProfile["pluginConfig"]>, path: string, problems: FieldError[]): PluginArgs {
  const out: Record<string, unknown> = { ...defaultArgs };
  const seen = new Set<string>();
  for (const [i, { name = "", args }] of list.entries()) {
    const at = `${path}.pluginConfig[${i}]`;
    if (seen.has(name)) problems.push(fieldDuplicate(at, name));
    seen.add(name);
    if (!Object.hasOwn(argShapes, name)) {
      problems.push(fieldInvalid(`${at}.name`, name, "there is no plugin of this name that takes arguments"));
      continue;
    }
    const known = name as keyof PluginArgs;
    const wanted = fields({ apiVersion: "string", kind: "string", ...argShapes[known] });
    const given = (args ? strictly(args, wanted, `${at}.args`) : {}) as Record<string, unknown>;
    const { kind, apiVersion, ...values } = given;
    if ((kind ?? `${name}Args`) !== `${name}Args` || (apiVersion ?? `${group}/v1`) !== `${group}/v1`) {
      problems.push(fieldInvalid(`${at}.args`, { apiVersion, kind }, "has to match plugin args"));
    }
    out[name] = { ...defaultArgs[known], ...values };
    if (known === "NodeResourcesFit") out[name] = withStrategy(out[name] as PluginArgs["NodeResourcesFit"]);
    argChecks[known](out[name] as never, `${at}.args`, problems);
  }
  return out as unknown as PluginArgs;
}

/** What a strategy leaves open has defaults of its own. */
function withStrategy(args: PluginArgs["NodeResourcesFit"]): PluginArgs["NodeResourcesFit"] {
  const { scoringStrategy } = defaultArgs.NodeResourcesFit;
  const given: Partial<typeof scoringStrategy> = args.scoringStrategy;
  const resources = (given.resources?.length ? given.resources : scoringStrategy.resources).map(weightOrOne);
  return { ...args, scoringStrategy: { ...scoringStrategy, ...given, resources } };
}
const weightOrOne = ({ name, weight }: ResourceWeight): ResourceWeight => ({ name, weight: weight ?? 1 });

type ArgCheck<K extends keyof PluginArgs> = (args: PluginArgs[K], path: string, problems: FieldError[]) => void;

const strategies = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
const actions = ["DoNotSchedule", "ScheduleAnyway"];

const argChecks: { readonly [K in keyof PluginArgs]: ArgCheck<K> } = {
  NodeResourcesFit({ ignoredResourceGroups, scoringStrategy }, path, problems) {
    for (const [i, name] of ignoredResourceGroups.entries()) {
      if (name.includes("/")) {
        problems.push(
          fieldInvalid(`${path}.ignoredResourceGroups[${i}]`, name, "resource group name can't contain '/'"),
        );
      }
    }
    const at = `${path}.scoringStrategy`;
    const { type, resources, requestedToCapacityRatio: ratio } = scoringStrategy;
    if (!strategies.includes(type)) problems.push(fieldNotSupported(`${at}.type`, type, strategies));
    for (const [i, { name, weight }] of resources.entries()) {
      if (weight <= 0 || weight > 100) {
        const why = `resource weight of ${name} not in valid range (0, 100]`;
        problems.push(fieldInvalid(`${at}.resources[${i}].weight`, weight, why));
      }
    }
    const field = `${at}.requestedToCapacityRatio`;
    if (type !== "RequestedToCapacityRatio") {
      if (ratio) problems.push(fieldForbidden(field, "must be nil when type is not RequestedToCapacityRatio"));
    } else if (!ratio) problems.push(fieldRequired(field, "must be specified when type is RequestedToCapacityRatio"));
    else checkShape(ratio.shape ?? [], `${field}.shape`, problems);
  },
  NodeResourcesBalancedAllocation({ resources }, path, problems) {
    for (const [i, { name, weight }] of resources.entries()) {
      if (resources.findIndex((other) => other.name === name) < i) {
        problems.push(fieldDuplicate(`${path}.resources[${i}].name`, name));
      }
      if ((weight ?? 1) !== 1) problems.push(fieldInvalid(`${path}.resources[${i}].weight`, weight, "must be 1"));
    }
  },
  InterPodAffinity({ hardPodAffinityWeight: weight }, path, problems) {
    if (weight < 0 || weight > 100) {
      problems.push(fieldInvalid(`${path}.hardPodAffinityWeight`, weight, "not in valid range [0, 100]"));
    }
  },
  PodTopologySpread({ defaultConstraints, defaultingType }, path, problems) {
    const field = `${path}.defaultingType`;
    if (defaultingType !== "System" && defaultingType !== "List") {
      problems.push(fieldNotSupported(field, defaultingType, ["System", "List"]));
    } else if (defaultingType === "System" && defaultConstraints.length > 0) {
      problems.push(fieldInvalid(field, defaultingType, "when .defaultConstraints are not empty"));
    }
    for (const [i, c] of defaultConstraints.entries()) {
      const at = `${path}.defaultConstraints[${i}]`;
      if (!(c.maxSkew > 0)) problems.push(fieldInvalid(`${at}.maxSkew`, c.maxSkew ?? 0, "not in valid range (0, inf)"));
      if (!c.topologyKey) problems.push(fieldRequired(`${at}.topologyKey`, "can not be empty"));
      if (!c.whenUnsatisfiable) problems.push(fieldRequired(`${at}.whenUnsatisfiable`, "can not be empty"));
      else if (!actions.includes(c.whenUnsatisfiable)) {
        problems.push(fieldNotSupported(`${at}.whenUnsatisfiable`, c.whenUnsatisfiable, actions));
      }
      if (c.labelSelector) {
        problems.push(
          fieldForbidden(`${at}.labelSelector`, "constraint must not define a selector, as they deduced for each pod"),
        );
      }
      const isSame = (other: typeof c) =>
        other.topologyKey === c.topologyKey && other.whenUnsatisfiable === c.whenUnsatisfiable;
      if (defaultConstraints.findIndex(isSame) < i) {
        problems.push(fieldDuplicate(at, `{${c.topologyKey}, ${c.whenUnsatisfiable}}`));
      }
    }
  },
  NodeAffinity({ addedAffinity }, path, problems) {
    const at = `${path}.addedAffinity`;
    const required = addedAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
    const preferred = addedAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
    const terms = [
      ...(required?.nodeSelectorTerms ?? []).map(
        (term, i) => [`${at}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[${i}]`, term] as const,
      ),
      ...preferred.map(
        ({ preference }, i) =>
          [`${at}.preferredDuringSchedulingIgnoredDuringExecution[${i}].preference`, preference] as const,
      ),
    ];
    const operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    for (const [field, term] of terms) {
      for (const part of ["matchExpressions", "matchFields"] as const) {
        for (const [i, { operator }] of (term?.[part] ?? []).entries()) {
          if (operators.includes(operator)) continue;
          problems.push(fieldInvalid(`${field}.${part}[${i}].operator`, operator, "not a valid selector operator"));
        }
      }
    }
  },
  VolumeBinding(args, path, problems) {
    if (args.bindTimeoutSeconds < 0) {
      const why = "invalid BindTimeoutSeconds, should not be a negative value";
      problems.push(fieldInvalid(`${path}.bindTimeoutSeconds`, args.bindTimeoutSeconds, why));
    }
    if ("shape" in args) {
      const why = "unexpected field `shape`, remove it or turn on the feature gate VolumeCapacityPriority";
      problems.push(fieldInvalid(`${path}.shape`, args.shape, why));
    }
  },
  DefaultPreemption({ minCandidateNodesPercentage: share, minCandidateNodesAbsolute: absolute }, path, problems) {
    const [shareField, absoluteField] = [`${path}.minCandidateNodesPercentage`, `${path}.minCandidateNodesAbsolute`];
    if (share < 0 || share > 100) problems.push(fieldInvalid(shareField, share, "not in valid range [0, 100]"));
    if (absolute < 0) problems.push(fieldInvalid(absoluteField, absolute, "not in valid range [0, inf)"));
    if (share === 0 && absolute === 0) {
      problems.push(
        fieldInvalid(shareField, share, "cannot be zero at the same time as minCandidateNodesAbsolute"),
        fieldInvalid(absoluteField, absolute, "cannot be zero at the same time as minCandidateNodesPercentage"),
      );
    }
  },
};

function checkShape(shapeOf: readonly ShapePoint[], path: string, problems: FieldError[]): void {
  if (shapeOf.length === 0) problems.push(fieldRequired(path, "at least one point must be specified"));
  for (const [i, { utilization }] of shapeOf.entries()) {
    if (i === 0 || shapeOf[i - 1]!.utilization < utilization) continue;
    problems.push(fieldInvalid(`${path}[${i}].utilization`, utilization, "values must be sorted in increasing order"));
    break;
  }
  for (const [i, { utilization, score }] of shapeOf.entries()) {
    if (!(utilization >= 0 && utilization <= 100)) {
      problems.push(fieldInvalid(`${path}[${i}].utilization`, utilization ?? 0, "not in valid range [0, 100]"));
    }
    if (!(score >= 0 && score <= 10)) {
      problems.push(fieldInvalid(`${path}[${i}].score`, score ?? 0, "not in valid range [0, 10]"));
    }
  }
}

const defaultTimeoutMs = 5000;

function extenderOf(raw: RawExtender, files: ReadonlyMap<string, string>): ExtenderSettings {
  const { tlsConfig: tls = {} } = raw;
  const pem = (data: string | undefined, path: string | undefined) => data || (path ? files.get(path) : undefined);
  const [ca, cert, key] = [pem(tls.caData, tls.caFile), pem(tls.certData, tls.certFile), pem(tls.keyData, tls.keyFile)];
  return {
    urlPrefix: raw.urlPrefix ?? "",
    filterVerb: raw.filterVerb ?? "",
    preemptVerb: raw.preemptVerb ?? "",
    prioritizeVerb: raw.prioritizeVerb ?? "",
    bindVerb: raw.bindVerb ?? "",
    weight: raw.weight ?? 0,
    enableHTTPS: raw.enableHTTPS ?? false,
    tls: {
      insecure: tls.insecure ?? false,
      ...(tls.serverName ? { serverName: tls.serverName } : {}),
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    },
    httpTimeoutMs: raw.httpTimeout || defaultTimeoutMs,
    nodeCacheCapable: raw.nodeCacheCapable ?? false,
    managedResources: (raw.managedResources ?? []).map(({ name = "", ignoredByScheduler = false }) => ({
      name,
      ignoredByScheduler,
    })),
    ignorable: raw.ignorable ?? false,
  };
}

function extenderProblems(raw: readonly RawExtender[], extenders: readonly ExtenderSettings[]): FieldError[] {
  const problems: FieldError[] = [];
  const managed = new Set<string>();
  for (const [i, one] of extenders.entries()) {
    const path = `extenders[${i}]`;
    if (!/^https?:\/\/[^/]+/.test(one.urlPrefix) || !URL.canParse(one.urlPrefix)) {
      problems.push(
        fieldInvalid(`${path}.urlPrefix`, one.urlPrefix, "must be a URL that begins with http:// or https://"),
      );
    }
    if (one.prioritizeVerb !== "" && one.weight <= 0) {
      problems.push(fieldInvalid(`${path}.weight`, one.weight, "must have a positive weight applied to it"));
    }
    if (one.httpTimeoutMs < 0) {
      problems.push(fieldInvalid(`${path}.httpTimeout`, raw[i]?.httpTimeout, "must not be negative"));
    }
    for (const [j, { name }] of one.managedResources.entries()) {
      const field = `${path}.managedResources[${j}].name`;
      if (!name.includes("/") || name.startsWith("kubernetes.io/") || name.startsWith("requests.")) {
        problems.push(fieldInvalid(field, name, "is an invalid extended resource name"));
      }
      if (managed.has(name)) problems.push(fieldInvalid(field, name, "duplicate extender managed resource name"));
      managed.add(name);
    }
  }
  const binders = extenders.filter(({ bindVerb }) => bindVerb !== "").length;
  if (binders > 1) {
    problems.push(
      fieldInvalid("extenders", `found ${binders} extenders implementing bind`, "only one extender can implement bind"),
    );
  }
  return problems;
}

const refused = (problems: readonly string[]): AppError =>
  new AppError("SCHEDULER_CONFIGURATION", problems.length === 1 ? problems[0]! : `[${problems.join(", ")}]`);
