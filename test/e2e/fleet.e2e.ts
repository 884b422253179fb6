// A server without a node and three agents, each with a network of its own and a wire to the server's bridge: they join at the
// same moment, each pod meets every other, packets stay in their zone where they can, and all go on where the server is killed.
// One device is flashed again after the token has changed.
import { existsSync, readFileSync, rmSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { DaemonSet } from "#model/gen/apps-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { closeHosts, connectHosts, eventually, Host } from "./host.ts";

const hub = new Host("fleet-hub", "192.168.77.2");
const devices = [3, 4, 5].map((n) => new Host(`fleet-${n}`, `192.168.77.${n}`));
const names = ["one", "two", "three"] as const;
const url = `https://${hub.address}:6443`;

const startHub = () =>
  hub.start(["server", "--disable-agent", "--node-name", "hub", "--write-kubeconfig", hub.kubeconfig]);
const serves = () => eventually("/readyz", 60_000, async () => (await hub.kubectl("get --raw /readyz")) === "ok");
const token = () => readFileSync(`${hub.dataDir}/server/token`, "utf8").trim();
const join = (device: Host, name: string, ...more: readonly string[]) =>
  device.start(["agent", "--server", url, "--node-name", name, ...more]);
const isReady = (name: string) =>
  eventually(`${name} is Ready`, 60_000, async () =>
    / Ready /.test(await hub.kubectl(`get node ${name} --no-headers`)),
  );

const script = `mkdir -p /tmp/w/cgi-bin; cd /tmp/w; echo I serve
  printf '#!/bin/sh\\necho; echo $NODE\\n' > cgi-bin/who; chmod +x cgi-bin/who
  exec httpd -f -p 80 -h /tmp/w`;
const items = [
  {
    ...{ apiVersion: "apps/v1", kind: "DaemonSet", metadata: { name: "who" } },
    spec: {
      selector: { matchLabels: { app: "who" } },
      template: {
        metadata: { labels: { app: "who" } },
        spec: {
          terminationGracePeriodSeconds: 1,
          containers: [
            {
              ...{ name: "who", image: "mote.local/busybox:1", command: ["sh", "-c", script] },
              env: [{ name: "NODE", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } }],
              readinessProbe: { tcpSocket: { port: 80 }, periodSeconds: 1 },
            },
          ],
        },
      },
    },
  },
  {
    ...{ apiVersion: "v1", kind: "Service", metadata: { name: "who" } },
    spec: { type: "NodePort", selector: { app: "who" }, ports: [{ port: 80 }] },
  },
];

const pods = async (): Promise<readonly Pod[]> =>
  (JSON.parse(await hub.kubectl("get pods -l app=who -o json")) as { items: Pod[] }).items;
const inPod = async (pod: Pod, line: string): Promise<string> =>
  (await hub.kubectl(["exec", pod.metadata.name ?? "", "--", "sh", "-c", line])).trim();
const fetched = (pod: Pod, host: string) => inPod(pod, `wget -T 3 -q -O - http://${host}/cgi-bin/who`);
/** What is the same for as long as nothing was started again. */
const lives = async (): Promise<string> => {
  const all = (await pods()).map(({ metadata, status }) => [
    metadata.uid,
    ...(status?.containerStatuses ?? []).map(({ containerID, restartCount }) => `${containerID} ${restartCount}`),
  ]);
  return all.map(String).sort().join("\n");
};

/** Every pod reaches every pod by its address, and all of them by the service's name. */
async function everybodyMeets(): Promise<void> {
  const all = await pods();
  for (const from of all) {
    for (const to of all) {
      const what = `${from.spec.nodeName} to ${to.spec.nodeName}`;
      const reaches = async () => (await fetched(from, to.status?.podIP ?? "none")) === to.spec.nodeName;
      await eventually(what, 30_000, reaches);
    }
    const met = new Set<string>();
    await eventually(`${from.spec.nodeName} meets all by name`, 60_000, async () => {
      met.add(await fetched(from, "who"));
      return names.every((name) => met.has(name));
    });
  }
}

beforeAll(async () => {
  for (const host of [hub, ...devices]) await host.open();
  for (const [i, device] of devices.entries()) await connectHosts(hub, device, `wire${i}`);
  startHub();
  await serves();
});

afterAll(() => closeHosts(...devices, hub));

test("three devices join at the same moment, with the token and nothing else", async () => {
  for (const [i, device] of devices.entries()) join(device, names[i]!, "--token", token());
  await Promise.all(names.map(isReady));
  const ranges = (await hub.kubectl(["get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}"])).split(" ");
  expect(new Set(ranges).size).toBe(3);
  await hub.kubectl("apply -f -", { input: JSON.stringify({ apiVersion: "v1", kind: "List", items }) });
  await eventually("a pod on each", 90_000, async () => {
    const { status } = JSON.parse(await hub.kubectl("get daemonset who -o json")) as DaemonSet;
    return status?.numberReady === 3;
  });
});

test("each pod meets every other, by address and by name; each node answers for all", async () => {
  await everybodyMeets();
  const port = await hub.kubectl(["get", "service", "who", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
  for (const device of devices) {
    const met = new Set<string>();
    await eventually(`all by the port of ${device.address}`, 30_000, async () => {
      const { stdout } = await hub.exec("curl", ["-s", "-m", "2", `http://${device.address}:${port}/cgi-bin/who`]);
      met.add(stdout.trim());
      return names.every((name) => met.has(name));
    });
  }
  for (const pod of await pods()) expect(await hub.kubectl(`logs ${pod.metadata.name}`)).toBe("I serve\n");
});

test("packets stay in their zone where it has a pod, and go elsewhere where it has none any more", async () => {
  const zoneOf = { one: "a", two: "b", three: "c" } as const;
  const zoned = (name: string, metadata: object, spec: object) => ({
    ...{ apiVersion: "v1", kind: "Service", metadata: { name, ...metadata } },
    spec: { selector: { app: "who", zoned: "yes" }, ports: [{ port: 80 }], ...spec },
  });
  const pair = [
    zoned("auto", { annotations: { "service.kubernetes.io/topology-mode": "Auto" } }, {}),
    zoned("close", {}, { trafficDistribution: "PreferClose" }),
  ];
  for (const name of names) await hub.kubectl(`label node ${name} topology.kubernetes.io/zone=${zoneOf[name]}`);
  await hub.kubectl("label pod -l app=who zoned=yes");
  await hub.kubectl("apply -f -", { input: JSON.stringify({ apiVersion: "v1", kind: "List", items: pair }) });
  const all = await pods();
  const on = (node: string) => all.find(({ spec }) => spec.nodeName === node)!;
  /** Node and zones, as `one:a`; a node without hints is `one:`. */
  const hintsOf = async (service: string) => {
    const path = '{range .items[*].endpoints[*]}{.nodeName}:{.hints.forZones[*].name}{"\\n"}{end}';
    const label = `kubernetes.io/service-name=${service}`;
    return (await hub.kubectl(["get", "endpointslices", "-l", label, "-o", `jsonpath=${path}`]))
      .trim()
      .split("\n")
      .sort();
  };
  const hinted = (service: string, expected: readonly string[]) =>
    eventually(`hints of ${service}: ${expected.join()}`, 30_000, async () => {
      const found = await hintsOf(service);
      if (found.join() !== expected.join()) throw new Error(found.join());
      return true;
    });
  /** Who answers a pod of that node, of many times. */
  const answered = (from: string, service: string, expected: readonly string[]) =>
    eventually(`${from} by ${service} meets ${expected.join()}`, 30_000, async () => {
      const line = `for i in 1 2 3 4 5 6 7 8 9 10 11 12; do wget -T 3 -q -O - http://${service}/cgi-bin/who; done`;
      const met = new Set((await inPod(on(from), line)).split("\n"));
      if ([...met].sort().join() !== [...expected].sort().join()) throw new Error([...met].join());
      return true;
    });
  const hints = ["one:a", "three:c", "two:b"];
  for (const service of ["auto", "close"]) {
    await hinted(service, hints);
    await Promise.all(names.map((name) => answered(name, service, [name])));
  }
  // Zone c has none any more. Shares of zones cannot be made then, but who is close is still known.
  await hub.kubectl(`label pod ${on("three").metadata.name} zoned-`);
  await hinted("auto", ["one:", "two:"]);
  await hinted("close", ["one:a", "two:b"]);
  await Promise.all([
    answered("three", "auto", ["one", "two"]),
    answered("one", "auto", ["one", "two"]),
    answered("three", "close", ["one", "two"]),
    answered("one", "close", ["one"]),
  ]);
  await hub.kubectl(`label pod ${on("three").metadata.name} zoned=yes`);
  for (const service of ["auto", "close"]) await hinted(service, hints);
  await Promise.all(["auto", "close"].map((service) => answered("three", service, ["three"])));
  await hub.kubectl("delete service auto close");
});

test("a server that is killed is missed by nobody, and found again by all", async () => {
  const before = await lives();
  expect(before.split("\n")).toHaveLength(3);
  const clusterIp = await hub.kubectl(["get", "service", "who", "-o", "jsonpath={.spec.clusterIP}"]);
  await hub.stop("SIGKILL");
  // While it is away: from a node, by the address of the service, until all have answered.
  const met = new Set<string>();
  await eventually("services without a server", 30_000, async () => {
    const { stdout } = await devices[0]!.exec("curl", ["-s", "-m", "2", `http://${clusterIp}/cgi-bin/who`]);
    met.add(stdout.trim());
    return names.every((name) => met.has(name));
  });
  startHub();
  await serves();
  await Promise.all(names.map(isReady));
  await everybodyMeets();
  expect(await lives()).toBe(before);
});

test("a device that was flashed again joins with the new token once it is allowed to", async () => {
  const before = token();
  const mote = async (...args: string[]) => {
    const { code, stdout, stderr } = await hub.exec("build/dist/mote", [...args, "--kubeconfig", hub.kubeconfig]);
    expect([code, stderr]).toEqual([0, ""]);
    return stdout;
  };
  await mote("token", "rotate", "--token", before, "--new-token", "of-the-second-day");
  const device = devices[2]!;
  await device.stop();
  await device.exec("build/dist/mote", ["killall", ...device.folderFlags]);
  rmSync(device.dataDir, { recursive: true, force: true });
  const said = async (what: RegExp) => {
    await eventually(String(what), 30_000, async () => what.test(device.programLog()));
    await device.stop();
  };
  join(device, "three", "--token", before);
  await said(/does not take the token/);
  join(device, "three", "--token", token());
  await said(/"three" is taken by another device/);
  await mote("node", "replace", "three", "--ttl", "10m");
  join(device, "three", "--token", token());
  await isReady("three");
  expect(existsSync(`${device.dataDir}/agent`)).toBe(true);
  await eventually("its pod runs", 90_000, async () => {
    const own = (await pods()).find(({ spec }) => spec.nodeName === "three");
    return own !== undefined && (await fetched(own, "who")) !== "";
  });
  await everybodyMeets();
});
