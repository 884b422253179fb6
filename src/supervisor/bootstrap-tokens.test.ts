import { expect, test } from "vitest";
import { Client } from "#client/client.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { SmallApi } from "#test/harness/small-api.ts";
import {
  createBootstrapToken,
  deleteBootstrapToken,
  generateBootstrapToken,
  listBootstrapTokens,
} from "./bootstrap-tokens.ts";

const order = {
  token: undefined,
  description: "d",
  groups: ["system:bootstrappers:a"],
  usages: ["authentication"],
  lifeMs: 60_000,
};

test("what is made is what is listed, until it is deleted", async () => {
  const client = new Client(new SmallApi());
  const deps = { client, clock: new FakeClock(), random: seededRandom(3) };
  const made = await createBootstrapToken(order, deps);
  await createBootstrapToken({ ...order, token: "abcdef.0123456789abcdef", groups: [], lifeMs: 0 }, deps);
  expect(await listBootstrapTokens(client)).toEqual([
    ...[{ token: made, description: "d", groups: order.groups, usages: order.usages, expires: "2026-01-01T00:01:00Z" }],
    { token: "abcdef.0123456789abcdef", description: "d", groups: [], usages: order.usages, expires: undefined },
  ]);
  expect(await deleteBootstrapToken(client, "abcdef")).toBe(true);
  expect(await deleteBootstrapToken(client, made)).toBe(true);
  expect(await deleteBootstrapToken(client, made)).toBe(false);
  expect(await listBootstrapTokens(client)).toEqual([]);
});

test("tokens have their form, and no two are alike", () => {
  const random = seededRandom(1);
  const tokens = new Set(Array.from({ length: 1000 }, () => generateBootstrapToken(random)));
  expect(tokens.size).toBe(1000);
  for (const token of tokens) expect(token).toMatch(/^[a-z0-9]{6}\.[a-z0-9]{16}$/);
});

test("a password is no bootstrap token", async () => {
  const deps = { client: new Client(new SmallApi()), clock: new FakeClock(), random: seededRandom(1) };
  await expect(createBootstrapToken({ ...order, token: "hush" }, deps)).rejects.toMatchObject({ code: "TOKEN_FORMAT" });
});
