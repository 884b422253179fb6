// What an API server is made of. Deps that need the server themselves (an authoriser that watches RBAC objects, the
// connector that looks pods up) may be set on the deps object after createApiServer: they are read per request.
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Backend } from "#datastore/backend.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import type { ServerRequest, ServerResponse, ServerUpgrade, TlsMaterial } from "#platform/https-server.ts";
import type { AdmissionPlugin } from "./admission/plugin.ts";
import type { Auditor } from "./audit/auditor.ts";
import type { Authenticator } from "./authn/authenticator.ts";
import type { ReviewedToken } from "./authn/service-account.ts";
import type { TokenIssuer } from "./authn/token-issuer.ts";
import type { UserInfo } from "./authn/user.ts";
import type { Authorizer } from "./authz/authorizer.ts";
import type { EncryptionSlots } from "./encryption/slots.ts";
import type { Connector } from "./endpoints/connect.ts";
import type { PolicyRuleLike } from "./endpoints/reviews.ts";
import type { HealthCheck } from "./endpoints/system.ts";
import type { OpenApiAssets } from "./openapi/serve.ts";
import type { Column } from "./printers/columns.ts";
import type { Strategy } from "./strategy.ts";
import type { VirtualGroup } from "./virtual-group.ts";

export interface ApiServerOptions {
  /** Default 0.0.0.0. */
  readonly host?: string;
  /** Default 6443; 0: any free port. */
  readonly port?: number;
  /** Absent: no port is opened, only transports inside the process. */
  readonly tls?: TlsMaterial;
  /** host:port that /api tells clients; default the port listened on. */
  readonly serverAddress?: string;
  /** Default https://<serverAddress>/openid/v1/jwks. */
  readonly jwksUri?: string;
  /** Shared objects are frozen, so that whoever changes one fails: for tests. */
  readonly freezeShared?: boolean;
  /** The feature gate CBORServingAndStorage, alpha and off by default; what is stored stays JSON. */
  readonly cbor?: boolean;
  /** The feature gate InPlacePodVerticalScaling, alpha and off by default: pods/resize is served. */
  readonly podResize?: boolean;
  /** Group versions that are served beside those of the default; names of `optionalApis`. */
  readonly optionalApis?: readonly string[];
  /** For requests that are no watch and no stream. Default 60 s. */
  readonly requestTimeoutMs?: number;
  /** Together the seats that flow control shares out among priority levels. Upstream's defaults: 400 and 200. */
  readonly maxReadsInFlight?: number;
  readonly maxWritesInFlight?: number;
}

export interface ApiServerDeps {
  readonly backend: Backend;
  /** How values are encrypted; absent: they are not. */
  readonly encryption?: EncryptionSlots | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Undefined: no audit log. */
  readonly audit?: Auditor | undefined;
  /** Asked in order; the first that knows the credentials counts. */
  authenticators: readonly Authenticator[];
  authorizer: Authorizer;
  readonly strategies: ReadonlyMap<string, Strategy>;
  readonly admission: readonly AdmissionPlugin[];
  readonly columnsFor: (info: ResourceInfo) => readonly Column[];
  /** Logs, exec, attach, port-forward, proxy; without it those paths are 404. */
  connector?: Connector | undefined;
  readonly openapi?: OpenApiAssets | undefined;
  /** Groups answered by code; replaced as a whole. All rows of one are of one version. */
  readonly virtualGroups?: readonly VirtualGroup[] | undefined;
  /** Makes service-account tokens and publishes their keys. */
  tokenIssuer?: TokenIssuer | undefined;
  /** For TokenReview. */
  reviewToken?: ((token: string, audiences: readonly string[]) => Promise<ReviewedToken | undefined>) | undefined;
  /** For SelfSubjectRulesReview. */
  rulesFor?: ((user: UserInfo, namespace: string) => readonly PolicyRuleLike[]) | undefined;
  /** Paths beside the API whose upgrades are answered elsewhere, authentication included. Must not reject. */
  readonly upgrades?: ReadonlyMap<string, (upgrade: ServerUpgrade) => Promise<void>>;
  /** Requests beside the API that are answered elsewhere, authentication included; undefined: the API's. Must not reject. */
  readonly requests?: ((request: ServerRequest, response: ServerResponse) => Promise<void> | undefined) | undefined;
  /** Beside the server's own: e.g. that the bootstrap objects exist. */
  readonly checks?: readonly HealthCheck[];
}
