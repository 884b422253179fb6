import { expect, test } from "vitest";
import type { Client } from "#client/client.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { createNodeAccess, subresourceOf } from "./access.ts";

function setup() {
  const clock = new FakeClock();
  const asked: string[] = [];
  const allowed = new Set(["metrics", "proxy"]);
  const client = {
    async create(resource: { plural: string }, object: { spec: Record<string, never> }) {
      if (resource.plural === "tokenreviews") {
        asked.push(`token ${object.spec["token"]}`);
        const isGood = object.spec["token"] === "good";
        return { status: { authenticated: isGood, user: { username: "prometheus", groups: ["g"] } } };
      }
      const { verb, subresource, name } = object.spec["resourceAttributes"] as unknown as Record<string, string>;
      asked.push(`${verb} nodes/${subresource} ${name} by ${object.spec["user"]}`);
      return { status: { allowed: allowed.has(subresource ?? "") } };
    },
  } as unknown as Client;
  const byCertificate = async () => ({ name: "admin", groups: ["system:masters"] });
  return { clock, asked, allowed, access: createNodeAccess({ nodeName: "n", client, clock, byCertificate }) };
}

test.each([
  ["/metrics/cadvisor", "metrics"],
  ["/stats/summary", "stats"],
  ["/logs/x", "log"],
  ["/exec/a/b/c", "proxy"],
  ["/configz", "configz"],
])("%s is guarded as nodes/%s", (path, expected) => expect(subresourceOf(path)).toBe(expected));

test("a token is reviewed once for a while, and what its user may do as well", async () => {
  const { access, asked, clock } = setup();
  for (let i = 0; i < 3; i++) {
    const user = await access.authenticate({ bearerToken: "good" });
    expect(user).toEqual({ name: "prometheus", groups: ["g"] });
    expect(await access.authorize(user!, "get", "/metrics")).toBe(true);
  }
  expect(asked).toEqual(["token good", "get nodes/metrics n by prometheus"]);
  await clock.advance(5 * 60_000 + 1);
  await access.authenticate({ bearerToken: "good" });
  expect(asked).toHaveLength(3);
});

test("a bad token is nobody, and nobody without one", async () => {
  const { access } = setup();
  expect(await access.authenticate({ bearerToken: "bad" })).toBeUndefined();
  expect(await access.authenticate({})).toBeUndefined();
});

test("what is not allowed is refused; whoever may proxy may see the configuration too", async () => {
  const { access, allowed } = setup();
  const user = { name: "u", groups: [] };
  expect(await access.authorize(user, "get", "/stats/summary")).toBe(false);
  expect(await access.authorize(user, "get", "/configz")).toBe(true);
  allowed.clear();
  expect(await access.authorize({ name: "v", groups: [] }, "get", "/configz")).toBe(false);
});

test("masters are not asked about", async () => {
  const { access, asked } = setup();
  const user = await access.authenticate({ clientCertificate: new Uint8Array(1) });
  expect(await access.authorize(user!, "create", "/exec/a/b/c")).toBe(true);
  expect(asked).toEqual([]);
});
