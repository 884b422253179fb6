import { expect, test } from "vitest";
import { Client } from "#client/client.ts";
import type { ApiRequest } from "#client/transport.ts";
import type { MetricSpec } from "#model/gen/autoscaling-v2.ts";
import { ApiError } from "#model/status.ts";
import { mappingsOf } from "../runtime/scale.ts";
import { readMetric } from "./metrics-client.ts";

/** Answers by path; what was asked, in order. */
function clientOf(answers: Readonly<Record<string, unknown>>) {
  const asked: string[] = [];
  const client = new Client({
    async request({ path, query = {} }: ApiRequest) {
      const text = Object.entries(query)
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => `${name}=${value}`);
      asked.push(text.length > 0 ? `${path}?${text.join("&")}` : path);
      const answer = answers[path];
      if (answer === undefined) throw new ApiError(404, "NotFound", "404 page not found", {});
      if (answer instanceof Error) throw answer;
      return answer as never;
    },
    // biome-ignore lint/correctness/useYield: nothing is watched here
    async *watch() {
      throw new Error("not asked for");
    },
  });
  return { asked, client };
}
const wanted = { namespace: "ns", selector: "app=web" };
const metric = { name: "qps", selector: { matchLabels: { verb: "GET" } } };
const target = { type: "AverageValue", averageValue: "1" };
const specs = {
  resource: { type: "Resource", resource: { name: "cpu", target } },
  container: { type: "ContainerResource", containerResource: { name: "cpu", container: "main", target } },
  pods: { type: "Pods", pods: { metric, target } },
  object: {
    type: "Object",
    object: { metric, target, describedObject: { apiVersion: "networking.k8s.io/v1", kind: "Ingress", name: "in" } },
  },
  namespace: {
    type: "Object",
    object: { metric: { name: "hits" }, target, describedObject: { apiVersion: "v1", kind: "Namespace", name: "ns" } },
  },
  external: { type: "External", external: { metric, target } },
} satisfies Record<string, MetricSpec>;
const custom = "/apis/custom.metrics.k8s.io";
const group = { preferredVersion: { version: "v1beta2" } };
const podsPath = "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods";
const timestamp = "2026-01-01T00:00:10Z";
const atMs = Date.parse(timestamp);
const podMetrics = (containers: object[]) => ({
  items: [{ metadata: { name: "a", namespace: "ns" }, timestamp, window: "1m0.5s", containers }],
});
const main = { name: "main", usage: { cpu: "1500u", memory: "1Ki" } };

test.each([
  [
    "resource: containers summed up, rounded up to thousandths",
    specs.resource,
    { [podsPath]: podMetrics([main, { name: "side", usage: { cpu: "2m" } }]) },
    [`${podsPath}?labelSelector=app=web`],
    [["a", { value: 4, atMs, windowMs: 60_500 }]],
  ],
  [
    "resource: a pod that lacks it is missing",
    specs.resource,
    { [podsPath]: podMetrics([{ name: "x", usage: {} }]) },
    undefined,
    [],
  ],
  [
    "one container",
    specs.container,
    { [podsPath]: podMetrics([main, { name: "side", usage: { cpu: "2m" } }]) },
    undefined,
    [["a", { value: 2, atMs, windowMs: 60_500 }]],
  ],
  [
    "pods",
    specs.pods,
    {
      [custom]: group,
      [`${custom}/v1beta2/namespaces/ns/pods/*/qps`]: {
        items: [{ describedObject: { name: "a" }, timestamp, value: "2500m", windowSeconds: 30 }],
      },
    },
    [custom, `${custom}/v1beta2/namespaces/ns/pods/*/qps?labelSelector=app=web&metricLabelSelector=verb=GET`],
    [["a", { value: 2500, atMs, windowMs: 30_000 }]],
  ],
] as const)("%s", async (_, spec, answers, paths, metrics) => {
  const { asked, client } = clientOf(answers);
  const reading = await readMetric(client, spec, wanted);
  expect(reading).toEqual({ kind: "pods", metrics: new Map(metrics as never) });
  if (paths) expect(asked).toEqual(paths);
});

test.each([
  ["object", specs.object, `${custom}/v1beta2/namespaces/ns/ingresses.networking.k8s.io/in/qps`, 7000],
  ["namespace", specs.namespace, `${custom}/v1beta2/namespaces/ns/metrics/hits`, 7000],
  ["external: the sum", specs.external, "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/qps", 8000],
])("%s", async (_, spec, path, value) => {
  const { client } = clientOf({ [custom]: group, [path]: { items: [{ value: "7" }, { value: "1" }] } });
  expect(await readMetric(client, spec, wanted)).toEqual({ kind: "value", value });
});

const denied = new ApiError(403, "Forbidden", "no");
const selector =
  "&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}";
test.each([
  [
    specs.resource,
    {},
    "unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)",
  ],
  [
    specs.resource,
    { [podsPath]: denied },
    "unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: no",
  ],
  [
    specs.resource,
    { [podsPath]: { items: [] } },
    "unable to get metrics for resource cpu: no metrics returned from resource metrics API",
  ],
  [
    specs.container,
    { [podsPath]: podMetrics([{ name: "x", usage: {} }]) },
    "unable to get metrics for resource cpu: failed to get container metrics: container main not present in metrics for pod ns/a",
  ],
  [
    specs.pods,
    {},
    "unable to get metric qps: unable to fetch metrics from custom metrics API: no custom metric API (custom.metrics.k8s.io) registered",
  ],
  [
    specs.object,
    { [custom]: group, [`${custom}/v1beta2/namespaces/ns/ingresses.networking.k8s.io/in/qps`]: { items: [] } },
    "unable to get metric qps: Ingress on ns in/no metrics returned from custom metrics API",
  ],
  [
    specs.external,
    {},
    `unable to get external metric ns/qps/${selector}: unable to fetch metrics from external metrics API: the server could not find the requested resource (get qps.external.metrics.k8s.io)`,
  ],
] as [MetricSpec, Record<string, unknown>, string][])("a failure is a sentence: %#", async (spec, answers, message) => {
  const { client } = clientOf(answers);
  expect(await readMetric(client, spec, wanted)).toEqual({ kind: "failure", message });
});

test("kinds: built in, found by discovery, of no group", async () => {
  const { asked, client } = clientOf({
    "/apis/example.org": {
      versions: [{ version: "v1" }, { version: "v2" }],
      preferredVersion: { version: "v2" },
    },
    "/apis/example.org/v1": { resources: [{ name: "fleets", kind: "Fleet" }] },
    "/apis/example.org/v2": {
      resources: [
        { name: "fleets/scale", kind: "Fleet" },
        { name: "fleets", kind: "Fleet" },
      ],
    },
  });
  expect(await mappingsOf(client, "apps/v1beta9", "Deployment")).toMatchObject([{ plural: "deployments" }]);
  expect(asked).toEqual([]);
  expect(await mappingsOf(client, "example.org/v1", "Fleet")).toEqual([
    { group: "example.org", version: "v2", plural: "fleets" },
    { group: "example.org", version: "v1", plural: "fleets" },
  ]);
  await expect(mappingsOf(client, "a/b/c", "X")).rejects.toThrow("unexpected GroupVersion string: a/b/c");
  await expect(mappingsOf(client, "v1", "X")).rejects.toThrow('no matches for kind "X" in group ""');
  await expect(mappingsOf(client, "no.org/v1", "X")).rejects.toThrow('no matches for kind "X" in group "no.org"');
});
