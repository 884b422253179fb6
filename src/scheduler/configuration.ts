// KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1) read strictly: what is not known is refused by its path, as
// are values out of range, in upstream's words. Pure: text in, settings out. What only makes sense for a scheduler in a
// process of its own (leaderElection, clientConnection, parallelism, profiling) is checked and then without effect.
// Upstream counterpart: pkg/scheduler/apis/config (v1 defaults, validation).
import { messageOf } from "#base/errors.ts";
import { type FieldError, fieldDuplicate, fieldInvalid, fieldRequired } from "#model/status.ts";
import { parseYaml } from "#wire/yaml.ts";
import type { ExtenderSettings } from "./extender.ts";
import { configurationGroup, isKnownPlugin, type PluginConfig, pluginArgsOf } from "./plugin-configuration.ts";
import { extensionPoints } from "./plugins/framework.ts";
import {
  compileProfile,
  defaultProfileSettings,
  defaultSchedulerName,
  type PluginSet,
  type Profile,
  type ProfileSettings,
} from "./profile.ts";
import { fields, listOf, refusedConfiguration, strictly } from "./strict-decoding.ts";

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
  readonly pluginConfig?: readonly PluginConfig[];
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
  if (problems.length > 0) throw refusedConfiguration(problems.map(({ field, message }) => `${field}: ${message}`));
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
    throw refusedConfiguration([`not readable as YAML: ${messageOf(error)}`]);
  }
  const { apiVersion, kind } = (value ?? {}) as RawConfiguration;
  if (kind !== "KubeSchedulerConfiguration" || apiVersion !== `${configurationGroup}/v1`) {
    throw refusedConfiguration([
      `no kind "${kind ?? ""}" is registered for version "${apiVersion ?? ""}"; use apiVersion ${configurationGroup}/v1, kind KubeSchedulerConfiguration`,
    ]);
  }
  return strictly(value, shape) as RawConfiguration;
}

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
      if (!isKnownPlugin(name ?? "")) {
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
    args: pluginArgsOf(raw.pluginConfig ?? [], path, problems),
    ...(raw.percentageOfNodesToScore === undefined ? {} : { percentageOfNodesToScore: raw.percentageOfNodesToScore }),
  };
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
