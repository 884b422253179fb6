// `npm run test:crash`: what `npm test` does of the datastore's faults in minutes, for as long as one likes. Images of power
// cuts, kills of the real process, damaged files, and operations under the linearizability checker.
//   --images N      power cuts (default 10000)      --rot N    damaged files (default 1000)
//   --kills N       kill -9 (default 100)           --ops N    checked operations (default 1000000)
//   --fuzz N        ruined files; ten times as many mutated connections (default 500)
//   --only NAME     one test file of test/crash           --seed N   another run of the same kind
//   --every-call    let each call to the file system fail once, in place of every fifth
// A found fault is repeated by its seed: keep it as a test beside the fix.
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
      fuzz: { type: "string", default: "500" },
      only: { type: "string", default: "" },
      seed: { type: "string", default: "" },
      "every-call": { type: "boolean", default: false },
    },
  });
  for (const name of ["images", "rot", "kills", "ops", "fuzz"] as const) {
    if (!/^[1-9]\d*$/.test(values[name])) throw new UserError(`--${name} ${values[name]}: a number above 0`);
  }
  if (!/^\d{0,9}$/.test(values.seed)) throw new UserError(`--seed ${values.seed}: a whole number`);
  await runStages(buildStages);
  const env = {
    ...process.env,
    MOTE_CRASH_CUTS: values.images,
    MOTE_ROT_ROUNDS: values.rot,
    MOTE_KILL_ROUNDS: values.kills,
    MOTE_CHECK_OPS: values.ops,
    MOTE_FUZZ_ROUNDS: values.fuzz,
    ...(values.seed === "" ? {} : { MOTE_CRASH_SEED: values.seed }),
    ...(values["every-call"] ? { MOTE_EVERY_CALL: "1" } : {}),
  };
  const code = await new Promise<number>((resolve, reject) => {
    const child = spawn("npx", ["vitest", "run", `test/crash/${values.only}`], { stdio: "inherit", env });
    child.on("error", reject);
    child.on("close", (status) => resolve(status ?? 1));
  });
  if (code !== 0) process.exitCode = 1;
});
