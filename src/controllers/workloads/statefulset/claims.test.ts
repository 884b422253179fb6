import { expect, test } from "vitest";
import type { StatefulSet } from "#model/gen/apps-v1.ts";
import type { PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import { claimOwners, isStaleClaim } from "./claims.ts";

const set = (whenDeleted: string, whenScaled: string): StatefulSet =>
  ({
    metadata: { name: "s", uid: "set" },
    spec: { persistentVolumeClaimRetentionPolicy: { whenDeleted, whenScaled } },
  }) as StatefulSet;
const pod = { metadata: { name: "s-0", uid: "pod" }, spec: { containers: [] } } as Pod;
const claim = (...owners: string[]): PersistentVolumeClaim => ({
  metadata: {
    name: "c",
    ownerReferences: owners.map((uid) => ({
      apiVersion: "v1",
      kind: uid.startsWith("pod") ? "Pod" : "X",
      name: uid.startsWith("pod") ? "s-0" : "x",
      uid,
      ...(uid === "boss" ? { controller: true } : {}),
    })),
  },
  spec: {},
});

test.each<[string, string, boolean, string[], string]>([
  ["Retain", "Retain", false, [], "same"],
  ["Retain", "Retain", true, ["set", "other"], "other"],
  ["Delete", "Retain", false, [], "set"],
  ["Delete", "Retain", true, ["set"], "same"],
  ["Retain", "Delete", false, [], "same"],
  ["Retain", "Delete", true, [], "pod"],
  ["Retain", "Delete", false, ["pod"], ""],
  ["Delete", "Delete", false, ["pod"], "set"],
  ["Delete", "Delete", true, ["set"], "pod"],
  ["Delete", "Delete", true, ["boss"], "same"],
])("deleted %s, scaled %s, scaled away %s: %j becomes %s", (whenDeleted, whenScaled, isAway, owners, expected) => {
  const wanted = claimOwners(set(whenDeleted, whenScaled), pod, isAway, claim(...owners));
  expect(wanted ? wanted.map((one) => one.uid).join(" ") : "same").toBe(expected);
});

test("a claim that waits for its end is not for a new pod", () => {
  expect(isStaleClaim(claim("pod-before"), "s-0")).toBe(true);
  expect(isStaleClaim(claim("set"), "s-0")).toBe(false);
});
