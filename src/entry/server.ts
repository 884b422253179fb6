// `mote server`: puts the parts together and names them in start order. Composition only: every decision lives in a part.

import { openAudit } from "#apiserver/audit-log.ts";
import { identities } from "#apiserver/compose.ts";
import { createServerEndpoints } from "#apiserver/server-endpoints.ts";
import { createServerIdentity } from "#apiserver/server-identity.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { restarting, runAll, type Service } from "#base/service.ts";
import { moteVersion } from "#base/version.ts";
import { Client } from "#client/client.ts";
import { createControllers } from "#controllers/registry.ts";
import type { DamageReport } from "#datastore/open.ts";
import { nodes, resourcesWith, secrets } from "#model/resources.ts";
import { parseConfiguration } from "#node/configuration.ts";
import { systemClock } from "#platform/clock.ts";
import { makeFolder } from "#platform/files.ts";
import { hostName, isRoot } from "#platform/host.ts";
import { systemRandom } from "#platform/random.ts";
import { stopSignal } from "#platform/signals.ts";
import { readSchedulerConfiguration } from "#scheduler/arguments.ts";
import type { SchedulerConfiguration } from "#scheduler/configuration.ts";
import { createScheduler } from "#scheduler/scheduler.ts";
import { createCertificateMonitor } from "#supervisor/certificate-monitor.ts";
import { createCertificateSigner } from "#supervisor/certificate-signer.ts";
import { createCertificateRequests } from "#supervisor/renewal-requests.ts";
import type { Leadership } from "#supervisor/server-session.ts";
import { clusterServices } from "./cluster.ts";
import { type ServerConfig, serverConfig } from "./config.ts";
import { createDatastoreServices, type OpenedDatastore, openServerDatastore } from "./datastore.ts";
import type { Invocation } from "./invocation.ts";
import { createRangeWarnings } from "./kept-ranges.ts";
import { createKubeconfigFile } from "./kubeconfig.ts";
import { createProcessLog } from "./log.ts";
import { type OnNode, watchNode, withBegunNode } from "./node.ts";
import { withNodeId } from "./node-id.ts";
import { followingConfig, openOwnAddresses } from "./own-addresses.ts";
import { readFlagsOnly } from "./read-flags.ts";
import { createContext, type ServerContext } from "./server-context.ts";
import { serverNodeServices } from "./server-node.ts";
import { withTokenFiles } from "./token-file.ts";

/** How long a part may take to end before it is named in an error: streams and the store need a moment. */
const stopTimeoutMs = 10_000;
/** Pods that end with the machine get their time on top. */
const shutdownGraceMs = (config: ServerConfig): number => parseConfiguration(config.kubeletArgs).shutdownGracePeriodMs;
/** A failed part comes back after this, growing to the second number: no part ends the process. */
const restartPause = { minMs: 200, maxMs: 10_000 } as const;

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

/** `mote server` from its command line. */
export async function serverCommand({ flags, args, env, runner }: Invocation): Promise<number> {
  const { values, warnings } = await readFlagsOnly(flags, args, env);
  const config = await withTokenFiles(serverConfig(values, warnings, runner), values);
  return runServer(await withNodeId(config, values, systemRandom));
}

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
  /** Of several servers what one writes that does not lead any more counts for nothing. */
  const as = (user: { readonly name: string; readonly groups: readonly string[] }, leads?: Leadership) =>
    new Client(api.server.transport({ ...user, ...(leads ? { mustHold: leads.mustHold } : {}) }));
  const controllers: Service[] = [
    ...(enabled("controllers")
      ? createControllers({
          ...{ informers, events, clock, random, metrics },
          client: shared ? as(identities.loopback, shared.controllers) : client,
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
            client: as(identities.scheduler, shared?.scheduler),
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
    alive(createRangeWarnings({ ...config, isFixed: !multiCidrServices }, { informers, log })),
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

/** Of a server that is alone: pods find the API at the address that it has now. */
const createOwnEndpoints = ({ config, own, client, clock, log }: ServerContext): Service =>
  createServerEndpoints(
    {
      ...{ serviceIp: config.apiServiceIp, apiPort: config.port },
      addresses: () => [config.advertiseAddress],
      onChange: (listener) => own.onChange(listener),
    },
    { client, clock, log },
  );
