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
