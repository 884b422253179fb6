// A secret of type service-account-token gets its token, and goes with the account.
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Secret, ServiceAccount } from "#model/gen/core-v1.ts";
import { secrets, serviceAccounts } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster;
beforeEach(async () => {
  cluster = await InMemoryCluster.start();
});
afterEach(() => cluster.stop());

const secret = (name: string, account: string): Secret =>
  ({
    metadata: { name, namespace: "default", annotations: { "kubernetes.io/service-account.name": account } },
    type: "kubernetes.io/service-account-token",
  }) as Secret;
const find = (name: string) => cluster.find(secrets, name, "default");

test("token, authority and namespace are filled in", async () => {
  const account = { metadata: { name: "robot", namespace: "default" } } as ServiceAccount;
  const { metadata } = await cluster.client.create(serviceAccounts, account);
  const made = await cluster.client.create(secrets, secret("robot-token", "robot"));
  await cluster.until(async () => (await find("robot-token"))?.data?.["token"] !== undefined, "has a token");
  const { data, metadata: now } = (await find("robot-token"))!;
  const text = (key: string) => Buffer.from(data![key]!, "base64").toString();
  expect(text("namespace")).toBe("default");
  expect(text("ca.crt")).toContain("BEGIN CERTIFICATE");
  expect(now.annotations?.["kubernetes.io/service-account.uid"]).toBe(metadata.uid);
  const claims = JSON.parse(Buffer.from(text("token").split(".")[1]!, "base64url").toString()) as Record<
    string,
    object
  >;
  expect(claims["kubernetes.io"]).toEqual({
    namespace: "default",
    secret: { name: "robot-token", uid: made.metadata.uid },
    serviceaccount: { name: "robot", uid: metadata.uid },
  });
  await cluster.client.delete(serviceAccounts, { name: "robot", namespace: "default" });
  await cluster.until(async () => (await find("robot-token")) === undefined, "goes with the account");
});

test("a secret of nobody goes", async () => {
  await cluster.client.create(secrets, secret("lost", "nobody"));
  await cluster.until(async () => (await find("lost")) === undefined, "goes");
});
