// A server and an agent, each with a network of its own and a wire between that can be cut in one direction or both, made slow,
// or given another address at the agent's end; and streams through the tunnel that notice a byte that is missing or comes twice.
// Packets are dropped where they arrive, so that whoever sends them cannot know.
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { pinnedKubectl } from "#scripts/dev/kubectl.ts";
import { closeHosts, connectHosts, eventually, Host } from "./host.ts";

/** Which packets are lost. */
export type Direction = "to-server" | "to-agent";
export const bothWays: readonly Direction[] = ["to-server", "to-agent"];

const pinned = { nodeName: "leaf", terminationGracePeriodSeconds: 1 };
/** Orders pods, and says when the agent has taken them up, without a program for each question. */
const askerScript = `const { server, ca, cert, key } = JSON.parse(process.argv[1]);
const https = require("node:https");
const agent = new https.Agent({ keepAlive: true, maxSockets: 4, ca, cert, key });
const ask = (method, path, body) => new Promise((resolve, reject) => {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const request = https.request(server + path, { method, agent, headers, timeout: 2000 }, (answer) => {
    let text = "";
    answer.on("data", (part) => { text += part; }).on("end", () => resolve([answer.statusCode, text])).on("error", reject);
  });
  request.on("timeout", () => request.destroy(new Error("late"))).on("error", reject).end(body);
});
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (check) => { while (!(await check().catch(() => false))) await sleep(20); };
const pods = "/api/v1/namespaces/default/pods";
async function order(pod) {
  const { name } = pod.metadata;
  await until(async () => [201, 409].includes((await ask("POST", pods, JSON.stringify(pod)))[0]));
  console.log("ordered " + name);
  await until(async () => /"startTime"/.test((await ask("GET", pods + "/" + name))[1]));
  console.log("taken " + name);
  await until(async () => [200, 202, 404].includes((await ask("DELETE", pods + "/" + name))[0]));
}
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => order(JSON.parse(line)));`;

const countsLines = "trap 'exit 0' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done";

export class Partition {
  readonly hub = new Host("part-hub", "192.168.77.2");
  readonly leaf = new Host("part-leaf", "192.168.77.3");
  readonly #streams: Streams[] = [];
  #asker: { readonly child: ChildProcess; said: string } | undefined;
  #kubectl = "";
  #pods = 0;

  async open(): Promise<void> {
    const { hub, leaf } = this;
    this.#kubectl = await pinnedKubectl();
    await hub.open();
    await leaf.open();
    await connectHosts(hub, leaf);
    this.startServer();
    await this.serves();
    const token = readFileSync(`${hub.dataDir}/server/token`, "utf8").trim();
    const agent = ["agent", "--node-name", "leaf", "--server", `https://${hub.address}:6443`, "--token", token];
    leaf.start(agent);
    const isReady = async () => / Ready /.test(await hub.kubectl("get node leaf --no-headers"));
    await eventually("leaf is Ready", 60_000, isReady);
    await this.run("box", countsLines);
    await hub.kubectl("wait --for=condition=Ready pod/box --timeout=180s");
  }

  async close(): Promise<void> {
    for (const streams of this.#streams) streams.end();
    this.#asker?.child.kill("SIGKILL");
    await this.heal();
    await closeHosts(this.leaf, this.hub);
  }

  startServer(): void {
    this.hub.start([
      ...["server", "--disable-agent", "--node-name", "hub"],
      ...["--write-kubeconfig", this.hub.kubeconfig],
    ]);
  }

  async serves(): Promise<void> {
    await eventually("/readyz", 60_000, async () => (await this.hub.kubectl("get --raw /readyz")) === "ok");
  }

  /** Milliseconds until the host's log says something more that matches; counted from the call. */
  async says(host: Host, what: RegExp, timeoutMs = 30_000): Promise<number> {
    const from = host.programLog().length;
    const startedMs = performance.now();
    for (;;) {
      if (what.test(host.programLog().slice(from))) return Math.round(performance.now() - startedMs);
      if (performance.now() - startedMs > timeoutMs) throw new Error(`${host.name} does not say ${what}`);
      await sleep(50);
    }
  }

  // The wire

  async cut(directions: readonly Direction[]): Promise<void> {
    for (const direction of directions) {
      const to = direction === "to-server" ? this.hub : this.leaf;
      const rules = `table inet cut { chain in { type filter hook input priority -300; iifname "eth0" drop; }; }`;
      await this.#must(to, "nft", ["-f", "-"], rules);
    }
  }

  async heal(): Promise<void> {
    for (const host of [this.hub, this.leaf]) await host.exec("nft", ["delete", "table", "inet", "cut"]);
  }

  /** Both ways; `rate` as tc has it, undefined: as fast as it was. */
  async limit(rate: string | undefined): Promise<void> {
    for (const host of [this.hub, this.leaf]) {
      if (rate === undefined) await host.exec("tc", ["qdisc", "del", "dev", "wire", "root"]);
      else {
        const queue = ["rate", rate, "burst", "4kb", "latency", "300ms"];
        await this.#must(host, "tc", ["qdisc", "replace", "dev", "wire", "root", "tbf", ...queue]);
      }
    }
  }

  /** Of every hundred packets, both ways; 0: none is lost. */
  async lose(percent: number): Promise<void> {
    for (const host of [this.hub, this.leaf]) {
      await host.exec("nft", ["delete", "table", "inet", "loss"]);
      if (percent === 0) continue;
      const rule = `iifname "eth0" numgen random mod 100 < ${percent} drop`;
      await this.#must(
        host,
        "nft",
        ["-f", "-"],
        `table inet loss { chain in { type filter hook input priority -300; ${rule}; }; }`,
      );
    }
  }

  /** So many bytes come out of the pod, or go into it; ends early when the returned function is called. */
  bulk(direction: Direction, bytes: number): () => void {
    const line = direction === "to-server" ? `head -c ${bytes} /dev/zero` : "cat > /dev/null";
    const args = ["--kubeconfig", this.hub.kubeconfig, "exec", "-i", "box", "--", "sh", "-c", line];
    const child = spawn("nsenter", [`--net=/run/netns/${this.hub.name}`, this.#kubectl, ...args], {
      stdio: ["pipe", "ignore", "ignore"],
    });
    child.stdin.on("error", () => {});
    child.stdin.end(direction === "to-agent" ? Buffer.alloc(bytes) : undefined);
    return () => void child.kill("SIGKILL");
  }

  /** How often the host has said what matches. */
  count(host: Host, what: RegExp): number {
    return host.programLog().match(new RegExp(what, "g"))?.length ?? 0;
  }

  /** The agent's machine gets another address, as from another DHCP server. */
  async move(from: string, to: string): Promise<void> {
    // In this order: with its first address a device loses the others of the same network.
    await this.#must(this.leaf, "ip", ["addr", "del", `${from}/24`, "dev", "eth0"]);
    await this.#must(this.leaf, "ip", ["addr", "add", `${to}/24`, "dev", "eth0"]);
    await this.leaf.exec("ip", ["route", "replace", "default", "via", "192.168.77.1", "dev", "eth0"]);
  }

  async #must(host: Host, program: string, args: readonly string[], input?: string): Promise<void> {
    const { code, stderr } = await host.exec(program, args, input === undefined ? {} : { input });
    if (code !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr}`);
  }

  // What people do meanwhile

  async run(name: string, script: string): Promise<void> {
    const overrides = JSON.stringify({ spec: pinned });
    const image = "--image=mote.local/busybox:1";
    await this.hub.kubectl(["run", name, image, "--overrides", overrides, "--", "sh", "-c", script]);
  }

  /** Logs that are followed, and a command that gives back what it is sent. */
  streams(): Streams {
    const streams = new Streams((...args) => {
      const all = [`--net=/run/netns/${this.hub.name}`, this.#kubectl, "--kubeconfig", this.hub.kubeconfig, ...args];
      return spawn("nsenter", all, { stdio: ["pipe", "pipe", "pipe"] });
    });
    this.#streams.push(streams);
    return streams;
  }

  /** A new command, from the start until its end. */
  async execMs(timeoutMs = 30_000): Promise<number> {
    const startedMs = performance.now();
    await eventually(
      "a command in the pod",
      timeoutMs,
      async () => (await this.hub.kubectl(["exec", "box", "--", "echo", "there"])) === "there\n",
    );
    return Math.round(performance.now() - startedMs);
  }

  /** A pod that the agent cannot have heard of yet; the returned function resolves when the agent has told of it. */
  async orderPod(): Promise<() => Promise<void>> {
    const name = `new-${++this.#pods}`;
    const command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];
    const spec = { ...pinned, containers: [{ name: "main", image: "mote.local/busybox:1", command }] };
    this.#asker ??= this.#openAsker();
    const { child } = this.#asker;
    child.stdin!.write(`${JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name }, spec })}\n`);
    await this.#answered(`ordered ${name}`);
    return () => this.#answered(`taken ${name}`);
  }

  #openAsker(): { readonly child: ChildProcess; said: string } {
    const text = readFileSync(this.hub.kubeconfig, "utf8");
    const field = (name: string) => new RegExp(`^\\s*${name}: "?([^"\\s]+)`, "m").exec(text)?.[1] ?? "";
    const pem = (name: string) => Buffer.from(field(name), "base64").toString();
    const [ca, cert, key] = ["certificate-authority-data", "client-certificate-data", "client-key-data"].map(pem);
    const facts = JSON.stringify({ server: field("server"), ca, cert, key });
    const inside = [`--net=/run/netns/${this.hub.name}`, process.execPath, "-e", askerScript, facts];
    const asker = { child: spawn("nsenter", inside, { stdio: ["pipe", "pipe", "inherit"] }), said: "" };
    asker.child.stdin.on("error", () => {});
    asker.child.stdout.on("data", (part: Buffer) => {
      asker.said += part.toString();
    });
    return asker;
  }

  async #answered(line: string, timeoutMs = 90_000): Promise<void> {
    const startedMs = performance.now();
    while (!this.#asker?.said.split("\n").includes(line)) {
      if (performance.now() - startedMs > timeoutMs) throw new Error(`not within ${timeoutMs} ms: ${line}`);
      await sleep(5);
    }
  }

  /** What would be different if anything in the pod had been restarted. */
  async container(): Promise<string> {
    const { status } = JSON.parse(await this.hub.kubectl("get pod box -o json")) as {
      status: { containerStatuses: { containerID: string; restartCount: number }[] };
    };
    const [{ containerID, restartCount } = { containerID: "", restartCount: -1 }] = status.containerStatuses;
    return `${containerID} ${restartCount}`;
  }
}

export class Streams {
  readonly #logs: ChildProcess;
  readonly #echo: ChildProcess;
  readonly #stopWriting: () => void;
  #logText = "";
  #echoText = "";
  #sent = 0;
  #echoedMs = 0;
  #failures = "";

  constructor(kubectl: (...args: string[]) => ChildProcess) {
    this.#logs = kubectl("logs", "-f", "box");
    this.#echo = kubectl("exec", "-i", "box", "--", "cat");
    this.#logs.stdout!.on("data", (part: Buffer) => {
      this.#logText += part.toString();
    });
    this.#echo.stdout!.on("data", (part: Buffer) => {
      this.#echoText += part.toString();
      this.#echoedMs = performance.now();
    });
    for (const child of [this.#logs, this.#echo]) {
      child.stderr!.on("data", (part: Buffer) => {
        this.#failures += part.toString();
      });
      child.stdin!.on("error", () => {});
    }
    const timer = setInterval(() => this.#echo.stdin!.write(`${this.#sent++}\n`), 20);
    this.#stopWriting = () => clearInterval(timer);
  }

  get isAlive(): boolean {
    return this.#echo.exitCode === null && this.#logs.exitCode === null;
  }

  async begun(): Promise<void> {
    const runs = () => this.#echoText.length > 20 && this.#logText.length > 0;
    await eventually("the streams run or end", 30_000, async () => runs() || !this.isAlive);
    if (!runs()) throw new Error(`the streams ended at once: ${this.#failures}`);
  }

  /** When something comes back that was answered after the call; milliseconds since. */
  async echoMs(timeoutMs = 60_000): Promise<number> {
    const startedMs = performance.now();
    while (this.#echoedMs <= startedMs) {
      if (!this.isAlive) throw new Error(`the streams ended: ${this.#failures}`);
      if (performance.now() - startedMs > timeoutMs) throw new Error("nothing comes back");
      await sleep(10);
    }
    return Math.round(this.#echoedMs - startedMs);
  }

  /** Whatever they have come to. */
  end(): void {
    this.#stopWriting();
    this.#echo.kill("SIGKILL");
    this.#logs.kill("SIGKILL");
  }

  /** Ends both; what is wrong with them, "" if nothing is. */
  async verdict(): Promise<string> {
    this.#stopWriting();
    const ended = new Promise<number | null>((resolve) => {
      if (this.#echo.exitCode !== null) resolve(this.#echo.exitCode);
      else this.#echo.once("exit", resolve);
    });
    this.#echo.stdin!.end();
    const code = await Promise.race([ended, sleep(30_000, "late" as const)]);
    this.end();
    const problems: string[] = [];
    if (code !== 0) problems.push(`exec ended with ${code}`);
    const wanted = Array.from({ length: this.#sent }, (_, i) => `${i}\n`).join("");
    if (this.#echoText !== wanted) problems.push(differenceOf(this.#echoText, wanted));
    const lines = this.#logText.split("\n").slice(0, -1).map(Number);
    const odd = lines.findIndex((line, i) => line !== i);
    if (odd >= 0) problems.push(`line ${odd} of the log is ${lines[odd]}`);
    if (lines.length === 0) problems.push("no log came");
    if (this.#failures !== "") problems.push(this.#failures.trim());
    return problems.join("; ");
  }
}

function differenceOf(got: string, wanted: string): string {
  let at = 0;
  while (at < got.length && got[at] === wanted[at]) at++;
  return `exec gave back ${got.length} of ${wanted.length} bytes, and something else from ${at} on`;
}
