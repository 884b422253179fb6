// Pods below a cgroup of the machine's choice, against real containerd and the kernel's own files; and a node that is told of
// a cgroup that is not there.
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import * as resources from "#model/resources.ts";
import { removeAllCgroups, treesWithout } from "#node/cgroups.ts";
import { parseConfiguration } from "#node/configuration.ts";
import { isUnified } from "#node/stats/kernel.ts";
import { image, TestNode } from "./node-fixture.ts";

const mount = "/sys/fs/cgroup";
const root = `/mote-e2e-${process.pid}`;
const node = new TestNode(33);
const configuration = parseConfiguration([`cgroup-root=${root}`]);
/** Version 1 has a tree per controller. */
let trees: readonly string[] = [];

beforeAll(async () => {
  trees = (await isUnified()) ? [mount] : treesWithout(root);
  for (const tree of trees) mkdirSync(`${tree}${root}`);
  await node.open({ configuration });
}, 120_000);
afterAll(async () => {
  try {
    await node.close();
  } finally {
    removeAllCgroups(root);
  }
}, 60_000);

test("a pod runs below the cgroup that was named, with its limits, and is gone from there afterwards", async () => {
  await node.run("here", {
    terminationGracePeriodSeconds: 1,
    containers: [
      {
        name: "main",
        image,
        command: ["sleep", "1000"],
        resources: { requests: { memory: "16Mi" }, limits: { memory: "32Mi", cpu: "200m" } },
      },
    ],
  });
  const pod = await node.whenReady("here");
  const path = `${root}/kubepods/burstable/pod${pod.metadata.uid}`;
  for (const tree of trees) {
    if (!tree.endsWith("/hugetlb") && !tree.endsWith("/pids")) expect(existsSync(`${tree}${path}`), tree).toBe(true);
  }
  const memory = trees[0] === mount ? `${mount}${path}/memory.max` : `${mount}/memory${path}/memory.limit_in_bytes`;
  expect(readFileSync(memory, "utf8").trim()).toBe(String(32 * 2 ** 20));
  const id = pod.status?.containerStatuses?.[0]?.containerID?.replace("containerd://", "") ?? "";
  const inside = memory.replace(path, `${path}/${id}`);
  expect(readFileSync(inside, "utf8").trim()).toBe(String(32 * 2 ** 20));
  await node.client.delete(resources.pods, { name: "here", namespace: "default" });
  const left = () => trees.flatMap((tree) => namesIn(`${tree}${root}/kubepods/burstable`));
  await expect.poll(left, { timeout: 60_000 }).toEqual([]);
}, 120_000);

test("a cgroup that is not there is named, and no pod is put elsewhere", async () => {
  await node.stop();
  await expect(node.start({ configuration: parseConfiguration(["cgroup-root=/mote-nowhere"]) })).rejects.toThrow(
    /cgroup-root: there is no cgroup \/mote-nowhere in \/sys\/fs\/cgroup/,
  );
  await node.start({ configuration });
}, 60_000);

const namesIn = (folder: string): string[] =>
  existsSync(folder)
    ? readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))
    : [];
