// A Backend checked against maps that a reader understands at a glance. No test runner: it also runs under emulation.
import { type Backend, type Op, prefixRange, revision } from "#datastore/backend.ts";
import { settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";

export const bytes = (value: string): Uint8Array => Buffer.from(value, "latin1");
export const text = (value: Uint8Array): string => Buffer.from(value).toString("latin1");

/** Random operations on the backend and on maps kept for every revision; throws at the first difference. */
export async function againstModel(backend: Backend, seed: number, rounds: number): Promise<void> {
  const random = seededRandom(seed);
  const pick = (n: number) => Math.floor(random.float() * n);
  const keyOf = () => `/${"abc"[pick(3)]}/${"xyz"[pick(3)]}/${pick(12)}`;
  const start = backend.revision();
  let state = new Map<string, { value: string; create: number; mod: number; version: number }>();
  const past = new Map<number, typeof state>([[start, state]]);
  const watched: string[] = [];
  const expected: string[] = [];
  const watch = backend.watch(prefixRange("/b/"), {
    onEvents(events) {
      for (const e of events) watched.push(`${e.kv.modRevision} ${e.type} ${e.kv.key} ${text(e.kv.value)}`);
    },
    onEnd() {},
  });
  for (let round = 0; round < rounds; round++) {
    const kind = pick(20);
    const head = backend.revision();
    if (kind === 0 && head - start > 20) {
      const at = revision(head - pick(20));
      if (at > backend.compactedRevision()) await backend.compact(at);
    } else if (kind < 6) {
      const at = Math.max(backend.compactedRevision(), start, head - pick(40));
      const [low, high] = [keyOf(), keyOf()].sort() as [string, string];
      const limit = pick(6);
      const { kvs, count, more } = await backend.range({ key: low, end: high, revision: revision(at), limit });
      const all = [...past.get(at)!].filter(([k]) => k >= low && k < high).sort(([a], [b]) => (a < b ? -1 : 1));
      const wanted = limit > 0 ? all.slice(0, limit) : all;
      same(
        kvs.map((kv) => [kv.key, text(kv.value), kv.createRevision, kv.modRevision, kv.version]),
        wanted.map(([k, v]) => [k, v.value, v.create, v.mod, v.version]),
        `range ${low} ${high} at ${at}`,
      );
      same([count, more], [all.length, all.length > wanted.length], "count and more");
    } else {
      const next = new Map(state);
      const ops: Op[] = [];
      const used = new Set<string>();
      for (let n = 1 + pick(3); n > 0; n--) {
        const key = keyOf();
        if (used.has(key)) continue;
        used.add(key);
        if (pick(4) === 0) {
          ops.push({ type: "delete", key });
          if (next.delete(key) && key.startsWith("/b/")) expected.push(`${head + 1} delete ${key} `);
        } else {
          const value = `${round}-${"v".repeat(pick(300))}`;
          const old = next.get(key);
          ops.push({ type: "put", key, value: bytes(value) });
          next.set(key, { value, create: old?.create ?? head + 1, mod: head + 1, version: (old?.version ?? 0) + 1 });
          if (key.startsWith("/b/")) expected.push(`${head + 1} put ${key} ${value}`);
        }
      }
      const guard = keyOf();
      const result = await backend.commit({
        compares: [{ key: guard, target: "version", op: "=", value: state.get(guard)?.version ?? 0 }],
        success: ops,
      });
      same(result.succeeded, true, "compare");
      const changed = result.revision !== head;
      if (changed) {
        state = next;
        past.set(result.revision, state);
      }
    }
  }
  await settle();
  watch.cancel();
  same(watched, expected, "events");
}

function same(actual: unknown, expected: unknown, what: string): void {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what}: got ${a.slice(0, 500)}, expected ${b.slice(0, 500)}`);
}
