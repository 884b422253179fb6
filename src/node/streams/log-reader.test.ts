import { appendFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Clock } from "#base/clock.ts";
import { systemClock } from "#platform/clock.ts";
import { until } from "#test/harness/until.ts";
import { fixedTime, parseLogLine } from "./log-line.ts";
import { type LogQuery, readLog } from "./log-reader.ts";

let folder = "";
let path = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-log-"));
  path = join(folder, "0.log");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const all: LogQuery = { follow: false, timestamps: false };
const second = (n: number) => `2026-01-01T00:00:${String(n).padStart(2, "0")}.5Z`;
const line = (n: number, text: string, tags = "F", stream = "stdout") => `${second(n)} ${stream} ${tags} ${text}\n`;
const never = new AbortController().signal;
/** Real time, a hundred times faster. */
const quick: Clock = { ...systemClock, sleep: (ms, signal) => systemClock.sleep(ms / 100, signal) };

async function read(query: LogQuery): Promise<string> {
  let text = "";
  for await (const piece of readLog({ path, isRunning: () => false }, query, { clock: quick }, never))
    text += piece.toString();
  return text;
}

describe("a line", () => {
  test.each([
    ["whole", `${second(1)} stdout F hello\n`, { stream: "stdout", isPartial: false, text: "hello\n" }],
    ["partial", `${second(1)} stderr P hel\n`, { stream: "stderr", isPartial: true, text: "hel" }],
    ["several tags", `${second(1)} stdout P:x hel\n`, { stream: "stdout", isPartial: true, text: "hel" }],
    ["empty text", `${second(1)} stdout F \n`, { stream: "stdout", isPartial: false, text: "\n" }],
    ["no text at all", `${second(1)} stdout F\n`, { stream: "stdout", isPartial: false, text: "\n" }],
    ["spaces inside", `${second(1)} stdout F  a  b \n`, { stream: "stdout", isPartial: false, text: " a  b \n" }],
  ])("%s", (_name, text, expected) => {
    const parsed = parseLogLine(Buffer.from(text))!;
    expect({ stream: parsed.stream, isPartial: parsed.isPartial, text: parsed.text.toString() }).toEqual(expected);
  });

  test.each(["", "\n", "hello\n", "2026 stdout F x\n", `${second(1)} stdin F x\n`, `yesterday stdout F x\n`])(
    "%j is none",
    (text) => {
      expect(parseLogLine(Buffer.from(text))?.text.toString()).toBe(text.startsWith("2026 ") ? "x\n" : undefined);
    },
  );

  test.each([
    ["2026-01-01T00:00:01Z", "2026-01-01T00:00:01.000000000Z"],
    ["2026-01-01T00:00:01.12Z", "2026-01-01T00:00:01.120000000Z"],
    ["2026-01-01T00:00:01.123456789+02:00", "2026-01-01T00:00:01.123456789+02:00"],
  ])("time %s", (time, fixed) => expect(fixedTime(time)).toBe(fixed));
});

describe("a finished log", () => {
  const content =
    line(1, "one") + line(2, "tw", "P") + line(2, "o") + line(3, "three", "F", "stderr") + line(4, "four");
  beforeEach(() => writeFile(path, content));

  test.each<[string, Partial<LogQuery>, string]>([
    ["all", {}, "one\ntwo\nthree\nfour\n"],
    ["the last 2", { tailLines: 2 }, "three\nfour\n"],
    ["the last 0", { tailLines: 0 }, ""],
    ["more than there is", { tailLines: 100 }, "one\ntwo\nthree\nfour\n"],
    ["since", { sinceMs: Date.parse(second(3)) }, "three\nfour\n"],
    ["since just after", { sinceMs: Date.parse(second(3)) + 1 }, "four\n"],
    ["a limit inside a line", { limitBytes: 6 }, "one\ntw"],
    ["a limit at a line's end", { limitBytes: 4 }, "one\n"],
    ["tail and limit", { tailLines: 1, limitBytes: 2 }, "fo"],
    [
      "times, once per line of the program",
      { timestamps: true, limitBytes: 72 },
      `2026-01-01T00:00:01.500000000Z one\n2026-01-01T00:00:02.500000000Z two\n20`,
    ],
  ])("%s", async (_name, query, text) => {
    expect(await read({ ...all, ...query })).toBe(text);
  });

  test("a torn line in the middle is left out, one at the end is not lost", async () => {
    await writeFile(path, `${line(1, "one")}2026-01-0\n${line(2, "two")}${second(3)} stdout F thr`);
    expect(await read(all)).toBe("one\ntwo\nthr");
  });

  test("lines across blocks, and a tail that reads several blocks back", async () => {
    const many = Array.from({ length: 6000 }, (_, i) => `line ${i} ${"x".repeat(i % 97)}`);
    await writeFile(path, many.map((text) => line(1, text)).join(""));
    expect(await read(all)).toBe(many.map((text) => `${text}\n`).join(""));
    expect(await read({ ...all, tailLines: 5000 })).toBe(
      many
        .slice(1000)
        .map((text) => `${text}\n`)
        .join(""),
    );
  });

  test("no file", async () => {
    await rm(path);
    await expect(read(all)).rejects.toMatchObject({ code: "NODE_LOG_MISSING" });
  });
});

describe("following", () => {
  /** Reads on until `stop`; `until` waits for what must have come by then. */
  function follow(query: Partial<LogQuery> = {}) {
    const state = { text: "", isRunning: true, isOver: false };
    const abort = new AbortController();
    const done = (async () => {
      const source = { path, isRunning: () => state.isRunning };
      for await (const piece of readLog(source, { ...all, follow: true, ...query }, { clock: quick }, abort.signal)) {
        state.text += piece.toString();
      }
      state.isOver = true;
    })();
    return {
      state,
      abort,
      done,
      async says(text: string) {
        await until(() => state.text === text, JSON.stringify(text));
        expect(state.text).toBe(text);
      },
    };
  }

  test("what is appended comes, halves of lines wait, the end of the container ends it", async () => {
    await writeFile(path, line(1, "one") + line(2, "two"));
    const { state, says, done } = follow({ tailLines: 1 });
    await says("two\n");
    await appendFile(path, line(3, "three").slice(0, 20));
    await systemClock.sleep(20);
    await says("two\n");
    await appendFile(path, line(3, "three").slice(20));
    await says("two\nthree\n");
    await appendFile(path, line(4, "last words"));
    state.isRunning = false;
    await done;
    expect(state.text).toBe("two\nthree\nlast words\n");
  });

  test("rotation: nothing is lost or repeated", async () => {
    await writeFile(path, "");
    const { state, done } = follow();
    let expected = "";
    for (let n = 0; n < 200; n++) {
      expected += `line ${n}\n`;
      await appendFile(path, line(1, `line ${n}`));
      if (n % 40 === 39) {
        // As the agent does: rename, then the runtime reopens under the old name.
        await rename(path, join(folder, `0.log.${n}`));
        await writeFile(path, "");
        // The follower must see each file; in life minutes lie between two rotations.
        await until(() => state.text === expected, JSON.stringify(expected));
      }
    }
    state.isRunning = false;
    await done;
    expect(state.text).toBe(expected);
  });

  test("what the runtime writes to the old file after the rename still comes, and first", async () => {
    await writeFile(path, line(1, "one"));
    let isRunning = true;
    // Each pause of the reader does the next thing of the story.
    const story = [
      async () => {
        await rename(path, `${path}.old`);
        await writeFile(path, line(3, "new"));
      },
      () => appendFile(`${path}.old`, `${line(2, "late")}${second(2)} stdout F cut off`),
      async () => {
        isRunning = false;
      },
    ];
    const clock: Clock = { ...systemClock, sleep: async () => story.shift()?.() };
    let text = "";
    const source = { path, isRunning: () => isRunning };
    for await (const piece of readLog(source, { ...all, follow: true }, { clock }, never)) text += piece.toString();
    expect(text).toBe("one\nlate\ncut offnew\n");
    expect(story).toEqual([]);
  });

  test("a client that leaves ends it at once", async () => {
    await writeFile(path, line(1, "one"));
    const { abort, done, says, state } = follow();
    await says("one\n");
    abort.abort();
    await done;
    expect(state.isOver).toBe(true);
  });

  test("a limit ends it though the container runs", async () => {
    await writeFile(path, line(1, "one"));
    const { done, state } = follow({ limitBytes: 2 });
    await done;
    expect(state.text).toBe("on");
  });
});
