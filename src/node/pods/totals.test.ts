import { expect, test } from "vitest";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { rank } from "../eviction/ranking.ts";
import { podLimits } from "./resources.ts";
import { podTotals } from "./totals.ts";

type List = Record<string, string>;
const box = (resources: { requests?: List; limits?: List }, more: object = {}): Container =>
  ({ name: "c", resources, ...more }) as Container;
const podOf = (containers: Container[], more: object = {}): Pod =>
  ({ metadata: {}, spec: { containers, ...more } }) as unknown as Pod;
const sidecar = { restartPolicy: "Always" };

const cases: [string, Pod, Record<string, number>][] = [
  [
    "sidecars run beside what comes after them; overhead is on top",
    podOf([box({ requests: { cpu: "100m", memory: "1Mi" } })], {
      initContainers: [box({ requests: { cpu: "50m" } }, sidecar), box({ requests: { cpu: "200m", memory: "3Mi" } })],
      overhead: { cpu: "10m" },
    }),
    { cpu: 260, memory: 3 * 2 ** 20 },
  ],
  ["a limit alone is a request", podOf([box({ limits: { cpu: "1", memory: "1Mi" } })]), { cpu: 1000, memory: 2 ** 20 }],
  ["rounded once", podOf([box({ requests: { cpu: "0.5m" } }), box({ requests: { cpu: "0.5m" } })]), { cpu: 1 }],
  [
    // What is on its way is decided by what is allocated, which is what the spec holds here.
    "as the spec says, whatever the status shows",
    {
      ...podOf([box({ requests: { cpu: "1" } })]),
      status: { resize: "InProgress", containerStatuses: [{ name: "c", resources: { requests: { cpu: "2" } } }] },
    } as unknown as Pod,
    { cpu: 1000 },
  ],
];
test.each(cases)("%s", (_, pod, requests) => {
  expect(podTotals(pod, "requests")).toEqual(requests);
  expect(podLimits(pod).cpuShares).toBe(Math.max(2, Math.floor(((requests["cpu"] ?? 0) * 1024) / 1000)));
});

test("huge pages of an init container are there again for the others", () => {
  const pages = (text: string) => box({ limits: { "hugepages-2Mi": text } });
  const pod = podOf([pages("4Mi"), pages("2Mi")], { initContainers: [pages("4Mi")] });
  expect(podLimits(pod).hugePageBytes).toEqual({ "2MB": 6 * 2 ** 20 });
});

test("ranking counts what admission counts", () => {
  const mib = 2 ** 20;
  const of = (uid: string, pod: Pod) => ({
    pod: { ...pod, metadata: { uid } } as Pod,
    usage: { workingSetBytes: 2 * mib } as never,
  });
  const within = of("within", podOf([box({ limits: { memory: "1Mi" } }), box({ requests: { memory: "1Mi" } })]));
  const beyond = of("beyond", podOf([box({ requests: { memory: "1Mi" } })]));
  expect(rank([within, beyond], "memory.available").map((c) => c.pod.metadata.uid)).toEqual(["beyond", "within"]);
});
