// Processes are found by their command line, and ended with all that they started.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { findProcesses, isRunning, killTree, startDaemon } from "./daemons.ts";

/** Vitest's own second is too little for processes of a busy machine. */
const patience = { timeout: 30_000 };

test("a daemon has what the environment says for it alone, what it says for all, and else its defaults", async () => {
  const folder = mkdtempSync(join(tmpdir(), "mote-daemon-"));
  const log = join(folder, "log");
  Object.assign(process.env, { MOTE_DAEMON_TEST: "given", MOTE_DAEMON_OWN: "given", MINE_MOTE_DAEMON_OWN: "own" });
  try {
    const defaults = { MOTE_DAEMON_TEST: "default", MOTE_DAEMON_OTHER: "default" };
    const script = 'echo "$MOTE_DAEMON_TEST $MOTE_DAEMON_OTHER $MOTE_DAEMON_OWN"';
    await startDaemon("/bin/sh", ["-c", script], log, { defaults, ownPrefix: "MINE_" });
    await vi.waitFor(() => expect(readFileSync(log, "utf8")).toBe("given default own\n"), patience);
  } finally {
    for (const name of ["MOTE_DAEMON_TEST", "MOTE_DAEMON_OWN", "MINE_MOTE_DAEMON_OWN"]) delete process.env[name];
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a daemon is found without a record, and its tree is ended", async () => {
  const mark = `mote-daemon-${process.pid}`;
  const script = "sleep 300 & sleep 301; true";
  const pid = await startDaemon("/bin/sh", ["-c", script, mark], join(tmpdir(), `${mark}.log`));
  const command = ["/bin/sh", "-c", script, mark].join("\0");
  const found = await findProcesses(({ args }) => args.join("\0") === command);
  expect(found).toContainEqual({ pid, parentPid: process.pid, args: ["/bin/sh", "-c", script, mark] });
  const children = () => findProcesses(({ parentPid }) => parentPid === pid);
  await vi.waitFor(async () => expect(await children()).toHaveLength(2), patience);
  const below = await children();
  await killTree(pid);
  await vi.waitFor(async () => {
    expect(await isRunning(pid, "/bin/sh")).toBe(false);
    for (const child of below) expect(await isRunning(child.pid, "sleep")).toBe(false);
  }, patience);
});
