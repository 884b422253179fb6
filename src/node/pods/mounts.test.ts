import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { containerMounts } from "./mounts.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-mounts-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function subPathOf(mount: object, env: Readonly<Record<string, string>>): Promise<string> {
  const asked: string[] = [];
  const container = { name: "main", volumeMounts: [{ name: "v", mountPath: "/v", ...mount }] } as Container;
  try {
    await containerMounts({
      pod: { metadata: {}, spec: { containers: [container] } } as Pod,
      container,
      attempt: 0,
      volumes: new Map([["v", "/volume"]]),
      env: new Map(Object.entries(env)),
      podFolder: folder,
      hostsText: "",
      bindSubPath: async ({ subPath }) => {
        asked.push(subPath);
        return "/place";
      },
    });
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
  return asked.join();
}

test.each([
  ["plain", { subPath: "a/$(B)" }, {}, "a/$(B)"],
  ["expanded", { subPathExpr: "a/$(B)-$(C)" }, { B: "b", C: "c" }, "a/b-c"],
  ["escaped", { subPathExpr: "$$(B)" }, { B: "b" }, "$(B)"],
  ["what is not there", { subPathExpr: "$(D)/$(B)/$(C)" }, { B: "b" }, "ConfigError: missing value for C, D"],
  ["what is empty", { subPathExpr: "$(B)/c" }, { B: "" }, "ConfigError: missing value for B"],
])("a part of a volume: %s", async (_name, mount, env, expected) => {
  expect(await subPathOf(mount, env)).toBe(expected);
});
