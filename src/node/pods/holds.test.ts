// What a pod waits for, what the API shows of it, and how often events say so.
import { expect, test } from "vitest";
import type { Pod, PodStatus } from "#model/gen/core-v1.ts";
import { Holds } from "./holds.ts";
import { type Plan, sandboxHold } from "./plan.ts";

const podOf = (reason?: string): Pod => ({
  ...{ apiVersion: "v1", kind: "Pod" },
  metadata: { name: "p", namespace: "ns" },
  spec: { containers: [{ name: "c", image: "r.io/a:1" }] },
  ...(reason === undefined
    ? {}
    : { status: { containerStatuses: [{ name: "c", state: { waiting: { reason } } }] } as unknown as PodStatus }),
});
const planOf = (more: Partial<Plan> = {}): Plan => ({ actions: [], waiting: new Map(), finished: false, ...more });
const pull = { waiting: { reason: "ErrImagePull", message: "no such host" }, retryAtMs: 5000, isPull: true };

function said(holds: Holds, pod: Pod, plan: Plan): string[] {
  const events: string[] = [];
  holds.say(pod, plan, (name, _type, reason) => void events.push(`${name} ${reason}`));
  return events;
}

test("a failed pull shows its error first, then the pause, and says so once per pause", () => {
  const holds = new Holds();
  holds.started("c", pull);
  expect(holds.untilMs("c")).toBe(5000);
  expect(holds.waiting(podOf(), planOf()).get("c")).toEqual(pull.waiting);
  expect(holds.waiting(podOf("ErrImagePull"), planOf()).get("c")?.reason).toBe("ImagePullBackOff");
  expect(holds.waiting(podOf("ImagePullBackOff"), planOf()).get("c")?.reason).toBe("ImagePullBackOff");
  expect(said(holds, podOf(), planOf())).toEqual(["c BackOff", "c Failed"]);
  expect(said(holds, podOf(), planOf())).toEqual([]);
  holds.started("c", { ...pull, retryAtMs: 9000 });
  expect(said(holds, podOf(), planOf())).toEqual(["c BackOff", "c Failed"]);
  holds.started("c", undefined);
  expect([holds.untilMs("c"), holds.waiting(podOf(), planOf()).size]).toEqual([0, 0]);
});

test("a container that ends again and again waits longer each time, until it is another one", () => {
  const holds = new Holds();
  const delays = [0, 1, 2].map(() => {
    holds.restarts("c", 1000, 1000);
    return holds.crashDelayMs("c", 1000);
  });
  expect(delays).toEqual([10_000, 20_000, 40_000]);
  const waiting = new Map([["c", { reason: "CrashLoopBackOff" }]]);
  holds.started("c", pull);
  expect(holds.waiting(podOf(), planOf({ waiting })).get("c")?.reason).toBe("CrashLoopBackOff");
  holds.started("c", undefined);
  expect(said(holds, podOf(), planOf({ waiting, wakeAtMs: 7 }))).toEqual(["c BackOff"]);
  expect(said(holds, podOf(), planOf({ waiting, wakeAtMs: 7 }))).toEqual([]);
  holds.started("c", pull);
  holds.forget("c");
  expect([holds.crashDelayMs("c", 1000), holds.untilMs("c")]).toEqual([0, 0]);
});

test("a sandbox that fails is tried again soon; a pod that has ended waits for nothing", () => {
  const holds = new Holds();
  expect(holds.untilMs(sandboxHold)).toBe(0);
  holds.sandboxFailed(1000);
  expect(holds.untilMs(sandboxHold)).toBe(2000);
  holds.sandboxMade();
  expect(holds.untilMs(sandboxHold)).toBe(0);
  holds.started("c", pull);
  expect(holds.waiting(podOf(), planOf({ finished: true })).size).toBe(0);
});
