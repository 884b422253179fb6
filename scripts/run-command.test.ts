import { expect, test } from "vitest";
import { readable, run } from "./run-command.ts";

test("a failure's output is plain and of bearable length", () => {
  expect(readable("\u001b[31mred\u001b[0m\r\nplain\n\n")).toBe("red\nplain");
  const lines = readable(Array.from({ length: 5000 }, (_, i) => `line ${i}`).join("\n")).split("\n");
  expect(lines).toHaveLength(91);
  expect([lines[0], lines[60], lines[90]]).toEqual(["line 0", "… 4910 lines left out …", "line 4999"]);
  expect(readable("x".repeat(10_000))).toHaveLength(401);
  // Leaving out one line would save nothing.
  expect(readable(Array.from({ length: 91 }, () => "a").join("\n"))).not.toContain("left out");
});

test("programs whose output is kept are asked for no colours", async () => {
  const { output } = await run("sh", ["-c", "echo $NO_COLOR$FORCE_COLOR"]);
  expect(output).toBe("10\n");
});
