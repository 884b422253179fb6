import { expect, test } from "vitest";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import type { Credentials } from "../credentials.ts";
import type { Cri } from "../cri.ts";
import { createPullBackOff, ensureImage, pullPolicy } from "./images.ts";

interface Setup {
  readonly isPresent?: boolean;
  readonly policy?: string;
  /** Users that the registry lets in; undefined: everybody. */
  readonly users?: readonly string[];
  readonly own?: readonly Credentials[];
}

function setup({ isPresent = false, policy = "IfNotPresent", users, own = [] }: Setup, image = "r.io/app:1") {
  const tried: string[] = [];
  const events: string[] = [];
  let there = isPresent;
  const cri = {
    imageStatus: async () => (there ? { id: "sha256:1", size: 1, repoTags: [], repoDigests: [] } : undefined),
    async pullImage(_name: string, auth: { username?: string } | undefined) {
      tried.push(auth?.username ?? "nobody");
      if (users && !users.includes(auth?.username ?? "")) throw new Error("unauthorized");
      there = true;
    },
  } as unknown as Cri;
  const secret = { "r.io": { auth: Buffer.from("secret:x").toString("base64") } };
  const pod = { metadata: { uid: "u" }, spec: { imagePullSecrets: [{ name: "s" }] } } as unknown as Pod;
  const outcome = ensureImage(pod, { name: "c", image, imagePullPolicy: policy } as Container, {
    ...{ cri, clock: new FakeClock(), backOff: createPullBackOff(), signal: new AbortController().signal },
    event: (_type, reason) => void events.push(reason),
    secret: async () =>
      ({ data: { ".dockerconfigjson": Buffer.from(JSON.stringify({ auths: secret })).toString("base64") } }) as never,
    credentials: async () => own,
  });
  return { outcome, tried, events };
}

test.each<[string, Setup, string[], boolean]>([
  ["present and allowed to be: no registry", { isPresent: true }, [], true],
  ["present, always pulled", { isPresent: true, policy: "Always" }, ["secret"], true],
  ["absent, never pulled", { policy: "Never" }, [], false],
  [
    "the pod's own credentials first",
    { users: ["node"], own: [{ username: "node", password: "" }] },
    ["secret", "node"],
    true,
  ],
  ["nobody is let in", { users: [] }, ["secret"], false],
])("%s", async (_, given, expected, ok) => {
  const { outcome, tried } = setup(given);
  expect((await outcome).ok).toBe(ok);
  expect(tried).toEqual(expected);
});

test.each([
  ["Upper/Case", false],
  ["r.io/app:tag:tag", false],
  ["r.io:5000/a/b-c__d:v1.2@sha256:0123456789abcdef0123456789abcdef", true],
  ["busybox", true],
  ["app@latest", false],
])("the image name %s: %s", async (image, isGood) => {
  const outcome = await setup({ isPresent: true }, image).outcome;
  if (isGood) expect(outcome.ok).toBe(true);
  else expect(outcome).toMatchObject({ ok: false, waiting: { reason: "InvalidImageName" } });
});

test.each([
  ["box", "Always"],
  ["box:latest", "Always"],
  ["box:1", "IfNotPresent"],
  ["r.io:5000/box", "Always"],
  ["box@sha256:00", "IfNotPresent"],
])("by default %s is pulled %s", (image, expected) =>
  expect(pullPolicy({ name: "c", image } as Container)).toBe(expected),
);
