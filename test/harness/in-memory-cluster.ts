// A whole cluster in one process under a clock that moves only when told to: the API server on the in-memory datastore,
// all controllers, the scheduler, and nodes whose kubelet is the one below, which has no containers but does everything
// to pods that the control plane can see. One seed gives one history.

import { createPublicKey } from "node:crypto";
import { createAdmissionPlugins } from "#apiserver/admission/plugins.ts";
import { createTokenIssuer } from "#apiserver/authn/token-issuer.ts";
import { loopback } from "#apiserver/authn/user.ts";
import { MetricsCollector } from "#apiserver/metrics-api/collector.ts";
import { createMetricsGroup } from "#apiserver/metrics-api/group.ts";
import { columnsFor } from "#apiserver/printers/tables.ts";
import { createStrategies } from "#apiserver/registry/strategies.ts";
import { createApiServer } from "#apiserver/server.ts";
import type { VirtualGroup } from "#apiserver/virtual-group.ts";
import type { Random } from "#base/clock.ts";
import { rfc3339, rfc3339Micro } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import { createLogger, silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { runAll, type Service } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { type Informer, InformerFactory } from "#client/informer.ts";
import type { Transport } from "#client/transport.ts";
import { WorkQueue } from "#client/workqueue.ts";
import { parseControllerArguments } from "#controllers/arguments.ts";
import type { SignCertificate } from "#controllers/certificates/controller.ts";
import { createControllers } from "#controllers/registry.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import type { Lease } from "#model/gen/coordination-v1.ts";
import type { Namespace, Node, PersistentVolume, Pod, PodStatus } from "#model/gen/core-v1.ts";
import { type ApiObject, isDeleting, keyOf, nameOf, namespaceOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { leases, namespaces, nodes, persistentVolumes, pods, resourcesWith } from "#model/resources.ts";
import { ApiError, isApiError, isConflict, isNotFound } from "#model/status.ts";
import { volumeFinalizers } from "#model/volumes.ts";
import { createScheduler } from "#scheduler/scheduler.ts";
import { createCertificateSigner } from "#supervisor/certificate-signer.ts";
import { generateKey, issueCertificate } from "#supervisor/pki/certificate.ts";
import { FakeClock, settle } from "./fake-clock.ts";
import { seededRandom } from "./seeded-random.ts";

/** What the containers of a pod would do. */
export interface PodBehaviour {
  /** From bound to ready; default 100 ms. */
  readonly startMs?: number;
  /** Ends so long after the start, with `exitCode`; absent: runs until deleted. */
  readonly exitAfterMs?: number;
  readonly exitCode?: number;
  /** Runs but never becomes ready. */
  readonly neverReady?: boolean;
  /** From deletion to gone; default 50 ms. */
  readonly stopMs?: number;
}

export interface InMemoryClusterOptions {
  readonly seed?: number;
  /** Default one, named node-1. */
  readonly nodeCount?: number;
  readonly behaviour?: (pod: Pod) => PodBehaviour;
  /** What a running pod's one container uses now; with it metrics.k8s.io is served. */
  readonly usage?: (pod: Pod) => { readonly cores: number; readonly memoryBytes: number };
  /** Folder of local volumes; absent: no provisioner. */
  readonly localPath?: string;
  /** Where the controllers believe services to be; default that of the API server, 10.43.0.0/16. */
  readonly serviceCidr?: string;
  /** The feature gate MultiCIDRServiceAllocator, with the API it needs. */
  readonly multiCidr?: boolean;
  /** As of --kube-controller-manager-arg. */
  readonly controllerArguments?: readonly string[];
  /** Print what the parts log. */
  readonly verbose?: boolean;
}

export class InMemoryCluster {
  readonly clock = new FakeClock();
  readonly random: Random;
  readonly metrics = new Metrics();
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly datastore: Datastore;
  readonly kubelets = new Map<string, FakeKubelet>();
  /** Chance that a request of the parts under test fails, before it is carried out or after; watches end likewise. */
  faultRate = 0;
  /** What the parts use; `client` is the test's own and never fails. */
  readonly #shaky: Client;
  readonly #definitions: Service;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #failure: unknown;

  /** Opens the datastore, starts everything, and waits until all is ready. */
  static async start(options: InMemoryClusterOptions = {}): Promise<InMemoryCluster> {
    const clock = new FakeClock();
    const log = options.verbose ? createLogger((l, m, f) => console.log(clock.now(), l, m, f), "debug") : silentLogger;
    const datastore = await openDatastore(
      { endpoint: "memory://", maximumMemoryBytes: 64 * 1024 * 1024 },
      { clock, log, metrics: new Metrics() },
    );
    const cluster = new InMemoryCluster(options, clock, datastore, log);
    await cluster.#start(options, log);
    return cluster;
  }

  private constructor(
    options: InMemoryClusterOptions,
    clock: FakeClock,
    datastore: Datastore,
    log: ReturnType<typeof createLogger>,
  ) {
    this.clock = clock;
    this.random = seededRandom(options.seed ?? 1);
    this.datastore = datastore;
    const { random, metrics } = this;
    const tokenKey = generateKey();
    let virtualGroups: VirtualGroup[] = [];
    const api = createApiServer(
      { freezeShared: true, optionalApis: optionalOf(options) },
      {
        backend: datastore,
        clock,
        random,
        log,
        metrics,
        authenticators: [],
        authorizer: { authorize: () => ({ verdict: "allow", reason: "" }) },
        strategies: createStrategies({ clock, random, services: { multiCidr: options.multiCidr ?? false } }),
        admission: createAdmissionPlugins({ random }),
        columnsFor,
        tokenIssuer: createTokenIssuer(
          { privateKey: tokenKey, publicKeys: [publicKeyOf(tokenKey)] },
          { clock, random },
        ),
        get virtualGroups() {
          return virtualGroups;
        },
      },
    );
    this.#definitions = api.definitions;
    this.client = new Client(api.transport(loopback));
    this.#shaky = new Client(shaky(api.transport(loopback), this.random, () => this.faultRate));
    this.informers = new InformerFactory({ verify: true }, { client: this.#shaky, clock, random, log });
    if (options.usage) {
      const stores = { nodes: this.informers.informer(nodes), pods: this.informers.informer(pods) };
      const scrape = fakeCounters(stores.pods, clock, options.usage);
      const collector = new MetricsCollector({ clock, log, scrape });
      virtualGroups = [createMetricsGroup({ clock, collector, ...stores })];
    }
  }

  async #start(options: InMemoryClusterOptions, log: ReturnType<typeof createLogger>): Promise<void> {
    const { clock, informers, metrics, random } = this;
    const client = this.#shaky;
    for (const name of ["default", "kube-system", "kube-public", "kube-node-lease"]) {
      await client.create(namespaces, { metadata: { name }, spec: {} } as Namespace);
    }
    const events = new EventRecorder({ component: "mote" }, { client, clock, random, log });
    const deps = { client, informers, events, clock, random, log, metrics };
    const behaviour = options.behaviour ?? (() => ({}));
    const services: Service[] = [
      events,
      ...createControllers({
        ...deps,
        rootCa: "-----BEGIN CERTIFICATE-----\nroot\n-----END CERTIFICATE-----\n",
        signCertificate: createTestSigner({ clock, random }),
        ...(options.localPath ? { localPath: { folder: options.localPath } } : {}),
        settings: parseControllerArguments(options.controllerArguments ?? []),
        served: resourcesWith(optionalOf(options)),
        serviceRanges: {
          cidr: options.serviceCidr ?? "10.43.0.0/16",
          nodePorts: { first: 30_000, last: 32_767 },
          multiCidr: options.multiCidr ?? false,
        },
      }),
      createScheduler(deps),
    ];
    for (let i = 1; i <= (options.nodeCount ?? 1); i++) {
      const kubelet = new FakeKubelet(`node-${i}`, `10.42.${i - 1}`, behaviour, {
        client,
        clock,
        store: informers.informer(pods),
        volumes: informers.informer(persistentVolumes),
      });
      this.kubelets.set(kubelet.nodeName, kubelet);
      services.push(kubelet);
    }
    let isReady = false;
    this.#running = runAll(
      [this.#definitions, informers, ...services],
      { clock, log, stopTimeoutMs: 60_000 },
      this.#stop.signal,
      () => {
        isReady = true;
      },
    ).catch((error: unknown) => {
      this.#failure = error;
    });
    await this.until(() => isReady, "cluster is ready");
  }

  /** Lets time pass. */
  async advance(ms: number): Promise<void> {
    await this.clock.advance(ms);
    if (this.#failure) throw this.#failure;
  }

  /** Lets time pass in small steps until the condition holds; throws after `withinMs` of simulated time. */
  async until(condition: () => boolean | Promise<boolean>, what: string, withinMs = 60_000): Promise<void> {
    const endMs = this.clock.monotonicMs() + withinMs;
    for (;;) {
      await settle();
      if (await condition()) return;
      if (this.clock.monotonicMs() >= endMs) throw new Error(`not within ${withinMs} ms of simulated time: ${what}`);
      await this.advance(50);
    }
  }

  /** Undefined where there is none. */
  async find<T extends ApiObject>(resource: ResourceInfo<T>, name: string, namespace?: string): Promise<T | undefined> {
    try {
      return await this.client.get(resource, name, namespace);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async list<T extends ApiObject>(resource: ResourceInfo<T>, namespace?: string): Promise<T[]> {
    return (await this.client.list(resource, namespace === undefined ? {} : { namespace })).items;
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error("test is over"));
    let isOver = false;
    const ended = this.#running.then(() => {
      isOver = true;
    });
    for (let i = 0; i < 1000 && !isOver; i++) await this.clock.advance(10);
    await ended;
    await this.datastore.close();
    if (this.#failure) throw this.#failure;
  }
}

const optionalOf = ({ multiCidr }: InMemoryClusterOptions): readonly string[] =>
  multiCidr ? ["networking.k8s.io/v1beta1"] : [];

/** What nodes would say under /metrics/resource: counters that go on by what is used between two questions. */
function fakeCounters(
  store: Informer<Pod>,
  clock: FakeClock,
  usage: NonNullable<InMemoryClusterOptions["usage"]>,
): (node: string) => Promise<string> {
  const counters = new Map<string, { seconds: number; atMs: number }>();
  return async (node) => {
    const lines = [`node_cpu_usage_seconds_total 1 ${clock.now()}`, `node_memory_working_set_bytes 1 ${clock.now()}`];
    for (const pod of store.list()) {
      if (pod.spec.nodeName !== node || pod.status?.phase !== "Running") continue;
      const { cores, memoryBytes } = usage(pod);
      const counter = counters.get(keyOf(pod)) ?? { seconds: 0, atMs: clock.monotonicMs() };
      counter.seconds += (cores * (clock.monotonicMs() - counter.atMs)) / 1000;
      counter.atMs = clock.monotonicMs();
      counters.set(keyOf(pod), counter);
      const labels = `{container="${pod.spec.containers[0]?.name}",namespace="${namespaceOf(pod)}",pod="${nameOf(pod)}"}`;
      lines.push(
        `container_cpu_usage_seconds_total${labels} ${counter.seconds} ${clock.now()}`,
        `container_memory_working_set_bytes${labels} ${memoryBytes} ${clock.now()}`,
      );
    }
    return `${lines.join("\n")}\n`;
  };
}

/** Loses requests and answers by chance: a failed write may or may not have happened. */
function shaky(inner: Transport, random: Random, rate: () => number): Transport {
  const isFault = () => rate() > 0 && random.float() < rate();
  const lost = () => new ApiError(503, "ServiceUnavailable", "lost on the way");
  return {
    async request(request, signal) {
      if (isFault()) throw lost();
      const answer = await inner.request(request, signal);
      if (isFault()) throw lost();
      return answer;
    },
    async *watch(request, signal, onOpen) {
      if (isFault()) throw lost();
      for await (const event of inner.watch(request, signal, onOpen)) {
        yield event;
        if (isFault()) throw lost();
      }
    },
  };
}

const publicKeyOf = (key: string): string => createPublicKey(key).export({ type: "spki", format: "pem" }).toString();

/** Authorities of a test's own, made when first asked. */
function createTestSigner(dependencies: { clock: FakeClock; random: Random }): SignCertificate {
  let sign: SignCertificate | undefined;
  return (order) => {
    if (!sign) {
      const key = generateKey();
      const times = { notBeforeMs: 0, notAfterMs: dependencies.clock.now() + 1e12 };
      const about = { commonName: "test", usage: "authority" as const, ...times };
      const issuer = { certificate: issueCertificate(about, key, undefined, dependencies.random), key };
      sign = createCertificateSigner(() => ({ client: issuer, server: issuer }), dependencies);
    }
    return sign(order);
  };
}

interface KubeletDeps {
  readonly client: Client;
  readonly clock: FakeClock;
  readonly store: Informer<Pod>;
  readonly volumes: Informer<PersistentVolume>;
}

const heartbeatMs = 10_000;

/** A node and what it does to its pods. `isCut`: it has lost its network or power and does nothing any more. */
export class FakeKubelet implements Service {
  readonly name: string;
  readonly nodeName: string;
  isCut = false;
  readonly #prefix: string;
  readonly #behaviour: (pod: Pod) => PodBehaviour;
  readonly #deps: KubeletDeps;
  readonly #queue: WorkQueue;
  #lastAddress = 1;

  constructor(nodeName: string, prefix: string, behaviour: (pod: Pod) => PodBehaviour, deps: KubeletDeps) {
    this.name = `kubelet-${nodeName}`;
    this.nodeName = nodeName;
    this.#prefix = prefix;
    this.#behaviour = behaviour;
    this.#deps = deps;
    this.#queue = new WorkQueue({ name: this.name }, { clock: deps.clock });
  }

  /** The network is back. */
  reconnect(): void {
    this.isCut = false;
    for (const pod of this.#deps.store.list()) if (pod.spec.nodeName === this.nodeName) this.#queue.add(keyOf(pod));
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    const { store } = this.#deps;
    await this.#register();
    const mark = (pod: Pod) => {
      if (pod.spec.nodeName === this.nodeName) this.#queue.add(keyOf(pod));
    };
    const unsubscribe = store.addHandler({ add: mark, update: mark });
    // The folder of a local volume is gone as soon as it is asked for.
    const release = (volume: PersistentVolume) => {
      const finalizer = volumeFinalizers.provisioner;
      const { name = "", finalizers = [], annotations } = volume.metadata;
      if (this.isCut || !isDeleting(volume) || !finalizers.includes(finalizer)) return;
      if (annotations?.["local.path.provisioner/selected-node"] !== this.nodeName) return;
      const rest = finalizers.filter((one) => one !== finalizer);
      this.#deps.client.patch(persistentVolumes, { name }, { metadata: { finalizers: rest } }).catch(() => {
        // Gone, changed or lost on the way: what is there after a while decides.
        const again = this.#deps.volumes.get(name);
        if (again && !signal.aborted) this.#deps.clock.after(1000, () => release(again));
      });
    };
    const forget = this.#deps.volumes.addHandler({ add: release, update: release });
    const beats = this.#heartbeat(signal);
    ready();
    try {
      await this.#queue.run({ workers: 4 }, (key) => this.#work(key), signal);
    } finally {
      unsubscribe();
      forget();
      await beats;
    }
  }

  async #register(): Promise<void> {
    const { client, clock } = this.#deps;
    const now = rfc3339(clock.now());
    const resources = { cpu: "4", memory: "4Gi", pods: "110", "ephemeral-storage": "10Gi" };
    const metadata = {
      name: this.nodeName,
      labels: { "kubernetes.io/hostname": this.nodeName, "kubernetes.io/os": "linux" },
    };
    const ready = { type: "Ready", status: "True", reason: "KubeletReady", message: "kubelet is posting ready status" };
    const conditions = [{ ...ready, lastHeartbeatTime: now, lastTransitionTime: now }];
    const status = { capacity: resources, allocatable: resources, conditions };
    const created = await client.create(nodes, { metadata, spec: {}, status } as Node);
    if (!created.status?.conditions) await client.updateStatus(nodes, { ...created, status } as Node);
    const lease = { holderIdentity: this.nodeName, leaseDurationSeconds: 40, renewTime: rfc3339Micro(clock.now()) };
    await client.create(leases, {
      metadata: { name: this.nodeName, namespace: "kube-node-lease" },
      spec: lease,
    } as Lease);
  }

  async #heartbeat(signal: AbortSignal): Promise<void> {
    const { client, clock } = this.#deps;
    while (!signal.aborted) {
      try {
        await clock.sleep(heartbeatMs, signal);
        if (this.isCut) continue;
        const spec = { renewTime: rfc3339Micro(clock.now()) };
        await client.patch(leases, { name: this.nodeName, namespace: "kube-node-lease" }, { spec });
        await this.#sayReady();
      } catch (error) {
        if (!signal.aborted && !isConflict(error) && !isApiError(error, "ServiceUnavailable")) throw error;
      }
    }
  }

  async #sayReady(): Promise<void> {
    const { client, clock } = this.#deps;
    const node = await client.get(nodes, this.nodeName);
    const old = node.status?.conditions?.find((c) => c.type === "Ready");
    if (old?.status === "True") return;
    const now = rfc3339(clock.now());
    const others = node.status?.conditions?.filter((c) => c !== old && c.status !== "Unknown") ?? [];
    const ready = { type: "Ready", status: "True", reason: "KubeletReady", message: "kubelet is posting ready status" };
    const conditions = [...others, { ...ready, lastHeartbeatTime: now, lastTransitionTime: now }];
    await client.updateStatus(nodes, { ...node, status: { ...node.status, conditions } });
  }

  async #work(key: string): Promise<void> {
    const pod = this.#deps.store.get(key);
    if (!pod || this.isCut || pod.spec.nodeName !== this.nodeName) return;
    try {
      await this.#step(pod, key);
    } catch (error) {
      if (isNotFound(error)) return;
      if (!isConflict(error) && !isApiError(error, "ServiceUnavailable"))
        throw new Error(`${this.name}: ${messageOf(error)}`);
      this.#queue.retry(key);
    }
  }

  async #step(pod: Pod, key: string): Promise<void> {
    const { client, clock } = this.#deps;
    const behaviour = this.#behaviour(pod);
    const phase = pod.status?.phase ?? "Pending";
    const target = { name: nameOf(pod), namespace: namespaceOf(pod) };
    if (isDeleting(pod)) {
      const dueMs = Date.parse(pod.metadata.deletionTimestamp!) - (pod.metadata.deletionGracePeriodSeconds ?? 0) * 1000;
      const waitMs = dueMs + (behaviour.stopMs ?? 50) - clock.now();
      if (waitMs > 0) this.#queue.addAfter(key, waitMs);
      else await client.delete(pods, target, { gracePeriodSeconds: 0 });
      return;
    }
    if (phase === "Succeeded" || phase === "Failed") return;
    if (phase === "Pending") {
      const bound = pod.status?.conditions?.find((c) => c.type === "PodScheduled")?.lastTransitionTime;
      const waitMs = (bound ? Date.parse(bound) : clock.now()) + (behaviour.startMs ?? 100) - clock.now();
      if (waitMs > 0) this.#queue.addAfter(key, waitMs);
      else await this.#write(pod, this.#runningStatus(pod, behaviour.neverReady !== true));
      return;
    }
    // The control plane marks pods of a silent node not ready; whoever runs them knows better.
    const ready = pod.status?.conditions?.find((c) => c.type === "Ready");
    if (ready?.status === "False" && behaviour.neverReady !== true) {
      const now = rfc3339(clock.now());
      const conditions = pod.status!.conditions!.map((c) =>
        c === ready ? { ...c, status: "True", lastTransitionTime: now } : c,
      );
      await this.#write(pod, { ...pod.status, conditions });
      return;
    }
    if (behaviour.exitAfterMs === undefined) return;
    const waitMs = Date.parse(pod.status?.startTime ?? "") + behaviour.exitAfterMs - clock.now();
    if (waitMs > 0) this.#queue.addAfter(key, waitMs);
    else await this.#write(pod, this.#endedStatus(pod, behaviour.exitCode ?? 0));
  }

  async #write(pod: Pod, status: PodStatus): Promise<void> {
    await this.#deps.client.updateStatus(pods, { ...pod, status });
  }

  #runningStatus(pod: Pod, isReady: boolean): PodStatus {
    const now = rfc3339(this.#deps.clock.now());
    const podIP = `${this.#prefix}.${++this.#lastAddress}`;
    const others = pod.status?.conditions?.filter((c) => c.type === "PodScheduled") ?? [];
    const state = isReady ? "True" : "False";
    const conditions = ["Initialized", "Ready", "ContainersReady"].map((type) => ({
      type,
      status: type === "Initialized" ? "True" : state,
      lastTransitionTime: now,
    }));
    return {
      ...pod.status,
      phase: "Running",
      startTime: now,
      podIP,
      podIPs: [{ ip: podIP }],
      conditions: [...others, ...conditions],
    };
  }

  #endedStatus(pod: Pod, exitCode: number): PodStatus {
    const now = rfc3339(this.#deps.clock.now());
    const conditions = (pod.status?.conditions ?? []).map((c) =>
      c.type === "Ready" || c.type === "ContainersReady" ? { ...c, status: "False", lastTransitionTime: now } : c,
    );
    const containerStatuses = pod.spec.containers.map((c) => ({
      name: c.name,
      ready: false,
      restartCount: 0,
      image: c.image ?? "",
      imageID: "",
      state: { terminated: { exitCode, finishedAt: now, reason: exitCode === 0 ? "Completed" : "Error" } },
    }));
    return { ...pod.status, phase: exitCode === 0 ? "Succeeded" : "Failed", conditions, containerStatuses };
  }
}
