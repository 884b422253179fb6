// Kernel modules by name: reads modules.dep and modules.builtin and answers which files a list of modules needs, in the
// order they must be loaded. Upstream counterpart: kmod.

export interface ModuleIndex {
  /** Module name to path below the version's folder. */
  readonly paths: ReadonlyMap<string, string>;
  /** Path to the paths it needs first, in load order. */
  readonly needs: ReadonlyMap<string, readonly string[]>;
  readonly builtin: ReadonlySet<string>;
}

/** `kernel/drivers/virtio/virtio_blk.ko.xz` is `virtio_blk`; kernel and users write '-' and '_' as they like. */
export function moduleName(path: string): string {
  return path
    .replace(/^.*\//, "")
    .replace(/\.ko(\.\w+)?$/, "")
    .replaceAll("-", "_");
}

export function parseModules(dep: string, builtin: string): ModuleIndex {
  const needs = new Map<string, readonly string[]>();
  for (const line of dep.split("\n")) {
    const [path, rest] = line.split(":");
    // depmod lists the nearest need first; loading goes the other way.
    if (path && rest !== undefined) needs.set(path, rest.trim().split(/\s+/).filter(Boolean).reverse());
  }
  return {
    needs,
    paths: new Map([...needs.keys()].map((path) => [moduleName(path), path])),
    builtin: new Set(builtin.split("\n").filter(Boolean).map(moduleName)),
  };
}

/**
 * Paths in load order, each once. A name with a trailing `?` may be missing; any other missing one is an error, because
 * a typing mistake here is a board that does not start.
 */
export function resolveModules(index: ModuleIndex, names: readonly string[]): string[] {
  const ordered = new Set<string>();
  for (const wanted of names) {
    const name = wanted.replace(/\?$/, "").replaceAll("-", "_");
    if (index.builtin.has(name)) continue;
    const path = index.paths.get(name);
    if (path === undefined) {
      if (wanted.endsWith("?")) continue;
      throw new Error(`the kernel has no module ${name}`);
    }
    for (const need of index.needs.get(path) ?? []) ordered.add(need);
    ordered.add(path);
  }
  return [...ordered];
}

export interface ModuleRules {
  /** Beginnings of paths below `kernel/`, as expressions. */
  readonly keep: readonly string[];
  readonly drop: readonly string[];
  /** More to drop, by board: what none of its hardware can use. */
  readonly boards: Readonly<Record<string, readonly string[]>>;
}

/** Whether a board's root holds the module at a path; what such a module needs stays besides. */
export function moduleFilter(rules: ModuleRules, board: string): (path: string) => boolean {
  const expressions = (list: readonly string[]): RegExp[] => list.map((text) => new RegExp(`^kernel/(${text})`));
  const keep = expressions(rules.keep);
  const drop = expressions([...rules.drop, ...(rules.boards[board] ?? [])]);
  return (path) => keep.some((one) => one.test(path)) && !drop.some((one) => one.test(path));
}
