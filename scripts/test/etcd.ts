// `npm run test:etcd -- --operations N --seed N`: the differential test of test/etcd, as long as wanted.
// `npm run test:etcd -- --apiserver-soak --seconds N`: what an upstream API server does to its etcd, on `mote kine`.
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { main, UserError } from "#scripts/stages.ts";

await main(async () => {
  const { values } = parseArgs({
    options: {
      operations: { type: "string", default: "100000" },
      seed: { type: "string", default: "20261121" },
      "apiserver-soak": { type: "boolean", default: false },
      seconds: { type: "string", default: "240" },
    },
  });
  const numbers = { operations: values.operations, seed: values.seed, seconds: values.seconds };
  for (const [name, value] of Object.entries(numbers)) {
    if (!/^\d+$/.test(value)) throw new UserError(`--${name}: "${value}" is not a whole number`);
  }
  const isSoak = values["apiserver-soak"];
  const { status } = spawnSync(
    "npx",
    ["vitest", "run", `test/etcd/${isSoak ? "apiserver-soak" : "differential"}.test.ts`],
    {
      stdio: "inherit",
      env: {
        ...process.env,
        CI: "true",
        MOTE_ETCD_SEED: values.seed,
        ...(isSoak ? { MOTE_SOAK_SECONDS: values.seconds } : { MOTE_ETCD_OPERATIONS: values.operations }),
      },
    },
  );
  process.exitCode = status ?? 1;
});
