// Who may use the node API: a client certificate or a bearer token says who somebody is, and the cluster's authoriser says what
// they may do with this node, by the subresource that the path stands for. Both answers are kept for a while, bounded, because
// scrapers ask every few seconds. Counterpart: the kubelet's webhook authentication and authorisation.
import type { Clock } from "#base/clock.ts";
import type { Client } from "#client/client.ts";
import type { TokenReview } from "#model/gen/authentication-v1.ts";
import type { SubjectAccessReview } from "#model/gen/authorization-v1.ts";
import { subjectAccessReviews, tokenReviews } from "#model/resources.ts";

export interface NodeUser {
  readonly name: string;
  readonly groups: readonly string[];
}

export interface NodeCredentials {
  readonly clientCertificate?: Uint8Array | undefined;
  /** What was sent along with it. */
  readonly clientIntermediates?: (() => readonly Uint8Array[]) | undefined;
  readonly bearerToken?: string | undefined;
}

export interface NodeAccess {
  authenticate(credentials: NodeCredentials): Promise<NodeUser | undefined>;
  authorize(user: NodeUser, verb: string, path: string): Promise<boolean>;
}

/** The kubelet's cache lives. */
const tokenMs = 2 * 60_000;
const allowedMs = 5 * 60_000;
const deniedMs = 30_000;
const maxEntries = 1000;

/** The subresource of nodes that a path is guarded as. */
export function subresourceOf(path: string): string {
  const first = path.split("/")[1] ?? "";
  if (first === "stats") return "stats";
  if (first === "metrics") return "metrics";
  if (first === "logs") return "log";
  if (first === "healthz") return "healthz";
  if (first === "configz") return "configz";
  if (first === "pods" || first === "runningpods") return "pods";
  return "proxy";
}

export function createNodeAccess(deps: {
  readonly nodeName: string;
  readonly client: Client;
  readonly clock: Clock;
  /** By certificate, in this process. */
  readonly byCertificate: (
    certificate: Uint8Array,
    intermediates: () => readonly Uint8Array[],
  ) => Promise<NodeUser | undefined>;
}): NodeAccess {
  const { client, clock } = deps;
  const users = new Memo<NodeUser | undefined>(clock);
  const verdicts = new Memo<boolean>(clock);

  async function byToken(token: string): Promise<NodeUser | undefined> {
    const known = users.get(token);
    if (known) return known.value;
    const review = { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", metadata: {}, spec: { token } };
    const { status } = await client.create(tokenReviews as never, review as unknown as TokenReview);
    const user = status?.authenticated
      ? { name: status.user?.username ?? "", groups: status.user?.groups ?? [] }
      : undefined;
    users.set(token, user, user ? tokenMs : deniedMs);
    return user;
  }

  async function review(user: NodeUser, verb: string, subresource: string): Promise<boolean> {
    const key = JSON.stringify([user.name, user.groups, verb, subresource]);
    const known = verdicts.get(key);
    if (known) return known.value;
    const body = {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SubjectAccessReview",
      metadata: {},
      spec: {
        user: user.name,
        groups: [...user.groups],
        resourceAttributes: { verb, group: "", version: "v1", resource: "nodes", subresource, name: deps.nodeName },
      },
    };
    const { status } = await client.create(subjectAccessReviews as never, body as unknown as SubjectAccessReview);
    const isAllowed = status?.allowed === true;
    verdicts.set(key, isAllowed, isAllowed ? allowedMs : deniedMs);
    return isAllowed;
  }

  return {
    async authenticate({ clientCertificate, clientIntermediates = () => [], bearerToken }) {
      if (clientCertificate) return deps.byCertificate(clientCertificate, clientIntermediates);
      return bearerToken ? byToken(bearerToken) : undefined;
    },
    async authorize(user, verb, path) {
      if (user.groups.includes("system:masters")) return true;
      const own = subresourceOf(path);
      if (await review(user, verb, own)) return true;
      // Finer names than upstream's first ones: whoever may proxy may do these too.
      return ["configz", "healthz", "pods"].includes(own) && review(user, verb, "proxy");
    },
  };
}

class Memo<T> {
  readonly #clock: Clock;
  readonly #entries = new Map<string, { readonly value: T; readonly untilMs: number }>();
  constructor(clock: Clock) {
    this.#clock = clock;
  }
  get(key: string): { readonly value: T } | undefined {
    const found = this.#entries.get(key);
    return found && this.#clock.monotonicMs() < found.untilMs ? found : undefined;
  }
  set(key: string, value: T, lifeMs: number): void {
    this.#entries.delete(key);
    this.#entries.set(key, { value, untilMs: this.#clock.monotonicMs() + lifeMs });
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= maxEntries) break;
      this.#entries.delete(oldest);
    }
  }
}
