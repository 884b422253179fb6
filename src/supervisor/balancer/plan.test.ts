import { expect, test } from "vitest";
import {
  type Attempt,
  inOrder,
  planFailure,
  planList,
  planSuccess,
  planTunnels,
  type ServerEntry,
  type ServerState,
} from "./plan.ts";

/** `name=state/connections@since`, as short as a table needs it. */
const servers = (text: string): ServerEntry[] =>
  text
    .split(" ")
    .filter((part) => part !== "")
    .map((part) => {
      const [, address = "", state = "", connections = "0", sinceMs = "0"] =
        /^(\w+)=(\w+)(?:\/(\d+))?(?:@(\d+))?$/.exec(part) ?? [];
      return { address, state: state as ServerState, connections: Number(connections), sinceMs: Number(sinceMs) };
    });
const shown = (list: readonly ServerEntry[]) => list.map(({ address, state }) => `${address}=${state}`).join(" ");

test.each<[string, string, string, string, string]>([
  ["the given one is all there is", "", "", "a=unchecked", ""],
  ["a list that names it", "a=active/2", "a b", "a=active b=unchecked", ""],
  ["a list that does not", "a=active/2", "b c", "b=unchecked c=unchecked a=standby", ""],
  ["it is named again", "b=healthy a=standby", "a b", "a=unchecked b=healthy", ""],
  ["one is gone, with its connections", "a=active/1 b=healthy c=failed", "a b", "a=active b=healthy", "c"],
  ["nothing is a mistake", "a=healthy", "", "a=healthy", ""],
  ["twice is once", "", "a b b", "a=unchecked b=unchecked", ""],
])("list: %s", (_name, before, listed, after, hangUp) => {
  const change = planList(servers(before), { listed: listed.split(" ").filter(Boolean), given: "a" }, 5);
  expect([shown(change.servers), change.hangUp.join()]).toEqual([after, hangUp]);
});

test.each<[string, string, "dial" | "check", number, string, string]>([
  ["new, dialed", "a=unchecked", "dial", 0, "a=recovering", ""],
  ["new, checked", "a=unchecked", "check", 0, "a=recovering", ""],
  ["back", "a=failed", "check", 0, "a=recovering", ""],
  ["a dial proves little", "a=recovering/1", "dial", 0, "a=recovering", ""],
  ["well and used", "a=recovering/1", "check", 0, "a=active", ""],
  ["well and not used", "a=recovering", "check", 0, "a=preferred", ""],
  ["not used for long", "a=preferred@0", "check", 60_001, "a=healthy", ""],
  ["not used for a while", "a=preferred@0", "check", 60_000, "a=preferred", ""],
  ["used at last", "a=healthy/1", "dial", 0, "a=active", ""],
  ["stand-by stays", "a=standby/1", "dial", 0, "a=standby", ""],
  [
    "lesser ones are left",
    "a=recovering/1 b=healthy/2 c=failed/1 d=standby/1",
    "check",
    0,
    "a=active b=healthy c=failed d=standby",
    "b,c,d",
  ],
  ["those without connections need no leaving", "a=recovering/1 b=healthy", "check", 0, "a=active b=healthy", ""],
  ["the busier stays active", "a=recovering/1 b=active/3", "check", 0, "a=preferred b=active", ""],
  ["or hands over, and keeps what it has", "a=recovering/3 b=active/1", "check", 0, "a=active b=preferred", ""],
])("success: %s", (_name, before, by, nowMs, after, hangUp) => {
  const change = planSuccess(servers(before), "a", by, nowMs);
  expect([shown(change.servers), change.hangUp.join()]).toEqual([after, hangUp]);
});

test.each<[string, string, Attempt, string, string]>([
  ["new, dialed", "a=unchecked", "dial", "a=failed", ""],
  ["somebody else has its address now", "a=recovering/1 b=standby", "proof", "a=failed b=standby", ""],
  [
    "new, checked: it may be behind something that lets no tunnel through",
    "a=recovering/1",
    "check",
    "a=recovering",
    "",
  ],
  ["the active one", "a=active/4 b=healthy", "check", "a=failed b=healthy", "a"],
  ["a healthy one", "a=healthy b=active/1", "dial", "a=failed b=active", "a"],
  ["stand-by stays", "a=standby", "dial", "a=standby", ""],
  ["failed stays", "a=failed", "check", "a=failed", ""],
])("failure: %s", (_name, before, by, after, hangUp) => {
  const change = planFailure(servers(before), "a", by, 1);
  expect([shown(change.servers), change.hangUp.join()]).toEqual([after, hangUp]);
});

test.each([
  ["a=failed b=unchecked c=standby d=active e=preferred f=healthy g=recovering", "d,e,f,g,b,c,a"],
  ["a=healthy/1 b=healthy/2 c=healthy", "b,a,c"],
  ["a=unchecked b=unchecked", "a,b"],
])("order of %s", (list, wanted) => expect(inOrder(servers(list)).join()).toBe(wanted));

test.each([
  ["a=active b=failed", "", "a,b"],
  ["b=unchecked a=standby", "", "b,a"],
  ["b=unchecked a=standby", "b", "b"],
])("tunnels for %s with %s connected", (list, connected, wanted) => {
  expect(planTunnels(servers(list), (address) => connected.split(",").includes(address)).join()).toBe(wanted);
});
