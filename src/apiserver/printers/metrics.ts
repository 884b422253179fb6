// Tables of metrics.k8s.io: as metrics-server makes them, a pod's containers summed up.
import type { NodeMetrics, PodMetrics, Usage } from "#model/metrics.ts";
import { addQuantities, canonicalQuantity } from "#model/quantity.ts";
import { nameColumn } from "./column-kit.ts";
import type { Column } from "./columns.ts";

type Metrics = NodeMetrics | PodMetrics;

const usagesOf = (metrics: Metrics): readonly Usage[] =>
  "containers" in metrics ? metrics.containers.map((container) => container.usage) : [metrics.usage];

const usage = (name: string, description: string): Column<Metrics> => ({
  ...{ name, type: "string", format: "quantity", description, priority: 0 },
  value: (metrics) =>
    usagesOf(metrics).reduce((sum, each) => addQuantities(sum, each[name] ?? "0").toString(), canonicalQuantity("0")),
});

const columns: readonly Column<Metrics>[] = [
  { ...(nameColumn as Column<Metrics>), description: "Name of the resource" },
  usage("cpu", "Cores used, averaged over the window."),
  usage("memory", "Working set at the end of the window."),
  {
    ...{ name: "Window", type: "string", format: "duration", description: "How long was measured.", priority: 0 },
    value: (metrics) => metrics.window,
  },
];

export const nodeMetricsColumns = columns as readonly Column<NodeMetrics>[];
export const podMetricsColumns = columns as readonly Column<PodMetrics>[];
