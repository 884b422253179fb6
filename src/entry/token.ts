// `mote token create|list|delete|generate|rotate`: tokens of the cluster that the kubeconfig names. Words and shapes are
// k3s's.
import { messageOf } from "#base/errors.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import { columns } from "#cli/table.ts";
import { tokenUsage } from "#cli/token-flags.ts";
import { verbError } from "#cli/verbs.ts";
import { parseDurationNanoseconds } from "#model/duration.ts";
import { isAlreadyExists } from "#model/status.ts";
import { systemClock as clock } from "#platform/clock.ts";
import type { HttpClient } from "#platform/http-client.ts";
import { systemRandom as random } from "#platform/random.ts";
import {
  type BootstrapToken,
  createBootstrapToken,
  deleteBootstrapToken,
  generateBootstrapToken,
  listBootstrapTokens,
} from "#supervisor/bootstrap-tokens.ts";
import { caHash, formatToken, parseToken } from "#supervisor/tokens.ts";
import { asServer, openClusterClient, refusalIn } from "./cluster-client.ts";

/** `args`: the verb and what it is about. Resolves with the exit code. */
export async function token(args: readonly string[], values: FlagValues, kubeconfigPath: string): Promise<number> {
  const [verb, ...rest] = args;
  const isComplete = verb === "delete" ? rest.length > 0 : rest.length <= (verb === "create" ? 1 : 0);
  if (!isComplete || !["create", "list", "delete", "generate", "rotate"].includes(verb ?? "")) {
    throw verbError("token", verb, tokenUsage);
  }
  if (verb === "generate") {
    console.log(generateBootstrapToken(random));
    return 0;
  }
  if (verb === "rotate") return rotate(values, kubeconfigPath);
  const { client, http, ca } = await openClusterClient(kubeconfigPath, "token");
  try {
    if (verb === "list") {
      const found = await listBootstrapTokens(client);
      const form = values["output"];
      if (form === "json") console.log(JSON.stringify(found, undefined, "\t"));
      else console.log(tableOf(found, { nowMs: clock.now(), isWide: form === "wide" }));
    } else if (verb === "delete") {
      for (const one of rest) {
        if (!(await deleteBootstrapToken(client, one)))
          throw usageError(`token: there is no bootstrap token ${one.split(".")[0]}`);
        console.log(`bootstrap token "${one.split(".")[0]}" deleted`);
      }
    } else {
      const made = await createBootstrapToken(
        {
          token: rest[0],
          description: String(values["description"]),
          groups: values["groups"] as readonly string[],
          usages: values["usages"] as readonly string[],
          lifeMs: lifeOf(String(values["ttl"])),
        },
        { client, clock, random },
      ).catch((error: unknown) => {
        if (!isAlreadyExists(error)) throw error;
        const [id = ""] = (rest[0] ?? "").split(".");
        throw usageError(`token: there is a bootstrap token ${id} already; take it back with: mote token delete ${id}`);
      });
      console.log(ca === undefined ? made : `K10${caHash(ca)}::${made}`);
    }
    return 0;
  } finally {
    http.close();
  }
}

/** By a kubeconfig, or where --server is given by the token alone. */
async function rotate(values: FlagValues, kubeconfigPath: string): Promise<number> {
  const old = oldToken(values);
  const next = String(values["new-token"] ?? Buffer.from(random.bytes(16)).toString("hex"));
  const isForAgents = values["agent"] === true;
  const server = values["server"];
  // What a joining node knows of servers is needed here alone.
  const { http, ca } =
    typeof server === "string"
      ? await (await import("./server-client.ts")).openServerClient(server, old)
      : await openClusterClient(kubeconfigPath, "token");
  try {
    await changeToken(http, parseToken(old).password, isForAgents ? { newAgentToken: next } : { newToken: next });
    console.log(
      ca === undefined
        ? "the token has been changed"
        : formatToken(ca, isForAgents ? "node" : "server", parseToken(next).password),
    );
    return 0;
  } finally {
    http.close();
  }
}

function oldToken(values: FlagValues): string {
  const given = values["token"];
  if (typeof given === "string" && given !== "") return given;
  throw usageError(
    "token: rotate needs the present token: --token; it stands in server/token of the server's data folder",
  );
}

async function changeToken(http: HttpClient, password: string, change: Record<string, string>): Promise<void> {
  const response = await http.send({
    method: "PUT",
    path: "/v1-k3s/token",
    headers: asServer(password),
    body: JSON.stringify(change),
    idleTimeoutMs: 10_000,
  });
  if (response.status === 200) return response.destroy();
  if (response.status === 401 || response.status === 403)
    throw usageError(
      "token: the server has another token than --token says; it stands in server/token of its data folder",
    );
  throw usageError(`token: the server answered ${response.status}: ${await refusalIn(response)}`);
}

function lifeOf(text: string): number {
  try {
    const lifeMs = parseDurationNanoseconds(text) / 1e6;
    if (lifeMs >= 0) return lifeMs;
  } catch (error) {
    throw usageError(`ttl: ${messageOf(error)}; use one such as 24h`);
  }
  throw usageError(`ttl: "${text}" is not allowed; use one such as 24h, or 0`);
}

/** k3s's columns when it is wide; else what fits a terminal, for what is left out is mostly the same for all. */
export function tableOf(
  found: readonly BootstrapToken[],
  { nowMs, isWide }: { readonly nowMs: number; readonly isWide: boolean },
): string {
  const rows = found.map(({ token: text, expires, usages, description, groups }) => {
    const head = [text, ttlOf(expires, nowMs), expires ?? "<never>"];
    const end = description || "<none>";
    return isWide ? [...head, usages.join(",") || "<none>", end, groups.join(",") || "<none>"] : [...head, end];
  });
  return isWide
    ? columns([["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"], ...rows], 3)
    : columns([["TOKEN", "TTL", "EXPIRES", "DESCRIPTION"], ...rows], 3);
}

function ttlOf(expires: string | undefined, nowMs: number): string {
  if (expires === undefined) return "<forever>";
  const seconds = Math.floor((Date.parse(expires) - nowMs) / 1000);
  if (!(seconds > 0)) return "<expired>";
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  return minutes >= 120 ? `${Math.floor(minutes / 60)}h` : `${minutes}m`;
}
