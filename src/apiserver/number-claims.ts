// Claims of numbers in a shared datastore, under `/mote/claims/KIND/NUMBER`: each with a lease of its own, so that it goes when
// its server forgets it, or dies, or is simply done. What a number was claimed for is written only while the claim is there.
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Backend, Compare } from "#datastore/backend.ts";
import type { NumberClaims } from "./registry/strategies/shared-allocator.ts";

/** Longer than the write that follows takes, as a rule; one that takes longer is refused. */
const lifeSeconds = 10;
/** Claims of the last seconds, more than writes under way need; those of older writes have ended by themselves. */
const maxKept = 5000;

export function createNumberClaims(
  kind: string,
  { backend, log }: { readonly backend: Backend; readonly log: Logger },
): NumberClaims {
  const claims = new Map<number, { readonly lease: number; readonly compare: Compare }>();
  const end = (lease: number) => {
    backend.revokeLease(lease).catch((error: unknown) => {
      log.debug("a claim ends by itself", { kind, error: messageOf(error) });
    });
  };
  return {
    async take(number) {
      const { id } = await backend.grantLease(lifeSeconds, 0, true);
      const key = `/mote/claims/${kind}/${number}`;
      const { succeeded, revision } = await backend.commit({
        compares: [{ key, target: "create", op: "=", value: 0 }],
        success: [{ type: "put", key, value: new Uint8Array(0), lease: id }],
      });
      if (!succeeded) {
        end(id);
        return false;
      }
      claims.delete(number);
      claims.set(number, { lease: id, compare: { key, target: "create", op: "=", value: revision } });
      for (const oldest of claims.keys()) {
        if (claims.size <= maxKept) break;
        claims.delete(oldest);
      }
      return true;
    },
    held: (number) => claims.get(number)?.compare,
    drop(number) {
      const claim = claims.get(number);
      if (!claim) return;
      claims.delete(number);
      end(claim.lease);
    },
  };
}
