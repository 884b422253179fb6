// `npm run check`: everything that can be said about the code without running it. `--only NAME` runs one part.
import { parseArgs } from "node:util";
import { run } from "#scripts/run-command.ts";
import { main, runStages, type Stage, seconds, UserError } from "#scripts/stages.ts";
import { checkLayers, readSources } from "./layers.ts";
import { checkTidy } from "./tidy.ts";

const root = process.cwd();

function fail(problems: readonly string[]): void {
  if (problems.length > 0)
    throw new UserError(`${problems.length} problem(s):\n  ${problems.slice(0, 40).join("\n  ")}`);
}

export const checkStages: readonly Stage[] = [
  { name: "types (tsc)", run: async () => void (await run("npx", ["tsc", "-p", "."], { output: "keep" })) },
  {
    name: "format and lint (biome)",
    run: async () => void (await run("npx", ["biome", "ci", "--error-on-warnings", "."])),
  },
  {
    name: "promises (oxlint, type-aware)",
    run: async () => void (await run("npx", ["oxlint", "--type-aware", "--quiet", "src", "scripts", "test"])),
  },
  {
    name: "layers",
    run: async () => {
      const { problems, importCount } = checkLayers(readSources(root, ["src"]));
      // A check that saw nothing has not passed.
      if (importCount < 100) throw new UserError(`the layer check saw only ${importCount} imports`);
      fail(problems);
      return `${importCount} imports`;
    },
  },
  { name: "tidy", run: async () => fail(checkTidy(readSources(root, ["src"]))) },
  { name: "dead code (knip)", run: async () => void (await run("npx", ["knip", "--no-progress"])) },
];

if (process.argv[1]?.includes("scripts__check__check")) {
  await main(async () => {
    const { values } = parseArgs({ options: { only: { type: "string" } } });
    const stages = checkStages.filter((s) => !values.only || s.name.includes(values.only));
    console.log(`check passed in ${seconds(await runStages(stages))}`);
  });
}
