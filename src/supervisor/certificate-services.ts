// Which files belong to which part of a cluster, under k3s's names of the parts: what `mote certificate` checks and
// replaces. Data only. Upstream counterpart: k3s pkg/util/services.

interface ServicePairs {
  /** Pairs of NAME.crt and NAME.key in server/tls. */
  readonly server: readonly string[];
  /** In the agent's folder. */
  readonly agent: readonly string[];
}

const ofServer = (...server: string[]): ServicePairs => ({ server, agent: [] });
const ofNode = (...names: string[]): ServicePairs => ({ server: names, agent: names });

export const servicePairs: Readonly<Record<string, ServicePairs>> = {
  admin: ofServer("client-admin"),
  "api-server": ofServer("client-kube-apiserver", "serving-kube-apiserver"),
  "auth-proxy": ofServer("client-auth-proxy"),
  "cloud-controller": ofServer("client-k3s-cloud-controller"),
  "controller-manager": ofServer("client-controller", "kube-controller-manager"),
  etcd: ofServer("etcd/client", "etcd/server-client", "etcd/peer-server-client"),
  scheduler: ofServer("client-scheduler", "kube-scheduler"),
  supervisor: ofServer("client-supervisor"),
  // k3s has a listener of its own; here it is the API's.
  "k3s-server": ofServer("serving-kube-apiserver"),
  kubelet: ofNode("client-kubelet", "serving-kubelet"),
  "kube-proxy": ofNode("client-kube-proxy"),
  "k3s-controller": ofNode("client-k3s-controller"),
};

export const agentServices: readonly string[] = ["kubelet", "kube-proxy", "k3s-controller"];
/** Never replaced by the way; see authorities.ts. */
export const authorityPairs: readonly string[] = [
  ...["client-ca", "server-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca"],
];

/** In the agent's folder: names of pairs that it asks for anew, a line each. */
export const rotateMark = "rotate";
