// Who leads, where people look for it: a Lease of the name that upstream's components use. It is written when the leader
// changes and not renewed; the election itself is in the datastore (server-session.ts).
import { type Clock, rfc3339Micro } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import type { Lease } from "#model/gen/coordination-v1.ts";
import { leases } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";

const namespace = "kube-system";

/** Nothing depends on it: a failure is logged. */
export async function noteLeader(
  name: string,
  holderIdentity: string,
  deps: { readonly client: Client; readonly clock: Clock; readonly log: Logger },
): Promise<void> {
  const { client, clock, log } = deps;
  const time = rfc3339Micro(clock.now());
  const spec = { holderIdentity, acquireTime: time, renewTime: time };
  try {
    const found = await client.get(leases, name, namespace).catch((error: unknown) => {
      if (isNotFound(error)) return undefined;
      throw error;
    });
    if (!found) {
      const lease: Lease = {
        ...{ apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name, namespace } },
        spec: { ...spec, leaseTransitions: 0 },
      };
      await client.create(leases, lease);
      return;
    }
    if (found.spec?.holderIdentity === holderIdentity) return;
    const leaseTransitions = (found.spec?.leaseTransitions ?? 0) + 1;
    await client.patch(leases, { name, namespace }, { spec: { ...spec, leaseTransitions } });
  } catch (error) {
    log.debug("the leader's Lease is not written", { name, error: messageOf(error) });
  }
}
