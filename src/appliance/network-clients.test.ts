import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { expect, test } from "vitest";
import { isRunning } from "#platform/daemons.ts";
import { until } from "#test/harness/until.ts";
import { networkClients } from "./network-clients.ts";

test("a client runs once per link, anew for another link of that name, and ends when told to", async () => {
  const folder = mkdtempSync("/tmp/mote-clients-");
  const program = "/bin/sleep";
  const clients = networkClients(folder);
  const pid = () => Number(readFileSync(`${folder}/dhcp-usb0.pid`, "utf8").split(" ")[0]);
  const ended = async (id: number) => {
    await until(async () => !(await isRunning(id, program)));
    return !(await isRunning(id, program));
  };
  const keep = (index: number) => clients.keep({ name: "dhcp-usb0", program, args: ["60"], index });
  try {
    await keep(2);
    const first = pid();
    await keep(2);
    expect(pid()).toBe(first);
    // As another start of mote would find it.
    await networkClients(folder).keep({ name: "dhcp-usb0", program, args: ["60"], index: 2 });
    expect(pid()).toBe(first);
    await keep(3);
    const second = pid();
    expect(second).not.toBe(first);
    expect(await ended(first)).toBe(true);
    expect(await isRunning(second, program)).toBe(true);
    await clients.end("dhcp-usb0", program);
    expect(await ended(second)).toBe(true);
    await clients.end("dhcp-usb0", program);
  } finally {
    await clients.end("dhcp-usb0", program);
    rmSync(folder, { recursive: true });
  }
});
