import { expect, test } from "vitest";
import type { Container } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import type { Cri } from "../cri.ts";
import { runHandler } from "./handlers.ts";

test("a program that runs for ever ends when its caller does, and the answer says why", async () => {
  const cri = {
    execSync: (_id: string, _command: readonly string[], _seconds: number, signal?: AbortSignal) =>
      new Promise((_, reject) => {
        signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      }),
  } as unknown as Cri;
  const end = new AbortController();
  const target = { containerId: "c1", container: { name: "main" } as Container, ip: "127.0.0.1" };
  const deps = { cri, clock: new FakeClock(), version: "v1.32.3" };
  const running = runHandler({ exec: { command: ["sleep", "9999"] } }, target, 0, deps, end.signal);
  end.abort(new Error("the pod is being deleted"));
  expect(await running).toEqual({ ok: false, output: "the pod is being deleted" });
});
