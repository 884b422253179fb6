import { expect, test } from "vitest";
import type { Secret, ServiceAccount } from "#model/gen/core-v1.ts";
import { judgeTokenSecret } from "./legacy-tokens.ts";

const nowMs = Date.parse("2026-06-15T12:00:00Z");
const account = { metadata: { name: "a", uid: "1" }, secrets: [{ name: "token" }] } as unknown as ServiceAccount;
const used = "kubernetes.io/legacy-token-last-used";
const invalid = "kubernetes.io/legacy-token-invalid-since";
const secret = (labels: Record<string, string>, created = "2024-01-01T00:00:00Z"): Secret =>
  ({
    metadata: {
      name: "token",
      creationTimestamp: created,
      labels,
      annotations: { "kubernetes.io/service-account.uid": "1" },
    },
  }) as Secret;

test.each<[string, Secret, ServiceAccount | undefined, boolean, string]>([
  ["never used", secret({}), account, false, "mark"],
  ["not used for a year", secret({ [used]: "2025-06-14" }), account, false, "mark"],
  ["used within a year", secret({ [used]: "2025-06-15" }), account, false, "keep"],
  ["used on a day that cannot be read", secret({ [used]: "yesterday" }), account, false, "keep"],
  ["young", secret({}, "2025-07-01T00:00:00Z"), account, false, "keep"],
  ["mounted by a pod", secret({}), account, true, "keep"],
  ["of an account that is gone", secret({}), undefined, false, "keep"],
  ["of another of that name", secret({}), { ...account, metadata: { name: "a", uid: "2" } }, false, "keep"],
  ["made by hand", secret({}), { ...account, secrets: [] }, false, "keep"],
  ["marked not long ago", secret({ [invalid]: "2026-01-01" }), account, false, "keep"],
  ["marked a year ago", secret({ [invalid]: "2025-06-14" }), account, false, "delete"],
  ["marked with what is no day", secret({ [invalid]: "soon" }), account, false, "mark"],
])("%s", (_, of, by, isMounted, expected) => {
  expect(judgeTokenSecret(of, by, isMounted, { nowMs, unusedMs: 365 * 24 * 3_600_000 })).toBe(expected);
});
