import { expect, test } from "vitest";
import { nameserversOf, upstreamsOf } from "./resolv-conf.ts";

test("reads nameserver lines only", () => {
  const text =
    "# nameserver 1.1.1.1\nsearch lan\nnameserver 10.0.0.1\n nameserver\t10.0.0.2 # two\nnameserver 10.0.0.1\noptions ndots:5\nnameserver fd00::1\n";
  expect(nameserversOf(text)).toEqual(["10.0.0.1", "10.0.0.2", "fd00::1"]);
});

const own = new Set(["10.43.0.10"]);
test.each<[string, string | undefined, string | undefined, string[]]>([
  ["plain", "nameserver 10.0.0.1", "nameserver 10.9.9.9", ["10.0.0.1"]],
  ["stub stands for its own resolvers", "nameserver 127.0.0.53", "nameserver 10.9.9.9", ["10.9.9.9"]],
  ["stub without that file works on the host as it is", "nameserver 127.0.0.53", undefined, ["127.0.0.53"]],
  ["never ourselves", "nameserver 10.43.0.10\nnameserver 10.0.0.1", undefined, ["10.0.0.1"]],
  ["never ourselves behind the stub", "nameserver 127.0.0.53", "nameserver 10.43.0.10", []],
  ["no file", undefined, undefined, []],
])("upstreams: %s", (_, resolvConf, systemd, expected) => {
  expect(upstreamsOf(resolvConf, systemd, own)).toEqual(expected);
});
