// As whom a node reads what it knows of others. A server of mote lets it read all of that as itself: one connection. A server of
// k3s keeps to what its own parts read: services, endpoints and nodes are for kube-proxy, namespaces for the controller of the
// node. Upstream counterparts: the ClusterRoles system:node-proxier and k3s's system:k3s-controller.
import type { ApiRequest, Transport } from "#client/transport.ts";

const ofProxy =
  /^\/(?:api\/v1\/(?:namespaces\/[^/]+\/)?(?:services|nodes)|apis\/discovery\.k8s\.io\/v1\/(?:namespaces\/[^/]+\/)?endpointslices)(?:\/|$)/;

export function readerTransport(as: { readonly controller: Transport; readonly proxy: Transport }): Transport {
  const choose = ({ path }: ApiRequest): Transport => (ofProxy.test(path) ? as.proxy : as.controller);
  return {
    request: (request, signal) => choose(request).request(request, signal),
    watch: (request, signal, onOpen) => choose(request).watch(request, signal, onOpen),
  };
}
