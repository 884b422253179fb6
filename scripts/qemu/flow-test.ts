// One way an image starts, end to end on an emulated board: files dropped on the boot partition, first start to Ready, a pod of
// examples/ used from outside, what the device wrote back, a restart that keeps the cluster, an orderly switch-off. Steps
// as data; each has its time. The console stays in build/qemu/.
import { mkdir, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { seconds } from "#scripts/stages.ts";
import { problemIn } from "./console.ts";
import { Device, freePort, freshDisk, podOnce } from "./device.ts";
import { FatPartition } from "./disk.ts";
import type { Flow } from "./machines.ts";
import { type Counts, must, runSteps, type Step } from "./steps.ts";

/** Emulation on two busy cores: generous, because a machine that is slow is no failure. */
const quickTimeouts = { bootMs: 600_000, clusterMs: 300_000, offMs: 180_000, requestMs: 60_000 };
const token = "test-token-0123456789abcdef";
const nodeName = "porch-camera";

interface FlowTest {
  readonly flow: Flow;
  readonly folder: string;
  readonly webPort: number;
  readonly apiPort: number;
  readonly timeouts: typeof quickTimeouts;
  disk: string;
  device: Device;
}

const steps: readonly Step<FlowTest>[] = [
  {
    name: "starts: PID 1, Node.js with WebAssembly, API, node Ready",
    run: async (test) => {
      const { vm } = test.device;
      const { bootMs } = test.timeouts;
      const pid1Ms = await vm.waitForMarker("pid1", bootMs);
      const apiMs = await vm.waitForMarker("api", bootMs);
      const nodeMs = await vm.waitForMarker("node", bootMs);
      return `PID 1 ${seconds(pid1Ms)}, API ${seconds(apiMs)}, Ready ${seconds(nodeMs)}`;
    },
  },
  {
    name: "kubectl outside sees the node Ready, named by mote.yaml",
    run: async (test) => {
      await test.device.fetchKubeconfig(test.timeouts.clusterMs);
      const output = await test.device.until(
        ["get", "nodes", "-o", "jsonpath={.items[0].metadata.name} {.items[0].status.nodeInfo.architecture}"],
        (text) => text.startsWith(`${nodeName} `),
        test.timeouts.clusterMs,
      );
      await test.device.kubectl([
        "wait",
        "--for=condition=Ready",
        `node/${nodeName}`,
        inSeconds(test.timeouts.requestMs),
      ]);
      return output;
    },
  },
  {
    name: "the token worked and is gone from the card, mote.yaml moved, status written",
    run: async (test) => {
      const boot = await FatPartition.of(test.disk);
      let names: string[] = [];
      let status = "";
      // The status follows the state by a moment.
      for (const endMs = performance.now() + 60_000; performance.now() < endMs; await sleep(1000)) {
        names = await boot.list();
        status = names.includes("mote-status.txt") ? await boot.read("mote-status.txt") : "";
        if (/ready/i.test(status)) break;
      }
      const left = names.filter((name) => /^(token|mote\.ya?ml)/i.test(name));
      must(left.length === 0, `still on the boot partition: ${left.join(", ")}`);
      must(/ready/i.test(status), `mote-status.txt does not say Ready, but: ${status.trim() || "nothing"}`);
      must(!status.includes(token), "mote-status.txt tells the token");
      return `${status.trim().split("\n")[0]}`;
    },
  },
  {
    name: "a pod of examples/web.yaml answers from outside",
    run: async (test) => {
      const { device, timeouts } = test;
      const startedMs = performance.now();
      const apply = ["apply", "-f", "examples/web.yaml"];
      await device.until(apply, (text) => /deployment.*web/.test(text), timeouts.requestMs);
      await rolledOut(test);
      const tookMs = performance.now() - startedMs;
      const said = await device.kubectl(["exec", "deploy/web", "--", "sh", "-c", "echo inside $(uname -m)"]);
      must(said.output.includes("inside "), `exec said ${said.output}`);
      const page = await fetchPage(test.webPort);
      must(page.includes("It works"), `the page is ${page.slice(0, 200)}`);
      return `rolled out in ${seconds(tookMs)}, ${said.output.trim()}`;
    },
  },
  {
    name: "limits hold: cgroup v2 has them, a pod that takes too much is killed",
    run: async ({ device, timeouts }) => {
      await device.kubectl(["apply", "-f", "-"], { input: greedyPod });
      const reason = "jsonpath={.status.containerStatuses[0].state.terminated.reason}";
      await device.until(["get", "pod", "greedy", "-o", reason], (text) => text !== "", timeouts.clusterMs);
      const said = await device.kubectl(["get", "pod", "greedy", "-o", reason]);
      must(said.output === "OOMKilled", `the pod ended by ${said.output}`);
      const { output } = await device.kubectl(["logs", "greedy"]);
      // A kernel that comes too late for its periods doubles them, and the quota with them.
      const [, quota, period] = /^(\d+) (\d+)$/m.exec(output) ?? [];
      must(Number(quota) / Number(period) === 0.25, `cpu.max is ${output.trim()}`);
      must(new RegExp(`^${32 * 1024 ** 2}$`, "m").test(output), `memory.max is ${output.trim()}`);
      await device.kubectl(["delete", "pod", "greedy", "--wait=false"]);
      return `cpu.max ${quota} ${period}, OOMKilled above 32 MiB`;
    },
  },
  {
    name: "its network adapter goes away and comes back",
    run: async ({ device, timeouts }) => {
      await device.kubectl(["apply", "-f", "-"], { input: replugPod });
      const phase = ["get", "pod", "replug", "-o", "jsonpath={.status.phase}"];
      const ended = await device.until(phase, (text) => /^(Succeeded|Failed)$/.test(text), timeouts.clusterMs);
      const { output } = await device.kubectl(["logs", "replug"]);
      const [before, after] = output.trim().split(/\s+/).map(Number);
      must(ended === "Succeeded" && before !== after, `the pod ${ended} and said ${output.trim()}`);
      await device.kubectl(["delete", "pod", "replug", "--wait=false"]);
      return `link ${before} is link ${after} now, reachable again`;
    },
  },
  {
    name: "the watchdog is fed again in time after the initramfs has armed it",
    run: async ({ device, timeouts }) => {
      await device.kubectl(["apply", "-f", "-"], { input: unfedPod });
      const phase = ["get", "pod", "unfed", "-o", "jsonpath={.status.phase}"];
      await device.until(phase, (text) => text === "Succeeded", timeouts.clusterMs);
      const { output } = await device.kubectl(["logs", "unfed"]);
      const unfedS = Number(/unfedS"?[:=]\s*([\d.]+)/.exec(output)?.[1]);
      must(unfedS < watchdogS, `the log says ${output.trim() || "nothing"}`);
      await device.kubectl(["delete", "pod", "unfed", "--wait=false"]);
      const gaps = /gapsS\W+([\d., ]*\d)/.exec(output)?.[1];
      return `unfed for ${unfedS} s of ${watchdogS} (one after the other ${gaps} s)`;
    },
  },
  {
    name: "restarts itself in order and keeps the cluster",
    isLong: true,
    run: async (test) => {
      const { device, timeouts } = test;
      const before = await uid(test);
      await device.signalInit("TERM");
      // The signal comes from a pod; only lines after the stop belong to the next boot.
      await device.vm.waitForLine(
        (text) => /reboot: Restarting|mote: stopp(ing|ed)/.test(text),
        "the stop",
        timeouts.offMs,
      );
      device.vm.expectBoot();
      const apiMs = await device.vm.waitForMarker("api", timeouts.bootMs);
      const nodeMs = await device.vm.waitForMarker("node", timeouts.bootMs);
      must((await uid(test)) === before, "the deployment is not the one from before");
      await rolledOut(test);
      const page = await fetchPage(test.webPort);
      must(page.includes("It works"), `the page is ${page.slice(0, 200)}`);
      return `API ${seconds(apiMs)}, Ready ${seconds(nodeMs)}`;
    },
  },
  {
    name: "no complaint on the console",
    run: async ({ device }) => {
      const problems = device.vm.lines
        .map((line) => problemIn(line.text))
        .filter((text) => text !== undefined)
        // An adapter that is plugged in late or taken away is missed; without one no other step would have passed.
        .filter((text) => !/^(there is )?no (wired network|network address)/.test(text));
      must(problems.length === 0, problems.join("; "));
      return undefined;
    },
  },
  {
    name: "switches itself off in order",
    run: async ({ device, timeouts }) => {
      const startedMs = performance.now();
      must(await device.powerDown(timeouts.offMs), `still on after ${timeouts.offMs / 1000} s\n${device.vm.tail()}`);
      return seconds(performance.now() - startedMs);
    },
  },
];

const greedyPod = podOnce("greedy", {
  // dd takes its whole block at once.
  command: ["sh", "-c", "cd /sys/fs/cgroup; cat cpu.max memory.max; exec dd if=/dev/zero of=/dev/null bs=100M count=1"],
  resources: { limits: { cpu: "250m", memory: "32Mi" } },
});

/** Takes the driver off the first adapter and gives it back: for the kernel that is another link with the same name. */
const replugScript = `
for link in /sys/class/net/*; do [ -e $link/device ] && break; done
cat $link/ifindex
device=$(basename $(readlink -f $link/device)); driver=$(readlink -f $link/device/driver)
# So that the pod's own start is reported before.
sleep 3
echo $device >$driver/unbind
[ ! -e $link ]
sleep 10
echo $device >$driver/bind
cat $link/ifindex
`;
const replugPod = podOnce(
  "replug",
  { command: ["sh", "-ec", replugScript], securityContext: { privileged: true } },
  { hostNetwork: true },
);

/** What the initramfs arms it with. */
const watchdogS = 60;
const unfedPod = podOnce(
  "unfed",
  {
    command: ["grep", "watchdog was not fed", "/run/mote/log"],
    volumeMounts: [{ name: "run", mountPath: "/run/mote", readOnly: true }],
  },
  { volumes: [{ name: "run", hostPath: { path: "/run/mote" } }] },
);

/** Runs the steps in order; after one that fails the others make no sense. */
export async function testFlow(flow: Flow, options: { readonly isShort?: boolean } = {}): Promise<Counts> {
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const folder = join("build", "qemu", `test-${flow.name}`);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const files = join("build", "qemu", `test-${flow.name}-files`);
  await mkdir(files, { recursive: true });
  // As a Windows editor would leave them.
  await writeFile(join(files, "token"), `${token}\r\n`);
  await writeFile(join(files, "mote.yaml"), `\ufeffmachine:\r\n  hostname: ${nodeName}\r\n  ntp: false\r\n`);
  let test: FlowTest | undefined;
  console.log(`--- ${flow.name}`);
  try {
    const disk = await freshDisk(flow, folder, {
      "TOKEN.TXT": join(files, "token"),
      "mote.yaml": join(files, "mote.yaml"),
    });
    const apiPort = await freePort();
    const webPort = await freePort();
    const device = await Device.start({
      flow,
      folder,
      disk,
      apiPort,
      moreForwards: [{ hostPort: webPort, guestPort: 30_080 }],
    });
    const { patience } = flow;
    const timeouts = {
      bootMs: quickTimeouts.bootMs * patience,
      clusterMs: quickTimeouts.clusterMs * patience,
      offMs: quickTimeouts.offMs * patience,
      requestMs: quickTimeouts.requestMs * patience,
    };
    test = { flow, folder, disk, apiPort, webPort, timeouts, device };
    const chosen = steps.filter((one) => !(options.isShort && one.isLong));
    await runSteps(chosen, test, counts);
  } catch (error) {
    counts.failed++;
    console.log(`  FAILED   ${(error as Error).message}`);
  } finally {
    await test?.device.vm.kill();
    await rm(files, { recursive: true, force: true });
    // The disk of a failed run is evidence; 8 GiB of others are not, sparse as they are.
    if (counts.failed === 0) await rm(join(folder, "disk.img"), { force: true });
  }
  return counts;
}

const inSeconds = (ms: number): string => `--timeout=${Math.round(ms / 1000)}s`;

async function rolledOut({ device, timeouts }: FlowTest): Promise<void> {
  await device.kubectl(["rollout", "status", "deploy/web", inSeconds(timeouts.clusterMs - 20_000)], {
    timeoutMs: timeouts.clusterMs,
  });
}

async function uid({ device, timeouts }: FlowTest): Promise<string> {
  return device.until(
    ["get", "deploy", "web", "-o", "jsonpath={.metadata.uid}"],
    (text) => /^[-0-9a-f]{36}$/.test(text),
    timeouts.requestMs,
  );
}

async function fetchPage(port: number): Promise<string> {
  let last = "";
  // Service rules follow the pods' readiness by a moment.
  for (const endMs = performance.now() + 60_000; performance.now() < endMs; await sleep(1000)) {
    last = await new Promise<string>((resolve) => {
      const request = get(`http://127.0.0.1:${port}/`, { timeout: 10_000 }, (answer) => {
        let text = "";
        answer.setEncoding("utf8");
        answer.on("data", (part: string) => {
          text += part;
        });
        answer.on("end", () => resolve(text));
        answer.on("error", (error) => resolve(error.message));
      });
      request.on("timeout", () => request.destroy(new Error("no answer within 10 s")));
      request.on("error", (error) => resolve(error.message));
    });
    if (last.includes("It works")) break;
  }
  return last;
}
