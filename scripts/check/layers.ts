// Holds the imports of src/ against the layers of docs/architecture.md:
//   base <- wire <- { model, platform } <- { datastore, client } <- { parts } <- entry
// plus: the first level of a folder is public, deeper is private; machine access only in platform; base, wire, model and
// every plan.ts are pure. `checkLayers` is a function of (path, text) pairs so that a planted violation can prove it bites.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

export interface SourceFile {
  /** Relative to the repository, e.g. src/model/status.ts. */
  readonly path: string;
  readonly text: string;
}

const parts = ["apiserver", "scheduler", "controllers", "node", "network", "addons", "supervisor", "appliance", "cli"];
const ranks: Readonly<Record<string, number>> = {
  base: 0,
  wire: 1,
  model: 2,
  platform: 2,
  datastore: 3,
  client: 3,
  ...Object.fromEntries(parts.map((p) => [p, 4])),
  entry: 5,
};
const openFolders = new Set(["base", "wire", "model", "platform"]);
/** All other state goes through the API, as in Kubernetes. */
const datastoreUsers = new Set(["apiserver", "supervisor", "entry"]);
const machineModules =
  /^node:(fs|fs\/promises|net|tls|http|https|http2|child_process|dgram|timers|timers\/promises|os|worker_threads|dns|readline)$/;
const pureModules = /^node:(crypto|fs|net|os|process|perf_hooks)/;

export function checkLayers(files: readonly SourceFile[]): { problems: string[]; importCount: number } {
  const problems: string[] = [];
  let importCount = 0;
  for (const file of files) {
    if (!file.path.startsWith("src/") || !file.path.endsWith(".ts")) continue;
    // A fixture is what several tests beside it share; nothing else imports it.
    const isTest = /\.(test|fixture)\.ts$/.test(file.path);
    const folder = file.path.split("/")[1]!;
    const rank = ranks[folder];
    if (rank === undefined) {
      problems.push(`${file.path}: folder src/${folder} is in no layer`);
      continue;
    }
    for (const specifier of importsOf(file.text)) {
      importCount++;
      const say = (why: string) => problems.push(`${file.path}: imports ${specifier}: ${why}`);
      if (specifier.startsWith("node:")) {
        if (isTest) continue;
        if (machineModules.test(specifier) && folder !== "platform") say("only src/platform touches the machine");
        if (isPure(file.path) && pureModules.test(specifier)) say("this file must stay pure");
        continue;
      }
      let target: string;
      if (specifier.startsWith("#")) {
        target = `src/${specifier.slice(1)}`;
        if (specifier.startsWith("#scripts/") || specifier.startsWith("#build.config")) {
          say("the product does not depend on its build");
          continue;
        }
        if (specifier.startsWith("#test/")) {
          if (!isTest) say("only tests import test/");
          continue;
        }
        if (target.split("/")[1] === folder) say("inside a folder import with a relative path");
      } else if (specifier.startsWith(".")) {
        target = normalize(join(dirname(file.path), specifier));
      } else continue; // an npm package: knip holds these against package.json
      if (!target.startsWith("src/")) {
        if (!isTest) say("leaves src/");
        continue;
      }
      const segments = target.split("/");
      const other = segments[1]!;
      if (other === folder) continue;
      if (specifier.startsWith(".")) say("across folders import with #folder/file.ts");
      const otherRank = ranks[other];
      if (otherRank === undefined) say(`src/${other} is in no layer`);
      else if (otherRank >= rank && !isTest) say(`${folder} may not import ${other} (same or higher layer)`);
      if (!openFolders.has(other) && segments.length > 3 && !isTest) say(`deeper than src/${other}/ is private`);
      if (other === "datastore" && !datastoreUsers.has(folder) && !isTest)
        say("only apiserver, supervisor and entry use the datastore");
    }
  }
  return { problems, importCount };
}

function isPure(path: string): boolean {
  return /^src\/(base|model)\//.test(path) || path.endsWith("/plan.ts") || path === "src/scheduler/schedule.ts";
}

/** Specifiers of static, side-effect and dynamic imports and re-exports. */
export function importsOf(text: string): string[] {
  const found: string[] = [];
  const pattern =
    /(?:^|[\s;])(?:import|export)\s[^;"'`]*?from\s*["']([^"']+)["']|(?:^|[\s;])import\s*["']([^"']+)["']|import\(\s*["']([^"']+)["']\s*\)/g;
  for (const match of text.matchAll(pattern)) found.push((match[1] ?? match[2] ?? match[3])!);
  return found;
}

export function readSources(root: string, folders: readonly string[]): SourceFile[] {
  const out: SourceFile[] = [];
  const walk = (folder: string) => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory()) walk(path);
      else if (entry.name.endsWith(".ts")) out.push({ path, text: readFileSync(join(root, path), "utf8") });
    }
  };
  for (const folder of folders) walk(folder);
  return out;
}
