// `npm run test:etcd -- --operations N --seed N`: the differential test of test/etcd, as long as wanted.
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { main, UserError } from "#scripts/stages.ts";

await main(async () => {
  const { values } = parseArgs({
    options: { operations: { type: "string", default: "100000" }, seed: { type: "string", default: "20261121" } },
  });
  for (const [name, value] of Object.entries(values)) {
    if (!/^\d+$/.test(value)) throw new UserError(`--${name}: "${value}" is not a whole number`);
  }
  const { status } = spawnSync("npx", ["vitest", "run", "test/etcd/differential.test.ts"], {
    stdio: "inherit",
    env: { ...process.env, CI: "true", MOTE_ETCD_OPERATIONS: values.operations, MOTE_ETCD_SEED: values.seed },
  });
  process.exitCode = status ?? 1;
});
