// The node of a server: the same parts as an agent's, told things in the process, and the roles that only a server gives.
import { identities } from "#apiserver/compose.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { nodes } from "#model/resources.ts";
import { ensureDnsService } from "#network/cluster-dns.ts";
import type { TlsMaterial } from "#platform/https-server.ts";
import type { Pki } from "#supervisor/pki.ts";
import { firstPodCidrs } from "./cluster-addresses.ts";
import { nodeServices } from "./node.ts";
import type { ServerContext } from "./server-context.ts";

/** As k3s labels its servers; nodes may not give themselves roles, so the server does. */
const roleLabels = { "node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/master": "true" };

export function serverNodeServices(context: ServerContext, begun: Promise<number | undefined>): Service[] {
  const { config, api, client, events, pki } = context;
  const { services } = nodeServices(
    {
      ...context,
      client: new Client(api.server.transport(identities.node(config.nodeName))),
      events: events.as("kubelet"),
      reviews: client,
      byCertificate: (certificate, intermediates) => api.authenticateCertificate(certificate, intermediates),
      tls: () => nodeTls(pki.current),
      onNewTls: (use) => pki.onRenewal(use),
      // Where nobody gives ranges out, this is the only node.
      podCidrs:
        config.disabled.has("controllers") && !context.cluster
          ? firstPodCidrs(config.clusterCidr, config.controllerSettings.maskSizes)
          : [],
    },
    begun,
  );
  const once = (name: string, work: () => Promise<unknown>): Service => ({
    name,
    async run(signal, ready) {
      await work();
      ready();
      await untilAborted(signal);
    },
  });
  return [
    ...services,
    once("node-roles", () => client.patch(nodes, { name: config.nodeName }, { metadata: { labels: roleLabels } })),
    // For whoever asks the API where DNS is.
    ...(config.disabled.has("dns") ? [] : [once("dns-service", () => ensureDnsService(client, config.clusterDns))]),
  ];
}

const nodeTls = ({ servingKubelet, clientCa }: Pki): TlsMaterial => ({
  certificatePem: servingKubelet.certificate,
  keyPem: servingKubelet.key,
  clientCaPem: clientCa.certificate,
});
