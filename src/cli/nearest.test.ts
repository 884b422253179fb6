import { expect, test } from "vitest";
import { nearest } from "./nearest.ts";

const words = ["server", "agent", "snapshot", "token", "node", "flannel-backend", "ls"];

test.each([
  ["agnet", "agent"],
  ["serevr", "server"],
  ["snap", "snapshot"],
  ["tokn", "token"],
  ["flanel-backend", "flannel-backend"],
  ["Flannel_backend", "flannel-backend"],
  ["nodes", "node"],
  ["l", "ls"],
  ["x", undefined],
  ["zz", undefined],
  ["foo", undefined],
  ["", undefined],
])("%s is taken for %s", (typed, word) => {
  expect(nearest(typed, words)).toBe(word);
});
