// The index in WASM beside the same structure in TypeScript (a Map of revision lists, a B+tree of keys, a Map of watched
// prefixes), in one process and interleaved: what the boundary costs and what memory and collection gain. Keys of 57
// bytes, values of 1 KiB. Medians of --rounds (default 5), nanoseconds of processor time; below 1 in the last column WASM is the quicker.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Engine } from "#datastore/engine/engine.ts";
import { buildStages } from "#scripts/build/build.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";

const keyCount = 50_000;
const value = Buffer.alloc(1024, "v");
const keyOf = (i: number): string =>
  `/registry/pods/namespace-${String(i % 100).padStart(4, "0")}/pod-name-of-some-length-${String(i).padStart(8, "0")}`;
const prefixOf = (i: number): string => `/registry/pods/namespace-${String(i % 100).padStart(4, "0")}/`;

interface Index {
  put(key: string, value: Uint8Array, revision: number): void;
  get(key: string): Uint8Array | undefined;
  /** Keys and values of [start, end), at most `limit`. */
  range(start: string, end: string, limit: number): number;
  watch(prefix: string, id: number): void;
  match(key: string): number;
}

function inWasm(wasm: Uint8Array<ArrayBuffer>): Index {
  const engine = new Engine({ wasm, maximumBytes: 512 * 1024 * 1024, hashSeed: 7 });
  return {
    put: (key, bytes, revision) => engine.put(key, bytes, revision, 0, 0, true),
    get: (key) => engine.get(key, Infinity)?.value,
    range: (start, end, limit) => engine.range(start, end, Infinity, limit, false).length,
    watch: (prefix, id) => engine.watchAdd(id, "prefix", prefix, ""),
    match(key) {
      let n = 0;
      engine.match(key, () => n++);
      return n;
    },
  };
}

interface Kept {
  readonly key: string;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly lease: number;
}

const fanOut = 64;
type TreeNode = { keys: string[]; children: TreeNode[] | undefined };

/** What a store in TypeScript would be. */
class InTypeScript implements Index {
  readonly #records = new Map<string, Kept[]>();
  #root: TreeNode = { keys: [], children: undefined };
  readonly #watches = new Map<string, number[]>();

  put(key: string, bytes: Uint8Array, revision: number): void {
    const list = this.#records.get(key);
    const last = list?.at(-1);
    const record: Kept = {
      key,
      value: Uint8Array.prototype.slice.call(bytes),
      createRevision: last?.createRevision ?? revision,
      modRevision: revision,
      version: (last?.version ?? 0) + 1,
      lease: 0,
    };
    if (list) {
      list.push(record);
      return;
    }
    this.#records.set(key, [record]);
    const right = this.#insert(this.#root, key);
    if (right) this.#root = { keys: [lowest(right)], children: [this.#root, right] };
  }

  get(key: string): Uint8Array | undefined {
    const kept = this.#records.get(key)?.at(-1);
    return kept && { ...kept }.value;
  }

  range(start: string, end: string, limit: number): number {
    const found: Kept[] = [];
    this.#visit(this.#root, start, end, (key) => {
      const kept = this.#records.get(key)?.at(-1);
      if (kept) found.push({ ...kept });
      return found.length < limit;
    });
    return found.length;
  }

  watch(prefix: string, id: number): void {
    const ids = this.#watches.get(prefix);
    if (ids) ids.push(id);
    else this.#watches.set(prefix, [id]);
  }

  match(key: string): number {
    let n = 0;
    for (let at = key.indexOf("/"); at >= 0; at = key.indexOf("/", at + 1)) {
      for (const _ of this.#watches.get(key.slice(0, at + 1)) ?? []) n++;
    }
    return n;
  }

  /** The new right neighbour of a node that had to split. */
  #insert(node: TreeNode, key: string): TreeNode | undefined {
    if (!node.children) {
      node.keys.splice(lowerBound(node.keys, key), 0, key);
    } else {
      const index = upperBound(node.keys, key);
      const right = this.#insert(node.children[index]!, key);
      if (!right) return undefined;
      node.keys.splice(index, 0, lowest(right));
      node.children.splice(index + 1, 0, right);
    }
    if (node.keys.length <= fanOut) return undefined;
    const half = node.keys.length >> 1;
    if (!node.children) return { keys: node.keys.splice(half), children: undefined };
    const right: TreeNode = { keys: node.keys.splice(half + 1), children: node.children.splice(half + 1) };
    node.keys.pop();
    return right;
  }

  #visit(node: TreeNode, start: string, end: string, visit: (key: string) => boolean): boolean {
    if (!node.children) {
      for (let i = lowerBound(node.keys, start); i < node.keys.length; i++) {
        if (node.keys[i]! >= end || !visit(node.keys[i]!)) return false;
      }
      return true;
    }
    for (let i = upperBound(node.keys, start); i < node.children.length; i++) {
      if (!this.#visit(node.children[i]!, start, end, visit)) return false;
    }
    return true;
  }
}

function lowest(node: TreeNode): string {
  let at = node;
  while (at.children) at = at.children[0]!;
  return at.keys[0]!;
}

function lowerBound(keys: readonly string[], key: string): number {
  let [low, high] = [0, keys.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

function upperBound(keys: readonly string[], key: string): number {
  let [low, high] = [0, keys.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle]! <= key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Processor time, of the collector's threads too: what others do on the machine matters less than for time by the clock. */
function cpuNs(start: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(start);
  return (user + system) * 1000;
}

/** In the order in which they run; each is handed the index and answers how many operations that were. */
const operations: Readonly<Record<string, (index: Index, round: number) => number>> = {
  put_new(index) {
    for (let i = 0; i < keyCount; i++) index.put(keyOf(i), value, i + 1);
    // As of the watch hub: each range once.
    for (let i = 0; i < 100; i++) index.watch(prefixOf(i), i + 1);
    index.watch("/registry/pods/", 101);
    return keyCount;
  },
  put_update(index) {
    for (let i = 0; i < 20_000; i++) index.put(keyOf((i * 7919) % keyCount), value, keyCount + i + 1);
    return 20_000;
  },
  get(index, round) {
    const random = seededRandom(round);
    let bytes = 0;
    for (let i = 0; i < 50_000; i++) bytes += index.get(keyOf(Math.floor(random.float() * keyCount)))?.length ?? 0;
    if (bytes !== 50_000 * value.length) throw new UserError("get found something else");
    return 50_000;
  },
  range500(index) {
    for (let i = 0; i < 200; i++) {
      const found = index.range(prefixOf(i), `${prefixOf(i).slice(0, -1)}0`, 500);
      if (found !== Math.min(500, keyCount / 100)) throw new UserError(`range found ${found}`);
    }
    return 200;
  },
  match(index) {
    let n = 0;
    for (let i = 0; i < 50_000; i++) n += index.match(keyOf(i));
    if (n !== 100_000) throw new UserError(`match found ${n}`);
    return 50_000;
  },
};

export async function engine(args: readonly string[]): Promise<Readonly<Record<string, number>>> {
  const { values } = parseArgs({ args: [...args], options: { rounds: { type: "string", default: "5" } } });
  const rounds = Number(values.rounds);
  if (!(rounds > 0)) throw new UserError("--rounds: a number above 0");
  await runStages(buildStages);
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const wasm = new Uint8Array(readFileSync("build/dist/engine.wasm"));
  const makers = { wasm: () => inWasm(wasm), ts: () => new InTypeScript() };
  const took: Record<string, number[]> = {};
  const note = (name: string, figure: number) => {
    took[name] ??= [];
    took[name].push(figure);
  };
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 ? (["ts", "wasm"] as const) : (["wasm", "ts"] as const)) {
      collect();
      const before = process.memoryUsage();
      const index = makers[name]();
      for (const [operation, run] of Object.entries(operations)) {
        const start = process.cpuUsage();
        const count = run(index, round);
        note(`${operation}_${name}_ns`, cpuNs(start) / count);
        if (operation !== "put_new") continue;
        const gcStart = process.cpuUsage();
        collect();
        note(`full_gc_${name}_ns`, cpuNs(gcStart));
        note(`heap_per_key_${name}_bytes`, (process.memoryUsage().heapUsed - before.heapUsed) / keyCount);
      }
    }
  }
  const figures: Record<string, number> = {};
  for (const [name, list] of Object.entries(took)) {
    figures[name] = Math.round([...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]!);
  }
  console.log(`${"".padEnd(16)}${"WASM".padStart(12)}${"TypeScript".padStart(12)}${"ratio".padStart(8)}`);
  for (const name of [...Object.keys(operations), "full_gc", "heap_per_key"]) {
    const unit = name === "heap_per_key" ? "bytes" : "ns";
    const [a, b] = [figures[`${name}_wasm_${unit}`]!, figures[`${name}_ts_${unit}`]!];
    figures[`${name}_ratio`] = Number((a / b).toFixed(2));
    console.log(
      `${name.padEnd(16)}${String(a).padStart(12)}${String(b).padStart(12)}${(a / b).toFixed(2).padStart(8)}`,
    );
  }
  return figures;
}
