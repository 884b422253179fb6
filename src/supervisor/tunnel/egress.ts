// Which way the API server takes to an address: plainly, or through the tunnel of the node that is there; and on the node,
// what a server may dial. Pure, from what is known of nodes and pods. Rules and modes are k3s's: `agent` tunnels to node
// APIs, `pod` and `cluster` also to pods and other addresses behind nodes that say so; `disabled` never.
// Upstream counterpart: k3s pkg/daemons/control/tunnel.go and pkg/agent/tunnel.
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { isIp } from "#model/validation/names.ts";
import { addressSet } from "#platform/addresses.ts";
import type { DialPolicy } from "./client.ts";

export const egressModes = ["agent", "cluster", "pod", "disabled"] as const;
export type EgressMode = (typeof egressModes)[number];

/** Of nodes whose agents take connections for more than their own API. */
export const egressLabel = "egress.k3s.io/cluster";
export const defaultNodeApiPort = 10250;
/** containerd's streams in k3s. */
const streamPort = 10010;

export interface EgressView {
  node(name: string): Node | undefined;
  /** The node that has the address, and whether it is a pod's. */
  nodeAt(address: string): Node | undefined;
  podAt(address: string): Pod | undefined;
}

export interface Way {
  readonly node: string;
  readonly address: string;
}

export interface EgressTarget {
  /** An address, or the name of a node. */
  readonly host: string;
  readonly port: number;
}

export const nodeApiPort = (node: Node | undefined): number =>
  node?.status?.daemonEndpoints?.kubeletEndpoint?.Port || defaultNodeApiPort;

/** Undefined: dial plainly. `own`: the node of this server, which is never tunnelled to. */
export function planEgress(mode: EgressMode, own: string, target: EgressTarget, view: EgressView): Way | undefined {
  if (mode === "disabled") return undefined;
  const { host, port } = target;
  const loopback = (node: string): Way => ({ node, address: `127.0.0.1:${port}` });
  if (!isIp(host)) return host === own || view.node(host) === undefined ? undefined : loopback(host);
  const byNode = view.nodeAt(host);
  const pod = byNode || mode === "agent" ? undefined : view.podAt(host);
  const node = byNode ?? (pod?.spec.nodeName ? view.node(pod.spec.nodeName) : undefined);
  const name = node?.metadata.name ?? "";
  if (!node || name === own) return undefined;
  if (byNode && (port === nodeApiPort(node) || port === streamPort)) return loopback(name);
  if (mode === "agent" || node.metadata.labels?.[egressLabel] !== "true") return undefined;
  return { node: name, address: `${host.includes(":") ? `[${host}]` : host}:${port}` };
}

export interface DialRules {
  readonly mode: EgressMode;
  readonly nodeApiPort: number;
  readonly nodeAddresses: readonly string[];
  /** CIDRs of the cluster's pods. */
  readonly clusterCidrs: readonly string[];
  /** The pods of this node. */
  readonly pods: () => Iterable<Pod>;
}

/** What a node lets a server dial. */
export function dialPolicy(rules: DialRules): DialPolicy {
  const isInCluster = addressSet(rules.clusterCidrs);
  const isOwn = (host: string) => rules.nodeAddresses.includes(host);
  return (proto, address) => {
    const at = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address);
    const host = at?.[1] ?? at?.[2] ?? "";
    const port = Number(at?.[3]);
    if (proto !== "tcp" || !isIp(host) || !(port > 0 && port < 65536)) return false;
    if (host === "127.0.0.1" || host === "::1") return port === rules.nodeApiPort || port === streamPort;
    if (rules.mode === "cluster") return isOwn(host) || isInCluster(host);
    if (rules.mode !== "pod") return false;
    for (const pod of rules.pods()) {
      if (pod.status?.phase !== "Running") continue;
      if (pod.spec.hostNetwork) {
        const opens = [...(pod.spec.containers ?? []), ...(pod.spec.initContainers ?? [])].some((container) =>
          container.ports?.some((one) => one.containerPort === port || one.hostPort === port),
        );
        if (opens && isOwn(host)) return true;
      } else if (pod.status.podIPs?.some(({ ip }) => ip === host) || pod.status.podIP === host) return true;
    }
    return false;
  };
}
