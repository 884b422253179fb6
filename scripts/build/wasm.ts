// Compiles the AssemblyScript modules and puts every WASM file where `#platform/assets.ts` looks: build/dist/engine.wasm
// (release, asserts on), tunnel.wasm and its twin with SIMD, and sqlite3.wasm; the debug twin of the engine, for tests, is
// build/wasm/engine.debug.wasm.
// Run: node scripts/run.mjs scripts/build/wasm.ts. Does nothing when the outputs are newer than all sources.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";

/** What the engine may grow to at most, in 64 KiB pages; the host, which brings the memory, declares less where it must. */
const engineMaximumPages = 16384;

const ofEngine = [
  "assembly/engine/index.ts",
  "--runtime",
  "minimal",
  "--importMemory",
  "--zeroFilledMemory",
  "--initialMemory",
  "32",
  "--maximumMemory",
  String(engineMaximumPages),
];

/** Areas of fixed size and nothing else: memory of its own that never grows. */
const ofTunnel = [
  "assembly/tunnel/index.ts",
  "--runtime",
  "stub",
  "--initialMemory",
  "4",
  "--maximumMemory",
  "4",
  "-O3",
];

interface Target {
  readonly output: string;
  readonly flags: readonly string[];
}

const targets: readonly Target[] = [
  { output: "build/dist/engine.wasm", flags: [...ofEngine, "-O3"] },
  { output: "build/wasm/engine.debug.wasm", flags: [...ofEngine, "--debug"] },
  { output: "build/dist/tunnel.wasm", flags: ofTunnel },
  { output: "build/dist/tunnel-simd.wasm", flags: [...ofTunnel, "--enable", "simd"] },
];

/** Brings all WASM files up to date; `root` is the folder of package.json. */
export function buildWasm(root = process.cwd()): void {
  const require = createRequire(join(root, "package.json"));
  mkdirSync(join(root, "build/dist"), { recursive: true });
  mkdirSync(join(root, "build/wasm"), { recursive: true });
  const newest = Math.max(
    ...sources(join(root, "assembly")).map((path) => statSync(path).mtimeMs),
    statSync(join(root, "package-lock.json")).mtimeMs,
  );
  for (const target of targets) {
    const output = join(root, target.output);
    if (existsSync(output) && statSync(output).mtimeMs > newest) continue;
    // Written beside and renamed: a test that starts meanwhile sees the old module or the new one.
    const temporary = `${output}.${process.pid}.wasm`;
    const asc = require.resolve("assemblyscript/bin/asc.js");
    const done = spawnSync(process.execPath, [asc, "-o", temporary, ...target.flags], { cwd: root, encoding: "utf8" });
    if (done.status !== 0) throw new Error(`asc failed for ${target.output}:\n${done.stdout}${done.stderr}`);
    renameSync(temporary, output);
  }
  const sqlite = join(root, "build/dist/sqlite3.wasm");
  const source = require.resolve("@sqlite.org/sqlite-wasm/sqlite3.wasm");
  if (!existsSync(sqlite) || statSync(sqlite).size !== statSync(source).size) {
    copyFileSync(source, `${sqlite}.${process.pid}`);
    renameSync(`${sqlite}.${process.pid}`, sqlite);
  }
}

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? sources(join(folder, entry.name)) : [join(folder, entry.name)],
  );
}

if (basename(process.argv[1] ?? "").startsWith("scripts__build__wasm")) {
  buildWasm();
  for (const name of ["engine.wasm", "tunnel.wasm", "tunnel-simd.wasm", "sqlite3.wasm"]) {
    console.log(`build/dist/${name}  ${statSync(join("build/dist", name)).size} bytes`);
  }
}
