import { expect, test } from "vitest";
import type { ApiObject } from "#model/object.ts";
import { jobs, pods } from "#model/resources.ts";
import { controllerKey } from "./owners.ts";

const owned = (apiVersion: string, kind: string, controller = true): ApiObject => ({
  metadata: { name: "p", namespace: "ns", ownerReferences: [{ apiVersion, kind, name: "work", uid: "u", controller }] },
});

test.each([
  ["a job", owned("batch/v1", "Job"), jobs, "ns/work"],
  ["a job, in whatever version", owned("batch/v2", "Job"), jobs, "ns/work"],
  ["a job of somebody else", owned("batch.example.com/v1", "Job"), jobs, undefined],
  ["a pod, of the group without name", owned("v1", "Pod"), pods, "ns/work"],
  ["another kind", owned("batch/v1", "CronJob"), jobs, undefined],
  ["an owner that does not control it", owned("batch/v1", "Job", false), jobs, undefined],
])("controlled by %s", (_, object, resource, key) => {
  expect(controllerKey(object, resource)).toBe(key);
});
