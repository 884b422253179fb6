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
const leaf = object();
const waiting = object(["foregroundDeletion"], true);
const owner = (state: OwnerState, uid: string) => ({
  reference: { apiVersion: "v1", kind: "K", name: uid, uid },
  state,
});

test.each([
  ["no owners", object(), [], [], { do: "nothing" }],
  ["one solid owner", object(), [owner("solid", "a")], [], { do: "nothing" }],
  ["one of two gone", object(), [owner("solid", "a"), owner("absent", "b")], [], { do: "unlink", uids: ["b"] }],
  ["one of two waits", object(), [owner("solid", "a"), owner("waiting", "b")], [], { do: "unlink", uids: ["b"] }],
  ["all gone", object(), [owner("absent", "a")], [leaf], { do: "delete", policy: "Background" }],
  ["owner waits, has dependents", object(), [owner("waiting", "a")], [leaf], { do: "delete", policy: "Foreground" }],
  [
    "owner waits, and so does a dependent",
    object(),
    [owner("waiting", "a")],
    [leaf, waiting],
    { do: "delete", policy: "Foreground", isUnblocked: true },
  ],
  ["owner waits, is a leaf", object(), [owner("waiting", "a")], [], { do: "delete", policy: "Background" }],
  ["asked to orphan", object(["orphan"]), [owner("absent", "a")], [leaf], { do: "delete", policy: "Orphan" }],
  ["already going", object([], true), [owner("absent", "a")], [], { do: "nothing" }],
  ["going, orphans first", object(["orphan"], true), [], [leaf], { do: "orphan-dependents" }],
  ["going in the foreground", object(["foregroundDeletion"], true), [], [leaf], { do: "finish-foreground" }],
] as const)("%s", (_, what, owners, dependents, expected) => {
  expect(planObject(what, owners, dependents)).toEqual(expected);
});
