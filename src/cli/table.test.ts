import { expect, test } from "vitest";
import { columns } from "./table.ts";

test("columns are as wide as their widest cell, and lines end where their text does", () => {
  expect(
    columns([
      ["NAME", "SIZE", "NOTE"],
      ["a", "1048576", ""],
      ["much-longer", "2", "x y"],
    ]).split("\n"),
  ).toEqual(["NAME         SIZE     NOTE", "a            1048576", "much-longer  2        x y"]);
  expect(
    columns(
      [
        ["A", "B"],
        ["c", "d"],
      ],
      1,
    ),
  ).toBe("A B\nc d");
  expect(columns([])).toBe("");
});
