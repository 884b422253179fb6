// Claims of numbers in a shared datastore, under `/mote/claims/KIND/NUMBER`: each with a lease of its own, so that it goes when
// its server forgets it, or dies, or is simply done.
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Backend } from "#datastore/backend.ts";
import type { NumberClaims } from "./registry/strategies/shared-allocator.ts";

/** Far longer than the write that follows takes. */
const lifeSeconds = 10;
/** Claims of the last seconds; those of older writes have ended by themselves. */
const maxKept = 1000;

export function createNumberClaims(
  kind: string,
  { backend, log }: { readonly backend: Backend; readonly log: Logger },
): NumberClaims {
  const leases = new Map<number, number>();
  const end = (lease: number) => {
    backend.revokeLease(lease).catch((error: unknown) => {
      log.debug("a claim ends by itself", { kind, error: messageOf(error) });
    });
  };
  return {
    async take(number) {
      const { id } = await backend.grantLease(lifeSeconds, 0, true);
      const key = `/mote/claims/${kind}/${number}`;
      const { succeeded } = await backend.commit({
        compares: [{ key, target: "create", op: "=", value: 0 }],
        success: [{ type: "put", key, value: new Uint8Array(0), lease: id }],
      });
      if (!succeeded) {
        end(id);
        return false;
      }
      leases.set(number, id);
      for (const oldest of leases.keys()) {
        if (leases.size <= maxKept) break;
        leases.delete(oldest);
      }
      return true;
    },
    drop(number) {
      const lease = leases.get(number);
      if (lease === undefined) return;
      leases.delete(number);
      end(lease);
    },
  };
}
