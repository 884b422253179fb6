// Acting as somebody else: the Impersonate-* headers, each name asked of the authoriser as a resource of its own.
// Upstream counterpart: endpoints/filters/impersonation.go.
import { badRequest, forbidden } from "#model/status.ts";
import type { UserInfo } from "./authn/user.ts";
import type { Attributes, Authorizer } from "./authz/authorizer.ts";

type Headers = Readonly<Record<string, string | string[] | undefined>>;

const extraPrefix = "impersonate-extra-";
/** Names one request may ask for; each is a question to the authoriser. */
const maxNames = 64;

/** The user to act as; the same one where no header asks for another. */
export async function impersonate(user: UserInfo, headers: Headers, authorizer: Authorizer): Promise<UserInfo> {
  const name = single(headers["impersonate-user"]);
  const asked = headers["impersonate-group"];
  const groups = asked === undefined ? [] : list(asked);
  const uid = single(headers["impersonate-uid"]);
  const extra: Record<string, string[]> = {};
  let hasExtra = false;
  for (const header in headers) {
    if (!header.startsWith(extraPrefix)) continue;
    extra[decodeKey(header.slice(extraPrefix.length))] = list(headers[header]);
    hasExtra = true;
  }
  if (name === "" && groups.length === 0 && uid === "" && !hasExtra) return user;
  if (name === "") throw badRequest("requested impersonation without impersonating a user");
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(name);
  const questions: Partial<Attributes>[] = [
    account ? { resource: "serviceaccounts", namespace: account[1]!, name: account[2]! } : { resource: "users", name },
    ...groups.map((group) => ({ resource: "groups", name: group })),
    ...(uid === "" ? [] : [{ group: "authentication.k8s.io", version: "v1", resource: "uids", name: uid }]),
    ...Object.entries(extra).flatMap(([key, values]) =>
      values.map((value) => ({
        group: "authentication.k8s.io",
        version: "v1",
        resource: "userextras",
        subresource: key,
        name: value,
      })),
    ),
  ];
  if (questions.length > maxNames) throw badRequest(`at most ${maxNames} names may be impersonated at once`);
  for (const question of questions) {
    const attributes: Attributes = { ...blank, user, ...question };
    const { verdict, reason } = await authorizer.authorize(attributes);
    if (verdict !== "allow") {
      throw forbidden(
        { group: attributes.group, resource: attributes.resource },
        attributes.name,
        `User ${JSON.stringify(user.name)} cannot impersonate resource ${JSON.stringify(attributes.resource)} in API group ${JSON.stringify(attributes.group)} ${attributes.namespace === "" ? "at the cluster scope" : `in the namespace ${JSON.stringify(attributes.namespace)}`}${reason === "" ? "" : `: ${reason}`}`,
      );
    }
  }
  const implied = account
    ? ["system:serviceaccounts", `system:serviceaccounts:${account[1]}`, "system:authenticated"]
    : name === "system:anonymous"
      ? ["system:unauthenticated"]
      : ["system:authenticated"];
  const all = groups.length > 0 ? [...groups, ...implied.filter((g) => g === "system:authenticated")] : implied;
  return { name, groups: [...new Set(all)], ...(uid === "" ? {} : { uid }), extra };
}

const blank: Omit<Attributes, "user"> = {
  verb: "impersonate",
  resourceRequest: true,
  group: "",
  version: "",
  resource: "",
  subresource: "",
  namespace: "",
  name: "",
  path: "",
};

const single = (value: string | string[] | undefined): string =>
  Array.isArray(value) ? (value[0] ?? "") : (value ?? "");
/** Node joins repeated headers it does not know with a comma. */
const list = (value: string | string[] | undefined): string[] =>
  (Array.isArray(value) ? value : (value ?? "").split(",")).map((part) => part.trim()).filter((part) => part !== "");

function decodeKey(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}
