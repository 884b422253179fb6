// Kernel settings under /proc/sys. Written only where they differ, since some (ip_forward) reset others when written.
import { readFile, writeFile } from "node:fs/promises";
import { hasCode } from "#base/errors.ts";

export interface Sysctl {
  /** `net.ipv4.ip_forward` style name (a device with dots in its name needs slashes); undefined where the kernel has no such setting. */
  read(name: string): Promise<string | undefined>;
  write(name: string, value: string): Promise<void>;
}

const pathOf = (name: string): string => `/proc/sys/${name.includes("/") ? name : name.replaceAll(".", "/")}`;

export const systemSysctl: Sysctl = {
  async read(name) {
    try {
      return (await readFile(pathOf(name), "utf8")).trim();
    } catch (error) {
      if (hasCode(error, "ENOENT")) return undefined;
      throw error;
    }
  },
  async write(name, value) {
    await writeFile(pathOf(name), value);
  },
};
