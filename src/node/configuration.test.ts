import { describe, expect, test } from "vitest";
import { configz, defaultConfiguration, parseConfiguration } from "./configuration.ts";

describe("settings of the node agent", () => {
  test("nothing given: the defaults", () => expect(parseConfiguration([])).toEqual(defaultConfiguration));

  const good: [string, string[], object][] = [
    [
      "amounts",
      ["system-reserved=cpu=250m,memory=1Gi", "kube-reserved=memory=100Mi"],
      {
        systemReserved: { cpu: 250, memory: 2 ** 30 },
        kubeReserved: { memory: 100 * 2 ** 20 },
      },
    ],
    ["dashes are fine", ["--max-pods=5"], { maxPods: 5 }],
    ["durations", ["minimum-image-ttl-duration=1h30m"], { imageMinimumGcAgeMs: 5_400_000 }],
    ["no bound", ["pod-max-pids=-1"], { podPidsLimit: 0 }],
    ["a folder", ["root-dir=/srv/kubelet/"], { rootDir: "/srv/kubelet" }],
    ["a cgroup", ["cgroup-root=/pods.slice//mote/"], { cgroupRoot: "/pods.slice/mote" }],
    ["the topmost cgroup", ["cgroup-root=/"], { cgroupRoot: "/" }],
    ["a feature gate", ["feature-gates=InPlacePodVerticalScaling=true"], { podResize: true }],
  ];
  test.each(good)("%s", (_, args, expected) => expect(parseConfiguration(args)).toMatchObject(expected));

  test("eviction thresholds replace the default and take their reclaim and grace from other flags, in any order", () => {
    const parsed = parseConfiguration([
      "eviction-soft-grace-period=memory.available=1m30s",
      "eviction-minimum-reclaim=memory.available=50Mi",
      "eviction-hard=memory.available<200Mi",
      "eviction-soft=memory.available<1Gi",
    ]);
    expect(parsed.evictionHard).toEqual([
      { signal: "memory.available", kind: "hard", graceMs: 0, bytes: 200 * 2 ** 20, reclaim: { bytes: 50 * 2 ** 20 } },
    ]);
    expect(parsed.evictionSoft[0]).toMatchObject({ kind: "soft", graceMs: 90_000, bytes: 2 ** 30 });
  });

  const bad: [string, string[], RegExp][] = [
    ["an unknown flag", ["frobnicate=1"], /kubelet-arg frobnicate: is not known/],
    ["a number", ["max-pods=many"], /max-pods: "many" is not a whole number/],
    ["a signal", ["eviction-hard=disk<1"], /eviction-hard: "disk<1"/],
    ["an unknown gate", ["feature-gates=Nope=true"], /feature-gates: .*InPlacePodVerticalScaling/],
    ["a folder", ["root-dir=here"], /root-dir: "here" is not an absolute path/],
    ["a cgroup", ["cgroup-root=pods.slice"], /cgroup-root: "pods.slice" is not the path of a cgroup/],
    ["a cgroup elsewhere", ["cgroup-root=/a/../../etc"], /cgroup-root: .* is not the path of a cgroup/],
    ["a duration", ["shutdown-grace-period=soon"], /not a duration/],
    ["a negative duration", ["minimum-image-ttl-duration=-5m"], /not a duration/],
    ["a resource", ["kube-reserved=apples=1"], /apples=1/],
    ["an amount", ["system-reserved=memory=lots"], /system-reserved: "lots" is not a quantity/],
    ["a negative amount", ["kube-reserved=memory=-1Gi"], /"-1Gi" is not a quantity/],
    ["a threshold's amount", ["eviction-hard=memory.available<100Mb"], /eviction-hard: "100Mb" is not a quantity/],
    ["a size", ["container-log-max-size=10Mb"], /container-log-max-size: "10Mb" is not a quantity/],
    ["a list of processors", ["reserved-cpus=two"], /reserved-cpus: "two"/],
    ["thresholds the wrong way round", ["image-gc-high-threshold=50"], /image-gc-low-threshold/],
    ["a soft threshold without grace", ["eviction-soft=memory.available<1Gi"], /needs an eviction-soft-grace-period/],
    ["critical pods with more time than all", ["shutdown-grace-period-critical-pods=10s"], /must not be longer/],
  ];
  test.each(bad)("refuses %s", (_, args, message) => expect(() => parseConfiguration(args)).toThrow(message));

  test("shows itself as a KubeletConfiguration", () => {
    const shown = configz(parseConfiguration(["eviction-hard=memory.available<10%", "system-reserved=cpu=1"]));
    expect(shown).toMatchObject({
      kind: "KubeletConfiguration",
      evictionHard: { "memory.available": "10%" },
      systemReserved: { cpu: "1000m" },
      cgroupRoot: "/",
      evictionPressureTransitionPeriod: "5m0s",
    });
  });
});
