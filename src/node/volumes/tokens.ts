// Service account tokens for pods, bound to the pod, asked for by TokenRequest and renewed when 80 % of their life or a
// day has passed. Kept in memory only; a restarted agent asks anew. Counterpart: the kubelet's token manager.
import type { Clock } from "#base/clock.ts";
import type { Client } from "#client/client.ts";
import type { TokenRequest } from "#model/gen/authentication-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { serviceAccounts } from "#model/resources.ts";

const renewAt = 0.8;
const maxAgeMs = 24 * 3600_000;

export interface TokenSource {
  readonly audience?: string | undefined;
  readonly expirationSeconds: number;
}

interface Held {
  readonly token: string;
  /** As the API said. */
  readonly expirationTimestamp: string;
  readonly renewAtMs: number;
}

export class PodTokens {
  readonly #client: Client;
  readonly #clock: Clock;
  /** By pod uid, then by audience and life. Ends with the pod. */
  readonly #held = new Map<string, Map<string, Held>>();

  constructor(deps: { readonly client: Client; readonly clock: Clock }) {
    this.#client = deps.client;
    this.#clock = deps.clock;
  }

  async get(pod: Pod, source: TokenSource): Promise<string> {
    return (await this.issue(pod, source)).token;
  }

  /** With its end, as CSI drivers are told. */
  async issue(
    pod: Pod,
    source: TokenSource,
  ): Promise<{ readonly token: string; readonly expirationTimestamp: string }> {
    const uid = pod.metadata.uid ?? "";
    let ofPod = this.#held.get(uid);
    if (!ofPod) {
      ofPod = new Map();
      this.#held.set(uid, ofPod);
    }
    const key = `${source.audience ?? ""}\n${source.expirationSeconds}`;
    const nowMs = this.#clock.monotonicMs();
    const held = ofPod.get(key);
    if (held && nowMs < held.renewAtMs) return { token: held.token, expirationTimestamp: held.expirationTimestamp };
    const request = {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      metadata: { namespace: pod.metadata.namespace ?? "" },
      spec: {
        audiences: source.audience ? [source.audience] : [],
        expirationSeconds: source.expirationSeconds,
        boundObjectRef: { apiVersion: "v1", kind: "Pod", name: pod.metadata.name ?? "", uid },
      },
    } as TokenRequest;
    const answer = await this.#client.create(serviceAccounts as never, request, {
      name: pod.spec.serviceAccountName || "default",
      subresource: "token",
    });
    const token = answer.status?.token ?? "";
    // Life as granted, measured on our own clock: wall clocks of board and server may disagree.
    const expirationTimestamp = answer.status?.expirationTimestamp ?? "";
    const expiry = Date.parse(expirationTimestamp);
    const grantedMs = Number.isFinite(expiry) ? expiry - this.#clock.now() : source.expirationSeconds * 1000;
    const lifeMs = Math.min(Math.max(grantedMs, 60_000), Math.max(source.expirationSeconds * 1000, 60_000));
    ofPod.set(key, { token, expirationTimestamp, renewAtMs: nowMs + Math.min(lifeMs * renewAt, maxAgeMs) });
    return { token, expirationTimestamp };
  }

  forget(podUid: string): void {
    this.#held.delete(podUid);
  }
}
