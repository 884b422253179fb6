// What a method and a path ask for: the resource request or the plain path that authorisation, dispatch and metrics
// speak of. Pure. Upstream counterpart: request.RequestInfoFactory. Paths that are not canonical (dots, empty or
// encoded-slash segments) are refused here, so that nothing behind has to think of them.
import { badRequest } from "#model/status.ts";

export interface RequestInfo {
  readonly isResource: boolean;
  /** Decoded path without a trailing slash. */
  readonly path: string;
  /** get, list, watch, create, update, patch, delete, deletecollection; for plain paths the lower-case method. */
  readonly verb: string;
  readonly group: string;
  readonly version: string;
  readonly namespace: string;
  readonly resource: string;
  readonly subresource: string;
  readonly name: string;
  /** What follows the subresource, still escaped, from its slash on; a slash at the end counts. */
  readonly rest: string;
}

const verbs: Readonly<Record<string, string>> = {
  POST: "create",
  GET: "get",
  HEAD: "get",
  PUT: "update",
  PATCH: "patch",
  DELETE: "delete",
};
/** What a namespace has of its own; anything else behind its name is a resource in it. */
const namespaceSubresources = new Set(["status", "finalize"]);

/** Undefined: not a path this server can have (404). Rejects what is not a path at all (400). */
export function parseRequest(method: string, path: string, query: URLSearchParams): RequestInfo | undefined {
  const raw = path.split("/");
  const segments: string[] = [];
  const escaped: string[] = [];
  for (let i = 1; i < raw.length; i++) {
    const segment = raw[i]!;
    if (segment === "") {
      // A trailing slash is the same path; an empty segment inside is not.
      if (i === raw.length - 1) break;
      // Behind a proxy's own name the path belongs to somebody else.
      if (!segments.includes("proxy")) return undefined;
    }
    let decoded = segment;
    try {
      if (segment.includes("%")) decoded = decodeURIComponent(segment);
    } catch {
      throw badRequest(`invalid URL escape in path segment ${JSON.stringify(segment)}`);
    }
    if (decoded === "." || decoded === ".." || decoded.includes("/") || decoded.includes("\0")) return undefined;
    segments.push(decoded);
    escaped.push(segment);
  }
  const plain: RequestInfo = {
    isResource: false,
    path: `/${segments.join("/")}`,
    verb: method.toLowerCase(),
    group: "",
    version: "",
    namespace: "",
    resource: "",
    subresource: "",
    name: "",
    rest: "",
  };
  let at: number;
  let group = "";
  if (segments[0] === "api" && segments.length >= 3) at = 2;
  else if (segments[0] === "apis" && segments.length >= 4) {
    group = segments[1]!;
    at = 3;
  } else return plain;
  const version = segments[at - 1]!;
  let verb = verbs[method] ?? method.toLowerCase();
  if (segments[at] === "watch" && segments.length > at + 1) {
    verb = "watch";
    at++;
  }
  let namespace = "";
  if (segments[at] === "namespaces" && segments.length > at + 1) {
    namespace = segments[at + 1]!;
    const third = segments[at + 2];
    if (third !== undefined && !namespaceSubresources.has(third)) at += 2;
  }
  const resource = segments[at]!;
  const name = segments[at + 1] ?? "";
  const subresource = segments[at + 2] ?? "";
  if (name === "") {
    if (verb === "get") verb = isTrue(query.get("watch")) ? "watch" : "list";
    else if (verb === "delete") verb = "deletecollection";
  }
  return {
    ...plain,
    isResource: true,
    verb,
    group,
    version,
    namespace,
    resource,
    subresource,
    name: name === "" && (verb === "list" || verb === "watch") ? nameInSelector(query.get("fieldSelector")) : name,
    rest: restOf(escaped.slice(at + 3), path),
  };
}

function restOf(segments: readonly string[], path: string): string {
  const end = path.endsWith("/") ? "/" : "";
  return segments.length === 0 ? end : `/${segments.join("/")}${end}`;
}

/** Go's reading of booleans in queries: present but empty or anything not false is true. */
export const isTrue = (value: string | null): boolean => value !== null && value !== "false" && value !== "0";

/** `metadata.name=x` makes a list a question about one name, for the authoriser too. */
function nameInSelector(selector: string | null): string {
  for (const part of (selector ?? "").split(",")) {
    const match = /^metadata\.name==?([^=!]+)$/.exec(part.trim());
    if (match) return match[1]!;
  }
  return "";
}
