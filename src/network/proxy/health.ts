// What load balancers outside of the cluster ask nodes: at a service's healthCheckNodePort whether this node has endpoints of
// it (policy Local, so that nothing is sent where it would be dropped), and at the proxy's own port whether its rules are
// kept. A port that somebody else has is tried again. Upstream counterpart: pkg/proxy/healthcheck.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { nameOf, namespaceOf } from "#model/object.ts";
import { openPlainHttpServer, type PlainHttpServer, type ShortAnswer } from "#platform/plain-http-server.ts";
import { isReady, serviceNameLabel } from "./service-port.ts";

export interface HealthCheck {
  readonly namespace: string;
  readonly name: string;
  /** Ready ones on this node: those that are ending get nothing new. */
  readonly localEndpoints: number;
}

/** By port, for the services that have one. */
export function healthChecksOf(
  services: readonly Service[],
  slices: readonly EndpointSlice[],
  nodeName: string,
): Map<number, HealthCheck> {
  const asked = new Map<string, number>();
  for (const service of services) {
    const { type, externalTrafficPolicy, healthCheckNodePort } = service.spec;
    if (type !== "LoadBalancer" || externalTrafficPolicy !== "Local" || !healthCheckNodePort) continue;
    asked.set(`${namespaceOf(service)}/${nameOf(service)}`, healthCheckNodePort);
  }
  const local = new Map<string, Map<string, Set<string>>>();
  for (const slice of asked.size === 0 ? [] : slices) {
    const key = `${namespaceOf(slice)}/${slice.metadata.labels?.[serviceNameLabel] ?? ""}`;
    if (!asked.has(key)) continue;
    const families = local.get(key) ?? new Map<string, Set<string>>();
    local.set(key, families);
    const addresses = families.get(slice.addressType) ?? new Set<string>();
    families.set(slice.addressType, addresses);
    for (const endpoint of slice.endpoints ?? []) {
      const [ip] = endpoint.addresses;
      if (ip !== undefined && endpoint.nodeName === nodeName && isReady(endpoint)) addresses.add(ip);
    }
  }
  return new Map(
    [...asked].map(([key, port]) => {
      const [namespace = "", name = ""] = key.split("/");
      // A pod has an address of each family, and is one endpoint.
      const sizes = [...(local.get(key)?.values() ?? [])].map(({ size }) => size);
      return [port, { namespace, name, localEndpoints: Math.max(0, ...sizes) }];
    }),
  );
}

/** Of the proxy itself. */
export interface ProxyHealth {
  /** When the rules were last right. */
  readonly lastUpdatedMs: number;
  /** How long changes have waited for their rules; undefined: none do. */
  readonly waitedMs: number | undefined;
  /** False while the node is about to go: balancers shall leave it. */
  readonly isEligible: boolean;
}

/** Rules that could not be written for so long are not kept any more. */
const staleMs = 60_000;

const isHealthy = ({ waitedMs }: ProxyHealth): boolean => waitedMs === undefined || waitedMs < staleMs;

/** Upstream's words, which some balancers read. */
function serviceAnswer({ namespace, name, localEndpoints }: HealthCheck, isProxyHealthy: boolean): ShortAnswer {
  const service = { namespace, name };
  return {
    status: localEndpoints > 0 && isProxyHealthy ? 200 : 503,
    headers: {
      "content-type": "application/json",
      "x-content-type-options": "nosniff",
      "x-load-balancing-endpoint-weight": String(localEndpoints),
    },
    body: JSON.stringify({ service, localEndpoints, serviceProxyHealthy: isProxyHealthy }, undefined, "\t"),
  };
}

function proxyAnswer(path: string, health: ProxyHealth, nowMs: number): ShortAnswer {
  const isLive = path === "/livez";
  if (!isLive && path !== "/healthz") return { status: 404, body: "404 page not found\n" };
  const isWell = isHealthy(health) && (isLive || health.isEligible);
  const [lastUpdated, currentTime] = [isHealthy(health) ? nowMs : health.lastUpdatedMs, nowMs].map((ms) =>
    new Date(ms).toISOString(),
  );
  return {
    status: isWell ? 200 : 503,
    headers: { "content-type": "application/json", "x-content-type-options": "nosniff" },
    body: JSON.stringify({ lastUpdated, currentTime, nodeEligible: health.isEligible }),
  };
}

interface HealthPortsOptions {
  /** Of the proxy itself; undefined: none. */
  readonly proxyPort: number | undefined;
  readonly health: () => ProxyHealth;
}

/** The ports that are open. Calls must not overlap. */
export class HealthPorts {
  readonly #options: HealthPortsOptions;
  readonly #deps: { readonly clock: Clock; readonly log: Logger };
  readonly #open = new Map<number, PlainHttpServer>();
  readonly #told = new Set<number>();
  #checks: ReadonlyMap<number, HealthCheck> = new Map();

  constructor(options: HealthPortsOptions, deps: { readonly clock: Clock; readonly log: Logger }) {
    this.#options = options;
    this.#deps = deps;
  }

  async set(checks: ReadonlyMap<number, HealthCheck>): Promise<void> {
    this.#checks = checks;
    const { proxyPort } = this.#options;
    const wanted = new Set([...checks.keys(), ...(proxyPort === undefined ? [] : [proxyPort])]);
    for (const [port, server] of this.#open) {
      if (wanted.has(port)) continue;
      this.#open.delete(port);
      await server.close();
    }
    for (const port of wanted) if (!this.#open.has(port)) await this.#listen(port);
    for (const port of this.#told) if (!wanted.has(port)) this.#told.delete(port);
  }

  /** Those that could not be had. */
  again(): Promise<void> {
    return this.set(this.#checks);
  }

  async close(): Promise<void> {
    for (const server of this.#open.values()) await server.close();
    this.#open.clear();
  }

  async #listen(port: number): Promise<void> {
    try {
      this.#open.set(port, await openPlainHttpServer(port, (path) => this.#answer(port, path)));
      this.#told.delete(port);
    } catch (error) {
      // Once, for as long as it lasts.
      if (this.#told.has(port)) return;
      this.#told.add(port);
      const what = this.#checks.get(port);
      const service = what === undefined ? "the proxy itself" : `${what.namespace}/${what.name}`;
      this.#deps.log.warn("a port of health checks cannot be had", { port, service, error: messageOf(error) });
    }
  }

  #answer(port: number, path: string): ShortAnswer {
    const nowMs = this.#deps.clock.now();
    const health = this.#options.health();
    const check = this.#checks.get(port);
    return check ? serviceAnswer(check, isHealthy(health)) : proxyAnswer(path, health, nowMs);
  }
}
