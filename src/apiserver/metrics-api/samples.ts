// What a node says under /metrics/resource, and what was used between two times it was asked. Pure. A counter that went back
// belongs to a new life of the container; a container that is younger than the first sample counts from its start.
// Upstream counterpart: metrics-server's decode.go and storage.
import type { Usage } from "#model/metrics.ts";
import { parseQuantity } from "#model/quantity.ts";

interface Reading {
  cpuSeconds?: number;
  memoryBytes?: number;
  startedAtMs?: number;
}

export interface NodeSample {
  /** Wall clock of the node. */
  readonly atMs: number;
  readonly node: Readonly<Reading>;
  /** By `namespace/pod/container`. */
  readonly containers: ReadonlyMap<string, Readonly<Reading>>;
}

export interface Measured {
  readonly atMs: number;
  readonly windowMs: number;
  readonly usage: Usage;
}

export interface NodeUsage {
  readonly node: Measured | undefined;
  /** By `namespace/pod/container`. */
  readonly containers: ReadonlyMap<string, Measured>;
}

/** A container must have run so long before its start may stand for a first sample. */
const freshContainerMs = 10_000;
const line = /^([a-z_]+)(?:\{(.*)\})? (\S+)(?: (\d+))?$/;
const label = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;

/** One line per value; what else a node tells is passed over. */
export function parseResourceMetrics(text: string, nowMs: number): NodeSample {
  const node: Reading = {};
  const containers = new Map<string, Reading>();
  let atMs: number | undefined;
  const containerOf = (labels: string): Reading | undefined => {
    const found: Record<string, string> = {};
    for (const [, name = "", value = ""] of labels.matchAll(label)) found[name] = value.replace(/\\(.)/g, "$1");
    const { namespace, pod, container } = found;
    if (!namespace || !pod || !container) return undefined;
    const key = `${namespace}/${pod}/${container}`;
    let reading = containers.get(key);
    if (!reading) {
      reading = {};
      containers.set(key, reading);
    }
    return reading;
  };
  for (const each of text.split("\n")) {
    const match = line.exec(each);
    if (!match) continue;
    const [, name, labels = "", text = "", stamp] = match;
    const value = Number(text);
    if (!Number.isFinite(value)) continue;
    let reading: Reading | undefined;
    if (name === "node_cpu_usage_seconds_total") node.cpuSeconds = value;
    else if (name === "node_memory_working_set_bytes") node.memoryBytes = value;
    else if (name === "container_cpu_usage_seconds_total") {
      reading = containerOf(labels);
      if (reading) reading.cpuSeconds = value;
    } else if (name === "container_memory_working_set_bytes") {
      reading = containerOf(labels);
      if (reading) reading.memoryBytes = value;
    } else if (name === "container_start_time_seconds") {
      reading = containerOf(labels);
      if (reading) reading.startedAtMs = value * 1000;
      continue;
    } else continue;
    if (stamp !== undefined) atMs = Math.max(atMs ?? 0, Number(stamp));
  }
  return { atMs: atMs ?? nowMs, node, containers };
}

/** The stamps of a node whose clock was set meanwhile differ by more than this from the time that passed here. */
const maxClockErrorMs = 2_000;

/** What was used from `base` to `last`, which `passedMs` lay between by our own clock. */
export function usageBetween(base: NodeSample, last: NodeSample, passedMs: number): NodeUsage {
  const isSet = Math.abs(last.atMs - base.atMs - passedMs) > maxClockErrorMs;
  return usageOf(isSet ? { ...base, atMs: last.atMs - passedMs } : base, last);
}

function usageOf(base: NodeSample, last: NodeSample): NodeUsage {
  const containers = new Map<string, Measured>();
  for (const [key, now] of last.containers) {
    const then = firstReading(base, base.containers.get(key), now, last.atMs);
    const measured = then && measure(then.atMs, then.reading, last.atMs, now);
    if (measured) containers.set(key, measured);
  }
  return { node: measure(base.atMs, base.node, last.atMs, last.node), containers };
}

function firstReading(
  base: NodeSample,
  then: Readonly<Reading> | undefined,
  now: Readonly<Reading>,
  atMs: number,
): { readonly atMs: number; readonly reading: Readonly<Reading> } | undefined {
  const isSameLife =
    then !== undefined &&
    (then.cpuSeconds ?? 0) <= (now.cpuSeconds ?? 0) &&
    (now.startedAtMs === undefined || now.startedAtMs <= base.atMs);
  if (isSameLife) return { atMs: base.atMs, reading: then };
  const { startedAtMs } = now;
  if (startedAtMs === undefined || atMs - startedAtMs < freshContainerMs) return undefined;
  return { atMs: startedAtMs, reading: { cpuSeconds: 0 } };
}

function measure(fromMs: number, from: Readonly<Reading>, toMs: number, to: Readonly<Reading>): Measured | undefined {
  const windowMs = toMs - fromMs;
  if (from.cpuSeconds === undefined || to.cpuSeconds === undefined || !to.memoryBytes || windowMs <= 0)
    return undefined;
  const nanocores = Math.round(((to.cpuSeconds - from.cpuSeconds) / windowMs) * 1e12);
  return { atMs: toMs, windowMs, usage: { cpu: cpuText(Math.max(0, nanocores)), memory: memoryText(to.memoryBytes) } };
}

const cpuText = (nanocores: number): string => parseQuantity(`${nanocores}n`).toString();
const memoryText = (bytes: number): string =>
  bytes % 1024 === 0 ? parseQuantity(`${bytes / 1024}Ki`).toString() : String(Math.round(bytes));
