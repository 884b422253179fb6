// Asks the metrics APIs for what an autoscaler's metric is about. Answers are a Reading: what could not be had is a sentence
// and not an exception, because one metric's failure is no other's. Groups that nobody serves are such a failure.
// Upstream counterpart: pkg/controller/podautoscaler/metrics/client.go.
import { messageOf } from "#base/errors.ts";
import type { Client } from "#client/client.ts";
import type { MetricSpec } from "#model/gen/autoscaling-v2.ts";
import { formatRequirements, requirementsOf } from "#model/label-selector.ts";
import { type CustomMetricValue, type ExternalMetricValue, type PodMetrics, podMetrics } from "#model/metrics.ts";
import { nameOf, namespaceOf } from "#model/object.ts";
import { parseQuantity } from "#model/quantity.ts";
import { isNotFound } from "#model/status.ts";
import { mappingsOf } from "../runtime/scale.ts";
import { selectorText } from "../runtime/selector.ts";
import type { Reading } from "./plan.ts";
import { MetricError, type PodMetric } from "./replicas.ts";

export interface Wanted {
  readonly namespace: string;
  /** Of the target's pods. */
  readonly selector: string;
}

/** What a metric without one is averaged over. */
const defaultWindowMs = 60_000;

export async function readMetric(client: Client, spec: MetricSpec, wanted: Wanted): Promise<Reading> {
  try {
    return await read(client, spec, wanted);
  } catch (error) {
    return { kind: "failure", message: messageOf(error) };
  }
}

function read(client: Client, spec: MetricSpec, wanted: Wanted): Promise<Reading> {
  switch (spec.type) {
    case "Resource":
      return readResource(client, spec.resource?.name ?? "", undefined, wanted);
    case "ContainerResource": {
      const { name, container } = spec.containerResource!;
      return readResource(client, name, container, wanted);
    }
    case "Pods":
      return readPods(client, spec.pods!, wanted);
    case "Object":
      return readObject(client, spec.object!, wanted.namespace);
    case "External":
      return readExternal(client, spec.external!, wanted.namespace);
    default:
      throw new MetricError(`unknown metric source type ${JSON.stringify(spec.type)}`);
  }
}

async function readResource(
  client: Client,
  resource: string,
  container: string | undefined,
  { namespace, selector }: Wanted,
): Promise<Reading> {
  const fail = (why: string): never => {
    throw new MetricError(`unable to get metrics for resource ${resource}: ${why}`);
  };
  let items: readonly PodMetrics[] = [];
  try {
    items = (await client.list(podMetrics, { namespace, labelSelector: selector })).items;
  } catch (error) {
    fail(`unable to fetch metrics from resource metrics API: ${wordsOf(error, "pods.metrics.k8s.io")}`);
  }
  if (items.length === 0) fail("no metrics returned from resource metrics API");
  const metrics = new Map<string, PodMetric>();
  for (const item of items) {
    const parts = container === undefined ? item.containers : item.containers.filter((c) => c.name === container);
    if (container !== undefined && parts.length === 0) {
      const where = `${namespaceOf(item)}/${nameOf(item)}`;
      fail(`failed to get container metrics: container ${container} not present in metrics for pod ${where}`);
    }
    const used = parts.map((c) => c.usage[resource]);
    if (used.length === 0 || used.includes(undefined)) continue;
    const value = used.reduce((sum, text) => sum + milli(text), 0);
    metrics.set(nameOf(item), { value, atMs: Date.parse(item.timestamp), windowMs: durationMs(item.window) });
  }
  return { kind: "pods", metrics };
}

async function readPods(
  client: Client,
  { metric }: NonNullable<MetricSpec["pods"]>,
  { namespace, selector }: Wanted,
): Promise<Reading> {
  const words = `unable to get metric ${metric.name}`;
  const items = await custom(client, words, `namespaces/${escaped(namespace)}/pods/*/${escaped(metric.name)}`, {
    labelSelector: selector,
    metricLabelSelector: selectorOf(metric.selector),
  });
  if (items.length === 0) throw new MetricError(`${words}: no metrics returned from custom metrics API`);
  return {
    kind: "pods",
    metrics: new Map(
      items.map((item) => [
        item.describedObject?.name ?? "",
        {
          value: milli(item.value),
          atMs: Date.parse(item.timestamp ?? "") || 0,
          windowMs: item.windowSeconds === undefined ? defaultWindowMs : item.windowSeconds * 1000,
        },
      ]),
    ),
  };
}

async function readObject(
  client: Client,
  { metric, describedObject }: NonNullable<MetricSpec["object"]>,
  namespace: string,
): Promise<Reading> {
  const { kind, name, apiVersion } = describedObject;
  // Upstream's words, which name the object where the reason belongs and the other way round.
  const words = `unable to get metric ${metric.name}: ${kind} on ${namespace} ${name}/`;
  const query = { metricLabelSelector: selectorOf(metric.selector) };
  let items: readonly CustomMetricValue[];
  if (kind === "Namespace") {
    items = await custom(client, words, `namespaces/${escaped(name)}/metrics/${escaped(metric.name)}`, query, "");
  } else {
    const [mapping] = await mappingsOf(client, apiVersion ?? "", kind);
    const resource = mapping!.group === "" ? mapping!.plural : `${mapping!.plural}.${mapping!.group}`;
    const path = `namespaces/${escaped(namespace)}/${resource}/${escaped(name)}/${escaped(metric.name)}`;
    items = await custom(client, words, path, query, "");
  }
  const [first] = items;
  if (!first) throw new MetricError(`${words}no metrics returned from custom metrics API`);
  return { kind: "value", value: milli(first.value) };
}

async function readExternal(
  client: Client,
  { metric }: NonNullable<MetricSpec["external"]>,
  namespace: string,
): Promise<Reading> {
  const words = `unable to get external metric ${namespace}/${metric.name}/${selectorText(metric.selector)}`;
  const path = `/apis/external.metrics.k8s.io/v1beta1/namespaces/${escaped(namespace)}/${escaped(metric.name)}`;
  let items: readonly ExternalMetricValue[];
  try {
    const query = { labelSelector: selectorOf(metric.selector) };
    const list = await client.transport.request({ method: "GET", path, query });
    items = (list["items"] as ExternalMetricValue[] | undefined) ?? [];
  } catch (error) {
    const why = wordsOf(error, `${metric.name}.external.metrics.k8s.io`);
    throw new MetricError(`${words}: unable to fetch metrics from external metrics API: ${why}`);
  }
  if (items.length === 0) throw new MetricError(`${words}: no metrics returned from external metrics API`);
  return { kind: "value", value: items.reduce((sum, item) => sum + milli(item.value), 0) };
}

const customGroup = "custom.metrics.k8s.io";

async function custom(
  client: Client,
  words: string,
  path: string,
  query: Readonly<Record<string, string | undefined>>,
  colon = ": ",
): Promise<readonly CustomMetricValue[]> {
  try {
    const version = await customVersion(client);
    const list = await client.transport.request({
      method: "GET",
      path: `/apis/${customGroup}/${version}/${path}`,
      query,
    });
    return (list["items"] as CustomMetricValue[] | undefined) ?? [];
  } catch (error) {
    throw new MetricError(`${words}${colon}unable to fetch metrics from custom metrics API: ${messageOf(error)}`);
  }
}

async function customVersion(client: Client): Promise<string> {
  try {
    const group = await client.transport.request({ method: "GET", path: `/apis/${customGroup}` });
    return (group["preferredVersion"] as { version?: string } | undefined)?.version ?? "v1beta1";
  } catch (error) {
    if (isNotFound(error)) throw new MetricError(`no custom metric API (${customGroup}) registered`);
    throw error;
  }
}

/** A group that nobody serves is refused without a Status; clients say it so. */
const wordsOf = (error: unknown, resource: string): string =>
  isNotFound(error) && error.message === "404 page not found"
    ? `the server could not find the requested resource (get ${resource})`
    : messageOf(error);

const escaped = encodeURIComponent;
const selectorOf = (selector: Parameters<typeof requirementsOf>[0]): string | undefined => {
  const requirements = requirementsOf(selector);
  return requirements && requirements.length > 0 ? formatRequirements(requirements) : undefined;
};
const milli = (text: string | number | undefined): number => Number(parseQuantity(text ?? "0").milliValue());

/** Go's durations, as far as windows have them. */
function durationMs(text: string): number {
  const units: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };
  let ms = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)(ms|h|m|s)/g)) ms += Number(amount) * (units[unit!] ?? 0);
  return ms;
}
