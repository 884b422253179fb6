// What people do to a node and its pods with kubectl, against a real cluster: debug, attach, cp, drain; and what a scraper
// with a service account's token gets from the node itself.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, Host } from "./host.ts";

const host = new Host("node");
const image = "mote.local/busybox:1";
const k = (args: string | readonly string[], input?: string) =>
  host.kubectl(args, input === undefined ? {} : { input });

beforeAll(async () => {
  await host.open();
  await host.up();
  await k("wait --for=condition=Ready node --all --timeout=60s");
}, 280_000);
afterAll(() => host.close(), 120_000);

const pod = (name: string, script: string, more = "") => `apiVersion: v1
kind: Pod
metadata: {name: ${name}, labels: {app: ${name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "${image}", command: [sh, -c, "${script}"]${more}}
`;

test("kubectl debug looks into a running pod", async () => {
  await k("apply -f -", pod("target", "exec sleep 1234"));
  await k("wait --for=condition=Ready pod/target --timeout=30s");
  const args = [
    "debug",
    "target",
    `--image=${image}`,
    "--target=main",
    "--container=looker",
    "-q",
    "--attach=true",
    "--",
  ];
  await k([...args, "sh", "-c", "ps; exit 0"]);
  await eventually("what it saw", 15_000, async () => /sleep 1234/.test(await k("logs target -c looker")));
  const copy = [
    "debug",
    "target",
    `--image=${image}`,
    "--copy-to=copied",
    "--container=looker",
    "-q",
    "--attach=false",
    "--",
  ];
  await k([...copy, "sleep", "1000"]);
  await k("wait --for=condition=Ready pod/copied --timeout=30s");
  await k("delete pod target copied --now");
}, 120_000);

test("attach reaches a program's own input and output", async () => {
  // With stdinOnce the program's input ends with that of the command, and its output is heard to the end. Without, containerd
  // lets go of both at once, and what the program answers after that is nobody's.
  await k("apply -f -", pod("reader", "while read x; do echo got $x; done", ", stdin: true, stdinOnce: true"));
  await k("wait --for=condition=Ready pod/reader --timeout=30s");
  const output = await host.kubectlRaw(["attach", "-i", "reader", "-q"], { input: "one\ntwo\n", timeoutMs: 30_000 });
  expect(output.stdout).toContain("got one\ngot two");
  await k("delete pod reader --now");
}, 60_000);

test("cp brings files in and out", async () => {
  const folder = mkdtempSync("/tmp/mote-cp-");
  try {
    await k("apply -f -", pod("files", "exec sleep 1000"));
    await k("wait --for=condition=Ready pod/files --timeout=30s");
    const data = Buffer.alloc(300_000, "0123456789");
    writeFileSync(join(folder, "in"), data);
    await k(["cp", join(folder, "in"), "files:/tmp/there"]);
    await k(["cp", "files:/tmp/there", join(folder, "out")]);
    expect(readFileSync(join(folder, "out")).equals(data)).toBe(true);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 60_000);

test("the node tells its settings, and a token with the right to read metrics is enough for a scraper", async () => {
  const node = (await k("get nodes -o name")).trim().replace("node/", "");
  const configz = JSON.parse(await k(["get", "--raw", `/api/v1/nodes/${node}/proxy/configz`]));
  expect(configz.kubeletconfig).toMatchObject({ kind: "KubeletConfiguration", maxPods: 110 });
  await k("create serviceaccount scraper");
  const token = (await k("create token scraper")).trim();
  const get = async (path: string, header: readonly string[]) =>
    (await host.exec("curl", ["-sk", "-w", "\n%{http_code}", ...header, `https://127.0.0.1:10250${path}`])).stdout;
  const bearer = ["-H", `Authorization: Bearer ${token}`];
  // Refusals are remembered for a while, so that one is somebody else's.
  await k("create serviceaccount stranger");
  const strange = ["-H", `Authorization: Bearer ${(await k("create token stranger")).trim()}`];
  expect(await get("/metrics/cadvisor", [])).toMatch(/\n401$/);
  expect(await get("/metrics/cadvisor", strange)).toMatch(/\n403$/);
  await k("create clusterrole scrape --verb=get --resource=nodes/metrics");
  await k("create clusterrolebinding scrape --clusterrole=scrape --serviceaccount=default:scraper");
  await eventually("the scraper to be let in", 60_000, async () => {
    const answer = await get("/metrics/cadvisor", bearer);
    return /container_memory_working_set_bytes\{.*pod="files"/.test(answer) && answer.endsWith("\n200");
  });
  expect(await get("/stats/summary", bearer)).toMatch(/\n403$/);
}, 120_000);

test("drain empties the node, and uncordon lets pods in again", async () => {
  const node = (await k("get nodes -o name")).trim().replace("node/", "");
  await k([
    "create",
    "deployment",
    "web",
    `--image=${image}`,
    "--replicas=2",
    "--",
    "sh",
    "-c",
    "trap exit TERM; sleep 1000 & wait",
  ]);
  await k("rollout status deploy/web --timeout=60s");
  await k(`drain ${node} --ignore-daemonsets --delete-emptydir-data --force --timeout=60s`);
  await eventually("pods that wait", 20_000, async () => {
    const phases = await k("get pods -l app=web -o jsonpath={.items[*].status.phase}");
    return phases === "Pending Pending";
  });
  await k(`uncordon ${node}`);
  await k("rollout status deploy/web --timeout=60s");
  await k("delete deploy web");
}, 180_000);
