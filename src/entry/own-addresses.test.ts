import { expect, test } from "vitest";
import { silentLogger as log } from "#base/log.ts";
import type { Commands } from "#platform/processes.ts";
import { type NodeIps, nextNodeIps, startAddresses } from "./own-addresses.ts";

const lan = "192.168.1.7";
const other = "10.0.0.5";

test.each<[string, NodeIps, string[], string[], NodeIps]>([
  ["all is as it was", [lan], ["127.0.0.1", lan], [lan], [lan]],
  ["the default route has moved to another network", [lan], [lan, other], [other], [lan]],
  ["a new lease", [lan], ["127.0.0.1", other], [other], [other]],
  ["the cable is out", [lan], ["127.0.0.1"], ["127.0.0.1"], [lan]],
  ["the first network", ["127.0.0.1"], ["127.0.0.1", lan], [lan], [lan]],
  ["the first network after a stand-in", ["192.0.2.1"], ["127.0.0.1", "192.0.2.1", lan], [lan], [lan]],
  ["still none", ["192.0.2.1"], ["127.0.0.1", "192.0.2.1"], ["127.0.0.1"], ["192.0.2.1"]],
])("%s", (_, now, present, preferred, expected) => {
  expect(nextNodeIps(now, { present, preferred }, ["IPv4"])).toEqual(expected);
});

test.each<[string, NodeIps, string[], string[], NodeIps]>([
  ["one of each family", [lan, "fd00::7"], [lan, "fd00::8"], [lan, "fd00::8"], [lan, "fd00::8"]],
  ["a second one comes", [lan], [lan, "fd00::7"], [lan, "fd00::7"], [lan, "fd00::7"]],
  ["both go", [lan, "fd00::7"], [], [], [lan, "fd00::7"]],
])("of two families: %s", (_, now, present, preferred, expected) => {
  expect(nextNodeIps(now, { present, preferred }, ["IPv4", "IPv6"])).toEqual(expected);
});

test.each<[string, NodeIps, number, NodeIps, number]>([
  ["has an address", [lan], 0, [lan], 0],
  ["has none", ["127.0.0.1"], 0, ["192.0.2.1"], 1],
  ["may have none made", ["127.0.0.1"], 2, ["127.0.0.1"], 1],
])("a machine that %s", async (_, nodeIps, code, expected, runs) => {
  const ran: string[] = [];
  const commands = {
    async run(program: string, args: readonly string[]) {
      ran.push([program, ...args].join(" "));
      return { code, stdout: "", stderr: "no" };
    },
  } as unknown as Commands;
  expect(await startAddresses(nodeIps, { commands, log })).toEqual(expected);
  expect(ran).toHaveLength(runs);
});
