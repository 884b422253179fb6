import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { isApiError, notFound } from "#model/status.ts";
import type { ServerResponse } from "#platform/https-server.ts";
import type { NodeDialer, NodeRequest } from "../node-dialer.ts";
import type { ConnectRequest } from "./connect.ts";
import { containerName, createNodeProxy } from "./node-proxy.ts";

const pod = (containers: string[], init: string[] = [], nodeName = "n1"): Pod =>
  ({
    metadata: { name: "p", namespace: "default" },
    spec: {
      ...(nodeName === "" ? {} : { nodeName }),
      containers: containers.map((name) => ({ name })),
      initContainers: init.map((name) => ({ name })),
    },
  }) as unknown as Pod;

test.each([
  ["the only one", pod(["a"]), "", "a"],
  ["an init container by name", pod(["a"], ["i"]), "i", "i"],
  ["none named of two", pod(["a", "b"]), "", "a container name must be specified for pod p, choose one of: [a b]"],
  [
    "none named of two and one init",
    pod(["a", "b"], ["i"]),
    "",
    "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
  ],
  ["an unknown one", pod(["a"]), "x", "container x is not valid for pod p"],
])("container: %s", (_name, object, asked, expected) => {
  let got: string;
  try {
    got = containerName(object, asked);
  } catch (error) {
    if (!isApiError(error, "BadRequest")) throw error;
    got = error.message;
  }
  expect(got).toBe(expected);
});

interface Answered {
  status: number;
  body: string;
  targets: string[];
  destroyed: boolean;
  error?: unknown;
}

async function ask(
  subresource: string,
  query: string,
  options: { object?: Pod | undefined; status?: number; body?: string; fails?: boolean; method?: string } = {},
): Promise<Answered> {
  const out: Answered = { status: 0, body: "", targets: [], destroyed: false };
  const dialer: NodeDialer = {
    async request(node: string, request: NodeRequest) {
      out.targets.push(`${node} ${request.method} ${request.target}`);
      expect(request.headers).not.toHaveProperty("authorization");
      return {
        status: options.status ?? 200,
        headers: { "content-type": "text/plain; charset=utf-8" },
        body: (async function* () {
          yield Buffer.from(options.body ?? "log\n");
          if (options.fails) throw new Error("gone");
        })(),
      };
    },
    upgrade: () => Promise.reject(new Error("not asked")),
  };
  const response: ServerResponse = {
    headSent: false,
    pendingBytes: 0,
    head: (status) => {
      out.status = status;
    },
    write: (chunk) => {
      out.body += Buffer.from(chunk as Uint8Array).toString();
      return true;
    },
    flushHead: () => {},
    drained: () => Promise.resolve(),
    end: () => {},
    destroy: () => {
      out.destroyed = true;
    },
  };
  const proxy = createNodeProxy({
    dialer,
    log: silentLogger,
    getPod: async (_namespace, name) => {
      if (name !== "p") throw notFound({ group: "", resource: "pods" }, name);
      return options.object ?? pod(["a"]);
    },
  });
  const request = {
    method: options.method ?? "GET",
    resource: "pods",
    subresource,
    namespace: "default",
    name: "p",
    rest: "",
    query: new URLSearchParams(query),
    search: `?${query}`,
    headers: { authorization: "Bearer secret", accept: "*/*" },
    user: { name: "u", groups: [] },
    body: (async function* () {})(),
    signal: new AbortController().signal,
  } as ConnectRequest;
  await proxy.handle(request, response).catch((error: unknown) => {
    out.error = isApiError(error) ? `${error.code} ${error.reason}: ${error.message}` : error;
  });
  return out;
}

test("a log goes to the pod's node, with the options that the node knows and no credentials", async () => {
  const answer = await ask("log", "follow=true&tailLines=5&pretty=true&timestamps=false&container=a");
  expect(answer).toMatchObject({
    status: 200,
    body: "log\n",
    targets: ["n1 GET /containerLogs/default/p/a?follow=true&tailLines=5"],
  });
});

test("the log of a pod without a node is empty", async () => {
  expect(await ask("log", "", { object: pod(["a"], [], "") })).toMatchObject({ status: 200, body: "", targets: [] });
});

test("a node that breaks off in the middle breaks off the answer", async () => {
  expect(await ask("log", "", { fails: true })).toMatchObject({ status: 200, destroyed: true });
});

test.each([
  [
    "log",
    "tailLines=-1",
    {},
    '422 Invalid: PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0',
  ],
  [
    "log",
    "limitBytes=0",
    {},
    '422 Invalid: PodLogOptions "p" is invalid: limitBytes: Invalid value: 0: must be greater than 0',
  ],
  ["log", "tailLines=many", {}, '400 BadRequest: strconv.ParseInt: parsing "many": invalid syntax'],
  ["log", "", { method: "POST" }, '405 MethodNotAllowed: POST is not supported on resources of kind "pods/log"'],
  [
    "log",
    "",
    { status: 400, body: 'container "a" in pod "p" is waiting to start: ContainerCreating' },
    '400 BadRequest: container "a" in pod "p" is waiting to start: ContainerCreating',
  ],
  ["log", "", { status: 500, body: "disk on fire" }, "500 InternalError: Internal error occurred: disk on fire"],
  [
    "log",
    "",
    { status: 403, body: "Forbidden" },
    "500 InternalError: Internal error occurred: node n1 refused the API server's credentials: Forbidden",
  ],
  ["exec", "command=ls", { object: pod(["a"], [], "") }, "400 BadRequest: pod p does not have a host assigned"],
  ["portforward", "", { object: pod(["a"], [], "") }, "400 BadRequest: pod p does not have a host assigned"],
])("%s?%s is refused (case %#)", async (subresource, query, options, error) => {
  expect((await ask(subresource, query, options)).error).toBe(error);
});
