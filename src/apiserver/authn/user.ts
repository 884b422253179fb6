// Who a request comes from (upstream: user.Info).
import type { Compare } from "#datastore/backend.ts";

export interface UserInfo {
  readonly name: string;
  readonly uid?: string;
  readonly groups: readonly string[];
  readonly extra?: Readonly<Record<string, readonly string[]>>;
  /** Of a part of this process that one server at a time runs: what it writes counts only where this holds. */
  readonly mustHold?: () => Compare;
}

export const anonymous: UserInfo = { name: "system:anonymous", groups: ["system:unauthenticated"] };
/** The identity of parts inside the server process; member of system:masters. */
export const loopback: UserInfo = { name: "system:apiserver", groups: ["system:masters", "system:authenticated"] };
