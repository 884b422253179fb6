// A one-node cluster whose datastore is Debian's etcd, which is killed under it and comes back.
import { afterAll, beforeAll, expect, test } from "vitest";
import { createEtcdCluster, type EtcdCluster } from "#test/etcd/etcd-process.ts";
import { etcdPath } from "#test/etcd/peers.ts";
import { eventually, Host } from "./host.ts";

const host = new Host("etcd");
let etcd: EtcdCluster;

beforeAll(async () => {
  await host.open();
  const path = await etcdPath();
  if (!path) throw new Error("Debian's etcd is not to be had");
  etcd = await createEtcdCluster(path, 1, { within: ["nsenter", `--net=/run/netns/${host.name}`] });
  etcd.members[0]!.start();
  const up = await host.npmScript("scripts/dev/up.ts", ["--", "--datastore-endpoint", etcd.endpoint]);
  if (up.code !== 0) throw new Error(`up failed:\n${up.stdout}\n${up.stderr}`);
});

afterAll(async () => {
  if (process.env["MOTE_E2E_LOG"]) console.log(host.log());
  await host.close();
  await etcd.close();
});

interface Pod {
  readonly metadata: { readonly uid: string };
  readonly status: {
    readonly phase: string;
    readonly containerStatuses?: readonly { readonly restartCount: number }[];
  };
}

const running = async (): Promise<readonly Pod[]> => {
  const { items } = JSON.parse(await host.kubectl("get pods -l app=web -o json")) as { items: Pod[] };
  return items.filter(({ status }) => status.phase === "Running");
};

test("a deployment is there before, while and after etcd is gone", async () => {
  await host.kubectl("create deployment web --image=mote.local/web:1 --replicas=2");
  await host.kubectl("rollout status deploy/web --timeout=60s");
  const before = (await running()).map(({ metadata }) => metadata.uid).sort();
  expect(before.length).toBe(2);

  for (let round = 0; round < 2; round++) {
    await etcd.members[0]!.signal("SIGKILL");
    const refused = await host.kubectlRaw(["get", "pods", "--request-timeout=10s"]);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("the datastore does not answer")]);
    etcd.members[0]!.start();
    await eventually("answers", 20_000, async () => (await host.kubectlRaw(["get", "pods"])).code === 0);
    // The same pods: nobody took the silence for a death.
    const now = await running();
    expect(now.map(({ metadata }) => metadata.uid).sort()).toEqual(before);
    expect(now.flatMap(({ status }) => status.containerStatuses ?? []).map((s) => s.restartCount)).toEqual([0, 0]);
  }

  await host.kubectl("scale deploy/web --replicas=3");
  await host.kubectl("rollout status deploy/web --timeout=60s");
  expect((await running()).length).toBe(3);
  await host.kubectl("delete deploy/web");
  await eventually("all pods gone", 40_000, async () => (await host.kubectl("get pods -o name")) === "");
  expect(await host.kubectl("get nodes")).toMatch(/ Ready /);
});
