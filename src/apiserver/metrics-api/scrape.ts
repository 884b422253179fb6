// Fetches a node's /metrics/resource over the dialer that also carries logs and shells, as the API server.
import { AppError } from "#base/errors.ts";
import type { NodeDialer } from "../node-dialer.ts";

/** A node with 110 pods of three containers says some 200 KiB. */
const maxBytes = 8 * 1024 * 1024;

export async function scrapeNode(dialer: NodeDialer, node: string, signal: AbortSignal): Promise<string> {
  const request = { method: "GET", target: "/metrics/resource", headers: { accept: "text/plain" } } as const;
  const answer = await dialer.request(node, request, signal);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of answer.body) {
    size += chunk.length;
    if (size > maxBytes) throw new AppError("METRICS_TOO_LARGE", `the metrics of node ${node} are too large`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString("utf8");
  if (answer.status === 200) return text;
  throw new AppError("METRICS_REFUSED", `node ${node} answered ${answer.status}: ${text.slice(0, 200).trim()}`);
}
