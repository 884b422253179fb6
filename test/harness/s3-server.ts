// A small S3 of our own for tests: objects in memory, multipart uploads, paged lists, ranges. It checks every signature with
// code of its own, names what it refuses as S3 does, and fails on request: errors, cut connections, slow answers.
import { createHash, createHmac } from "node:crypto";
import * as http from "node:http";
import * as https from "node:https";
import * as net from "node:net";

export interface S3Request {
  readonly method: string;
  readonly key: string;
  readonly query: URLSearchParams;
  readonly attempt: number;
}

/** What happens in place of an answer. `status`: that error; `cut`: the connection ends, on GET in the middle. */
export type S3Fault =
  | { readonly status: number; readonly code: string }
  | "cut"
  | "lose the answer"
  | { readonly delayMs: number };

export interface S3ServerOptions {
  readonly bucket: string;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly region: string;
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Keys in one page of a list. */
  readonly pageSize?: number;
  /** The server's clock minus ours. */
  readonly skewMs?: number;
}

export class S3Server {
  readonly objects = new Map<string, Buffer>();
  readonly uploads = new Map<string, { key: string; parts: Map<number, Buffer> }>();
  readonly requests: S3Request[] = [];
  readonly problems: string[] = [];
  /** The largest body of one request. */
  largestBodyBytes = 0;
  fault: (request: S3Request) => S3Fault | undefined = () => undefined;
  readonly #options: S3ServerOptions;
  readonly #server: http.Server | https.Server;
  #serial = 0;

  constructor(options: S3ServerOptions) {
    this.#options = options;
    const listener = (request: http.IncomingMessage, response: http.ServerResponse) => {
      this.#serve(request, response).catch((error: unknown) => {
        if (!request.destroyed) this.problems.push(String(error));
        request.socket.destroy();
      });
    };
    this.#server = options.tls ? https.createServer(options.tls, listener) : http.createServer(listener);
  }

  listen(): Promise<number> {
    return new Promise((resolve) => {
      this.#server.listen(0, "127.0.0.1", () => resolve((this.#server.address() as net.AddressInfo).port));
    });
  }
  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://any");
    const isVirtual = (request.headers.host ?? "").startsWith(`${this.#options.bucket}.`);
    const [, first = "", ...rest] = url.pathname.split("/");
    const bucket = isVirtual ? this.#options.bucket : decodeURIComponent(first);
    const key = decodeURIComponent(isVirtual ? url.pathname.slice(1) : rest.join("/"));
    const method = request.method ?? "";
    const attempt = this.requests.filter((r) => r.method === method && r.key === key).length + 1;
    const seen = { method, key, query: url.searchParams, attempt };
    this.requests.push(seen);
    const fault = this.fault(seen);
    const fail = (status: number, code: string, headers: Record<string, string> = {}) => {
      response.writeHead(status, { "content-type": "application/xml", ...headers });
      response.end(
        method === "HEAD"
          ? ""
          : `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code} &amp; more</Message></Error>`,
      );
    };
    if (fault === "cut" && method !== "GET") {
      request.socket.destroy();
      return;
    }
    const parts: Buffer[] = [];
    for await (const chunk of request) parts.push(chunk as Buffer);
    const body = Buffer.concat(parts);
    this.largestBodyBytes = Math.max(this.largestBodyBytes, body.length);
    if (fault && typeof fault === "object" && "status" in fault) return fail(fault.status, fault.code);
    if (fault && typeof fault === "object") await new Promise((resolve) => setTimeout(resolve, fault.delayMs));
    const refused = this.#whyRefused(request, url, body);
    if (refused) return fail(...refused);
    if (bucket !== this.#options.bucket) return fail(404, "NoSuchBucket");
    if (fault === "lose the answer") {
      const { statusCode } = this.#answer(seen, request, body);
      if (statusCode < 300) request.socket.destroy();
      return;
    }
    const answer = this.#answer(seen, request, body);
    if (answer.code) return fail(answer.statusCode, answer.code);
    const content = answer.body ?? Buffer.alloc(0);
    response.writeHead(answer.statusCode, { ...answer.headers, "content-length": String(content.length) });
    if (fault === "cut") {
      response.write(content.subarray(0, content.length / 2), () => request.socket.destroy());
      return;
    }
    response.end(method === "HEAD" ? undefined : content);
  }

  #answer(
    { method, key, query }: S3Request,
    request: http.IncomingMessage,
    body: Buffer,
  ): { statusCode: number; code?: string; headers?: Record<string, string>; body?: Buffer } {
    const uploadId = query.get("uploadId");
    const upload = uploadId === null ? undefined : this.uploads.get(uploadId);
    if (uploadId !== null && !upload) return { statusCode: 404, code: "NoSuchUpload" };
    if (method === "POST" && query.has("uploads")) {
      const id = `upload&${++this.#serial}`;
      this.uploads.set(id, { key, parts: new Map() });
      return xml(
        `<InitiateMultipartUploadResult><UploadId>${id.replace("&", "&amp;")}</UploadId></InitiateMultipartUploadResult>`,
      );
    }
    if (upload && method === "PUT") {
      upload.parts.set(Number(query.get("partNumber")), body);
      return { statusCode: 200, headers: { etag: tagOf(body) } };
    }
    if (upload && method === "POST") {
      const tags = [...body.toString().matchAll(/<PartNumber>(\d+)<\/PartNumber><ETag>([^<]*)<\/ETag>/g)];
      const parts = tags.map(([, number]) => upload.parts.get(Number(number)));
      if (parts.some((part, i) => !part || tagOf(part) !== tags[i]![2]!.replaceAll("&quot;", '"'))) {
        return { statusCode: 400, code: "InvalidPart" };
      }
      this.objects.set(upload.key, Buffer.concat(parts as Buffer[]));
      this.uploads.delete(uploadId!);
      return xml("<CompleteMultipartUploadResult/>");
    }
    if (upload && method === "DELETE") {
      this.uploads.delete(uploadId!);
      return { statusCode: 204 };
    }
    if (method === "GET" && key === "") return this.#list(query);
    const object = this.objects.get(key);
    if (method === "PUT") {
      this.objects.set(key, body);
      return { statusCode: 200, headers: { etag: tagOf(body) } };
    }
    if (method === "DELETE") {
      this.objects.delete(key);
      return { statusCode: 204 };
    }
    if (!object) return { statusCode: 404, code: "NoSuchKey" };
    const wanted = request.headers["if-match"];
    if (wanted !== undefined && wanted !== tagOf(object)) return { statusCode: 412, code: "PreconditionFailed" };
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const headers = { etag: tagOf(object), "accept-ranges": "bytes" };
    return { statusCode: request.headers.range ? 206 : 200, headers, body: object.subarray(from) };
  }

  #list(query: URLSearchParams) {
    const all = [...this.objects].filter(([key]) => key.startsWith(query.get("prefix") ?? "")).sort();
    const from = Number(query.get("continuation-token") ?? 0);
    const size = Math.min(this.#options.pageSize ?? 1000, Number(query.get("max-keys")));
    const page = all.slice(from, from + size);
    const contents = page.map(
      ([key, { length }]) =>
        `<Contents><Key>${encodeURIComponent(key)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>${length}</Size></Contents>`,
    );
    const more = from + size < all.length;
    return xml(
      `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType><IsTruncated>${more}</IsTruncated>${
        more ? `<NextContinuationToken>${from + size}</NextContinuationToken>` : ""
      }${contents.join("")}</ListBucketResult>`,
    );
  }

  #whyRefused(
    request: http.IncomingMessage,
    url: URL,
    body: Buffer,
  ): [number, string, Record<string, string>?] | undefined {
    const { headers } = request;
    const { accessKey, secretKey, region } = this.#options;
    const said = /^AWS4-HMAC-SHA256 Credential=([^,]*), SignedHeaders=([^,]*), Signature=([0-9a-f]{64})$/.exec(
      headers.authorization ?? "",
    );
    const date = headers["x-amz-date"];
    if (!said || typeof date !== "string") return [403, "AccessDenied"];
    const [id, ...scope] = said[1]!.split("/");
    if (id !== accessKey) return [403, "InvalidAccessKeyId"];
    if (scope[1] !== region) return [400, "AuthorizationHeaderMalformed", { "x-amz-bucket-region": region }];
    if (scope.join("/") !== `${date.slice(0, 8)}/${region}/s3/aws4_request`)
      return [400, "AuthorizationHeaderMalformed"];
    const at = Date.parse(date.replace(/(....)(..)(..)T(..)(..)(..)Z/, "$1-$2-$3T$4:$5:$6Z"));
    const nowMs = Date.now() + (this.#options.skewMs ?? 0);
    if (Math.abs(at - nowMs) > 900_000) return [403, "RequestTimeTooSkewed", { date: new Date(nowMs).toUTCString() }];
    if (createHash("sha256").update(body).digest("hex") !== headers["x-amz-content-sha256"])
      return [400, "XAmzContentSHA256Mismatch"];
    const names = said[2]!.split(";");
    for (const name of Object.keys(headers)) {
      if ((name === "host" || name.startsWith("x-amz-")) && !names.includes(name)) return [403, "AccessDenied"];
    }
    const query = url.search
      .slice(1)
      .split("&")
      .filter((part) => part !== "")
      .sort()
      .join("&");
    const canonical = `${request.method}\n${url.pathname}\n${query}\n${names.map((n) => `${n}:${String(headers[n]).trim()}\n`).join("")}\n${said[2]}\n${headers["x-amz-content-sha256"]}`;
    const text = `AWS4-HMAC-SHA256\n${date}\n${scope.join("/")}\n${createHash("sha256").update(canonical).digest("hex")}`;
    const key = scope.reduce<Buffer>(
      (k, part) => createHmac("sha256", k).update(part).digest(),
      Buffer.from(`AWS4${secretKey}`),
    );
    return createHmac("sha256", key).update(text).digest("hex") === said[3]
      ? undefined
      : [403, "SignatureDoesNotMatch"];
  }
}

const tagOf = (body: Buffer): string => `"${createHash("md5").update(body).digest("hex")}"`;
const xml = (text: string) => ({
  statusCode: 200,
  headers: { "content-type": "application/xml" },
  body: Buffer.from(text),
});

/** An HTTP proxy that leads everything to one port, whatever host is asked for; `asked` holds what was. */
export async function startProxy(port: number): Promise<{ port: number; asked: string[]; close(): Promise<void> }> {
  const asked: string[] = [];
  const proxy = http.createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers["proxy-authorization"] ?? ""}`.trim());
    const url = new URL(request.url ?? "");
    const headers = { ...request.headers };
    delete headers["proxy-authorization"];
    const onward = http.request(
      { host: "127.0.0.1", port, method: request.method, path: url.pathname + url.search, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  proxy.on("connect", (request: http.IncomingMessage, socket: net.Socket) => {
    asked.push(`CONNECT ${request.url} ${request.headers["proxy-authorization"] ?? ""}`.trim());
    const onward = net.connect(port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      socket.pipe(onward).pipe(socket);
    });
    for (const end of [socket, onward]) end.on("error", () => socket.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", () => resolve()));
  return {
    port: (proxy.address() as net.AddressInfo).port,
    asked,
    close: () => {
      proxy.closeAllConnections();
      return new Promise((resolve) => proxy.close(() => resolve()));
    },
  };
}
