// The emulated computers an image is started on, as data: one flow per way a real board of its kind starts. The argument
// lines are those that were seen to work with QEMU 7.2 under TCG; what is odd about one is said beside it. Pure.
import type { Architecture } from "#build.config.ts";

export type Arch = Architecture["debian"];
export type Firmware = "bios" | "uefi" | "uboot";
export type Board = "generic" | "rpi3";

export interface Flow {
  readonly name: string;
  readonly arch: Arch;
  readonly firmware: Firmware;
  readonly board: Board;
  /** What `npm run image` calls the board whose image starts here. */
  readonly imageBoard: string;
  readonly emulator: string;
  /** Processor and board, without disk, network, console and firmware. */
  readonly machine: readonly string[];
  /** Read-only firmware: its flash, and the fresh variables a private copy is made of. */
  readonly flash?: { readonly code: string; readonly variables: string };
  /** Read-only firmware that keeps nothing. */
  readonly bios?: string;
  /** Files of the BOOT partition that QEMU must load itself, because the board's own first loader is closed. */
  readonly loadedByBoard?: { readonly kernel: string; readonly dtb: string };
  /** Whether the image's kernel can read fw_cfg; Debian's armmp has no driver and the Pi no device. */
  readonly hasFwCfg: boolean;
  /** Whether QMP's system_powerdown reaches the guest as a pressed power button. */
  readonly hasPowerButton: boolean;
  readonly disk: "virtio" | "sd";
  /** `usb` is plugged in once the drivers are loaded; see `pluggedLater`. */
  readonly network: "virtio" | "usb";
  /** How many times longer than a quick flow this one may take: emulated processors of different boards differ much. */
  readonly patience: number;
  /** Undefined where the board has what it has. */
  readonly defaultMemoryMib: number | undefined;
  /** Host packages in Debian; see tools.ts. */
  readonly packages: readonly string[];
}

// cmpxchg16b of QEMU 7.2's TCG sometimes leaves garbage in the flags, and Linux's allocator uses it: random panics.
const x86Cpu = ["-cpu", "max,-cx16", "-smp", "2"];
const amd64 = {
  arch: "amd64",
  board: "generic",
  imageBoard: "generic",
  emulator: "qemu-system-x86_64",
  hasFwCfg: true,
  hasPowerButton: true,
  disk: "virtio",
  network: "virtio",
  patience: 1,
  defaultMemoryMib: 1024,
} as const;
const arm64 = {
  ...amd64,
  arch: "arm64",
  emulator: "qemu-system-aarch64",
  machine: ["-M", "virt", "-cpu", "cortex-a72", "-smp", "2"],
} as const;
const armhf = {
  ...amd64,
  arch: "armhf",
  emulator: "qemu-system-arm",
  machine: ["-M", "virt", "-cpu", "cortex-a15", "-smp", "2"],
  hasFwCfg: false,
} as const;

export const flows: readonly Flow[] = [
  {
    ...amd64,
    name: "amd64-bios",
    firmware: "bios",
    machine: ["-M", "pc", ...x86Cpu],
    packages: ["qemu-system-x86"],
  },
  {
    ...amd64,
    name: "amd64-uefi",
    firmware: "uefi",
    // The one emulated watchdog that a kernel of these images knows.
    machine: ["-M", "q35", ...x86Cpu, "-device", "i6300esb"],
    flash: { code: "/usr/share/OVMF/OVMF_CODE_4M.fd", variables: "/usr/share/OVMF/OVMF_VARS_4M.fd" },
    packages: ["qemu-system-x86", "ovmf"],
  },
  {
    ...arm64,
    name: "arm64-uefi",
    firmware: "uefi",
    flash: { code: "/usr/share/AAVMF/AAVMF_CODE.fd", variables: "/usr/share/AAVMF/AAVMF_VARS.fd" },
    packages: ["qemu-system-arm", "qemu-efi-aarch64"],
  },
  {
    ...arm64,
    name: "arm64-uboot",
    firmware: "uboot",
    // Given firmware, QEMU takes it for one that speaks ACPI and leaves the power button out of the device tree.
    machine: ["-M", "virt,acpi=off", "-cpu", "cortex-a72", "-smp", "2"],
    bios: "/usr/lib/u-boot/qemu_arm64/u-boot.bin",
    packages: ["qemu-system-arm", "u-boot-qemu"],
  },
  {
    ...armhf,
    name: "armhf-uefi",
    firmware: "uefi",
    flash: { code: "/usr/share/AAVMF/AAVMF32_CODE.fd", variables: "/usr/share/AAVMF/AAVMF32_VARS.fd" },
    packages: ["qemu-system-arm", "qemu-efi-arm"],
  },
  {
    ...armhf,
    name: "armhf-uboot",
    firmware: "uboot",
    bios: "/usr/lib/u-boot/qemu_arm/u-boot.bin",
    packages: ["qemu-system-arm", "u-boot-qemu"],
  },
  {
    ...arm64,
    name: "rpi3",
    firmware: "uboot",
    board: "rpi3",
    imageBoard: "rpi",
    machine: ["-M", "raspi3b"],
    loadedByBoard: { kernel: "u-boot.bin", dtb: "bcm2837-rpi-3-b.dtb" },
    hasFwCfg: false,
    hasPowerButton: false,
    disk: "sd",
    network: "usb",
    // Four processors that no option reduces, and a slow SD card.
    patience: 3,
    defaultMemoryMib: undefined,
    packages: ["qemu-system-arm"],
  },
];

/** Two devices of one kind on a wire, a server and its agent. */
export interface Pair {
  readonly name: string;
  readonly flow: Flow;
  readonly backend: "vxlan" | "wireguard-native";
  /** Nodes, pods and services have addresses of both IP families, and the agent joins over IPv6. */
  readonly isDual: boolean;
}

export const pairs: readonly Pair[] = (["amd64-bios", "arm64-uefi", "armhf-uefi"] as const).flatMap((name) => {
  const flow = flows.find((one) => one.name === name)!;
  return [
    { name: `${flow.arch}-pair`, flow, backend: "vxlan", isDual: false },
    { name: `${flow.arch}-pair-wireguard`, flow, backend: "wireguard-native", isDual: true },
  ] as const;
});

/** The flow of the options a person gives; a sentence where there is none. */
export function findFlow(wanted: {
  readonly arch: string;
  readonly firmware?: string | undefined;
  readonly board?: string | undefined;
}): Flow {
  const board = wanted.board ?? "generic";
  const fits = flows.filter((flow) => flow.arch === wanted.arch && flow.board === board);
  if (!flows.some((flow) => flow.arch === wanted.arch)) {
    throw new RangeError(`--arch ${wanted.arch} is not allowed; use ${names(flows.map((flow) => flow.arch))}`);
  }
  if (fits.length === 0) {
    const boards = flows.filter((flow) => flow.arch === wanted.arch).map((flow) => flow.board);
    throw new RangeError(`--board ${board} is not allowed for ${wanted.arch}; use ${names(boards)}`);
  }
  // UEFI is what most machines have; where there is none, the first.
  const flow = wanted.firmware
    ? fits.find((one) => one.firmware === wanted.firmware)
    : (fits.find((one) => one.firmware === "uefi") ?? fits[0]);
  if (!flow) {
    throw new RangeError(
      `--firmware ${wanted.firmware} is not allowed for ${wanted.arch}; use ${names(fits.map((one) => one.firmware))}`,
    );
  }
  return flow;
}

export interface MachineFiles {
  readonly disk: string;
  /** Private copy of the flow's flash variables. */
  readonly variables: string;
  /** Folder with the files of `loadedByBoard`. */
  readonly boardFolder: string;
  readonly consoleLog: string;
  /** What the loaders of the Pi say, on its other serial port. */
  readonly loaderLog: string;
  readonly qmpSocket: string;
}

/** A cable to one other machine: what is sent arrives at the other port of the loopback, or nowhere. */
export interface Wire {
  readonly mac: string;
  readonly localPort: number;
  readonly remotePort: number;
}

/** Of the adapter that leads outside, where there is a wire besides. */
export const outsideMac = "52:54:00:12:34:56";

export interface MachineOptions {
  readonly files: MachineFiles;
  readonly memoryMib?: number | undefined;
  /** Ports of this host's loopback that lead into the guest. */
  readonly forwards: readonly { readonly hostPort: number; readonly guestPort: number }[];
  /** `opt/mote/...` name and value. */
  readonly fwCfg?: readonly { readonly name: string; readonly value: string }[];
  /** Beside the network that leads outside. */
  readonly wire?: Wire;
  /** The wire is all the network there is. */
  readonly isAlone?: boolean;
  /** What the board's clock says at power-on, such as 1970-01-01T00:00:00; without: this host's time. */
  readonly clock?: string;
  /** More drives, `-drive` values; for tests that record what is written. */
  readonly diskOptions?: string;
}

export function qemuArguments(flow: Flow, options: MachineOptions): string[] {
  const { files } = options;
  const memoryMib = flow.defaultMemoryMib === undefined ? undefined : (options.memoryMib ?? flow.defaultMemoryMib);
  const { wire } = options;
  const outside = [
    "user,id=net0",
    ...options.forwards.map((f) => `hostfwd=tcp:127.0.0.1:${f.hostPort}-:${f.guestPort}`),
  ].join(",");
  const adapter = wire ? `virtio-net-pci,netdev=net0,mac=${outsideMac}` : "virtio-net-pci,netdev=net0";
  const network = [
    ...(options.isAlone ? [] : ["-netdev", outside]),
    ...(options.isAlone || flow.network === "usb" ? [] : ["-device", adapter]),
    ...(wire
      ? [
          "-netdev",
          `socket,id=wire0,udp=127.0.0.1:${wire.remotePort},localaddr=127.0.0.1:${wire.localPort}`,
          "-device",
          `virtio-net-pci,netdev=wire0,mac=${wire.mac}`,
        ]
      : []),
  ];
  const drive = `file=${escaped(files.disk)},format=raw${options.diskOptions ? `,${options.diskOptions}` : ""}`;
  return [
    ...flow.machine,
    "-accel",
    "tcg",
    ...(memoryMib === undefined ? [] : ["-m", String(memoryMib)]),
    ...(flow.flash
      ? [
          "-drive",
          `if=pflash,format=raw,unit=0,readonly=on,file=${escaped(flow.flash.code)}`,
          "-drive",
          `if=pflash,format=raw,unit=1,file=${escaped(files.variables)}`,
        ]
      : []),
    ...(flow.bios ? ["-bios", flow.bios] : []),
    ...(flow.loadedByBoard
      ? [
          "-kernel",
          `${files.boardFolder}/${flow.loadedByBoard.kernel}`,
          "-dtb",
          `${files.boardFolder}/${flow.loadedByBoard.dtb}`,
        ]
      : []),
    ...(flow.disk === "sd"
      ? ["-drive", `${drive},if=sd`]
      : ["-drive", `${drive},if=none,id=disk0`, "-device", "virtio-blk-pci,drive=disk0,bootindex=0"]),
    ...network,
    // A random source: without one the first keys of a fresh board wait for the kernel to gather noise.
    ...(flow.network === "usb" ? [] : ["-device", "virtio-rng-pci"]),
    ...(options.clock === undefined ? [] : ["-rtc", `base=${options.clock}`]),
    ...(flow.hasFwCfg
      ? (options.fwCfg ?? []).flatMap(({ name, value }) => ["-fw_cfg", `name=${name},string=${escaped(value)}`])
      : []),
    "-chardev",
    `stdio,id=console,signal=off,logfile=${escaped(files.consoleLog)},logappend=on`,
    "-serial",
    "chardev:console",
    // Loaders of the Pi talk on its mini UART, Linux on the other.
    ...(flow.disk === "sd" ? ["-serial", `file:${files.loaderLog}`] : []),
    "-qmp",
    `unix:${escaped(files.qmpSocket)},server=on,wait=off`,
    "-monitor",
    "none",
    "-display",
    "none",
  ];
}

/**
 * The device that is plugged in by QMP when the drivers are loaded and pulled out when U-Boot begins again. Real USB hosts
 * forget everything at the soft reset a driver begins with; QEMU's (hcd-dwc2) does not implement it, so that a port U-Boot
 * has used stays "seen already" and Linux never hears of the adapter behind it.
 */
export const pluggedLater = { id: "late0", driver: "usb-net", netdev: "net0", port: "1" } as const;

/** A comma ends an option's value for QEMU; two are one. */
const escaped = (value: string): string => value.replaceAll(",", ",,");
const names = (list: readonly string[]): string => [...new Set(list)].join(", ");
