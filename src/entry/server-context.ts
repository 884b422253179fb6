// What the parts of one server share, made in the order in which each needs the one before: keys, tokens, encryption, tunnels,
// joining, the API server, and the client that everything in the process uses. Nothing of it runs yet.
import type { Audit } from "#apiserver/audit-log.ts";
import { type ComposedApiServer, composeApiServer, identities } from "#apiserver/compose.ts";
import { type OpenedEncryption, openEncryption } from "#apiserver/encryption.ts";
import { apiServerId } from "#apiserver/server-identity.ts";
import type { Clock, Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import { ipAt, parseIpRanges } from "#base/ip-range.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Service } from "#model/gen/core-v1.ts";
import { systemClock } from "#platform/clock.ts";
import { hostName } from "#platform/host.ts";
import type { TlsMaterial } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import type { SchedulerConfiguration } from "#scheduler/configuration.ts";
import { acceptAuthorities } from "#supervisor/authorities.ts";
import { type EtcdPki, ensureEtcdPki } from "#supervisor/etcd-pki.ts";
import { createJoinServer, type JoinServer, type ServerSettings } from "#supervisor/join-server.ts";
import { type LivePki, openLivePki } from "#supervisor/live-pki.ts";
import type { Pki, PkiOptions } from "#supervisor/pki.ts";
import { addressText } from "#supervisor/server-address.ts";
import { changeTokens, ensureTokens } from "#supervisor/tokens.ts";
import { createTunnels, peerTokenOf, type Tunnels } from "#supervisor/tunnels.ts";
import { type Cluster, openCluster } from "./cluster.ts";
import type { ServerConfig } from "./config.ts";
import type { OpenedDatastore } from "./datastore.ts";
import { checkServiceRange } from "./kept-ranges.ts";
import type { OwnAddresses } from "./own-addresses.ts";

/** What parts of one server share. */
export interface ServerContext {
  readonly config: ServerConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly pki: LivePki;
  readonly etcdPki: EtcdPki | undefined;
  /** Undefined: there are no other servers. */
  readonly cluster: Cluster | undefined;
  /** The configuration's `nodeIps` and, where it is not given, `advertiseAddress` follow them. */
  readonly own: OwnAddresses;
  readonly api: ComposedApiServer;
  readonly audit: Audit;
  readonly encryption: OpenedEncryption;
  /** Caches and events shared by everything in the process, as system:masters. */
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly events: EventRecorder;
  readonly tunnels: Tunnels;
  readonly joining: JoinServer;
  readonly schedulerConfiguration: SchedulerConfiguration;
}

/** Undefined: told to stop while other servers were waited for. */
export async function createContext(
  config: ServerConfig,
  own: OwnAddresses,
  given: Pick<ServerContext, "log" | "metrics" | "audit" | "schedulerConfiguration"> & { readonly signal: AbortSignal },
  { backend }: OpenedDatastore,
): Promise<ServerContext | undefined> {
  const { log, metrics, audit, signal, schedulerConfiguration } = given;
  const [clock, random] = [systemClock, systemRandom];
  const settings: ServerSettings = {
    ...config,
    hasServiceProxy: !config.disabled.has("service-proxy"),
    flannelBackend: config.overlay.backend,
    flannelExternalIp: config.overlay.usesExternalIp,
    flannelIpv6Masq: config.overlay.masqueradesIpv6,
  };
  let cluster: Cluster | undefined;
  try {
    cluster = await openCluster(config, settings, { backend, clock, random, log }, signal);
  } catch (error) {
    // Waiting ends with the signal's reason, which is no failure.
    if (!signal.aborted) throw error;
  }
  if (signal.aborted) return undefined;
  const pkiOptions: PkiOptions = {
    folder: `${config.serverDir}/tls`,
    nodeName: config.nodeName,
    get nodeIps() {
      return [...new Set([...config.nodeIps, config.advertiseAddress, ...config.externalIps])];
    },
    extraNames: config.tlsSans,
    serviceIps: parseIpRanges(config.serviceCidr).map((range) => ipAt(range, 1)),
    clusterDomain: config.clusterDomain,
  };
  const livePki = await openLivePki(pkiOptions, { clock, random, log });
  const pki = livePki.current;
  // What servers have alike must be whole before it is shared.
  const etcdPki =
    cluster || config.datastore.etcdListen.some(({ secure }) => secure)
      ? await ensureEtcdPki(pkiOptions, { clock, random, log })
      : undefined;
  const tokens = await ensureTokens(
    {
      folder: config.serverDir,
      serverCa: pki.serverCa.certificate,
      ...(config.token === undefined ? {} : { wanted: config.token }),
      ...(config.agentToken === undefined ? {} : { wantedForAgents: config.agentToken }),
      ...(cluster ? { agreed: cluster.record.password } : {}),
    },
    { random },
  );
  const encryption = await openEncryption(
    {
      serverDir: config.serverDir,
      ...config.secretsEncryption,
      file: config.apiArguments.encryptionConfigFile,
      reload: config.apiArguments.encryptionReload,
      serverId: apiServerId(hostName()),
    },
    { clock, random, metrics, log: log.child({ part: "encryption" }) },
  );
  // All that servers have alike is on disk now.
  await cluster?.record.save();
  const tunnels = createTunnels(
    {
      ...{ mode: config.egressMode, nodeName: config.nodeName },
      ...(cluster ? { peerToken: peerTokenOf(pki.serviceAccount.privateKey) } : {}),
    },
    { clock, random, metrics, log: log.child({ part: "tunnels" }) },
  );
  const joining = createJoinServer(
    {
      pki: () => livePki.current,
      ...{ password: tokens.password, agentPassword: tokens.agentPassword },
      keepPassword: (password, agentPassword) =>
        changeTokens(
          { folder: config.serverDir, serverCa: livePki.current.serverCa.certificate },
          { password, agentPassword },
          cluster?.record,
        ),
      ...(cluster ? { bootstrap: () => cluster.record.plaintext() } : {}),
      async keepAuthorities(request) {
        await acceptAuthorities(`${config.serverDir}/tls`, request);
      },
      ownNode: config.disableAgent ? undefined : config.nodeName,
      settings,
      addresses: () => (cluster?.list.servers ?? [{ ip: config.advertiseAddress, port: config.port }]).map(addressText),
    },
    {
      ...{ clock, random, log: log.child({ part: "joining" }) },
      authenticate: (credentials) => api.authenticate(credentials),
      client: () => client,
      isReady: () => api.isBootstrapped,
    },
  );
  const api: ComposedApiServer = composeApiServer(
    {
      host: config.bindAddress,
      port: config.port,
      tls: servingTls(pki),
      serverAddress: addressText({ ip: config.advertiseAddress, port: config.port }),
      hasOtherServers: cluster !== undefined,
      clientCa: pki.clientCa.certificate,
      serverCa: pki.serverCa.certificate,
      nodeClient: () => livePki.current.clientApiserver,
      serviceAccount: pki.serviceAccount,
      serviceCidr: config.serviceCidr,
      nodePorts: config.nodePorts,
      arguments: config.apiArguments,
    },
    {
      ...{ backend, clock, random, metrics, audit: audit.auditor, encryption: encryption.slots },
      log: log.child({ part: "apiserver" }),
      egress: tunnels,
      requests: (request, response) => joining.handle(request, response),
    },
  );
  checkServiceRange(config, (await api.server.read("services", "default", "kubernetes")) as Service | undefined);
  own.onChange(() => {
    livePki.renew().catch((error: unknown) => {
      // Looked at again within hours, and at the next start.
      log.error("no certificate for the new address", { error: messageOf(error) });
    });
  });
  livePki.onRenewal((renewed) => api.server.setTls(servingTls(renewed)));
  const client = new Client(api.server.transport(identities.loopback));
  const informers = new InformerFactory({}, { client, clock, random, log: log.child({ part: "informers" }) });
  const events = new EventRecorder(
    { component: "mote", host: config.nodeName },
    { client, clock, random, log: log.child({ part: "events" }) },
  );
  return {
    config,
    clock,
    random,
    log,
    metrics,
    pki: livePki,
    etcdPki,
    ...{ cluster, own },
    schedulerConfiguration,
    api,
    audit,
    encryption,
    tunnels,
    joining,
    client,
    informers,
    events,
  };
}

const servingTls = ({ servingApiserver, clientCa }: Pki): TlsMaterial => ({
  certificatePem: servingApiserver.certificate,
  keyPem: servingApiserver.key,
  clientCaPem: clientCa.certificate,
});
