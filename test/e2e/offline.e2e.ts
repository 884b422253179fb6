// An agent whose machine boots while no server can be reached starts the pods it had, as they were, and goes on with what has
// become of them when there is a server again. `npm run test:offline -- --boots N` does the boots many times.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Journal } from "#node/remembered/journal.ts";
import { systemBlockFiles } from "#platform/block-file.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { closeHosts, connectHosts, eventually, Host } from "./host.ts";
import { cutPower, processes } from "./reboot.ts";

const server = new Host("offhub", "192.168.77.2");
const device = new Host("offleaf", "192.168.77.3");
const out = `${device.folder}/out`;
const boots = Number(process.env["MOTE_OFFLINE_BOOTS"] ?? "1");
const seed = Number(process.env["MOTE_OFFLINE_SEED"] ?? "1");
const random = seededRandom(seed);
/** A pod that is not back by then does not come back. */
const bootLimitMs = 60_000;
/** Told apart from everything else that runs here. */
const mark = `${process.pid}${Math.floor(performance.now())}`;
const image = "mote.local/busybox:1";

const startServer = async () => {
  const own = ["--node-name", "hub", "--write-kubeconfig", server.kubeconfig];
  server.start(["server", "--disable-agent", ...own]);
  await eventually("/readyz", 60_000, async () => (await server.kubectl("get --raw /readyz")) === "ok");
};
const agentArgs = [
  ...["agent", "--server", `https://${server.address}:6443`, "--node-name", "leaf"],
  ...["--kubelet-arg", `root-dir=${device.folder}/kubelet`],
];
const startAgent = (...more: string[]) => device.start([...agentArgs, ...more]);
async function reboot(): Promise<void> {
  await cutPower(device, device.programPid);
  startAgent();
}

/** What never ends by itself, found by its last word. */
const tail = (name: string) => `tail -f /dev/null ${mark}-${name}`;
const forever = (name: string) => `exec ${tail(name)}`;
/** The process of a pod, not the shell that it was nor what that shell is about to start; undefined when it does not run. */
const pidOf = (name: string): number | undefined => processes().find(({ args }) => args === tail(name))?.pid;
const said = (name: string): string => (existsSync(`${out}/${name}`) ? readFileSync(`${out}/${name}`, "utf8") : "");

const container = (name: string, script: string, more: object = {}) => ({
  ...{ name, image, command: ["sh", "-c", script] },
  ...more,
});
const outVolume = { volumes: [{ name: "out", hostPath: { path: out, type: "DirectoryOrCreate" } }] };
const outMount = { name: "out", mountPath: "/out" };
const mounts = { volumeMounts: [outMount] };

const simplePod = (name: string, version = name) => ({
  ...{ apiVersion: "v1", kind: "Pod", metadata: { name } },
  spec: {
    ...{ nodeName: "leaf", terminationGracePeriodSeconds: 1 },
    containers: [container("main", `touch ${mark}-${version}; cd /; ${forever(version)}`)],
  },
});
const job = (name: string, script: string) => ({
  ...{ apiVersion: "batch/v1", kind: "Job", metadata: { name } },
  spec: {
    template: {
      spec: { restartPolicy: "OnFailure", ...outVolume, containers: [container("main", script, mounts)] },
    },
  },
});

/** Notes all that it has been given, again and again. */
const keeper = {
  ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "keeper" } },
  spec: {
    ...{ nodeName: "leaf", terminationGracePeriodSeconds: 1 },
    volumes: [
      ...outVolume.volumes,
      { name: "config", configMap: { name: "settings" } },
      { name: "secret", secret: { secretName: "password" } },
    ],
    initContainers: [container("before", "echo init >> /out/keeper.init", mounts)],
    containers: [
      container(
        "main",
        `(while :; do
  { cat /config/colour; echo; cat /secret/word; echo; wc -c < /var/run/secrets/kubernetes.io/serviceaccount/token
    echo "$WEB_SERVICE_HOST $FROM_SECRET"; wget -T 2 -q -O - http://web.default.svc.cluster.local/page; } > /out/keeper.new 2>&1
  mv /out/keeper.new /out/keeper; sleep 0.3; done) & ${forever("keeper")}`,
        {
          volumeMounts: [outMount, { name: "config", mountPath: "/config" }, { name: "secret", mountPath: "/secret" }],
          env: [{ name: "FROM_SECRET", valueFrom: { secretKeyRef: { name: "password", key: "word" } } }],
        },
      ),
    ],
  },
};
const web = {
  ...{ apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "web" } },
  spec: {
    ...{ replicas: 1, selector: { matchLabels: { app: "web" } } },
    template: {
      metadata: { labels: { app: "web" } },
      spec: {
        terminationGracePeriodSeconds: 1,
        containers: [
          container("main", `mkdir /tmp/w; echo a page > /tmp/w/page; httpd -p 80 -h /tmp/w; ${forever("web")}`, {
            readinessProbe: { httpGet: { path: "/page", port: 80 }, periodSeconds: 1 },
          }),
        ],
      },
    },
  },
};
const service = {
  ...{ apiVersion: "v1", kind: "Service", metadata: { name: "web" } },
  spec: { selector: { app: "web" }, ports: [{ port: 80 }] },
};
const settings = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "settings" }, data: { colour: "blue" } };
const password = { apiVersion: "v1", kind: "Secret", metadata: { name: "password" }, stringData: { word: "sesame" } };

const apply = (...objects: object[]) =>
  server.kubectl("apply -f -", { input: JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }) });

/** Whether the server's machine takes no packet from the agent's. */
async function setSilent(isSilent: boolean): Promise<void> {
  const rules = "chain in { type filter hook input priority -10; iifname eth0 drop; }";
  const input = `table inet cut { }; delete table inet cut; ${isSilent ? `table inet cut { ${rules}; }` : ""}\n`;
  expect(await server.exec("nft", ["-f", "-"], { input })).toMatchObject({ code: 0 });
}

interface RememberedPod {
  readonly metadata: { readonly name: string };
  readonly status: {
    readonly phase?: string;
    readonly containerStatuses?: readonly { readonly state: { readonly running?: object } }[];
  };
}

/** What lies on the agent's disk, by key. */
function remembered(): Map<string, unknown> {
  const folder = `${device.dataDir}/agent/remembered`;
  const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
  const found = new Map<string, unknown>();
  for (const name of files) {
    const { key, value } = JSON.parse(readFileSync(`${folder}/${name}`, "utf8")) as { key: string; value: unknown };
    found.set(key, value);
  }
  const journal = new Journal({ path: `${folder}/pods` }, { files: systemBlockFiles, log: silentLogger });
  journal.open();
  for (const key of journal.keys()) found.set(key, journal.get(key));
  journal.close();
  return found;
}
const rememberedAt = (key: string) => remembered().get(key);
const keysOf = (prefix: string) => [...remembered().keys()].filter((key) => key.startsWith(prefix));
const rememberedPod = (name: string) =>
  [...remembered()]
    .flatMap(([key, value]) => (key.startsWith("pod/") ? [value as RememberedPod] : []))
    .find(({ metadata }) => metadata.name === name || metadata.name.startsWith(`${name}-`));

/** Everything that runs, runs, and has what it had. */
async function allAreBack(names: readonly string[]): Promise<void> {
  rmSync(`${out}/keeper`, { force: true });
  for (const name of names) {
    await eventually(`${name} runs`, bootLimitMs, async () => pidOf(name) !== undefined);
  }
  const wanted = /^blue\nsesame\n\d{3,}\n10\.43\.\d+\.\d+ sesame\na page\n$/;
  await eventually("the keeper has what it had", bootLimitMs, async () => {
    const found = said("keeper");
    if (!wanted.test(found)) throw new Error(JSON.stringify(found));
    return true;
  });
}

const statusOf = async (pod: string) => {
  const { metadata, status } = JSON.parse(await server.kubectl(["get", "pod", pod, "-o", "json"])) as {
    metadata: { uid: string };
    status: { phase: string; containerStatuses: { containerID: string; restartCount: number; ready: boolean }[] };
  };
  const [{ containerID, restartCount, ready } = { containerID: "", restartCount: -1, ready: false }] =
    status.containerStatuses;
  return { uid: metadata.uid, phase: status.phase, containerID, restartCount, ready };
};
const podOf = async (name: string, label: string) =>
  (await server.kubectl(["get", "pods", "-l", `${label}=${name}`, "-o", "jsonpath={.items[*].metadata.name}"])).trim();

beforeAll(async () => {
  await server.open();
  await device.open();
  mkdirSync(out, { recursive: true });
  await connectHosts(server, device);
  await startServer();
  startAgent("--token", readFileSync(`${server.dataDir}/server/token`, "utf8").trim());
  await eventually("leaf is Ready", 60_000, async () =>
    / Ready /.test(await server.kubectl("get node leaf --no-headers")),
  );
});

afterAll(async () => {
  try {
    await device.stop();
    await cutPower(device, 0);
  } finally {
    await closeHosts(device, server);
  }
});

const names = ["keeper", "web", "doomed", "swapped"];
const before = new Map<string, Awaited<ReturnType<typeof statusOf>>>();

test("pods of every kind run", async () => {
  await apply(settings, password, service, web);
  await apply(
    ...[keeper, simplePod("doomed"), simplePod("swapped")],
    job("once", "echo ran >> /out/once"),
    job("late", "while ! [ -e /out/go ]; do sleep 0.2; done; echo ran >> /out/late"),
  );
  await allAreBack(names);
  await server.kubectl("wait --for=condition=Complete job/once --timeout=180s");
  await eventually(
    "late waits",
    30_000,
    async () => (await statusOf(await podOf("late", "job-name"))).phase === "Running",
  );
  for (const name of [...names.filter((each) => each !== "web"), await podOf("web", "app")]) {
    await server.kubectl(["wait", "--for=condition=Ready", `pod/${name}`, "--timeout=180s"]);
    before.set(name, await statusOf(name));
  }
});

test("what ends while the server is away has ended", async () => {
  // What was read and seen a moment ago is about to be written down.
  await eventually("the agent has written down what it needs", 60_000, async () => {
    const slices = rememberedAt("list/endpointslices") as { metadata: { name: string }; endpoints?: unknown[] }[];
    const hasWeb = slices.some(
      ({ metadata, endpoints }) => metadata.name.startsWith("web-") && endpoints?.length === 1,
    );
    const runs = (name: string) =>
      rememberedPod(name)?.status.containerStatuses?.some(({ state }) => state.running !== undefined);
    return hasWeb && names.every(runs) && keysOf("token/").length > 0;
  });
  await server.stop("SIGKILL");
  writeFileSync(`${out}/go`, "");
  await eventually("late has run", 30_000, async () => said("late") === "ran\n");
  const pid = pidOf("doomed") ?? 0;
  expect(pid).toBeGreaterThan(0);
  process.kill(pid, "SIGKILL");
  await eventually("what was killed is restarted", 60_000, async () => ![undefined, pid].includes(pidOf("doomed")));
  await eventually("it is written down", 60_000, async () => rememberedPod("late")?.status.phase === "Succeeded");
});

test(`${boots === 1 ? "a boot" : `${boots} boots`} without a server: pods are back as they were`, {
  timeout: 600_000 + boots * 270_000,
}, async () => {
  const took: number[] = [];
  let cutShort = 0;
  for (let boot = 1; boot <= boots; boot++) {
    const startedMs = performance.now();
    // No answer at all is another matter than a refusal.
    if (boot > 1) await setSilent(random.float() < 0.5);
    await reboot();
    // The power may go again at any moment of a boot.
    if (boot > 1 && random.float() < 0.3) {
      await sleep(random.float() * 8_000);
      await reboot();
      cutShort++;
    }
    await allAreBack(names);
    took.push(Math.round(performance.now() - startedMs));
    expect([said("once"), said("late")], `boot ${boot}`).toEqual(["ran\n", "ran\n"]);
    if (boot % 10 === 0) console.log(`${boot} of ${boots} boots, ${cutShort} of them cut short; seed ${seed}`);
    if (boot < boots) await sleep(random.float() * 3_000);
  }
  took.sort((a, b) => a - b);
  console.log(
    `${boots} of ${boots} boots brought all pods back; median ${took[boots >> 1]} ms, most ${took.at(-1)} ms`,
  );
});

test("with a server again all is as it says, and what was right goes on", async () => {
  const pids = new Map(names.map((name) => [name, pidOf(name)]));
  // Nobody sees the agent, and it sees nobody.
  await setSilent(true);
  await startServer();
  for (const name of ["doomed", "swapped"]) {
    await server.kubectl(["delete", "pod", name, "--grace-period=0", "--force"]);
  }
  await apply(simplePod("swapped", "swapped-again"));
  await setSilent(false);
  await eventually("its successor runs", 60_000, async () => pidOf("swapped-again") !== undefined);
  await eventually("the deleted ones have ended", 60_000, async () => !pidOf("doomed") && !pidOf("swapped"));
  for (const name of ["keeper", await podOf("web", "app")]) {
    const known = before.get(name)!;
    await eventually(`${name} is told`, 60_000, async () => {
      const now = await statusOf(name);
      return now.restartCount > known.restartCount && now.ready;
    });
    const { uid, containerID, restartCount } = await statusOf(name);
    expect(uid).toBe(known.uid);
    expect(containerID).not.toBe(known.containerID);
    if (boots === 1) expect(restartCount).toBe(1);
  }
  for (const name of ["keeper", "web"]) expect(pidOf(name), name).toBe(pids.get(name));
  for (const name of ["once", "late"]) {
    await server.kubectl(["wait", "--for=condition=Complete", `job/${name}`, "--timeout=180s"]);
    expect(await podOf(name, "job-name")).not.toContain(" ");
  }
  expect([said("once"), said("late")]).toEqual(["ran\n", "ran\n"]);
  await eventually("leaf is Ready", 60_000, async () =>
    / Ready /.test(await server.kubectl("get node leaf --no-headers")),
  );
});
