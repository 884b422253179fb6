// `npm run test:qemu [-- --arch ARCH] [--flow NAME] [--short] [--no-build] [--fast]`: every way an image starts, one after
// the other, each end to end; --short leaves out the restart. Consoles stay in build/qemu/.
import { parseArgs } from "node:util";
import { buildCommand } from "#scripts/qemu/device.ts";
import { testFlow } from "#scripts/qemu/flow-test.ts";
import { flows } from "#scripts/qemu/machines.ts";
import { ensureTools } from "#scripts/qemu/tools.ts";
import { run } from "#scripts/run-command.ts";
import { main, seconds, UserError } from "#scripts/stages.ts";

await main(async () => {
  const { values } = parseArgs({
    options: {
      arch: { type: "string" },
      flow: { type: "string" },
      "no-build": { type: "boolean" },
      fast: { type: "boolean" },
      short: { type: "boolean" },
    },
  });
  const wanted = flows.filter(
    (flow) => (!values.arch || flow.arch === values.arch) && (!values.flow || flow.name === values.flow),
  );
  if (wanted.length === 0) {
    throw new UserError(`no such flow; --flow is one of ${flows.map((flow) => flow.name).join(", ")}`);
  }
  const startedMs = performance.now();
  console.log(`host tools: ${await ensureTools(wanted)}`);
  if (!values["no-build"]) {
    for (const command of new Set(
      wanted.map((flow) => buildCommand(flow, ...(values.fast ? ["--fast"] : [])).join(" ")),
    )) {
      const [program, ...args] = command.split(" ");
      await run(program!, args, { output: "show" });
    }
  }
  const all = { passed: 0, failed: 0, skipped: 0 };
  for (const flow of wanted) {
    const counts = await testFlow(flow, { isShort: values.short === true });
    all.passed += counts.passed;
    all.failed += counts.failed;
    all.skipped += counts.skipped;
  }
  console.log(`\n${seconds(performance.now() - startedMs)} in all; consoles in build/qemu/`);
  console.log(`${all.passed} passed, ${all.failed} failed, ${all.skipped} skipped`);
  if (all.failed > 0 || all.passed === 0) process.exitCode = 1;
});
