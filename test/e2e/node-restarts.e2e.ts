// The server is killed again and again while pods come, run, end and go: in the end every pod runs exactly once, none that ran
// was restarted, none that ended ran again, and nothing is left of those that went.
import { afterAll, beforeAll, expect, test } from "vitest";
import { createCri } from "#node/cri.ts";
import { systemClock } from "#platform/clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { eventually, Host } from "./host.ts";

const host = new Host("restarts");
const image = "mote.local/busybox:1";
const k = (args: string, input?: string) => host.kubectl(args, input === undefined ? {} : { input });
const kills = 4;

beforeAll(async () => {
  await host.open();
  await host.up();
  await k("wait --for=condition=Ready node --all --timeout=60s");
}, 280_000);
afterAll(() => host.close(), 120_000);

const runner = (name: string) => `
---
apiVersion: v1
kind: Pod
metadata: {name: ${name}, labels: {kind: runner}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "${image}", command: [sh, -c, "trap exit TERM; sleep 10000 & wait"]}]
`;
const once = (name: string, policy = "Never") => `
---
apiVersion: v1
kind: Pod
metadata: {name: ${name}, labels: {kind: ${policy === "Never" ? "once" : "often"}}}
spec:
  restartPolicy: ${policy}
  volumes: [{name: v, hostPath: {path: "${host.folder}/once", type: DirectoryOrCreate}}]
  containers:
  - name: main
    image: "${image}"
    command: [sh, -c, "echo ran >> /v/${name}; sleep 2"]
    volumeMounts: [{name: v, mountPath: /v}]
`;

test("killed at any moment, nothing runs twice, nothing stops, nothing stays", async () => {
  const random = seededRandom(7);
  await k("apply -f -", [0, 1, 2, 3].map((i) => runner(`early-${i}`)).join(""));
  // The control: what may run again leaves more than one line.
  await k("apply -f -", once("often", "Always"));
  await k("wait --for=condition=Ready pod -l kind=runner --timeout=60s");
  const started =
    "get pod -l kind=runner -o jsonpath={range.items[*]}{.metadata.name}={.status.containerStatuses[0].containerID}{'\\n'}{end}";
  const early = (await k(started))
    .trim()
    .split("\n")
    .filter((line) => line.startsWith("early-"));
  for (let i = 0; i < kills; i++) {
    await k("apply -f -", runner(`mid-${i}`) + once(`once-${i}`));
    if (i > 0) await k(`delete pod mid-${i - 1} --wait=false`);
    await systemClock.sleep(Math.floor(random.float() * 1500));
    process.kill(host.serverPid(), "SIGKILL");
    await host.up();
  }
  await eventually("pods that run once to have ended", 90_000, async () => {
    const phases = (await k("get pod -l kind=once -o jsonpath={.items[*].status.phase}")).split(" ");
    return phases.length === kills && phases.every((phase) => phase === "Succeeded" || phase === "Failed");
  });
  await eventually("the last runner and no other", 60_000, async () => {
    const names = (await k("get pod -l kind=runner -o name")).trim().split("\n").sort();
    return (
      names.join() ===
      [0, 1, 2, 3]
        .map((i) => `pod/early-${i}`)
        .concat(`pod/mid-${kills - 1}`)
        .join()
    );
  });
  await k("wait --for=condition=Ready pod -l kind=runner --timeout=60s");

  // Those that ran all the time are the same containers.
  expect((await k(started)).trim().split("\n")).toEqual(expect.arrayContaining(early));
  // Whatever ran once wrote one line. A kill while the runtime starts a container ends that start, and with it a pod that is
  // never restarted: it says so, and wrote nothing.
  for (let i = 0; i < kills; i++) {
    const { stdout } = await host.exec("cat", [`${host.folder}/once/once-${i}`]);
    const status = await k(`get pod once-${i} -o jsonpath={.status.phase}:{.status.containerStatuses[0].state}`);
    if (stdout === "") expect(status, `once-${i}`).toMatch(/^Failed:.*"exitCode":128.*"reason":"StartError"/);
    else expect(stdout, `once-${i}: ${status}`).toBe("ran\n");
  }
  await eventually("the control to run again", 60_000, async () =>
    /^ran\nran\n/.test((await host.exec("cat", [`${host.folder}/once/often`])).stdout),
  );
  // The runtime has one sandbox and one running container of each pod that runs, and none of others.
  const cri = createCri({ socketPath: `${host.runDir}/containerd/containerd.sock` });
  try {
    await eventually("nothing left in the runtime", 60_000, async () => {
      const containers = (await cri.listContainers()).filter((c) => c.state === 1);
      const names = containers
        .map((c) => c.labels["io.kubernetes.pod.name"] ?? "")
        .filter((n) => /^(early|mid)-/.test(n));
      const sandboxes = (await cri.listSandboxes()).filter((s) => s.state === 0).map((s) => s.metadata?.name ?? "");
      const wanted = [0, 1, 2, 3]
        .map((i) => `early-${i}`)
        .concat(`mid-${kills - 1}`)
        .join();
      return (
        names.sort().join() === wanted &&
        sandboxes
          .filter((n) => /^(early|mid)-/.test(n))
          .sort()
          .join() === wanted
      );
    });
  } finally {
    cri.close();
  }
}, 400_000);
