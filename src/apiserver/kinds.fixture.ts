// An API server on the in-memory datastore with everything that kinds bring along: strategies, admission, RBAC, the rights
// of nodes. For the tests of those parts, which say little without the registry around them.
import { generateKeyPairSync } from "node:crypto";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { openDatastore } from "#datastore/open.ts";
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { clusterRoleBindings, clusterRoles, roleBindings, roles } from "#model/resources.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createAdmissionPlugins } from "./admission/plugins.ts";
import { createTokenIssuer } from "./authn/token-issuer.ts";
import { loopback, type UserInfo } from "./authn/user.ts";
import { createNodeAuthorizer } from "./authz/node.ts";
import { createRbacAuthorizer, RbacCache } from "./authz/rbac.ts";
import { bootstrap } from "./bootstrap/bootstrapper.ts";
import { nodeRules } from "./bootstrap/rbac-policy.ts";
import { columnsFor } from "./printers/tables.ts";
import { createStrategies } from "./registry/strategies.ts";
import { type ApiServer, createApiServer } from "./server.ts";

export interface Kinds {
  readonly clock: FakeClock;
  /** As system:masters. */
  readonly client: Client;
  as(user: UserInfo): Client;
  /** Makes the authorizer see the roles and bindings that are stored. */
  syncRbac(): Promise<void>;
  /** Forgets all history. */
  compact(): Promise<void>;
  close(): Promise<void>;
}

export interface KindsOptions {
  readonly serviceCidr?: string;
  readonly nodePorts?: readonly [number, number];
  /** The feature gate InPlacePodVerticalScaling. */
  readonly podResize?: boolean;
  /** The feature gate MultiCIDRServiceAllocator, with the API it needs. */
  readonly multiCidr?: boolean;
}

/** Bootstrapped: namespaces, roles, the kubernetes service. */
export async function openKinds(options: KindsOptions = {}): Promise<Kinds> {
  const clock = new FakeClock();
  const random = seededRandom(3);
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  const source = new RbacCache();
  const rbac = createRbacAuthorizer({ source });
  const server: ApiServer = createApiServer(
    {
      ...{ freezeShared: true, podResize: options.podResize ?? false },
      optionalApis: options.multiCidr ? ["networking.k8s.io/v1beta1"] : [],
    },
    {
      ...{ backend, clock, random, log: silentLogger, metrics: new Metrics(), columnsFor },
      authenticators: [],
      authorizer: createNodeAuthorizer(
        {
          rules: nodeRules(),
          podsOn: () => [],
          read: (resource, namespace, name) => server.read(resource, namespace, name),
          list: (resource, namespace) => server.readAll(resource, namespace),
        },
        rbac,
      ),
      strategies: createStrategies({ clock, random, podResize: options.podResize ?? false, services: options }),
      admission: createAdmissionPlugins({ random, rbac }),
      tokenIssuer: createTokenIssuer({ privateKey: signingKey(), publicKeys: [] }, { clock, random }),
    },
  );
  const client = new Client(server.transport(loopback));
  const serviceCidrs = options.multiCidr ? (options.serviceCidr ?? "10.43.0.0/16").split(",") : [];
  await bootstrap({ advertiseAddress: "192.0.2.1", serviceCidrs }, client);
  return {
    clock,
    client,
    as: (user) => new Client(server.transport(user)),
    async syncRbac() {
      const kinds: readonly ResourceInfo<ApiObject>[] = [roles, clusterRoles, roleBindings, clusterRoleBindings];
      for (const kind of kinds) for (const item of (await client.list(kind)).items) source.upsert(kind.kind, item);
    },
    compact: () => backend.compact(backend.revision()),
    close: () => backend.close(),
  };
}

const signingKey = (): string =>
  generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type: "pkcs8", format: "pem" }) as string;

/** The Status message of a refusal. */
export async function refusal(act: Promise<unknown>): Promise<string> {
  return await act.then(
    () => "accepted",
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
}
