// The API server as `mote server` runs it: certificates and service-account tokens in front, RBAC behind them, the
// in-tree admission plugins, the strategy and table of every kind, streams to the nodes. What callers choose is in the
// options; the order of the chain is fixed here once.
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import { Client } from "#client/client.ts";
import type { Informer, InformerFactory } from "#client/informer.ts";
import type { Backend } from "#datastore/backend.ts";
import type { Endpoints, Node, Pod, Service as ServiceObject } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import {
  clusterRoleBindings,
  clusterRoles,
  flowSchemas,
  nodes,
  pods,
  priorityLevelConfigurations,
  roleBindings,
  roles,
} from "#model/resources.ts";
import { notFound } from "#model/status.ts";
import type { ServerUpgrade, TlsMaterial } from "#platform/https-server.ts";
import { openUpgrade } from "#platform/upgrade-client.ts";
import { createAdmissionPlugins } from "./admission/plugins.ts";
import type { ApiArguments } from "./arguments.ts";
import type { Auditor } from "./audit/auditor.ts";
import type { Credentials } from "./authn/authenticator.ts";
import { createBootstrapTokenAuthenticator } from "./authn/bootstrap-token.ts";
import { createSecretUseNotes } from "./authn/secret-use.ts";
import { createServiceAccountAuthenticator } from "./authn/service-account.ts";
import { createTokenIssuer } from "./authn/token-issuer.ts";
import { loopback, type UserInfo } from "./authn/user.ts";
import { createX509Authenticator } from "./authn/x509.ts";
import { createNodeAuthorizer } from "./authz/node.ts";
import { createRbacAuthorizer, RbacCache } from "./authz/rbac.ts";
import { type BootstrapOptions, createBootstrapper } from "./bootstrap/bootstrapper.ts";
import { nodeRules } from "./bootstrap/rbac-policy.ts";
import { createDirectNodeDialer } from "./direct-node-dialer.ts";
import { acceptTunnel, type Egress, tunnelPath } from "./egress.ts";
import type { EncryptionSlots } from "./encryption/slots.ts";
import { createBackendProxy } from "./endpoints/backend-proxy.ts";
import { byDestination } from "./endpoints/connect.ts";
import { createNodeProxy } from "./endpoints/node-proxy.ts";
import type { HealthCheck } from "./endpoints/system.ts";
import { createDanglingController } from "./flow-control/dangling.ts";
import { MetricsCollector } from "./metrics-api/collector.ts";
import { createMetricsGroup } from "./metrics-api/group.ts";
import { scrapeNode } from "./metrics-api/scrape.ts";
import { createNumberClaims } from "./number-claims.ts";
import { openApiAssets } from "./openapi/assets.ts";
import type { ApiServerDeps } from "./options.ts";
import { columnsFor } from "./printers/tables.ts";
import { createStrategies } from "./registry/strategies.ts";
import { type ApiServer, createApiServer } from "./server.ts";
import type { VirtualGroup } from "./virtual-group.ts";

export interface ComposeOptions {
  readonly host?: string;
  readonly port?: number;
  readonly tls: TlsMaterial;
  readonly serverAddress: string;
  /** PEM. */
  readonly clientCa: string;
  readonly serverCa: string;
  /** The API server's own client certificate, towards nodes, as it is now. PEM. */
  readonly nodeClient: () => { readonly certificate: string; readonly key: string };
  readonly serviceAccount: { readonly privateKey: string; readonly publicKeys: readonly string[] };
  readonly serviceCidr: string;
  /** They write to the same datastore: what is handed out once must be agreed upon. */
  readonly hasOtherServers?: boolean;
  readonly nodePorts: { readonly first: number; readonly last: number };
  readonly arguments?: ApiArguments;
}

export interface ComposeDeps {
  readonly backend: Backend;
  /** How values are encrypted; absent: they are not. */
  readonly encryption?: EncryptionSlots;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Undefined: no audit log. */
  readonly audit?: Auditor;
  readonly checks?: readonly HealthCheck[];
  /** Absent: everything is dialed plainly, and no node's tunnel is accepted. */
  readonly egress?: Egress;
  /** Answers what is no business of the API; see ApiServerDeps. */
  readonly requests?: ApiServerDeps["requests"];
}

/** Identities of the parts inside the server process. */
export const identities = {
  loopback,
  scheduler: { name: "system:kube-scheduler", groups: ["system:authenticated"] },
  node: (name: string): UserInfo => ({ name: `system:node:${name}`, groups: ["system:nodes", "system:authenticated"] }),
} as const;

export interface ComposedApiServer {
  readonly server: ApiServer;
  /** Lets `informers` keep the authorisers' copies of roles, bindings and pods; nobody but system:masters may do anything before. */
  watchRbac(informers: InformerFactory): void;
  /** Lets `informers` tell flow control of its objects; the service writes the status of flow schemas. */
  flowControl(informers: InformerFactory, client: Client): Service;
  /** Serves metrics.k8s.io, from what nodes say of themselves when asked. */
  serveMetrics(informers: InformerFactory): void;
  /** Makes what a cluster cannot do without; /readyz says no before it is ready. `client` must be system:masters. */
  bootstrapper(bootstrap: BootstrapOptions, client: Client): Service;
  /** Who presents a client certificate; for the node API. Rejects with ApiError 401. */
  authenticateCertificate(
    certificate: Uint8Array | undefined,
    intermediates: () => readonly Uint8Array[],
  ): Promise<UserInfo | undefined>;
  /** Who somebody is, by certificate or token. Rejects with ApiError 401. */
  authenticate(credentials: Credentials): Promise<UserInfo | undefined>;
  /** What a cluster cannot do without is there. */
  readonly isBootstrapped: boolean;
}

/** The store is shared: the name must be nobody else's. */
const nodeIndex = "node-of-authorizer";

export function composeApiServer(options: ComposeOptions, deps: ComposeDeps): ComposedApiServer {
  const { backend, clock, random, log, metrics, egress } = deps;
  let isBootstrapped = false;
  let podStore: Informer<Pod> | undefined;
  const rbacCache = new RbacCache();
  const rbac = createRbacAuthorizer({ source: rbacCache });
  const certificates = createX509Authenticator({ clientCa: options.clientCa }, { clock, log });
  const tokens = createServiceAccountAuthenticator(
    { publicKeys: options.serviceAccount.publicKeys },
    {
      ...{ clock, log },
      get: (resource, namespace, name) => server.read(resource, namespace, name),
      secretUsed: createSecretUseNotes({ client: () => new Client(server.transport(loopback)), log }),
    },
  );
  const bootstrapTokens = createBootstrapTokenAuthenticator({
    ...{ clock, log },
    get: (resource, namespace, name) => server.read(resource, namespace, name),
  });
  const read = async <T>(resource: string, namespace: string, name: string): Promise<T> => {
    const object = await server.read(resource, namespace, name);
    if (!object) throw notFound({ group: "", resource }, name);
    return object as unknown as T;
  };
  const dialer = createDirectNodeDialer(
    {
      serverCaPem: options.serverCa,
      client: options.nodeClient,
    },
    {
      getNode: (name) => read<Node>("nodes", "", name),
      clock,
      connect: egress && ((node, port) => egress.connect(node, port)),
    },
  );
  const authenticators = [certificates, tokens, bootstrapTokens];
  let virtualGroups: readonly VirtualGroup[] = [];
  const authorizer = createNodeAuthorizer(
    {
      rules: nodeRules(),
      podsOn: (node) => podStore?.byIndex(nodeIndex, node) ?? [],
      read: (resource, namespace, name) => server.read(resource, namespace, name),
      list: (resource, namespace) => server.readAll(resource, namespace),
    },
    rbac,
  );
  const server: ApiServer = createApiServer(
    {
      ...(options.host === undefined ? {} : { host: options.host }),
      ...(options.port === undefined ? {} : { port: options.port }),
      tls: options.tls,
      serverAddress: options.serverAddress,
      ...options.arguments,
    },
    {
      ...{ backend, clock, random, log, metrics, encryption: deps.encryption },
      ...(egress
        ? { upgrades: new Map([[tunnelPath, (upgrade: ServerUpgrade) => acceptTunnel(upgrade, egress, certificates)]]) }
        : {}),
      ...{ audit: deps.audit, requests: deps.requests, authenticators },
      authorizer,
      strategies: createStrategies({
        podResize: options.arguments?.podResize ?? false,
        clock,
        random,
        services: {
          serviceCidr: options.serviceCidr,
          nodePorts: [options.nodePorts.first, options.nodePorts.last],
          multiCidr: options.arguments?.multiCidrServices ?? false,
          claims: options.hasOtherServers ? (kind) => createNumberClaims(kind, { backend, log }) : undefined,
        },
      }),
      admission: createAdmissionPlugins({ random, rbac, authorizer }),
      columnsFor,
      connector: byDestination(
        createNodeProxy({ dialer, log, getPod: (namespace, name) => read<Pod>("pods", namespace, name) }),
        createBackendProxy({
          ...{ log, random },
          getPod: (namespace, name) => read<Pod>("pods", namespace, name),
          getService: (namespace, name) => read<ServiceObject>("services", namespace, name),
          getEndpoints: (namespace, name) => read<Endpoints>("endpoints", namespace, name),
          dial(to, request, signal) {
            const socket = egress?.connect(to.host, to.port);
            return openUpgrade(socket ? { ...to, socket } : to, request, signal);
          },
        }),
      ),
      openapi: openApiAssets(options.arguments?.optionalApis),
      tokenIssuer: createTokenIssuer(options.serviceAccount, { clock, random }),
      reviewToken: async (token, audiences) =>
        (await tokens.review(token, audiences)) ?? bootstrapTokens.review(token, audiences),
      rulesFor: (user, namespace) => rbac.rulesFor(user, namespace),
      get virtualGroups() {
        return virtualGroups;
      },
      checks: [
        {
          name: "poststarthook/bootstrap",
          readyOnly: true,
          check() {
            if (!isBootstrapped) throw new Error("not finished");
          },
        },
        ...(deps.checks ?? []),
      ],
    },
  );
  return {
    server,
    watchRbac(informers) {
      podStore = informers.informer(pods);
      podStore.addIndex(nodeIndex, (pod) => [pod.spec.nodeName ?? ""]);
      const kinds: readonly ResourceInfo<ApiObject>[] = [roles, clusterRoles, roleBindings, clusterRoleBindings];
      for (const resource of kinds) {
        informers.informer(resource).addHandler({
          add: (object) => rbacCache.upsert(resource.kind, object),
          update: (object) => rbacCache.upsert(resource.kind, object),
          delete: (object) => rbacCache.remove(resource.kind, object),
        });
      }
    },
    flowControl(informers, client) {
      const { flowControl } = server;
      informers.informer(priorityLevelConfigurations).addHandler({
        add: (level) => flowControl.setLevel(level),
        update: (level) => flowControl.setLevel(level),
        delete: ({ metadata }) => flowControl.removeLevel(metadata.name ?? ""),
      });
      informers.informer(flowSchemas).addHandler({
        add: (schema) => flowControl.setSchema(schema),
        update: (schema) => flowControl.setSchema(schema),
        delete: ({ metadata }) => flowControl.removeSchema(metadata.name ?? ""),
      });
      return createDanglingController({ client, informers, clock, log });
    },
    serveMetrics(informers) {
      const collector = new MetricsCollector({
        clock,
        log,
        scrape: (node, signal) => scrapeNode(dialer, node, signal),
      });
      const stores = { nodes: informers.informer(nodes), pods: informers.informer(pods) };
      virtualGroups = [...virtualGroups, createMetricsGroup({ clock, collector, ...stores })];
    },
    bootstrapper(bootstrap, client) {
      const service = createBootstrapper(bootstrap, { client, clock, log });
      return {
        name: service.name,
        run: (signal, ready) =>
          service.run(signal, () => {
            isBootstrapped = true;
            ready();
          }),
      };
    },
    authenticateCertificate: (clientCertificate, clientIntermediates) =>
      certificates.authenticate({ clientCertificate, clientIntermediates }),
    async authenticate(credentials) {
      for (const one of authenticators) {
        const user = await one.authenticate(credentials);
        if (user) return user;
      }
      return undefined;
    },
    get isBootstrapped() {
      return isBootstrapped;
    },
  };
}
