import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { expect, test } from "vitest";
import { writeAll } from "./standard-streams.ts";

/** Named, since Node.js makes none. */
const makePipe = (path: string) => execFileSync("sh", ["-c", 'mkfifo "$0"', path]);

test("a console that takes a part only gets the rest a moment later", async () => {
  const folder = mkdtempSync("/tmp/mote-streams-");
  try {
    makePipe(`${folder}/console`);
    // Slower than the writer, so that the pipe's 64 KiB are full for a while.
    const reader = spawn("sh", ["-c", 'exec <"$0/console" >"$0/out"; sleep 0.3; cat', folder]);
    const held = openSync(`${folder}/console`, constants.O_RDWR);
    const fd = openSync(`${folder}/console`, constants.O_WRONLY | constants.O_NONBLOCK);
    const text = `${"0123456789abcdef".repeat(20_000)}\nend\n`;
    // Far longer than the reader takes to start on a busy machine.
    writeAll(fd, text, 60_000);
    const ended = once(reader, "exit");
    closeSync(fd);
    closeSync(held);
    await ended;
    expect(readFileSync(`${folder}/out`, "utf8")).toBe(text);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a log that nobody reads holds nobody up", () => {
  const folder = mkdtempSync("/tmp/mote-streams-");
  try {
    makePipe(`${folder}/log`);
    const held = openSync(`${folder}/log`, constants.O_RDWR | constants.O_NONBLOCK);
    const startMs = performance.now();
    writeAll(held, "x".repeat(200_000), 0);
    expect(performance.now() - startMs).toBeLessThan(20_000);
    closeSync(held);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("nobody who listens is no failure", () => {
  expect(() => writeAll(999, "text", 0)).not.toThrow();
});
