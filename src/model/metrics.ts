// The metrics API groups, which are served and asked but never stored, so that their kinds are not in the facts table:
// metrics.k8s.io/v1beta1, and of custom.metrics.k8s.io and external.metrics.k8s.io what an autoscaler reads.
// Upstream counterpart: k8s.io/metrics.
import type { ApiObject } from "./object.ts";
import type { ResourceInfo } from "./resource-info.ts";

/** By resource name: cpu as nanocores, memory as bytes. */
export type Usage = Readonly<Record<string, string>>;

export interface NodeMetrics extends ApiObject {
  timestamp: string;
  /** Go duration: what `usage` is averaged over. */
  window: string;
  usage: Usage;
}

export interface PodMetrics extends ApiObject {
  timestamp: string;
  window: string;
  containers: { name: string; usage: Usage }[];
}

export interface CustomMetricValue {
  describedObject?: { name?: string };
  timestamp?: string;
  windowSeconds?: number;
  value: string;
}

export interface ExternalMetricValue {
  metricName?: string;
  timestamp?: string;
  windowSeconds?: number;
  value: string;
}

const row = {
  group: "metrics.k8s.io",
  version: "v1beta1",
  singular: "",
  shortNames: [],
  categories: [],
  verbs: ["get", "list"],
  subresources: {},
  storageVersion: "metrics.k8s.io/v1beta1",
  storageGroup: "metrics.k8s.io",
  type: "",
} as const;

export const nodeMetrics: ResourceInfo<NodeMetrics> = {
  ...row,
  kind: "NodeMetrics",
  plural: "nodes",
  namespaced: false,
};
export const podMetrics: ResourceInfo<PodMetrics> = { ...row, kind: "PodMetrics", plural: "pods", namespaced: true };
