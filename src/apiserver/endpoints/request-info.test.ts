import { describe, expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { parseRequest } from "./request-info.ts";

const parse = (method: string, target: string) => {
  const [path = "", query = ""] = target.split("?");
  return parseRequest(method, path, new URLSearchParams(query));
};

describe("resource requests", () => {
  test.each([
    ["GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""],
    ["GET", "/api/v1/pods?watch=true", "watch", "", "v1", "", "pods", "", ""],
    ["GET", "/api/v1/pods?watch=false", "list", "", "v1", "", "pods", "", ""],
    ["GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list", "", "v1", "", "pods", "", "x"],
    ["GET", "/api/v1/watch/namespaces/a/pods", "watch", "", "v1", "a", "pods", "", ""],
    ["GET", "/api/v1/namespaces/a/pods/x", "get", "", "v1", "a", "pods", "", "x"],
    ["HEAD", "/api/v1/namespaces/a/pods/x", "get", "", "v1", "a", "pods", "", "x"],
    ["GET", "/api/v1/namespaces/a/pods/x/log", "get", "", "v1", "a", "pods", "log", "x"],
    ["GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", ""],
    ["DELETE", "/api/v1/namespaces/a", "delete", "", "v1", "a", "namespaces", "", "a"],
    ["PUT", "/api/v1/namespaces/a/status", "update", "", "v1", "a", "namespaces", "status", "a"],
    ["PUT", "/api/v1/namespaces/a/finalize", "update", "", "v1", "a", "namespaces", "finalize", "a"],
    ["DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection", "apps", "v1", "a", "deployments", "", ""],
    [
      "PATCH",
      "/apis/apps/v1/namespaces/a/deployments/x/scale",
      "patch",
      "apps",
      "v1",
      "a",
      "deployments",
      "scale",
      "x",
    ],
    ["POST", "/api/v1/nodes/", "create", "", "v1", "", "nodes", "", ""],
    [
      "GET",
      "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
      "get",
      "rbac.authorization.k8s.io",
      "v1",
      "",
      "clusterroles",
      "",
      "system:node",
    ],
  ])("%s %s", (method, target, verb, group, version, namespace, resource, subresource, name) => {
    expect(parse(method, target)).toMatchObject({
      isResource: true,
      verb,
      group,
      version,
      namespace,
      resource,
      subresource,
      name,
    });
  });

  test.each(["", "/", "/a//b%20c/d", "/a/"])("what follows a proxy stays as it came: %j", (rest) => {
    const info = parse("GET", `/api/v1/nodes/n/proxy${rest}`);
    expect(info).toMatchObject({ subresource: "proxy", rest });
  });
});

test.each(["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz/ping", "/openapi/v3/api/v1"])(
  "%s is a plain path",
  (path) => {
    expect(parse("GET", path)).toMatchObject({ isResource: false, path, verb: "get" });
  },
);

test.each([
  "/api/v1//pods",
  "/api/v1/namespaces/../pods",
  "/api/v1/namespaces/./pods",
  "/api/v1/namespaces/%2e%2e/pods",
  "/api/v1/namespaces/a%2Fb/pods",
  "/api/v1/pods/a%00b",
])("%s is no path", (path) => {
  expect(parse("GET", path)).toBeUndefined();
});

test("a broken escape is a bad request", () => {
  expect(() => parse("GET", "/api/v1/namespaces/%zz/pods")).toThrow(/invalid URL escape/);
});

// Made-up paths: they are read, are no path, or are refused; and nobody reaches a parent folder, a second name in one
// segment, or from a namespace's path what lies in another.
test.each([1, 2, 3, 4])("whatever the path, its parts are single names (seed %i)", (seed) => {
  const { float } = seededRandom(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(float() * list.length)]!;
  const words = [
    "api",
    "apis",
    "v1",
    "apps",
    "namespaces",
    "a",
    "pods",
    "status",
    "proxy",
    "watch",
    "..",
    ".",
    "",
    "%2e%2e",
  ];
  words.push(
    "%2F",
    "a%2Fb",
    "%00",
    "%zz",
    "%",
    "%C3%A9",
    "é",
    "a b",
    "a%20b",
    "__proto__",
    "x?y",
    "%3F",
    "finalize",
    "log",
  );
  let resources = 0;
  for (let i = 0; i < 20_000; i++) {
    const start = pick(["/api/v1/", "/apis/apps/v1/", "/api/v1/namespaces/one/", "/"]);
    const path = start + Array.from({ length: Math.floor(float() * 7) }, () => pick(words)).join("/");
    let info: ReturnType<typeof parse>;
    try {
      info = parse(pick(["GET", "POST", "DELETE", "PATCH"]), path);
    } catch (error) {
      expect(error, path).toMatchObject({ status: { code: 400 } });
      continue;
    }
    if (!info?.isResource) continue;
    resources++;
    for (const part of [info.group, info.version, info.namespace, info.resource, info.subresource, info.name]) {
      expect([path, part === "." || part === ".." || /[/\0]/.test(part)]).toEqual([path, false]);
    }
    if (path.startsWith("/api/v1/namespaces/one/")) expect([path, info.namespace]).toEqual([path, "one"]);
  }
  expect(resources).toBeGreaterThan(1000);
});
