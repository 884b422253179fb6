import { expect, test } from "vitest";
import { FakeClock } from "#test/harness/fake-clock.ts";
import type { Item } from "../registry/codec.ts";
import type { CompressedAnswer, ListResult } from "./result.ts";
import { SharedLists } from "./shared-lists.ts";

const mebibyte = 1024 * 1024;
const listOf = (bytes: number, revision: number): ListResult =>
  ({
    type: "list",
    items: [{ value: new Uint8Array(bytes) } as unknown as Item],
    metadata: { resourceVersion: String(revision) },
  }) as unknown as ListResult;

const answerOf = (bytes: number): CompressedAnswer => ({
  type: "compressed",
  contentType: "application/json",
  parts: [new Uint8Array(bytes)],
});

function opened() {
  const clock = new FakeClock();
  const lists = new SharedLists({ clock });
  let made = 0;
  const get = (key: string, bytes: number, isFixed = false) =>
    lists.get(key, isFixed, async () => listOf(bytes, ++made));
  return { clock, get, made: () => made };
}

test("a large list is made once for all who ask within a second, also at the same time", async () => {
  const { clock, get, made } = opened();
  const [first, second] = await Promise.all([get("nodes", mebibyte), get("nodes", mebibyte)]);
  await clock.advance(1000);
  const third = await get("nodes", mebibyte);
  expect(new Set([first, second, third]).size).toBe(1);
  expect(first).toHaveProperty("share");
  await clock.advance(1);
  expect(await get("nodes", mebibyte)).not.toBe(first);
  expect(made()).toBe(2);
});

test("a page behind another is the same for as long as it is kept", async () => {
  const { clock, get, made } = opened();
  await get("page", mebibyte, true);
  await clock.advance(2500);
  await get("page", mebibyte, true);
  expect(made()).toBe(1);
  await clock.advance(4000);
  expect(clock.pending).toBe(0);
  await get("page", mebibyte, true);
  expect(made()).toBe(2);
});

test("small lists are made for each", async () => {
  const { get, made } = opened();
  const found = await get("few", 100_000);
  await get("few", 100_000);
  expect(made()).toBe(2);
  expect(found).not.toHaveProperty("share");
});

test("what is kept is bounded: the oldest go", async () => {
  const { get, made } = opened();
  for (let i = 0; i < 10; i++) await get(`page ${i}`, mebibyte, true);
  await get("page 9", mebibyte, true);
  await get("page 2", mebibyte, true);
  expect(made()).toBe(10);
  await get("page 1", mebibyte, true);
  expect(made()).toBe(11);
  const large = await get("one that is larger than all", 9 * mebibyte, true);
  await get("one that is larger than all", 9 * mebibyte, true);
  expect(made()).toBe(13);
  // Nobody gathers its bytes.
  expect(large).not.toHaveProperty("share");
});

test("a failure is told to who asked, and not kept", async () => {
  const lists = new SharedLists({ clock: new FakeClock() });
  const failing = () => Promise.reject(new Error("the disk is gone"));
  await expect(lists.get("nodes", true, failing)).rejects.toThrow("the disk is gone");
  const found = await lists.get("nodes", true, async () => listOf(mebibyte, 7));
  expect(found).toMatchObject({ metadata: { resourceVersion: "7" } });
});

test("an answer takes the place of its list, and one that failed does not stay", async () => {
  const { get, made } = opened();
  const share = async (answer: Promise<CompressedAnswer>) => {
    const list = (await get("nodes", mebibyte, true)) as ListResult;
    return list.share!(() => answer);
  };
  await expect(share(Promise.reject(new Error("an object cannot be read")))).rejects.toThrow(
    "an object cannot be read",
  );
  const answer = answerOf(10);
  expect(await share(Promise.resolve(answer))).toBe(answer);
  expect(await get("nodes", mebibyte, true)).toBe(answer);
  expect(made()).toBe(2);
  // It counts with its own size.
  for (let i = 0; i < 7; i++) await get(`page ${i}`, mebibyte, true);
  expect(await get("nodes", mebibyte, true)).toBe(answer);
});

test("who has been given the list before there is an answer does not encode it again", async () => {
  const { get } = opened();
  const lists = (await Promise.all([get("nodes", mebibyte), get("nodes", mebibyte)])) as ListResult[];
  const answer = answerOf(10);
  let encoded = 0;
  const answers = await Promise.all(
    lists.map((list) =>
      list.share!(async () => {
        encoded++;
        return answer;
      }),
    ),
  );
  expect(answers).toEqual([answer, answer]);
  expect(encoded).toBe(1);
});

test("a list that comes late does not take the place of a newer one", async () => {
  const clock = new FakeClock();
  const lists = new SharedLists({ clock });
  let tell = (_list: ListResult) => {};
  let fail = (_why: Error) => {};
  const makes = [
    () => new Promise<ListResult>((resolve) => (tell = resolve)),
    () => new Promise<ListResult>((_resolve, reject) => (fail = reject)),
    async () => listOf(mebibyte, 3),
  ];
  const asked: Promise<unknown>[] = [];
  for (const make of makes) {
    asked.push(lists.get("nodes", false, make));
    await clock.advance(1001);
  }
  const newest = () => lists.get("nodes", true, async () => listOf(mebibyte, 4));
  tell(listOf(mebibyte, 1));
  fail(new Error("the disk is gone"));
  await expect(asked[1]).rejects.toThrow("the disk is gone");
  await ((await asked[0]) as ListResult).share!(async () => answerOf(10));
  expect(await newest()).toMatchObject({ metadata: { resourceVersion: "3" } });
});

test("what has a name without end is made for each", async () => {
  const { get, made } = opened();
  for (let i = 0; i < 2; i++) await get("x".repeat(3000), mebibyte, true);
  expect(made()).toBe(2);
});
