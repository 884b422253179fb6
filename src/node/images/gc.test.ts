import { describe, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import type { Container, Image } from "#wire/gen/cri.ts";
import { defaultConfiguration } from "../configuration.ts";
import type { Cri } from "../cri.ts";
import { bytesToFree, ImageCollector, type ImageRecord, planImageGc } from "./gc.ts";

const record = (id: string, extra: Partial<ImageRecord> = {}): ImageRecord => ({
  ...{ id, sizeBytes: 10, detectedMs: 0, lastUsedMs: 0, isUsed: false, isSystem: false },
  ...extra,
});

describe("which images go", () => {
  const images = [
    record("used", { isUsed: true }),
    record("system", { isSystem: true }),
    record("young", { detectedMs: 950, lastUsedMs: 950 }),
    record("later", { lastUsedMs: 500 }),
    record("first", { lastUsedMs: 100 }),
  ];
  test("least recently used first, as many as needed", () => {
    expect(planImageGc(images, 5, 1000, 100).map((i) => i.id)).toEqual(["first"]);
    expect(planImageGc(images, 11, 1000, 100).map((i) => i.id)).toEqual(["first", "later"]);
  });
  test("never used, system or young ones", () => {
    expect(planImageGc(images, Number.POSITIVE_INFINITY, 1000, 100).map((i) => i.id)).toEqual(["first", "later"]);
    expect(planImageGc(images, Number.POSITIVE_INFINITY, 1000, 0).map((i) => i.id)).toEqual([
      "first",
      "later",
      "young",
    ]);
  });
  test.each([
    ["below the high threshold", 16, 0],
    ["at it", 15, 5],
    ["far beyond", 1, 19],
  ])("to free %s", (_, freeBytes, expected) => {
    expect(bytesToFree({ totalBytes: 100, freeBytes }, 85, 80)).toBe(expected);
  });
  test("a hundred percent switches it off", () =>
    expect(bytesToFree({ totalBytes: 100, freeBytes: 0 }, 100, 80)).toBe(0));
});

test("against a runtime: what containers use and what mote ships stays", async () => {
  const removed: string[] = [];
  const image = (id: string, tag: string, pinned = false): Image => ({
    ...{ id, repoTags: [tag], repoDigests: [], size: 10, username: "", pinned },
  });
  const images = [
    image("sha256:1", "docker.io/library/used:1"),
    image("sha256:2", "mote.local/pause:1"),
    image("sha256:3", "docker.io/library/pinned:1", true),
    image("sha256:4", "docker.io/library/unused:1"),
  ];
  const cri = {
    listImages: async () => images,
    listContainers: async () => [{ imageRef: "sha256:1", imageId: "" }] as Container[],
    removeImage: async (id: string) => void removed.push(id),
  } as unknown as Cri;
  const warnings: string[] = [];
  const collector = new ImageCollector({
    ...{ cri, clock: new FakeClock(), log: createLogger(() => {}, "error"), configuration: defaultConfiguration },
    ...{ imageFolder: "/", pauseImage: "mote.local/pause:1", warn: (reason: string) => void warnings.push(reason) },
  });
  await collector.freeAll();
  expect(removed).toEqual(["sha256:4"]);
  await collector.free(1000);
  expect(warnings).toEqual(["FreeDiskSpaceFailed"]);
});
