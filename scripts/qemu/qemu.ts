// `npm run qemu`: starts the built image on an emulated board, shows its console, waits until the node is Ready and says how to
// reach it. Ctrl-C switches the device off in order; a second one cuts its power.
//   --arch amd64|arm64|armhf   --firmware bios|uefi|uboot   --board rpi3
//   --token-file F, --config F  dropped on the boot partition as `token` and `mote.yaml`
//   --data FILE                 the device's disk, kept and used again; without it every start is a first start
//   --port N                    of this host, leads to the API (default 16443)
//   --memory MIB                --no-build: take the image that is there
import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { requirePort } from "#scripts/dev/host.ts";
import { ensureKubectl } from "#scripts/dev/kubectl.ts";
import { run } from "#scripts/run-command.ts";
import { main, seconds, UserError } from "#scripts/stages.ts";
import { kubeconfigBegin, kubeconfigEnd, markers } from "./console.ts";
import { buildCommand, Device, type DroppedFiles, dropFiles, imageOf } from "./device.ts";
import { createDisk } from "./disk.ts";
import { type Flow, findFlow, flows } from "./machines.ts";
import { ensureTools } from "./tools.ts";

/** Emulation of a 32-bit board on a busy machine takes minutes; nobody waits longer than this for nothing. */
const markerTimeoutMs = 15 * 60_000;
const powerDownTimeoutMs = 120_000;
const defaultPort = 16_443;

await main(async () => {
  const { values } = parseArgs({
    options: {
      arch: { type: "string", default: "amd64" },
      firmware: { type: "string" },
      board: { type: "string" },
      "token-file": { type: "string" },
      config: { type: "string" },
      data: { type: "string" },
      port: { type: "string", default: String(defaultPort) },
      memory: { type: "string" },
      "no-build": { type: "boolean" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) return console.log(usage());
  const flow = flowOf(values);
  const port = wholeNumber("port", values.port, 1, 65_535);
  const memoryMib = values.memory === undefined ? undefined : wholeNumber("memory", values.memory, 128, 65_536);
  if (memoryMib !== undefined && flow.defaultMemoryMib === undefined) {
    throw new UserError(`--memory: a ${flow.name} has what it has`);
  }
  await requirePort(port);
  console.log(`host tools: ${await ensureTools([flow])}`);
  if (!values["no-build"]) {
    const [program, ...args] = buildCommand(flow);
    await run(program!, args, { output: "show" });
  }
  // A second one beside it has another port, and must not take the first one's folder away.
  const folder = join("build", "qemu", port === defaultPort ? flow.name : `${flow.name}-${port}`);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const disk = values.data ?? join(folder, "disk.img");
  if (existsSync(disk)) console.log(`disk: ${disk}, as it was left`);
  else {
    const image = await imageOf(flow);
    console.log(`disk: ${disk}, a copy of ${image} on 8 GiB`);
    await createDisk(image, disk);
  }
  const dropped: DroppedFiles = {
    ...(values["token-file"] ? { token: values["token-file"] } : {}),
    ...(values.config ? { "mote.yaml": values.config } : {}),
  };
  await dropFiles(disk, dropped);
  await runDevice(flow, { folder, disk, apiPort: port, memoryMib });
});

async function runDevice(
  flow: Flow,
  options: { folder: string; disk: string; apiPort: number; memoryMib: number | undefined },
): Promise<void> {
  console.log(`--- ${flow.name}: power on (Ctrl-C switches it off)`);
  // The kubeconfig passes over the console too; nobody wants to read it there.
  let isHidden = false;
  const onLine = (line: string) => {
    if (line.includes(kubeconfigBegin)) isHidden = true;
    if (!isHidden) console.log(line);
    if (line.includes(kubeconfigEnd)) isHidden = false;
  };
  const device = await Device.start({ flow, ...options, onLine });
  const stopping = new AbortController();
  const onInterrupt = () => {
    if (stopping.signal.aborted) {
      void device.vm.kill();
      return;
    }
    stopping.abort();
    console.log("--- switching off; again to cut the power");
    device.powerDown(powerDownTimeoutMs).then(
      async (isOff) => {
        if (isOff) return;
        console.log("--- it does not switch itself off; cutting the power");
        await device.vm.kill();
      },
      (error: unknown) => {
        console.log(`--- ${error instanceof Error ? error.message : String(error)}; cutting the power`);
        return device.vm.kill();
      },
    );
  };
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onInterrupt);
  try {
    const times: string[] = [];
    for (const marker of markers) {
      const ms = await device.vm.waitForMarker(marker.name, markerTimeoutMs);
      times.push(`${marker.says} ${seconds(ms)}`);
    }
    await device.fetchKubeconfig(60_000);
    const kubectl = await ensureKubectl();
    console.log(`
--- Ready. After power-on: ${times.join(", ")}

  export KUBECONFIG=${device.kubeconfig}
  ${kubectl} get nodes,pods -A -o wide
  ${kubectl} apply -f examples/web.yaml

  console: ${device.vm.files.consoleLog}   disk: ${options.disk}
`);
  } catch (error) {
    if (!stopping.signal.aborted) {
      console.error(error instanceof UserError ? `--- ${error.message}` : error);
      process.exitCode = 1;
      await device.vm.kill();
    }
  }
  await device.vm.waitForExit(Number.MAX_SAFE_INTEGER);
  process.off("SIGINT", onInterrupt);
  process.off("SIGTERM", onInterrupt);
  console.log("--- off");
}

function flowOf(values: { arch: string; firmware?: string | undefined; board?: string | undefined }): Flow {
  try {
    return findFlow(values);
  } catch (error) {
    throw new UserError((error as Error).message);
  }
}

function wholeNumber(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new UserError(`--${name} ${text}: a whole number from ${min} to ${max}`);
  }
  return value;
}

/** A declaration: it is called before this line runs. */
function usage(): string {
  const boards = flows.map(
    (flow) =>
      `  --arch ${flow.arch} --firmware ${flow.firmware}${flow.board === "generic" ? "" : ` --board ${flow.board}`}`,
  );
  return `usage: npm run qemu -- [--arch ARCH] [--firmware FIRMWARE] [--board BOARD]

  --token-file F    becomes \`token\` on the boot partition
  --config F        becomes \`mote.yaml\` there
  --data FILE       the device's disk, kept and used again; without it every
                    start is a first start
  --port N          of this host, leads to the API (default ${defaultPort}); a second
                    board beside the first needs one of its own
  --memory MIB      of the board, where it can be chosen
  --no-build        take the image that is there

Boards; without --firmware UEFI, where a board has it:
${boards.join("\n")}`;
}
