// Two upstream API servers (apiserver.ts) at work on one etcd: pods come, change and go, controllers count, nodes renew
// their leases, events expire, each server compacts, caches are held against etcd all the time. Throws at the first
// thing that an API server would have stumbled over.
import { Buffer } from "node:buffer";
import { setTimeout as sleep } from "node:timers/promises";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { isGrpcError } from "#wire/grpc.ts";
import { Conflict, Connection, compactRound, LeaseManager, Storage, text, WatchCaches } from "./apiserver.ts";

export interface SoakOptions {
  readonly port: number;
  readonly seconds: number;
  readonly seed: number;
  /** Kills what is served and brings it back; called every `restartSeconds`. */
  readonly restart?: (() => Promise<void>) | undefined;
  readonly restartSeconds?: number | undefined;
}

export interface SoakReport {
  readonly calls: number;
  readonly writes: number;
  readonly unknownOutcomes: number;
  readonly conflicts: number;
  readonly events: number;
  readonly comparisons: number;
  readonly compactions: number;
  readonly restarts: number;
  readonly reconnects: number;
  readonly relists: number;
  readonly progressNotices: number;
  /** Sizes of the database as Status told them, over time. */
  readonly databaseBytes: readonly number[];
}

const pods = "/registry/pods/";
const counters = "/registry/configmaps/";
const nodeLeases = "/registry/leases/";
const events = "/registry/events/";
const prefixes = [
  pods,
  counters,
  nodeLeases,
  events,
  "/registry/minions/",
  "/registry/secrets/",
  "/registry/services/endpoints/",
];
const namespaces = ["default", "kube-system", "web"];
const pageLimit = 50;
const counterKeys = 20;
const nodeCount = 10;
const eventTtlSeconds = 5;
const oldestVersion = [3, 5, 13] as const;

const value = (kind: string, count: number, size: number): Uint8Array =>
  Buffer.concat([Buffer.from(`k8s\0${JSON.stringify({ kind, count })}\n`), Buffer.alloc(size, 120)]);
const countOf = (stored: Uint8Array): number => JSON.parse(text(stored).slice(4).split("\n")[0]!).count;
const bump = (size: number) => (stored: Uint8Array) => value("counter", countOf(stored) + 1, size);

export async function soak(options: SoakOptions): Promise<SoakReport> {
  const random = seededRandom(options.seed);
  const pick = (n: number) => Math.floor(random.float() * n);
  const servers = await Promise.all([newServer(options.port), newServer(options.port)]);
  const totals = { writes: 0, unknownOutcomes: 0, conflicts: 0, comparisons: 0, compactions: 0, restarts: 0 };
  const databaseBytes: number[] = [];
  const acknowledged = new Map<string, number>();
  const possible = new Map<string, number>();
  const add = (map: Map<string, number>, key: string) => map.set(key, (map.get(key) ?? 0) + 1);
  let stop = false;
  let failed: unknown;
  const server = () => servers[pick(servers.length)]!;

  /** A write whose answer was lost may have happened. */
  const write = async <T>(act: () => Promise<T>, unknown: () => void = () => {}): Promise<T | undefined> => {
    try {
      const result = await act();
      totals.writes++;
      return result;
    } catch (error) {
      if (error instanceof Conflict) totals.conflicts++;
      else if (isGrpcError(error, "UNAVAILABLE") || isGrpcError(error, "DEADLINE_EXCEEDED")) {
        totals.unknownOutcomes++;
        unknown();
        await sleep(50);
      } else throw error;
      return undefined;
    }
  };

  const count = async () => {
    const key = `${counters}default/c${pick(counterKeys)}`;
    const { storage } = server();
    const revision = await write(
      () => storage.guaranteedUpdate(key, bump(1000)),
      () => add(possible, key),
    );
    if (revision !== undefined) add(acknowledged, key);
    else await write(() => storage.create(key, value("counter", 0, 1000)));
  };
  let podNumber = 0;
  const podLife = async () => {
    const key = `${pods}${namespaces[pick(namespaces.length)]}/p${podNumber++}`;
    if ((await write(() => server().storage.create(key, value("Pod", 0, 3000)))) === undefined) return;
    // Taken twice: the second is told so.
    const again = await write(() => server().storage.create(key, value("Pod", 0, 10)));
    if (again !== undefined) throw new Error(`${key} was created twice`);
    for (let i = 0; i < 3; i++) {
      await write(() => server().storage.guaranteedUpdate(key, bump(3000)));
      await sleep(pick(20));
    }
    if (pick(4) === 0) return;
    const found = await server().storage.get(key);
    if (found) await write(() => server().storage.remove(key, Number(found.modRevision)));
  };
  const heartbeat = async (node: number) => {
    const key = `${nodeLeases}kube-node-lease/n${node}`;
    const renewed = await write(() => server().storage.guaranteedUpdate(key, bump(300)));
    if (renewed === undefined) await write(() => server().storage.create(key, value("Lease", 0, 300)));
    await sleep(200);
  };
  let eventNumber = 0;
  const event = async () => {
    const { storage, leases } = server();
    await write(async () => {
      const lease = await leases.take(eventTtlSeconds);
      try {
        await storage.create(`${events}default/e${eventNumber++}`, value("Event", 0, 800), lease);
      } catch (error) {
        // The lease manager hands out a lease until shortly before its end; ours are short.
        if (!isGrpcError(error, "NOT_FOUND")) throw error;
      }
    });
    await sleep(10 + pick(20));
  };
  const compare = async () => {
    const { caches } = server();
    if (await caches.compare(caches.caches[pick(prefixes.length)]!, pageLimit)) totals.comparisons++;
    await sleep(100);
  };
  const compact = async (which: number) => {
    const one = servers[which]!;
    await write(async () => {
      const next = await compactRound(one.connection, one.round, one.target);
      if (next.compacted) totals.compactions++;
      one.round = next.round;
      one.target = next.target;
    });
    await sleep(1000);
  };
  const housekeeping = async () => {
    const { connection, storage } = server();
    for (const prefix of prefixes) await storage.count(prefix);
    await connection.call("KV/Range", { key: Buffer.from("/registry/health") }, true);
    const status = await connection.call("Maintenance/Status", {}, true);
    databaseBytes.push(Number(status.dbSize));
    const version = status.version.split(".").map(Number);
    const isOld = oldestVersion.some(
      (n, i) => (version[i] ?? 0) < n && oldestVersion.slice(0, i).every((m, j) => version[j] === m),
    );
    if (isOld) throw new Error(`version ${status.version}: no progress would be asked for`);
    const { members } = await connection.call("Cluster/MemberList", {}, true);
    if (members.length === 0) throw new Error("no members");
    for (const { caches } of servers) if (caches.failure) throw caches.failure;
    await sleep(500);
  };
  const restart = async () => {
    for (let waitedMs = 0; waitedMs < options.restartSeconds! * 1000 && !stop; waitedMs += 100) await sleep(100);
    if (stop) return;
    await options.restart!();
    totals.restarts++;
  };

  const forever = async (act: () => Promise<unknown>) => {
    while (!stop && failed === undefined) {
      try {
        await act();
      } catch (error) {
        failed ??= error;
      }
    }
  };
  const loops = [
    ...Array.from({ length: 4 }, () => count),
    ...Array.from({ length: 6 }, () => podLife),
    ...Array.from({ length: nodeCount }, (_, n) => () => heartbeat(n)),
    ...[event, compare, compare, housekeeping, () => compact(0), () => compact(1)],
    ...(options.restart && options.restartSeconds ? [restart] : []),
  ].map(forever);
  for (let waitedMs = 0; waitedMs < options.seconds * 1000 && failed === undefined; waitedMs += 50) await sleep(50);
  stop = true;
  await Promise.all(loops);
  try {
    if (failed !== undefined) throw failed;
    for (const { caches } of servers)
      for (const cache of caches.caches) {
        // Nobody writes or compacts now; a list that began before may still come.
        for (let tries = 0; !(await caches.compare(cache, pageLimit)); tries++) {
          if (tries > 5) throw new Error(`${cache.prefix} could not be compared`);
        }
      }
    const { storage, caches } = servers[0]!;
    for (const [key, least] of acknowledged) {
      const found = countOf((await storage.get(key))!.value);
      const most = least + (possible.get(key) ?? 0);
      if (found < least || found > most) throw new Error(`${key} counts ${found}, not ${least} to ${most}`);
    }
    if (caches.failure) throw caches.failure;
  } finally {
    for (const { connection, caches } of servers) {
      await caches.stop();
      connection.close();
    }
  }
  const sum = (of: (s: (typeof servers)[number]) => number) => servers.reduce((n, s) => n + of(s), 0);
  return {
    ...totals,
    databaseBytes,
    calls: sum(({ connection }) => connection.calls),
    events: sum(({ caches }) => caches.caches.reduce((n, c) => n + c.events, 0)),
    reconnects: sum(({ caches }) => caches.reconnects),
    relists: sum(({ caches }) => caches.relists),
    progressNotices: sum(({ caches }) => caches.progressNotices),
  };
}

async function newServer(port: number) {
  const connection = new Connection(port);
  const caches = new WatchCaches(connection, prefixes);
  await caches.start(pageLimit);
  const leases = new LeaseManager(connection);
  return { connection, caches, leases, storage: new Storage(connection), round: 0, target: 0 };
}
