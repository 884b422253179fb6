// An API server on its TLS port with admission, RBAC-like answers and an audit log, for tests that go the whole way.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request as httpsRequest } from "node:https";
import { tmpdir } from "node:os";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { openDatastore } from "#datastore/open.ts";
import { unauthorized } from "#model/status.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { createAdmissionPlugins } from "../admission/plugins.ts";
import { openAudit } from "../audit-log.ts";
import { createTokenIssuer } from "../authn/token-issuer.ts";
import { loopback, type UserInfo } from "../authn/user.ts";
import type { Connector } from "../endpoints/connect.ts";
import { columnsFor } from "../printers/tables.ts";
import { createStrategies } from "../registry/strategies.ts";
import { createApiServer } from "../server.ts";
import type { Auditor } from "./auditor.ts";
import { type AuditOptions, auditDefaults } from "./options.ts";

export interface Told {
  readonly kind: string;
  readonly level: string;
  readonly auditID: string;
  readonly stage: string;
  readonly verb: string;
  readonly requestURI: string;
  readonly user: { readonly username?: string };
  readonly objectRef?: Readonly<Record<string, string>>;
  readonly responseStatus?: { readonly code: number; readonly message?: string };
  readonly annotations?: Readonly<Record<string, string>>;
  readonly requestObject?: Readonly<Record<string, unknown>>;
  readonly responseObject?: Readonly<Record<string, unknown>>;
}

export interface Ask {
  readonly method?: string;
  readonly token?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

export interface Audited {
  readonly port: number;
  readonly client: Client;
  readonly metrics: Metrics;
  ask(path: string, options?: Ask): Promise<Answer>;
  /** The log's lines. */
  lines(): Promise<string[]>;
  /** Those of the log that are about `auditId`, or all. */
  events(auditId?: string): Promise<Told[]>;
  /** What /debug/audit says to an administrator. */
  ring(): Promise<Told[]>;
  close(): Promise<void>;
}

/** `policy`: what follows `kind: Policy`. `auditor`: in place of all that the options say. */
export async function openAudited(
  options: {
    readonly policy?: string;
    readonly audit?: Partial<AuditOptions>;
    readonly auditor?: Auditor;
    readonly connector?: Connector;
  } = {},
): Promise<Audited> {
  const folder = await mkdtemp(`${tmpdir()}/audit-`);
  const logPath = options.audit?.logPath ?? `${folder}/audit.log`;
  const policyFile = `${folder}/policy.yaml`;
  const { policy } = options;
  if (policy !== undefined) await writeFile(policyFile, `apiVersion: audit.k8s.io/v1\nkind: Policy\n${policy}`);
  const metrics = new Metrics();
  const [clock, random, log] = [systemClock, systemRandom, silentLogger];
  const audit = await openAudit(
    { ...auditDefaults, logPath, ...(policy === undefined ? {} : { policyFile }), ...options.audit },
    { clock, random, log, metrics },
  );
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log });
  const users: Readonly<Record<string, UserInfo>> = {
    admin: { name: "admin", groups: ["system:masters"] },
    ops: { name: "ops", uid: "7", groups: ["operators"], extra: { team: ["a"] } },
    ann: { name: "ann", groups: [] },
  };
  const server = createApiServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, freezeShared: true },
    {
      ...{ backend, clock, random, log, metrics, columnsFor },
      audit: options.auditor ?? audit.auditor,
      authenticators: [
        {
          async authenticate({ bearerToken }) {
            if (bearerToken === "expired") throw unauthorized();
            return users[bearerToken ?? ""];
          },
        },
      ],
      authorizer: {
        authorize({ user, path }) {
          if (path === "/broken") throw new Error("boom");
          return user.name === "ops" || user.name === "carl"
            ? { verdict: "allow", reason: "RBAC: allowed by test" }
            : { verdict: "no-opinion", reason: "" };
        },
      },
      strategies: createStrategies({ clock, random }),
      admission: createAdmissionPlugins({ random }),
      tokenIssuer: createTokenIssuer({ privateKey: localhostTls.keyPem, publicKeys: [] }, { clock, random }),
      connector: options.connector,
    },
  );
  const abort = new AbortController();
  const auditAbort = new AbortController();
  const auditEnded = audit.service.run(auditAbort.signal, () => {});
  let ended = Promise.resolve();
  await new Promise<void>((ready, failed) => {
    ended = server.service.run(abort.signal, ready);
    ended.catch(failed);
  });
  const client = new Client(server.transport(loopback));
  const ask = (path: string, { method = "GET", token = "admin", headers, body }: Ask = {}) =>
    new Promise<Answer>((resolve, reject) => {
      const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
      const sent = httpsRequest(
        {
          ...{ host: "127.0.0.1", port: server.port, path, method, rejectUnauthorized: false, agent: false },
          headers: {
            ...(token === null ? {} : { authorization: `Bearer ${token}` }),
            ...(text === undefined
              ? {}
              : { "content-type": "application/json", "content-length": String(Buffer.byteLength(text)) }),
            ...headers,
          },
        },
        (answer) => {
          let got = "";
          answer.on("data", (chunk: Buffer) => {
            got += chunk.toString();
          });
          answer.on("end", () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text: got }));
          answer.on("error", reject);
        },
      );
      sent.on("error", reject);
      sent.end(text);
    });
  const lines = async () => (await readFile(logPath, "utf8")).split("\n").slice(0, -1);
  return {
    port: server.port,
    ...{ client, metrics, ask, lines },
    async events(auditId) {
      const all = (await lines()).map((line) => JSON.parse(line) as Told);
      return auditId === undefined ? all : all.filter(({ auditID }) => auditID === auditId);
    },
    async ring() {
      const { text } = await ask("/debug/audit");
      return text
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Told);
    },
    async close() {
      abort.abort();
      await ended;
      auditAbort.abort();
      await auditEnded;
      await backend.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
