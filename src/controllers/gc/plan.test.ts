import { expect, test } from "vitest";
import type { ApiObject } from "#model/object.ts";
import { type OwnerState, planObject } from "./plan.ts";

const object = (finalizers: readonly string[] = [], isDeleting = false): ApiObject => ({
  metadata: {
    name: "x",
    finalizers: [...finalizers],
    ...(isDeleting ? { deletionTimestamp: "2026-01-01T00:00:00Z" } : {}),
  },
});
const owner = (state: OwnerState, uid: string) => ({
  reference: { apiVersion: "v1", kind: "K", name: uid, uid },
  state,
});

test.each([
  ["no owners", object(), [], false, { do: "nothing" }],
  ["one solid owner", object(), [owner("solid", "a")], false, { do: "nothing" }],
  ["one of two gone", object(), [owner("solid", "a"), owner("absent", "b")], false, { do: "unlink", uids: ["b"] }],
  ["one of two waits", object(), [owner("solid", "a"), owner("waiting", "b")], false, { do: "unlink", uids: ["b"] }],
  ["all gone", object(), [owner("absent", "a")], true, { do: "delete", policy: "Background" }],
  ["owner waits, has dependents", object(), [owner("waiting", "a")], true, { do: "delete", policy: "Foreground" }],
  ["owner waits, is a leaf", object(), [owner("waiting", "a")], false, { do: "delete", policy: "Background" }],
  ["asked to orphan", object(["orphan"]), [owner("absent", "a")], true, { do: "delete", policy: "Orphan" }],
  ["already going", object([], true), [owner("absent", "a")], false, { do: "nothing" }],
  ["going, orphans first", object(["orphan"], true), [], true, { do: "orphan-dependents" }],
  ["going in the foreground", object(["foregroundDeletion"], true), [], true, { do: "finish-foreground" }],
] as const)("%s", (_, what, owners, hasDependents, expected) => {
  expect(planObject(what, owners, hasDependents)).toEqual(expected);
});
