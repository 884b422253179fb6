// A registry for tests: serves one image from an OCI archive, to whoever knows the password. Only what containerd asks for.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface SmallRegistry {
  readonly port: number;
  /** Requests that were let in, by path. */
  readonly served: readonly string[];
  readonly refused: () => number;
  close(): Promise<void>;
}

export async function openSmallRegistry(archive: string, user: string, password: string): Promise<SmallRegistry> {
  const folder = mkdtempSync(join(tmpdir(), "mote-registry-"));
  execFileSync("tar", ["-xf", archive, "-C", folder]);
  const index = JSON.parse(readFileSync(join(folder, "index.json"), "utf8"));
  const listed: { digest: string; mediaType: string } = index.manifests[0];
  const blob = (digest: string) => join(folder, "blobs/sha256", digest.slice("sha256:".length));
  const add = (value: object) => {
    const data = JSON.stringify(value);
    const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;
    writeFileSync(blob(digest), data);
    return { digest, size: data.length };
  };
  // Another image than the archive's, by one label.
  const content = JSON.parse(readFileSync(blob(listed.digest), "utf8"));
  const config = JSON.parse(readFileSync(blob(content.config.digest), "utf8"));
  const own = add({ ...config, config: { ...config.config, Labels: { from: "small-registry" } } });
  const manifest = { ...add({ ...content, config: { ...content.config, ...own } }), mediaType: listed.mediaType };
  const served: string[] = [];
  let refused = 0;
  const wanted = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
  const server: Server = createServer((request, response) => {
    if (request.headers.authorization !== wanted) {
      refused++;
      response.writeHead(401, { "www-authenticate": 'Basic realm="small"' });
      response.end();
      return;
    }
    const path = request.url?.split("?")[0] ?? "";
    served.push(path);
    const [, kind, reference = ""] = /\/(manifests|blobs)\/([^/]+)$/.exec(path) ?? [];
    const digest = reference.startsWith("sha256:") ? reference : manifest.digest;
    const file = blob(digest);
    if (!kind || !existsSync(file)) {
      response.writeHead(path === "/v2/" ? 200 : 404);
      response.end();
      return;
    }
    const body = readFileSync(file);
    response.writeHead(200, {
      "content-type": kind === "manifests" ? manifest.mediaType : "application/octet-stream",
      "content-length": body.length,
      "docker-content-digest": digest,
    });
    response.end(request.method === "HEAD" ? undefined : body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address ? address.port : 0,
    served,
    refused: () => refused,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => {
          rmSync(folder, { recursive: true, force: true });
          resolve();
        });
      }),
  };
}
