// What a user can get wrong in flags and files, each answered by one sentence; and the folders that defaults name.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { serverFlags } from "#cli/server-flags.ts";
import { serverConfig } from "./config.ts";
import { readFlags } from "./read-flags.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-config-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const root = { isRoot: true, home: "/root" };
const user = { isRoot: false, home: "/home/u" };

async function configOf(args: readonly string[], runner = root) {
  const { values, warnings } = await readFlags(serverFlags, args, {});
  return serverConfig(values, warnings, runner);
}

function file(text: string): string {
  const path = join(folder, "config.yaml");
  writeFileSync(path, text);
  return path;
}

test("without root everything is under the home folder", async () => {
  expect(await configOf([])).toMatchObject({ dataDir: "/var/lib/mote", kubeconfigPath: "/etc/mote/kubeconfig.yaml" });
  expect(await configOf([], user)).toMatchObject({
    dataDir: "/home/u/.mote",
    serverDir: "/home/u/.mote/server",
    datastore: { endpoint: "sqlite:///home/u/.mote/server/db/state.db", etcdListen: [] },
    kubeconfigPath: "/home/u/.mote/kubeconfig.yaml",
  });
  expect(await configOf(["-d", "/d", "-o", "/k"], user)).toMatchObject({ dataDir: "/d", kubeconfigPath: "/k" });
});

test("two families: the first is the cluster's own", async () => {
  const ranges = ["--cluster-cidr", "fd00:42::/56,10.42.0.0/16", "--service-cidr", "fd00:43::/112, 10.43.0.0/16"];
  expect(await configOf([...ranges, "--node-ip", "192.0.2.1,2001:db8::1"])).toMatchObject({
    ...{ serviceCidr: "fd00:43::/112,10.43.0.0/16", apiServiceIp: "fd00:43::1", warnings: [] },
    ...{ nodeIps: ["2001:db8::1", "192.0.2.1"], advertiseAddress: "2001:db8::1", bindAddress: "::" },
  });
});

test("two families as a list, or a flag given twice", async () => {
  const path = file("cluster-cidr: [10.42.0.0/16, fd00:42::/56]\nservice-cidr: [10.44.0.0/16]\n");
  const services = ["--service-cidr", "10.43.0.0/16", "--service-cidr", "fd00:43::/112"];
  const nodeIps = ["--node-ip", "192.0.2.1", "-i", "2001:db8::1"];
  expect(await configOf(["-c", path, ...services, ...nodeIps])).toMatchObject({
    ...{ clusterCidr: "10.42.0.0/16,fd00:42::/56", serviceCidr: "10.43.0.0/16,fd00:43::/112" },
    ...{ nodeIps: ["192.0.2.1", "2001:db8::1"], clusterDns: ["10.43.0.10", "fd00:43::a"] },
  });
});

test("an address from outside is the node's own, however often the flag is given", async () => {
  const outside = ["--node-external-ip", "203.0.113.1", "--node-external-ip", "2001:DB8::1"];
  expect(await configOf(outside)).toMatchObject({ externalIps: ["203.0.113.1", "2001:db8::1"] });
  expect(await configOf([])).toMatchObject({ externalIps: [] });
});

test.each<[string, string, RegExp]>([
  ["number", "https-listen-port: abc\n", /^https-listen-port \(.*config.yaml\): "abc" is not allowed/],
  ["no YAML", "a: [\n", /^.*config.yaml: not readable as YAML/],
  ["a list", "- a\n", /a map of flag names to values is expected/],
  ["a map where a scalar belongs", "node-label: {a: b}\n", /key "node-label": a scalar or a list of scalars/],
  ["mode", 'write-kubeconfig-mode: "9"\n', /^write-kubeconfig-mode: "9" is not allowed; use octal/],
  ["address", "node-ip: 1.2.3\n", /^node-ip: "1.2.3" is not allowed/],
  ["an address from outside", "node-external-ip: [1.2.3.4, 1.2.3.5]\n", /^node-external-ip: "1.2.3.4,1.2.3.5" is not/],
  ["range", "service-cidr: 10.0.0.0\n", /^service-cidr: "10.0.0.0" is not allowed/],
])("a file with a bad value: %s", async (_name, text, message) => {
  await expect(configOf(["-c", file(text)])).rejects.toMatchObject({
    code: "CLI_USAGE",
    message: expect.stringMatching(message),
  });
});

test.each<[string, readonly string[], RegExp]>([
  [
    "a backend of k3s",
    ["--flannel-backend", "ipsec"],
    /^flannel-backend: ipsec is not supported; use vxlan, wireguard-native, host-gw or none$/,
  ],
  ["no backend", ["--flannel-backend", "vlan"], /^flannel-backend: "vlan" is not allowed; use vxlan, wireguard-native/],
  ["no device", ["--flannel-iface", "eth0 dev"], /^flannel-iface: "eth0 dev" is not allowed/],
  [
    "a second server with a datastore of its own",
    ["--server", "https://192.0.2.1:6443"],
    /^server: a further server needs a datastore that all servers reach; .*--datastore-endpoint.*mote agent/,
  ],
  [
    "a server that is no URL",
    ["--server", "192.0.2.1", "--datastore-endpoint", "http://127.0.0.1:2379"],
    /^server: "192.0.2.1" is not allowed; use https:\/\/HOST:PORT$/,
  ],
  [
    "a scheme of k3s",
    ["--datastore-endpoint", "mysql://u:secret@tcp(h)/db"],
    /^datastore-endpoint: mysql:\/\/ is not supported; use /,
  ],
  [
    "another",
    ["--datastore-endpoint", "postgres://u:secret@h/db"],
    /^datastore-endpoint: postgres:\/\/ is not supported/,
  ],
  ["another", ["--datastore-endpoint", "nats://h"], /^datastore-endpoint: nats:\/\/ is not supported/],
  ["a bad etcd", ["--datastore-endpoint", "https://h:99999"], /is not an address of etcd; use https:\/\/HOST:2379/],
  ["half a pair", ["--datastore-endpoint", "https://h", "--datastore-certfile", "/c"], /one needs the other/],
  ["files without TLS", ["--datastore-endpoint", "http://h", "--datastore-cafile", "/c"], /begin with https/],
  ["an open door", ["--etcd-listen", "http://0.0.0.0:2379"], /^etcd-listen: .* use unix:\/\/\/FILE or https/],
  ["two doors to one etcd", ["--datastore-endpoint", "http://h", "--etcd-listen", "unix:///s"], /external etcd/],
])("datastore flags that do not do: %s", async (_name, args, message) => {
  const refused = configOf(args);
  await expect(refused).rejects.toMatchObject({ code: "CLI_USAGE", message: expect.stringMatching(message) });
  await expect(refused).rejects.not.toMatchObject({ message: expect.stringContaining("secret") });
});

test("the datastore may be an etcd, and the own one be served as one", async () => {
  const files = ["--datastore-cafile", "/ca", "--datastore-certfile", "/c", "--datastore-keyfile", "/k"];
  expect((await configOf(["--datastore-endpoint", "https://a,https://[::1]:2380", ...files])).datastore).toEqual({
    endpoint: "https://a,https://[::1]:2380",
    caFile: "/ca",
    certFile: "/c",
    keyFile: "/k",
    etcdListen: [],
  });
  const { datastore } = await configOf(["--etcd-listen", "unix:///s,https://127.0.0.1:2379"]);
  expect(datastore.etcdListen).toEqual([
    { listen: { socketPath: "/s" }, secure: false, url: "unix:///s" },
    { listen: { host: "127.0.0.1", port: 2379 }, secure: true, url: "https://127.0.0.1:2379" },
  ]);
});

test("a file that was asked for and is not there or cannot be read is named", async () => {
  const missing = join(folder, "nope.yaml");
  await expect(configOf(["-c", missing])).rejects.toMatchObject({
    code: "CLI_USAGE",
    message: `config: there is no file ${missing}`,
  });
  await expect(configOf(["-c", folder])).rejects.toMatchObject({
    code: "CLI_USAGE",
    message: expect.stringContaining(`config: cannot read ${folder}: EISDIR`),
  });
  const path = file("debug: true\n");
  chmodSync(path, 0);
  // Root reads what it may not; for everybody else the sentence is the same as above.
  if (process.getuid?.() !== 0) {
    await expect(configOf(["-c", path])).rejects.toMatchObject({ code: "CLI_USAGE" });
  }
});

test("an unknown key is said, not refused", async () => {
  const path = file("nope: 1\n");
  expect((await configOf(["-c", path])).warnings).toEqual([`${path}: unknown key "nope" is ignored`]);
});
