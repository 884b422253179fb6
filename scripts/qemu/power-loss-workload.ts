// What a client does while the device is recorded, and what it was promised: each acknowledged change with the position
// in the log that was flushed by then. Names belong to one writer each, so the changes of a name have an order.
// A change whose answer never came may or may not have happened: it is kept as attempted.
import type { Random } from "#base/clock.ts";
import type { Transport } from "#client/transport.ts";
import { ApiError } from "#model/status.ts";

export interface Change {
  readonly name: string;
  /** Rises over the whole recording; `text` of the object holds it. */
  readonly number: number;
  readonly type: "put" | "delete";
  /** Undefined for a delete, and where no answer came. */
  readonly revision?: number;
  /**
   * Entries the log's superblock vouched for when the answer came. The flush that made the change durable is among
   * them, so a cut at or after this must show it. Undefined where no answer came.
   */
  readonly mark?: number;
}

/** A revision that a client has seen, of the memory-only classes too: it must never be given out again. */
export interface Sighting {
  readonly revision: number;
  readonly mark: number;
}

export interface Workload {
  readonly changes: Change[];
  readonly sightings: Sighting[];
}

export interface WorkloadOptions {
  readonly transport: Transport;
  readonly random: Random;
  /** The entry count of the log's superblock now. */
  readonly markNow: () => number;
  readonly writers: number;
  readonly untilMs: () => boolean;
  readonly pauseMs: number;
  readonly pause: (ms: number) => Promise<void>;
}

export const workPrefix = "power-loss-";
export const workNamespace = "default";
/** Found again in the stored bytes, whatever their encoding. */
export const textOf = (number: number): string => `change<${number}>`;
export const numberIn = (stored: string): number | undefined => {
  const found = /change<(\d+)>/.exec(stored)?.[1];
  return found === undefined ? undefined : Number(found);
};

const namesPerWriter = 40;
const collection = `/api/v1/namespaces/${workNamespace}/configmaps`;
const heartbeats = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/** Changes until told to stop, or until the server goes away; adds to `workload` what happened. */
export async function runWorkload(workload: Workload, options: WorkloadOptions): Promise<void> {
  const { transport, random, markNow } = options;
  let next = workload.changes.reduce((n, change) => Math.max(n, change.number), 0) + 1;
  const present = await presentNow(transport);
  let gone = false;

  const attempt = async (change: Change, send: () => Promise<number | undefined>): Promise<void> => {
    // Listed before it is sent: also a change without an answer may be found on the disk.
    const index = workload.changes.push(change) - 1;
    try {
      const revision = await send();
      const mark = markNow();
      workload.changes[index] = { ...change, mark, ...(revision === undefined ? {} : { revision }) };
      if (revision !== undefined) workload.sightings.push({ revision, mark });
    } catch (error) {
      if (error instanceof ApiError) throw error;
      gone = true;
    }
  };

  const writer = async (id: number): Promise<void> => {
    while (!gone && !options.untilMs()) {
      const name = `${workPrefix}${id}-${Math.floor(random.float() * namesPerWriter)}`;
      const number = next++;
      const path = `${collection}/${name}`;
      const padding = "x".repeat(Math.floor(random.float() * 3000));
      const body = { apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data: { text: textOf(number), padding } };
      if (!present.has(name)) {
        await attempt({ name, number, type: "put" }, async () =>
          revisionOf(await transport.request({ method: "POST", path: collection, body })),
        );
        present.add(name);
      } else if (random.float() < 0.2) {
        await attempt({ name, number, type: "delete" }, async () => {
          await transport.request({ method: "DELETE", path });
          return undefined;
        });
        present.delete(name);
      } else {
        await attempt({ name, number, type: "put" }, async () =>
          revisionOf(await transport.request({ method: "PUT", path, body })),
        );
      }
      await options.pause(options.pauseMs * (0.5 + random.float()));
    }
  };

  const beat = async (): Promise<void> => {
    const name = `${workPrefix}lease`;
    const body = {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name },
      spec: { holderIdentity: "power-loss" },
    };
    try {
      await transport.request({ method: "POST", path: heartbeats, body }).catch((error: unknown) => {
        if (!(error instanceof ApiError) || error.code !== 409) throw error;
      });
      for (let n = 1; !gone && !options.untilMs(); n++) {
        const patch = { spec: { leaseTransitions: n } };
        const contentType = "application/merge-patch+json";
        const path = `${heartbeats}/${name}`;
        const answer = await transport.request({ method: "PATCH", path, body: patch, contentType });
        workload.sightings.push({ revision: revisionOf(answer), mark: markNow() });
        await options.pause(options.pauseMs * 3);
      }
    } catch (error) {
      if (error instanceof ApiError) throw error;
      gone = true;
    }
  };
  await Promise.all([beat(), ...Array.from({ length: options.writers }, (_, id) => writer(id))]);
}

/** Asked for, because a change without an answer before the server went may or may not have happened. */
async function presentNow(transport: Transport): Promise<Set<string>> {
  return new Set((await readObjects(transport)).keys());
}

/** Name -> number of the change that it shows, as the API serves it. */
export async function readObjects(transport: Transport): Promise<Map<string, number>> {
  const list = (await transport.request({ method: "GET", path: collection })) as unknown as {
    readonly items: readonly {
      readonly metadata: { readonly name: string };
      readonly data?: { readonly text?: string };
    }[];
  };
  const ours = list.items.filter((item) => item.metadata.name.startsWith(workPrefix));
  return new Map(ours.map((item) => [item.metadata.name, numberIn(item.data?.text ?? "") ?? -1]));
}

function revisionOf(object: { readonly metadata?: unknown }): number {
  return Number((object.metadata as { resourceVersion?: string } | undefined)?.resourceVersion);
}

export interface Expectation {
  readonly changes: readonly Change[];
  /** Revisions up to here were seen by clients before the cut. */
  readonly seenRevision: number;
  readonly cut: number;
}

/**
 * What is wrong with the found objects (name -> number of the change they show): a name must show its last acknowledged
 * change, or a later attempted one.
 */
export function judgeObjects(found: ReadonlyMap<string, number>, expected: Expectation): string[] {
  const problems: string[] = [];
  const byName = new Map<string, Change[]>();
  for (const change of expected.changes) {
    const changes = byName.get(change.name);
    if (changes) changes.push(change);
    else byName.set(change.name, [change]);
  }
  for (const [name, changes] of byName) {
    const last = changes.findLastIndex((change) => change.mark !== undefined && change.mark <= expected.cut);
    const number = found.get(name);
    const allowed = changes.slice(Math.max(0, last));
    const isFine =
      number === undefined
        ? last < 0 || allowed.some((change) => change.type === "delete")
        : allowed.some((change) => change.type === "put" && change.number === number);
    if (isFine) continue;
    const wanted = changes[Math.max(0, last)]!;
    const shows = number === undefined ? "is absent" : `shows change ${number}`;
    problems.push(`${name} ${shows}, but ${wanted.type} ${wanted.number} was acknowledged at ${wanted.mark}`);
  }
  for (const name of found.keys()) if (!byName.has(name)) problems.push(`${name} was never written`);
  return problems;
}

export function seenRevisionAt(sightings: readonly Sighting[], cut: number): number {
  return sightings.reduce((n, sighting) => (sighting.mark <= cut ? Math.max(n, sighting.revision) : n), 0);
}
