import { expect, test } from "vitest";
import { Slots } from "./context.ts";

test("no more work at once than there are slots, the urgent first, and a failure gives its slot back", async () => {
  const slots = new Slots(2);
  const order: string[] = [];
  let atOnce = 0;
  let most = 0;
  const ends: (() => void)[] = [];
  const work = (name: string, isUrgent = false) =>
    slots
      .use(
        async () => {
          order.push(name);
          most = Math.max(most, ++atOnce);
          await new Promise<void>((resolve) => ends.push(resolve));
          atOnce--;
          if (name === "b") throw new Error("failed");
        },
        { isUrgent },
      )
      .catch(() => {});
  const all = Promise.all([work("a"), work("b"), work("c"), work("d"), work("e", true)]);
  for (let i = 0; i < 5; i++) {
    await new Promise<void>((resolve) => setTimeout(resolve, 1));
    ends.shift()?.();
  }
  await all;
  expect(order).toEqual(["a", "b", "e", "c", "d"]);
  expect(most).toBe(2);
});
