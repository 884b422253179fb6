// `npm run test:crash`: what `npm test` does of the datastore's faults in minutes, for as long as one likes. Images of power
// cuts, kills of the real process, damaged files, and operations under the linearizability checker.
//   --images N      power cuts (default 10000)      --rot N    damaged files (default 1000)
//   --kills N       kill -9 (default 100)           --ops N    checked operations (default 1000000)
//   --only NAME     one test file of test/crash
import { spawn } from "node:child_process";
import { parseArgs } from "node:util";
import { buildStages } from "#scripts/build/build.ts";
import { main, runStages, UserError } from "#scripts/stages.ts";

await main(async () => {
  const { values } = parseArgs({
    options: {
      images: { type: "string", default: "10000" },
      rot: { type: "string", default: "1000" },
      kills: { type: "string", default: "100" },
      ops: { type: "string", default: "1000000" },
      only: { type: "string", default: "" },
    },
  });
  for (const name of ["images", "rot", "kills", "ops"] as const) {
    if (!/^[1-9]\d*$/.test(values[name])) throw new UserError(`--${name} ${values[name]}: a number above 0`);
  }
  await runStages(buildStages);
  const env = {
    ...process.env,
    MOTE_CRASH_CUTS: values.images,
    MOTE_ROT_ROUNDS: values.rot,
    MOTE_KILL_ROUNDS: values.kills,
    MOTE_CHECK_OPS: values.ops,
  };
  const code = await new Promise<number>((resolve, reject) => {
    const child = spawn("npx", ["vitest", "run", `test/crash/${values.only}`], { stdio: "inherit", env });
    child.on("error", reject);
    child.on("close", (status) => resolve(status ?? 1));
  });
  if (code !== 0) process.exitCode = 1;
});
