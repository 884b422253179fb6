// Bundles src/entry into JavaScript files with everything in them: nothing reads node_modules at run time. mote.mjs is the
// command; what a subcommand needs beyond it lies in mote-*.mjs, shared where two need the same, and is loaded when it runs: code
// that a process does not load takes no memory. Names of these files carry a hash of what is in them, so that a mote that runs
// while another is built does not load half of each.
import { chmodSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { type BuildOptions, build, type Metafile, type Plugin } from "esbuild";
import { versions } from "#build.config.ts";
import { run } from "#scripts/run-command.ts";

export const distFolder = "build/dist";

/**
 * Flags measured in docs/architecture.md: small semi-space and size over speed cost no measurable time and save 20 MB
 * after churn. The old-space limit is a fuse, not a target.
 */
const nodeFlags = "--optimize-for-size --max-semi-space-size=1 --max-old-space-size=1024 --no-warnings";
/**
 * `mote kine` serves a store to others: hundreds of requests are under way at once, and a young generation of 1 MiB would be
 * collected while most of them live (docs/datastore.md).
 */
const kineFlags = "--max-semi-space-size=4 --max-old-space-size=1024 --no-warnings";
/**
 * Else glibc takes what was once large for usual, and keeps what compiling has freed: of a server at rest 41 to 56 MiB of its own
 * memory instead of 37 to 45. A lower limit for mappings (32 KiB, V8's pieces) saves as much again, but lists of 10,000 take a
 * quarter longer and a change to 10,000 watches thrice the time.
 */
const nodeMemory = "MALLOC_TRIM_THRESHOLD_=131072";
/** Of V8's threads each would keep an arena of its own, with what compiling WASM has once taken. */
const kineMemory = "MALLOC_ARENA_MAX=1";
/** mote evaluates no text and loads no machine code; then nobody else shall do so in its process. */
const strictFlags = "--disallow-code-generation-from-strings --no-addons";
/**
 * Of a name's addresses each but the last has so long (milliseconds) to answer before the next is tried. Node's 250 are
 * less than one way over a satellite takes: where the last address is dead, none would ever be reached.
 */
const networkFlags = "--network-family-autoselection-attempt-timeout=2000";
/** What makes Node run other code first, or write where it was not told to. */
const nodeVariables = "NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE NODE_V8_COVERAGE NODE_REDIRECT_WARNINGS";

/** The command on a device: its own Node, whatever the environment says. */
export const applianceLauncher = `#!/bin/sh
# Starts mote on its own Node.js, with nothing of the environment that Node would take orders from.
unset ${nodeVariables}
export ${nodeMemory}
exec /usr/lib/mote/node ${nodeFlags} ${strictFlags} ${networkFlags} /usr/lib/mote/mote.mjs "$@"
`;

const requireBuiltin = createRequire(import.meta.url);

/**
 * Takes Node's own modules by require(). An import would have Node read every export of each, and some of those are
 * made when they are read: all root certificates, half of the streams. That is a twentieth of a server's start.
 */
const builtinsByRequire: Plugin = {
  name: "builtins-by-require",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path, namespace }) =>
      namespace === "builtin" ? { path, external: true } : { path, namespace: "builtin" },
    );
    onLoad({ filter: /.*/, namespace: "builtin" }, ({ path }) => {
      const names = Object.getOwnPropertyNames(requireBuiltin(path)).filter((name) => /^[a-zA-Z]\w*$/.test(name));
      const lines = names
        .filter((name) => name !== "default")
        .map(
          (name) => `const the_${name} = /* @__PURE__ */ (() => all.${name})();\nexport { the_${name} as ${name} };`,
        );
      return {
        contents: [`const all = require(${JSON.stringify(path)});`, "export default all;", ...lines].join("\n"),
      };
    });
  },
};

function bundleOptions(commit: string): BuildOptions {
  return {
    outdir: distFolder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    minify: true,
    keepNames: false,
    platform: "node",
    format: "esm",
    target: "node20",
    legalComments: "linked",
    logLevel: "error",
    plugins: [builtinsByRequire],
    // CommonJS dependencies call require() for Node's own modules.
    banner: { js: 'import{createRequire as __cr}from"node:module";const require=__cr(import.meta.url);' },
    define: { MOTE_VERSION: JSON.stringify(versions.mote), MOTE_COMMIT: JSON.stringify(commit) },
  };
}

const moteOptions: BuildOptions = {
  entryPoints: { mote: "src/entry/mote.ts" },
  splitting: true,
  chunkNames: "mote-[name]-[hash]",
};

/** By subcommand, the module that it is loaded by. */
export const loadedBy = {
  server: "src/entry/server.ts",
  agent: "src/entry/agent.ts",
  token: "src/entry/client-commands.ts",
} as const;

/** What a process has loaded that runs a subcommand: bytes of code, and the modules that they come from. */
export interface Loaded {
  readonly bytes: number;
  readonly files: readonly string[];
  readonly modules: readonly string[];
}

/** `entries`: modules that a file of the bundle is made for; with all that they import at once. */
export function loadedWith(metafile: Metafile, entries: readonly string[]): Loaded {
  const { outputs } = metafile;
  const files = new Set<string>();
  const add = (path: string) => {
    const output = outputs[path];
    if (!output || files.has(path)) return;
    files.add(path);
    for (const one of output.imports) if (one.kind === "import-statement") add(one.path);
  };
  for (const entry of entries) {
    const found = Object.keys(outputs).find((path) => outputs[path]!.entryPoint === entry);
    if (found === undefined) throw new Error(`no file of the bundle is made for ${entry}`);
    add(found);
  }
  const all = [...files].map((path) => outputs[path]!);
  const modules = all.flatMap(({ inputs }) => Object.keys(inputs).filter((path) => inputs[path]!.bytesInOutput > 0));
  return { bytes: all.reduce((sum, { bytes }) => sum + bytes, 0), files: [...files], modules: modules.sort() };
}

/** The bundle of mote without writing it, for whoever wants to know what is in it. */
export async function analyseBundle(): Promise<Metafile> {
  const { metafile } = await build({ ...bundleOptions(""), ...moteOptions, metafile: true, write: false });
  return metafile;
}

export async function buildBundle(): Promise<string> {
  mkdirSync(distFolder, { recursive: true });
  const said = await run("git", ["rev-parse", "--short=12", "HEAD"], { ok: [0, 128] });
  const options = bundleOptions(said.code === 0 ? said.output.trim() : "unknown");
  const { metafile } = await build({ ...options, ...moteOptions, metafile: true });
  // A program of its own, and smaller than what it would share: it answers more for each MiB than any other part.
  await build({ ...options, entryPoints: { kine: "src/entry/kine-program.ts" } });
  removeOthers(Object.keys(metafile.outputs));
  writeFileSync(
    `${distFolder}/mote`,
    `#!/bin/sh
# Starts mote; MOTE_NODE names another Node.js 20.
here=$(dirname "$(readlink -f "$0")")
if [ "\${1:-}" = kine ]; then
  export ${kineMemory}
  exec "\${MOTE_NODE:-node}" ${kineFlags} ${strictFlags} "$here/kine.mjs" "$@"
fi
export ${nodeMemory}
exec "\${MOTE_NODE:-node}" ${nodeFlags} ${strictFlags} ${networkFlags} "$here/mote.mjs" "$@"
`,
  );
  chmodSync(`${distFolder}/mote`, 0o755);
  const kib = (entries: readonly string[]) =>
    `${(loadedWith(metafile, ["src/entry/mote.ts", ...entries]).bytes / 1024).toFixed(0)} KiB`;
  return Object.entries(loadedBy)
    .map(([name, entry]) => `${name} ${kib([entry])}`)
    .join(", ");
}

/** Of earlier builds. Last, so that a mote that starts meanwhile finds what it was built with. */
function removeOthers(outputs: readonly string[]): void {
  const current = new Set(outputs.map((path) => basename(path)));
  for (const name of readdirSync(distFolder)) {
    if (/^mote(-.*)?\.mjs(\.LEGAL\.txt)?$/.test(name) && !current.has(name)) rmSync(join(distFolder, name));
  }
}
