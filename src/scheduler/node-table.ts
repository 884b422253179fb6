// The numbers of all nodes in columns of typed arrays, one row (slot) per node: what each has and what of it is given away,
// marks, the domain a node belongs to under a topology key, and how many pods on it a selector selects. Plugins read
// columns; only NodeInfo writes them, so that sums and lists of pods never disagree.
//
//   slot            0      1      2   …
//   allocatable[cpu] 4000   8000   4000        one column per resource that some node offers
//   requested[cpu]    500      0   3900
//   domains(zone)       0      1      0        dense numbers, -1 where the label is missing
//   matching(selector)  2      0      1        kept up to date as pods come and go, while somebody asks for it
//
// Upstream counterpart: NodeInfo's Resource fields; the topology maps of PodTopologySpread and InterPodAffinity, which it
// counts anew for every pod.
import { assert } from "#base/assert.ts";
import { type LabelRequirement, matchesRequirements } from "#model/label-selector.ts";
import type { Labels, PodInfo, Term, WeightedTerm } from "./pod-info.ts";
import type { Amounts } from "./resources.ts";
import type { NodeInfo } from "./snapshot.ts";

/** Columns that are always there. */
export const column = { cpu: 0, memory: 1, storage: 2, pods: 3 } as const;
const fixedColumns = ["cpu", "memory", "ephemeral-storage", "pods"];
export const mark = { unschedulable: 1, hardTaint: 2, softTaint: 4 } as const;

/** Pods a node takes when it does not say. */
const defaultPodsPerNode = 110;
/** Topology keys in use at a time: upstream allows any label, clusters use a handful. */
const maxTopologyKeys = 32;
/** Selectors whose pods are counted as they come and go; the one asked for longest ago is counted anew when needed again. */
const maxSelectors = 128;

export interface Domains {
  /** Slot → domain, or -1. */
  readonly ids: Int32Array;
  /** Domain → label value. */
  readonly values: readonly string[];
}
/** near: required affinity; far: required anti-affinity. */
export type TermKind = "near" | "far" | "preferred";

export interface HeldTerm {
  readonly term: Term;
  /** Of preferred ones; negative: rather not near. */
  readonly weight: number;
  /** Slot → how many pods there have it. */
  readonly holders: Map<number, number>;
}

interface GrowingDomains {
  ids: Int32Array;
  readonly values: string[];
  readonly known: Map<string, number>;
}
interface Counted {
  counts: Int32Array;
  readonly requirements: readonly LabelRequirement[];
  readonly skipsDeleting: boolean;
}

export class NodeTable {
  /** By slot; holes are free. */
  readonly rows: (NodeInfo | undefined)[] = [];
  allocatable: Float64Array[] = [];
  requested: Float64Array[] = [];
  scoringCpu = new Float64Array(0);
  scoringMemory = new Float64Array(0);
  /** Of the pods on a node; NaN: to be looked up anew. Infinity where there is none. */
  lowestPriority = new Float64Array(0);
  marks = new Uint8Array(0);
  /** Affinity terms of the pods that are there, equal ones together, by text: each is compared with a new pod once. */
  readonly terms: Readonly<Record<TermKind, Map<string, HeldTerm>>> = {
    near: new Map(),
    far: new Map(),
    preferred: new Map(),
  };
  #capacity = 0;
  readonly #free: number[] = [];
  readonly #columns = new Map<string, number>(fixedColumns.map((name, i) => [name, i]));
  readonly #domains = new Map<string, GrowingDomains>();
  /** Namespace → selector → counts; the outer one for the pods that come, the order of the inner ones for who is forgotten. */
  readonly #selectors = new Map<string, Map<string, Counted>>();
  #selectorCount = 0;

  constructor() {
    for (let i = 0; i < fixedColumns.length; i++) {
      this.allocatable.push(new Float64Array(0));
      this.requested.push(new Float64Array(0));
    }
  }

  /** Undefined: no node offers it. */
  columnOf(resource: string): number | undefined {
    return this.#columns.get(resource);
  }

  add(node: NodeInfo): number {
    const slot = this.#free.pop() ?? this.rows.length;
    if (slot >= this.#capacity) this.#grow(Math.max(16, this.#capacity * 2));
    this.rows[slot] = node;
    return slot;
  }

  /** The node's pods have to be gone from it. */
  remove(node: NodeInfo): void {
    const { slot } = node;
    assert(this.rows[slot] === node && node.pods.size === 0, "an empty node of this table is removed");
    this.rows[slot] = undefined;
    this.#free.push(slot);
    for (const list of [this.allocatable, this.requested]) for (const one of list) one[slot] = 0;
    this.scoringCpu[slot] = 0;
    this.scoringMemory[slot] = 0;
    this.lowestPriority[slot] = Number.POSITIVE_INFINITY;
    this.marks[slot] = 0;
    for (const domains of this.#domains.values()) domains.ids[slot] = -1;
  }

  setAllocatable(slot: number, amounts: Amounts): void {
    for (const name of amounts.keys()) if (!this.#columns.has(name)) this.#addColumn(name);
    for (const [name, i] of this.#columns) this.allocatable[i]![slot] = amounts.get(name) ?? 0;
    if (!amounts.has("pods")) this.allocatable[column.pods]![slot] = defaultPodsPerNode;
  }

  setLabels(slot: number, labels: Labels): void {
    for (const [key, domains] of this.#domains) {
      // Names of nodes that are gone: begin afresh rather than grow.
      if (domains.values.length > 2 * this.rows.length + 64) this.#domains.delete(key);
      else domains.ids[slot] = domainOf(domains, labels, key);
    }
  }

  /** A pod comes to a node (1) or leaves it (-1). */
  count(slot: number, info: PodInfo, by: 1 | -1): void {
    for (const [name, amount] of info.requests) {
      const i = this.#columns.get(name);
      if (i !== undefined) this.requested[i]![slot]! += by * amount;
    }
    this.requested[column.pods]![slot]! += by;
    this.scoringCpu[slot]! += by * info.scoring.milliCpu;
    this.scoringMemory[slot]! += by * info.scoring.memoryBytes;
    const lowest = this.lowestPriority[slot]!;
    if (by === -1 && info.priority === lowest) this.lowestPriority[slot] = Number.NaN;
    else if (by === 1 && info.priority < lowest) this.lowestPriority[slot] = info.priority;
    for (const term of info.near) this.#hold("near", term, 0, slot, by);
    for (const term of info.far) this.#hold("far", term, 0, slot, by);
    for (const term of info.preferred) this.#hold("preferred", term, term.weight, slot, by);
    const counted = this.#selectors.get(info.namespace);
    if (!counted) return;
    for (const { counts, requirements, skipsDeleting } of counted.values()) {
      if (isSelected(info, requirements, skipsDeleting)) counts[slot]! += by;
    }
  }

  #hold(kind: TermKind, term: Term | WeightedTerm, weight: number, slot: number, by: number): void {
    const held = this.terms[kind];
    const key = weight === 0 ? term.text : `${weight} ${term.text}`;
    let entry = held.get(key);
    if (!entry) {
      entry = { term, weight, holders: new Map() };
      held.set(key, entry);
    }
    const count = (entry.holders.get(slot) ?? 0) + by;
    if (count !== 0) entry.holders.set(slot, count);
    else if (entry.holders.delete(slot) && entry.holders.size === 0) held.delete(key);
  }

  /** Which nodes belong together under a label. Valid until a node changes. */
  domains(topologyKey: string): Domains {
    let found = this.#domains.get(topologyKey);
    if (!found) {
      found = { ids: new Int32Array(this.#capacity).fill(-1), values: [], known: new Map() };
      for (const node of this.rows) if (node) found.ids[node.slot] = domainOf(found, node.labels, topologyKey);
      if (this.#domains.size >= maxTopologyKeys) this.#domains.delete(this.#domains.keys().next().value!);
      this.#domains.set(topologyKey, found);
    }
    return found;
  }

  /** By slot: pods of the namespace that the selector selects. Counts follow as pods come and go. */
  matching(
    namespace: string,
    requirements: readonly LabelRequirement[],
    { skipsDeleting }: { readonly skipsDeleting: boolean },
  ): Int32Array {
    const text = JSON.stringify([skipsDeleting, requirements]);
    let inNamespace = this.#selectors.get(namespace);
    let found = inNamespace?.get(text);
    if (found) {
      inNamespace!.delete(text);
      inNamespace!.set(text, found);
      return found.counts;
    }
    if (this.#selectorCount >= maxSelectors) this.#forgetSelector();
    inNamespace = this.#selectors.get(namespace) ?? new Map();
    this.#selectors.delete(namespace);
    this.#selectors.set(namespace, inNamespace);
    found = { counts: new Int32Array(this.#capacity), requirements, skipsDeleting };
    for (const node of this.rows) {
      if (!node) continue;
      let n = 0;
      for (const info of node.pods.values()) {
        if (info.namespace === namespace && isSelected(info, requirements, skipsDeleting)) n++;
      }
      found.counts[node.slot] = n;
    }
    inNamespace.set(text, found);
    this.#selectorCount++;
    return found.counts;
  }

  /** The oldest of the namespace that was added to longest ago. */
  #forgetSelector(): void {
    for (const [namespace, counted] of this.#selectors) {
      const oldest = counted.keys().next().value;
      if (oldest !== undefined) {
        counted.delete(oldest);
        this.#selectorCount--;
      }
      if (counted.size === 0) this.#selectors.delete(namespace);
      return;
    }
  }

  #addColumn(name: string): void {
    const i = this.allocatable.length;
    this.#columns.set(name, i);
    this.allocatable.push(new Float64Array(this.#capacity));
    const requested = new Float64Array(this.#capacity);
    this.requested.push(requested);
    // Pods may have been there before anybody offered it.
    for (const node of this.rows) {
      for (const info of node?.pods.values() ?? []) requested[node!.slot]! += info.requests.get(name) ?? 0;
    }
  }

  #grow(capacity: number): void {
    const doubles = (old: Float64Array, fill = 0) => {
      const grown = new Float64Array(capacity).fill(fill);
      grown.set(old);
      return grown;
    };
    const integers = (old: Int32Array, fill: number) => {
      const grown = new Int32Array(capacity).fill(fill);
      grown.set(old);
      return grown;
    };
    this.#capacity = capacity;
    this.allocatable = this.allocatable.map((one) => doubles(one));
    this.requested = this.requested.map((one) => doubles(one));
    this.scoringCpu = doubles(this.scoringCpu);
    this.scoringMemory = doubles(this.scoringMemory);
    this.lowestPriority = doubles(this.lowestPriority, Number.POSITIVE_INFINITY);
    const marks = new Uint8Array(capacity);
    marks.set(this.marks);
    this.marks = marks;
    for (const domains of this.#domains.values()) domains.ids = integers(domains.ids, -1);
    for (const counted of this.#selectors.values()) {
      for (const one of counted.values()) one.counts = integers(one.counts, 0);
    }
  }
}

function domainOf(domains: GrowingDomains, labels: Labels, topologyKey: string): number {
  if (!Object.hasOwn(labels, topologyKey)) return -1;
  const value = labels[topologyKey]!;
  let id = domains.known.get(value);
  if (id === undefined) {
    id = domains.values.push(value) - 1;
    domains.known.set(value, id);
  }
  return id;
}

const isSelected = (info: PodInfo, requirements: readonly LabelRequirement[], skipsDeleting: boolean): boolean =>
  !(skipsDeleting && info.isDeleting) && matchesRequirements(requirements, info.labels);
