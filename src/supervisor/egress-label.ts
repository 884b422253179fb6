// A node's word that it takes connections for more than its own API: the label that servers look for before they send what is
// for pods and addresses behind it through its tunnel. It is there where the cluster's mode asks for it, and else it is not.
// The node agent keeps it so. Upstream counterpart: k3s pkg/agent/tunnel, which writes it when the agent starts.
import { type EgressMode, egressLabel } from "./tunnel/egress.ts";

/** Labels of the node; null: it is not to be there. */
export const egressLabels = (mode: EgressMode): Readonly<Record<string, "true" | null>> => ({
  [egressLabel]: mode === "pod" || mode === "cluster" ? "true" : null,
});
