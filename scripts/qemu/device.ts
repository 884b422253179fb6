// An emulated device and the cluster on it, as `npm run qemu`, the tests and the bench use them: disk prepared with files
// dropped on BOOT, started, followed to Ready, reached with kubectl through a forwarded port, stopped in order.
import { existsSync } from "node:fs";
import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ensureKubectl } from "#scripts/dev/kubectl.ts";
import { type RunResult, run } from "#scripts/run-command.ts";
import { UserError } from "#scripts/stages.ts";
import { forwardedKubeconfig, kubeconfigIn } from "./console.ts";
import { createDisk, FatPartition, findImage, readDataFile } from "./disk.ts";
import type { Flow, Wire } from "./machines.ts";
import { powerDown, Vm } from "./vm.ts";

export const imageFolder = "build/image";
const apiPort = 6443;

/** Files dropped on the boot partition: their name there, and the local file. */
export type DroppedFiles = Readonly<Record<string, string>>;

export async function imageOf(flow: Flow): Promise<string> {
  const target = flow.imageBoard === "generic" ? flow.arch : `${flow.arch}-${flow.imageBoard}`;
  const image = await findImage(imageFolder, target);
  if (!image) throw new UserError(`no image for ${target} in ${imageFolder}: run \`${buildCommand(flow).join(" ")}\``);
  return image;
}

export const buildCommand = (flow: Flow, ...more: readonly string[]): string[] => [
  "npm",
  "run",
  "image",
  "--",
  "--arch",
  flow.arch,
  ...(flow.imageBoard === "generic" ? [] : ["--board", flow.imageBoard]),
  ...more,
];

export async function dropFiles(disk: string, files: DroppedFiles): Promise<void> {
  const boot = await FatPartition.of(disk);
  for (const [name, localFile] of Object.entries(files)) {
    if (!existsSync(localFile)) throw new UserError(`${localFile} does not exist`);
    await boot.put(name, localFile);
  }
}

export interface DeviceOptions {
  readonly flow: Flow;
  readonly folder: string;
  readonly disk: string;
  readonly apiPort: number;
  readonly moreForwards?: readonly { readonly hostPort: number; readonly guestPort: number }[];
  readonly memoryMib?: number | undefined;
  readonly wire?: Wire;
  readonly onLine?: (line: string) => void;
}

export class Device {
  readonly options: DeviceOptions;
  readonly kubeconfig: string;
  readonly vm: Vm;
  #kubectl = "";

  static async start(options: DeviceOptions): Promise<Device> {
    const vm = await Vm.start({
      ...options,
      forwards: [{ hostPort: options.apiPort, guestPort: apiPort }, ...(options.moreForwards ?? [])],
      fwCfg: [{ name: "opt/mote/console-kubeconfig", value: "1" }],
    });
    return new Device(options, vm);
  }

  private constructor(options: DeviceOptions, vm: Vm) {
    this.options = options;
    this.vm = vm;
    this.kubeconfig = join(options.folder, "kubeconfig.yaml");
  }

  /** Writes the kubeconfig for this host; from the console, else from the data partition. */
  async fetchKubeconfig(timeoutMs: number): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    let text: string | undefined;
    for (;;) {
      text = kubeconfigIn(this.vm.bootLines().map((line) => line.text));
      // Reading the disk beside the guest is the way of boards that cannot be asked.
      if (!text && !this.vm.flow.hasFwCfg) text = await readDataFile(this.options.disk, "/mote/kubeconfig.yaml");
      if (text) break;
      if (this.vm.hasExited || performance.now() > endMs) {
        throw new UserError(`the device did not show its kubeconfig\n${this.vm.tail()}`);
      }
      await sleep(this.vm.flow.hasFwCfg ? 200 : 3000);
    }
    await writeFile(this.kubeconfig, forwardedKubeconfig(text, this.options.apiPort), { mode: 0o600 });
    await chmod(this.kubeconfig, 0o600);
  }

  /** kubectl against the device; rejects when it fails, unless `ok` allows it. */
  async kubectl(
    args: readonly string[],
    options: { input?: string; ok?: readonly number[]; timeoutMs?: number } = {},
  ): Promise<RunResult> {
    this.#kubectl ||= await ensureKubectl();
    return run(this.#kubectl, ["--kubeconfig", this.kubeconfig, ...args], { timeoutMs: 300_000, ...options });
  }

  /** Repeats kubectl until its output satisfies; the API may be away for a moment, the cluster takes its time. */
  async until(args: readonly string[], isDone: (output: string) => boolean, timeoutMs: number): Promise<string> {
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      const { output } = await this.kubectl(["--request-timeout=20s", ...args], { ok: [0, 1] });
      if (isDone(output)) return output;
      if (this.vm.hasExited) throw new UserError(`the device stopped\n${this.vm.tail()}`);
      if (performance.now() > endMs) {
        const said = output.trim().slice(-1000);
        throw new UserError(`kubectl ${args.join(" ")}: not within ${Math.round(timeoutMs / 1000)} s; last: ${said}`);
      }
      await sleep(500);
    }
  }

  /** A signal for PID 1, from a pod: TERM restarts the device, USR2 powers it off, both in order. */
  async signalInit(signal: "TERM" | "USR2"): Promise<void> {
    await this.kubectl(["delete", "pod", "signal-init", "--ignore-not-found", "--grace-period=1"]);
    const { output } = await this.kubectl(["get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.bootID}"]);
    await this.kubectl(["apply", "-f", "-"], { input: initSignalPod(signal, output.trim()) });
  }

  /** True when the device switched itself off in time. Boards without power button are asked through the API. */
  powerDown(timeoutMs: number): Promise<boolean> {
    return powerDown(this.vm, timeoutMs, () => this.signalInit("USR2"));
  }
}

/** Only in this boot: a device that stops before the pod's end is reported would run it again after its restart. */
const initSignalPod = (signal: string, bootId: string): string =>
  podOnce(
    "signal-init",
    {
      // A moment, so that the pod's own start is reported before everything stops.
      command: ["sh", "-c", `sleep 3; grep -q ${bootId} /proc/sys/kernel/random/boot_id && kill -${signal} 1`],
      securityContext: { privileged: true },
    },
    { hostPID: true },
  );

/** A pod for kubectl: one container of the shipped image that runs once, and what else its container and its spec have. */
export function podOnce(name: string, container: object, spec: object = {}): string {
  const main = { name: "main", image: "mote.local/busybox:1", ...container };
  const whole = { restartPolicy: "Never", terminationGracePeriodSeconds: 1, containers: [main], ...spec };
  return JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name }, spec: whole });
}

/** A fresh disk for the flow in `folder`, with what earlier runs left there removed. */
export async function freshDisk(flow: Flow, folder: string, files: DroppedFiles): Promise<string> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const disk = join(folder, "disk.img");
  await createDisk(await imageOf(flow), disk);
  await dropFiles(disk, files);
  return disk;
}

/** A port of the loopback that is free now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
