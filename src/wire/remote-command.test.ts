import { expect, test } from "vitest";
import {
  type ChannelMessage,
  decodeChannel,
  encodeChannel,
  encodeChannelClose,
  exitStatus,
  negotiate,
  websocketProtocols,
} from "./remote-command.ts";

test.each<[string, number[], string, ChannelMessage]>([
  ["stdin", [0, 104, 105], "v5.channel.k8s.io", { kind: "data", channel: "stdin", data: Uint8Array.of(104, 105) }],
  ["nothing is empty stdin", [], "v5.channel.k8s.io", { kind: "data", channel: "stdin", data: new Uint8Array(0) }],
  ["resize", [4, 123, 125], "v4.channel.k8s.io", { kind: "data", channel: "resize", data: Uint8Array.of(123, 125) }],
  ["close of stdin", [255, 0], "v5.channel.k8s.io", { kind: "close", channel: "stdin" }],
])("%s", (_name, bytes, protocol, message) => {
  expect(decodeChannel(Uint8Array.from(bytes), protocol)).toEqual(message);
});

test.each([
  ["an unknown channel", [9, 1], "v5.channel.k8s.io"],
  ["close before v5", [255, 0], "v4.channel.k8s.io"],
  ["close of nothing", [255], "v5.channel.k8s.io"],
])("%s is refused", (_name, bytes, protocol) => {
  expect(() => decodeChannel(Uint8Array.from(bytes), protocol)).toThrow("no channel");
});

test("what we encode is what we decode", () => {
  expect(decodeChannel(encodeChannel("error", Uint8Array.of(1, 2)), "v5.channel.k8s.io")).toEqual({
    kind: "data",
    channel: "error",
    data: Uint8Array.of(1, 2),
  });
  expect(decodeChannel(encodeChannelClose("stderr"), "v5.channel.k8s.io")).toEqual({
    kind: "close",
    channel: "stderr",
  });
});

test.each([
  ["v5.channel.k8s.io", "v5.channel.k8s.io"],
  ["v5.channel.k8s.io,v4.channel.k8s.io,v3.channel.k8s.io", "v5.channel.k8s.io"],
  [["v3.channel.k8s.io", "v4.channel.k8s.io"], "v4.channel.k8s.io"],
  ["channel.k8s.io", undefined],
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
