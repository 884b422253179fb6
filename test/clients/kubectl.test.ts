// kubectl against mote: every command line of transcripts/ and what it says, byte for byte but for ages and the like.
// The answers were recorded here and read against what upstream says; a change in one is a change that users see.
//
//   MOTE_RECORD=1 npx vitest run test/clients/kubectl.test.ts     writes them anew
//   MOTE_KUBECTL=PATH …                                           with another kubectl than the pinned one
//
// Skipped where kubectl cannot be had, except in CI.
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "#platform/clock.ts";
import { pinnedKubectl } from "#scripts/dev/kubectl.ts";
import { ClientCluster } from "./cluster.ts";
import { answerOf, parseTranscript, printTranscript, type Said, type Step } from "./transcript.ts";

const kubectl =
  process.env["MOTE_KUBECTL"] ??
  (await pinnedKubectl().catch((error: unknown) => {
    if (process.env["CI"] === "true") throw error;
    return undefined;
  }));
const isRecording = process.env["MOTE_RECORD"] === "1";
const transcripts = join(import.meta.dirname, "transcripts");
/** How long an answer may take to come true. */
const patienceMs = 15_000;

let cluster: ClientCluster;
const known = new Map<string, string>();
beforeAll(async () => {
  if (kubectl === undefined) return;
  cluster = await ClientCluster.start();
  known.set(new URL(cluster.url).port, "<port>");
  known.set(`default-scheduler, ${hostname()}`, "default-scheduler, <host>");
});
afterAll(() => cluster?.close());

interface Place {
  readonly kubeconfig: string;
  readonly folder: string;
}

function run(command: string, { kubeconfig, folder }: Place): Promise<Said> {
  const env = {
    ...{ HOME: folder, KUBECONFIG: kubeconfig, SERVER: cluster.url, TZ: "UTC", LANG: "C.UTF-8", TERM: "dumb" },
    PATH: `${folder}/.bin:${process.env["PATH"]}`,
  };
  return new Promise((resolve, reject) => {
    const child = spawn("sh", ["-c", command], {
      cwd: folder,
      env,
      stdio: ["ignore", "pipe", "pipe"],
      timeout: 30_000,
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ stdout, stderr, code: code ?? 137 }));
  });
}

/** The answer; of a patient step the expected one as soon as it comes, while recording the one that stays. */
async function answer(step: Step, place: Place): Promise<string> {
  let last = answerOf(await run(step.command, place), known);
  if (!step.isPatient) return last;
  const endMs = systemClock.monotonicMs() + patienceMs;
  for (let same = 0; systemClock.monotonicMs() < endMs; ) {
    if (isRecording ? same > 3 : last === step.answer) break;
    await systemClock.sleep(isRecording ? 700 : 150);
    const now = answerOf(await run(step.command, place), known);
    same = now === last ? same + 1 : 0;
    last = now;
  }
  return last;
}

describe.skipIf(kubectl === undefined)("kubectl", () => {
  test.concurrent.each(readdirSync(transcripts))("%s", { timeout: 120_000 }, async (file) => {
    const path = join(transcripts, file);
    const place = await cluster.namespace(file.replace(/\.txt$/, ""));
    await run(`mkdir .bin && ln -s '${kubectl}' .bin/kubectl`, place);
    const steps = parseTranscript(readFileSync(path, "utf8"));
    const heard: Step[] = [];
    for (const step of steps) heard.push({ ...step, answer: await answer(step, place) });
    if (isRecording) writeFileSync(path, printTranscript(heard));
    else expect(printTranscript(heard)).toBe(printTranscript(steps));
  });
});
