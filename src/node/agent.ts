// The node agent: containerd, the Node object, and one worker per pod bound here. Pods outlive it: when it ends, or dies,
// containers stay; the next run lists them, waits for the API's list of pods, takes over those that belong and ends the
// rest. Counterpart: the kubelet.
//
//   API watch (spec.nodeName) ─┐
//   containerd exits, relist ──┼─▶ PodWorker (observe ▸ plan ▸ apply ▸ status)  one per pod uid
//   probes, timers ────────────┘
import { AppError, isAbort, messageOf } from "#base/errors.ts";
import { familyOfIp } from "#base/ip-range.ts";
import { runAll, type Service, untilAborted } from "#base/service.ts";
import { Informer } from "#client/informer.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { uidOf } from "#model/object.ts";
import { pods } from "#model/resources.ts";
import { makeFolder, readFileIfExists } from "#platform/files.ts";
import { type Machine, processCounts, readMachine } from "#platform/machine.ts";
import { hostHasAppArmor } from "./apparmor.ts";
import { canForbidSwap, controllers, podOomKills, treesWithout } from "./cgroups.ts";
import { ChildSignals } from "./child-signals.ts";
import { defaultConfiguration, podsCgroupOf } from "./configuration.ts";
import { certsFolderOf, createContainerd, pidFileOf, socketOf } from "./containerd.ts";
import { createCri } from "./cri.ts";
import { Hardware } from "./hardware/manager.ts";
import { noRegistries, readRegistries, registryCredentials, writeHostsFiles } from "./images/registries.ts";
import { createUnpacking, settledPulls, untrustedImages } from "./images/unpacking.ts";
import { rotateLogs } from "./log-rotation.ts";
import type { PodLookup } from "./lookup.ts";
import { isMirrorPod, annotations as staticAnnotations } from "./mirror-pods.ts";
import { waitForContainerd } from "./missing-containerd.ts";
import { NodeObject, type NodeObjectDeps } from "./node-object.ts";
import { defaults, type NodeAgentDeps, type NodeAgentOptions } from "./options.ts";
import { endOrphans, rememberNode } from "./orphans.ts";
import { createPodLookup } from "./pod-lookup.ts";
import { Allocations } from "./pods/allocations.ts";
import { type PodContext, Slots } from "./pods/context.ts";
import { type DnsSettings, parseResolvConf } from "./pods/dns.ts";
import { readySandbox } from "./pods/observation.ts";
import { ProbeCounts } from "./pods/probe-counts.ts";
import { Probes } from "./pods/probes.ts";
import { hugePageSizes } from "./pods/resources.ts";
import { PodWorker } from "./pods/worker.ts";
import { Programs } from "./programs.ts";
import { ResourceKeeper } from "./resource-keeper.ts";
import { RuntimeCache } from "./runtime-cache.ts";
import { shutDownPods } from "./shutdown.ts";
import { StaticPods } from "./static-pods.ts";
import { createNodeStats, type NodeStats } from "./stats/service.ts";
import { createPodObjects } from "./volumes/objects.ts";
import { NodeStorage } from "./volumes/storage.ts";
import { PodTokens } from "./volumes/tokens.ts";
import { Volumes } from "./volumes/volumes.ts";

export interface NodeAgent extends Service {
  /** For the node API; empty until the agent runs. */
  readonly lookup: PodLookup;
  /** What pods use; undefined until the agent runs. */
  readonly stats: () => NodeStats | undefined;
}

/**
 * Pods brought up at once: each is a chain of short programs (CNI plugins, runc) and waits for the disk between them. Fewer
 * leave processors idle, more only share them, and on a small board they share the memory too.
 */
const startingAtOnce = (cpus: number): number => Math.min(8, Math.max(4, 3 * cpus));
/** Images pulled at once: they share one line and one disk. */
const pullingAtOnce = 4;
/** Sandboxes taken down at once; containers end by themselves and are not counted. */
const endingAtOnce = startingAtOnce;
const stopTimeoutMs = 20_000;
/** After a server has answered, its first list may take so long before remembered pods are started. */
const slowListMs = 10_000;
const mirrorAnnotation = staticAnnotations.mirror;

export function createNodeAgent(options: NodeAgentOptions, deps: NodeAgentDeps): NodeAgent {
  const { client, clock, random, log, events, memory } = deps;
  const containerdCri = createCri({ socketPath: socketOf(options.containerd) });
  const unpacking = createUnpacking(
    { folder: `${options.containerd.root}-unpacking`, imagesFolder: options.containerd.root },
    { commands: deps.commands, log, images: untrustedImages(socketOf(options.containerd), containerdCri) },
  );
  const cri = settledPulls(containerdCri, unpacking);
  const configuration = options.configuration ?? defaultConfiguration;
  const programs = new Programs(options.programs, { clock });
  const [nodeIp = "127.0.0.1"] = options.nodeIps;
  const ipFamily = familyOfIp(nodeIp);
  const podsCgroup = podsCgroupOf(configuration.cgroupRoot);
  const runtime = new RuntimeCache({
    ...{ cri, clock, log, ipFamily },
    withLimits: configuration.podResize,
    oomKills: (uid) => podOomKills(uid, podsCgroup),
  });
  const workers = new Map<string, PodWorker>();
  const lookup = createPodLookup(cri, runtime, workers);
  let stats: NodeStats | undefined;
  deps.metrics.gaugeOf(
    "kubelet_running_pods",
    "Pods whose sandbox runs.",
    () => runtime.all().filter((pod) => readySandbox(pod)).length,
  );
  deps.metrics.gaugeOf("kubelet_running_containers", "Containers that run.", () =>
    runtime.all().reduce((sum, pod) => sum + pod.containers.filter((c) => c.state === "running").length, 0),
  );

  async function runPods(signal: AbortSignal, ready: () => void): Promise<void> {
    // What an earlier run of this agent knew is asked anew.
    workers.clear();
    const machine = await readMachine();
    const cgroups = await controllers();
    if (cgroups.missing.length > 0) {
      log.warn("the kernel lacks cgroup controllers: their limits are not kept", {
        missing: cgroups.missing.join(" "),
      });
    }
    await makeFolder(options.dataFolder, 0o755);
    const registries =
      (options.registriesFile ? await readRegistries(options.registriesFile) : undefined) ?? noRegistries;
    for (const warning of await writeHostsFiles(certsFolderOf(options.containerd), registries)) log.warn(warning);
    await unpacking.recover(machine.bootId);
    await deps.ensureImages?.(socketOf(options.containerd), unpacking);
    if (options.podCidrs.length > 0) await cri.updatePodCidr(options.podCidrs.join(","));

    const objects = createPodObjects({ client, clock });
    const podsFolder = `${options.dataFolder}/pods`;
    await makeFolder(podsFolder, 0o750);
    const podLogRoot = options.podLogFolder ?? defaults.podLogFolder;
    const hasAppArmor = await hostHasAppArmor();
    const reportSoon = () =>
      void node.report().catch((error: unknown) => {
        // The regular report follows within seconds.
        log.debug("cannot report the node at once", { error: messageOf(error) });
      });
    const hardware = new Hardware({
      ...{ clock, log, cri, configuration, dataFolder: options.dataFolder, memoryBytes: machine.memoryBytes },
      pluginFolder: `${options.kubeletFolder ?? defaults.kubeletFolder}/device-plugins`,
      observed: () => runtime.all(),
      onChange: reportSoon,
    });
    await hardware.open();
    const allocations = new Allocations({ dataFolder: options.dataFolder, log });
    await allocations.open();
    let mountedAt: (podUid: string, volume: string) => string | undefined = () => undefined;
    const resources = new ResourceKeeper({
      ...{ configuration, machine, clock, log, metrics: deps.metrics, cri, runtime, workers },
      ...{ podsFolder, podLogRoot, hasAppArmor, hardware },
      imageFolder: options.containerd.root,
      pauseImage: options.containerd.pauseImage,
      runtimePidFile: pidFileOf(options.containerd),
      mountedAt: (uid, volume) => mountedAt(uid, volume),
      warn: (reason, message) => node.warn(reason, message),
      onChange: reportSoon,
      lookAtNode: () => node.look(),
    });
    await resources.open();
    const probeCounts = new ProbeCounts();
    stats = createNodeStats({
      ...{ nodeName: options.nodeName, machine, sampler: resources.sampler, pods: lookup.pods },
      nodeFolder: podsFolder,
      podsCgroup,
      imageFolder: options.containerd.root,
      pauseImage: options.containerd.pauseImage,
      imageBytes: () => node.imageBytes,
      probes: () => probeCounts.render(),
    });
    const { allocatable } = resources;
    const capacity = {
      milliCpu: allocatable["cpu"] ?? 0,
      memoryBytes: allocatable["memory"] ?? 0,
      ephemeralBytes: allocatable["ephemeral-storage"] ?? 0,
    };
    const tokens = new PodTokens({ client, clock });
    const storage = new NodeStorage(
      {
        nodeName: options.nodeName,
        podsFolder,
        storageFolder: options.storageFolder ?? `${options.dataFolder}/storage`,
        kubeletFolder: options.kubeletFolder ?? defaults.kubeletFolder,
        sharesMounts: options.sharesMounts ?? false,
      },
      { client, clock, random, log, events, commands: deps.commands, tokens },
    );
    mountedAt = (uid, volume) => storage.persistent.pathOf(uid, volume);
    const volumes = new Volumes(
      { podsFolder, memoryFolder: `${podsFolder}/.memory`, capacity },
      { objects, tokens, clock, commands: deps.commands, persistent: storage.persistent },
    );
    await volumes.open();
    const probes = new Probes({
      cri,
      clock,
      random,
      version: options.version,
      counts: probeCounts,
      onChange: (uid) => workers.get(uid)?.nudge(),
      onUnhealthy: (uid, container, message) => workers.get(uid)?.unhealthy(container, message),
    });
    const context: PodContext = {
      nodeName: options.nodeName,
      get nodeIp() {
        return options.nodeIps[0] ?? nodeIp;
      },
      get nodeIps() {
        return options.nodeIps;
      },
      clusterDns: options.clusterDns,
      clusterDomain: options.clusterDomain,
      hostDns: () => readHostDns(options.resolvConf),
      podLogFolder: podLogRoot,
      seccompDefault: options.seccompDefault ?? true,
      ...{ capacity, hasAppArmor },
      machineMemoryBytes: machine.memoryBytes,
      // A bound above what the kernel can have at all, 32768 on 32 bits, it refuses, and no pod would start.
      maxPids: Math.min(configuration.podPidsLimit, (await processCounts()).max),
      hugePageSizes: cgroups.present.has("hugetlb") ? hugePageSizes(machine.hugePages) : [],
      forbidsSwap: await canForbidSwap(podsCgroup),
      podsCgroup,
      admit: (pod) => resources.admit(pod),
      canResize: configuration.podResize,
      judgeResize: (pod) => resources.judgeResize(pod),
      retryResizes() {
        for (const worker of workers.values()) if (worker.isWaitingToGrow) worker.nudge();
      },
      allocations,
      remember: (pod) => memory?.remember(pod),
      version: options.version,
      ...{ client, clock, random, log, events, cri, runtime, volumes, objects, probes },
      slots: new Slots(startingAtOnce(machine.cpus)),
      pullSlots: new Slots(pullingAtOnce),
      endSlots: new Slots(endingAtOnce(machine.cpus)),
      hardware,
      credentials: async (image) => [
        ...registryCredentials(registries, image),
        ...((await deps.credentialProviders?.credentials(image)) ?? []),
      ],
    };

    await runtime.relist();
    runtime.onChange = (uid) => workers.get(uid)?.nudge();
    const node = nodeObject(machine, {
      resources: () => resources.resources,
      onNode(known) {
        resources.knowNode(known);
        storage.sawNode(known);
      },
    });
    const children = new ChildSignals(signal);
    const child = () => children.child();
    const tasks = new Set<Promise<void>>();
    const own = (task: Promise<void>) => {
      tasks.add(task);
      task
        .catch((error: unknown) => {
          if (!isAbort(error, signal)) log.error("pod worker failed", { error: messageOf(error) });
        })
        .finally(() => tasks.delete(task));
    };
    const start = (pod: Pod, mirrorUid?: () => string | undefined) => {
      const uid = uidOf(pod);
      const worker = new PodWorker(context, pod, mirrorUid, mirrorUid ? undefined : memory?.takeStatus(pod));
      workers.set(uid, worker);
      const life = child();
      const live = async () => {
        await worker.run(life.signal).finally(() => life.end());
        if (!worker.ended || workers.get(uid) !== worker) return;
        workers.delete(uid);
        await memory?.forget(uid, knownPods());
      };
      own(live());
    };
    const statics =
      options.staticPodFolder === undefined
        ? undefined
        : new StaticPods({
            ...{ client, clock, log, nodeName: options.nodeName, folder: options.staticPodFolder },
            start: (pod) => start(pod, () => statics?.mirrorUid(pod)),
            end: (uid) => workers.get(uid)?.removed(),
          });
    const sawMirror = (pod: Pod, isGone: boolean) => {
      statics?.saw(pod, isGone);
      workers.get(pod.metadata.annotations?.[mirrorAnnotation] ?? "")?.nudge();
    };
    const seen = (pod: Pod, old?: Pod) => {
      if (isMirrorPod(pod)) return sawMirror(pod, false);
      memory?.heard(pod);
      // A pod that was deleted and made again under its name between two lists arrives as an update.
      if (old && uidOf(old) !== uidOf(pod)) workers.get(uidOf(old))?.removed();
      const worker = workers.get(uidOf(pod));
      if (worker) worker.update(pod);
      else start(pod);
    };
    const stopFollowing = deps.onNodeIps?.(reportSoon);
    const stopTelling = memory?.reach.onBack(() => {
      for (const worker of workers.values()) worker.tellAgain();
    });
    const end = async () => {
      stopTelling?.();
      stopFollowing?.();
      children.abort();
      await probes.close();
      await Promise.allSettled([...tasks]);
      await allocations.close();
    };
    try {
      // They need no API.
      await statics?.open();
      const registered = node.register(signal);
      const isRegistered = await registeredSoon(registered, node, signal);
      const informer = new Informer(
        pods,
        { fieldSelector: `spec.nodeName=${options.nodeName}` },
        {},
        {
          ...{ client, clock, random, log },
          // A server that has taken the node is about to list its pods.
          ...(memory ? { recall: memory.podRecall(isRegistered ? slowListMs : 0) } : {}),
        },
      );
      informer.addHandler({
        add: (pod) => seen(pod),
        update: (pod, old) => seen(pod, old),
        delete: (pod) => (isMirrorPod(pod) ? sawMirror(pod, true) : workers.get(uidOf(pod))?.removed()),
      });
      const watching = informer.run(child().signal);
      own(watching);
      const relisting = runtime.watch(child().signal);
      own(relisting);
      own(registered.then(() => node.keep(child().signal)));
      own(storage.run(child().signal));
      own(rotateLogs({ cri, runtime, clock, log, configuration }, child().signal));
      own(resources.run(child().signal));
      own(hardware.run(child().signal));
      await informer.whenSynced(signal);
      // Only the API's own list says what is not there any more.
      const settled = informer.whenCurrent(signal).then(async () => {
        hardware.keep(new Set(workers.keys()));
        allocations.keep(new Set(workers.keys()));
        await memory?.keep(knownPods());
      });
      if (informer.isCurrent) await settled;
      if (statics) own(statics.run(child().signal));
      const warn = (message: string) => node.warn("PodsUnknown", message);
      const endUnknown = async () => {
        await settled;
        const isNewNode = await registered;
        const hadNode = await rememberNode(options.dataFolder);
        await endOrphans({ isNewNode, hadNode, warn }, { context, workers, child }, signal);
      };
      own(endUnknown());
      ready();
      await Promise.race([untilAborted(signal), watching]);
      if (signal.aborted && configuration.shutdownGracePeriodMs > 0 && (await deps.isMachineStopping?.())) {
        resources.isShuttingDown = true;
        await node.report().catch((error: unknown) => {
          // The pods' end is told one by one; that the node goes is only good to know.
          log.warn("cannot report that the machine goes down", { error: messageOf(error) });
        });
        await shutDownPods([...workers.values()], configuration, { clock, log });
      }
    } finally {
      await end();
    }
  }

  const nodeObject = (machine: Machine, more: Pick<NodeObjectDeps, "resources" | "onNode">) =>
    new NodeObject(
      {
        nodeName: options.nodeName,
        get nodeIps() {
          return options.nodeIps;
        },
        externalIps: options.externalIps ?? [],
        podCidrs: options.podCidrs,
        port: options.port ?? defaults.port,
        labels: options.labels ?? {},
        ownLabels: options.ownLabels ?? {},
        taints: options.taints ?? [],
        version: options.version,
      },
      {
        ...{ client, clock, log, events, cri, runtime, machine, ...more },
        problem: () => programs.problem(),
        whenReachable: (life) => memory?.reach.whenBack(life) ?? Promise.resolve(),
      },
    );

  const knownPods = () => [...workers.values()].map((worker) => worker.pod);

  /** False where the node had pods before and no server answers: they are not kept waiting any longer. */
  async function registeredSoon(registered: Promise<boolean>, node: NodeObject, signal: AbortSignal): Promise<boolean> {
    // Whoever needs it awaits it; until then nobody listens.
    registered.catch(() => {});
    if (!memory?.hasPods) {
      await registered;
      return true;
    }
    const isRegistered = await Promise.race([registered.then(() => true), memory.patience(signal).then(() => false)]);
    signal.throwIfAborted();
    if (isRegistered) return true;
    log.warn("no server answers: starting the pods that this node had");
    try {
      await node.look();
    } catch (error) {
      // Its labels are not known, then; they only matter to pods that have not run here.
      log.debug("this node's object is not known", { error: messageOf(error) });
    }
    return false;
  }

  return {
    name: "node-agent",
    lookup,
    stats: () => stats,
    async run(signal, ready) {
      const lacking = treesWithout(configuration.cgroupRoot);
      if (lacking.length > 0) {
        const where = lacking.join(", ");
        const message = `kubelet-arg cgroup-root: there is no cgroup ${configuration.cgroupRoot} in ${where}; make it first`;
        throw new AppError("NODE_CONFIGURATION", message, { name: "cgroup-root" });
      }
      await programs.tell(log);
      const node = async (resources: NodeObjectDeps["resources"]) =>
        nodeObject(await readMachine(), { resources, onNode: () => {} });
      await waitForContainerd({ clock, log, programs, node }, signal);
      const containerd = createContainerd(options.containerd, { clock, log });
      await runAll(
        [containerd, { name: "pods", run: runPods }],
        { clock, log, stopTimeoutMs: stopTimeoutMs + configuration.shutdownGracePeriodMs },
        signal,
        ready,
      );
      cri.close();
    },
  };
}

/** Where systemd-resolved's own address is all that /etc/resolv.conf has, pods need what is behind it. */
const resolvedStub = "127.0.0.53";
const resolvedFile = "/run/systemd/resolve/resolv.conf";

async function readHostDns(path: string | undefined): Promise<DnsSettings> {
  const read = async (file: string) => parseResolvConf((await readFileIfExists(file))?.toString("utf8") ?? "");
  if (path !== undefined) return read(path);
  const settings = await read("/etc/resolv.conf");
  return settings.servers.includes(resolvedStub) ? read(resolvedFile) : settings;
}
