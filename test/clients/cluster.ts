// What the tests of clients talk to: `mote server --disable-agent` as a process, with its real chain, controllers and
// scheduler, and two nodes that only say that they run pods. One for a test file.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { join } from "node:path";
import { Client } from "#client/client.ts";
import { createHttpTransport } from "#client/http-transport.ts";
import { readKubeconfig } from "#client/kubeconfig.ts";
import type { Namespace } from "#model/gen/core-v1.ts";
import { configMaps, namespaces, serviceAccounts } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { systemClock } from "#platform/clock.ts";
import { createHttpClient } from "#platform/http-client.ts";
import { MoteServer } from "#test/etcd/server-process.ts";
import { runFakeNodes } from "./fake-nodes.ts";

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** Undefined where it is no JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever a server says
  readonly body: any;
}
export interface Asking {
  readonly body?: object | string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Watching {
  /** Events as they came. */
  readonly events: { readonly type: string; readonly object: Record<string, never> }[];
  until(count: number): Promise<void>;
  close(): void;
}

export class ClientCluster {
  readonly client: Client;
  readonly url: string;
  readonly folder: string;
  readonly #server: MoteServer;
  readonly #agent: Agent;
  readonly #stop = new AbortController();
  #nodes: Promise<void> = Promise.resolve();
  #kubeconfig: string;

  /** `flags` beside its own. */
  static async start(flags: readonly string[] = []): Promise<ClientCluster> {
    const server = await MoteServer.create(["--datastore-endpoint", "memory://", ...flags]);
    server.start();
    await server.said("mote is ready");
    const text = readFileSync(join(server.folder, "kubeconfig"), "utf8");
    const config = await readKubeconfig(text, { readFile: async (path) => readFileSync(path, "utf8") });
    const { ca = "", cert = "", key = "" } = config;
    const http = createHttpClient({ baseUrl: config.server, ca, cert, key });
    const client = new Client(createHttpTransport({ userAgent: "fake-nodes" }, { http }));
    const cluster = new ClientCluster(
      server,
      client,
      config.server,
      text,
      new Agent({ keepAlive: true, ca, cert, key }),
    );
    await new Promise<void>((ready, failed) => {
      const wanted = [
        { name: "node-1", subnet: "42.0" },
        { name: "node-2", subnet: "42.1", isReserved: true },
      ];
      cluster.#nodes = runFakeNodes(wanted, client, cluster.#stop.signal, ready).finally(() => http.close());
      cluster.#nodes.catch(failed);
    });
    return cluster;
  }

  private constructor(server: MoteServer, client: Client, url: string, kubeconfig: string, agent: Agent) {
    this.#server = server;
    this.client = client;
    this.url = url;
    this.folder = server.folder;
    this.#kubeconfig = kubeconfig;
    this.#agent = agent;
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error("over"));
    await this.#nodes.catch(() => {});
    this.#agent.destroy();
    await this.#server.close();
  }

  /** A namespace with what its controllers put there, and a kubeconfig for it. */
  async namespace(name: string): Promise<{ readonly kubeconfig: string; readonly folder: string }> {
    await this.client.create(namespaces, { metadata: { name } } as Namespace);
    const folder = join(this.folder, name);
    mkdirSync(folder);
    const kubeconfig = join(folder, ".kubeconfig");
    writeFileSync(kubeconfig, this.#kubeconfig.replace(/^( +)(user: \w+)$/m, `$1$2\n$1namespace: ${name}`));
    for (let tries = 0; ; tries++) {
      try {
        await this.client.get(serviceAccounts, "default", name);
        await this.client.get(configMaps, "kube-root-ca.crt", name);
        return { kubeconfig, folder };
      } catch (error) {
        if (!isNotFound(error) || tries > 200) throw error;
        await systemClock.sleep(50);
      }
    }
  }

  async ask(method: string, path: string, asking: Asking = {}): Promise<Answer> {
    const answer = await this.#send(method, path, asking);
    let text = "";
    for await (const chunk of answer) text += String(chunk);
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch {
      body = undefined;
    }
    return { status: answer.statusCode ?? 0, headers: answer.headers, text, body };
  }

  /** Opens a watch; `path` has the query. Resolves with the answer's headers there; rejects where it is refused. */
  async watch(path: string, headers: Readonly<Record<string, string>> = {}): Promise<Watching> {
    const answer = await this.#send("GET", path, { headers });
    if (answer.statusCode !== 200) throw new Error(`${path}: ${answer.statusCode}`);
    const events: Watching["events"] = [];
    let rest = "";
    answer.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) events.push(JSON.parse(line) as Watching["events"][number]);
    });
    answer.on("error", () => {});
    return {
      events,
      async until(count) {
        for (let tries = 0; events.length < count; tries++) {
          if (tries > 500) throw new Error(`${path}: ${events.length} of ${count} events: ${JSON.stringify(events)}`);
          await systemClock.sleep(20);
        }
      },
      close: () => answer.destroy(),
    };
  }

  #send(method: string, path: string, { body, headers }: Asking): Promise<IncomingMessage> {
    const text = typeof body === "object" ? JSON.stringify(body) : body;
    // Node tells nobody how long the body of a DELETE is.
    const length = { "content-length": String(Buffer.byteLength(text ?? "")) };
    const type = text === undefined ? {} : { "content-type": "application/json", ...length };
    return new Promise((resolve, reject) => {
      const sent = request(
        new URL(path, this.url),
        { method, agent: this.#agent, headers: { accept: "application/json", ...type, ...headers } },
        resolve,
      );
      sent.on("error", reject);
      sent.end(text);
    });
  }
}
