// Lists in chunks: one snapshot across all of them while history is kept, and what becomes of it when it is not.
import { expect, test } from "vitest";
import type { PodTemplate } from "#model/gen/core-v1.ts";
import type { ApiList } from "#model/object.ts";
import { podTemplates } from "#model/resources.ts";
import { ApiError } from "#model/status.ts";
import { openKinds } from "./kinds.fixture.ts";

test("a list in chunks shows one moment; after compaction the rest can still be had", async () => {
  const kinds = await openKinds();
  const template = { spec: { containers: [{ name: "c", image: "x" }] } };
  const make = (name: string) =>
    kinds.client.create(podTemplates, { metadata: { name, namespace: "default" }, template } as PodTemplate);
  for (let i = 0; i < 10; i++) await make(`t${i}`);
  const page = (token?: string): Promise<ApiList<PodTemplate>> =>
    kinds.client.list(podTemplates, { namespace: "default", limit: 4, ...(token ? { continue: token } : {}) });
  const names = (list: ApiList<PodTemplate>) => list.items.map((item) => item.metadata.name);

  const first = await page();
  expect(names(first)).toEqual(["t0", "t1", "t2", "t3"]);
  expect(first.metadata.remainingItemCount).toBe(6);
  await make("t35");
  const second = await page(first.metadata.continue);
  expect(names(second)).toEqual(["t4", "t5", "t6", "t7"]);
  expect(second.metadata.resourceVersion).toBe(first.metadata.resourceVersion);
  const third = await page(second.metadata.continue);
  expect(names(third)).toEqual(["t8", "t9"]);
  expect(third.metadata.continue).toBeUndefined();

  await make("t45");
  await kinds.compact();
  const error = await page(first.metadata.continue).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ApiError);
  const { status } = error as ApiError;
  expect(status).toMatchObject({ code: 410, reason: "Expired" });
  const rest = await page(status.metadata.continue);
  expect(names(rest)).toEqual(["t35", "t4", "t45", "t5"]);
  expect(rest.metadata.resourceVersion).not.toBe(first.metadata.resourceVersion);
  // From here on it is one moment again.
  await make("t55");
  const end = await page(rest.metadata.continue);
  expect(names(end)).toEqual(["t6", "t7", "t8", "t9"]);
  await kinds.close();
});
