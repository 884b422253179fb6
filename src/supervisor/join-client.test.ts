// A node whose kept files are cut or spoilt, without any server: it says so and goes on trying, and believes nobody for want of
// something better. How it joins and renews is tested with a server in test/scenario/join.test.ts.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { openMembership } from "./join-client.ts";
import { generateKey, issueCertificate } from "./pki/certificate.ts";

const random = seededRandom(11);
const times = { notBeforeMs: 0, notAfterMs: Date.UTC(2090, 0, 1) };
const settings = {
  ...{ ClusterIPRange: { IP: "10.42.0.0", Mask: "//8AAA==" }, ServiceIPRange: { IP: "10.43.0.0", Mask: "//8AAA==" } },
  ...{ ClusterDNS: "10.43.0.10", ClusterDomain: "cluster.local", FlannelBackend: "vxlan", Mote: true },
};
let folder: string;
let agent: string;

beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-kept-");
  agent = `${folder}/agent`;
  mkdirSync(agent);
  for (const name of ["server", "client"] as const) {
    const key = generateKey();
    const own = { commonName: `mote-${name}-ca`, ...times } as const;
    const authority = {
      certificate: issueCertificate({ ...own, usage: "authority" }, key, undefined, random),
      key,
    };
    writeFileSync(`${agent}/${name}-ca.crt`, authority.certificate);
    const leaves = name === "server" ? ["serving-kubelet"] : ["client-kubelet", "client-k3s-controller"];
    for (const leaf of leaves) {
      const leafKey = generateKey();
      const order = { commonName: leaf, usage: name, ...times } as const;
      writeFileSync(`${agent}/${leaf}.crt`, issueCertificate(order, leafKey, authority, random));
      writeFileSync(`${agent}/${leaf}.key`, leafKey);
    }
  }
  writeFileSync(`${agent}/cluster.json`, JSON.stringify(settings));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** "begins": with what was kept; "tries": it asks a server, which is not there; else why it ends. */
async function outcome(token?: string): Promise<string> {
  const stop = new AbortController();
  const log = createLogger((_, message) => {
    if (message.startsWith("cannot join yet")) stop.abort(new Error("tries"));
  }, "warn");
  try {
    const membership = await openMembership(
      {
        ...{ server: "https://127.0.0.1:1", token, folder: agent, nodeName: "n", nodeIps: ["192.0.2.1"] },
        passwordFile: `${folder}/password`,
      },
      { clock, random, log },
      stop.signal,
    );
    return membership.hasJoinedBefore ? "begins" : "joined";
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String((error as Error).message);
  }
}

test("what is whole is begun with", async () => {
  expect(await outcome()).toBe("begins");
});

const kept = [
  "cluster.json",
  "server-ca.crt",
  "client-ca.crt",
  "client-kubelet.crt",
  "client-kubelet.key",
  "serving-kubelet.key",
];
const spoilings: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
  cut: (bytes) => bytes.subarray(0, bytes.length >> 1),
  emptied: () => Buffer.alloc(0),
  noise: (bytes) => Buffer.from(random.bytes(bytes.length)),
  zeroes: (bytes) => Buffer.alloc(bytes.length),
};
test.each(kept.flatMap((file) => Object.keys(spoilings).map((how) => [file, how] as const)))(
  "%s, %s: it asks a server again, and only one that it can know",
  async (file, how) => {
    writeFileSync(`${agent}/${file}`, spoilings[how]!(readFileSync(`${agent}/${file}`)));
    expect(await outcome("a-token")).toBe("tries");
    // Without token and without authority there is nobody to believe.
    expect(await outcome()).toBe(file === "server-ca.crt" ? "JOIN_TOKEN" : "tries");
  },
);

test.each(Object.keys(settings).filter((name) => name !== "Mote"))(
  "settings whose %s is spoilt are asked for again",
  async (name) => {
    for (const value of [null, 7, "", [], {}]) {
      writeFileSync(`${agent}/cluster.json`, JSON.stringify({ ...settings, [name]: value }));
      expect(await outcome()).toBe("tries");
    }
  },
);
