// kill -9 of a real process at random moments, again and again on the same files: nothing acknowledged is lost, no
// revision is given out twice, the store always opens. What a kill cannot show (page cache survives it) power-cut does.
// MOTE_KILL_ROUNDS sets the number of rounds, MOTE_CRASH_SEED their moments.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { expect, it } from "vitest";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { systemClock } from "#platform/clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";

const rounds = Number(process.env["MOTE_KILL_ROUNDS"] ?? 20);

it(`survives ${rounds} kills`, { timeout: 60_000 + rounds * 10_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "mote-kill-"));
  // Two levels below the checkout's build folder, where the WASM files are looked for.
  const program = join(process.cwd(), "build/scripts", `kill-writer-${process.pid}.mjs`);
  mkdirSync(join(process.cwd(), "build/scripts"), { recursive: true });
  const random = seededRandom(Number(process.env["MOTE_CRASH_SEED"] ?? 9));
  try {
    await build({
      entryPoints: ["test/crash/writer.ts"],
      outfile: program,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      logLevel: "error",
    });
    const endpoint = `sqlite://${folder}/state.db`;
    let lastRevision = 0;
    let acknowledged = 0;
    for (let round = 0; round < rounds; round++) {
      const writers = 1 + (round % 12);
      // Counted in writes, which come slowly where the machine does much else; now and then none has been acknowledged yet.
      const writes = round % 4 === 3 ? 0 : 10 + Math.floor(random.float() * 8 * writers);
      const lines = await runAndKill(program, [endpoint, String(writers)], { writes, thenMs: random.float() * 25 });
      expect(lines.length).toBeGreaterThan(writes);
      const store = await openDatastore({ endpoint }, { clock: systemClock, log: silentLogger });
      try {
        store.verify();
        expect(Number(lines[0]?.split(" ")[1])).toBeGreaterThanOrEqual(lastRevision);
        const values = new Map<string, string>();
        for (const kv of (await store.range(prefixRange("/k/"))).kvs)
          values.set(kv.key, Buffer.from(kv.value).toString());
        for (const line of lines.slice(1)) {
          const [revision = 0, n = 0] = line.split(" ").map(Number);
          expect(values.get(`/k/${n}`)).toBe(`${n} `.repeat(100));
          expect(store.revision()).toBeGreaterThanOrEqual(revision);
          lastRevision = Math.max(lastRevision, revision);
          acknowledged++;
        }
      } finally {
        await store.close();
      }
    }
    // Without them nothing was put to the test.
    expect(acknowledged).toBeGreaterThan(rounds * 5);
    console.log(`${rounds} kills: 0 problems, ${acknowledged} acknowledged writes found`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
    rmSync(program, { force: true });
  }
});

/** Whole lines that the child printed before it was killed: `thenMs` after it was ready and had so many writes. */
function runAndKill(
  program: string,
  args: readonly string[],
  { writes, thenMs }: { readonly writes: number; readonly thenMs: number },
): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let lines = 0;
    let errors = "";
    let timer: NodeJS.Timeout | undefined;
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      for (const byte of chunk) if (byte === 10) lines++;
      if (lines > writes) timer ??= setTimeout(() => child.kill("SIGKILL"), thenMs);
    });
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (signal !== "SIGKILL") reject(new Error(`the writer ended by itself with ${code}: ${errors}`));
      else
        resolve(
          output
            .slice(0, output.lastIndexOf("\n") + 1)
            .split("\n")
            .slice(0, -1),
        );
    });
  });
}
