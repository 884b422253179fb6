// Debian packages as build inputs: exact version and SHA-256 in, a folder with the unpacked files out.
// Works as an ordinary user and leaves the machine's apt alone: apt-get runs with state, cache and sources of its own
// under build/debian/apt/<suite>-<arch>/, so a Debian 12 machine can fetch from trixie and an amd64 one for arm64.
// Invariant: nothing is unpacked whose bytes do not have the pinned hash; a cached file is checked again on each use.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { versions } from "#build.config.ts";

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  /** `all` for architecture-independent packages. */
  readonly arch: "all" | "amd64" | "arm64" | "armhf";
  readonly sha256: string;
  /** Default: the suite of build.config.ts. */
  readonly suite?: string;
}

export interface DebianOptions {
  /** Default `build/debian` of the project. */
  readonly folder?: string;
  /** Default MOTE_DEBIAN_MIRROR or deb.debian.org. */
  readonly mirror?: string;
  /** "all" adds firmware, security updates and backports (never chosen unless asked for by name) to the suite's main. */
  readonly areas?: "main" | "all";
}

/** A package is pinned that the mirror does not hold any more: security updates replace what was there. */
export class PackageGoneError extends Error {
  override readonly name = "PackageGoneError";
  readonly packages: readonly DebianPackage[];

  constructor(packages: readonly DebianPackage[]) {
    super(
      `the mirror no longer has ${packages.map((p) => `${p.name} ${p.version} (${p.arch})`).join(", ")}; ` +
        "`npm run image:lock` moves the lock to what it has now",
    );
    this.packages = packages;
  }
}

/** No index could be had from the mirror, so that nothing is known about what it holds. */
export class MirrorError extends Error {
  override readonly name = "MirrorError";
}

const run = promisify(execFile);
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
const archiveTimeoutMs = 10 * 60_000;

/** The .deb itself, verified. */
export async function fetchDebianPackage(wanted: DebianPackage, options: DebianOptions = {}): Promise<string> {
  const folder = options.folder ?? join(process.cwd(), "build", "debian");
  const pool = join(folder, "pool");
  const file = join(pool, fileNameOf(wanted));
  if ((await hashOf(file)) === wanted.sha256) return file;
  await fs.mkdir(pool, { recursive: true });
  const apt = await privateApt(wanted, folder, options);
  const workFolder = await fs.mkdtemp(join(pool, "fetch-"));
  try {
    const spec = `${wanted.name}${wanted.arch === "all" ? "" : `:${wanted.arch}`}=${wanted.version}`;
    await downloadOrUpdate(apt, spec, workFolder);
    const [downloaded] = await fs.readdir(workFolder);
    if (downloaded === undefined) throw new Error(`apt-get download ${spec} left no file`);
    const path = join(workFolder, downloaded);
    const hash = await hashOf(path);
    if (hash !== wanted.sha256) throw new Error(`${downloaded}: SHA-256 is ${hash}, pinned is ${wanted.sha256}`);
    await fs.rename(path, file);
  } finally {
    await fs.rm(workFolder, { recursive: true, force: true });
  }
  return file;
}

/** The folder with the package's files (`usr/share/...` below it), unpacked once per hash. */
export async function unpackDebianPackage(wanted: DebianPackage, options: DebianOptions = {}): Promise<string> {
  const folder = options.folder ?? join(process.cwd(), "build", "debian");
  const target = join(folder, "unpacked", `${wanted.name}_${wanted.arch}_${wanted.sha256.slice(0, 16)}`);
  if (await exists(target)) return target;
  const file = await fetchDebianPackage(wanted, options);
  await fs.mkdir(join(folder, "unpacked"), { recursive: true });
  const temporary = await fs.mkdtemp(`${target}.tmp-`);
  try {
    await run("dpkg-deb", ["-x", file, temporary], { timeout: archiveTimeoutMs });
    await fs.chmod(temporary, 0o755);
    await fs.rename(temporary, target);
  } catch (error) {
    await fs.rm(temporary, { recursive: true, force: true });
    // Another process may have finished the same work first; its result is as good.
    if (!(await exists(target))) throw error;
  }
  return target;
}

/** What the archive holds now; for those who write a new pin. */
export async function findDebianPackage(
  name: string,
  arch: DebianPackage["arch"],
  options: DebianOptions & { readonly suite?: string } = {},
): Promise<DebianPackage> {
  const folder = options.folder ?? join(process.cwd(), "build", "debian");
  const suite = options.suite ?? versions.debianSuite;
  const apt = await privateApt({ arch, suite }, folder, options);
  await run("apt-get", [...apt, "update"], { timeout: archiveTimeoutMs });
  const qualified = arch === "all" ? name : `${name}:${arch}`;
  const { stdout } = await run("apt-cache", [...apt, "show", "--no-all-versions", qualified], {
    maxBuffer: 8 * 1024 * 1024,
  });
  const field = (key: string) => new RegExp(`^${key}: (.*)$`, "m").exec(stdout)?.[1];
  const version = field("Version");
  const sha256 = field("SHA256");
  if (version === undefined || sha256 === undefined) throw new Error(`${name} (${arch}) is not in ${suite}`);
  return { name, version, arch: field("Architecture") as DebianPackage["arch"], sha256, suite };
}

/** Options that give apt-get a world of its own. */
async function privateApt(
  wanted: { readonly arch: DebianPackage["arch"]; readonly suite?: string },
  folder: string,
  options: DebianOptions,
): Promise<string[]> {
  const mirror = options.mirror ?? process.env["MOTE_DEBIAN_MIRROR"] ?? "http://deb.debian.org/debian";
  const all = options.areas === "all";
  const suite = wanted.suite ?? versions.debianSuite;
  const arch = wanted.arch === "all" ? "amd64" : wanted.arch;
  const state = join(folder, "apt", `${suite}-${arch}${all ? "-all" : ""}`);
  await fs.mkdir(join(state, "lists", "partial"), { recursive: true });
  await fs.mkdir(join(state, "cache", "archives", "partial"), { recursive: true });
  await fs.writeFile(join(state, "status"), "", { flag: "a" });
  const source = (from: string) => `deb [signed-by=${keyring}] ${from}\n`;
  const sources = all
    ? [
        `${mirror} ${suite} main non-free-firmware`,
        // The only one of ours that backports still publishes an index for, beside amd64, which needs nothing from it.
        ...(arch === "arm64" ? [`${mirror} ${suite}-backports main`] : []),
        `${mirror.replace(/\/debian\/?$/, "/debian-security")} ${suite}-security main non-free-firmware`,
      ]
    : [`${mirror} ${suite} main`];
  await fs.writeFile(join(state, "sources.list"), sources.map(source).join(""));
  const settings = {
    "Dir::State": state,
    "Dir::State::status": join(state, "status"),
    "Dir::Cache": join(state, "cache"),
    "Dir::Etc::sourcelist": join(state, "sources.list"),
    "Dir::Etc::sourceparts": "/dev/null",
    "Dir::Etc::preferencesparts": "/dev/null",
    "APT::Architecture": arch,
    "APT::Architectures": arch,
    // The unprivileged _apt user cannot enter a build folder under somebody's home.
    "APT::Sandbox::User": "",
    "Acquire::Languages": "none",
  };
  return ["-q", ...Object.entries(settings).flatMap(([key, value]) => ["-o", `${key}=${value}`])];
}

/** The index is fetched only when what is cached does not know the version. */
async function downloadOrUpdate(apt: string[], spec: string, folder: string): Promise<void> {
  try {
    await run("apt-get", [...apt, "download", spec], { cwd: folder, timeout: archiveTimeoutMs });
  } catch {
    await run("apt-get", [...apt, "update"], { timeout: archiveTimeoutMs });
    await run("apt-get", [...apt, "download", spec], { cwd: folder, timeout: archiveTimeoutMs });
  }
}

const fileNameOf = (wanted: DebianPackage): string =>
  `${wanted.name}_${wanted.version.replace(/^\d+:/, "")}_${wanted.arch}.deb`;

async function hashOf(file: string): Promise<string | undefined> {
  if (!(await exists(file))) return undefined;
  return createHash("sha256")
    .update(await fs.readFile(file))
    .digest("hex");
}

async function exists(path: string): Promise<boolean> {
  return fs.access(path).then(
    () => true,
    () => false,
  );
}

/**
 * Unpacks packages with everything they depend on into `target`, as the archive stands now: apt resolves the closure and
 * checks the signatures. For root folders of another architecture.
 */
export async function unpackDebianClosure(
  names: readonly string[],
  arch: Exclude<DebianPackage["arch"], "all">,
  target: string,
  options: DebianOptions = {},
): Promise<void> {
  const folder = options.folder ?? join(process.cwd(), "build", "debian");
  const apt = await privateApt({ arch }, folder, options);
  await run("apt-get", [...apt, "update"], { timeout: archiveTimeoutMs });
  const install = [...apt, "install", "-y", "--no-install-recommends", "--print-uris", ...names];
  const { stdout } = await run("apt-get", install, { maxBuffer: 8 * 1024 * 1024, timeout: archiveTimeoutMs });
  const wanted = [...stdout.matchAll(/^'[^']+' (\S+)_(\S+)_\w+\.deb /gm)];
  const pool = join(folder, "pool", `closure-${arch}`);
  await fs.mkdir(pool, { recursive: true });
  await run("apt-get", [...apt, "download", ...wanted.map((m) => m[1]!)], {
    cwd: pool,
    timeout: archiveTimeoutMs,
  });
  await fs.mkdir(target, { recursive: true });
  for (const name of (await fs.readdir(pool)).sort()) {
    if (name.endsWith(".deb")) await run("dpkg-deb", ["-x", join(pool, name), target], { timeout: archiveTimeoutMs });
  }
}

/**
 * What apt would install for `names` on an empty machine, without recommendations, sorted by name. A name may carry a
 * release (`linux-image-arm64/trixie-backports`).
 */
export async function resolveDebianClosure(
  names: readonly string[],
  arch: Exclude<DebianPackage["arch"], "all">,
  options: DebianOptions = {},
): Promise<DebianPackage[]> {
  const folder = options.folder ?? join(process.cwd(), "build", "debian");
  const apt = await privateApt({ arch }, folder, options);
  await updateIndex(apt);
  const large = { maxBuffer: 64 * 1024 * 1024, timeout: archiveTimeoutMs };
  const install = [...apt, "install", "-y", "--no-install-recommends", "--print-uris", ...names];
  const { stdout } = await run("apt-get", install, large);
  const wanted = [...stdout.matchAll(/^'[^']+' (\S+)_(\S+)_(\w+)\.deb /gm)].map((m) => ({
    name: m[1]!,
    version: decodeURIComponent(m[2]!),
    arch: m[3] as DebianPackage["arch"],
  }));
  // --print-uris names no SHA-256; the signed index does.
  const shown = await run("apt-cache", [...apt, "show", ...wanted.map((p) => `${p.name}=${p.version}`)], large);
  const hashes = new Map<string, string>();
  for (const paragraph of shown.stdout.split("\n\n")) {
    const field = (key: string) => new RegExp(`^${key}: (.*)$`, "m").exec(paragraph)?.[1];
    hashes.set(`${field("Package")}=${field("Version")}`, field("SHA256") ?? "");
  }
  return wanted
    .map((p) => {
      const sha256 = hashes.get(`${p.name}=${p.version}`);
      if (!sha256) throw new Error(`no SHA-256 for ${p.name} ${p.version} (${p.arch}) in the index`);
      return { ...p, sha256 };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Fetches what is not in the pool yet, in one run of apt, and checks every hash. Returns the .deb files in order. */
export async function fetchDebianPackages(
  wanted: readonly DebianPackage[],
  arch: Exclude<DebianPackage["arch"], "all">,
  options: DebianOptions = {},
): Promise<string[]> {
  const folder = options.folder ?? join(process.cwd(), "build", "debian");
  const pool = join(folder, "pool");
  await fs.mkdir(pool, { recursive: true });
  const files = wanted.map((p) => join(pool, fileNameOf(p)));
  const hashes = await Promise.all(files.map(hashOf));
  const missing = wanted.filter((p, i) => hashes[i] !== p.sha256);
  if (missing.length === 0) return files;
  const apt = await privateApt({ arch }, folder, options);
  const workFolder = await fs.mkdtemp(join(pool, "fetch-"));
  try {
    const specs = missing.map((p) => `${p.name}=${p.version}`);
    const download = (list: readonly string[]) =>
      run("apt-get", [...apt, "download", ...list], { cwd: workFolder, timeout: archiveTimeoutMs });
    await download(specs).catch(async () => {
      await updateIndex(apt);
      await download(specs).catch(async (error: unknown) => {
        const known = await Promise.all(specs.map((spec) => isInIndex(apt, spec)));
        const gone = missing.filter((_, i) => !known[i]);
        throw gone.length > 0 ? new PackageGoneError(gone) : error;
      });
    });
    for (const p of missing) {
      const path = join(workFolder, `${p.name}_${p.version.replaceAll(":", "%3a")}_${p.arch}.deb`);
      const hash = await hashOf(path);
      if (hash !== p.sha256) throw new Error(`${p.name} ${p.version}: SHA-256 is ${hash}, pinned is ${p.sha256}`);
      await fs.rename(path, join(pool, fileNameOf(p)));
    }
  } finally {
    await fs.rm(workFolder, { recursive: true, force: true });
  }
  return files;
}

/**
 * A mirror in the middle of a sync serves an area whose hash is wrong. The suite itself is enough to go on, but the user
 * must know that updates may be missing.
 */
async function updateIndex(apt: readonly string[]): Promise<void> {
  // Without a network apt only warns, and ends as if all were well.
  const { stderr, error } = await run("apt-get", [...apt, "update"], { timeout: archiveTimeoutMs }).then(
    (result) => ({ stderr: result.stderr, error: undefined }),
    (e: Error & { stderr?: string }) => ({ stderr: e.stderr ?? "", error: e }),
  );
  const failed = [...new Set([...stderr.matchAll(/^[EW]: Failed to fetch (\S+)/gm)].map((m) => m[1]!))];
  if (failed.some((url) => url.includes(`/dists/${versions.debianSuite}/`)) || (error && failed.length === 0)) {
    const why = stderr.trim().split("\n")[0] || String(error);
    throw new MirrorError(`the Debian mirror cannot be read: ${why}; MOTE_DEBIAN_MIRROR names another`, {
      cause: error,
    });
  }
  if (failed.length > 0) console.warn(`warning: going on without ${failed.join(", ")}: apt could not use what it got`);
}

async function isInIndex(apt: readonly string[], spec: string): Promise<boolean> {
  return run("apt-cache", [...apt, "show", spec]).then(
    ({ stdout }) => stdout.includes("SHA256:"),
    () => false,
  );
}
