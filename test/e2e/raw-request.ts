// One HTTPS request with the kubeconfig's client certificate, for what no client would send:
//   raw-request.ts KUBECONFIG METHOD PATH HEADERS-JSON < BODY   →   {"code":…,"body":…}
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { parse } from "yaml";

const [kubeconfig, method, path, headersText] = process.argv.slice(2);
const config = parse(readFileSync(kubeconfig!, "utf8"));
const { "x-no-client-certificate": noCertificate, ...headers } = JSON.parse(headersText ?? "{}") as Record<
  string,
  string
>;
const base64 = (text: string) => Buffer.from(text, "base64");
const user = config.users[0].user;
const url = new URL(config.clusters[0].cluster.server);
const body = readFileSync(0);
const sent = request(
  {
    host: url.hostname,
    port: url.port,
    method,
    path,
    headers: { ...headers, ...(body.length > 0 ? { "content-length": body.length } : {}) },
    ca: base64(config.clusters[0].cluster["certificate-authority-data"]),
    ...(noCertificate ? {} : { cert: base64(user["client-certificate-data"]), key: base64(user["client-key-data"]) }),
  },
  (answer) => {
    let text = "";
    answer.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    answer.on("end", () => {
      let parsed: unknown = text;
      try {
        parsed = JSON.parse(text);
      } catch {
        // Plain text answers stay text.
      }
      console.log(JSON.stringify({ code: answer.statusCode, body: parsed }));
    });
  },
);
let answered = false;
sent.on("response", () => {
  answered = true;
});
sent.on("error", (error) => {
  // A server that refuses a body may close before it has read all of it.
  if (answered) return;
  console.error(error.message);
  process.exitCode = 1;
});
sent.end(body.length > 0 ? body : undefined);
