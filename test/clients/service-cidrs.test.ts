// ServiceCIDR and IPAddress as clients meet them on a server that has them on: discovery, OpenAPI, protobuf, kubectl.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isProtobuf } from "#model/protobuf.ts";
import { systemClock } from "#platform/clock.ts";
import { pinnedKubectl } from "#scripts/dev/kubectl.ts";
import { ClientCluster } from "./cluster.ts";

const kubectl = await pinnedKubectl().catch((error: unknown) => {
  if (process.env["CI"] === "true") throw error;
  return undefined;
});
const api = "/apis/networking.k8s.io/v1beta1";

let cluster: ClientCluster;
let home: string;
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), "mote-kubectl-"));
  cluster = await ClientCluster.start([
    ...["--kube-apiserver-arg", "runtime-config=networking.k8s.io/v1beta1=true"],
    ...["--kube-apiserver-arg", "feature-gates=MultiCIDRServiceAllocator=true"],
  ]);
});
afterAll(async () => {
  await cluster?.close();
  rmSync(home, { recursive: true, force: true });
});
const get = async (path: string) => {
  const { status, body, text } = await cluster.ask("GET", path);
  if (status !== 200) throw new Error(`${path}: ${status} ${text.slice(0, 300)}`);
  return body;
};

test("it is in discovery and in both forms of OpenAPI", async () => {
  const { versions, preferredVersion } = await get("/apis/networking.k8s.io");
  expect(versions.map(({ version }: { version: string }) => version)).toEqual(["v1", "v1beta1"]);
  expect(preferredVersion.version).toBe("v1");
  const { resources } = await get(api);
  expect(resources.map(({ name }: { name: string }) => name)).toEqual([
    "ipaddresses",
    "servicecidrs",
    "servicecidrs/status",
  ]);
  const { paths } = await get("/openapi/v3");
  const document = await get(paths["apis/networking.k8s.io/v1beta1"].serverRelativeURL);
  expect(document.paths[`${api}/servicecidrs/{name}/status`]).toBeDefined();
  const { definitions } = await get("/openapi/v2");
  expect(definitions["io.k8s.api.networking.v1beta1.ServiceCIDR"].properties.spec).toBeDefined();
});

test("Go's clients get protobuf", async () => {
  const accept = "application/vnd.kubernetes.protobuf";
  const { headers, text } = await cluster.ask("GET", `${api}/ipaddresses`, { headers: { accept } });
  expect(headers["content-type"]).toBe(accept);
  expect(isProtobuf(Buffer.from(text))).toBe(true);
});

describe.skipIf(kubectl === undefined)("kubectl", () => {
  const run = (command: string, stdin = ""): Promise<string> =>
    new Promise((resolve, reject) => {
      const env = {
        HOME: home,
        KUBECONFIG: join(cluster.folder, "kubeconfig"),
        PATH: process.env["PATH"],
        LANG: "C.UTF-8",
      };
      const child = spawn(kubectl!, command.split(" "), { env, stdio: ["pipe", "pipe", "pipe"], timeout: 30_000 });
      let said = "";
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += String(chunk)));
      child.on("error", reject);
      child.on("close", () => resolve(said.trim().replace(/ {2,}/g, "  ")));
      child.stdin.end(stdin);
    });
  const until = async (command: string, wanted: RegExp): Promise<void> => {
    const endMs = systemClock.monotonicMs() + 30_000;
    for (let last = await run(command); !wanted.test(last); last = await run(command)) {
      if (systemClock.monotonicMs() > endMs) throw new Error(`${command}: ${last}`);
      await systemClock.sleep(200);
    }
  };

  test("shows, explains and waits for them", { timeout: 120_000 }, async () => {
    expect(await run("get servicecidrs")).toMatch(/^NAME +CIDRS +AGE\nkubernetes +10\.43\.0\.0\/16 +\d+s$/);
    expect(await run("get ip 10.43.0.1")).toMatch(/^NAME +PARENTREF\n10\.43\.0\.1 +services\/default\/kubernetes$/);
    expect(await run("explain servicecidr.spec.cidrs")).toMatch(/GROUP: +networking.k8s.io\nKIND: +ServiceCIDR/);
    const object = { apiVersion: "networking.k8s.io/v1beta1", kind: "ServiceCIDR", metadata: { name: "more" } };
    const apply = (cidr: string) => run("apply -f -", JSON.stringify({ ...object, spec: { cidrs: [cidr] } }));
    expect(await apply("10.44.0.0/24")).toBe("servicecidr.networking.k8s.io/more created");
    expect(await apply("10.45.0.0/24")).toContain(
      'spec.cidrs: Invalid value: []string{"10.45.0.0/24"}: field is immutable',
    );
    expect(await run("wait --for=condition=Ready --timeout=30s servicecidr/more")).toContain("condition met");
    expect(await run("create service clusterip web --tcp=80 --clusterip=10.44.0.9")).toBe("service/web created");
    expect(await run("get ip 10.44.0.9 -o jsonpath={.metadata.labels}")).toBe(
      '{"ipaddress.kubernetes.io/ip-family":"IPv4","ipaddress.kubernetes.io/managed-by":"ipallocator.k8s.io"}',
    );
    await run("delete servicecidr more --wait=false");
    await until("get servicecidr more -o jsonpath={.status.conditions[0].reason}", /^Terminating$/);
    expect(await run("create service clusterip late --tcp=80 --clusterip=10.44.0.10")).toContain(
      "the provided network does not match the current range",
    );
    expect(await run("delete service web")).toContain("deleted");
    expect(await run("get ip 10.44.0.9")).toContain("NotFound");
  });
});
