// A node's tunnels over real TLS: one to each server, which say how the servers are, also of one that takes connections and
// says nothing any more.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { systemClock as clock } from "#platform/clock.ts";
import type { ServerUpgrade } from "#platform/https-server.ts";
import { systemRandom as random } from "#platform/random.ts";
import { dialBareWebSocket } from "#platform/raw-websocket.ts";
import { until } from "#test/harness/until.ts";
import { inOrder } from "./balancer/plan.ts";
import { openLoadBalancer } from "./load-balancer.ts";
import { generateKey, issueCertificate } from "./pki/certificate.ts";
import { createServerTunnels, serversIn } from "./server-tunnels.ts";
import { TunnelRig } from "./tunnel/rig.fixture.ts";
import { createTunnels } from "./tunnels.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const deps = { clock, random, log: silentLogger };
const rig = new TunnelRig();
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mote-tunnels-"));
});
afterEach(async () => {
  await rig.close();
  rmSync(folder, { recursive: true, force: true });
});

/** A server behind a wire. */
async function server() {
  let tunnels = 0;
  const egress = createTunnels({ mode: "agent", nodeName: "hub" }, { ...deps, metrics: new Metrics() });
  const keeper = {
    acceptPeer: () => false,
    acceptNode(upgrade: ServerUpgrade, node: string) {
      tunnels++;
      upgrade.socket.once("close", () => tunnels--);
      egress.acceptNode(upgrade, node);
    },
  };
  const door = await rig.door(keeper, "leaf");
  const wire = await rig.wire(door.port);
  return {
    address: `127.0.0.1:${wire.port}`,
    freeze: wire.freeze,
    get tunnels() {
      return tunnels;
    },
  };
}

test("one to each, as the list says; and each says how its server is", async () => {
  const [a, b] = [await server(), await server()];
  const balancer = await openLoadBalancer({ server: `https://${a.address}`, folder }, deps);
  const states = () => balancer.servers.map(({ state }) => state).join();
  const seen = { lost: 0, refused: 0 };
  const service = createServerTunnels(
    {
      tls: () => ({ isUnchecked: true }),
      rules: { mode: "agent", nodeApiPort: 10250, nodeAddresses: [], clusterCidrs: [], pods: () => [] },
    },
    {
      ...{ ...deps, balancer, onLost: () => seen.lost++ },
      async dial(request, signal) {
        try {
          return await dialBareWebSocket(request, signal);
        } catch (error) {
          if (!signal.aborted) seen.refused++;
          throw error;
        }
      },
    },
  );
  rig.run(service);
  await until(() => a.tunnels === 1 && b.tunnels === 0);
  await balancer.setServers([a.address, b.address]);
  const used = await balancer.connect();
  used.on("error", () => {});
  await until(() => b.tunnels === 1 && states() === "active,preferred");

  a.freeze(true);
  await until(() => states().startsWith("failed"));
  // Before a handshake is given up.
  expect([seen, states()]).toEqual([{ lost: 1, refused: 0 }, "failed,preferred"]);
  await until(() => used.destroyed);
  await balancer.setServers([b.address]);
  await until(() => a.tunnels === 0 && b.tunnels === 1);
});

test("who is of another cluster is the last that is tried, though it takes connections", async () => {
  const stranger = await server();
  const balancer = await openLoadBalancer({ server: "https://192.0.2.1:6443", folder }, deps);
  await balancer.setServers([stranger.address]);
  const dates = { notBeforeMs: 0, notAfterMs: Date.UTC(9999, 0, 1) };
  const ca = issueCertificate({ commonName: "ours", usage: "client", ...dates }, generateKey(), undefined, random);
  const service = createServerTunnels(
    {
      tls: () => ({ ca, trust: "keys" }),
      rules: { mode: "agent", nodeApiPort: 10250, nodeAddresses: [], clusterCidrs: [], pods: () => [] },
    },
    { ...deps, balancer, dial: (request, signal) => dialBareWebSocket({ ...request, connectTimeoutMs: 500 }, signal) },
  );
  rig.run(service);
  await until(() => balancer.servers.map(({ state }) => state).join() === "failed,standby");
  expect(inOrder(balancer.servers)).toEqual(["192.0.2.1:6443", stranger.address]);
});

test("servers of the service kubernetes", () => {
  const slice = (name: string, port: string, ...endpoints: EndpointSlice["endpoints"]): EndpointSlice =>
    ({
      metadata: { name, namespace: "default", labels: { "kubernetes.io/service-name": name } },
      ports: [{ name: port, port: 6443 }],
      endpoints,
    }) as unknown as EndpointSlice;
  const at = (address: string, ready?: boolean) => ({
    addresses: [address],
    conditions: ready === undefined ? {} : { ready },
  });
  const slices = [
    slice("kubernetes", "https", at("192.0.2.1", true), at("192.0.2.2"), at("192.0.2.3", false)),
    slice("kubernetes", "https", at("2001:db8::1")),
    slice("kubernetes", "other", at("192.0.2.9")),
    slice("web", "https", at("192.0.2.8")),
  ];
  expect(serversIn(slices)).toEqual(["192.0.2.1:6443", "192.0.2.2:6443", "[2001:db8::1]:6443"]);
});
