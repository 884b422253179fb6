// `npm run test:qemu [-- --arch ARCH] [--flow NAME] [--short] [--no-build] [--fast]`: every way an image starts, one after
// the other, each end to end, then pairs of devices on a wire; --short leaves out restarts. Consoles stay in build/qemu/.
import { parseArgs } from "node:util";
import { buildCommand } from "#scripts/qemu/device.ts";
import { testFlow } from "#scripts/qemu/flow-test.ts";
import { flows, pairs } from "#scripts/qemu/machines.ts";
import { testPair } from "#scripts/qemu/pair-test.ts";
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
  const isWanted = (arch: string, name: string) =>
    (!values.arch || arch === values.arch) && (!values.flow || name === values.flow);
  const single = flows.filter((flow) => isWanted(flow.arch, flow.name));
  const double = pairs.filter((pair) => isWanted(pair.flow.arch, pair.name));
  const wanted = [...single, ...double.map((pair) => pair.flow)];
  if (wanted.length === 0) {
    throw new UserError(`no such flow; --flow is one of ${[...flows, ...pairs].map(({ name }) => name).join(", ")}`);
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
  const isShort = values.short === true;
  const tests = [
    ...single.map((flow) => () => testFlow(flow, { isShort })),
    ...double.map((pair) => () => testPair(pair, { isShort })),
  ];
  for (const test of tests) {
    const counts = await test();
    all.passed += counts.passed;
    all.failed += counts.failed;
    all.skipped += counts.skipped;
  }
  console.log(`\n${seconds(performance.now() - startedMs)} in all; consoles in build/qemu/`);
  console.log(`${all.passed} passed, ${all.failed} failed, ${all.skipped} skipped`);
  if (all.failed > 0 || all.passed === 0) process.exitCode = 1;
});
