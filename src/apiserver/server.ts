// The API server: the generic registry over a Backend, served on one TLS port and to parts of the same process. Nobody
// else reads or writes API objects in the datastore. Upstream counterpart: kube-apiserver.
import { type Service, untilAborted } from "#base/service.ts";
import type { Transport } from "#client/transport.ts";
import type { ApiObject } from "#model/object.ts";
import { notFound } from "#model/status.ts";
import { type HttpsHandlers, type HttpsServer, openHttpsServer, type TlsMaterial } from "#platform/https-server.ts";
import type { UserInfo } from "./authn/user.ts";
import { Encoder } from "./endpoints/encode.ts";
import { createCborFormat, createProtobufFormat } from "./endpoints/formats.ts";
import type { HealthCheck } from "./endpoints/system.ts";
import { FlowControl } from "./flow-control/flow-control.ts";
import { createHandler, type Handler } from "./handler.ts";
import { createHttpFace, requestTimeoutMs } from "./http-face.ts";
import { createLocalTransport } from "./local-transport.ts";
import type { ApiServerDeps, ApiServerOptions } from "./options.ts";
import { expireEvents } from "./registry/event-expiry.ts";
import { FanOut } from "./watch/fan-out.ts";
import { Changes, type FeedDeps } from "./watch/feed.ts";
import { Relay } from "./watch/relay.ts";

export type { ApiServerDeps, ApiServerOptions } from "./options.ts";

export interface ApiServer {
  /** Listens while it runs; without `tls` it only marks when transports inside the process are to end. */
  readonly service: Service;
  /** Serves custom resources: part of `service`, for servers that have no port and run without it. */
  readonly definitions: Service;
  /** The API inside the process, as `user`. Works before and without `service`. */
  transport(user: UserInfo): Transport;
  /** Reads the store directly: for authenticators and authorisers, which stand in front of the chain. Shared. */
  read(resource: string, namespace: string, name: string): Promise<ApiObject | undefined>;
  /** The same of all, or of a namespace. */
  readAll(resource: string, namespace: string): Promise<readonly ApiObject[]>;
  readonly handle: Handler["handle"];
  /** To be told of flow schemas and priority levels; before that it has upstream's. */
  readonly flowControl: FlowControl;
  /** The port listened on; 0 before. */
  readonly port: number;
  /** For connections from now on. */
  setTls(tls: TlsMaterial): void;
}

/** How long open requests and watches may take to end when the server stops. */
const closeGraceMs = 2000;
/** A datastore that takes longer to answer is not ready. */
const checkTimeoutMs = 5000;

export function createApiServer(options: ApiServerOptions, deps: ApiServerDeps): ApiServer {
  let closing = false;
  // A set and no AbortSignal: thousands of watches may be open.
  const leaving = new Set<() => void>();
  const onClosing = (leave: () => void) => {
    if (closing) leave();
    else leaving.add(leave);
    return () => void leaving.delete(leave);
  };
  const checks: HealthCheck[] = [
    { name: "ping", check() {} },
    { name: "log", check() {} },
    { name: "etcd", check: () => datastoreAnswers(deps) },
    ...(deps.checks ?? []),
    {
      name: "shutdown",
      readyOnly: true,
      check() {
        if (closing) throw new Error("process is shutting down");
      },
    },
  ];
  const serverAddress = options.serverAddress ?? `127.0.0.1:${options.port ?? 6443}`;
  const handler = createHandler(options, deps, checks, serverAddress);
  const feed: FeedDeps = {
    backend: deps.backend,
    clock: deps.clock,
    changes: new Changes(),
    relay: new Relay(deps),
  };
  const protobuf = createProtobufFormat();
  const columnsFor: ApiServerDeps["columnsFor"] = (info) =>
    (info.type === "" ? handler.columnsOf(info) : undefined) ?? deps.columnsFor(info);
  const encoder = new Encoder({ clock: deps.clock, columnsFor, protobuf, cbor: createCborFormat() });
  const flowControl = new FlowControl(
    {
      totalSeats: (options.maxReadsInFlight ?? 400) + (options.maxWritesInFlight ?? 200),
      waitLimitMs: (options.requestTimeoutMs ?? requestTimeoutMs) / 4,
    },
    deps,
  );
  const face = createHttpFace(options, deps, handler, flowControl, {
    encoder,
    feed,
    fanOut: new FanOut(deps),
    hasProtobuf: protobuf.has,
    formats: { cbor: options.cbor ?? false },
    onClosing,
  });
  let listening: HttpsServer | undefined;
  let tls = options.tls;
  return {
    handle: handler.handle,
    flowControl,
    definitions: handler.definitions,
    transport: (user) => createLocalTransport({ handler, feed, audit: deps.audit }, user),
    async read(resource, namespace, name) {
      const found = handler.resources.get(resource);
      if (!found) throw notFound({ group: "", resource }, name);
      const item = await found.storage.get(namespace, name);
      return item && found.storage.decode(item);
    },
    async readAll(resource, namespace) {
      const found = handler.resources.get(resource);
      if (!found) throw notFound({ group: "", resource }, "");
      return (await found.storage.list(namespace)).items.map((item) => found.storage.decode(item));
    },
    get port() {
      return listening?.port ?? 0;
    },
    setTls(next) {
      tls = next;
      listening?.setTls(next);
    },
    service: {
      name: "apiserver",
      async run(signal, ready) {
        closing = false;
        if (tls) {
          const { host = "0.0.0.0", port = 6443 } = options;
          const door: HttpsHandlers = {
            request: (request, response) => deps.requests?.(request, response) ?? face.request(request, response),
            upgrade: (upgrade) => (deps.upgrades?.get(upgrade.request.target) ?? face.upgrade)(upgrade),
          };
          listening = await openHttpsServer({ host, port, tls, log: deps.log }, door);
          deps.log.info("API server listens", { host, port: listening.port });
        }
        const expiry = expireEvents(deps, signal);
        const definitions = handler.definitions.run(signal, ready);
        await untilAborted(signal);
        closing = true;
        for (const leave of [...leaving]) leave();
        leaving.clear();
        await expiry;
        await definitions;
        flowControl.stop();
        await listening?.close(closeGraceMs);
        listening = undefined;
      },
    },
  };
}

async function datastoreAnswers(deps: ApiServerDeps): Promise<void> {
  let cancel = () => {};
  const late = new Promise<never>((_resolve, reject) => {
    cancel = deps.clock.after(checkTimeoutMs, () => reject(new Error("the datastore does not answer")));
  });
  try {
    await Promise.race([deps.backend.range({ key: "/registry/health" }), late]);
  } finally {
    cancel();
  }
}
