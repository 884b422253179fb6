// `npm test`: the whole gate in stages, each with its time. `--only NAME` runs the stages whose name contains NAME,
// `--skip NAME` leaves some out (and says so). Ends with what failed, by name and reason, as logs are read from their end,
// and one line that counts what passed, failed and was skipped.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { parseArgs } from "node:util";
import { hostPackages, testPackages } from "#build.config.ts";
import { buildStages } from "#scripts/build/build.ts";
import { checkStages } from "#scripts/check/check.ts";
import { installHostPackages } from "#scripts/dev/host.ts";
import { buildCommand } from "#scripts/qemu/device.ts";
import { testFlow } from "#scripts/qemu/flow-test.ts";
import { findFlow } from "#scripts/qemu/machines.ts";
import { ensureTools } from "#scripts/qemu/tools.ts";
import { run } from "#scripts/run-command.ts";
import { main, type Stage, seconds, UserError } from "#scripts/stages.ts";

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}
const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
const isRoot = process.getuid?.() === 0;

/** What failed, each with the first lines of why; said again at the end. */
const failures: string[] = [];
const maxReasonLines = 12;

/** The part of vitest's JSON report that is read here. */
interface Report {
  readonly numTotalTests?: number;
  readonly numPassedTests?: number;
  readonly numFailedTests?: number;
  readonly numPendingTests?: number;
  readonly numTodoTests?: number;
  readonly testResults?: readonly {
    readonly name: string;
    readonly status: string;
    readonly message?: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages?: readonly string[];
    }[];
  }[];
}

function note(where: string, reason: string): void {
  const lines = reason.split("\n").filter((line) => !line.includes("/node_modules/"));
  failures.push([where, ...lines.slice(0, maxReasonLines)].join("\n      "));
}

/** Failed tests by name, and files that failed outside of any test (an import, a hook). */
function noteFailures(report: Report): void {
  for (const file of report.testResults ?? []) {
    const path = relative(process.cwd(), file.name);
    const failed = file.assertionResults.filter((t) => t.status === "failed");
    for (const test of failed) note(`${path} > ${test.fullName}`, (test.failureMessages ?? []).join("\n"));
    if (file.status === "failed" && failed.length === 0) note(path, file.message ?? "");
  }
}

/** Runs vitest over one part and adds its numbers; failures are shown, and counted rather than thrown. */
async function vitest(args: readonly string[]): Promise<string> {
  const report = `build/test/${args.join("_").replaceAll(/[^\w]+/g, "_") || "unit"}.json`;
  const code = await new Promise<number>((resolve, reject) => {
    const child = spawn(
      "npx",
      ["vitest", "run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`, ...args],
      {
        stdio: "inherit",
      },
    );
    child.on("error", reject);
    child.on("close", (status) => resolve(status ?? 1));
  });
  const result = JSON.parse(readFileSync(report, "utf8")) as Report;
  counts.passed += result.numPassedTests ?? 0;
  counts.skipped += (result.numPendingTests ?? 0) + (result.numTodoTests ?? 0);
  const failed = Math.max(result.numFailedTests ?? 0, code === 0 ? 0 : 1);
  counts.failed += failed;
  const noted = failures.length;
  noteFailures(result);
  if (failed > 0 && failures.length === noted)
    note(`vitest ${args.join(" ")}`, "ended with an error outside of tests; see above");
  if ((result.numTotalTests ?? 0) === 0) throw new UserError("vitest ran no test");
  return `${result.numPassedTests} passed, ${failed} failed`;
}

const stages: readonly Stage[] = [
  {
    name: "packages",
    run: async () =>
      isRoot
        ? installHostPackages([...hostPackages, ...testPackages])
        : "not root: real pods and networks will be skipped",
  },
  ...buildStages.map((s) => ({ ...s, name: `build: ${s.name}` })),
  ...checkStages.map((s) => ({
    name: `check: ${s.name}`,
    run: async () => {
      const said = await s.run();
      counts.passed++;
      return said ?? undefined;
    },
  })),
  {
    name: "check: generated files are current",
    run: async () => {
      await run("node", ["scripts/run.mjs", "scripts/gen/gen.ts", "--check"]);
      counts.passed++;
    },
  },
  { name: "unit", run: () => vitest([]) },
  {
    name: "e2e: a real cluster",
    run: async () => {
      if (!isRoot) {
        counts.skipped++;
        return "skipped: needs root";
      }
      return vitest(["--config", "test/e2e/vitest.config.ts"]);
    },
  },
  { name: "image: built, and booted once in QEMU", run: imageBoots },
];

/** The x86_64 image, quickly compressed, started once: about two minutes of the gate's five where nothing else runs. */
async function imageBoots(): Promise<string> {
  const skip = (why: string) => {
    counts.skipped++;
    return `skipped: ${why}`;
  };
  const flow = findFlow({ arch: "amd64", firmware: "bios" });
  if (process.arch !== "x64") return skip(`images are built on x86_64; this machine is ${process.arch}`);
  try {
    await ensureTools([flow]);
  } catch (error) {
    return skip((error as Error).message);
  }
  await run("npm", ["run", "-s", ...buildCommand(flow, "--fast").slice(2)], { output: "show" });
  const result = await testFlow(flow, { isShort: true });
  counts.passed += result.passed;
  counts.failed += result.failed;
  counts.skipped += result.skipped;
  if (result.failed > 0) note(flow.name, `${result.failed} steps of the flow failed; see above`);
  return `${result.passed} passed, ${result.failed} failed`;
}

await main(async () => {
  const { values } = parseArgs({ options: { only: { type: "string" }, skip: { type: "string", multiple: true } } });
  const startedMs = performance.now();
  const times: string[] = [];
  for (const stage of stages) {
    if (values.only && !stage.name.includes(values.only)) continue;
    if (values.skip?.some((s) => stage.name.includes(s))) {
      console.log(`--- ${stage.name}: left out by --skip`);
      counts.skipped++;
      continue;
    }
    console.log(`--- ${stage.name}`);
    const stageMs = performance.now();
    let said: string | undefined;
    try {
      said = (await stage.run()) ?? undefined;
    } catch (error) {
      counts.failed++;
      said = `FAILED: ${(error as Error).message}`;
      console.error(said);
      note(stage.name, (error as Error).message);
    }
    times.push(
      `${seconds(performance.now() - stageMs).padStart(12)}  ${stage.name}${said ? `  (${said.split("\n")[0]})` : ""}`,
    );
    // Without a build nothing after it means anything.
    if (counts.failed > 0 && stage.name.startsWith("build")) break;
  }
  console.log(`\n${times.join("\n")}\n${seconds(performance.now() - startedMs).padStart(12)}  in all\n`);
  for (const failure of failures) console.log(`FAILED ${failure}\n`);
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  if (counts.failed > 0 || counts.passed === 0) process.exitCode = 1;
});
