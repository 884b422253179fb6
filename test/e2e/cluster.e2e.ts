// The story of the README, told to a real cluster: real containerd, runc, nftables, DNS, kubectl 1.32 and the official
// JavaScript client, on a host of its own. The steps build on each other and run in order.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, Host } from "./host.ts";

const host = new Host("e2e");
let upOutput = "";

beforeAll(async () => {
  await host.open();
  upOutput = (await host.up()).stdout;
});

afterAll(async () => {
  if (process.env["MOTE_E2E_LOG"]) console.log(host.log());
  await host.close();
});

const k = (args: string | readonly string[], input?: string) =>
  host.kubectl(args, input === undefined ? {} : { input });
const json = async (args: string) => JSON.parse(await k(`${args} -o json`));
/** Name of a web pod that runs and is not on its way out. */
const webPod = async (): Promise<string> => {
  const pods = (await json("get pods -l app=web")).items as {
    status: { phase: string };
    metadata: { name: string; deletionTimestamp?: string };
  }[];
  return pods.find((p) => p.status.phase === "Running" && !p.metadata.deletionTimestamp)!.metadata.name;
};
const runningWeb = async (count: number) => {
  const pods = (await json("get pods -l app=web")).items as {
    status: { phase: string };
    metadata: { deletionTimestamp?: string };
  }[];
  return (
    pods.filter((p) => p.status.phase === "Running" && !p.metadata.deletionTimestamp).length === count &&
    pods.length === count
  );
};

describe("up", () => {
  test("says how long each stage took, where the kubeconfig is and what to try", () => {
    expect(upOutput).toMatch(/node Ready\s+\d/);
    expect(upOutput).toMatch(/mote is up \(.*s\)/);
    expect(upOutput).toContain(`KUBECONFIG=${host.kubeconfig}`);
  });

  test("a second up finds the running one", async () => {
    const pid = host.serverPid();
    expect((await host.up()).stdout).toContain(`already running, pid ${pid}`);
    expect(host.serverPid()).toBe(pid);
  });

  test("the node is Ready and tells what it is", async () => {
    const node = (await json("get nodes")).items[0];
    expect(node.status.nodeInfo).toMatchObject({
      operatingSystem: "linux",
      kubeletVersion: expect.stringMatching(/^v1\.32\.\d+\+mote/),
    });
    expect(node.status.conditions.find((c: { type: string }) => c.type === "Ready")).toMatchObject({ status: "True" });
    expect(await k("version -o json")).toContain('"minor": "32"');
  });
});

describe("a deployment behind a service", () => {
  test("applies and rolls out", async () => {
    expect(await k("apply -f examples/web.yaml")).toContain("deployment.apps/web created");
    expect(await k("rollout status deploy/web --timeout=60s")).toContain("successfully rolled out");
    expect(await k("apply -f examples/web.yaml")).toContain("deployment.apps/web unchanged");
  });

  test("prints itself in every form", async () => {
    expect(await k("get pods -l app=web -o wide")).toMatch(/web-\w+-\w+\s+1\/1\s+Running\s+0\s+\S+\s+10\.42\.\d+\.\d+/);
    expect(await k("get deploy web -o yaml")).toMatch(/availableReplicas: 2/);
    expect(await k("get deploy web -o jsonpath={.status.readyReplicas}")).toBe("2");
    expect(await k("get all")).toContain("replicaset.apps/web-");
    expect(await k("describe deploy web")).toMatch(/ScalingReplicaSet/);
    const pod = await webPod();
    expect(await k(`describe pod ${pod}`)).toMatch(/Started container httpd|Started\s/);
    expect(await k("explain pod.spec.containers.image")).toMatch(/FIELD: image/);
    expect(await k("api-resources")).toMatch(/deployments\s+deploy\s+apps\/v1\s+true\s+Deployment/);
  });

  test("answers on its ClusterIP and its NodePort", async () => {
    const ip = await k("get svc web -o jsonpath={.spec.clusterIP}");
    const fetchPage = async (url: string) => {
      const output = await host.exec("node", [
        "-e",
        `fetch(${JSON.stringify(url)}).then(async r => console.log(await r.text()), e => { console.error(e); process.exit(1) })`,
      ]);
      return output.stdout.includes("It works");
    };
    await eventually("ClusterIP", 15_000, () => fetchPage(`http://${ip}/`));
    await eventually("NodePort", 15_000, () => fetchPage(`http://${host.address}:30080/`));
  });

  test("is found by name from inside a pod", async () => {
    await k("apply -f examples/dns-check.yaml");
    await k("wait --for=condition=complete job/dns-check --timeout=60s");
    expect(await k("logs job/dns-check")).toMatch(/web-\w+-\w+ on /);
  });

  test("exec: exit codes, standard input to its end, no channel left open", async () => {
    const pod = await webPod();
    expect((await k(["exec", pod, "--", "sh", "-c", "echo out; echo err >&2"])).trim()).toBe("out");
    expect((await host.kubectlRaw(["exec", pod, "--", "sh", "-c", "exit 7"])).code).toBe(7);
    const big = "0123456789abcdef".repeat(20_000);
    expect((await k(["exec", "-i", pod, "--", "wc", "-c"], big)).trim()).toBe(String(big.length));
  });

  test("logs -f follows", async () => {
    const script = "i=0; while [ $i -lt 5 ]; do echo line $i; i=$((i+1)); sleep 0.3; done";
    await k(["run", "talker", "--image=mote.local/busybox:1", "--restart=Never", "--", "sh", "-c", script]);
    await eventually("talker starts", 30_000, async () => (await json("get pod talker")).status.phase !== "Pending");
    const followed = await k("logs -f talker");
    expect(followed.trim().split("\n")).toEqual([0, 1, 2, 3, 4].map((i) => `line ${i}`));
    expect(await k("logs talker --tail=1")).toBe("line 4\n");
    await k("delete pod talker");
  });

  test("scale, label, edit, set image, undo", async () => {
    await k("scale deploy/web --replicas=3");
    await eventually("three pods", 30_000, () => runningWeb(3));
    await k("label deploy web tier=front");
    expect(await k("get deploy -l tier=front -o name")).toBe("deployment.apps/web\n");
    await host.kubectl("edit deploy web", { env: { EDITOR: "sed -i s/replicas:.3/replicas:\\ 1/" } });
    await eventually("one pod", 40_000, () => runningWeb(1));
    await k("set env deploy/web COLOUR=blue");
    await k("rollout status deploy/web --timeout=60s");
    expect((await k("rollout history deploy/web")).match(/^\d+/gm)).toEqual(["1", "2"]);
    await k("rollout undo deploy/web");
    await k("rollout status deploy/web --timeout=60s");
    await eventually("only the new pod", 40_000, () => runningWeb(1));
    expect(await k("get deploy web -o jsonpath={.spec.template.spec.containers[0].env[*].name}")).not.toContain(
      "COLOUR",
    );
  });

  test("a changed config map reaches the running pod", async () => {
    const pod = await webPod();
    await k(["patch", "configmap", "web", "--type=merge", "-p", '{"data":{"index.html":"changed"}}']);
    await eventually(
      "new page",
      100_000,
      async () => (await k(["exec", pod, "--", "cat", "/www/index.html"])) === "changed",
    );
  });
});

describe("a job", () => {
  test("runs to completion and keeps its logs", async () => {
    await k("apply -f examples/job.yaml");
    await k("wait --for=condition=complete job/primes --timeout=60s");
    expect(await k("logs job/primes")).toContain("2 3 5 7 11");
    expect(await k("get job primes")).toMatch(/Complete\s+3\/3/);
    await k("delete job primes");
    await eventually(
      "pods are collected",
      30_000,
      async () => (await json("get pods -l app=primes")).items.length === 0,
    );
  });
});

describe("probes and restarts", () => {
  test("a failing container backs off, a failing liveness probe restarts", async () => {
    const pod = (name: string, command: string, probe: string) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: mote.local/busybox:1
    command: ["sh", "-c", ${JSON.stringify(command)}]
    ${probe}
`;
    await k("apply -f -", pod("crasher", "exit 3", ""));
    await k(
      "apply -f -",
      pod(
        "sick",
        "sleep 1000",
        'livenessProbe: { exec: { command: ["false"] }, periodSeconds: 1, failureThreshold: 1 }',
      ),
    );
    await eventually("CrashLoopBackOff", 60_000, async () => (await k("get pod crasher")).includes("CrashLoopBackOff"));
    const status = (await json("get pod crasher")).status.containerStatuses[0];
    expect(status.lastState.terminated).toMatchObject({ exitCode: 3, reason: "Error" });
    await eventually(
      "restarted by its probe",
      60_000,
      async () => (await json("get pod sick")).status.containerStatuses[0].restartCount >= 1,
    );
    expect(await k("get events --field-selector involvedObject.name=sick")).toContain("Unhealthy");
    await k("delete pod crasher sick --wait=true");
  });
});

describe("metrics and autoscaling", () => {
  const burning = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: burn }
spec:
  selector: { matchLabels: { app: burn } }
  template:
    metadata: { labels: { app: burn } }
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: mote.local/busybox:1
        command: ["sh", "-c", "while :; do :; done"]
        resources: { requests: { cpu: 20m }, limits: { cpu: 50m } }
`;
  test("kubectl top tells what runs, an autoscaler follows it", async () => {
    await k("apply -f -", burning);
    await k("rollout status deploy/burn --timeout=60s");
    await k("autoscale deployment burn --cpu-percent=50 --min=1 --max=2");
    await eventually("top pod", 60_000, async () => {
      const match = /^burn-\S+\s+main\s+(\d+)m\s+\d+Mi/m.exec(await k("top pod -l app=burn --containers"));
      return Number(match?.[1]) >= 20;
    });
    expect(await k("top node")).toMatch(/\d+m\s+\d+%\s+\d+Mi\s+\d+%/);
    const scaled = async () => (await json("get deployment burn")).spec.replicas === 2;
    await eventually("two pods", 90_000, scaled);
    const autoscaler = await k("describe hpa burn");
    expect(autoscaler).toContain("New size: 2; reason: cpu resource utilization (percentage of request) above target");
    expect(await k("get hpa burn")).toMatch(/cpu: \d+%\/50%/);
    await k("delete hpa,deployment burn");
  });
});

describe("the official JavaScript client", () => {
  test("lists, creates, watches with an informer and executes", async () => {
    const output = await host.exec("node", ["scripts/run.mjs", "test/e2e/js-client.ts", host.kubeconfig]);
    expect(output.stderr).toBe("");
    expect(JSON.parse(output.stdout)).toEqual({
      seen: ["add", "update", "delete"],
      text: "hello\n",
      status: "Success",
    });
  });
});

describe("custom resources", () => {
  const definition = (maximum: number) => `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: boats, kind: Boat, shortNames: [bt], categories: [fleet]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.sails, statusReplicasPath: .status.sails}}
    additionalPrinterColumns: [{name: Sails, type: integer, jsonPath: .spec.sails}]
    selectableFields: [{jsonPath: .spec.colour}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            description: What the boat is like.
            type: object
            properties:
              sails: {description: Number of sails., type: integer, maximum: ${maximum}, default: 1}
              colour: {type: string}
          status: {type: object, properties: {sails: {type: integer}}}
`;
  const boat = (spec: string) => `apiVersion: example.com/v1\nkind: Boat\nmetadata: {name: one}\nspec: ${spec}\n`;

  test("kubectl defines, explains, applies, scales, selects and deletes them", async () => {
    await k("apply -f -", definition(5));
    await k("wait --for=condition=Established crd/boats.example.com --timeout=30s");
    expect(await k("explain boat.spec.sails")).toContain("Number of sails.");
    expect(await k("apply -f -", boat("{colour: red}"))).toContain("created");
    const table = await k("get fleet");
    expect(table).toMatch(/NAME\s+SAILS/);
    expect(table).toMatch(/one\s+1/);
    const strict = await host.kubectlRaw(["apply", "-f", "-"], { input: boat("{colour: red, mast: 1}") });
    expect(strict.stderr).toContain('unknown field "spec.mast"');
    await k("scale bt one --replicas=3");
    expect(await k("get bt --field-selector spec.colour=red -o jsonpath={.items[*].spec.sails}")).toBe("3");
    expect(await k("get bt --field-selector spec.colour=blue -o name")).toBe("");
    await k("apply -f -", definition(9));
    await eventually(
      "the new schema",
      10_000,
      async () => (await host.kubectlRaw(["scale", "bt/one", "--replicas=8"])).code === 0,
    );
    expect(await k("apply --server-side --force-conflicts -f -", boat("{sails: 2}"))).toContain("serverside-applied");
    await k("delete crd boats.example.com");
    expect((await host.kubectlRaw(["get", "boats"])).stderr).toMatch(
      /doesn't have a resource type|could not find the requested/,
    );
  });
});

describe("bad input gets the Kubernetes answer", () => {
  const raw = async (method: string, path: string, body?: string | Buffer, headers: Record<string, string> = {}) => {
    const args = ["scripts/run.mjs", "test/e2e/raw-request.ts", host.kubeconfig, method, path, JSON.stringify(headers)];
    const output = await host.exec("node", args, body === undefined ? {} : { input: body });
    if (output.code !== 0) throw new Error(output.stderr);
    return JSON.parse(output.stdout) as {
      code: number;
      body: { reason?: string; message?: string; details?: { causes?: { field?: string }[] } };
    };
  };

  test("malformed YAML and JSON", async () => {
    const output = await host.kubectlRaw(["apply", "-f", "-"], {
      input: "apiVersion: v1\nkind: ConfigMap\nmetadata: [\n",
    });
    expect(output.code).toBe(1);
    const answer = await raw("POST", "/api/v1/namespaces/default/configmaps", '{"kind":"ConfigMap",', {
      "content-type": "application/json",
    });
    expect(answer).toMatchObject({ code: 400, body: { reason: "BadRequest" } });
  });

  test("unknown fields under strict validation", async () => {
    const output = await host.kubectlRaw(["apply", "-f", "-"], {
      input: "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: b, imagee: c}]}\n",
    });
    expect(output.code).toBe(1);
    expect(output.stderr).toMatch(/strict decoding error: unknown field "spec.containers\[0\].imagee"/);
  });

  test("invalid objects name the field", async () => {
    const output = await host.kubectlRaw(["apply", "-f", "-"], {
      input: "apiVersion: v1\nkind: Pod\nmetadata: {name: X_y}\nspec: {containers: []}\n",
    });
    expect(output.stderr).toMatch(/The Pod "X_y" is invalid/);
    expect(output.stderr).toContain("spec.containers: Required value");
  });

  test("ten megabytes", async () => {
    const body = JSON.stringify({
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "big" },
      data: { a: "x".repeat(10 << 20) },
    });
    expect(
      await raw("POST", "/api/v1/namespaces/default/configmaps", body, { "content-type": "application/json" }),
    ).toMatchObject({
      code: 413,
      body: { reason: "RequestEntityTooLarge" },
    });
  });

  test("a bad token, paths with dots, unknown paths", async () => {
    expect(
      await raw("GET", "/api/v1/pods", undefined, { authorization: "Bearer nonsense", "x-no-client-certificate": "1" }),
    ).toMatchObject({
      code: 401,
      body: { reason: "Unauthorized" },
    });
    expect((await raw("GET", "/api/v1/namespaces/default/pods/..%2f..%2fsecrets")).code).toBeGreaterThanOrEqual(400);
    expect((await raw("GET", "/api/v1/namespaces/../secrets")).code).toBe(404);
    expect(await raw("GET", "/apis/nope.example.com/v1/things")).toMatchObject({ code: 404 });
    expect(await raw("GET", "/api/v1/nopes")).toMatchObject({ code: 404, body: { reason: "NotFound" } });
  });
});

describe("kill -9", () => {
  test("loses nothing acknowledged and leaves the pods running", async () => {
    const started = async () =>
      (
        (await json("get pods -l app=web")).items as {
          status: { containerStatuses: { containerID: string; restartCount: number }[] };
        }[]
      )
        .map((p) => `${p.status.containerStatuses[0]?.containerID}/${p.status.containerStatuses[0]?.restartCount}`)
        .sort();
    const before = await started();
    expect(before.length).toBe(1);
    const acknowledged: string[] = [];
    for (let round = 0; round < 5; round++) {
      let stop = false;
      const writer = async () => {
        for (let i = 0; !stop; i++) {
          const name = `kill-${round}-${i}`;
          const output = await host.kubectlRaw(["create", "configmap", name, `--from-literal=n=${i}`]);
          if (output.code === 0) acknowledged.push(name);
        }
      };
      const writers = writer();
      await sleep(1500 + Math.floor(Math.random() * 1000));
      process.kill(host.serverPid(), "SIGKILL");
      stop = true;
      await writers;
      await host.up();
    }
    expect(acknowledged.length).toBeGreaterThan(5);
    const names = new Set((await k("get configmaps -o name")).split("\n"));
    expect(acknowledged.filter((name) => !names.has(`configmap/${name}`))).toEqual([]);
    await sleep(3000);
    expect(await started()).toEqual(before);
    expect(await k("get nodes")).toMatch(/\sReady\s/);
  });
});

describe("storage", () => {
  test("a stateful set finds its data again; with its claim the data goes", async () => {
    const starts = async () => (await k("exec db-0 -- cat /data/starts")).trim().split("\n").length;
    await k("apply -f examples/database.yaml");
    await k("rollout status sts/db --timeout=60s");
    expect(await starts()).toBe(1);
    await k("delete pod db-0");
    await k("rollout status sts/db --timeout=60s");
    await eventually("a second start", 20_000, async () => (await starts()) === 2);
    const folder = join(host.dataDir, "storage");
    expect(readdirSync(folder).map((name) => name.replace(/^pvc-[^_]*/, "pvc"))).toEqual(["pvc_default_data-db-0"]);
    await k("delete -f examples/database.yaml");
    expect(readdirSync(folder).length).toBe(1);
    await k("delete pvc data-db-0");
    await eventually("its folder is gone", 20_000, async () => readdirSync(folder).length === 0);
    await eventually("its volume is gone", 20_000, async () => (await json("get pv")).items.length === 0);
  });
});

describe("the end", () => {
  test("deleting the deployment collects everything it made", async () => {
    await k("delete -f examples/web.yaml");
    await eventually("nothing left", 60_000, async () => (await json("get pods,rs -l app=web")).items.length === 0);
  });

  test("a namespace takes its contents with it", async () => {
    await k("create namespace doomed");
    await k("create configmap inside -n doomed --from-literal=a=b");
    await k("create deployment inside -n doomed --image=mote.local/web:1");
    await k("delete namespace doomed --timeout=60s");
    expect((await host.kubectlRaw(["get", "ns", "doomed"])).stderr).toContain("NotFound");
  });

  test("down stops pods and networks; data stays", async () => {
    await k("create deployment last --image=mote.local/web:1");
    await k("rollout status deploy/last --timeout=60s");
    const down = await host.npmScript("scripts/dev/down.ts", []);
    expect(down.code).toBe(0);
    const links = await host.exec("ip", ["-o", "link"]);
    expect(links.stdout).not.toMatch(/veth|cni|mote/);
    expect((await host.exec("nft", ["list", "tables"])).stdout).not.toContain("mote");
    await host.up();
    expect(await k("get deploy last -o name")).toBe("deployment.apps/last\n");
    await k("rollout status deploy/last --timeout=60s");
  });
});
