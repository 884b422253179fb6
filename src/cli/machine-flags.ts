// Flags of `mote machine`. A device passes none; they exist so that the program can run beside an operating system, where
// disk, network and clock belong to somebody else.
import type { Flag } from "./flags.ts";

export const machineFlags: readonly Flag[] = [
  { name: "boot", kind: "string", default: "/boot", help: "where the boot partition is mounted" },
  { name: "data", kind: "string", default: "/data", help: "where the data partition is mounted" },
  {
    name: "etc",
    kind: "string",
    default: "/etc",
    help: "folder that hostname, hosts and mote/config.yaml are written to",
  },
  { name: "run-dir", kind: "string", default: "/run/mote", help: "folder for what is gone after a reboot" },
  {
    name: "no-disk",
    kind: "boolean",
    default: false,
    help: "use the boot and data folders as they are instead of mounting partitions there",
  },
  { name: "no-network", kind: "boolean", default: false, help: "leave links, addresses and the host name alone" },
  { name: "no-clock", kind: "boolean", default: false, help: "leave the clock alone" },
  { name: "no-watchdog", kind: "boolean", default: false, help: "leave the hardware watchdog alone" },
  { name: "debug", kind: "boolean", default: false, help: "log per request" },
];
