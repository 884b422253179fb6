// What a server has in common with others of its cluster, where its datastore is one that several can reach: keys, the list of
// servers, elections, relays. A server with a datastore of its own has none of it and writes nothing of it.
import { createServerEndpoints } from "#apiserver/server-endpoints.ts";
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Backend } from "#datastore/backend.ts";
import { isEtcdEndpoint } from "#datastore/etcd-endpoints.ts";
import { type BootstrapRecord, openBootstrapRecord } from "#supervisor/bootstrap-record.ts";
import type { ServerSettings } from "#supervisor/join-server.ts";
import { noteLeader } from "#supervisor/leader-note.ts";
import { serverName } from "#supervisor/load-balancer.ts";
import type { Pki } from "#supervisor/pki.ts";
import { addressText } from "#supervisor/server-address.ts";
import { joinAsServer } from "#supervisor/server-join.ts";
import { createServerList, holdServerName, type ServerList } from "#supervisor/server-list.ts";
import { createServerSession, type Leadership, type ServerSession } from "#supervisor/server-session.ts";
import { createServiceSet } from "#supervisor/service-set.ts";
import { knownPassword, parseToken } from "#supervisor/tokens.ts";
import type { Tunnels } from "#supervisor/tunnels.ts";
import type { ServerConfig } from "./config.ts";
import type { OwnAddresses } from "./own-addresses.ts";

export interface Cluster {
  readonly record: BootstrapRecord;
  readonly session: ServerSession;
  readonly list: ServerList;
}

interface ClusterDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Before keys are made or read. Undefined: this server is alone. */
export async function openCluster(
  config: ServerConfig,
  settings: ServerSettings,
  deps: ClusterDeps,
  signal: AbortSignal,
): Promise<Cluster | undefined> {
  if (!isEtcdEndpoint(config.datastore.endpoint)) return undefined;
  const { backend, clock, log } = deps;
  const { serverDir, token, joins } = config;
  const joining = { ...deps, log: log.child({ part: "joining" }) };
  if (joins !== undefined) await joinAsServer({ server: joins, token, serverDir, settings }, joining, signal);
  const wanted = token === undefined ? undefined : parseToken(token).password;
  const known = await knownPassword(serverDir);
  const record = await openBootstrapRecord({ serverDir, wanted, known }, joining, signal);
  const clusterLog = log.child({ part: "cluster" });
  const own = { ip: config.advertiseAddress, port: config.port };
  const holder = `${config.nodeName} ${addressText(own)}`;
  const session = createServerSession({ holder }, { backend, clock, log: clusterLog });
  await holdServerName(config.nodeName, own, { backend, session, clock }, signal);
  return { record, session, list: createServerList(own, { backend, session, clock, log: clusterLog }) };
}

export interface ClusterServices {
  /** Before all else, so that they end last. */
  readonly first: readonly Service[];
  /** Once the API can be used. */
  readonly later: readonly Service[];
  /** Run where this server leads. */
  readonly controllers: Leadership;
  readonly scheduler: Leadership;
}

export function clusterServices(
  { record, session, list }: Cluster,
  config: ServerConfig,
  deps: {
    readonly client: Client;
    readonly informers: InformerFactory;
    readonly clock: Clock;
    readonly log: Logger;
    readonly pki: () => Pki;
    readonly tunnels: Tunnels;
    readonly own: OwnAddresses;
    readonly metrics: Metrics;
  },
): ClusterServices {
  const { client, clock } = deps;
  const log = deps.log.child({ part: "cluster" });
  const own = () => ({ ip: config.advertiseAddress, port: config.port });
  deps.own.onChange(() => list.move(own()));
  const relays = createServiceSet(
    {
      name: "relays",
      names: () => list.servers.map(addressText).filter((address) => address !== addressText(own())),
      onChange: (listener) => list.onChange(listener),
      make: (address) =>
        deps.tunnels.relay({
          ...{ address, own: config.nodeName.slice(0, 100), hasNode: !config.disableAgent },
          tls: () => ({ ca: deps.pki().serverCa.certificate, serverName }),
        }),
    },
    { clock, log },
  );
  const endpoints = createServerEndpoints(
    {
      serviceIp: config.apiServiceIp,
      apiPort: config.port,
      addresses: () => (list.isKnown ? list.servers.map(({ ip }) => ip) : undefined),
      onChange: (listener) => list.onChange(listener),
    },
    { client, clock, log },
  );
  const election = (name: string) =>
    session.leadership(`/mote/leader/${name}`, {
      prepare: () => deps.informers.refresh(),
      onLead: () => void noteLeader(name, config.nodeName, { client, clock, log }),
    });
  const controllers = election("kube-controller-manager");
  const scheduler = election("kube-scheduler");
  deps.metrics.gaugeOf(
    "mote_supervisor_lingering_services",
    "Parts that keep this server from leading again because they have not ended.",
    () => controllers.lingering() + scheduler.lingering(),
  );
  return {
    first: [session.service, list.service],
    later: [record.service, endpoints, relays, controllers.service, scheduler.service],
    controllers,
    scheduler,
  };
}
