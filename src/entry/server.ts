// `mote server`: puts the parts together and names them in start order. Composition only: every decision lives in a part.

import { type Audit, openAudit } from "#apiserver/audit-log.ts";
import { type ComposedApiServer, composeApiServer, identities } from "#apiserver/compose.ts";
import { type OpenedEncryption, openEncryption } from "#apiserver/encryption.ts";
import { apiServerId, createServerIdentity } from "#apiserver/server-identity.ts";
import type { Clock, Random } from "#base/clock.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import { ipAt, parseIpRanges } from "#base/ip-range.ts";
import type { Logger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { restarting, runAll, type Service } from "#base/service.ts";
import { moteVersion } from "#base/version.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import { createControllers } from "#controllers/registry.ts";
import type { DamageReport } from "#datastore/open.ts";
import { nodes, resourcesWith, secrets } from "#model/resources.ts";
import { parseConfiguration } from "#node/configuration.ts";
import { systemClock } from "#platform/clock.ts";
import { makeFolder } from "#platform/files.ts";
import { hostName, isRoot } from "#platform/host.ts";
import type { TlsMaterial } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import { stopSignal } from "#platform/signals.ts";
import { readSchedulerConfiguration } from "#scheduler/arguments.ts";
import type { SchedulerConfiguration } from "#scheduler/configuration.ts";
import { createScheduler } from "#scheduler/scheduler.ts";
import { acceptAuthorities } from "#supervisor/authorities.ts";
import { createCertificateMonitor } from "#supervisor/certificate-monitor.ts";
import { createCertificateSigner } from "#supervisor/certificate-signer.ts";
import { type EtcdPki, ensureEtcdPki } from "#supervisor/etcd-pki.ts";
import { createJoinServer, type JoinServer, type ServerSettings } from "#supervisor/join-server.ts";
import { type LivePki, openLivePki } from "#supervisor/live-pki.ts";
import type { Pki, PkiOptions } from "#supervisor/pki.ts";
import { createCertificateRequests } from "#supervisor/renewal-requests.ts";
import { addressText } from "#supervisor/server-list.ts";
import { changeTokens, ensureTokens } from "#supervisor/tokens.ts";
import { createTunnels, peerTokenOf, type Tunnels } from "#supervisor/tunnels.ts";
import { type Cluster, clusterServices, openCluster } from "./cluster.ts";
import type { ServerConfig } from "./config.ts";
import { createDatastoreServices, type OpenedDatastore, openServerDatastore } from "./datastore.ts";
import { createKubeconfigFile } from "./kubeconfig.ts";
import { createProcessLog } from "./log.ts";
import { type OnNode, serverNodeServices, watchNode, withBegunNode } from "./node.ts";
import { createOwnEndpoints, followingConfig, type OwnAddresses, openOwnAddresses } from "./own-addresses.ts";

/** How long a part may take to end before it is named in an error: streams and the store need a moment. */
const stopTimeoutMs = 10_000;
/** Pods that end with the machine get their time on top. */
const shutdownGraceMs = (config: ServerConfig): number => parseConfiguration(config.kubeletArgs).shutdownGracePeriodMs;
/** A failed part comes back after this, growing to the second number: no part ends the process. */
const restartPause = { minMs: 200, maxMs: 10_000 } as const;

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

/** Who runs the server: where its log goes, what ends it, and who wants to know how far it is. */
export interface ServerHost {
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly onApiReady?: () => void;
  readonly onNode?: OnNode;
}

const processHost = (config: ServerConfig): ServerHost => ({
  log: createProcessLog(systemClock, config.debug),
  signal: stopSignal(),
});

/** Runs until the host's signal, by default SIGTERM or SIGINT; resolves with the exit code. */
export async function runServer(config: ServerConfig, host?: ServerHost): Promise<number> {
  if (!config.disableAgent && !isRoot()) {
    throw new AppError("STARTUP", "a node needs root for containers and networks; without root add --disable-agent");
  }
  const told = host ?? processHost(config);
  const { log } = told;
  for (const warning of config.warnings) log.warn(warning);
  const startedMs = systemClock.monotonicMs();
  log.info("mote starts", { version: moteVersion, node: config.nodeName, data: config.dataDir });
  const metrics = new Metrics();
  // Before anything starts: a policy with a mistake in it must not be found out later.
  const audit = await openAudit(config.apiArguments.audit, {
    ...{ clock: systemClock, random: systemRandom, metrics },
    log: log.child({ part: "audit" }),
  });
  const schedulerConfiguration = await readScheduler(config);
  const given: Start = { ...told, startedMs, metrics, audit, schedulerConfiguration };
  if (config.disableAgent) return serve(config, given);
  return withBegunNode(config, { clock: systemClock, log }, (begun, up) => serve(config, given, begun, up));
}

type Start = ServerHost &
  Pick<ServerContext, "metrics" | "audit" | "schedulerConfiguration"> & { readonly startedMs: number };

async function serve(
  config: ServerConfig,
  { log, signal, onApiReady, onNode, startedMs, metrics, audit, schedulerConfiguration }: Start,
  begun?: Promise<number | undefined>,
  up: () => void = () => {},
): Promise<number> {
  const damages: DamageReport[] = [];
  const datastore = await prepare(config, log, metrics, signal, (report) => damages.push(report));
  if (!datastore) return 0;
  try {
    const own = await openOwnAddresses(config, log);
    const context = await createContext(
      followingConfig(config, own),
      own,
      { log, metrics, audit, signal, schedulerConfiguration },
      datastore,
    );
    if (!context) return 0;
    for (const report of damages) recordDamage(context, report);
    const { api } = context;
    if (onNode) watchNode(config.nodeName, context, onNode);
    await runAll(
      services(context, datastore, begun, onApiReady),
      { clock: systemClock, log, stopTimeoutMs: stopTimeoutMs + shutdownGraceMs(config) },
      signal,
      () => {
        up();
        log.info("mote is ready", { ms: Math.round(systemClock.monotonicMs() - startedMs), port: api.server.port });
      },
    );
    return 0;
  } finally {
    await datastore.backend.close();
    log.info("mote ended");
  }
}

/** A mistake in its configuration is told before anything runs. */
async function readScheduler(config: ServerConfig): Promise<SchedulerConfiguration> {
  try {
    return await readSchedulerConfiguration(config.schedulerArguments);
  } catch (error) {
    throw new AppError("STARTUP", `kube-scheduler-arg config: ${messageOf(error)}`, {}, { cause: error });
  }
}

/** The queue of events holds it until there is an API to write to. */
function recordDamage({ config, events }: ServerContext, report: DamageReport): void {
  const named = (keys: readonly string[]) =>
    keys.length > 0 ? `${keys.length} (${keys.slice(0, 10).join(", ")})` : "none";
  events.record({
    resource: nodes,
    object: { apiVersion: "v1", kind: "Node", metadata: { name: config.nodeName, uid: config.nodeName } },
    type: "Warning",
    reason: "DatastoreDamaged",
    message:
      `lost: ${named(report.lostKeys)}; gone back to an older version: ${named(report.revertedKeys)}; ` +
      `parts that cannot be read: ${report.unreadablePages}; the damaged file is kept as ${report.setAside}`,
  });
}

function services(
  context: ServerContext,
  datastore: OpenedDatastore,
  begun: Promise<number | undefined> | undefined,
  onApiReady: () => void = () => {},
): Service[] {
  const { config, clock, random, log, metrics, pki, api, client, informers, events } = context;
  const { multiCidrServices, optionalApis } = config.apiArguments;
  const alive = (service: Service) => restarting(service, { clock, log, ...restartPause });
  const bootstrapper = api.bootstrapper(
    {
      advertiseAddress: config.advertiseAddress,
      hasOtherServers: context.cluster !== undefined,
      apiPort: config.port,
      serviceIp: config.apiServiceIp,
      serviceCidrs: multiCidrServices ? config.serviceCidr.split(",") : [],
      clientCa: pki.current.clientCa.certificate,
      requestHeaderCa: pki.current.requestHeaderCa.certificate,
    },
    client,
  );
  const enabled = (name: string) => !config.disabled.has(name);
  api.watchRbac(informers);
  context.tunnels.watch(informers);
  const flowSchemaStatus = api.flowControl(informers, client);
  if (enabled("metrics-server")) api.serveMetrics(informers);
  const shared = context.cluster && clusterServices(context.cluster, config, { ...context, pki: () => pki.current });
  const controllers: Service[] = [
    ...(enabled("controllers")
      ? createControllers({
          ...{ client, informers, events, clock, random, metrics },
          log: log.child({ part: "controllers" }),
          rootCa: pki.current.serverCa.certificate,
          signCertificate: createCertificateSigner(
            () => ({ client: pki.current.clientCa, server: pki.current.serverCa }),
            { clock, random },
          ),
          ...(enabled("local-storage") ? { localPath: { folder: config.localStorageDir } } : {}),
          clusterCidr: config.clusterCidr,
          serviceRanges: { cidr: config.serviceCidr, nodePorts: config.nodePorts, multiCidr: multiCidrServices },
          served: resourcesWith(optionalApis),
          settings: config.controllerSettings,
        })
      : []),
  ];
  const schedulers: Service[] = [
    ...(enabled("scheduler")
      ? [
          createScheduler({
            client: new Client(api.server.transport(identities.scheduler)),
            ...{ informers, events, clock, random, metrics },
            configuration: context.schedulerConfiguration,
            log: log.child({ part: "scheduler" }),
          }),
        ]
      : []),
  ];
  // Of several servers one at a time does what these do.
  const loops = [
    ...controllers.map((one) => shared?.controllers.gate(one) ?? one),
    ...schedulers.map((one) => shared?.scheduler.gate(one) ?? one),
  ];
  return [
    // Stops last: what is still answered is told of.
    context.audit.service,
    ...(shared?.first ?? []).map(alive),
    // The port opens first, so that health can be asked for; /readyz says no until bootstrap is done.
    api.server.service,
    bootstrapper,
    createKubeconfigFile(context, onApiReady),
    alive(pki.service),
    alive(createCertificateRequests(config.serverDir, pki)),
    alive(createCertificateMonitor(config.nodeName, pki, { clock, events, metrics })),
    context.tunnels.service,
    alive(context.joining.service(informers)),
    alive(informers),
    alive(events),
    alive(flowSchemaStatus),
    alive(
      context.encryption.service({ backend: datastore.backend, client, informers, events, nodeName: config.nodeName }),
    ),
    alive(createServerIdentity(hostName(), { client, clock, random, log })),
    alive(context.own.service),
    ...(shared?.later ?? [createOwnEndpoints(context)]).map(alive),
    ...loops.map(alive),
    ...createDatastoreServices(config, datastore, context.etcdPki, {
      clock,
      log: log.child({ part: "datastore" }),
      readSecret: async (name) => (await client.get(secrets, name, "kube-system")).data,
    }).map(alive),
    ...(begun ? serverNodeServices(context, begun).map(alive) : []),
  ];
}

/**
 * Folders, then the datastore: what fails here is told in one sentence, before anything runs. Undefined: told to stop
 * while an external etcd was waited for.
 */
async function prepare(
  config: ServerConfig,
  log: Logger,
  metrics: Metrics,
  signal: AbortSignal,
  damaged: (report: DamageReport) => void,
): Promise<OpenedDatastore | undefined> {
  try {
    await makeFolder(config.serverDir, 0o700);
    await makeFolder(`${config.serverDir}/db`, 0o700);
    return await openServerDatastore(config, {
      ...{ clock: systemClock, random: systemRandom, metrics, signal, damaged },
      log: log.child({ part: "datastore" }),
    });
  } catch (error) {
    if (signal.aborted) return undefined;
    const isPermission = hasCode(error, "EACCES") || hasCode(error, "EPERM");
    const hint = isPermission ? "; run as root, or name a folder of your own with --data-dir" : "";
    throw new AppError("STARTUP", `${messageOf(error)}${hint}`, {}, { cause: error });
  }
}

/** Undefined: told to stop while other servers were waited for. */
async function createContext(
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
      return [...new Set([...config.nodeIps, config.advertiseAddress])];
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
