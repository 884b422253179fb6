// Bundles src/entry into one JavaScript file with everything in it: nothing reads node_modules at run time.
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { build, type Plugin } from "esbuild";
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
/** mote is one file that evaluates no text and loads no machine code; then nobody else shall do so in its process. */
const strictFlags = "--disallow-code-generation-from-strings --no-addons";
/** What makes Node run other code first, or write where it was not told to. */
const nodeVariables = "NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE NODE_V8_COVERAGE NODE_REDIRECT_WARNINGS";

/** The command on a device: its own Node, whatever the environment says. */
export const applianceLauncher = `#!/bin/sh
# Starts mote on its own Node.js, with nothing of the environment that Node would take orders from.
unset ${nodeVariables}
export ${nodeMemory}
exec /usr/lib/mote/node ${nodeFlags} ${strictFlags} /usr/lib/mote/mote.mjs "$@"
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

export async function buildBundle(): Promise<string> {
  mkdirSync(distFolder, { recursive: true });
  const commit = await run("git", ["rev-parse", "--short=12", "HEAD"], { ok: [0, 128] });
  const result = await build({
    entryPoints: { mote: "src/entry/mote.ts", kine: "src/entry/kine-program.ts" },
    outdir: distFolder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    minify: true,
    keepNames: false,
    platform: "node",
    format: "esm",
    target: "node20",
    legalComments: "linked",
    metafile: true,
    logLevel: "error",
    plugins: [builtinsByRequire],
    // CommonJS dependencies call require() for Node's own modules.
    banner: { js: 'import{createRequire as __cr}from"node:module";const require=__cr(import.meta.url);' },
    define: {
      MOTE_VERSION: JSON.stringify(versions.mote),
      MOTE_COMMIT: JSON.stringify(commit.code === 0 ? commit.output.trim() : "unknown"),
    },
  });
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
exec "\${MOTE_NODE:-node}" ${nodeFlags} ${strictFlags} "$here/mote.mjs" "$@"
`,
  );
  chmodSync(`${distFolder}/mote`, 0o755);
  const bytes = Object.values(result.metafile.outputs).reduce((sum, o) => sum + o.bytes, 0);
  return `${(bytes / 1024).toFixed(0)} KiB`;
}
