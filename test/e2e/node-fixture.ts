// One node for tests against real containerd: the real API server over a datastore in memory, a pod network of its own, an
// agent that can be ended and started again, and where a test wants them controllers and a scheduler. Needs root, containerd,
// runc and CNI plugins.
import { setMaxListeners } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { loopback } from "#apiserver/authn/user.ts";
import { columnsFor } from "#apiserver/printers/tables.ts";
import { createStrategies } from "#apiserver/registry/strategies.ts";
import { type ApiServerDeps, createApiServer } from "#apiserver/server.ts";
import { createLogger, formatLine } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { ControllerDeps } from "#controllers/runtime/controller.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Namespace, Pod } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { configurePodNetwork, removePodNetwork } from "#network/pod-network.ts";
import { createNodeAgent, type NodeAgent } from "#node/agent.ts";
import { stopAllPods, unmountBelow } from "#node/containerd.ts";
import type { NodeAgentDeps, NodeAgentOptions } from "#node/options.ts";
import { ensureImages } from "#node/shipped-images.ts";
import { assetFolder } from "#platform/assets.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { ociArchitecture } from "#platform/host.ts";
import { systemCommands as commands } from "#platform/processes.ts";
import { systemRandom as random } from "#platform/random.ts";

export const image = "mote.local/busybox:1";

/** What a test wants of a control plane beside the API server; absent: nothing. */
export interface ControlPlane {
  readonly admission?: ApiServerDeps["admission"];
  /** Run until the node is closed. */
  readonly services?: (deps: ControllerDeps) => readonly Service[];
}

export class TestNode {
  readonly folder = mkdtempSync("/tmp/mote-node-");
  readonly kubeletFolder = `${this.folder}/kubelet`;
  readonly nodeName = "node-a";
  readonly log = createLogger(
    (level, message, fields) => process.stderr.write(`${formatLine(Date.now(), level, message, fields)}\n`),
    "info",
  );
  readonly #network;
  readonly containerd;
  #backend: Backend | undefined;
  client!: Client;
  agent!: NodeAgent;
  #running: { abort: AbortController; done: Promise<void> } | undefined;
  readonly #background = new AbortController();
  readonly #tasks: Promise<void>[] = [];

  /** `number` tells the network of this node from those of other tests. */
  constructor(number: number) {
    this.#network = {
      podCidr: `10.199.${number}.0/24`,
      mtu: 1500,
      cniConfDir: `${this.folder}/cni`,
      bridge: `motetest${number}`,
      ipamDir: `${this.folder}/ipam`,
    };
    this.containerd = {
      root: `${this.folder}/containerd`,
      state: `${this.folder}/run`,
      configDir: `${this.folder}/etc`,
      cniBinDir: "/usr/lib/cni",
      cniConfDir: this.#network.cniConfDir,
      pauseImage: "mote.local/pause:1",
    };
  }

  async open(options: Partial<NodeAgentOptions> = {}, plane: ControlPlane = {}): Promise<void> {
    const { log } = this;
    const metrics = new Metrics();
    this.#backend = await openDatastore({ endpoint: "memory://" }, { clock, log });
    const server = createApiServer(
      { freezeShared: true, podResize: true },
      {
        ...{ backend: this.#backend, clock, random, log, metrics, authenticators: [], columnsFor },
        admission: plane.admission ?? [],
        authorizer: { authorize: () => ({ verdict: "no-opinion", reason: "" }) },
        strategies: createStrategies({ clock, random, podResize: true }),
      },
    );
    const client = new Client(server.transport(loopback));
    this.client = client;
    for (const name of ["default", "kube-system", "kube-node-lease"]) {
      await client.create(resources.namespaces, { metadata: { name } } as Namespace);
    }
    // As many services as a server has may listen to it.
    setMaxListeners(0, this.#background.signal);
    if (plane.services) {
      const informers = new InformerFactory({ verify: true }, { client, clock, random, log });
      const events = new EventRecorder({ component: "mote" }, { client, clock, random, log });
      const services = plane.services({ client, informers, events, clock, random, log, metrics });
      await Promise.all([informers, events, ...services].map((service) => this.#begin(service)));
    }
    const podCidrs = [this.#network.podCidr];
    await configurePodNetwork({ ...this.#network, podCidrs }, { commands, log });
    await this.start(options);
  }

  /** Runs a service until the node is closed; resolves when it is ready. */
  async #begin(service: Pick<Service, "run">): Promise<void> {
    let ready = () => {};
    const isReady = new Promise<void>((resolve) => {
      ready = resolve;
    });
    const task = service.run(this.#background.signal, ready);
    this.#tasks.push(task);
    await Promise.race([isReady, task]);
  }

  async start(options: Partial<NodeAgentOptions> = {}, more: Partial<NodeAgentDeps> = {}): Promise<void> {
    const { client, log, folder } = this;
    const abort = new AbortController();
    const events = new EventRecorder({ component: "kubelet", host: this.nodeName }, { client, clock, random, log });
    this.agent = createNodeAgent(
      {
        nodeName: this.nodeName,
        nodeIps: ["127.0.0.1"],
        dataFolder: `${folder}/agent`,
        kubeletFolder: this.kubeletFolder,
        podLogFolder: `${folder}/logs`,
        podCidrs: [this.#network.podCidr],
        clusterDns: ["10.43.0.10"],
        clusterDomain: "cluster.local",
        containerd: this.containerd,
        version: "v1.32.3+mote0",
        ...options,
      },
      {
        client,
        ...{ clock, random, log, metrics: new Metrics(), commands, events },
        ensureImages: (containerdSocket, unpacking) =>
          ensureImages(
            { containerdSocket, folder: `${assetFolder()}/images`, architecture: ociArchitecture() },
            { commands, log, unpacking },
          ),
        ...more,
      },
    );
    const eventsDone = events.run(abort.signal, () => {});
    let ready = () => {};
    const isReady = new Promise<void>((resolve) => {
      ready = resolve;
    });
    const done = this.agent.run(abort.signal, ready).then(() => eventsDone);
    this.#running = { abort, done };
    await Promise.race([isReady, done]);
  }

  /** Ends the agent; pods stay. */
  async stop(): Promise<void> {
    this.#running?.abort.abort(new Error("test ends the agent"));
    await this.#running?.done;
    this.#running = undefined;
  }

  async close(): Promise<void> {
    const { log } = this;
    await this.stop();
    const options = { ...this.containerd, podsDir: `${this.folder}/agent/pods`, graceSeconds: 1 };
    await stopAllPods(options, { clock, log, commands });
    this.#background.abort(new Error("end"));
    await Promise.allSettled(this.#tasks);
    await removePodNetwork(this.#network, { commands, log });
    await this.#backend?.close();
    await unmountBelow([this.kubeletFolder], { commands, log, clock });
    rmSync(this.folder, { recursive: true, force: true });
  }

  run(name: string, spec: Partial<Pod["spec"]>, metadata: Partial<Pod["metadata"]> = {}): Promise<Pod> {
    return this.client.create(resources.pods, {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace: "default", labels: { app: name }, ...metadata },
      spec: { nodeName: this.nodeName, automountServiceAccountToken: false, terminationGracePeriodSeconds: 2, ...spec },
    } as Pod);
  }

  get(name: string): Promise<Pod> {
    return this.client.get(resources.pods, name, "default");
  }

  /** What `check` makes of the pod, as soon as it makes something of it. */
  when<T>(name: string, check: (pod: Pod) => T | undefined | false, timeoutMs = 30_000): Promise<T> {
    return this.until(`pod ${name}`, async () => check(await this.get(name)), timeoutMs);
  }

  whenReady(name: string): Promise<Pod> {
    return this.when(name, (pod) =>
      pod.status?.conditions?.some((c) => c.type === "Ready" && c.status === "True") ? pod : undefined,
    );
  }

  async delete(name: string): Promise<void> {
    await this.client.delete(resources.pods, { name, namespace: "default" }, { gracePeriodSeconds: 0 });
    await this.until(`${name} gone`, () => this.isGone(name));
  }

  async isGone(name: string): Promise<boolean> {
    try {
      await this.get(name);
      return false;
    } catch (error) {
      if (!isNotFound(error)) throw error;
      return true;
    }
  }

  async exec(name: string, command: string[], container?: string): Promise<string> {
    const found = this.agent.lookup.container("default", name, container);
    if (!found) throw new Error(`no container of ${name}`);
    const result = await this.agent.lookup.runtime.execSync(found.containerId, command, 10);
    return Buffer.concat([result.stdout, result.stderr]).toString("utf8");
  }

  async until<T>(what: string, ask: () => Promise<T | undefined | false>, timeoutMs = 30_000): Promise<T> {
    const endMs = clock.monotonicMs() + timeoutMs;
    let last: unknown;
    for (;;) {
      try {
        const answer = await ask();
        if (answer) return answer;
      } catch (error) {
        last = error;
      }
      if (clock.monotonicMs() > endMs) {
        await this.#explain();
        throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last });
      }
      await clock.sleep(100);
    }
  }

  /** What the pods looked like explains most failures. */
  async #explain(): Promise<void> {
    for (const pod of (await this.client.list(resources.pods)).items) {
      this.log.error("pod", { pod: pod.metadata.name, status: pod.status });
    }
    for (const event of (await this.client.list(resources.events)).items.slice(-20)) {
      this.log.error("event", { about: event.involvedObject.name, reason: event.reason, message: event.message });
    }
  }
}
