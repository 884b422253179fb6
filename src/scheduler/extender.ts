// Programs outside that have a say: asked over HTTP which nodes will do, which are better, whose pods may be pushed out, and
// to bind. Bodies are upstream's k8s.io/kube-scheduler/extender/v1, whose fields have no JSON names of their own: they are
// sent in Go's spelling and read in any. Upstream counterpart: pkg/scheduler/extender.go.
import { AppError } from "#base/errors.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { createHttpClient, type HttpClient, readBody } from "#platform/http-client.ts";
import type { PodInfo } from "./pod-info.ts";
import type { Candidate } from "./preemption.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";

export interface ExtenderSettings {
  readonly urlPrefix: string;
  readonly filterVerb: string;
  readonly preemptVerb: string;
  readonly prioritizeVerb: string;
  readonly bindVerb: string;
  readonly weight: number;
  readonly enableHTTPS: boolean;
  readonly tls: {
    readonly insecure: boolean;
    readonly serverName?: string;
    /** PEM. */
    readonly ca?: string;
    readonly cert?: string;
    readonly key?: string;
  };
  readonly httpTimeoutMs: number;
  /** It knows the nodes and wants only their names. */
  readonly nodeCacheCapable: boolean;
  readonly managedResources: readonly { readonly name: string; readonly ignoredByScheduler: boolean }[];
  /** Pods are scheduled without it where it does not answer. */
  readonly ignorable: boolean;
}

/** As large as a list of thousands of nodes. */
const maxAnswerBytes = 64 * 1024 * 1024;
/** An extender's scores go from 0 to 10, ours to 100. */
const scoreScale = 10;

export interface ExtenderFilterAnswer {
  readonly nodes: readonly string[];
  /** Node → why; preemption may help. */
  readonly failed: ReadonlyMap<string, string>;
  readonly failedForGood: ReadonlyMap<string, string>;
}

type Json = Readonly<Record<string, unknown>>;

export class Extender {
  readonly settings: ExtenderSettings;
  readonly #http: HttpClient;

  constructor(settings: ExtenderSettings) {
    this.settings = settings;
    const { ca, cert, key, serverName, insecure } = settings.tls;
    this.#http = createHttpClient({
      baseUrl: settings.urlPrefix.replace(/\/+$/, ""),
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(serverName === undefined ? {} : { serverName }),
      // As upstream: HTTPS without an authority is taken on trust.
      insecureSkipTlsVerify: insecure || (settings.enableHTTPS && ca === undefined),
    });
  }

  get name(): string {
    return this.settings.urlPrefix;
  }

  close(): void {
    this.#http.close();
  }

  /** It looks after all pods, or after those that ask for one of its resources. */
  isInterestedIn({ spec }: Pod): boolean {
    const { managedResources } = this.settings;
    if (managedResources.length === 0) return true;
    return [...(spec.containers ?? []), ...(spec.initContainers ?? [])].some(({ resources }) =>
      managedResources.some(
        ({ name }) => resources?.requests?.[name] !== undefined || resources?.limits?.[name] !== undefined,
      ),
    );
  }

  async filter(pod: Pod, nodes: readonly NodeInfo[], signal: AbortSignal): Promise<ExtenderFilterAnswer> {
    const { filterVerb, nodeCacheCapable } = this.settings;
    const answer = await this.#ask(filterVerb, this.#arguments(pod, nodes), signal);
    const error = textOf(field(answer, "error"));
    if (error !== "") throw this.#failed(filterVerb, error);
    const names = nodeCacheCapable
      ? field(answer, "nodeNames")
      : (field(field(answer, "nodes"), "items") as readonly Node[] | undefined)?.map(nameOf);
    const known = new Set(nodes.map(({ name }) => name));
    const found = (Array.isArray(names) ? names : []).map(String);
    const stranger = found.find((name) => !known.has(name));
    if (stranger !== undefined) {
      throw this.#failed(
        filterVerb,
        `extender ${JSON.stringify(this.name)} claims a filtered node ${JSON.stringify(stranger)} which is not found in the input node list`,
      );
    }
    return {
      nodes: found,
      failed: mapOf(field(answer, "failedNodes")),
      failedForGood: mapOf(field(answer, "failedAndUnresolvableNodes")),
    };
  }

  /** Node → score to add. */
  async prioritize(pod: Pod, nodes: readonly NodeInfo[], signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
    const { prioritizeVerb, weight } = this.settings;
    const answer = await this.#ask(prioritizeVerb, this.#arguments(pod, nodes), signal);
    if (!Array.isArray(answer)) throw this.#failed(prioritizeVerb, "the answer is no list");
    return new Map(
      answer.map((one) => [textOf(field(one, "host")), Number(field(one, "score") ?? 0) * weight * scoreScale]),
    );
  }

  /** The candidates that are left, with the victims as the extender has them. */
  async preempt(
    pod: Pod,
    candidates: readonly Candidate[],
    { byName }: Snapshot,
    signal: AbortSignal,
  ): Promise<Candidate[]> {
    const { nodeCacheCapable, preemptVerb } = this.settings;
    const byNode = (victimsOf: (info: PodInfo) => unknown) =>
      Object.fromEntries(
        candidates.map(({ node, victims, violations }) => [
          node,
          { Pods: victims.map(victimsOf), NumPDBViolations: violations },
        ]),
      );
    const answer = await this.#ask(
      preemptVerb,
      {
        Pod: pod,
        NodeNameToVictims: nodeCacheCapable ? null : byNode((info) => info.pod),
        NodeNameToMetaVictims: nodeCacheCapable ? byNode(({ uid }) => ({ UID: uid })) : null,
      },
      signal,
    );
    const left = (field(answer, "nodeNameToMetaVictims") ?? {}) as Json;
    return Object.entries(left).map(([node, meta]) => {
      const pods = new Map([...(byName.get(node)?.pods.values() ?? [])].map((info) => [info.uid, info]));
      const wanted = (field(meta, "pods") ?? []) as readonly unknown[];
      const victims = wanted.map((one) => {
        const uid = textOf(field(one, "uid"));
        const info = pods.get(uid);
        if (!info) {
          throw this.#failed(
            preemptVerb,
            `extender: ${this.name} claims to preempt pod (UID: ${uid}) on node: ${node}, but the pod is not found on that node`,
          );
        }
        return info;
      });
      return { node, victims, violations: Number(field(meta, "numPDBViolations") ?? 0) };
    });
  }

  async bind(pod: Pod, node: string, signal: AbortSignal): Promise<void> {
    const { bindVerb } = this.settings;
    const answer = await this.#ask(
      bindVerb,
      { PodName: nameOf(pod), PodNamespace: namespaceOf(pod), PodUID: uidOf(pod), Node: node },
      signal,
    );
    const error = textOf(field(answer, "error"));
    if (error !== "") throw this.#failed(bindVerb, error);
  }

  #arguments(pod: Pod, nodes: readonly NodeInfo[]): Json {
    return this.settings.nodeCacheCapable
      ? { Pod: pod, Nodes: null, NodeNames: nodes.map(({ name }) => name) }
      : { Pod: pod, Nodes: { metadata: {}, items: nodes.map(({ node }) => node) }, NodeNames: null };
  }

  async #ask(verb: string, body: Json, signal: AbortSignal): Promise<unknown> {
    const { httpTimeoutMs } = this.settings;
    const response = await this.#http.send(
      {
        method: "POST",
        path: `/${verb}`,
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
        idleTimeoutMs: httpTimeoutMs,
      },
      signal,
    );
    const answer = (await readBody(response, maxAnswerBytes)).toString("utf8");
    if (response.status !== 200) {
      const url = `${this.settings.urlPrefix.replace(/\/+$/, "")}/${verb}`;
      throw new AppError("SCHEDULER_EXTENDER", `failed ${verb} with extender at URL ${url}, code ${response.status}`);
    }
    try {
      return JSON.parse(answer);
    } catch (cause) {
      throw new AppError("SCHEDULER_EXTENDER", `the answer of extender ${this.name} is not JSON`, {}, { cause });
    }
  }

  #failed(verb: string, why: string): AppError {
    return new AppError("SCHEDULER_EXTENDER", why, { extender: this.name, verb });
  }
}

/** A field in whatever case: Go reads them so. */
function field(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  const wanted = name.toLowerCase();
  const key = Object.keys(value).find((one) => one.toLowerCase() === wanted);
  return key === undefined ? undefined : (value as Json)[key];
}

const textOf = (value: unknown): string => (typeof value === "string" ? value : "");
const mapOf = (value: unknown): ReadonlyMap<string, string> =>
  new Map(Object.entries((value ?? {}) as Json).map(([key, text]) => [key, textOf(text)]));
