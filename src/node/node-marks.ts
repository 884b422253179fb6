// What a Node of ours carries besides spec and status: one table, by which it is made, and put right where it is seen without.
// A Node may be deleted under an agent that runs, made by somebody else, or have been changed by hand.
// Counterpart: the kubelet's registration with its default labels, which are looked at when it starts and never again.
import type { Node } from "#model/gen/core-v1.ts";

export interface NodeMark {
  readonly in: "labels" | "annotations";
  readonly key: string;
  /** null: it is not to be there. */
  readonly value: string | null;
  /**
   * always: others act by it, and nobody but this node knows it. once: written to a Node that is seen for the first time in
   * this run, and from then on the business of whoever changes it.
   */
  readonly kept: "always" | "once";
}

export interface MarkOptions {
  readonly nodeName: string;
  /** Of the architecture, as Go calls it. */
  readonly architecture: string;
  /** Those that were asked for: --node-label. */
  readonly labels: Readonly<Record<string, string>>;
  /** Those by which other parts of the cluster know what this node does; null: it is not to be there. */
  readonly ownLabels: Readonly<Record<string, string | null>>;
}

export function nodeMarks({ nodeName, architecture, labels, ownLabels }: MarkOptions): readonly NodeMark[] {
  const label = (kept: NodeMark["kept"], values: Readonly<Record<string, string | null>>): NodeMark[] =>
    Object.entries(values).map(([key, value]) => ({ in: "labels", key, value, kept }));
  const byKey = new Map<string, NodeMark>();
  for (const mark of [
    ...label("always", {
      "beta.kubernetes.io/arch": architecture,
      "beta.kubernetes.io/os": "linux",
      "kubernetes.io/arch": architecture,
      "kubernetes.io/hostname": nodeName,
      "kubernetes.io/os": "linux",
      ...ownLabels,
    }),
    // Whoever asks for another value is given it.
    ...label("once", labels),
    annotation("volumes.kubernetes.io/controller-managed-attach-detach", "true"),
  ]) {
    byKey.set(`${mark.in}/${mark.key}`, mark);
  }
  return [...byKey.values()];
}

const annotation = (key: string, value: string): NodeMark => ({ in: "annotations", key, value, kept: "always" });

/** Of a Node that is made now. */
export function markedMetadata(marks: readonly NodeMark[]): Record<"labels" | "annotations", Record<string, string>> {
  const made: Record<"labels" | "annotations", Record<string, string>> = { labels: {}, annotations: {} };
  for (const { in: where, key, value } of marks) if (value !== null) made[where][key] = value;
  return made;
}

/** Of metadata, what has to be written; undefined where the Node is as it should be. */
export function planMarks(
  marks: readonly NodeMark[],
  { metadata }: Node,
  isFirstSight: boolean,
): Record<string, Record<string, string | null>> | undefined {
  const patch: Record<string, Record<string, string | null>> = {};
  for (const { in: where, key, value, kept } of marks) {
    if ((kept === "once" && !isFirstSight) || (metadata[where]?.[key] ?? null) === value) continue;
    patch[where] = { ...patch[where], [key]: value };
  }
  return Object.keys(patch).length === 0 ? undefined : patch;
}
