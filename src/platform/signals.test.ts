import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { build } from "esbuild";
import { afterEach, describe, expect, it } from "vitest";

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

/** What Node says after SIGUSR1 and the exit code after SIGTERM, with `code` run first. */
async function signalled(code: string): Promise<{ said: string; code: number | null }> {
  const bundle = await build({
    stdin: { contents: `import * as signals from "./src/platform/signals.ts"; ${code}`, resolveDir: process.cwd() },
    bundle: true,
    platform: "node",
    format: "esm",
    write: false,
  });
  const program = `${bundle.outputFiles[0]!.text}; setInterval(() => {}, 1000); console.error("ready");`;
  const child = spawn(process.execPath, ["--inspect-port=0", "--input-type=module", "-e", program], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  children.push(child);
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  const until = async (word: string, limitMs: number) => {
    for (let ms = 0; ms < limitMs && !said.includes(word); ms += 20) await sleep(20);
  };
  await until("ready", 10_000);
  child.kill("SIGUSR1");
  await until("listening", 700);
  const ended = new Promise<number | null>((resolve) => child.on("close", (status) => resolve(status)));
  child.kill("SIGTERM");
  return { said, code: await ended };
}

describe("signals", () => {
  it("opens no debugger once it is refused", async () => {
    const { said } = await signalled("signals.refuseDebugger();");
    expect(said).toBe("ready\n");
  });

  it("would open one otherwise (control)", async () => {
    const { said } = await signalled("");
    expect(said).toContain("Debugger listening on");
  });

  it("stops in order when asked to", async () => {
    const { code } = await signalled("signals.stopSignal().addEventListener('abort', () => process.exit(7));");
    expect(code).toBe(7);
  });
});
