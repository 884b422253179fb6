import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { createBootstrapTokenAuthenticator } from "./bootstrap-token.ts";
import { defaultIssuer } from "./token-issuer.ts";

const clock = new FakeClock();
const id = "abcdef";
const secret = "0123456789abcdef";
const good = {
  "token-id": id,
  "token-secret": secret,
  expiration: new Date(clock.now() + 60_000).toISOString(),
  "usage-bootstrap-authentication": "true",
  "auth-extra-groups": "system:bootstrappers:k3s:default-node-token",
};
const authenticatorOf = (data: Record<string, string>, more: Partial<Secret> = {}) => {
  const encoded = Object.fromEntries(
    Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString("base64")]),
  );
  const stored: Secret = {
    metadata: { name: `bootstrap-token-${id}`, namespace: "kube-system" },
    type: "bootstrap.kubernetes.io/token",
    data: encoded,
    ...more,
  };
  const get = async (resource: string, namespace: string, name: string) =>
    `${resource}/${namespace}/${name}` === `secrets/kube-system/${stored.metadata.name}` ? stored : undefined;
  return createBootstrapTokenAuthenticator({ clock, log: silentLogger, get });
};
const whole = `${id}.${secret}`;
const who = (data: Record<string, string>, more: Partial<Secret> = {}, token = whole) =>
  authenticatorOf(data, more).authenticate({ bearerToken: token });

test("a good token is somebody who may join", async () => {
  expect(await who(good)).toEqual({
    name: "system:bootstrap:abcdef",
    groups: ["system:bootstrappers", "system:bootstrappers:k3s:default-node-token"],
  });
});

test.each<[string, Record<string, string>, Partial<Secret>, string?]>([
  ["another secret", { ...good, "token-secret": "fedcba9876543210" }, {}],
  ["expired", { ...good, expiration: new Date(clock.now()).toISOString() }, {}],
  ["a time nobody understands", { ...good, expiration: "soon" }, {}],
  ["not for this", { ...good, "usage-bootstrap-authentication": "false" }, {}],
  ["a group of somebody else", { ...good, "auth-extra-groups": "system:masters" }, {}],
  ["an ordinary secret", good, { type: "Opaque" }],
  ["on its way out", good, { metadata: { name: `bootstrap-token-${id}`, deletionTimestamp: "2026-01-01T00:00:00Z" } }],
  ["another token", good, {}, "ghijkl.0123456789abcdef"],
  ["no bootstrap token", good, {}, "a.b.c"],
])("%s is nobody", async (_what, data, more, token) => {
  expect(await who(data, more, token)).toBeUndefined();
});

test.each<[string, readonly string[], boolean]>([
  ["nobody in particular", [], true],
  ["this server among others", ["vault", defaultIssuer], true],
  ["another service alone", ["vault"], false],
])("a review for %s", async (_what, audiences, isGood) => {
  const reviewed = await authenticatorOf(good).review(whole, audiences);
  expect(reviewed?.audiences).toEqual(isGood ? [defaultIssuer] : undefined);
  expect(reviewed?.user.groups.includes("system:authenticated") ?? false).toBe(isGood);
});
