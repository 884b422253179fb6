// Runs one of the project's TypeScript programs: `node scripts/run.mjs FILE.ts [ARG ...]`.
// Node 20 does not strip types, so the file is bundled by esbuild (npm packages stay outside) into build/scripts/
// and imported. Installs the npm dependencies first when they are missing or older than package-lock.json, so that
// every command of the README works straight after a clone.
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const [major, minor] = process.versions.node.split(".").map(Number);
if (major !== 20 || minor < 19) {
  console.error(`error: mote needs Node.js >= 20.19 and < 21; this is ${process.version} (${process.execPath})`);
  process.exit(1);
}

// Before npm, whose packages hold native programs; build.config.ts has the same list for the rest.
if (!["x64", "arm64", "arm"].includes(process.arch)) {
  console.error(`error: this machine is ${process.arch}; mote runs on amd64, arm64 and armhf`);
  process.exit(1);
}

try {
  accessSync(root, constants.W_OK);
  mkdirSync(join(root, "build", "scripts"), { recursive: true });
  accessSync(join(root, "build", "scripts"), constants.W_OK);
} catch (error) {
  console.error(
    `error: cannot write to ${root}/build (${error.code}); run this as the owner of the folder, or as root`,
  );
  process.exit(1);
}

const stamp = join(root, "node_modules", ".mote-lock");
const lock = readFileSync(join(root, "package-lock.json"), "utf8");
if (!existsSync(stamp) || readFileSync(stamp, "utf8") !== lock) {
  console.error("installing npm dependencies");
  // Not `npm ci`: it refuses a lock file without the packages of platforms that a partial registry mirror does not
  // hold. Exact pins and --no-save keep the result the same.
  const options = ["--no-save", "--no-audit", "--no-fund", "--loglevel=error"];
  const done = spawnSync("npm", ["install", ...options], { cwd: root, stdio: ["ignore", 2, 2] });
  if (done.status !== 0) {
    console.error("error: npm install failed: see above; is the npm registry reachable?");
    process.exit(1);
  }
  writeFileSync(stamp, lock);
}

const [file, ...args] = process.argv.slice(2);
if (!file) {
  console.error("usage: node scripts/run.mjs FILE.ts [ARG ...]");
  process.exit(2);
}
const { build } = await import("esbuild");
const outfile = join(
  root,
  "build",
  "scripts",
  `${relative(root, resolve(file)).replaceAll("/", "__").replace(/\.ts$/, "")}.mjs`,
);
// Another run of the same program at the same time must not read half a file.
const ownOutfile = `${outfile}.${process.pid}`;
await build({
  entryPoints: [resolve(file)],
  outfile: ownOutfile,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  packages: "external",
  sourcemap: "inline",
  logLevel: "error",
});
renameSync(ownOutfile, outfile);
process.argv = [process.argv[0], outfile, ...args];
await import(pathToFileURL(outfile).href);
