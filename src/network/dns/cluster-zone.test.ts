import { describe, expect, test } from "vitest";
import { answerFor, type ClusterView, type ZoneService } from "./cluster-zone.ts";

const http = { name: "http", protocol: "tcp", port: 80 };
const servicesByName: Readonly<Record<string, ZoneService>> = {
  "default/web": {
    kind: "clusterIp",
    addresses: ["10.43.0.7"],
    ports: [http, { name: "dns", protocol: "udp", port: 53 }],
  },
  "default/db": {
    kind: "headless",
    endpoints: [
      { address: "10.42.0.5", hostname: "db-0", ports: [http] },
      { address: "10.42.0.6", hostname: undefined, ports: [http] },
    ],
  },
  "default/none": { kind: "headless", endpoints: [] },
  "default/ext": { kind: "external", target: "example.org" },
  "default/sets": {
    kind: "headless",
    endpoints: [
      { address: "10.42.0.7", hostname: "db-0", ports: [http] },
      { address: "fd00:42::7", hostname: "db-0", ports: [http] },
      { address: "fd00:42::8", hostname: undefined, ports: [http] },
    ],
  },
  "default/dual": { kind: "clusterIp", addresses: ["10.43.0.8", "fd00:43::8"], ports: [] },
};
const view: ClusterView = {
  hasNamespace: (namespace) => namespace === "default",
  service: (namespace, name) => servicesByName[`${namespace}/${name}`],
  namesOf: (address) => (address === "10.43.0.7" || address === "fd00:43::8" ? ["web.default.svc"] : []),
  nodeAddresses: (name) => (name === "edge-1" ? ["192.0.2.9"] : []),
};
const zone = { clusterDomain: "cluster.local", dnsAddresses: ["10.43.0.10", "fd00:43::a"], serial: 1 };

/** Answers as `TYPE data`, or the status, or "forward". */
function ask(name: string, type: string): string | string[] {
  const answer = answerFor({ name, type }, view, zone);
  if (!answer) return "forward";
  if (answer.status !== "ok") return answer.status;
  return answer.answers.map((a) => {
    const { data } = a as { data: unknown };
    if (a.type === "SRV") {
      const { priority, weight, port, target } = a.data;
      return `SRV ${priority} ${weight} ${port} ${target}`;
    }
    return `${a.type} ${typeof data === "string" ? data : JSON.stringify(data)}`;
  });
}

describe("cluster zone", () => {
  test.each<[string, string, string | string[]]>([
    ["web.default.svc.cluster.local", "A", ["A 10.43.0.7"]],
    ["WEB.Default.svc.cluster.LOCAL.", "A", ["A 10.43.0.7"]],
    ["web.default.svc.cluster.local", "AAAA", "noData"],
    ["dual.default.svc.cluster.local", "AAAA", ["AAAA fd00:43::8"]],
    ["web.default.svc.cluster.local", "MX", "noData"],
    ["nope.default.svc.cluster.local", "A", "noName"],
    ["web.nope.svc.cluster.local", "A", "noName"],
    ["x.web.default.svc.cluster.local", "A", "noName"],
    ["_http._tcp.web.default.svc.cluster.local", "SRV", ["SRV 0 100 80 web.default.svc.cluster.local"]],
    ["_http._udp.web.default.svc.cluster.local", "SRV", "noName"],
    ["_http._tcp.web.default.svc.cluster.local", "A", "noData"],
    ["db.default.svc.cluster.local", "A", ["A 10.42.0.5", "A 10.42.0.6"]],
    ["db-0.db.default.svc.cluster.local", "A", ["A 10.42.0.5"]],
    ["10-42-0-6.db.default.svc.cluster.local", "A", ["A 10.42.0.6"]],
    ["10-42-0-5.db.default.svc.cluster.local", "A", "noName"],
    [
      "_http._tcp.db.default.svc.cluster.local",
      "SRV",
      ["SRV 0 50 80 db-0.db.default.svc.cluster.local", "SRV 0 50 80 10-42-0-6.db.default.svc.cluster.local"],
    ],
    ["none.default.svc.cluster.local", "A", "noName"],
    ["sets.default.svc.cluster.local", "A", ["A 10.42.0.7"]],
    ["sets.default.svc.cluster.local", "AAAA", ["AAAA fd00:42::7", "AAAA fd00:42::8"]],
    ["db-0.sets.default.svc.cluster.local", "AAAA", ["AAAA fd00:42::7"]],
    ["fd00-42--8.sets.default.svc.cluster.local", "AAAA", ["AAAA fd00:42::8"]],
    [
      "_http._tcp.sets.default.svc.cluster.local",
      "SRV",
      ["SRV 0 50 80 db-0.sets.default.svc.cluster.local", "SRV 0 50 80 fd00-42--8.sets.default.svc.cluster.local"],
    ],
    ["ext.default.svc.cluster.local", "A", ["CNAME example.org"]],
    ["10-42-0-5.default.pod.cluster.local", "A", ["A 10.42.0.5"]],
    ["10-42-0-500.default.pod.cluster.local", "A", "noName"],
    ["10-42-0-5.default.pod.cluster.local", "AAAA", "noData"],
    ["fd00-42--5.default.pod.cluster.local", "AAAA", ["AAAA fd00:42::5"]],
    ["fd00-42--5--6.default.pod.cluster.local", "AAAA", "noName"],
    ["10-42-0-5.nope.pod.cluster.local", "A", "noName"],
    ["svc.cluster.local", "A", "noData"],
    ["default.svc.cluster.local", "A", "noData"],
    ["nope.svc.cluster.local", "A", "noName"],
    ["cluster.local", "A", "noData"],
    ["cluster.local", "NS", ["NS ns.dns.cluster.local"]],
    ["ns.dns.cluster.local", "A", ["A 10.43.0.10"]],
    ["ns.dns.cluster.local", "AAAA", ["AAAA fd00:43::a"]],
    ["dns-version.cluster.local", "TXT", ["TXT 1.1.0"]],
    ["other.cluster.local", "A", "noName"],
    ["7.0.43.10.in-addr.arpa", "PTR", ["PTR web.default.svc.cluster.local"]],
    ["8.8.8.8.in-addr.arpa", "PTR", "forward"],
    [
      "8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.0.0.0.0.D.F.ip6.arpa",
      "PTR",
      ["PTR web.default.svc.cluster.local"],
    ],
    ["8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.0.0.0.0.d.f.ip6.arpa", "A", "noData"],
    ["9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.0.0.0.0.d.f.ip6.arpa", "PTR", "forward"],
    ["0.0.3.4.0.0.0.0.d.f.ip6.arpa", "PTR", "forward"],
    ["edge-1", "A", ["A 192.0.2.9"]],
    ["edge-2", "A", "forward"],
    ["example.org", "A", "forward"],
    ["notcluster.local", "A", "forward"],
    ["__proto__.default.svc.cluster.local", "A", "noName"],
  ])("%s %s", (name, type, expected) => {
    expect(ask(name, type)).toEqual(expected);
  });

  test("an external name says where to go on, unless the CNAME itself was asked for", () => {
    const name = "ext.default.svc.cluster.local";
    expect(answerFor({ name, type: "A" }, view, zone)?.follow).toBe("example.org");
    expect(answerFor({ name, type: "CNAME" }, view, zone)?.follow).toBeUndefined();
  });
});
