import { expect, test } from "vitest";
import { openKinds } from "../kinds.fixture.ts";

test("component statuses: all parts, one part, no such part", async () => {
  const kinds = await openKinds();
  const get = (path: string) => kinds.client.transport.request({ method: "GET", path });
  const list = (await get("/api/v1/componentstatuses")) as unknown as { kind: string; items: object[] };
  expect(list.kind).toBe("ComponentStatusList");
  expect(list.items.map((item) => (item as { metadata: { name: string } }).metadata.name)).toEqual([
    "scheduler",
    "controller-manager",
    "etcd-0",
  ]);
  expect(await get("/api/v1/componentstatuses/etcd-0")).toMatchObject({
    kind: "ComponentStatus",
    conditions: [{ type: "Healthy", status: "True", message: "ok" }],
  });
  await expect(get("/api/v1/componentstatuses/x")).rejects.toThrow('componentstatuses "x" not found');
  await kinds.close();
});
