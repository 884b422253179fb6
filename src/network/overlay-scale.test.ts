// What a node that comes, moves or goes costs the others among a thousand: its own lines, and no look at all that is there. The
// kernel is a record of what it was told, and can be changed behind the overlay's back.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import type { Commands } from "#platform/processes.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createOverlay } from "./overlay.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const peerCount = 999;

class FakeKernel implements Commands {
  readonly links = new Map<string, Record<string, unknown>>([
    [
      "eth0",
      {
        ...{ ifname: "eth0", mtu: 1500, flags: ["UP"] },
        addr_info: [{ family: "inet", local: "192.0.2.1", prefixlen: 24, scope: "0" }],
      },
    ],
  ]);
  readonly routes = new Map<string, Record<string, string>>();
  readonly neighbours = new Map<string, Record<string, unknown>>();
  readonly forwards = new Map<string, Record<string, string>>();
  /** Times that it was asked what is there, and what it was told. */
  looks = 0;
  told: string[] = [];
  failures = 0;

  async run(program: string, args: readonly string[], options: { readonly input?: string | Uint8Array } = {}) {
    const lines = String(options.input ?? "")
      .trim()
      .split("\n");
    if (args.includes("-force")) {
      if (this.failures > 0) {
        this.failures--;
        return { code: 1, stdout: "", stderr: "busy" };
      }
      for (const line of lines) this.#take(line);
      this.told.push(...lines);
      return { code: 0, stdout: "", stderr: "" };
    }
    if (lines[0] === "addr show") this.looks++;
    const stdout = program === "bridge" ? this.#list("fdb show") : lines.map((line) => this.#list(line)).join("\n");
    return { code: 0, stdout, stderr: "" };
  }

  #list(line: string): string {
    const kind = line.split(" ")[0];
    const all = { addr: this.links, route: this.routes, neigh: this.neighbours, fdb: this.forwards }[kind!];
    return JSON.stringify([...(all?.values() ?? [])]);
  }

  #take(line: string): void {
    const words = line.split(" ");
    const after = (word: string) => words[words.indexOf(word) + 1]!;
    const [kind, verb, subject = ""] = words;
    if (kind === "link" && verb === "add") {
      const info_data = { id: 1, port: 8472, learning: false, local: after("local") };
      this.links.set(subject, {
        ...{ ifname: subject, mtu: Number(after("mtu")), address: after("address"), flags: [], addr_info: [] },
        linkinfo: { info_kind: "vxlan", info_data },
      });
    } else if (kind === "link") {
      const link = this.links.get(after("dev"))!;
      if (words.includes("alias")) link["ifalias"] = after("alias");
      if (words.includes("up")) link["flags"] = ["UP"];
    } else if (kind === "addr") {
      const [local, bits] = subject.split("/");
      const info = { family: "inet", local, prefixlen: Number(bits), scope: "0" };
      this.links.get(after("dev"))!["addr_info"] = [info];
    } else {
      const all = { route: this.routes, neigh: this.neighbours, fdb: this.forwards }[kind!]! as Map<string, object>;
      if (verb === "delete") all.delete(subject);
      else if (kind === "route")
        all.set(subject, { dst: subject, gateway: after("via"), dev: after("dev"), protocol: after("proto") });
      else if (kind === "neigh") all.set(subject, { dst: subject, lladdr: after("lladdr"), state: ["PERMANENT"] });
      else all.set(subject, { mac: subject, dst: after("dst") });
    }
  }
}

const mac = (n: number) =>
  `02:00:00:00:${(n >> 8).toString(16).padStart(2, "0")}:${(n & 255).toString(16).padStart(2, "0")}`;
const range = (n: number) => `10.${42 + (n >> 8)}.${n & 255}.0`;
const nodeOf = (n: number, publicIp = `198.18.${n >> 8}.${n & 255}`): Node => ({
  metadata: {
    name: `n${n}`,
    annotations: {
      "flannel.alpha.coreos.com/backend-type": "vxlan",
      "flannel.alpha.coreos.com/backend-data": JSON.stringify({ VNI: 1, VtepMAC: mac(n) }),
      "flannel.alpha.coreos.com/kube-subnet-manager": "true",
      "flannel.alpha.coreos.com/public-ip": publicIp,
    },
  },
  spec: { podCIDR: `${range(n)}/24`, podCIDRs: [`${range(n)}/24`] },
});

const kernel = new FakeKernel();
const clock = new FakeClock();
const client = new Client(new FakeTransport());
const stop = new AbortController();
let folder = "";
let running: Promise<unknown> = Promise.resolve();

/** Some seconds pass until it is so. */
async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) {
    await clock.advance(100);
    // Files are real, and may be slow beside other work.
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(condition()).toBe(true);
}
const reset = () => {
  kernel.told = [];
  kernel.looks = 0;
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "mote-scale-"));
  const me: Node = { metadata: { name: "me" }, spec: { podCIDR: "10.42.0.0/24", podCIDRs: ["10.42.0.0/24"] } };
  await client.create(nodes, me);
  for (let n = 1; n <= peerCount; n++) await client.create(nodes, nodeOf(n));
  const informers = new InformerFactory({}, { client, clock, random: seededRandom(1), log: silentLogger });
  const overlay = createOverlay(
    {
      ...{ backend: "vxlan", nodeName: "me", nodeIps: ["192.0.2.1"], clusterCidrs: ["10.40.0.0/13"] },
      ...{ cniConfDir: folder, wireguardKeyFile: join(folder, "key") },
    },
    {
      ...{ client, informers, clock, commands: kernel, log: silentLogger },
      events: { record: () => {} },
      sysctl: { read: async () => "1", write: async () => {} },
      addresses: () => "same",
    },
  );
  running = Promise.all([overlay.run(stop.signal, () => {}), informers.run(stop.signal, () => {})]);
  await until(() => kernel.routes.size === peerCount);
  // A device that was made is looked at once more.
  await client.patch(nodes, { name: "n1" }, { metadata: { annotations: { "flannel.alpha.coreos.com/x": "1" } } });
  await until(() => kernel.looks === 2);
});

afterAll(async () => {
  stop.abort();
  await running;
  rmSync(folder, { recursive: true, force: true });
});

test("one that comes, moves and goes costs its own lines", async () => {
  reset();
  const n = peerCount + 1;
  await client.create(nodes, nodeOf(n));
  await until(() => kernel.told.length > 2);
  expect(kernel.told).toEqual([
    `neigh replace ${range(n)} lladdr ${mac(n)} dev flannel.1 nud permanent`,
    `fdb replace ${mac(n)} dev flannel.1 dst 198.18.3.232 self permanent`,
    `route replace ${range(n)}/24 via ${range(n)} dev flannel.1 onlink proto 109`,
  ]);
  kernel.told = [];
  const annotations = { "flannel.alpha.coreos.com/public-ip": "198.18.200.1" };
  await client.patch(nodes, { name: `n${n}` }, { metadata: { annotations } });
  await until(() => kernel.told.length > 0);
  expect(kernel.told).toEqual([`fdb replace ${mac(n)} dev flannel.1 dst 198.18.200.1 self permanent`]);
  kernel.told = [];
  await client.delete(nodes, { name: `n${n}` });
  await until(() => kernel.told.length > 2);
  expect(kernel.told).toEqual([
    `route delete ${range(n)}/24 dev flannel.1 proto 109`,
    `neigh delete ${range(n)} dev flannel.1`,
    `fdb delete ${mac(n)} dev flannel.1 dst 198.18.200.1 self`,
  ]);
  expect(kernel.looks).toBeLessThanOrEqual(1);
  expect([kernel.routes.size, kernel.neighbours.size, kernel.forwards.size]).toEqual([peerCount, peerCount, peerCount]);
});

test("what somebody took away comes back within a minute, and what could not be written is looked at", async () => {
  reset();
  kernel.routes.delete(`${range(7)}/24`);
  await clock.advance(61_000);
  await until(() => kernel.routes.size === peerCount);
  expect(kernel.looks).toBeGreaterThan(0);
  reset();
  kernel.failures = 1;
  const n = peerCount + 2;
  await client.create(nodes, nodeOf(n));
  await until(() => kernel.routes.size === peerCount + 1 && kernel.neighbours.size === peerCount + 1);
  expect(kernel.looks).toBeGreaterThan(0);
});
