// The audit log to a collector over HTTP: lists of events, as POST to the server that a kubeconfig names. What fails for a
// moment is tried again, ever more slowly; what the collector refuses is lost and counted. Upstream counterpart:
// apiserver/plugin/pkg/audit/webhook.
import { type Clock, pause } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import { readKubeconfig } from "#client/kubeconfig.ts";
import { readFileIfExists } from "#platform/files.ts";
import { createHttpClient, type HttpClient, readBody } from "#platform/http-client.ts";
import type { LineTarget } from "./log-writer.ts";

export interface WebhookTargetOptions {
  readonly configFile: string;
  readonly initialBackoffMs: number;
}

/** With growing pauses between them. */
const attempts = 5;
const growth = 1.5;
const silenceMs = 30_000;
/** When the server stops, a collector that hangs is not waited for longer. */
const lastMs = 3000;
/** Nobody reads what it answers. */
const maxAnswerBytes = 64 * 1024;

/** Rejects with APISERVER_AUDIT_WEBHOOK where the file cannot be used; whether anybody listens is found out later. */
export async function openWebhook(options: WebhookTargetOptions, deps: { readonly clock: Clock }): Promise<LineTarget> {
  const { client, path, token } = await connect(options.configFile);
  const stopping = new AbortController();
  const cut = new AbortController();
  const post = async (body: string): Promise<number> => {
    const response = await client.send(
      {
        method: "POST",
        path,
        headers: {
          "content-type": "application/json",
          accept: "application/json",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        },
        body,
        idleTimeoutMs: silenceMs,
      },
      cut.signal,
    );
    await readBody(response, maxAnswerBytes);
    return response.status;
  };
  return {
    async append(lines) {
      const items = lines.map((line) => line.toString("utf8").trimEnd()).join(",");
      const body = `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[${items}]}`;
      let waitMs = options.initialBackoffMs;
      for (let attempt = 1; ; attempt++) {
        const isLast = attempt === attempts || stopping.signal.aborted;
        try {
          const status = await post(body);
          if (status >= 200 && status <= 299) return 0;
          if (isLast || (status < 500 && status !== 429)) throw new Refused(`the collector answered ${status}`);
        } catch (error) {
          if (isLast || error instanceof Refused) throw error;
        }
        await pause(deps.clock, waitMs, stopping.signal);
        waitMs *= growth;
      }
    },
    stopping() {
      stopping.abort();
      deps.clock.after(lastMs, () => cut.abort(new AppError("APISERVER_AUDIT_WEBHOOK", "the server stops")));
    },
    async close() {
      client.close();
    },
  };
}

class Refused extends Error {}

async function connect(
  file: string,
): Promise<{ readonly client: HttpClient; readonly path: string; readonly token: string | undefined }> {
  const wrong = (why: string) =>
    new AppError("APISERVER_AUDIT_WEBHOOK", `audit-webhook-config-file ${file}: ${why}`, { file });
  const read = async (path: string): Promise<string> => {
    const bytes = await readFileIfExists(path);
    if (!bytes) throw new Error(`there is no file ${path}`);
    return bytes.toString("utf8");
  };
  try {
    const { server, ca, cert, key, token, serverName, insecureSkipTlsVerify } = await readKubeconfig(await read(file), {
      readFile: read,
    });
    const url = new URL(server);
    const client = createHttpClient({
      baseUrl: url.origin,
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(serverName === undefined ? {} : { serverName }),
      insecureSkipTlsVerify,
    });
    return { client, path: url.pathname + url.search, token };
  } catch (error) {
    throw wrong(messageOf(error));
  }
}
