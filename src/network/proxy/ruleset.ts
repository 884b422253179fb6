// An nftables table as plain data, and the script that turns one state of it into the next in a single transaction.
// Only differences are written, so that sets the kernel fills itself (session affinity) keep their content, and a change
// of one service costs the same among ten services or a thousand. Pure.

export interface Chain {
  /** `type nat hook … priority …; policy …;` for base chains, else undefined. */
  readonly hook: string | undefined;
  readonly rules: readonly string[];
}

/** A set or a map. For sets the values of `elements` are empty. */
export interface Collection {
  readonly kind: "set" | "map";
  /** Never changes under one name: what varies (a timeout) is part of the name. */
  readonly declaration: string;
  readonly elements: ReadonlyMap<string, string>;
}

/** nftables' word for IPv4 and IPv6. */
export type TableFamily = "ip" | "ip6";

export interface Ruleset {
  readonly family: TableFamily;
  readonly table: string;
  readonly chains: ReadonlyMap<string, Chain>;
  readonly collections: ReadonlyMap<string, Collection>;
}

const none: ReadonlyMap<string, never> = new Map<string, never>();

/**
 * Commands for `nft -f -`; "" where nothing changes. Without `previous` the whole table is replaced, whatever it held.
 * The order keeps every reference valid: what is referred to appears before and disappears after what refers to it.
 */
export function transition(previous: Ruleset | undefined, next: Ruleset): string {
  const table = `${next.family} ${next.table}`;
  const before = previous ?? { chains: none, collections: none };
  const out: string[] = [];
  for (const [name, collection] of next.collections) {
    if (!before.collections.has(name))
      out.push(`add ${collection.kind} ${table} ${name} { ${collection.declaration} }`);
  }
  for (const [name, chain] of next.chains) {
    if (!before.chains.has(name)) out.push(`add chain ${table} ${name}${chain.hook ? ` { ${chain.hook} }` : ""}`);
  }
  for (const [name, chain] of next.chains) {
    const old = before.chains.get(name);
    if (old && sameRules(old.rules, chain.rules)) continue;
    if (old) out.push(`flush chain ${table} ${name}`);
    for (const rule of chain.rules) out.push(`add rule ${table} ${name} ${rule}`);
  }
  for (const [name, collection] of next.collections) {
    out.push(
      ...elementChanges(`${table} ${name}`, before.collections.get(name)?.elements ?? none, collection.elements),
    );
  }
  const goneChains = [...before.chains.keys()].filter((name) => !next.chains.has(name));
  for (const name of goneChains) out.push(`flush chain ${table} ${name}`);
  for (const name of goneChains) out.push(`delete chain ${table} ${name}`);
  for (const [name, { kind }] of before.collections) {
    if (!next.collections.has(name)) out.push(`delete ${kind} ${table} ${name}`);
  }
  if (!previous) out.unshift(`add table ${table}`, `delete table ${table}`, `add table ${table}`);
  return out.length === 0 ? "" : `${out.join("\n")}\n`;
}

/** Removes the table whether it exists or not. */
export const removal = (family: TableFamily, table: string): string =>
  `add table ${family} ${table}\ndelete table ${family} ${table}\n`;

function elementChanges(
  where: string,
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): string[] {
  const gone: string[] = [];
  const added: string[] = [];
  // A map element is taken out by its key; older nft versions want the old value with it, which newer ones accept.
  for (const [key, value] of before) if (after.get(key) !== value) gone.push(element(key, value));
  for (const [key, value] of after) if (before.get(key) !== value) added.push(element(key, value));
  return [
    ...(gone.length > 0 ? [`delete element ${where} { ${gone.join(", ")} }`] : []),
    ...(added.length > 0 ? [`add element ${where} { ${added.join(", ")} }`] : []),
  ];
}

const element = (key: string, value: string): string => (value === "" ? key : `${key} : ${value}`);
const sameRules = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((rule, i) => rule === b[i]);
