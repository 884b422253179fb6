// `npm run test:tunnel`: what `npm test` does of cut tunnels in seconds, for as long as one likes. Streams of all kinds over real
// sockets and TLS, cut at random, also while they are being resumed; every byte must come once.
//   --seeds N    runs (default 50)          --seed N    the first of them
import { spawn } from "node:child_process";
import { parseArgs } from "node:util";
import { buildStages } from "#scripts/build/build.ts";
import { main, runStages, UserError } from "#scripts/stages.ts";

await main(async () => {
  const { values } = parseArgs({
    options: { seeds: { type: "string", default: "50" }, seed: { type: "string", default: "1" } },
  });
  for (const name of ["seeds", "seed"] as const) {
    if (!/^[1-9]\d{0,8}$/.test(values[name])) throw new UserError(`--${name} ${values[name]}: a number above 0`);
  }
  await runStages(buildStages);
  const env = { ...process.env, MOTE_TUNNEL_SEEDS: values.seeds, MOTE_TUNNEL_SEED: values.seed };
  const code = await new Promise<number>((resolve, reject) => {
    const args = ["vitest", "run", "src/supervisor/tunnel/cuts.test.ts"];
    const child = spawn("npx", args, { stdio: "inherit", env });
    child.on("error", reject);
    child.on("close", (status) => resolve(status ?? 1));
  });
  if (code !== 0) process.exitCode = 1;
});
