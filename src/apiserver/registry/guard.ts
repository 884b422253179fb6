// What a write depends on beside its object being as it was read: another key of the datastore, which is compared in the same
// transaction. So a server that was stopped for a while, with a number that was its own or while it led, writes nothing that
// it has no right to any more, however long the stop was and whatever its clock says.
// Upstream counterpart: none; kube-apiserver repairs such doubles afterwards.
import type { Compare, Op, OpResult } from "#datastore/backend.ts";
import { type ApiError, serviceUnavailable } from "#model/status.ts";
import type { UserInfo } from "../authn/user.ts";

export interface Guard {
  readonly compare: Compare;
  /** What is answered where it does not hold. */
  refuse(): ApiError;
}

/** Of whoever may write only while something holds. */
export const guardsOf = ({ mustHold }: UserInfo): readonly Guard[] =>
  mustHold
    ? [
        {
          compare: mustHold(),
          refuse: () => serviceUnavailable("this server does not lead any more; nothing was written"),
        },
      ]
    : [];

/** For the branch of a transaction that did not succeed: which guards hold. */
export const guardOps = (guards: readonly Guard[]): Op[] =>
  guards.map(({ compare }) => ({ type: "txn", txn: { compares: [compare], success: [], failure: [] } }));

/** Throws where one did not; else the object has changed. `results`: of `guardOps`. */
export function checkGuards(guards: readonly Guard[], results: readonly OpResult[]): void {
  for (const [i, guard] of guards.entries()) {
    const result = results[i];
    if (result?.type === "txn" && !result.succeeded) throw guard.refuse();
  }
}
