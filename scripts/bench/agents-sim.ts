// Agents for `npm run bench -- agents`, many in one process and as cheap as can be: what they say to the server is what a real
// agent says (a connection, watches, lease and node every 10 s, a tunnel), but nothing is done with the answers.
//   agents-sim.ts JSON      the parent says "register", "watch", "figures" by fork's channel, and gets an answer to each
import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import { silentLogger } from "#base/log.ts";
import { markedMetadata, nodeMarks } from "#node/node-marks.ts";
import { nodeStatus } from "#node/node-object.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { generateKey, issueCertificate, splitPem } from "#supervisor/pki/certificate.ts";
import { leafTimes } from "#supervisor/pki.ts";
import { createTunnelClient } from "#supervisor/tunnel/client.ts";
import { loadCodec } from "#supervisor/tunnel/codec.ts";
import { ApiConnection } from "./api-load.ts";

export interface SimOptions {
  readonly port: number;
  /** DATA-DIR/server/tls of the server: its authorities sign what the agents would have got by joining. */
  readonly tlsFolder: string;
  readonly from: number;
  readonly count: number;
  /** How often an unchanged status is told; 0: not while this runs, as an agent does it once a day. */
  readonly statusEveryMs: number;
}

/** What the parent is told. */
export interface SimFigures {
  readonly beats: number;
  readonly failures: number;
  readonly beatP50Ms: number;
  readonly beatP99Ms: number;
  readonly events: number;
  readonly watches: number;
  readonly tunnels: number;
}

const beatMs = 10_000;
/** Agents that register or connect at a time. */
const atOnce = 16;
const jsonPatch = "application/merge-patch+json";
const strategicPatch = "application/strategic-merge-patch+json";
const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/** Of everybody, as node/service-proxy, DNS and overlay watch them. */
const shared = ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/namespaces", "/api/v1/nodes"];

const options = JSON.parse(process.argv[2] ?? "{}") as SimOptions;
const pem = (name: string) => readFileSync(`${options.tlsFolder}/${name}`, "utf8");
const ca = pem("server-ca.crt");
const [clientCa = ""] = splitPem(pem("client-ca.crt"));
const issuer = { certificate: clientCa, key: pem("client-ca.key") };
const key = generateKey();
const codec = loadCodec((size) => systemRandom.bytes(size));
const stop = new AbortController();
// Each tunnel listens to it.
setMaxListeners(0, stop.signal);

const certificate = (commonName: string, organizations: readonly string[] = []): string =>
  issueCertificate(
    { commonName, organizations, usage: "client", ...leafTimes(clientCa, Date.now()) },
    key,
    issuer,
    systemRandom,
  );

const took: number[] = [];
const counts = { beats: 0, failures: 0, events: 0, watches: 0 };
/** The cluster's, as the last answer had it: a watch that ends goes on from there. */
let revision = "0";

const images = Array.from({ length: 5 }, (_, i) => ({
  repoTags: [`registry.example.com/team/application-${i}:v1.${i}`],
  repoDigests: [`registry.example.com/team/application-${i}@sha256:${"0123456789abcdef".repeat(4)}`],
  size: String(50_000_000 + i),
}));

/** A server that is asked by a thousand at once may let one wait for too long: an agent tries again. */
async function connect(cert: string): Promise<ApiConnection> {
  for (let attempt = 1; ; attempt++) {
    try {
      return (await ApiConnection.open({ port: options.port, ca, cert, key })).compressed();
    } catch (error) {
      if (attempt === 5) throw error;
      console.error(`an agent connects again: ${String(error)}`);
    }
  }
}

class Agent {
  readonly name: string;
  readonly #ip: string;
  #own!: ApiConnection;
  #tunnel: ReturnType<typeof createTunnelClient> | undefined;

  constructor(index: number) {
    this.name = `sim-${String(index).padStart(4, "0")}`;
    this.#ip = `10.200.${index >> 8}.${index & 255}`;
  }

  get hasTunnel(): boolean {
    return this.#tunnel?.isConnected ?? false;
  }

  #status() {
    const resources = {
      capacity: { cpu: 4000, memory: 4e9, "ephemeral-storage": 32e9, pods: 110 },
      allocatable: { cpu: 4000, memory: 3.9e9, "ephemeral-storage": 30e9, pods: 110 },
      pressure: new Set(),
      isShuttingDown: false,
    };
    const facts = {
      machine: {
        ...{ cpus: 4, memoryBytes: 4e9, kernelVersion: "6.12.0-13-arm64", osImage: "Debian GNU/Linux 13 (trixie)" },
        ...{ machineId: "0123456789abcdef0123456789abcdef", systemUuid: "0123456789abcdef0123456789abcdef" },
        ...{ bootId: "01234567-89ab-cdef-0123-456789abcdef", architecture: "arm64", hugePages: {} },
      },
      ...{ resources, images, containerRuntimeVersion: "containerd://1.7.24", notReady: undefined },
    };
    return nodeStatus(this.#nodeOptions(), facts as never, undefined, Date.now());
  }

  #nodeOptions(): Parameters<typeof nodeStatus>[0] {
    const addresses = { nodeIp: this.#ip, nodeIps: [this.#ip], podCidr: undefined, podCidrs: [] };
    return { ...addresses, nodeName: this.name, port: 10250, labels: {}, taints: [], version: "v1.32.3+mote" };
  }

  async register(): Promise<void> {
    const cert = certificate(`system:node:${this.name}`, ["system:nodes"]);
    this.#cert = cert;
    this.#own = await connect(cert);
    const marks = nodeMarks({ nodeName: this.name, architecture: "arm64", labels: {}, ownLabels: {} });
    const node = {
      ...{ apiVersion: "v1", kind: "Node" },
      metadata: {
        name: this.name,
        ...markedMetadata(marks),
      },
      spec: {},
      status: this.#status(),
    };
    const made = JSON.parse(await this.#call("POST", "/api/v1/nodes", node, "application/json", 201)) as {
      metadata: { uid: string };
    };
    const ownerReferences = [{ apiVersion: "v1", kind: "Node", name: this.name, uid: made.metadata.uid }];
    const lease = {
      ...{ apiVersion: "coordination.k8s.io/v1", kind: "Lease" },
      metadata: { name: this.name, namespace: "kube-node-lease", ownerReferences },
      spec: { holderIdentity: this.name, leaseDurationSeconds: 40, renewTime: this.#now() },
    };
    await this.#call("POST", leases, lease, "application/json", 201);
    this.#keepBeating();
  }
  #cert = "";

  async watch(): Promise<void> {
    for (const path of shared) await this.#follow(this.#own, path, "");
    await this.#follow(this.#own, "/api/v1/pods", `&fieldSelector=spec.nodeName%3D${this.name}`);
    this.#tunnel = createTunnelClient(
      { host: "127.0.0.1", port: options.port, tls: () => ({ ca, cert: this.#cert, key }) },
      {
        ...{ clock: systemClock, random: systemRandom, log: silentLogger, codec },
        mayDial: () => false,
        open: () => Promise.reject(new Error("nothing is dialed")),
      },
    );
    void this.#tunnel.run(stop.signal, () => {});
  }

  /** Lists as the informers do, then watches for ever. */
  async #follow(connection: ApiConnection, path: string, selector: string): Promise<void> {
    let from = "";
    for (let next: string | undefined = "&resourceVersion=0"; next !== undefined; ) {
      const { status, body } = await connection.request("GET", `${path}?limit=500${selector}${next}`);
      if (status !== 200) throw new Error(`list ${path}: ${status} ${body.toString("utf8", 0, 300)}`);
      // Where the list's own metadata stands, before or behind the items: reading all of it would cost more than the server's part.
      const [head, tail] = [body.toString("utf8", 0, 300), body.toString("utf8", Math.max(0, body.length - 1000))];
      const own = [head, tail].map((text) => /"metadata":\{[^{}]*"resourceVersion":"(\d+)"[^{}]*\}/.exec(text));
      const listed = own.find((match) => match && !match[0].includes('"name"'));
      if (!listed) throw new Error(`list ${path}: no revision in ${head}`);
      from = listed[1] ?? from;
      const token = /"continue":"([^"]+)"/.exec(listed[0])?.[1];
      next = token === undefined ? undefined : `&continue=${encodeURIComponent(token)}`;
    }
    const begin = async (since: string): Promise<void> => {
      const seconds = Math.floor(300 * (1 + Math.random()));
      const query = `?watch=true&allowWatchBookmarks=true&timeoutSeconds=${seconds}&resourceVersion=${since}${selector}`;
      await connection.watch(
        path + query,
        () => {
          counts.events++;
        },
        () => {
          counts.watches--;
          if (!stop.signal.aborted) begin(revision).catch(() => counts.failures++);
        },
      );
      counts.watches++;
    };
    await begin(from);
  }

  #keepBeating(): void {
    setTimeout(() => {
      void this.#beat();
      setInterval(() => void this.#beat(), beatMs);
    }, Math.random() * beatMs);
    const { statusEveryMs } = options;
    if (statusEveryMs === 0) return;
    setTimeout(() => {
      void this.#report();
      setInterval(() => void this.#report(), statusEveryMs);
    }, Math.random() * statusEveryMs);
  }

  async #beat(): Promise<void> {
    const startMs = performance.now();
    try {
      const patch = { spec: { renewTime: this.#now() } };
      const answer = await this.#call("PATCH", `${leases}/${this.name}`, patch, jsonPatch, 200);
      revision = /"resourceVersion":"(\d+)"/.exec(answer)?.[1] ?? revision;
      took.push(performance.now() - startMs);
      await this.#call("GET", `/api/v1/nodes/${this.name}`, undefined, "", 200);
      counts.beats++;
    } catch (error) {
      if (counts.failures++ < 3) console.error(String(error));
    }
  }

  async #report(): Promise<void> {
    try {
      const patch = { status: this.#status() };
      await this.#call("PATCH", `/api/v1/nodes/${this.name}/status`, patch, strategicPatch, 200);
    } catch (error) {
      if (counts.failures++ < 3) console.error(String(error));
    }
  }

  #now(): string {
    return new Date().toISOString().replace("Z", "000Z");
  }

  async #call(method: string, path: string, object: unknown, type: string, wanted: number): Promise<string> {
    const bytes = object === undefined ? undefined : Buffer.from(JSON.stringify(object));
    const { status, body } = await this.#own.request(method, path, bytes, type);
    if (status !== wanted) throw new Error(`${method} ${path}: ${status} ${body.toString("utf8", 0, 300)}`);
    return body.toString();
  }
}

const agents = Array.from({ length: options.count }, (_, i) => new Agent(options.from + i));

async function each(work: (agent: Agent) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < agents.length) await work(agents[next++]!);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

function figures(): SimFigures {
  const sorted = took.sort((a, b) => a - b);
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
  const found = {
    ...counts,
    ...{ beatP50Ms: at(0.5), beatP99Ms: at(0.99) },
    tunnels: agents.filter(({ hasTunnel }) => hasTunnel).length,
  };
  took.length = 0;
  Object.assign(counts, { beats: 0, failures: 0, events: 0 });
  return found;
}

const steps: Readonly<Record<string, () => unknown>> = {
  register: () => each((agent) => agent.register()),
  watch: () => each((agent) => agent.watch()),
  figures,
};

process.on("disconnect", () => process.exit(0));
process.on("message", (step) => {
  void (async () => {
    try {
      process.send?.({ step, figures: await steps[String(step)]?.() });
    } catch (error) {
      process.send?.({ step, error: error instanceof Error ? error.message : String(error) });
    }
  })();
});
process.send?.({ step: "begun" });
