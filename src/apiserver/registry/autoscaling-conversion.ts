// HorizontalPodAutoscaler between autoscaling/v2, as it is stored, and v1, which has one target in percent of CPU. What v1 has
// no field for travels in annotations, so that writing back what was read as v1 loses nothing: other metrics, what they are
// now, conditions and behaviour. Names and forms of the annotations are upstream's (pkg/apis/autoscaling/v1/conversion.go);
// behaviour stands there with the names of Go's fields.

type Fields = Record<string, unknown>;

const annotation = {
  metrics: "autoscaling.alpha.kubernetes.io/metrics",
  currentMetrics: "autoscaling.alpha.kubernetes.io/current-metrics",
  conditions: "autoscaling.alpha.kubernetes.io/conditions",
  behavior: "autoscaling.alpha.kubernetes.io/behavior",
} as const;
const defaultCpuPercent = 80;

const fieldsOf = (value: unknown): Fields => (typeof value === "object" && value !== null ? (value as Fields) : {});
const listOf = (value: unknown): Fields[] => (Array.isArray(value) ? (value as Fields[]) : []);
/** Without what is absent. */
const defined = (fields: Fields): Fields =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));

const cpuPercentOf = (metric: Fields, side: "target" | "current"): unknown => {
  const resource = fieldsOf(metric["resource"]);
  if (metric["type"] !== "Resource" || resource["name"] !== "cpu") return undefined;
  return fieldsOf(resource[side])["averageUtilization"];
};

/** v2 → v1. */
export function autoscalerToV1(object: Fields): Fields {
  const { metrics, behavior, ...spec } = fieldsOf(object["spec"]);
  const { currentMetrics, conditions, ...status } = fieldsOf(object["status"]);
  const all = listOf(metrics);
  const firstCpu = all.find(
    (metric) => fieldsOf(metric["resource"])["name"] === "cpu" && metric["type"] === "Resource",
  );
  const percent = firstCpu && cpuPercentOf(firstCpu, "target");
  const others = all.filter((metric) => cpuPercentOf(metric, "target") === undefined);
  const current = listOf(currentMetrics);
  const currentPercent = current.map((metric) => cpuPercentOf(metric, "current")).findLast((one) => one !== undefined);
  const kept: Record<string, string> = {};
  if (others.length > 0) kept[annotation.metrics] = JSON.stringify(others.map(metricToV1));
  if (current.length > 0) kept[annotation.currentMetrics] = JSON.stringify(current.map(statusToV1));
  if (listOf(conditions).length > 0) kept[annotation.conditions] = JSON.stringify(conditions);
  if (behavior !== undefined) kept[annotation.behavior] = JSON.stringify(withGoNames(behavior));
  const metadata = fieldsOf(object["metadata"]);
  const annotations = { ...fieldsOf(metadata["annotations"]), ...kept };
  return {
    ...object,
    metadata: Object.keys(kept).length > 0 ? { ...metadata, annotations } : metadata,
    spec: defined({ ...spec, targetCPUUtilizationPercentage: percent }),
    ...(object["status"] === undefined
      ? {}
      : { status: defined({ ...status, currentCPUUtilizationPercentage: currentPercent }) }),
  };
}

/** v1 → v2. */
export function autoscalerFromV1(object: Fields): Fields {
  const { targetCPUUtilizationPercentage: percent, ...spec } = fieldsOf(object["spec"]);
  const { currentCPUUtilizationPercentage: currentPercent, ...status } = fieldsOf(object["status"]);
  const metadata = fieldsOf(object["metadata"]);
  const annotations = { ...fieldsOf(metadata["annotations"]) };
  /** What cannot be read is as if it were not there. */
  const take = (name: string): unknown => {
    const text = annotations[name];
    delete annotations[name];
    if (typeof text !== "string") return undefined;
    try {
      return JSON.parse(text);
    } catch {
      return undefined;
    }
  };
  const metrics: Fields[] = [];
  if (percent !== undefined) metrics.push(cpuMetric({ target: { type: "Utilization", averageUtilization: percent } }));
  metrics.push(...listOf(take(annotation.metrics)).map(metricFromV1));
  if (metrics.length === 0) {
    metrics.push(cpuMetric({ target: { type: "Utilization", averageUtilization: defaultCpuPercent } }));
  }
  const told = listOf(take(annotation.currentMetrics)).map(statusFromV1);
  const plain = currentPercent === undefined ? [] : [cpuMetric({ current: { averageUtilization: currentPercent } })];
  const currentMetrics = told.length > 0 ? told : plain;
  const conditions = listOf(take(annotation.conditions));
  const behavior = take(annotation.behavior);
  const { annotations: _annotations, ...rest } = metadata;
  return {
    ...object,
    metadata: Object.keys(annotations).length > 0 ? { ...rest, annotations } : rest,
    spec: defined({ ...spec, metrics, behavior: behavior === undefined ? undefined : withApiNames(behavior) }),
    ...(object["status"] === undefined
      ? {}
      : {
          status: defined({
            ...status,
            currentMetrics: currentMetrics.length > 0 ? currentMetrics : undefined,
            conditions: conditions.length > 0 ? conditions : undefined,
          }),
        }),
  };
}

const cpuMetric = (side: Fields): Fields => ({ type: "Resource", resource: { name: "cpu", ...side } });

function metricToV1(metric: Fields): Fields {
  const { object, pods, resource, containerResource, external, ...rest } = metric;
  return defined({
    ...rest,
    object: object && objectToV1(fieldsOf(object), "target"),
    pods: pods && podsToV1(fieldsOf(pods), "target"),
    resource: resource && resourceToV1(fieldsOf(resource), "target"),
    containerResource: containerResource && resourceToV1(fieldsOf(containerResource), "target"),
    external: external && externalToV1(fieldsOf(external), "target"),
  });
}

function statusToV1(metric: Fields): Fields {
  const { object, pods, resource, containerResource, external, ...rest } = metric;
  return defined({
    ...rest,
    object: object && objectToV1(fieldsOf(object), "current"),
    pods: pods && podsToV1(fieldsOf(pods), "current"),
    resource: resource && resourceToV1(fieldsOf(resource), "current"),
    containerResource: containerResource && resourceToV1(fieldsOf(containerResource), "current"),
    external: external && externalToV1(fieldsOf(external), "current"),
  });
}

type Side = "target" | "current";

const resourceToV1 = ({ name, container, [`target`]: target, current }: Fields, side: Side): Fields => {
  const value = fieldsOf(side === "target" ? target : current);
  return defined({
    name,
    container,
    [`${side}AverageUtilization`]: value["averageUtilization"],
    [`${side}AverageValue`]: value["averageValue"] ?? (side === "current" ? "0" : undefined),
  });
};

const podsToV1 = (source: Fields, side: Side): Fields =>
  defined({
    metricName: fieldsOf(source["metric"])["name"],
    selector: fieldsOf(source["metric"])["selector"],
    [`${side}AverageValue`]: fieldsOf(source[side])["averageValue"],
  });

const externalToV1 = (source: Fields, side: Side): Fields =>
  defined({
    metricName: fieldsOf(source["metric"])["name"],
    metricSelector: fieldsOf(source["metric"])["selector"],
    [`${side}Value`]: fieldsOf(source[side])["value"] ?? (side === "current" ? "0" : undefined),
    [`${side}AverageValue`]: fieldsOf(source[side])["averageValue"],
  });

const objectToV1 = (source: Fields, side: Side): Fields =>
  defined({
    target: source["describedObject"],
    metricName: fieldsOf(source["metric"])["name"],
    selector: fieldsOf(source["metric"])["selector"],
    [`${side}Value`]: fieldsOf(source[side])["value"] ?? "0",
    averageValue: fieldsOf(source[side])["averageValue"],
  });

const metricFromV1 = (metric: Fields): Fields => fromV1(metric, "target");
const statusFromV1 = (metric: Fields): Fields => fromV1(metric, "current");

function fromV1(metric: Fields, side: Side): Fields {
  const { object, pods, resource, containerResource, external, ...rest } = metric;
  const goal = (value: Fields): Fields => {
    const { value: plain, averageValue, averageUtilization } = value;
    // Where v1 must have a number, nought stands for none.
    const isNone = plain === "0" && (averageValue !== undefined || averageUtilization !== undefined);
    const kept = defined({ value: isNone ? undefined : plain, averageValue, averageUtilization });
    if (side === "current") return kept;
    const type =
      averageUtilization !== undefined ? "Utilization" : averageValue !== undefined ? "AverageValue" : "Value";
    return { type, ...kept };
  };
  const of = (source: Fields, value: Fields): Fields => ({ ...source, [side]: goal(value) });
  const fromResource = (source: Fields): Fields => {
    const { name, container } = source;
    const averageUtilization = source[`${side}AverageUtilization`];
    return of(defined({ name, container }), { averageUtilization, averageValue: source[`${side}AverageValue`] });
  };
  const [fields, podFields, outer] = [fieldsOf(object), fieldsOf(pods), fieldsOf(external)];
  return defined({
    ...rest,
    object:
      object &&
      of(
        {
          describedObject: fields["target"],
          metric: defined({ name: fields["metricName"], selector: fields["selector"] }),
        },
        { value: fields[`${side}Value`], averageValue: fields["averageValue"] },
      ),
    pods:
      pods &&
      of(
        { metric: defined({ name: podFields["metricName"], selector: podFields["selector"] }) },
        { averageValue: podFields[`${side}AverageValue`] },
      ),
    resource: resource && fromResource(fieldsOf(resource)),
    containerResource: containerResource && fromResource(fieldsOf(containerResource)),
    external:
      external &&
      of(
        { metric: defined({ name: outer["metricName"], selector: outer["metricSelector"] }) },
        { value: outer[`${side}Value`], averageValue: outer[`${side}AverageValue`] },
      ),
  });
}

const withGoNames = (value: unknown): unknown => renamed(value, (name) => name[0]!.toUpperCase() + name.slice(1));
const withApiNames = (value: unknown): unknown => renamed(value, (name) => name[0]!.toLowerCase() + name.slice(1));

function renamed(value: unknown, rename: (name: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renamed(item, rename));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name, member]) => name !== "" && member !== null)
      .map(([name, member]) => [rename(name), renamed(member, rename)]),
  );
}
