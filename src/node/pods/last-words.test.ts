import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { makeFolder } from "#platform/files.ts";
import { lastWords, logTail } from "./last-words.ts";
import { terminationFile } from "./mounts.ts";
import type { ObservedContainer } from "./observation.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-words-"));
afterAll(() => rmSync(folder, { recursive: true }));

const podOf = (policy: string, count = 1): Pod =>
  ({
    metadata: {},
    spec: {
      containers: Array.from({ length: count }, (_, i) => ({
        name: i === 0 ? "main" : `c${i}`,
        terminationMessagePolicy: policy,
      })),
    },
  }) as unknown as Pod;
const ended = (exitCode: number): ObservedContainer =>
  ({ name: "main", attempt: 0, exitCode, logPath: join(folder, "main.log") }) as ObservedContainer;

async function says(text: string, log = ""): Promise<void> {
  await makeFolder(join(folder, "containers/main"));
  writeFileSync(terminationFile(folder, "main", 0), text);
  writeFileSync(join(folder, "main.log"), log);
}
const log = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P tw\n2026-01-01T00:00:00Z stderr F o\n";

describe("last words", () => {
  const cases: [string, string, number, string, string][] = [
    ["the file", "File", 1, "bye", "bye"],
    ["an empty file and no fallback", "File", 1, "", ""],
    ["the log of one that failed", "FallbackToLogsOnError", 1, "", "one\ntwo\n"],
    ["not the log of one that succeeded", "FallbackToLogsOnError", 0, "", ""],
    ["the file before the log", "FallbackToLogsOnError", 1, "bye", "bye"],
  ];
  test.each(cases)("%s", async (_, policy, exitCode, text, expected) => {
    await says(text, log);
    expect(await lastWords(folder, podOf(policy), ended(exitCode))).toBe(expected);
  });
  test("are bounded by container and by pod", async () => {
    await says("x".repeat(10_000));
    expect((await lastWords(folder, podOf("File"), ended(0))).length).toBe(4096);
    expect((await lastWords(folder, podOf("File", 12), ended(0))).length).toBe(1024);
  });
  test("nothing written is nothing said", async () => {
    expect(await lastWords(join(folder, "none"), podOf("File"), ended(1))).toBe("");
  });
});

test("at most eighty lines of the log", () => {
  const lines = Array.from({ length: 100 }, (_, i) => `t stdout F ${i}`).join("\n");
  expect(logTail(lines).trimEnd().split("\n")).toHaveLength(80);
});

test("the last line ends as it was written", () => {
  expect(logTail("t stdout P DONE\n")).toBe("DONE");
  expect(logTail("t stdout F DONE\n")).toBe("DONE\n");
});
