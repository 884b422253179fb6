// A server without a node and an agent, each with a network of its own and a wire between: the agent joins with the token and
// nothing else, its pods are reached through the tunnel, and neither a restart of the agent nor of the server touches them,
// nor new authorities.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { closeHosts, connectHosts, eventually, Host } from "./host.ts";

const server = new Host("server", "192.168.77.2");
const device = new Host("agent", "192.168.77.3");
const url = `https://${server.address}:6443`;

const startServer = () =>
  server.start(["server", "--disable-agent", "--node-name", "hub", "--write-kubeconfig", server.kubeconfig]);
const startAgent = (...more: string[]) => device.start(["agent", "--server", url, "--node-name", "leaf", ...more]);

const token = () => readFileSync(`${server.dataDir}/server/token`, "utf8").trim();
const serves = () => eventually("/readyz", 60_000, async () => (await server.kubectl("get --raw /readyz")) === "ok");
const isReady = () =>
  eventually("leaf is Ready", 60_000, async () => / Ready /.test(await server.kubectl("get node leaf --no-headers")));

beforeAll(async () => {
  await server.open();
  await device.open();
  await connectHosts(server, device);
  // The node's API is reached through the tunnel, or not at all.
  const rules =
    "table inet closed { chain in { type filter hook input priority 0; iifname eth0 tcp dport 10250 reject; }; }";
  expect(await device.exec("nft", ["-f", "-"], { input: rules })).toMatchObject({ code: 0 });
  startServer();
  await serves();
});

/** Folders of `mote machine`, which has its own. */
const at = (name: string) => join(device.folder, "machine", name);

afterAll(async () => {
  try {
    await device.stop();
    // The data folder is one in that of the machine; there is none where the last test did not come to be.
    await device.exec("build/dist/mote", ["killall", "--data-dir", `${at("data")}/mote`, "--run-dir", at("run")]);
  } finally {
    await closeHosts(device, server);
  }
});

test("who cannot join is told why, and leaves nothing running", async () => {
  const refused = async (...args: string[]) => {
    const where = ["--data-dir", `${device.folder}/other`, "--run-dir", `${device.folder}/other-run`];
    const { code, stderr } = await device.exec("build/dist/mote", ["agent", ...where, "--node-name", "x", ...args]);
    expect(code).toBe(1);
    return stderr;
  };
  expect(await refused("--server", url, "--token", `${token()}x`)).toMatch(/does not take the token/);
  expect(await refused("--server", url, "--token", `K10${"0".repeat(64)}::server:x`)).toMatch(
    /not the one that the token/,
  );
  expect(await refused("--server", url)).toMatch(/--token/);
  expect(await refused("--token", token())).toMatch(/--server https:\/\/HOST:6443/);
});

let bootstrapToken = "";

test("bootstrap tokens are made, listed and deleted", async () => {
  const mote = async (...args: string[]) => {
    const kubeconfig = ["--kubeconfig", server.kubeconfig];
    const { code, stdout, stderr } = await server.exec("build/dist/mote", ["token", ...args, ...kubeconfig]);
    expect([code, stderr]).toEqual([0, ""]);
    return stdout.trim();
  };
  const made = await mote("create", "--ttl", "2h", "--description", "for the test");
  expect(made).toMatch(/^K10[0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16}$/);
  expect(made.split("::")[0]).toBe(token().split("::")[0]);
  const [id = ""] = made.split("::")[1]!.split(".");
  expect(await mote("list", "--output", "wide")).toMatch(
    new RegExp(`${id}.* 1\\d\\dm .*authentication,signing +for the test +system:bootstrappers:k3s`),
  );
  const other = (await mote("create")).split("::")[1]!;
  expect(await mote("delete", other)).toBe(`bootstrap token "${other.split(".")[0]}" deleted`);
  expect(await mote("list")).not.toContain(other);
  bootstrapToken = made;

  const before = token();
  const rotated = await mote("rotate", "--token", before, "--new-token", "a-new-password");
  expect(rotated).toBe(`${before.split("::")[0]}::server:a-new-password`);
  expect(token()).toBe(rotated);
});

test("an agent is Ready soon, and its pods are within reach", async () => {
  startAgent("--token", bootstrapToken);
  const startedMs = performance.now();
  await isReady();
  console.log(`Ready after ${Math.round(performance.now() - startedMs)} ms`);
  await server.kubectl([
    "run",
    "box",
    "--image=mote.local/busybox:1",
    ...pinned,
    "--",
    "sh",
    "-c",
    "echo hello; sleep 9999",
  ]);
  await server.kubectl("wait --for=condition=Ready pod/box --timeout=180s");
  await eventually("logs", 30_000, async () => (await server.kubectl("logs box")) === "hello\n");
  await reach();
});

const pinned = ["--overrides", JSON.stringify({ spec: { nodeName: "leaf" } }), "--restart=Always"];

/** Logs and a command, through the server. */
async function reach(): Promise<void> {
  expect(await server.kubectl("logs box")).toBe("hello\n");
  expect(await server.kubectl(["exec", "box", "--", "hostname"])).toBe("box\n");
}

const container = async () => {
  const { status } = JSON.parse(await server.kubectl("get pod box -o json")) as {
    status: { containerStatuses: { containerID: string; restartCount: number }[] };
  };
  const [{ containerID, restartCount } = { containerID: "", restartCount: -1 }] = status.containerStatuses;
  return { containerID, restartCount };
};

test("pods find services by name, and the API", async () => {
  const name = "kubernetes.default.svc.cluster.local";
  expect(await server.kubectl(["exec", "box", "--", "nslookup", name])).toMatch(/10\.43\.0\.1\b/);
  const asks = ["exec", "box", "--", "wget", "-q", "-O", "-", "--no-check-certificate", "https://10.43.0.1/version"];
  expect(await server.kubectl(asks)).toMatch(/gitVersion/);
});

test("an agent that starts again needs no token and keeps its pods", async () => {
  const before = await container();
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    await device.stop(signal);
    startAgent();
    await eventually("logs again", 30_000, async () => (await server.kubectl("logs box")) === "hello\n");
    await reach();
  }
  expect(await container()).toEqual(before);
  expect(before.restartCount).toBe(0);
});

test("a server that starts again finds its agent", async () => {
  const before = await container();
  await server.stop("SIGKILL");
  startServer();
  await serves();
  await eventually("logs again", 60_000, async () => (await server.kubectl("logs box")) === "hello\n");
  await reach();
  expect(await container()).toEqual(before);
});

test("an agent starts without its server, which finds it later", async () => {
  const before = await container();
  await device.stop();
  await server.stop();
  startAgent();
  await eventually("it waits", 60_000, async () =>
    /cannot register the node|cannot be asked/.test(device.programLog()),
  );
  startServer();
  await serves();
  await eventually("logs again", 60_000, async () => (await server.kubectl("logs box")) === "hello\n");
  expect(await container()).toEqual(before);
  await isReady();
});

/** A command in the pod until it succeeds; what was said meanwhile. */
async function complaints(): Promise<string> {
  let said = "";
  await eventually("a command in the pod", 60_000, async () => {
    const { code, stdout, stderr } = await server.kubectlRaw(["exec", "box", "--", "hostname"]);
    if (code !== 0) said += stderr;
    return code === 0 && stdout === "box\n";
  });
  return said;
}

test("an agent whose address changes is what it was to its server, which waits for no certificate", async () => {
  const before = await container();
  const ip = async (...args: string[]) => expect(await device.exec("ip", args)).toMatchObject({ code: 0 });
  const known = () => server.kubectl("get node leaf -o jsonpath={.status.addresses[?(@.type=='InternalIP')].address}");
  let at = device.address;
  for (const next of ["192.168.77.9", device.address]) {
    await ip("addr", "del", `${at}/24`, "dev", "eth0");
    await ip("addr", "add", `${next}/24`, "dev", "eth0");
    await ip("route", "replace", "default", "via", "192.168.77.1", "dev", "eth0");
    at = next;
    let said = "";
    // Before the Node says so, in that moment, and after.
    await eventually("the Node has it", 60_000, async () => {
      said += await complaints();
      return (await known()) === next;
    });
    for (let i = 0; i < 3; i++) said += await complaints();
    expect(said).not.toMatch(/certificate|Unauthorized|credentials/);
  }
  expect(await container()).toEqual(before);
});

/** On the server's machine. */
async function certificate(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await server.exec("build/dist/mote", [
    ...["certificate", ...args, "--data-dir", server.dataDir],
  ]);
  expect([code, stderr]).toEqual([0, ""]);
  return stdout;
}
const fileOf = (host: Host, path: string) => readFileSync(join(host.dataDir, path), "utf8");

test("certificates are checked, and replaced while the server runs", async () => {
  const serving = "server/tls/serving-kube-apiserver.crt";
  const short = await certificate("check");
  expect(short).toMatch(/^client-admin.crt +system:admin +20\d\d-\d\d-\d\d +\d+ \w+ +OK$/m);
  expect(short.split("\n").filter((line) => line.length > 100)).toEqual([]);
  const table = await certificate("check", "--output", "wide");
  expect(table).toMatch(/^FILENAME +SUBJECT +USAGES +EXPIRES +RESIDUAL TIME +STATUS$/m);
  expect(table).toMatch(/^client-admin.crt +system:admin +ClientAuth .* OK$/m);
  expect(table).toMatch(/^client-ca.crt +mote-client-ca@\d+ +CertSign .* OK$/m);
  const script = "touch /tmp/begun; while ! test -e /tmp/over; do sleep 0.2; done; echo over";
  const open = server.kubectl(["exec", "box", "--", "sh", "-c", script]);
  await eventually("the stream is there", 60_000, async () => {
    return (await server.kubectlRaw("exec box -- test -e /tmp/begun".split(" "))).code === 0;
  });
  const before = fileOf(server, serving);
  expect(await certificate("rotate")).toContain("the server has issued new ones");
  expect(fileOf(server, serving)).not.toBe(before);
  const shown = async () => {
    const at = ["s_client", "-connect", "127.0.0.1:6443"];
    return (await server.exec("openssl", at, { input: "" })).stdout.replaceAll(/\s/g, "");
  };
  const [leaf = ""] = /-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/.exec(fileOf(server, serving)) ?? [];
  await eventually("it is shown", 30_000, async () => (await shown()).includes(leaf.replaceAll(/\s/g, "")));
  await server.kubectl("get nodes");
  // A stream from before goes on to its end.
  await server.kubectl("exec box -- touch /tmp/over");
  expect(await open).toBe("over\n");
});

test("nodes go on when the authorities are replaced", async () => {
  const before = await container();
  const [oldToken, oldAuthority] = [token(), fileOf(server, "server/tls/server-ca.crt")];
  const said = await certificate("rotate-ca");
  expect(said).toMatch(/Restart every server/);
  expect(fileOf(server, "server/tls/server-ca.crt")).toBe(oldAuthority);
  await server.stop();
  startServer();
  await serves();
  const authority = fileOf(server, "server/tls/server-ca.crt");
  expect(authority).toContain(oldAuthority);
  expect(token()).not.toBe(oldToken);
  expect(said).toContain(token());
  // For openssl too, who knows the old one only.
  const verify = ["verify", "-CAfile", `${device.dataDir}/agent/server-ca.crt`, "-untrusted"];
  const leaf = `${server.dataDir}/server/tls/serving-kube-apiserver.crt`;
  expect(await server.exec("openssl", [...verify, leaf, leaf])).toMatchObject({ code: 0 });
  // Whatever it has not heard of yet, the old ones vouch for.
  expect(await complaints()).not.toMatch(/certificate|Unauthorized|credentials/);
  // The node learns of them by itself.
  await eventually("the node knows them", 90_000, async () => {
    await server.kubectlRaw(["logs", "box"]);
    return fileOf(device, "agent/server-ca.crt") === authority;
  });
  await eventually("logs again", 60_000, async () => (await server.kubectl("logs box")) === "hello\n");
  await reach();
  await isReady();
  expect(await container()).toEqual(before);
});

test("a device that takes the name of another is refused", async () => {
  const args = ["agent", "--server", url, "--token", token(), "--node-name", "leaf"];
  const where = ["--data-dir", `${device.folder}/flashed`, "--run-dir", `${device.folder}/flashed-run`];
  const { code, stderr } = await device.exec("build/dist/mote", [...args, ...where]);
  expect([code, stderr]).toEqual([
    1,
    expect.stringMatching(/"leaf" is taken by another device.*mote node replace leaf/s),
  ]);
});

test("a device that was flashed again joins by its token file, under its name when that is allowed", async () => {
  await server.kubectl("delete pod box --grace-period=1");
  await device.stop();
  await device.exec("build/dist/mote", ["killall", ...device.folderFlags]);
  const allow = ["node", "replace", "leaf", "--ttl", "10m", "--kubeconfig", server.kubeconfig];
  expect(await server.exec("build/dist/mote", allow)).toMatchObject({
    ...{ code: 0, stdout: expect.stringMatching(/^node "leaf" may be taken by another device, once and until 20/) },
  });
  const uidOf = () => server.kubectl("get node leaf -o jsonpath={.metadata.uid}");
  const uid = await uidOf();
  for (const name of ["boot", "data", "etc"]) mkdirSync(at(name), { recursive: true });
  writeFileSync(at("boot/token"), `server=${url} token=${token()}\n`);
  writeFileSync(at("boot/mote.yaml"), "machine: {hostname: leaf}\n");
  const places = ["--boot", at("boot"), "--data", at("data"), "--etc", at("etc"), "--run-dir", at("run")];
  const own = ["--no-disk", "--no-network", "--no-clock", "--no-watchdog"];
  device.start(["machine", ...places, ...own], []);
  const says = () => (existsSync(at("boot/mote-status.txt")) ? readFileSync(at("boot/mote-status.txt"), "utf8") : "");
  await eventually("the status file says so", 90_000, async () => says().startsWith("The device is ready."));
  expect(says()).not.toContain(token());
  await isReady();
  expect(await uidOf()).toBe(uid);
  expect(await device.stop()).toBe(0);
});
