// `npm run test:offline -- --boots N --seed N`: test/e2e/offline.e2e.ts with as many boots without a server as one likes, some
// of them cut short by the next power cut. A boot that does not bring all pods back ends it. As root.
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { buildStages } from "#scripts/build/build.ts";
import { main, runStages, UserError } from "#scripts/stages.ts";

await main(async () => {
  const { values } = parseArgs({
    options: { boots: { type: "string", default: "100" }, seed: { type: "string", default: "1" } },
  });
  for (const name of ["boots", "seed"] as const) {
    if (!/^[1-9]\d{0,8}$/.test(values[name])) throw new UserError(`--${name} ${values[name]}: a number above 0`);
  }
  if (process.getuid?.() !== 0) throw new UserError("containers and networks need root");
  await runStages(buildStages);
  const env = { ...process.env, MOTE_OFFLINE_BOOTS: values.boots, MOTE_OFFLINE_SEED: values.seed };
  const args = ["vitest", "run", "--config", "test/e2e/vitest.config.ts", "test/e2e/offline.e2e.ts"];
  process.exitCode = spawnSync("npx", args, { stdio: "inherit", env }).status ?? 1;
});
