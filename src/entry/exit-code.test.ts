import { expect, test, vi } from "vitest";
import { AppError } from "#base/errors.ts";
import { ApiError } from "#model/status.ts";
import { exitCodeOf } from "./exit-code.ts";

test.each<[string, unknown, unknown]>([
  ["what the user can mend", new AppError("CLI_USAGE", "a: b"), "error: a: b"],
  [
    "what the API refuses",
    new ApiError(409, "AlreadyExists", 'secrets "x" already exists'),
    /^error: secrets "x" already/,
  ],
  ["a server that is not there", new AppError("HTTP_FAILED", "GET x: ECONNREFUSED"), /ECONNREFUSED \(is the server up/],
  [
    "a data folder that another mote has",
    new AppError("STARTUP", "/d/state.db is in use by process 7", {}, { cause: new AppError("DATASTORE_LOCKED", "x") }),
    /in use by process 7 \(mote runs on this data folder; stop it first/,
  ],
  [
    "what the machine refuses",
    Object.assign(new Error("open /x: EACCES"), { syscall: "open" }),
    "error: open /x: EACCES",
  ],
])("%s is told in one sentence", async (_name, error, told) => {
  const said = vi.spyOn(console, "error").mockImplementation(() => undefined);
  expect(await exitCodeOf(() => Promise.reject(error))).toBe(1);
  expect(said.mock.calls).toEqual([[typeof told === "string" ? told : expect.stringMatching(told as RegExp)]]);
  said.mockRestore();
});

test("a defect keeps its stack, and an exit code its number", async () => {
  const defect = new TypeError("x is undefined");
  const said = vi.spyOn(console, "error").mockImplementation(() => undefined);
  expect(await exitCodeOf(() => Promise.reject(defect))).toBe(1);
  expect(said.mock.calls).toEqual([[defect]]);
  said.mockRestore();
  expect(await exitCodeOf(async () => 3)).toBe(3);
});
