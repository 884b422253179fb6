// What an agent of k3s v1.32 asks its server for, in its order, as Go's HTTP client sends it, and with Go's eyes on the answers:
// a field of another type than config.Control has, a certificate without its key, or a list that is none ends the join. Written
// from k3s's sources (pkg/agent/config, pkg/clientaccess), with nothing of src/supervisor.
import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject, sign, X509Certificate } from "node:crypto";
import * as https from "node:https";
import * as net from "node:net";
import * as tls from "node:tls";
import * as der from "#wire/der.ts";
import { RemoteDialer } from "./remotedialer.ts";

export interface GoAnswer {
  readonly status: number;
  readonly text: string;
}

export interface Pair {
  readonly cert: string;
  readonly key: string;
}

interface GoRequest {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  /** PEM; undefined: what the machine believes. */
  readonly ca?: string;
  readonly isUnchecked?: boolean;
  readonly pair?: Pair | undefined;
}

/** Each over a connection of its own, in HTTP/1.1: Go's client with a TLS configuration of its own does not try HTTP/2. */
export function goRequest(server: string, request: GoRequest): Promise<GoAnswer> {
  const { method, path, headers, body, ca, pair } = request;
  const url = new URL(path, server);
  return new Promise((resolve, reject) => {
    const outgoing = https.request(
      url,
      {
        method,
        agent: false,
        ...(ca === undefined ? {} : { ca }),
        ...(pair ? { cert: pair.cert, key: pair.key } : {}),
        rejectUnauthorized: request.isUnchecked !== true,
        headers: {
          Host: url.host,
          "User-Agent": "Go-http-client/1.1",
          Connection: "close",
          ...(body === undefined ? {} : { "Content-Length": String(Buffer.byteLength(body)) }),
          ...headers,
          "Accept-Encoding": "identity",
        },
      },
      (answer) => {
        const parts: Buffer[] = [];
        answer.on("data", (part: Buffer) => parts.push(part));
        answer.on("end", () =>
          resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") }),
        );
        answer.on("error", reject);
      },
    );
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

type Check = (value: unknown) => boolean;
const isText: Check = (value) => typeof value === "string";
const isFlag: Check = (value) => typeof value === "boolean";
const isNumber: Check = (value) => Number.isInteger(value);
const isAddress: Check = (value) => isText(value) && (value === "" || net.isIP(value as string) > 0);
const isBytes: Check = (value) => isText(value) && Buffer.from(value as string, "base64").toString("base64") === value;
const isNull: Check = (value) => value === null;
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
/** net.IPNet: an address as text, a mask as bytes. */
const isNetwork: Check = (value) =>
  isNull(value) || (isRecord(value) && isAddress(value["IP"]) && isBytes(value["Mask"]));
const isPorts: Check = (value) =>
  isNull(value) || (isRecord(value) && isNumber(value["Base"]) && isNumber(value["Size"]));
const listOf =
  (check: Check): Check =>
  (value) =>
    isNull(value) || (Array.isArray(value) && value.every(check));

/** Of config.Control, by Go's names. What is not here is not looked at. */
const controlFields: Readonly<Record<string, Check>> = {
  ClusterIPRange: isNetwork,
  ClusterIPRanges: listOf(isNetwork),
  ServiceIPRange: isNetwork,
  ServiceIPRanges: listOf(isNetwork),
  ServiceNodePortRange: isPorts,
  ClusterDNS: isAddress,
  ClusterDNSs: listOf(isAddress),
  ...Object.fromEntries(
    [
      ...[
        "ClusterDomain",
        "FlannelBackend",
        "EgressSelectorMode",
        "IPSECPSK",
        "SystemDefaultRegistry",
        "MinTLSVersion",
      ],
      ...["AdvertiseIP", "DataDir", "JoinURL", "BindAddress", "ServerNodeName", "KubeConfigMode", "HelmJobImage"],
    ].map((name) => [name, isText]),
  ),
  ...Object.fromEntries(
    [
      ...["DisableCCM", "DisableHelmController", "DisableNPC", "DisableServiceLB", "DisableKubeProxy", "DisableAgent"],
      ...[
        "EmbeddedRegistry",
        "EncryptSecrets",
        "FlannelIPv6Masq",
        "FlannelExternalIP",
        "SupervisorMetrics",
        "Rootless",
      ],
    ].map((name) => [name, isFlag]),
  ),
  ...Object.fromEntries(
    ["HTTPSPort", "SupervisorPort", "APIServerPort", "AdvertisePort"].map((name) => [name, isNumber]),
  ),
  CipherSuites: listOf(isText),
};

export interface K3sAgentOptions {
  /** https://127.0.0.1:PORT: an agent asks through its own balancer, and so for this address. */
  readonly server: string;
  /** K10…::server:… */
  readonly token: string;
  readonly nodeName: string;
  readonly nodeIp: string;
  /** 32 hex digits, kept in /etc/rancher/node/password. */
  readonly nodePassword?: string;
}

export class K3sAgent {
  readonly options: K3sAgentOptions;
  caCerts = "";
  control: Readonly<Record<string, unknown>> = {};
  clientCa = "";
  serverCa = "";
  servers: readonly string[] = [];
  readonly pairs = new Map<string, Pair>();
  readonly asked: string[] = [];

  constructor(options: K3sAgentOptions) {
    this.options = options;
  }

  get kubelet(): Pair {
    return this.#pair("client-kubelet");
  }
  get proxy(): Pair {
    return this.#pair("client-kube-proxy");
  }
  get controller(): Pair {
    return this.#pair("client-k3s-controller");
  }
  get serving(): Pair {
    return this.#pair("serving-kubelet");
  }

  async join(): Promise<void> {
    await this.validateToken();
    this.control = this.#decode(await this.#get("config"));
    this.clientCa = await this.#get("client-ca.crt");
    this.serverCa = await this.#get("server-ca.crt");
    for (const name of ["serving-kubelet", "client-kubelet"]) await this.certificate(name, true);
    for (const name of ["client-kube-proxy", "client-k3s-controller"]) await this.certificate(name, false);
    const list: unknown = JSON.parse(await this.#get("apiservers"));
    if (!Array.isArray(list) || !list.every(isText)) throw new Error("apiservers: no list of texts");
    this.servers = list as string[];
    await this.#get("readyz");
  }

  async validateToken(): Promise<void> {
    const path = "/cacerts";
    const { server, token } = this.options;
    // Expected to fail: a certificate that the machine believes would be taken without a look at the hash.
    const known = await goRequest(server, { method: "GET", path }).catch(() => undefined);
    if (known) throw new Error("the machine believes the server");
    const claimed = this.#good(path, await goRequest(server, { method: "GET", path, isUnchecked: true }));
    this.caCerts = this.#good(path, await goRequest(server, { method: "GET", path, ca: claimed }));
    const found = createHash("sha256").update(this.caCerts).digest("hex");
    const wanted = /^K10([0-9a-f]{64})::/.exec(token)?.[1];
    if (found !== wanted)
      throw new Error(`token CA hash does not match the Cluster CA certificate hash: ${wanted} != ${found}`);
  }

  /** A key of its own and a request that names nobody: what stands in the certificate the server decides. */
  async certificate(name: string, isOfNode: boolean): Promise<void> {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const own = privateKey.export({ type: "sec1", format: "pem" }).toString();
    const path = `/v1-k3s/${name}.crt`;
    const { nodeName, nodeIp, nodePassword = "0123456789abcdef0123456789abcdef" } = this.options;
    const request: GoRequest = {
      ...{ method: "POST", path, body: csr(privateKey, publicKey), ca: this.caCerts },
      headers: {
        ...this.#authorization(),
        ...(isOfNode ? { "K3s-Node-Name": nodeName, "K3s-Node-Password": nodePassword, "K3s-Node-Ip": nodeIp } : {}),
      },
    };
    const kept = this.pairs.get("client-kubelet");
    this.asked.push(`POST ${path}`);
    let answer = await goRequest(this.options.server, { ...request, pair: kept });
    // The Node of this name is gone: once more as whoever has the token.
    if (isOfNode && answer.status === 401 && kept) answer = await goRequest(this.options.server, request);
    if (isOfNode && answer.status === 403) throw new Error("Node password rejected, duplicate hostname");
    const text = this.#good(path, answer);
    const blocks = text.match(/-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----\n/g) ?? [];
    if (blocks.join("") !== text) throw new Error(`${path}: something between the blocks`);
    const certificates = blocks.filter((block) => block.includes("BEGIN CERTIFICATE"));
    const key = blocks.find((block) => block.includes("PRIVATE KEY")) ?? own;
    const [leaf, ...above] = certificates.map((block) => new X509Certificate(block));
    // tls.X509KeyPair.
    if (!leaf?.checkPrivateKey(createPrivateKey(key)))
      throw new Error(`${path}: the key does not belong to the certificate`);
    if (!above.some((authority) => leaf.checkIssued(authority) && leaf.verify(authority.publicKey))) {
      throw new Error(`${path}: without its authority`);
    }
    this.pairs.set(name, { cert: certificates.join(""), key });
  }

  /** Of the API, as one of its identities. */
  async api(
    pair: Pair,
    method: string,
    path: string,
    body?: object,
    contentType = "application/json",
  ): Promise<GoAnswer> {
    const headers = { Accept: "application/json", ...(body ? { "Content-Type": contentType } : {}) };
    const text = body === undefined ? {} : { body: JSON.stringify(body) };
    return goRequest(this.options.server, { method, path, headers, ca: this.serverCa, pair, ...text });
  }

  /** What WaitForRBACReady asks until it is so. */
  async may(pair: Pair, resourceAttributes: object): Promise<boolean> {
    const review = {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SelfSubjectAccessReview",
      spec: { resourceAttributes },
    };
    const path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    const { text } = await this.api(pair, "POST", path, review);
    return (JSON.parse(text) as { status?: { allowed?: boolean } }).status?.allowed === true;
  }

  /** The tunnel, over which the server reaches the kubelet and the streams of containerd. */
  connect(kubeletPort: number, pingMs?: number): Promise<RemoteDialer> {
    const { host, hostname, port } = new URL(this.options.server);
    return new Promise((resolve, reject) => {
      const { cert, key } = this.kubelet;
      const socket = tls.connect({ host: hostname, port: Number(port), ca: this.serverCa, cert, key });
      socket.on("error", reject);
      socket.once("secureConnect", () => {
        const lines = [
          ...["GET /v1-k3s/connect HTTP/1.1", `Host: ${host}`, "User-Agent: Go-http-client/1.1", "Connection: Upgrade"],
          ...["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==", "Sec-WebSocket-Version: 13", "Upgrade: websocket"],
        ];
        socket.write(`${lines.join("\r\n")}\r\n\r\n`);
      });
      let bytes = Buffer.alloc(0);
      socket.on("data", (chunk: Buffer) => {
        bytes = Buffer.concat([bytes, chunk]);
        const end = bytes.indexOf("\r\n\r\n");
        if (end < 0) return;
        socket
          .removeAllListeners("data")
          .removeAllListeners("error")
          .on("error", () => {});
        const head = bytes.subarray(0, end).toString("latin1");
        const isRight = /^HTTP\/1\.1 101 /.test(head) && /^sec-websocket-accept: \S{28}$/im.test(head);
        // An extension that was not asked for is refused.
        if (!isRight || /sec-websocket-(extensions|protocol)/i.test(head)) {
          socket.destroy();
          reject(new Error(head.split("\r\n")[0]));
          return;
        }
        resolve(
          new RemoteDialer(socket, bytes.subarray(end + 4), {
            isClient: true,
            ...(pingMs === undefined ? {} : { pingMs }),
            mayDial: (proto, address) =>
              proto === "tcp" && [`127.0.0.1:${kubeletPort}`, "127.0.0.1:10010"].includes(address),
            dial: (address) => net.connect(Number(address.split(":")[1]), "127.0.0.1"),
          }),
        );
      });
    });
  }

  #pair(name: string): Pair {
    const found = this.pairs.get(name);
    if (!found) throw new Error(`no ${name} yet`);
    return found;
  }

  /** The token may be the servers': an agent is `node` all the same. */
  #authorization(): Record<string, string> {
    const password = this.options.token.split(":").at(-1);
    return { Authorization: `Basic ${Buffer.from(`node:${password}`).toString("base64")}` };
  }

  async #get(name: string): Promise<string> {
    const path = `/v1-k3s/${name}`;
    this.asked.push(`GET ${path}`);
    const request = { method: "GET", path, headers: this.#authorization(), ca: this.caCerts };
    return this.#good(
      path,
      await goRequest(this.options.server, { ...request, pair: this.pairs.get("client-kubelet") }),
    );
  }

  #good(path: string, { status, text }: GoAnswer): string {
    if (status < 200 || status > 299) throw new Error(`${path}: ${status} ${text}`);
    return text;
  }

  #decode(text: string): Readonly<Record<string, unknown>> {
    const control: unknown = JSON.parse(text);
    if (!isRecord(control)) throw new Error("config: no object");
    for (const [name, check] of Object.entries(controlFields)) {
      if (control[name] !== undefined && !check(control[name])) {
        throw new Error(
          `json: cannot unmarshal into Go struct field Control.${name}: ${JSON.stringify(control[name])}`,
        );
      }
    }
    // What starts with nothing to translate to or to route is refused by the agent.
    const isPoor = ["ClusterIPRange", "ServiceIPRange", "ClusterDNS"].some((name) => !control[name]);
    const { Size: size } = (control["ServiceNodePortRange"] ?? {}) as { Size?: number };
    if (isPoor || (control["DisableNPC"] !== true && !size)) throw new Error("config: incomplete network information");
    return control;
  }
}

/** x509.CreateCertificateRequest of an empty template. */
function csr(privateKey: KeyObject, publicKey: KeyObject): Uint8Array {
  const spki = publicKey.export({ type: "spki", format: "der" });
  const info = der.sequence(der.integer(Uint8Array.of(0)), der.sequence(), spki, der.explicit(0));
  const signature = sign("sha256", info, { key: privateKey, dsaEncoding: "der" });
  return der.sequence(info, der.sequence(der.objectIdentifier("1.2.840.10045.4.3.2")), der.bitString(signature));
}
