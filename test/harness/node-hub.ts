// A server as nodes meet it: the composed API server behind TLS with certificates of its own, the door that nodes join by,
// and tunnels where a test has some. Real sockets on a port that is free; the datastore and the certificates are the test's.
import { type ComposedApiServer, composeApiServer, identities } from "#apiserver/compose.ts";
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Backend } from "#datastore/backend.ts";
import {
  createJoinServer,
  type JoinServer,
  type JoinServerOptions,
  type ServerSettings,
} from "#supervisor/join-server.ts";
import type { Pki } from "#supervisor/pki.ts";
import type { Tunnels } from "#supervisor/tunnels.ts";

/** As k3s has them by default. */
export const hubSettings: ServerSettings = {
  ...{ clusterCidr: "10.42.0.0/16", serviceCidr: "10.43.0.0/16", clusterDns: ["10.43.0.10"], port: 6443 },
  ...{ clusterDomain: "cluster.local", egressMode: "agent", hasServiceProxy: true, flannelBackend: "vxlan" },
  ...{ flannelExternalIp: false, flannelIpv6Masq: false, nodePorts: { first: 30_000, last: 32_767 } },
};

export interface NodeHubOptions {
  /** As they are now. */
  readonly pki: () => Pki;
  /** Absent: nobody can join. */
  readonly joining?: Pick<JoinServerOptions, "password"> & Partial<JoinServerOptions>;
  /** Default: from the start. */
  readonly isReady?: () => boolean;
  /** An address to tell clients of; absent: the cluster is not bootstrapped. */
  readonly advertiseAddress?: string;
}

export interface NodeHubDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly backend: Backend;
  readonly metrics?: Metrics;
  readonly tunnels?: Tunnels;
}

export interface NodeHub {
  readonly api: ComposedApiServer;
  /** As system:masters, without a socket. */
  readonly client: Client;
  readonly url: string;
  end(): Promise<void>;
}

/** Resolves when all of it is ready. */
export async function openNodeHub(options: NodeHubOptions, deps: NodeHubDeps): Promise<NodeHub> {
  const { backend, metrics = new Metrics(), tunnels, clock, random, log } = deps;
  const base = { clock, random, log };
  const pki = options.pki();
  const { joining: joinOptions, isReady = () => true, advertiseAddress } = options;
  const joining: JoinServer | undefined =
    joinOptions &&
    createJoinServer(
      {
        ...{ pki: options.pki, ownNode: "n1", keepPassword: async () => {}, keepAuthorities: async () => {} },
        ...{ settings: hubSettings, addresses: () => ["127.0.0.1:6443"] },
        ...joinOptions,
      },
      { ...base, authenticate: (given) => api.authenticate(given), client: () => client, isReady },
    );
  const { serviceCidr, nodePorts } = hubSettings;
  const api: ComposedApiServer = composeApiServer(
    {
      ...{ host: "127.0.0.1", port: 0, serverAddress: "127.0.0.1:6443", serviceCidr, nodePorts },
      tls: {
        certificatePem: pki.servingApiserver.certificate,
        keyPem: pki.servingApiserver.key,
        clientCaPem: pki.clientCa.certificate,
      },
      clientCa: pki.clientCa.certificate,
      serverCa: pki.serverCa.certificate,
      nodeClient: () => options.pki().clientApiserver,
      serviceAccount: pki.serviceAccount,
    },
    {
      ...{ ...base, backend, metrics },
      ...(tunnels ? { egress: tunnels } : {}),
      ...(joining ? { requests: (request, response) => joining.handle(request, response) } : {}),
    },
  );
  const client = new Client(api.server.transport(identities.loopback));
  const informers = new InformerFactory({}, { ...base, client });
  api.watchRbac(informers);
  tunnels?.watch(informers);
  const services: readonly (Service | undefined)[] = [
    ...[api.server.service, informers, tunnels?.service, joining?.service(informers)],
    advertiseAddress === undefined ? undefined : api.bootstrapper({ advertiseAddress }, client),
  ];
  const stop = new AbortController();
  const running: Promise<void>[] = [];
  for (const service of services) {
    if (!service) continue;
    await new Promise<void>((resolve, reject) => {
      const run = service.run(stop.signal, resolve);
      run.catch(reject);
      running.push(run);
    });
  }
  return {
    ...{ api, client, url: `https://127.0.0.1:${api.server.port}` },
    async end() {
      stop.abort(new Error("the server ends"));
      await Promise.allSettled(running);
    },
  };
}
