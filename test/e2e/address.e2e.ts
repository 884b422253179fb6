// A server with its node on a machine without any network, which then gets an address, and later another one: it starts, and
// whoever asks finds it where it is.
import { afterAll, beforeAll, expect, test } from "vitest";
import { closeHosts, eventually, Host } from "./host.ts";

const host = new Host("moving");
const start = () => host.start(["server", "--node-name", "mover", "--write-kubeconfig", host.kubeconfig]);

const ip = async (...args: string[]) => expect(await host.exec("ip", args)).toMatchObject({ code: 0 });
const get = (what: string, path: string) => host.kubectl(["get", ...what.split(" "), "-o", `jsonpath={${path}}`]);

/** Node, endpoints and certificate. */
async function isAt(address: string): Promise<void> {
  await eventually("the node is Ready", 60_000, async () =>
    / Ready /.test(await host.kubectl("get node mover --no-headers")),
  );
  const internal = '.status.addresses[?(@.type=="InternalIP")].address';
  await eventually("the node says so", 30_000, async () => (await get("node mover", internal)) === address);
  const slice = () => get("endpointslice -n default kubernetes", ".endpoints[*].addresses[*]");
  await eventually("the endpoints say so", 30_000, async () => (await slice()) === address);
  const old = () => get("endpoints -n default kubernetes", ".subsets[*].addresses[*].ip");
  await eventually("the old endpoints say so", 30_000, async () => (await old()) === address);
  const ca = `${host.dataDir}/server/tls/server-ca.crt`;
  await eventually("the certificate says so", 30_000, async () => {
    const answer = await host.exec("curl", ["-sS", "-m", "5", "--cacert", ca, `https://${address}:6443/ping`]);
    return answer.stdout === "pong";
  });
}

beforeAll(async () => {
  await host.open();
  await ip("address", "flush", "dev", "eth0");
  await ip("route", "flush", "table", "main");
});

afterAll(() => closeHosts(host));

test("a server starts without any network, and its pods reach it", async () => {
  start();
  await eventually("/readyz", 60_000, async () => (await host.kubectl("get --raw /readyz")) === "ok");
  await isAt("192.0.2.1");
  await eventually("the account of pods", 30_000, () => host.kubectl("get serviceaccount default"));
  await host.kubectl("run box --image=mote.local/busybox:1 -- sleep 9999");
  await host.kubectl("wait --for=condition=Ready pod/box --timeout=180s");
  await pingsFromPod();
});

const pingsFromPod = () =>
  eventually("the API from a pod", 30_000, async () => {
    const url = "https://kubernetes.default.svc.cluster.local/version";
    const asks = ["exec", "box", "--", "wget", "-T", "3", "-q", "-O", "-", "--no-check-certificate", url];
    return (await host.kubectl(asks)).includes("gitVersion");
  });

test("it gets an address, and then another one", async () => {
  for (const address of ["192.168.77.2", "192.168.77.9"]) {
    await ip("address", "flush", "dev", "eth0");
    await ip("address", "add", `${address}/24`, "dev", "eth0");
    await isAt(address);
    await pingsFromPod();
  }
});

test("it starts with a new address", async () => {
  await host.stop();
  await ip("address", "flush", "dev", "eth0");
  await ip("address", "add", "192.168.77.4/24", "dev", "eth0");
  start();
  await isAt("192.168.77.4");
  expect(await get("pod box", ".status.containerStatuses[0].restartCount")).toBe("0");
  await pingsFromPod();
});
