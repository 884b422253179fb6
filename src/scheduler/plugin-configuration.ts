// Arguments of plugins as a profile gives them: decoded, filled up with defaults, and checked in upstream's words. Pure.
// Upstream counterpart: pkg/scheduler/apis/config/validation/validation_pluginargs.go.
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldNotSupported,
  fieldRequired,
} from "#model/status.ts";
import { defaultArgs, type PluginArgs, type ResourceWeight, type ShapePoint } from "./plugins/args.ts";
import { fields, listOf, type Shape, strictly } from "./strict-decoding.ts";

export const configurationGroup = "kubescheduler.config.k8s.io";

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

/** Upstream has them too; there is nothing to switch off here. */
const elsewhere = ["DynamicResources", "EBSLimits", "GCEPDLimits", "AzureDiskLimits", "CinderLimits"];
const pluginsWithoutArgs = [
  ...["SchedulingGates", "PrioritySort", "NodeUnschedulable", "NodeName", "TaintToleration", "NodePorts"],
  ...["VolumeRestrictions", "NodeVolumeLimits", "VolumeZone", "ImageLocality", "DefaultBinder"],
];
export const isKnownPlugin = (name: string): boolean =>
  name === "*" || Object.hasOwn(argShapes, name) || pluginsWithoutArgs.includes(name) || elsewhere.includes(name);

export interface PluginConfig {
  readonly name?: string;
  readonly args?: unknown;
}

export function pluginArgsOf(list: readonly PluginConfig[], path: string, problems: FieldError[]): PluginArgs {
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
    if (
      (kind ?? `${name}Args`) !== `${name}Args` ||
      (apiVersion ?? `${configurationGroup}/v1`) !== `${configurationGroup}/v1`
    ) {
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
