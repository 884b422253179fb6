// Bootstrap tokens, `id.secret`: Secrets of a type of their own that let nodes join until they expire. Made, listed and
// deleted through the API, by whoever may write Secrets of kube-system. Upstream counterparts: k3s token, kubeadm token.
import { type Clock, type Random, rfc3339 } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import type { Client } from "#client/client.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { secrets } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { parseToken } from "./tokens.ts";

const namespace = "kube-system";
const secretType = "bootstrap.kubernetes.io/token";
const secretPrefix = "bootstrap-token-";
const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789";
const idLength = 6;
const secretLength = 16;

export interface BootstrapToken {
  /** `id.secret` */
  readonly token: string;
  readonly description: string;
  readonly groups: readonly string[];
  readonly usages: readonly string[];
  /** RFC 3339; undefined: it does not expire. */
  readonly expires: string | undefined;
}

export interface BootstrapTokenOrder {
  /** `id.secret`; undefined: a new one. */
  readonly token: string | undefined;
  readonly description: string;
  readonly groups: readonly string[];
  readonly usages: readonly string[];
  /** 0: for ever. */
  readonly lifeMs: number;
}

export function generateBootstrapToken(random: Random): string {
  const text = (length: number): string => {
    let out = "";
    while (out.length < length) {
      // What is above the last whole alphabet would make its first letters likelier.
      for (const byte of random.bytes(length)) if (byte < 252 && out.length < length) out += alphabet[byte % 36];
    }
    return out;
  };
  return `${text(idLength)}.${text(secretLength)}`;
}

export async function createBootstrapToken(
  order: BootstrapTokenOrder,
  deps: { readonly client: Client; readonly clock: Clock; readonly random: Random },
): Promise<string> {
  const token = order.token ?? generateBootstrapToken(deps.random);
  const [id = "", secret = ""] = idAndSecret(token);
  const fields: Record<string, string> = {
    "token-id": id,
    "token-secret": secret,
    ...Object.fromEntries(order.usages.map((usage) => [`usage-bootstrap-${usage}`, "true"])),
    ...(order.description === "" ? {} : { description: order.description }),
    ...(order.groups.length === 0 ? {} : { "auth-extra-groups": order.groups.join(",") }),
    ...(order.lifeMs === 0 ? {} : { expiration: rfc3339(deps.clock.now() + order.lifeMs) }),
  };
  const object: Secret = {
    ...{ apiVersion: "v1", kind: "Secret", type: secretType },
    metadata: { name: `${secretPrefix}${id}`, namespace },
    data: Object.fromEntries(Object.entries(fields).map(([key, text]) => [key, Buffer.from(text).toString("base64")])),
  };
  await deps.client.create(secrets, object);
  return token;
}

export async function listBootstrapTokens(client: Client): Promise<readonly BootstrapToken[]> {
  const { items } = await client.list(secrets, { namespace, fieldSelector: `type=${secretType}` });
  return items.map(({ data = {} }) => {
    const text = (key: string) => Buffer.from(data[key] ?? "", "base64").toString("utf8");
    const usage = /^usage-bootstrap-(.+)$/;
    return {
      token: `${text("token-id")}.${text("token-secret")}`,
      description: text("description"),
      groups: text("auth-extra-groups")
        .split(",")
        .filter((group) => group !== ""),
      usages: Object.keys(data)
        .flatMap((key) => (text(key) === "true" ? (usage.exec(key)?.[1] ?? []) : []))
        .sort(),
      expires: text("expiration") || undefined,
    };
  });
}

/** By id or whole token. False: there is none. */
export async function deleteBootstrapToken(client: Client, token: string): Promise<boolean> {
  const id = /^[a-z0-9]{6}$/.test(token) ? token : (idAndSecret(token)[0] ?? "");
  try {
    await client.delete(secrets, { name: `${secretPrefix}${id}`, namespace });
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

function idAndSecret(token: string): string[] {
  const parsed = parseToken(token);
  if (!parsed.bootstrap)
    throw new AppError("TOKEN_FORMAT", `"${token}" is no bootstrap token: [a-z0-9]{6}.[a-z0-9]{16} is expected`);
  return parsed.password.split(".");
}
