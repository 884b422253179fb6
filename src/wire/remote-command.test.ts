import { expect, test } from "vitest";
import {
  type ChannelMessage,
  decodeChannel,
  encodeChannel,
  encodeChannelClose,
  exitStatus,
  negotiate,
  statusText,
  websocketProtocols,
} from "./remote-command.ts";

test.each<[string, number[], string, ChannelMessage]>([
  ["stdin", [0, 104, 105], "v5.channel.k8s.io", { kind: "data", channel: "stdin", data: Uint8Array.of(104, 105) }],
  ["nothing is empty stdin", [], "v5.channel.k8s.io", { kind: "data", channel: "stdin", data: new Uint8Array(0) }],
  ["resize", [4, 123, 125], "v4.channel.k8s.io", { kind: "data", channel: "resize", data: Uint8Array.of(123, 125) }],
  ["close of stdin", [255, 0], "v5.channel.k8s.io", { kind: "close", channel: "stdin" }],
  [
    "base64",
    [...Buffer.from("0aGk=")],
    "base64.channel.k8s.io",
    { kind: "data", channel: "stdin", data: Buffer.from("hi") },
  ],
  ["nothing in base64", [], "v4.base64.channel.k8s.io", { kind: "data", channel: "stdin", data: Buffer.alloc(0) }],
])("%s", (_name, bytes, protocol, message) => {
  expect(decodeChannel(Uint8Array.from(bytes), protocol)).toEqual(message);
});

test.each([
  ["an unknown channel", [9, 1], "v5.channel.k8s.io"],
  ["close before v5", [255, 0], "v4.channel.k8s.io"],
  ["close of nothing", [255], "v5.channel.k8s.io"],
  ["a channel that is no digit", [...Buffer.from("xaGk=")], "base64.channel.k8s.io"],
])("%s is refused", (_name, bytes, protocol) => {
  expect(() => decodeChannel(Uint8Array.from(bytes), protocol)).toThrow("no channel");
});

test("what we encode is what we decode", () => {
  for (const protocol of websocketProtocols) {
    const message = Buffer.from(encodeChannel("error", Uint8Array.of(1, 2), protocol) as Uint8Array);
    const { data, ...rest } = decodeChannel(message, protocol) as ChannelMessage & { kind: "data" };
    expect([rest, [...data]]).toEqual([{ kind: "data", channel: "error" }, [1, 2]]);
  }
  expect(encodeChannel("stdout", Buffer.from("hi"), "base64.channel.k8s.io")).toBe("1aGk=");
  expect(decodeChannel(encodeChannelClose("stderr"), "v5.channel.k8s.io")).toEqual({
    kind: "close",
    channel: "stderr",
  });
});

test.each([
  ["v5.channel.k8s.io", "v5.channel.k8s.io"],
  ["v5.channel.k8s.io,v4.channel.k8s.io,v3.channel.k8s.io", "v5.channel.k8s.io"],
  [["v3.channel.k8s.io", "v4.channel.k8s.io"], "v4.channel.k8s.io"],
  ["channel.k8s.io", "channel.k8s.io"],
  ["v3.channel.k8s.io, base64.channel.k8s.io", "base64.channel.k8s.io"],
  ["v3.channel.k8s.io", undefined],
  [undefined, undefined],
])("negotiation of %j", (offered, chosen) => {
  expect(negotiate(offered, websocketProtocols)).toBe(chosen);
});

test("an exit code is a cause that clients look for", () => {
  expect(JSON.parse(Buffer.from(exitStatus(3)).toString())).toMatchObject({
    reason: "NonZeroExitCode",
    details: { causes: [{ reason: "ExitCode", message: "3" }] },
  });
  expect(JSON.parse(Buffer.from(exitStatus(0)).toString()).status).toBe("Success");
});

test("before v4 a success says nothing and a failure is a text", () => {
  expect(statusText(exitStatus(0))).toBe("");
  expect(statusText(exitStatus(3))).toBe("command terminated with non-zero exit code: exit status 3");
  expect(statusText(Buffer.from("broken"))).toBe("broken");
});
