// Which of the servers a node's connections go to, and which connections end when a server is lost or a better one is
// found. Pure: a list of servers with their states in, the next list and the servers to hang up on out. States, order and
// transitions are k3s's, so that a node keeps to one server as long as that is well.
// Upstream counterpart: k3s pkg/agent/loadbalancer/servers.go.

/** Low to high; see `planSuccess` and `planFailure` for what leads where. */
export const serverStates = [
  "failed",
  /** The one that the node was started with, where the cluster does not name it. */
  "standby",
  "unchecked",
  "recovering",
  "healthy",
  "preferred",
  "active",
] as const;
export type ServerState = (typeof serverStates)[number];

export interface ServerEntry {
  /** HOST:PORT */
  readonly address: string;
  readonly state: ServerState;
  readonly connections: number;
  /** When it came into this state. */
  readonly sinceMs: number;
}

/** What was tried: a connection for somebody, whether its tunnel stands, or whether it is a server of this cluster at all. */
export type Attempt = "dial" | "check" | "proof";

export interface Change {
  readonly servers: readonly ServerEntry[];
  /** All connections to these end. */
  readonly hangUp: readonly string[];
}

/** A server that nobody has used for so long is one like the others. */
const preferredMs = 60_000;
/** Connections to these have somewhere better to go as soon as one server is active. */
const lesser: readonly ServerState[] = ["failed", "standby", "recovering", "healthy"];

/** Addresses in the order in which they are tried. */
export function inOrder(servers: readonly ServerEntry[]): readonly string[] {
  const rank = ({ state }: ServerEntry) => serverStates.indexOf(state);
  return [...servers].sort((a, b) => rank(b) - rank(a) || b.connections - a.connections).map(({ address }) => address);
}

/** `listed`: what the cluster says; nothing is believed to be a mistake. `given`: the one the node was started with. */
export function planList(
  servers: readonly ServerEntry[],
  { listed, given }: { readonly listed: readonly string[]; readonly given: string },
  nowMs: number,
): Change {
  const wanted = listed.length > 0 ? [...new Set(listed)] : [given];
  const all = wanted.includes(given) ? wanted : [...wanted, given];
  const next = all.map((address): ServerEntry => {
    const known = servers.find((server) => server.address === address);
    const state = wanted.includes(address) ? "unchecked" : "standby";
    if (!known) return { address, state, connections: 0, sinceMs: nowMs };
    const isMoved = (known.state === "standby") !== (state === "standby");
    return isMoved ? { ...known, state, sinceMs: nowMs } : known;
  });
  const hangUp = servers.filter(({ address }) => !all.includes(address)).map(({ address }) => address);
  return { servers: next, hangUp };
}

export function planSuccess(servers: readonly ServerEntry[], address: string, by: Attempt, nowMs: number): Change {
  const server = servers.find((one) => one.address === address);
  const state = server && afterSuccess(server, by, nowMs);
  if (!server || state === server.state || state === undefined) return { servers, hangUp: [] };
  if (state !== "active") return { servers: put(servers, [address], state, nowMs), hangUp: [] };
  const others = servers.filter((one) => one !== server);
  const rivals = others.filter((one) => one.state === "active");
  if (rivals.some((one) => one.connections > server.connections)) {
    return { servers: put(servers, [address], "preferred", nowMs), hangUp: [] };
  }
  const demoted = put(
    servers,
    rivals.map((one) => one.address),
    "preferred",
    nowMs,
  );
  const hangUp = others
    .filter(({ state: other, connections }) => lesser.includes(other) && connections > 0)
    .map((one) => one.address);
  return { servers: put(demoted, [address], "active", nowMs), hangUp };
}

function afterSuccess({ state, connections, sinceMs }: ServerEntry, by: Attempt, nowMs: number): ServerState {
  if (state === "failed" || state === "unchecked") return "recovering";
  if (state === "recovering" && by === "check") return connections > 0 ? "active" : "preferred";
  if ((state === "healthy" || state === "preferred") && by === "dial") return "active";
  if (state === "preferred" && nowMs - sinceMs > preferredMs) return "healthy";
  return state;
}

export function planFailure(servers: readonly ServerEntry[], address: string, by: Attempt, nowMs: number): Change {
  const state = servers.find((one) => one.address === address)?.state;
  const isNew = state === "unchecked" || state === "recovering";
  const isLost = state === "healthy" || state === "preferred" || state === "active";
  if (!isLost && !(isNew && by !== "check")) return { servers, hangUp: [] };
  return { servers: put(servers, [address], "failed", nowMs), hangUp: isLost ? [address] : [] };
}

const put = (
  servers: readonly ServerEntry[],
  addresses: readonly string[],
  state: ServerState,
  nowMs: number,
): readonly ServerEntry[] =>
  servers.map((one) => (addresses.includes(one.address) ? { ...one, state, sinceMs: nowMs } : one));

/**
 * Servers to keep a tunnel to: all that the cluster names, and the given one until one of those is reached, for it may be
 * the same under another name.
 */
export function planTunnels(
  servers: readonly ServerEntry[],
  isConnected: (address: string) => boolean,
): readonly string[] {
  const listed = servers.filter(({ state }) => state !== "standby").map(({ address }) => address);
  const isReached = listed.some(isConnected);
  const rest = servers.filter(({ state }) => state === "standby" && !isReached).map(({ address }) => address);
  return [...listed, ...rest];
}
