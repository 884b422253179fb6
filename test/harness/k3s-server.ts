// What a server of k3s answers to an agent that joins, and its end of the tunnel: paths, status codes, bodies and certificates
// of v1.32, or of a version before it, which makes the keys of certificates itself. Written from k3s's sources (pkg/server,
// pkg/nodepassword, dynamiclistener), with nothing of src/supervisor but the making of certificates.
import { createHash, createPublicKey, X509Certificate } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import * as https from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { systemRandom } from "#platform/random.ts";
import { generateKey, issueCertificate } from "#supervisor/pki/certificate.ts";
import { parseSigningRequest } from "#wire/pkcs10.ts";
import { RemoteDialer } from "./remotedialer.ts";

export interface K3sServerOptions {
  readonly password: string;
  /** Of v1.31: whatever a node sends, the key is the server's. */
  readonly makesKeys?: boolean;
}

interface Authority {
  readonly cert: string;
  readonly key: string;
}

interface User {
  readonly name: string;
  readonly groups: readonly string[];
}

const yearMs = 365 * 24 * 3600_000;
const times = { notBeforeMs: Date.now() - 3600_000, notAfterMs: Date.now() + yearMs };

function authority(name: string): Authority {
  const key = generateKey();
  const commonName = `${name}@${Math.floor(times.notBeforeMs / 1000)}`;
  const long = { notBeforeMs: times.notBeforeMs, notAfterMs: times.notBeforeMs + 10 * yearMs };
  return { key, cert: issueCertificate({ commonName, usage: "authority", ...long }, key, undefined, systemRandom) };
}

export class K3sServer {
  readonly serverCa = authority("k3s-server-ca");
  readonly clientCa = authority("k3s-client-ca");
  /** The core is up. */
  isReady = true;
  /** Node objects that there are. */
  readonly nodes = new Set<string>();
  readonly passwords = new Map<string, string>();
  readonly asked: string[] = [];
  /** What nodes said beside their names. */
  readonly nodeIps = new Map<string, string>();
  readonly tunnels = new Map<string, RemoteDialer[]>();
  readonly #options: K3sServerOptions;
  readonly #https: https.Server;
  readonly #sockets = new Set<Socket>();

  private constructor(options: K3sServerOptions) {
    this.#options = options;
    const key = generateKey();
    // dynamiclistener's: the names that are set, and what it was asked by.
    const dnsNames = [
      "kubernetes",
      "kubernetes.default",
      "kubernetes.default.svc",
      "kubernetes.default.svc.cluster.local",
    ];
    const request = {
      ...{ commonName: "k3s", organizations: ["k3s"], usage: "server" as const, ...times },
      ...{ dnsNames: [...dnsNames, "localhost", "server-0"], ips: ["10.43.0.1", "127.0.0.1", "::1"] },
    };
    const issuer = { certificate: this.serverCa.cert, key: this.serverCa.key };
    const cert = issueCertificate(request, key, issuer, systemRandom) + this.serverCa.cert;
    this.#https = https.createServer(
      { key, cert, requestCert: true, rejectUnauthorized: false, minVersion: "TLSv1.2" },
      (incoming, answer) => void this.#answer(incoming, answer),
    );
    this.#https.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    this.#https.on("upgrade", (incoming: IncomingMessage, socket: Socket, head: Buffer) =>
      this.#upgrade(incoming, socket, head),
    );
  }

  static async start(options: K3sServerOptions): Promise<K3sServer> {
    const server = new K3sServer(options);
    await new Promise<void>((resolve) => server.#https.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get port(): number {
    return (this.#https.address() as AddressInfo).port;
  }
  get url(): string {
    return `https://127.0.0.1:${this.port}`;
  }
  get token(): string {
    return `K10${createHash("sha256").update(this.serverCa.cert).digest("hex")}::server:${this.#options.password}`;
  }

  async stop(): Promise<void> {
    for (const tunnel of [...this.tunnels.values()].flat()) tunnel.close();
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#https.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? "";
    this.asked.push(`${request.method} ${path}`);
    const body: Buffer[] = [];
    for await (const part of request) body.push(part as Buffer);
    const send = (text: string, type?: string) => {
      if (type) response.setHeader("Content-Type", type);
      response.end(text);
    };
    if (path === "/cacerts") return send(this.serverCa.cert, "text/plain");
    if (path === "/ping") return send("pong");
    const user = this.#user(request);
    if (user === "wrong") return fail(response, 401, "Unauthorized", "not authorized");
    const roles = ["k3s:agent", "system:nodes", "system:bootstrappers"];
    if (user === "nobody" || !user.groups.some((group) => roles.includes(group)))
      return fail(response, 403, "Forbidden", "forbidden");
    const name = /^\/v1-k3s\/(.+)$/.exec(path)?.[1] ?? "";
    switch (name) {
      case "config":
        return send(`${JSON.stringify(this.#control())}\n`, "application/json");
      case "apiservers":
        return send(`["127.0.0.1:${this.port}"]\n`, "application/json");
      case "readyz":
        return this.isReady ? send("ok") : fail(response, 503, "ServiceUnavailable", "runtime core not ready");
      case "client-ca.crt":
        return send(this.clientCa.cert, "text/plain");
      case "server-ca.crt":
        return send(this.serverCa.cert, "text/plain");
      case "serving-kubelet.crt":
      case "client-kubelet.crt": {
        const node = this.#node(request, user);
        if (typeof node !== "string") return fail(response, node.code, node.reason, node.message);
        if (name === "client-kubelet.crt") {
          const subject = { commonName: `system:node:${node}`, organizations: ["system:nodes"] };
          return send(this.#sign(request, body, this.clientCa, { ...subject, usage: "client" }));
        }
        const given = String(request.headers["k3s-node-ip"] ?? "");
        this.nodeIps.set(node, given);
        const ips = ["127.0.0.1", ...given.split(",").filter((ip) => ip !== "")];
        const names = { commonName: node, dnsNames: [node, "localhost"], ips };
        return send(this.#sign(request, body, this.serverCa, { ...names, usage: "server" }));
      }
      case "client-kube-proxy.crt":
        return send(this.#sign(request, body, this.clientCa, { commonName: "system:kube-proxy", usage: "client" }));
      case "client-k3s-controller.crt":
        return send(this.#sign(request, body, this.clientCa, { commonName: "system:k3s-controller", usage: "client" }));
      default:
        return fail(response, 404, "NotFound", "the server could not find the requested resource");
    }
  }

  /** One that is believed is enough; else one that is wrong is worse than none. */
  #user(request: IncomingMessage): User | "wrong" | "nobody" {
    let isWrong = false;
    const basic = /^Basic (.+)$/.exec(String(request.headers["authorization"] ?? ""))?.[1];
    if (basic) {
      const [name, password] = Buffer.from(basic, "base64").toString().split(":");
      const group = name === "server" ? "k3s:server" : name === "node" ? "k3s:agent" : undefined;
      if (group && password === this.#options.password) return { name: name!, groups: [group] };
      isWrong = true;
    }
    const shown = (request.socket as TLSSocket).getPeerX509Certificate();
    if (shown) {
      const isOurs = shown.verify(createPublicKey(this.clientCa.cert));
      const field = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(shown.subject)?.[1] ?? "";
      if (isOurs) return { name: field("CN"), groups: [field("O")] };
      isWrong = true;
    }
    return isWrong ? "wrong" : "nobody";
  }

  #node(
    request: IncomingMessage,
    user: User,
  ): string | { readonly code: number; readonly reason: string; readonly message: string } {
    const node = String(request.headers["k3s-node-name"] ?? "").toLowerCase();
    const password = String(request.headers["k3s-node-password"] ?? "");
    const bad = (message: string) => ({ code: 400, reason: "BadRequest", message });
    if (node === "") return bad("node name not set");
    if (password === "") return bad("node password not set");
    const isNode = user.groups.includes("system:nodes");
    if (isNode && user.name !== `system:node:${node}`) return bad("header node name does not match auth node name");
    if (!this.isReady) return { code: 503, reason: "ServiceUnavailable", message: "runtime core not ready" };
    if (isNode && !this.nodes.has(node)) {
      const message = `unable to verify node identity: nodes "${node}" not found`;
      return { code: 401, reason: "Unauthorized", message };
    }
    const known = this.passwords.get(node);
    if (known !== undefined && known !== password) {
      const message = `unable to verify hash for node '${node}': hash does not match`;
      return { code: 403, reason: "Forbidden", message };
    }
    this.passwords.set(node, password);
    return node;
  }

  /** Leaf, chain, and where the key is the server's, the key. */
  #sign(
    request: IncomingMessage,
    body: readonly Buffer[],
    by: Authority,
    order: Omit<Parameters<typeof issueCertificate>[0], "notBeforeMs" | "notAfterMs">,
  ): string {
    const base64 = Buffer.concat(body).toString("base64");
    const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${base64}\n-----END CERTIFICATE REQUEST-----\n`;
    const csr = request.method === "POST" && !this.#options.makesKeys ? parseSigningRequest(pem) : undefined;
    const own = csr ? "" : generateKey();
    const key = csr
      ? createPublicKey({ key: Buffer.from(csr.publicKey), format: "der", type: "spki" })
          .export({ type: "spki", format: "pem" })
          .toString()
      : own;
    return (
      issueCertificate({ ...order, ...times }, key, { certificate: by.cert, key: by.key }, systemRandom) + by.cert + own
    );
  }

  /** config.Control as Go writes it, empty fields too. */
  #control(): object {
    const [cluster, services] = ["10.42.0.0", "10.43.0.0"].map((IP) => ({ IP, Mask: "//8AAA==" }));
    return {
      ...{ ClusterDNSs: ["10.43.0.10"], ClusterIPRanges: [cluster], ClusterDNS: "10.43.0.10" },
      ...{ ClusterDomain: "cluster.local", ClusterIPRange: cluster, DisableCCM: false, DisableHelmController: false },
      ...{
        DisableNPC: false,
        DisableServiceLB: false,
        EncryptSecrets: false,
        EncryptProvider: "",
        EmbeddedRegistry: false,
      },
      ...{ FlannelBackend: "vxlan", FlannelIPv6Masq: false, FlannelExternalIP: false, EgressSelectorMode: "agent" },
      ...{ ServiceIPRange: services, ServiceIPRanges: [services], SupervisorMetrics: false },
      ...{
        AdvertisePort: this.port,
        AdvertiseIP: "",
        HTTPSPort: this.port,
        SupervisorPort: this.port,
        APIServerPort: 6444,
      },
      ...{ APIServerBindAddress: "127.0.0.1", ServiceNodePortRange: { Base: 30_000, Size: 2768 } },
      ...{ KubeConfigOutput: "", KubeConfigMode: "", KubeConfigGroup: "", HelmJobImage: "", KineTLS: false },
      ...{ DataDir: "/var/lib/rancher/k3s/server", Disables: {}, DisableAgent: false, DisableAPIServer: false },
      ...{ DisableControllerManager: false, DisableETCD: true, DisableKubeProxy: false, DisableScheduler: false },
      ...{ Rootless: false, ServiceLBNamespace: "kube-system", ExtraAPIArgs: null, ExtraControllerArgs: null },
      ...{ NoLeaderElect: false, JoinURL: "", IPSECPSK: "", DefaultLocalStoragePath: "", Skips: {} },
      ...{ SystemDefaultRegistry: "", ClusterInit: false, ClusterReset: false, MinTLSVersion: "VersionTLS12" },
      ...{ CipherSuites: null, ServerNodeName: "server-0", BindAddress: "", SANs: ["10.43.0.1"], PrivateIP: "" },
    };
  }

  #upgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    this.asked.push(`UPGRADE ${request.url}`);
    const user = this.#user(request);
    const node = typeof user === "string" ? undefined : /^system:node:(.+)$/.exec(user.name)?.[1];
    if (request.url !== "/v1-k3s/connect" || node === undefined) {
      socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    const key = `${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
    const accept = createHash("sha1").update(key).digest("base64");
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    const tunnel = new RemoteDialer(socket, head, { isClient: false });
    this.tunnels.set(node, [...(this.tunnels.get(node) ?? []), tunnel]);
  }
}

function fail(response: ServerResponse, code: number, reason: string, message: string): void {
  response.writeHead(code, { "Content-Type": "application/json" });
  response.end(
    JSON.stringify({ kind: "Status", apiVersion: "v1", metadata: {}, status: "Failure", message, reason, code }),
  );
}

/** Whom a certificate names. */
export const namesOf = (pem: string): string => new X509Certificate(pem).subjectAltName ?? "";
