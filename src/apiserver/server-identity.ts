// The API server's own Lease in kube-system, by which others see that it is there, and the sweep of those that are not any
// more. Its storage class is heartbeat: renewing it writes nothing to disk (datastore/classes.ts).
// Upstream counterpart: the identity lease of kube-apiserver (APIServerIdentity) and controlplane/controller/apiserverleasegc.
import { createHash } from "node:crypto";
import { type Clock, pause, type Random, rfc3339Micro } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { Lease } from "#model/gen/coordination-v1.ts";
import { leases } from "#model/resources.ts";
import { isAlreadyExists, isNotFound } from "#model/status.ts";

export interface ServerIdentityDeps {
  readonly client: Client;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

const namespace = "kube-system";
const durationSeconds = 3600;
const renewMs = 10_000;
const sweepMs = 3_600_000;
const identityLabel = "apiserver.kubernetes.io/identity";
const asServer = { fieldManager: "kube-apiserver" } as const;

/** `apiserver-` and 26 characters of the host name's hash: the same after every restart. */
export function apiServerId(host: string): string {
  return `apiserver-${base32(createHash("sha256").update(host).digest().subarray(0, 16))}`;
}

export function createServerIdentity(host: string, deps: ServerIdentityDeps): Service {
  const { client, clock, random, log } = deps;
  const id = apiServerId(host);
  const holderIdentity = `${id}_${random.uuid()}`;
  const renew = async (isFirst: boolean): Promise<void> => {
    const renewTime = rfc3339Micro(clock.now());
    const labels = { [identityLabel]: "kube-apiserver", "kubernetes.io/hostname": host };
    const spec = { holderIdentity, leaseDurationSeconds: durationSeconds, renewTime };
    try {
      const change = isFirst ? { metadata: { labels }, spec } : { spec: { holderIdentity, renewTime } };
      await client.patch(leases, { name: id, namespace }, change, asServer);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      const metadata = { name: id, namespace, labels };
      const lease: Lease = { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata, spec };
      await client.create(leases, lease, asServer).catch((reason: unknown) => {
        if (!isAlreadyExists(reason)) throw reason;
      });
    }
  };
  return {
    name: "server-identity",
    async run(signal, ready) {
      ready();
      let isFirst = true;
      let sweepAtMs = clock.monotonicMs() + sweepMs;
      while (!signal.aborted) {
        try {
          await renew(isFirst);
          isFirst = false;
          if (clock.monotonicMs() >= sweepAtMs) {
            sweepAtMs = clock.monotonicMs() + sweepMs;
            await sweep(id, deps);
          }
        } catch (error) {
          if (!signal.aborted) log.warn("the server's lease is not renewed, retrying", { error: messageOf(error) });
        }
        await pause(clock, renewMs, signal);
      }
    },
  };
}

async function sweep(own: string, { client, clock, log }: ServerIdentityDeps): Promise<void> {
  const found = await client.list(leases, { namespace, labelSelector: `${identityLabel}=kube-apiserver` });
  for (const lease of found.items) {
    const { name = "", uid, resourceVersion } = lease.metadata;
    if (name === own || !isExpired(lease.spec, clock.now())) continue;
    const preconditions = { ...(uid ? { uid } : {}), ...(resourceVersion ? { resourceVersion } : {}) };
    try {
      await client.delete(leases, { name, namespace }, { preconditions });
      log.info("the lease of a server that is gone was removed", { name });
    } catch (error) {
      // Renewed or removed meanwhile: both are well.
      log.debug("a lease was not removed", { name, error: messageOf(error) });
    }
  }
}

export function isExpired(spec: Lease["spec"] | undefined, nowMs: number): boolean {
  const { renewTime, leaseDurationSeconds } = spec ?? {};
  if (renewTime === undefined || leaseDurationSeconds === undefined) return true;
  return Date.parse(String(renewTime)) + leaseDurationSeconds * 1000 < nowMs;
}

/** RFC 4648 in lower case, without padding. */
function base32(bytes: Uint8Array): string {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
  let out = "";
  let [bits, count] = [0, 0];
  for (const byte of bytes) {
    bits = (bits << 8) | byte;
    for (count += 8; count >= 5; count -= 5) out += alphabet[(bits >> (count - 5)) & 31];
    bits &= 0xff;
  }
  return count > 0 ? out + alphabet[(bits << (5 - count)) & 31] : out;
}
